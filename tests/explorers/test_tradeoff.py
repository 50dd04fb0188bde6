"""The trade-off explorer: its controls, lists and downloads stay in step with the state."""

import asyncio
import html
import io
import re

import numpy as np
import pandas as pd
import pytest
import traitlets
from explored import (
    answer_of,
    find,
    picture,
    tradeoff_of_high_norm,
    tradeoff_of_tokens,
    without_tags,
)
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers import links
from embvar_kit.explorers.rendering import png_of


def test_texts_share_what_makes_them_look_alike(explorer):
    """Each layout and each style is a widget that is sent when the explorer opens."""
    numbers = find(explorer, "embvar-numbers")
    for css in ("message", "moved-title"):
        other = find(explorer, f"embvar-{css}")
        assert other.layout is numbers.layout and other.style is numbers.style
    explorer.state.search = "zzzz"
    assert find(explorer, "embvar-matches").head.layout is numbers.layout
    assert numbers.layout.display is None, "nothing that is shown or hidden shares it"


def test_comparing_layers_lists_the_tokens_that_moved(explorer):
    state = explorer.state
    moved = find(explorer, "embvar-moved")
    assert moved.options == ()
    find(explorer, "embvar-compare").value = 5
    assert state.compare == 5
    expected = state.moved()["token"].tolist()
    assert [token for _, token in moved.options] == expected
    assert "From layer 2 to layer 5" in find(explorer, "embvar-moved-title").value
    lines = [text for text, _ in moved.options]
    head = without_tags(moved.head.value)
    assert head.split() == ["token", "distance", "M", "V"]
    assert {len(line) for line in lines} == {len(head)}, "columns stand below their heads"
    moved.value = expected[1]
    assert (state.marked, state.token) == ([expected[1]], expected[1])
    assert len(explorer.plot.widget.annotations) == 2  # the regression line and the trail
    find(explorer, "embvar-compare").value = -1
    assert state.compare is None and moved.options == ()


def test_the_tokens_farthest_from_the_line_are_listed_and_can_be_chosen(explorer):
    far, state = find(explorer, "embvar-residuals"), explorer.state
    wanted = state.residuals()
    assert [token for _, token in far.options] == wanted["token"].tolist()
    assert without_tags(far.head.value).split() == ["token", "residual", "M", "V"]
    assert re.search(r"[+−][\d.,]+", far.options[0][0])
    state.layer = 5
    assert [token for _, token in far.options] == state.residuals()["token"].tolist()
    far.value = far.options[2][1]
    assert state.token == state.marked[0] == state.residuals()["token"][2]


def test_a_refused_range_is_named_and_the_last_valid_one_stays(explorer, stats):
    slider, state = find(explorer, "embvar-counts"), explorer.state
    assert 100 < stats.n.max() < 50_000
    for least in (50, 100, 50_000):
        slider.value = (least, 100_000)
    assert slider.value == state.counts == (100, 100_000)
    assert find(explorer, "embvar-message").value == (
        "No token occurs 50,000 to 100,000 times. The range stays: 100 to 100,000 times."
    )
    slider.value = (10, 100_000)
    assert find(explorer, "embvar-message").value == ""


def test_a_slider_returns_from_a_refused_range_once_it_rests(explorer):
    slider, state = find(explorer, "embvar-counts"), explorer.state

    async def press_quickly():
        for least in (50, 50_000, 100, 20_000, 50_000):  # a range without tokens between two others
            slider.value = (least, 100_000)
        assert (slider.value[0], state.counts[0]) == (50_000, 100)
        await asyncio.sleep(1.5)
        assert slider.value[0] == state.counts[0] == 100
        assert "The range stays: 100 to 100,000" in find(explorer, "embvar-message").value

    asyncio.run(press_quickly())


def test_the_slider_offers_what_is_known_of_the_model_shown(stats):
    known = ek.cached_statistics("smollm2", progress=False)
    assert known.least_count == 10

    def offered(explorer):
        slider = find(explorer, "embvar-counts")
        return [n for _, n in slider.options][:2], slider.value

    explorer = ek.TradeoffExplorer({"minilm": stats, "smollm2": known}, counts=(5, 7_000))
    assert offered(explorer) == ([1, 2], (5, 7_000))
    explorer.state.model = "smollm2"
    assert offered(explorer) == ([10, 20], (10, 7_000)) and explorer.state.counts == (10, 7_000)
    find(explorer, "embvar-counts").value = (20, 7_000)
    explorer.state.model = "minilm"
    assert offered(explorer) == ([1, 2], (20, 7_000))
    explorer.state.model = "smollm2"
    assert offered(explorer) == ([10, 20], (20, 7_000))
    with pytest.raises(traitlets.TraitError, match="fewer than 10 times are not known here: start"):
        explorer.state.counts = (5, None)
    linked = ek.LinkedExplorer({"minilm": stats, "smollm2": known})
    assert offered(linked)[0] == [10, 20]
    linked.state.right.model = "minilm"
    assert offered(linked)[0] == [1, 2]
    linked.state.counts = (5, None)
    linked.state.left.model = "smollm2"
    assert offered(linked) == ([10, 20], linked.state.counts) and linked.state.counts[0] == 10
    with pytest.raises(traitlets.TraitError, match="The left panel: Tokens that occur fewer"):
        linked.state.counts = (5, None)


def test_all_marked_tokens_are_listed(explorer):
    explorer.state.search = "*e*"
    marked = explorer.state.marked
    assert len(marked) > 12
    shown = find(explorer, "embvar-marked").value
    assert shown.count("<tr>") == min(len(marked), 200) + 2, "with the heads and the means"
    often = explorer.marked.nlargest(200, "n")["token"]
    assert all(f"<td>{html.escape(token)}</td>" in shown for token in often)
    assert ("more</p>" in shown) == (len(marked) > 200)


def test_a_rejected_value_resets_the_control_and_shows_the_reason(explorer):
    explorer.state.counts = (1, None)
    box = find(explorer, "embvar-unbiased")
    box.value = True
    assert (box.value, explorer.state.unbiased) == (False, False)
    assert "two occurrences" in find(explorer, "embvar-message").value
    explorer.state.counts = (7, 300)  # not among the slider's numbers: added to them
    assert find(explorer, "embvar-counts").value == (7, 300)
    box.value = True
    assert explorer.state.unbiased and find(explorer, "embvar-message").value == ""


def test_the_controls_follow_another_model(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2], progress=False)
    explorer = ek.TradeoffExplorer({"all": stats, "few": few}, counts=(3, None), layer=6)
    find(explorer, "embvar-model").value = "few"
    assert find(explorer, "embvar-layer").max == 2
    assert [layer for _, layer in find(explorer, "embvar-compare").options] == [-1, 0, 2]
    assert find(explorer, "embvar-compare").value == -1
    assert len(explorer.plot.widget.points) == len(few.table(0, min_count=3))
    layer = find(explorer, "embvar-layer")
    layer.value = 1  # not extracted: rejected
    assert layer.value == explorer.state.layer == 2


def test_an_explorer_of_two_tokens_is_shown_without_a_picture(stats):
    explorer = ek.TradeoffExplorer(stats.take(np.arange(2)), counts=(1, None))
    bundle, _ = explorer._repr_mimebundle_()
    assert "image/png" not in bundle and "there is no picture: " in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_marked_tokens_come_out_as_a_table(explorer, stats, monkeypatch):
    downloads, state = find(explorer, "embvar-downloads"), explorer.state
    assert answer_of(downloads, "CSV")[0]["told"].startswith("No token is marked")
    state.search = "the of"
    marked = explorer.marked
    assert marked["token"].tolist() == ["the", "of"]
    expected = stats.table(2, min_count=5).set_index("token").loc[["the", "of"]]
    np.testing.assert_allclose(marked[["n", "Q", "M", "V"]], expected[["n", "Q", "M", "V"]])
    told, (content,) = answer_of(downloads, "CSV")
    assert told["name"] == "tradeoff-minilm-layer2-marked.csv"
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(content)), marked, check_dtype=False)
    shell = InteractiveShell.instance()
    try:
        shell.user_ns["mine"] = explorer
        state.layer = 3
        assert "<code>mine.marked</code>" in find(explorer, "embvar-marked").value
        del shell.user_ns["mine"]
        shell.user_ns["Out"] = {7: explorer}
        state.layer = 4
        assert "<code>Out[7].marked</code>" in find(explorer, "embvar-marked").value
    finally:
        InteractiveShell.clear_instance()


def test_the_figure_comes_out_with_axes_and_marked_names(explorer):
    downloads = find(explorer, "embvar-downloads")
    explorer.state.search = "the of"
    told, (svg,) = answer_of(downloads, "SVG")
    assert told["name"] == "tradeoff-minilm-layer2.svg"
    text = svg.decode()  # letters are drawn as outlines, with the text as a comment
    for written in ("$V(X_t)$", "$M(X_t)$", r"$\log_{10} n_t$", "slope"):
        assert written in text
    assert len(svg) < 1_500_000
    explorer.state.clear()
    assert len(answer_of(downloads, "SVG")[1][0]) < len(svg), "without rings and names"
    explorer.state.search = "the of"
    told, (png,) = answer_of(downloads, "PNG")
    image = Image.open(io.BytesIO(png))
    assert told["type"] == "image/png" and image.width > 1400
    colours = {colour for _, colour in image.convert("RGB").getcolors(1_000_000)}
    assert (0xD5, 0x5E, 0x00) in colours, "the rings around marked tokens"


def test_the_state_comes_out_as_code_that_restores_it(stats):
    explorer = ek.TradeoffExplorer({"one": stats, "other": stats}, counts=(5, None), layer=2)
    state = explorer.state
    state.model, state.counts, state.unbiased = "other", (20, 5_000), True
    state.compare, state.scales, state.special, state.marked = 4, "own", False, ["the", "of"]
    values, code = state.values(), answer_of(find(explorer, "embvar-downloads"), "code")[0]["code"]
    again = ek.TradeoffExplorer({"one": stats, "other": stats}, counts=(1, None), special=False)
    again.state.search = "and"
    exec(code, {"explorer": again})
    assert again.state.values() == values
    again.state.restore(counts=(1, None), unbiased=False)
    assert again.state.counts == (1, None)
    with pytest.raises(traitlets.TraitError, match="no value 'colour'"):
        again.state.restore(colour="red")
    before = again.state.values()
    with pytest.raises(traitlets.TraitError, match="Layer 99"):
        again.state.restore(model="one", counts=(7, 9), special=True, only=None, layer=99)
    assert again.state.values() == before


def test_high_norm_tokens_are_left_out_by_a_box_and_so_in_what_comes_out():
    made = tradeoff_of_high_norm()
    explorer = ek.TradeoffExplorer(made, counts=(1, None))
    box = find(explorer, "embvar-sinks")
    assert box.value and "ten times the median" in box.tooltip
    explorer.state.marked = ["t3", "t4"]
    assert explorer.marked["token"].tolist() == ["t3", "t4"]
    with_all = len(explorer.plot.widget.points)
    box.value = False
    assert explorer.state.sinks is False
    assert explorer.marked["token"].tolist() == ["t4"]
    assert len(explorer.plot.widget.points) == with_all - 1
    shown = find(explorer, "embvar-marked").value
    assert "Not shown: 1 marked token (outside the range or the filter, or of high norm)" in shown
    (drawn, *_) = explorer.figure().axes
    named = {text.get_text() for text in drawn.texts}
    assert "t4" in named and "t3" not in named
    code = answer_of(find(explorer, "embvar-downloads"), "code")[0]["code"]
    assert "sinks=False" in code
    again = ek.TradeoffExplorer(made, counts=(1, None))
    exec(code, {"explorer": again})
    assert again.state.values() == explorer.state.values()
    link = links.query_of("tradeoff", explorer.state.values())
    by_link = ek.TradeoffExplorer(made, counts=(1, None))
    by_link.follow_link(link)
    assert by_link.state.values() == explorer.state.values()
    box.value = True
    assert explorer.marked["token"].tolist() == ["t3", "t4"]


def test_a_long_token_leaves_room_for_the_plot_and_the_lists():
    long = "-" * 2000
    explorer = ek.TradeoffExplorer(tradeoff_of_tokens([long, "b", "c", "d"]), counts=(1, None))
    state = explorer.state
    state.marked, state.token = [long, "b"], long
    assert explorer.wait()
    far = find(explorer, "embvar-residuals")
    assert long in [token for _, token in far.options]
    assert max(len(text) for text, _ in far.options) < 80
    figure = explorer.figure()
    png_of(figure)
    assert figure.axes[0].get_position().width > 0.5
    profile = find(explorer, "embvar-card-profile")
    image = np.asarray(Image.open(io.BytesIO(picture(profile))).convert("RGB"))
    colours = [tuple(bytes.fromhex(ek.figures.COLOURS[name][1:])) for name in "QMV"]
    assert all((image == colour).all(axis=2).sum() > 5 for colour in colours), "the curves"
