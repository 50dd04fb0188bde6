"""The trade-off explorer's colours and filter by a column: of the statistics, or one's own."""

from __future__ import annotations

import dataclasses
import io
import re
import time

import numpy as np
import pandas as pd
import pytest
import tokenizers
import traitlets
from explored import find
from matplotlib.colors import to_hex
from transformers import PreTrainedTokenizerFast

import embvar_kit as ek
from embvar_kit.corpora.tokens import group_vocabulary, word_pieces
from embvar_kit.explorers.columns import column_of
from embvar_kit.explorers.shading import SHADES, Shading
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.statistics import analysis


@pytest.fixture(scope="module")
def stats():
    """Statistics of the whole excerpt: those of a few sentences have hardly a number in them."""
    return ek.cached_statistics("minilm", progress=False)


def drawn_colours(explorer) -> list[str]:
    """The colour of each point, as the browser picks it from what it is sent."""
    widget = explorer.plot.widget
    places = widget.points[:, 2].astype(np.float32)
    numbers = np.floor(places * np.float32(len(widget.color) - 1)).astype(int)
    assert explorer.plot.scatter.color()["by"] is not None and widget.color_by == "valueA"
    return [to_hex(widget.color[i]) for i in numbers]


def is_number(token: str) -> bool:
    return any(map(str.isnumeric, token)) and not any(map(str.isalpha, token))


def swatches(explorer) -> dict[str, str]:
    return dict(explorer.plot._axes.legend["swatches"])


# Columns of the statistics


def test_columns_of_the_statistics_are_offered_where_they_know_them(stats, minilm, corpus):
    names = set(TradeoffState(stats).columns.offered(stats))
    assert names == {"n", "characters", "residual", "Q", "documents"}
    explorer = ek.TradeoffExplorer(stats, minilm, corpus)
    assert set(explorer.state.columns.offered(stats)) == names | {"piece"}
    merged = dataclasses.replace(stats, counts={})
    state = TradeoffState(merged)
    assert "documents" not in state.columns.offered(merged)
    with pytest.raises(traitlets.TraitError, match="do not know in which documents"):
        state.colour_by = "documents"
    with pytest.raises(traitlets.TraitError, match="'piece' needs the model's vocabulary"):
        state.colour_by = "piece"
    assert state.colour_by == "n"


def test_whole_words_and_pieces_are_those_of_the_vocabulary(stats, minilm):
    pieces = word_pieces(minilm.tokenizer)
    vocabulary = set(minilm.tokenizer.get_vocab())
    for label, kind in pieces.items():
        whole, piece = label in vocabulary, f"##{label}" in vocabulary
        assert kind == {(1, 0): "whole word", (0, 1): "sub-word", (1, 1): "both"}[whole, piece]
    shared = set(group_vocabulary(minilm.tokenizer).shared)
    assert {label for label, kind in pieces.items() if kind == "both"} == shared
    assert word_pieces(minilm.tokenizer, "id")["##ing"] == "sub-word"
    column = column_of(stats, "piece", minilm.tokenizer)
    named = np.array(column.categories)[column.values.astype(int)]
    kinds = dict(zip(stats.tokens, named, strict=True))
    assert (kinds["which"], kinds["the"], kinds["[CLS]"]) == ("whole word", "both", "special token")
    assert kinds["."] == kinds["1"] == "no letters"


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_what_lacks_the_marker_of_a_words_start_is_a_piece(loaded, family):
    pieces = word_pieces(loaded(family).tokenizer, "id")
    marked = {token for token in pieces if token.startswith(("Ġ", "▁"))}
    assert marked and {pieces[token] for token in marked} == {"whole word"}
    assert {kind for token, kind in pieces.items() if token not in marked} == {"sub-word"}


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        (
            ["low</w>", "low", "est</w>", "ne"],
            {"low": "both", "est": "whole word", "ne": "sub-word"},
        ),
        (["low@@", "low", "est", "ne@@"], {"low": "both", "est": "whole word", "ne": "sub-word"}),
        (["low", "est"], {}),
    ],
)
def test_markers_at_the_end_tell_pieces_too(vocabulary, expected):
    model = tokenizers.models.WordLevel({one: i for i, one in enumerate(vocabulary)}, "low")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model))
    assert word_pieces(tokenizer) == expected


def test_characters_are_told_by_the_text():
    tokens = ["the", "Ã©", "Ã", "12", "Â½", "...", "$", "Ġ", "[CLS]", "a1"]
    state_of = {
        "tokens": np.array(tokens, dtype=object),
        "special": np.array([0] * 8 + [1, 0], bool),
    }
    known = ek.TokenStatistics(
        **state_of,
        layers=np.arange(1),
        n=np.arange(10, 20)[::-1].copy(),
        **{name: np.ones((1, 10)) for name in "QMV"},
        mean=None,
        extra=None,
        info={"byte_level": {"verbatim": ["[CLS]"]}},
    )
    column = column_of(known, "characters")
    found = [column.categories[int(code)] for code in column.values]
    assert found == [
        *("letters", "letters", "other", "digits", "digits", "punctuation", "punctuation"),
        *("other", "special token", "letters"),
    ]


def test_a_loaded_vocabulary_must_be_that_of_the_statistics(stats, minilm):
    state = ek.TradeoffExplorer(stats, recall=True).state
    state.colour_by = "piece"
    given = column_of(stats, "piece", minilm.tokenizer)
    np.testing.assert_array_equal(state.columns.of(stats, "piece").values, given.values)
    info = {**stats.info, "model": {**stats.info["model"], "tokenizer": "another"}}
    other = dataclasses.replace(stats, info=info)
    with pytest.raises(traitlets.TraitError, match="tokenizer of 'minilm' has changed"):
        ek.TradeoffExplorer(other, recall=True, colour_by="piece")
    both = ek.TradeoffExplorer({"one": stats, "other": other}, recall=True, colour_by="piece").state
    with pytest.raises(traitlets.TraitError, match="tokenizer of 'minilm' has changed"):
        both.model = "other"  # which the vocabulary that is loaded by now does not fit either
        both.colour_by = "piece"


# Colours


def test_residuals_have_the_colours_of_their_sign_at_the_layer_shown(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, colour_by="residual")
    for layer in (2, 5):
        explorer.state.layer = layer
        table = stats.table(layer, min_count=5)[::-1]
        fit = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
        far = (table["V"] - fit.intercept - fit.slope * table["M"]).to_numpy()
        shown = np.array([[int(c[i : i + 2], 16) for i in (1, 5)] for c in drawn_colours(explorer)])
        clear = np.abs(far) > np.quantile(np.abs(far), 0.8)
        assert clear.sum() > 10
        np.testing.assert_array_equal(
            np.sign(shown[clear, 0] - shown[clear, 1]), np.sign(far[clear])
        )
        legend = explorer.plot._axes.legend
        assert [at for at, _ in legend["marks"]] == [0, 0.5, 1] and legend["marks"][1][1] == "0"
        assert legend["title"] == "<i>V</i> minus the line, squared norm"


def test_each_category_has_its_own_colour_and_those_without_a_value_are_grey(stats):
    tokens = stats.table(2, min_count=5)["token"].astype(str)
    own = pd.Series(["x", "y", None] * len(tokens), index=range(3 * len(tokens)))[: len(tokens)]
    own.index = tokens
    own.name = "class <b>"
    explorer = ek.TradeoffExplorer(stats, columns=own, counts=(5, None), colour_by="class <b>")
    of = {**swatches(explorer), None: swatches(explorer)["no value"]}
    assert len(set(of.values())) == 3 and set(of) == {"x", "y", "no value", None}
    shown = dict(zip(explorer.state.points.tokens, drawn_colours(explorer), strict=True))
    assert {t: of[None if kind is np.nan else kind] for t, kind in own.items()} == shown
    assert explorer.plot._axes.legend["title"] == "class &lt;b&gt;"
    explorer.state.layer = 4
    assert drawn_colours(explorer) == [shown[t] for t in explorer.state.points.tokens]


def test_numbers_keep_their_order_in_colours_and_the_legend_tells_their_ends(stats):
    numbers = pd.Series(np.arange(len(stats), dtype=float), index=stats.tokens, name="rank")
    numbers.iloc[::7] = np.nan
    explorer = ek.TradeoffExplorer(stats, columns=numbers, counts=(5, None), colour_by="rank")
    column = explorer.state.column()
    places = np.floor(explorer.plot.widget.points[:, 2] * (SHADES - 1))
    none = np.isnan(column.values)
    assert none.any() and (places[none] == SHADES - 1).all() and (places[~none] < SHADES - 1).all()
    order = np.argsort(column.values[~none])
    assert (np.diff(places[~none][order]) >= 0).all() and len(set(places)) > 50
    marks = [float(text.replace(",", "")) for _, text in explorer.plot._axes.legend["marks"]]
    assert marks[0] == pytest.approx(np.nanmin(column.values), rel=0.01)
    assert marks[-1] == pytest.approx(np.nanmax(column.values), rel=0.01)


def test_the_first_colours_are_those_of_the_occurrences(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None))
    n = explorer.state.points.n
    places = explorer.plot.widget.points[:, 2]
    low, high = np.floor(np.log10(n.min())), np.ceil(np.log10(n.max()))
    np.testing.assert_allclose(places, (np.log10(n) - low) / (high - low), atol=1.01 / (SHADES - 1))


def test_marks_keep_their_colour_under_another_column(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None))
    explorer.state.marked = ["the"]
    for name in ("characters", "residual", "Q"):
        explorer.state.colour_by = name
        widget = explorer.plot.widget
        assert {to_hex(colour) for colour in widget.color_selected} == {"#d55e00"}
        assert explorer.state.points.tokens[widget.selection].tolist() == ["the"]


def test_a_figure_has_the_colours_and_says_what_they_are(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, colour_by="residual")
    explorer.state.only = "characters", "letters"
    figure = explorer.figure()
    ax, bar = figure.axes
    points = ax.collections[0]
    far = dict(zip(explorer.state.points.tokens, explorer.state.column().values, strict=True))
    by_place = {
        tuple(row): far[t]
        for t, row in explorer.state.table().set_index("token")[["M", "V"]].iterrows()
    }
    for place, value in zip(points.get_offsets(), points.get_array(), strict=True):
        assert by_place[tuple(place)] == value
    assert bar.get_ylabel() == "V minus the line, squared norm"
    assert "letters or punctuation: letters" in ax.get_title()
    explorer.state.colour_by = "characters"
    assert explorer.figure().axes[1].get_yticklabels()[0].get_text() == "letters"


# The filter


def test_a_filter_leaves_its_tokens_and_the_line_is_theirs(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    state = explorer.state
    state.search = "the 1"
    assert state.marked == ["the", "1"]
    state.only = "characters", "digits"
    kept = stats.table(2, min_count=5)
    kept = kept[[is_number(token) for token in kept["token"]]]
    assert sorted(state.table()["token"]) == sorted(kept["token"])
    fit = analysis.tradeoff(*(kept[name].to_numpy() for name in "QMV"))
    assert (state.fit["slope"], state.fit["r2"]) == pytest.approx((fit.slope, fit.r2))
    text = re.sub("<[^>]*>", "", find(explorer, "embvar-numbers").value)
    assert f"{len(kept)} tokens (letters or punctuation: digits), slope −{-fit.slope:.3f}" in text
    assert explorer.marked["token"].tolist() == ["1"]
    assert (
        "Not shown: 1 marked token (outside the range or the filter)"
        in find(explorer, "embvar-marked").value
    )
    assert state.search_report() == (
        "'the' is outside the filter (letters or punctuation: digits)."
    )
    state.search = "th*"
    assert re.fullmatch(r"Outside the range or the filter: \d+ tokens .*", state.search_report())
    state.only = None
    assert len(state.points.n) > len(kept) and "(" not in explorer._fit_text()


def test_a_range_holds_its_ends(stats):
    state = TradeoffState(stats, counts=(5, None))
    documents = dict(zip(stats.tokens, stats.documents, strict=True))
    state.only = "documents", (3, 7)
    found = {documents[t] for t in state.points.tokens}
    assert found == {3, 4, 5, 6, 7}
    whole = state.columns.of(stats, "documents").ends()
    state.only = "documents", whole
    assert len(state.points.n) == len(stats.table(0, min_count=5))


@pytest.mark.parametrize("low", [0.1, 0.30000000000000004, 1 / 3, 123456.7, 1e-9])
def test_a_range_over_all_leaves_no_token_out(stats, low):
    numbers = pd.Series(np.geomspace(low, low * 1.7, len(stats)), index=stats.tokens, name="x")
    state = TradeoffState(stats, numbers, counts=(1, None))
    state.only = "x", state.columns.of(stats, "x").ends()
    assert len(state.points.n) == len(stats)


def test_a_filter_is_in_the_code_and_in_a_link(stats, monkeypatch):
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/")
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), only=("documents", (3, 50)))
    explorer.state.colour_by = "characters"
    values, code = explorer.state.values(), explorer.code
    assert "only=('documents', (3.0, 50.0))" in code and "colour_by='characters'" in code
    again = ek.TradeoffExplorer(stats, counts=(1, None), only=("characters", "digits"))
    exec(code, {"explorer": again})
    assert again.state.values() == values
    linked = ek.TradeoffExplorer(stats)
    linked.follow_link(explorer._link())
    assert linked.state.values() == values
    assert find(linked, "embvar-message").value == ""
    linked.follow_link("tradeoff=%7B%22only%22:[%22characters%22,%22runes%22]%7D")
    assert "no category" in find(linked, "embvar-message").value
    assert linked.state.values() == values


@pytest.mark.parametrize(
    ("only", "why"),
    [
        ("characters", "is no filter"),
        (("characters", "runes"), "no category 'runes', only letters"),
        (("documents", "many"), "no range of finite numbers"),
        (("documents", (7, 3)), "no range of finite numbers"),
        (("documents", (float("nan"), 3)), "no range of finite numbers"),
        (("documents", (0, float("inf"))), "no range of finite numbers"),
        (("documents", (True, 50)), "no range of finite numbers"),
        (("n", (10, 50)), "use counts="),
        (("residual", (0, 1)), "differs from layer to layer"),
        (("tone", "high"), "no column 'tone', only n, "),
        (("documents", (7000, 9000)), "leaves no token .* stays: all tokens"),
    ],
)
def test_what_is_no_filter_is_refused(stats, only, why):
    state = TradeoffState(stats, counts=(5, None))
    with pytest.raises(traitlets.TraitError, match=why):
        state.only = only
    assert state.only is None


def test_another_model_keeps_a_filter_that_fits_it(stats):
    other = dataclasses.replace(stats, counts={})
    state = TradeoffState({"one": stats, "other": other}, counts=(5, None), colour_by="documents")
    state.only = "documents", (3, 50)
    state.model = "other"
    assert state.only is None and state.colour_by == "n"
    state.model = "one"
    state.only = "characters", "digits"
    state.model = "other"
    assert state.only == ("characters", "digits")


# A column of one's own


def alike(column):
    """Categories of which two are written alike: the number 1 and the text 1."""
    values = pd.Categorical.from_codes(np.arange(len(column)) % 3, [1, "1", "b"])
    return pd.Series(values, index=column.index, name=column.name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.to_numpy(), "not a ndarray"),
        (lambda c: c.reset_index(drop=True), "indexed by token, a string each"),
        (lambda c: pd.concat([c, c[:2]]), "more than once"),
        (lambda c: pd.concat([c, pd.Series([1.0], index=["zzzqq"])]), "do not hold.*'zzzqq'"),
        (lambda c: c[:0], "is empty"),
        (lambda c: c * np.inf, "infinite values"),
        (lambda c: c * np.nan, "has no value"),
        (lambda c: c + 1j, "neither numbers only nor texts only"),
        (lambda c: c.astype(object).mask(c < 2, "x"), "neither numbers only nor texts only"),
        (lambda c: pd.to_datetime(c), "neither numbers only nor texts only"),
        (lambda c: c.astype(int).astype(str), "categories, and 8 can be told apart"),
        (lambda c: alike(c), "two categories written alike"),
        (lambda c: c.rename("Q"), "'Q' has the name of one of the explorer's own"),
        (lambda c: c.rename(7), "named 7: give it a text"),
        (lambda c: pd.concat([c, c], axis=1), "two columns of the same name"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_by_name(stats, change, why):
    column = pd.Series(np.arange(20.0), index=stats.tokens[:20].astype(str), name="mine")
    with pytest.raises(ek.StatisticsError, match=why):
        ek.TradeoffExplorer(stats, columns=change(column))


def test_own_columns_of_several_kinds_can_be_used(stats):
    tokens = stats.tokens[:9].astype(str)
    table = pd.DataFrame(
        {
            "flag": [True, False, True] * 3,
            "level": pd.Categorical(["low", "high", None] * 3, ["low", "middle", "high"]),
            "number": pd.array([1, 2, None] * 3, dtype="Int64"),
            "still": 5.0,
        },
        index=tokens,
    )
    state = TradeoffState(stats, table, counts=(1, None))
    assert state.columns.of(stats, "flag").categories == ("yes", "no")
    assert state.columns.of(stats, "level").categories == ("low", "high")
    state.only = "flag", "yes"
    assert sorted(state.points.tokens) == sorted(tokens[[0, 2, 3, 5, 6, 8]])
    state.only = "number", (2, 2)
    assert sorted(state.points.tokens) == sorted(tokens[[1, 4, 7]])
    state.only = None
    state.colour_by = "still"
    assert Shading(state.column()).places().max() <= 1
    lacking = stats.without(tokens)
    both = TradeoffState({"one": stats, "other": lacking}, table)
    assert "flag" in both.columns.offered(stats) and "flag" not in both.columns.offered(lacking)


# The controls


def test_the_options_come_when_asked_for_and_follow_the_state(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), columns=own_numbers(stats))
    state, more = explorer.state, find(explorer, "embvar-more")
    with pytest.raises(AssertionError, match="0 widgets of class embvar-colour"):
        find(explorer, "embvar-colour")
    more.click()
    colour, by = find(explorer, "embvar-colour"), find(explorer, "embvar-only-by")
    colour.value = "Q"
    assert state.colour_by == "Q"
    state.colour_by = "mine"
    assert colour.value == "mine"
    by.value = "characters"
    assert state.only == ("characters", "letters")
    find(explorer, "embvar-only-category").value = "digits"
    assert state.only == ("characters", "digits")
    by.value = "mine"
    assert state.only == ("mine", state.columns.of(stats, "mine").ends())
    slider = find(explorer, "embvar-only-range")
    slider.value = [number for _, number in slider.options[2:4]]
    assert state.only[1] == slider.value
    state.only = "mine", (0.12345, 0.5)
    assert slider.value == (0.12345, 0.5)
    slider.value = (slider.options[1][1], slider.options[1][1])
    assert "leaves no token" in find(explorer, "embvar-message").value
    assert state.only == ("mine", (0.12345, 0.5)) and slider.value == (0.12345, 0.5)
    by.value = ""
    assert state.only is None and find(explorer, "embvar-only").children == ()
    more.click()
    assert more.description == "more options" and more.layout.display is None


def test_the_vocabulary_of_each_model_shown_is_prepared(stats):
    smollm2 = ek.cached_statistics("smollm2", progress=False)
    explorer = ek.TradeoffExplorer({"one": stats, "other": smollm2}, recall=True)
    find(explorer, "embvar-more").click()
    made = explorer.state.columns._made
    for model, shown in (("one", stats), ("other", smollm2)):
        explorer.state.model = model
        until = time.monotonic() + 60
        while (id(shown), "piece") not in made and time.monotonic() < until:
            time.sleep(0.05)
        assert (id(shown), "piece") in made


def own_numbers(stats) -> pd.Series:
    numbers = pd.Series(0.5, index=stats.tokens.astype(str), name="mine")
    numbers.iloc[0], numbers.iloc[-1] = 0.0, 1.0
    return numbers


def test_a_filter_set_from_code_shows_its_controls(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None))
    explorer.state.only = "characters", "digits"
    assert find(explorer, "embvar-only-category").value == "digits"
    opened = ek.TradeoffExplorer(stats, counts=(5, None), colour_by="residual")
    assert find(opened, "embvar-colour").value == "residual"


def test_the_options_follow_another_model(stats):
    other = dataclasses.replace(stats, counts={})
    explorer = ek.TradeoffExplorer({"one": stats, "other": other}, counts=(5, None))
    explorer.state.only = "documents", (3, 50)
    explorer.state.model = "other"
    names = [name for _, name in find(explorer, "embvar-colour").options]
    assert "documents" not in names and find(explorer, "embvar-only-by").value == ""
    assert find(explorer, "embvar-only").children == ()
    assert explorer.state.only is None
    assert io.BytesIO(explorer.still()).read(4) == b"\x89PNG"
