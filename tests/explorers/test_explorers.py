"""Explorers: the state has the numbers of the analysis, and state and view stay in step."""

import asyncio
import html
import io
import re
import threading
import time

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import traitlets
from brute_force import two_pass
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers import base, rendering
from embvar_kit.explorers.controls import CountsSlider
from embvar_kit.explorers.layers_state import LayerState
from embvar_kit.explorers.playground import CloudState
from embvar_kit.explorers.tradeoff_plot import MARK
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.extraction.embeddings import Occurrences
from embvar_kit.figures.token import moments_of_token, occurrences_in_plane


@pytest.fixture(scope="module")
def model(minilm):
    return minilm


@pytest.fixture(scope="module")
def stats(sites):
    return sites["hidden"]


@pytest.fixture(autouse=True)
def no_pyplot_figures():
    """Explorers draw without pyplot: a figure left there would be shown by the next cell."""
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


def find(explorer, css):
    """The explorer's only widget with this CSS class."""
    found = []

    def walk(widget):
        if css in getattr(widget, "_dom_classes", ()):
            found.append(widget)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    assert len(found) == 1, f"{len(found)} widgets of class {css}"
    return found[0]


def without_tags(text: str) -> str:
    return html.unescape(re.sub("<[^>]*>", "", text))


def controls(explorer) -> list[widgets.Widget]:
    found = []

    def walk(widget):
        if hasattr(widget, "value") and not isinstance(widget, (widgets.HTML, widgets.Image)):
            found.append(widget)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    return found


def picture(widget) -> bytes:
    data = bytes(widget.value)
    assert data.startswith(b"\x89PNG")
    return data


# The playground and the player


def test_the_cloud_has_the_mean_and_spread_that_are_set():
    playground = ek.VariancePlayground()
    state = playground.state
    state.mean_1, state.mean_2, state.spread_1, state.spread_2 = -1.0, 2.0, 0.5, 1.5
    cloud = state.cloud()
    np.testing.assert_allclose(cloud.mean(axis=0), [-1, 2], atol=1e-12)
    np.testing.assert_allclose(cloud.std(axis=0), [0.5, 1.5])
    assert [state.moments[name] for name in "QMV"] == pytest.approx([7.5, 5.0, 2.5])


def test_state_and_sliders_follow_each_other_and_the_picture_follows_both():
    playground = ek.VariancePlayground()
    shown = find(playground, "embvar-picture")
    before = picture(shown)
    find(playground, "embvar-mean-1").value = -2.5
    assert playground.state.mean_1 == -2.5
    assert playground.wait()
    after = picture(shown)
    assert after != before
    playground.state.spread_1 = 1.4
    assert find(playground, "embvar-spread-1").value == 1.4
    assert playground.wait()
    assert picture(shown) != after
    state = playground.state.moments
    assert f"V = {state['V']:.3f}" in find(playground, "embvar-numbers").value
    assert state["Q"] == pytest.approx(state["M"] + state["V"], rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8, 20, 300, 2000])
def test_no_cloud_leaves_its_plot(n):
    playground = ek.VariancePlayground()
    low, high = playground._axes[0].get_xlim()
    assert (low, high) == playground._axes[0].get_ylim()
    for seed in range(20):
        state = CloudState(mean_1=-3, mean_2=3, spread_1=1.5, spread_2=1.5, n=n, seed=seed)
        radius = np.sqrt(state.moments["V"])
        assert low < state.cloud().min() and state.cloud().max() < high
        assert low < -3 - radius and 3 + radius < high
        np.testing.assert_allclose(state.cloud().std(axis=0), 1.5)


def test_the_cloud_follows_the_mouse_as_far_as_the_sliders_go():
    playground = ek.VariancePlayground()
    drag, state = playground._drag, playground.state
    limit = playground._axes[0].get_xlim()[1]
    drag.place = [0.5 + 1.5 / (2 * limit), 0.5 - 2.2 / (2 * limit)]
    assert (state.mean_1, state.mean_2) == (1.5, -2.2)
    assert find(playground, "embvar-mean-2").value == -2.2
    drag.place = [1.0, 0.0]
    assert (state.mean_1, state.mean_2) == (3.0, -3.0)
    left, upper, right, lower = drag.frame
    assert 0 < left < right < 0.5 and 0 < upper < lower < 1, "the cloud is the left plot"


def test_pointing_at_a_bar_shows_its_number():
    playground = ek.VariancePlayground()
    playground.state.mean_1, playground.state.spread_1 = 3.0, 1.5
    assert playground.wait()
    image = np.asarray(Image.open(io.BytesIO(playground._picture.value)).convert("RGB"))
    colours = set()
    for name, (left, upper, right, lower, text) in zip(
        "QMV", playground._tooltip.areas, strict=True
    ):
        assert text.startswith(f"{name} = {playground.state.moments[name]:.3f}\n")
        x, y = left + 0.1 * (right - left), (upper + lower) / 2
        colours.add(to_hex(image[int(y * image.shape[0]), int(x * image.shape[1])] / 255))
    assert colours == {ek.figures.COLOURS[name] for name in "QMV"}


def test_a_cloud_without_spread_is_a_point():
    playground = ek.VariancePlayground()
    playground.state.spread_1 = playground.state.spread_2 = 0.0
    assert playground.state.moments["V"] == 0.0


def test_the_picture_moves_even_where_the_moments_do_not():
    playground = ek.VariancePlayground()
    state = playground.state
    state.spread_1 = state.spread_2 = 0.0
    assert playground.wait()
    before, moments = picture(playground._picture), state.moments
    state.mean_1 = -state.mean_1
    assert state.moments == moments
    assert playground.wait()
    assert picture(playground._picture) != before


def test_pictures_are_cached():
    playground = ek.VariancePlayground()
    first = picture(playground._picture)
    playground.state.mean_1 = 1.0
    assert playground.wait()
    made = playground.pictures.computed
    playground.state.mean_1 = 2.0
    assert picture(playground._picture) == first
    assert playground.wait() and playground.pictures.computed == made


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean_1", 4.0), ("mean_2", "far"), ("spread_1", -0.1), ("n", 1), ("seed", -1)],
)
def test_bad_values_are_rejected_and_change_nothing(name, value):
    state = ek.VariancePlayground().state
    before = getattr(state, name)
    with pytest.raises(traitlets.TraitError):
        setattr(state, name, value)
    assert getattr(state, name) == before


def test_the_player_steps_through_the_occurrences():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    player = ek.SequencePlayer(x)
    slider = find(player, "embvar-k")
    assert (slider.min, slider.max) == (1, 30)
    before = picture(player._picture)
    slider.value = 12
    assert [player.state.moments[name] for name in "QMV"] == pytest.approx(two_pass(x[:12]))
    assert player.wait() and picture(player._picture) != before
    player.state.k = 30
    assert slider.value == find(player, "embvar-play").value == 30
    with pytest.raises(traitlets.TraitError, match="there are 30 vectors"):
        player.state.k = 31


def test_the_players_curves_grow_and_their_end_is_hidden_until_asked():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 1
    player = ek.SequencePlayer(x)
    player.state.k = 12
    assert player.wait()
    curves = [artist for artist in player._artists if isinstance(artist, Line2D)]
    assert max(len(line.get_xdata()) for line in curves) == 12
    ends = two_pass(x)
    bands = [artist for artist in player._artists if isinstance(artist, Rectangle)]
    assert bands == [] and "k =" not in find(player, "embvar-numbers").value
    find(player, "embvar-answer").value = True
    assert player.wait()
    bands = [artist for artist in player._artists if isinstance(artist, Rectangle)]
    edges = [(band.get_y(), band.get_y() + band.get_height()) for band in bands]
    np.testing.assert_allclose(edges, [(0.9 * value, 1.1 * value) for value in ends], rtol=1e-6)
    low, high = player._ax.get_ylim()
    assert low <= min(map(min, edges)) and max(map(max, edges)) < high
    told = find(player, "embvar-numbers").value
    for name, k in player.state.near_from().items():
        assert f"{name} from k = {k}" in told
        values = np.array([two_pass(x[:at])["QMV".index(name)] for at in range(1, 31)])
        near = np.abs(values / values[-1] - 1) <= 0.1
        assert near[k - 1 :].all() and (k == 1 or not near[k - 2])


def test_the_player_has_a_speed_and_a_loop():
    player = ek.SequencePlayer(np.eye(4, dtype=np.float32))
    play, speed = find(player, "embvar-play"), find(player, "embvar-speed")
    assert play.show_repeat
    seen = []
    for name, milliseconds in speed.options:
        speed.value = milliseconds
        seen.append((name, play.interval))
    assert seen == [("slow", 500), ("normal", 200), ("fast", 40)]


# The trade-off: state


def test_each_layer_has_the_regression_line_of_the_analysis(stats):
    state = TradeoffState(stats, counts=(5, None))
    for unbiased in (False, True):
        state.unbiased = unbiased
        fits = stats.tradeoff(min_count=5, max_count=None, unbiased=unbiased).set_index("layer")
        for layer in stats.layers:
            state.layer = int(layer)
            assert state.fit == pytest.approx(fits.loc[layer].to_dict())
            expected = stats.table(layer, min_count=5, unbiased=unbiased)[::-1]
            table = state.table()
            assert table["token"].tolist() == expected["token"].tolist()
            np.testing.assert_allclose(
                table[["n", "Q", "M", "V"]], expected[["n", "Q", "M", "V"]], rtol=1e-12
            )


def test_special_tokens_and_counts_select_the_points(stats):
    state = TradeoffState(stats, counts=(3, 50))
    table = stats.table(0, min_count=3, max_count=50, special=False)
    state.special = False
    assert set(state.table()["token"]) == set(table["token"])
    state.counts = (20, None)
    assert state.table()["n"].min() >= 20


def test_axes_hold_all_layers_or_their_own(stats):
    state = TradeoffState(stats, counts=(5, None), scales="same")
    limits = set()
    for layer in stats.layers:
        state.layer = int(layer)
        (left, right), (low, high) = state.limits()
        limits.add((left, right, low, high))
        assert left == 0 < state.table()["M"].min() and state.table()["M"].max() < right
        assert low == 0 <= state.table()["V"].min() and state.table()["V"].max() < high
    assert len(limits) == 1
    own = state.limits()
    state.scales = "own"
    assert state.limits() != own
    state.scales = "log"
    assert min(state.limits()[0][0], state.limits()[1][0]) > 0


def test_axes_begin_just_below_a_negative_unbiased_M():
    made = tradeoff_of_tokens([f"t{i}" for i in range(20)])  # means near 0: noise may exceed them
    state = TradeoffState(made, counts=(2, None), unbiased=True)
    M = state.table()["M"]
    assert M.min() < 0
    (left, right), (low, _) = state.limits()
    assert M.min() - 0.05 * (M.max() - M.min()) < left < M.min()
    assert right > M.max() and low == 0


def test_high_norm_tokens_get_logarithmic_axes():
    one = tradeoff_of_high_norm()
    assert TradeoffState(one).scales == "log"


def test_logarithmic_axes_say_why_and_count_the_tokens_that_they_cannot_place(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(1, None), layer=0)
    state, shown = explorer.state, find(explorer, "embvar-numbers")
    assert (state.scales, state.axes_note()) == ("same", "")
    state.scales = "log"
    table = state.table()
    zero = table["V"] < 1e-6 * table["Q"]
    assert zero.sum() >= (table["n"] == 1).sum() > 100, "V of a single occurrence is 0"
    assert f"At the edge: {zero.sum():,} tokens with M or V near 0 or below." in shown.value
    at_edge = explorer.plot.widget.points[:, :2].min(axis=1) <= -1 + 1e-6
    assert at_edge.tolist() == zero.tolist()
    state.counts, state.layer = (20, None), 3
    assert state.axes_note() == "Logarithmic axes."
    explorer = ek.TradeoffExplorer(tradeoff_of_high_norm())
    shown = find(explorer, "embvar-numbers").value
    assert "Logarithmic axes: at some layer, Q of some tokens is" in shown


def tradeoff_of_high_norm():
    """Statistics with one token whose squared norm is about a thousand times the others'."""
    return tradeoff_of_tokens([f"t{i}" for i in range(20)], high=3)


def tradeoff_of_tokens(tokens, high=None, **about):
    """Statistics of tokens with these names, each of which occurs twenty times."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20 * len(tokens), 8)).astype(np.float32)
    groups = np.repeat(np.arange(len(tokens)), 20)
    x[groups == high] *= 40
    m = ek.GroupedMoments(len(tokens), 8)
    m.update(x, groups)
    info = {"model": {"name": "made up", "n_states": 1}, "corpora": [{"name": "none"}]}
    info |= about
    return ek.TokenStatistics.from_moments(
        [m],
        tokens=np.array(tokens, dtype=object),
        special=np.zeros(len(tokens), dtype=bool),
        layers=[0],
        mean=m.mean[None],
        extra=np.zeros((1, len(tokens), 8), dtype=np.int8),
        info=info,
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("layer", 17, "there are 0, 1"),
        ("compare", 17, "there are 0, 1"),
        ("model", "bert", "only minilm"),
        ("site", "nowhere", "no site"),
        ("counts", (1_000_000, None), "No token"),
        ("counts", (50, 20), "No token occurs 50 to 20 times"),
        ("counts", (0, 20), "counts"),
        ("marked", ["no such token"], "not among"),
        ("token", "no such token", "not among"),
        ("scales", "odd", "scales"),
        ("distance", "far", "distance"),
    ],
)
def test_invalid_values_are_rejected(stats, name, value, reason):
    state = TradeoffState(stats, counts=(5, None))
    before, drawn = getattr(state, name), state.drawn
    with pytest.raises(traitlets.TraitError, match=reason):
        setattr(state, name, value)
    assert (getattr(state, name), state.drawn) == (before, drawn)


@pytest.mark.parametrize(
    "values", [{"layer": 17}, {"model": "bert"}, {"marked": ["no such token"]}, {"colour": "red"}]
)
def test_initial_values_are_validated(stats, values):
    with pytest.raises(traitlets.TraitError):
        TradeoffState(stats, counts=(5, None), **values)
    with pytest.raises(traitlets.TraitError):
        LayerState(stats, **{**values, "step": 17})
    with pytest.raises(ek.StatisticsError, match="No token"):
        TradeoffState(stats, counts=(1_000_000, None))


def test_unbiased_needs_two_occurrences(stats):
    state = TradeoffState(stats, counts=(1, None))
    with pytest.raises(traitlets.TraitError, match="two occurrences"):
        state.unbiased = True
    state.counts = (2, None)
    state.unbiased = True
    with pytest.raises(traitlets.TraitError, match="two occurrences"):
        state.counts = (1, None)
    assert state.counts == (2, None)


def test_too_few_tokens_for_a_line_are_reported(stats):
    state = TradeoffState(stats, counts=(5, None))
    most = int(np.sort(stats.n)[-2])
    state.counts = (most, None)
    assert state.fit["n_tokens"] == 2
    assert "says nothing" in state.fit["why"]


def test_search_marks_a_token_or_all_with_its_prefix(stats):
    state = TradeoffState(stats, counts=(2, None))
    state.search = "the"
    assert (state.marked, state.token) == (["the"], "the")
    state.search = "th*"
    expected = {str(token) for token in state.points.tokens if str(token).startswith("th")}
    assert set(state.marked) == expected and len(expected) > 3
    found = state.matches("the")
    assert found["token"].iloc[0] == "the"
    assert found["n"].iloc[1:].is_monotonic_decreasing
    marked = state.marked
    for layer in (5, 0, 3):
        state.layer = layer
        assert state.marked == marked
    state.search = "qqqq"
    assert state.marked == []
    state.search = "*"  # a token, too
    assert set(state.marked) <= {token for token in stats.tokens if token.startswith("*")}
    state.clear()
    assert (state.search, state.marked, state.token) == ("", [], None)


def test_a_search_that_is_no_token_closes_the_card(stats):
    state = TradeoffState(stats, counts=(2, None))
    for search in ("zzzzqq", "th*", "*ing", "the of", ""):
        state.search = "the"
        assert state.token == "the"
        state.search = search
        assert state.token is None
    assert state.marked == []


def test_a_search_ignores_blanks_at_the_ends_and_the_case_that_the_model_ignores(stats):
    state = TradeoffState(stats, counts=(2, None))
    for search in (" the", "the  ", "The", " THE "):
        state.search = search
        assert (state.marked, state.token) == (["the"], "the")
        assert state.search_report() == ""
    state.search = "  "
    assert (state.marked, state.token, state.search_report()) == ([], None, "")
    state.search = "[cls]"
    assert state.token == "[CLS]"


def test_a_model_with_case_keeps_it():
    made = tradeoff_of_tokens(["The", "the", "THE"])
    state = TradeoffState(made, counts=(1, None))
    state.search = "The"
    assert state.marked == ["The"]
    state.search = "tHe"
    assert state.marked == []


def test_ends_middles_and_several_tokens_are_found(stats):
    state = TradeoffState(stats, counts=(2, None))
    names = [str(token) for token in state.points.tokens]
    state.search = "*ing"
    expected = {name for name in names if name.endswith("ing")}
    assert set(state.marked) == expected and len(expected) > 10
    assert state.search_report() == f"Found: {len(expected)} tokens ending in 'ing'."
    state.search = "*tat*"
    assert set(state.marked) == {name for name in names if "tat" in name}
    state.search = "the of *ing"
    assert set(state.marked) == {"the", "of"} | expected
    assert state.matches()["token"].tolist()[:2] == ["the", "of"]


def test_a_search_says_what_it_did_not_find_and_why(stats):
    state = TradeoffState(stats, counts=(5, 50))
    counts = dict(zip(map(str, stats.tokens), stats.n.tolist(), strict=True))
    state.search = "the"
    assert state.search_report().startswith(f"'the' occurs {counts['the']:,} times: outside the")
    assert (set(state.marked), state.token) == ({t for t in state.marked if t[:3] == "the"}, None)
    state.search = "zzzzqq"
    assert state.search_report() == "No token is or begins with 'zzzzqq'."
    state.search = "*zzzzqq"
    assert state.search_report() == "No token ends in 'zzzzqq'."
    shown = {str(token) for token in state.points.tokens}
    rare = [t for t in counts if t.isalpha() and not any(t[:4] == s[:4] for s in shown)]
    beginning = max(rare, key=lambda t: len(t))[:4] + "*"
    state.search = beginning
    hidden = sum(token.startswith(beginning[:-1]) for token in counts)
    number = "1 token" if hidden == 1 else f"{hidden} tokens"
    told = f"Outside the range shown: {number} beginning with {beginning[:-1]!r}."
    assert state.search_report() == told
    state.counts, state.special = (1, None), False
    state.search = "[CLS]"
    assert state.search_report() == "'[CLS]' is a special token, and these are not shown."


def test_of_too_many_tokens_the_most_frequent_are_marked(stats):
    state = TradeoffState(stats, counts=(1, None))
    state.search = "*e*"
    expected = state.table().set_index("token")["n"]
    expected = expected[["e" in token.lower() for token in expected.index]]
    assert len(state.marked) == 500 < len(expected)
    assert expected[state.marked].min() >= expected.drop(state.marked).max()
    assert state.search_report().endswith("Only the 500 most frequent are marked.")


def test_what_moved_most_is_the_largest_distance(stats):
    state = TradeoffState(stats, counts=(5, None), layer=2, compare=4)
    assert TradeoffState(stats).moved().empty
    first, second = (stats.table(layer, min_count=5).set_index("token") for layer in (2, 4))
    for how, unit in (("units", (1, 1)), ("share", (first["Q"].mean(), second["Q"].mean()))):
        state.distance = how
        move = second[["M", "V"]] / unit[1] - first[["M", "V"]] / unit[0]
        distance = np.hypot(move["M"], move["V"]).sort_values(ascending=False)
        found = state.moved(5).set_index("token")
        assert found.index.tolist() == distance.index[:5].tolist()
        np.testing.assert_allclose(found["distance"], distance[:5])
        np.testing.assert_allclose(found[["M", "V"]], move.loc[found.index])
        forwards = state.moved()
        state.layer, state.compare = 4, 2
        pd.testing.assert_frame_equal(state.moved(), forwards)
        state.layer, state.compare = 2, 4


def test_the_tokens_farthest_from_the_line_are_its_largest_residuals(stats):
    state = TradeoffState(stats, layer=2, counts=(5, None))
    found = state.residuals(most=7)
    table = stats.table(2, min_count=5).set_index("token")
    slope, intercept = np.polyfit(table["M"], table["V"], 1)
    residual = table["V"] - (slope * table["M"] + intercept)
    expected = residual.loc[residual.abs().nlargest(7).index]
    assert found["token"].tolist() == expected.index.tolist()
    np.testing.assert_allclose(found["residual"], expected, rtol=1e-6)
    np.testing.assert_allclose(found[["M", "V"]], table.loc[found["token"], ["M", "V"]])
    one = tradeoff_of_tokens(["only"])
    assert TradeoffState(one, counts=(2, None)).residuals().empty, "without a line there are none"


def test_another_model_keeps_the_depth_and_the_tokens_it_has(stats, model):
    few = ek.extract(
        model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2, 4, 6], progress=False
    )
    state = TradeoffState({"all": stats, "few": few}, counts=(3, None), layer=3, compare=5)
    rare = next(str(t) for t in stats.tokens if t not in set(few.tokens))
    state.marked = ["the", rare]
    state.token = rare
    drawn = state.drawn
    state.model = "few"
    assert state.layer in few.layers
    assert (state.marked, state.token, state.compare) == (["the"], None, None)
    assert state.drawn == drawn + 1  # one change, however many values adapt
    assert state.fit["n_tokens"] == len(few.table(0, min_count=3))


def test_a_model_of_which_rare_tokens_were_not_measured_is_shown(stats, model):
    corpus = ek.load_corpus("wikipedia", limit=60)
    few = ek.extract(model, corpus, layers=[0, 2], min_count=15, progress=False)
    assert TradeoffState(few).counts[0] == 15
    state = TradeoffState({"all": stats, "few": few}, counts=(3, None))
    state.model = "few"
    assert state.counts == (15, None)


def test_a_range_that_leaves_no_line_in_another_model_is_widened(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2], progress=False)
    most = int(few.n.max())
    state = TradeoffState({"all": stats, "few": few}, counts=(most + 1, None))
    state.model = "few"
    assert state.counts == (1, None) and state.fit["n_tokens"] == len(few)
    state.model, drawn = "all", state.drawn
    with pytest.raises(traitlets.TraitError, match="The range stays"):
        state.counts = (10**6, None)
    state.layer = 1
    assert state.drawn > drawn


def test_sites_of_one_pass_belong_to_one_model(sites):
    state = TradeoffState(sites, counts=(5, None))
    assert state.sources.keys() == {"minilm"}
    state.site = "unit"
    assert state.table()["Q"].to_numpy() == pytest.approx(1)


def test_anything_but_statistics_is_rejected(stats):
    for wrong in ({}, "minilm", {"a": 1}, {"a": {}}, [stats]):
        with pytest.raises(ek.StatisticsError, match="Give TokenStatistics"):
            TradeoffState(wrong)
        with pytest.raises(ek.StatisticsError, match="Give TokenStatistics"):
            LayerState(wrong)


# The trade-off: view


@pytest.fixture
def explorer(stats):
    return ek.TradeoffExplorer(stats, counts=(5, None), layer=2)


def drawn_points(explorer) -> np.ndarray:
    """M and V of the points, from the data sent to the browser."""
    sent = explorer.plot.widget.points[:, :2]
    (left, right), (low, high) = explorer.state.limits()
    return (sent + 1) / 2 * [right - left, high - low] + [left, low]


def test_the_plot_shows_the_states_points_and_line(explorer, stats):
    find(explorer, "embvar-layer").value = 4
    assert explorer.state.layer == 4
    table = explorer.state.table()
    np.testing.assert_allclose(drawn_points(explorer), table[["M", "V"]], atol=1e-9)
    widget = explorer.plot.widget
    assert (widget.transition_points, widget.opacity_by) == (False, None)
    (left, right), (low, high) = explorer.state.limits()
    (line,) = widget.annotations
    ends = (np.array(line.vertices) + 1) / 2 * [right - left, high - low] + [left, low]
    fit = stats.tradeoff(min_count=5, max_count=None).set_index("layer").loc[4]
    np.testing.assert_allclose(ends[:, 1], fit["intercept"] + fit["slope"] * ends[:, 0])
    text = without_tags(find(explorer, "embvar-numbers").value)
    assert f"slope {fit['slope']:.3f}" in text and f"CV of Q {fit['cv_Q']:.3f}" in text


def test_a_tooltip_shows_the_token_and_its_numbers_at_the_layer_shown(explorer):
    explorer.state.layer = 5
    widget = explorer.plot.widget
    sent = []
    widget.send = lambda content, buffers=None: sent.append(content)
    properties = list(widget.tooltip_properties)
    assert properties == ["token", "occurrences", "Q", "M", "V"]
    event = {"type": "tooltip", "index": 7, "properties": properties, "preview": None}
    widget._handle_custom_msg(event, [])
    row = explorer.state.table().iloc[7]
    told = sent[0]["properties"]
    assert (told["token"], told["occurrences"]) == (row["token"], row["n"])
    for name in "QMV":
        assert told[name] == pytest.approx(row[name], rel=1e-3)


def test_axes_and_legend_are_typeset_and_say_which_form_is_shown(explorer):
    axes = find(explorer, "embvar-axes")
    assert axes.titles[1].endswith("><i>V</i>(<i>X<sub>t</sub></i>)</span>, variance")
    explorer.state.unbiased = True
    assert "<i>M\N{COMBINING TILDE}</i>(" in axes.titles[0]
    assert all(title.endswith(", unbiased") for title in axes.titles)
    n = explorer.state.points.n
    marks = {text: at for at, text in axes.legend["marks"]}
    low, high = np.floor(np.log10(n.min())), np.ceil(np.log10(n.max()))
    assert marks["10<sup>3</sup>"] == pytest.approx((3 - low) / (high - low))
    assert marks["1"] == 0 and len(marks) == high - low + 1


def test_points_and_line_change_in_one_message(explorer):
    sent = []
    widget = explorer.plot.widget
    widget.send_state = lambda key=None: sent.append(set(key))
    explorer.state.layer = 5
    with_points = [keys for keys in sent if "points" in keys]
    assert len(with_points) == 1
    assert {"annotations", "points"} <= with_points[0]


def test_marks_stay_with_their_tokens(explorer):
    state, widget = explorer.state, explorer.plot.widget
    find(explorer, "embvar-search").value = "the"
    assert state.marked == ["the"]
    for change in ({"layer": 6}, {"counts": (20, None)}, {"counts": (2, None)}, {"layer": 0}):
        for name, value in change.items():
            setattr(state, name, value)
        assert state.points.tokens[widget.selection].tolist() == ["the"]
        assert "the" in find(explorer, "embvar-marked").value
    find(explorer, "embvar-clear").click()
    assert len(widget.selection) == 0 and find(explorer, "embvar-marked").value == ""


def test_marked_tokens_are_named_in_the_plot(explorer, stats):
    axes, state = explorer.plot._axes, explorer.state
    assert axes.names == []
    state.search = "the of"
    for layer in (2, 4):
        state.layer = layer
        table = stats.table(layer).set_index("token")
        assert [name for *_, name in axes.names] == ["the", "of"]
        np.testing.assert_allclose(
            [p[:2] for p in axes.names], table.loc[["the", "of"], ["M", "V"]]
        )
    state.search = "*e*"
    assert len(axes.names) == 12 < len(state.marked)
    state.counts = (50, None)
    assert {name for *_, name in axes.names} <= set(stats.table(4, min_count=50)["token"])
    state.clear()
    assert axes.names == []


def test_texts_share_what_makes_them_look_alike(explorer):
    """Each layout and each style is a widget that is sent when the explorer opens."""
    numbers = find(explorer, "embvar-numbers")
    for css in ("message", "moved-title"):
        other = find(explorer, f"embvar-{css}")
        assert other.layout is numbers.layout and other.style is numbers.style
    explorer.state.search = "zzzz"
    assert find(explorer, "embvar-matches").head.layout is numbers.layout
    assert numbers.layout.display is None, "nothing that is shown or hidden shares it"


def test_names_follow_a_change_of_model_to_fewer_tokens(stats):
    few = stats.without(stats.tokens[stats.n < 20])
    explorer = ek.TradeoffExplorer({"all": stats, "few": few}, counts=(5, None))
    rare = stats.table(0, min_count=5, max_count=10)["token"].iloc[0]
    explorer.state.marked = ["the", rare]
    assert len(explorer.plot._axes.names) == 2
    explorer.state.model = "few"
    ((M, V, name),) = explorer.plot._axes.names
    row = few.table(explorer.state.layer).set_index("token").loc["the"]
    assert (name, M, V) == ("the", pytest.approx(row["M"]), pytest.approx(row["V"]))


def test_marks_keep_their_colour(stats):
    """jscatter replaces the colour of selected points whenever it gets another map or norm."""
    explorer = ek.TradeoffExplorer({"one": stats, "other": stats}, counts=(5, None))
    for name, value in (("model", "other"), ("counts", (20, None)), ("layer", 1)):
        setattr(explorer.state, name, value)
        widget = explorer.plot.widget
        assert np.shape(widget.color_selected) == (len(widget.color), 4)
        assert {to_hex(colour) for colour in widget.color_selected} == {MARK}


def test_selecting_points_marks_them_and_a_single_one_opens_its_card(explorer):
    state, widget = explorer.state, explorer.plot.widget
    widget.selection = np.array([3, 5, 8], dtype="uint32")
    assert state.marked == [str(token) for token in state.points.tokens[[3, 5, 8]]]
    assert state.token is None
    assert "mean of 3" in find(explorer, "embvar-marked").value
    widget.selection = np.array([5], dtype="uint32")
    assert state.token == state.points.tokens[5]
    widget.selection = np.array([], dtype="uint32")
    assert state.marked == []


def test_a_selection_cleared_by_the_plot_itself_is_restored(explorer):
    """jscatter clears its selection when the number of points changes, and reports it."""
    state, widget = explorer.state, explorer.plot.widget
    state.search = "the"
    state.counts = (20, None)
    widget.set_state({"selection": None})
    assert state.marked == ["the"]
    assert state.points.tokens[widget.selection].tolist() == ["the"]


def test_the_message_of_a_search_lasts(explorer):
    told = find(explorer, "embvar-found")
    find(explorer, "embvar-search").value = "zzzz<qq"
    assert "No token is or begins with 'zzzz<qq'" in html.unescape(told.value)
    assert "zzzz<qq" not in told.value
    explorer.state.layer = 4
    find(explorer, "embvar-special").value = False
    assert "No token is or begins with" in told.value
    find(explorer, "embvar-search").value = ""
    assert told.value == ""


def test_what_is_typed_is_looked_for_after_a_pause(explorer):
    box, state = find(explorer, "embvar-search"), explorer.state
    searched = []
    state.observe(lambda change: searched.append(change["new"]), "search")

    async def type_and_wait():
        for text in ("t", "th", "the"):  # without a pause in which a slow machine could stall
            box.value = text
        assert searched == []
        await asyncio.sleep(1)
        assert searched == ["the"] and state.token == "the"
        box.value = "of"
        find(explorer, "embvar-clear").click()
        await asyncio.sleep(1)

    asyncio.run(type_and_wait())
    assert searched == ["the", ""] and state.marked == []


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


# The token card


def test_a_card_without_a_model_says_what_it_needs(explorer):
    explorer.state.search = "the"
    assert explorer.wait()
    assert "model=…, corpus=…" in find(explorer, "embvar-card-contexts").value
    picture(find(explorer, "embvar-card-profile"))


def check_dots(explorer, listed: str) -> None:
    """Check that each dot of the card tells its sentence, and each line listed names its dot."""
    areas = explorer.card._sentences.areas
    image = Image.open(io.BytesIO(picture(find(explorer, "embvar-card-plane")))).convert("RGB")
    pixels = np.asarray(image)
    for left, upper, right, lower, text in areas:
        x, y = (left + right) / 2 * image.width, (upper + lower) / 2 * image.height
        around = pixels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert around.min() < 200, "a dot is darker than the background"
        assert "[state]" in text.lower()
    lines = re.findall(r"data-area='(\d+)'.*?<span>(.*?)</span>", listed)
    assert 3 < len(lines) <= len(areas)
    for at, before in lines:
        assert areas[int(at)][4].startswith(f"{before}[")


@pytest.mark.slow
def test_a_card_shows_moments_contexts_and_occurrences(stats, model, corpus):
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(5, None), layer=2)
    assert "click a point" in find(explorer, "embvar-card-head").value
    explorer.state.search = "state"
    assert explorer.wait()
    row = stats.table(2).set_index("token").loc["state"]
    head = find(explorer, "embvar-card-head").value
    head = head.replace("&nbsp;", " ")
    assert f"n<sub>t</sub> = {row['n']:,.0f}" in head and f"V = {row['V']:.4g}" in head
    text = html.unescape(find(explorer, "embvar-card-contexts").value)
    assert f"{row['n']:,.0f} occurrences in wikipedia;" in text
    assert "<b>state</b>" in text and "https://en.wikipedia.org/wiki/" in text
    profile = picture(find(explorer, "embvar-card-profile"))
    plane = picture(find(explorer, "embvar-card-plane"))
    check_dots(explorer, text)
    find(explorer, "embvar-card-side").value = "before"
    assert explorer.wait() and picture(find(explorer, "embvar-card-plane")) != plane
    passes = explorer.card.samples.computed
    explorer.state.layer = 4  # one pass gives all layers
    assert explorer.wait() and explorer.card.samples.computed == passes == 1
    assert picture(find(explorer, "embvar-card-profile")) != profile
    explorer.state.search = "the"
    assert explorer.wait() and explorer.card.samples.computed == 2
    explorer.state.token = "state"
    assert explorer.wait() and explorer.card.samples.computed == 2


def test_a_card_can_be_cancelled_and_looked_for_again(stats, model, corpus, monkeypatch):
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(5, None), layer=2)
    card, loading, go_on = explorer.card, threading.Event(), threading.Event()
    load = card._load_concordance

    def slowly(one):
        loading.set()
        assert go_on.wait(20)
        return load(one)

    monkeypatch.setattr(card, "_load_concordance", slowly)
    waiting, button = find(explorer, "embvar-card-waiting"), find(explorer, "embvar-card-cancel")
    assert waiting.layout.display == "none"
    explorer.state.search = "state"
    assert loading.wait(20)
    assert waiting.layout.display is None and button.description == "cancel"
    for part in ("profile", "plane"):  # no broken image: a blank of the final size
        image = find(explorer, f"embvar-card-{part}")
        assert Image.open(io.BytesIO(picture(image))).width > 500
    button.click()
    assert button.description == "look again"
    go_on.set()
    assert explorer.wait()
    assert find(explorer, "embvar-card-contexts").value == "" and waiting.layout.display is None
    button.click()
    assert explorer.wait()
    assert "<b>state</b>" in find(explorer, "embvar-card-contexts").value
    assert waiting.layout.display == "none"
    plane = find(explorer, "embvar-card-plane")
    assert "embvar-waiting" not in plane._dom_classes


def test_pictures_have_alternative_texts_with_their_numbers(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    explorer.state.token, explorer.state.layer = "the", 3
    told = explorer._frame.pictures
    slope = explorer.state.fit["slope"]
    assert "layer 3: " in told["embvar-scatter"] and f"slope {slope:.3f}" in told["embvar-scatter"]
    assert told["embvar-card-profile"].startswith("Q, M and V of the by layer; layer 3: Q = ")
    layers = ek.LayerExplorer(stats)
    assert layers.wait()
    share = layers.state.numbers().loc["minilm", "M/Q"]
    assert f"layer 0: M/Q {share:.3f}" in layers._frame.pictures["embvar-picture"]
    playground = ek.VariancePlayground()
    playground.state.mean_1 = 1.0
    moments = playground.state.moments
    assert f"M = {moments['M']:.3f}" in playground._frame.pictures["embvar-picture"]


def test_pictures_name_a_byte_level_token_with_its_text():
    tokens = ["Ġthe", "Ã©", "b", "c"]
    stats = tradeoff_of_tokens(tokens, byte_level={"verbatim": []})
    x = np.random.default_rng(0).normal(size=(1, 5, 8))
    found = Occurrences("Ġthe", np.array([0]), x, *np.zeros((2, 5), int))
    plane = occurrences_in_plane(found, [None] * 5, layer=0, name="Ġthe (' the')")
    assert plane.get_title() == "5 occurrences of Ġthe (' the'), layer 0"
    assert moments_of_token(stats, "Ã©").get_title().startswith("Ã© (é) in ")
    plt.close("all")
    explorer = ek.TradeoffExplorer(stats, counts=(2, None))
    explorer.state.marked = tokens[:2]
    labels = {text.get_text() for text in explorer.figure().axes[0].texts}
    assert {"Ġthe (' the')", "Ã© (é)"} <= labels


def test_a_card_of_a_rare_token_shows_its_sentences_without_a_plane(stats, model, corpus):
    rare = str(stats.tokens[stats.n == 1][0])
    explorer = ek.TradeoffExplorer(stats, model=model, corpus=corpus, counts=(1, None))
    explorer.state.token = rare
    assert explorer.card.wait()
    contexts = find(explorer, "embvar-card-contexts").value
    assert "<table" in contexts and "at least three" in contexts


def test_an_explorer_of_two_tokens_is_shown_without_a_picture(stats):
    explorer = ek.TradeoffExplorer(stats.take(np.arange(2)), counts=(1, None))
    bundle, _ = explorer._repr_mimebundle_()
    assert "image/png" not in bundle and "there is no picture: " in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize(
    "x", [np.ones(3), np.ones((0, 3)), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]])]
)
def test_a_player_of_no_vectors_is_refused(x):
    with pytest.raises(ek.StatisticsError, match=r"\(N, d\) finite vectors"):
        ek.SequencePlayer(x)


def test_identical_vectors_have_no_variance_in_the_player():
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 384)), 100, axis=0)
    state = ek.SequencePlayer(x).state
    assert not state.path["V"].any() and state.near_from()["V"] == 1


def test_a_card_loads_the_model_and_the_text_by_name(stats):
    explorer = ek.TradeoffExplorer(stats, recall=True, counts=(5, None))
    explorer.state.search = "state"
    assert explorer.wait(300)
    assert "<b>state</b>" in find(explorer, "embvar-card-contexts").value
    picture(find(explorer, "embvar-card-plane"))


def test_a_card_says_why_it_cannot_load_them(model):
    text = ek.Corpus.of(["A cat sat.", "A dog ran."] * 4, name="pets")
    stats = ek.extract(model, text, progress=False)
    explorer = ek.TradeoffExplorer(stats, recall=True, counts=(2, None))
    explorer.state.search = "cat"
    assert explorer.wait(300)
    assert "'pets' again" in html.unescape(find(explorer, "embvar-card-contexts").value)


def test_text_from_a_corpus_is_escaped(model):
    sentences = [f"The <b>bold</b> & the {word} <script> ran." for word in ("old", "new", "red")]
    corpus = ek.Corpus.of(sentences * 3, name="<i>odd</i>")
    stats = ek.extract(model, corpus, progress=False)
    explorer = ek.TradeoffExplorer(stats, model, corpus, counts=(1, None))
    for token in ("<", "script", "[CLS]", "[SEP]"):
        explorer.state.token = token
        assert explorer.wait()
        shown = find(explorer, "embvar-card-contexts").value
        assert "<script>" not in shown and "<i>odd</i>" not in shown
        assert f"<b>{html.escape(token)}</b>" in shown


def test_a_model_or_text_that_does_not_fit_is_rejected(stats, model, corpus):
    with pytest.raises(ek.StatisticsError, match="give both"):
        ek.TradeoffExplorer(stats, model)
    with pytest.raises(ek.StatisticsError, match="not of the model"):
        ek.TradeoffExplorer(tradeoff_of_high_norm(), model, corpus)


# The layers


def test_the_numbers_of_a_layer_are_the_decomposition(stats):
    state = LayerState(stats)
    for choice in ({}, {"special": False}, {"counts": (3, None)}, {"unbiased": True}):
        for name, value in choice.items():
            setattr(state, name, value)
        least, most = state.counts
        expected = stats.decomposition(
            min_count=least, max_count=most, special=state.special, unbiased=state.unbiased
        )
        for step, row in expected.iterrows():
            state.step = step
            found = state.numbers().loc["minilm"]
            assert found[["Q", "M", "V", "V_W", "V_B"]].to_dict() == pytest.approx(
                row[["Q", "M", "V", "V_W", "V_B"]].to_dict()
            )
            assert sum(found[f"{part}/Q"] for part in ("M", "V_B", "V_W")) == pytest.approx(1)
    state.of = "V"
    assert sum(state.numbers().loc["minilm"][["V_B/V", "V_W/V"]]) == pytest.approx(1)


def test_tooltips_cover_each_layers_bar_and_show_its_numbers(stats):
    explorer = ek.LayerExplorer({"one": stats, "other": stats})
    assert explorer.wait()
    areas = explorer._tooltip.areas
    parts = explorer.state.parts("one")
    assert len(areas) == 2 * len(parts)
    image = np.asarray(Image.open(io.BytesIO(explorer._picture.value)).convert("RGB"))
    for at, row in enumerate(parts.itertuples(index=False)):
        left, upper, right, lower, text = areas[at]
        assert text.startswith(f"one, layer {row.layer}\n")
        assert f"V_B/Q = {row.V_B / row.Q:.3f}" in text
        x, y = (left + right) / 2 * image.shape[1], (upper + (lower - upper) * 0.9) * image.shape[0]
        assert image[int(y), int(x)].std() > 10, "a bar is coloured, the background is not"
    first, second = areas[0], areas[len(parts)]
    assert first[2] < second[0], "the second model's panel is to the right of the first's"
    explorer.state.of = "V"
    assert explorer.wait()
    assert "V_W/V" in explorer._tooltip.areas[0][4]


def test_a_click_on_a_bar_selects_its_layer(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2, 3], progress=False)
    explorer = ek.LayerExplorer({"one": stats, "other": few}, counts=(3, None))
    assert explorer.wait()
    for at, (*_, text) in enumerate(explorer._tooltip.areas):
        explorer._tooltip._handle_custom_msg({"clicked": at}, [])
        name, layer = re.match(r"(\w+), layer (\d+)", text).groups()
        assert explorer.state.numbers().loc[name, "layer"] == int(layer)


@pytest.mark.parametrize("kind", ["playground", "player", "layers"])
def test_in_a_lecture_the_picture_comes_in_twice_its_pixels(kind, stats):
    made = {
        "playground": ek.VariancePlayground,
        "player": lambda: ek.SequencePlayer(np.eye(4, dtype=np.float32)),
        "layers": lambda: ek.LayerExplorer(stats),
    }
    explorer = made[kind]()
    assert explorer.wait()
    shown, button = find(explorer, "embvar-picture"), find(explorer, "embvar-lecture-button")
    before, still = picture(shown), explorer.still()

    def size():
        return Image.open(io.BytesIO(picture(shown))).size

    small = size()
    button.on = True
    assert explorer.wait()
    assert size() == pytest.approx([2 * side for side in small], abs=1)
    large = Image.open(io.BytesIO(picture(shown))).convert("L").resize(small, Image.BOX)
    first = Image.open(io.BytesIO(before)).convert("L")
    assert np.abs(np.subtract(large, first, dtype=float)).mean() < 4, "the same, but sharper"
    assert explorer.still() == still, "a saved page keeps its size"
    button.on = False
    assert explorer.wait() and picture(shown) == before


def test_without_high_norm_is_the_decomposition_without_them():
    one = tradeoff_of_high_norm()
    state = LayerState(one, counts=(1, None))
    whole = state.numbers().loc["made up", "Q"]
    state.sinks = False
    expected = one.without(["t3"]).decomposition(min_count=1, max_count=None)["Q"][0]
    assert state.numbers().loc["made up", "Q"] == pytest.approx(expected)
    assert expected < whole / 10


def test_compact_statistics_offer_what_they_hold(stats):
    compact = stats.compact(min_count=2, left_out=[(), stats.high_norm()["token"]])
    state = LayerState({"whole": stats, "compact": compact})
    assert state.ranges() == [(1, None), (2, None), (10, 100_000)]
    for name, value in (("counts", (7, 70)), ("counts", (10, None))):
        with pytest.raises(traitlets.TraitError, match="compact are compact"):
            setattr(state, name, value)
    state.counts = (2, None)
    np.testing.assert_allclose(state.numbers().iloc[0, :6], state.numbers().iloc[1, :6])
    explorer = ek.LayerExplorer({"whole": stats, "compact": compact})
    assert isinstance(find(explorer, "embvar-counts"), widgets.Dropdown)
    assert isinstance(find(ek.LayerExplorer(stats), "embvar-counts"), CountsSlider)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("shown", ["bert"], "no model 'bert'"),
        ("shown", [], "shown"),
        ("step", 99, "7 layers"),
        ("step", -1, "step"),
        ("of", "M", "of"),
        ("counts", (10_000_000, None), "No token of minilm occurs 10,000,000 times or more."),
    ],
)
def test_invalid_values_of_the_layer_explorer_are_rejected(stats, name, value, reason):
    state = LayerState(stats)
    before, setting = getattr(state, name), state.setting
    with pytest.raises(traitlets.TraitError, match=reason):
        setattr(state, name, value)
    assert (getattr(state, name), state.setting) == (before, setting)


def test_pictures_of_all_layers_are_prefetched_once(stats):
    explorer = ek.LayerExplorer(stats)
    assert explorer.wait()
    assert explorer.pictures.computed == len(stats.layers)
    shown = find(explorer, "embvar-picture")
    seen = set()
    for layer in stats.layers:
        find(explorer, "embvar-layer").value = int(layer)
        seen.add(picture(shown))
    assert len(seen) == len(stats.layers) == explorer.pictures.computed
    assert f">{stats.layers[-1]}</td>" in find(explorer, "embvar-numbers").value
    before = picture(shown)
    find(explorer, "embvar-of").value = "V"
    assert explorer.wait() and picture(shown) != before
    find(explorer, "embvar-of").value = "Q"
    assert picture(shown) == before  # cached


def test_models_of_different_depth_are_drawn_at_relative_depth(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 3], progress=False)
    explorer = ek.LayerExplorer({"all": stats, "few": few}, counts=(3, None))
    state = explorer.state
    state.step = 6
    assert state.numbers()["layer"].tolist() == [6, 3]
    assert state.relative() and state.depth("few").tolist() == [0, 1]
    state.shown = ["few"]
    assert (state.steps(), state.step, state.relative()) == (2, 1, False)
    slider, play = find(explorer, "embvar-layer"), find(explorer, "embvar-play")
    assert (slider.options, slider.value, play.max) == ((("0", 0), ("3", 1)), 1, 1)
    state.shown = ["all", "few"]
    assert [text for text, _ in slider.options] == [f"{at / 6:.2f}" for at in range(7)]
    assert (slider.description, slider.value, state.step, play.value) == ("depth", 1, 1, 1)
    slider.value = 6
    assert state.step == play.value == 6
    assert explorer.wait()
    picture(find(explorer, "embvar-picture"))


# Rendering


def test_results_are_computed_in_the_background_the_one_requested_first():
    order, shown = [], []
    begun, gate = threading.Event(), threading.Event()

    def compute(key):
        begun.set()
        assert threading.current_thread() is not threading.main_thread()
        assert gate.wait(10)
        order.append(key)
        return key * 10

    prefetcher = rendering.Prefetcher(compute, lambda key, result: shown.append((key, result)))
    assert not prefetcher.request(1, [2, 3])
    assert begun.wait(10)
    assert not prefetcher.request(5, [4])  # 2 and 3 are cancelled; 1 is being computed
    gate.set()
    assert prefetcher.wait(10)
    assert order == [1, 5, 4]
    assert shown == [(5, 50)]  # 1 is no longer requested
    assert prefetcher.request(4) and shown[-1] == (4, 40) and prefetcher.computed == 3


def test_an_error_is_reported_and_the_next_results_are_computed():
    told = []

    def compute(key):
        if key == 1:
            raise ValueError("no such picture")
        return key

    prefetcher = rendering.Prefetcher(compute, lambda *_: None, told.append)
    prefetcher.request(1, [2])
    assert prefetcher.wait(10)
    assert [str(error) for error in told] == ["no such picture"]
    assert 2 in prefetcher and 1 not in prefetcher


def test_the_oldest_results_are_dropped():
    prefetcher = rendering.Prefetcher(lambda key: key, lambda *_: None, keep=3)
    for key in range(5):
        prefetcher.request(key)
        assert prefetcher.wait(10)
    assert [key in prefetcher for key in range(5)] == [False, False, True, True, True]


@pytest.mark.slow
def test_formulas_of_two_threads_do_not_mix():
    """matplotlib's own parser is shared by all threads and keeps state while it parses."""
    text = r"$\sum_t \frac{n_t}{n} \sqrt{V_W^{%d}}$"

    def draw(number):
        blitted = rendering.BlittedFigure(3, 1)
        blitted.figure.text(0.1, 0.4, text % number)
        return blitted.png()

    expected = {number: draw(number) for number in range(100, 112)}
    stop, failures = threading.Event(), []

    def cell():
        at = 0
        while not stop.is_set():
            at += 1
            figure = plt.Figure(figsize=(3, 1))
            figure.text(0.1, 0.4, rf"$\frac{{{at}}}{{\alpha_{{{at}}}}}$")
            try:
                figure.savefig(io.BytesIO())
            except Exception as error:
                failures.append(error)

    other = threading.Thread(target=cell)
    other.start()
    try:
        started = time.monotonic()
        while time.monotonic() - started < 2:
            for number, png in expected.items():
                assert draw(number) == png
    finally:
        stop.set()
        other.join()
    assert not failures


# Results


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


def test_a_link_of_the_app_shows_the_same_again(stats, monkeypatch):
    def made():
        return ek.TradeoffExplorer({"one": stats, "other": stats}, counts=(5, None), layer=2)

    assert "link" not in dict(find(made(), "embvar-downloads").buttons), "a notebook has none"
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/?token=secret")
    explorer = made()
    state = explorer.state
    state.model, state.counts, state.marked, state.token = "other", (20, None), ["the", "of"], "of"
    values = state.values()
    message, _ = answer_of(find(explorer, "embvar-downloads"), "link")
    monkeypatch.setenv("QUERY_STRING", f"token=another&{message['query']}")
    again = made()
    again.follow_link()
    assert again.state.values() == values and find(again, "embvar-message").value == ""
    for query, why in (
        ("tradeoff=%7B%22layer%22:99%7D", "Layer 99 was not extracted"),
        ("tradeoff=%7B%22marked%22:[%22no<b>%22]%7D", "&#x27;no&lt;b&gt;&#x27;: not among"),
        ("tradeoff=%7B%22colour%22:1%7D", "no value &#x27;colour&#x27;"),
        ("tradeoff=[1]", "no values by name"),
        ("tradeoff=%7B", "Expecting"),
        ("tradeoff=%7B%22counts%22:5%7D", "counts"),
        ("tradeoff=%7B%22counts%22:null%7D", "counts"),
    ):
        again.follow_link(query)
        assert again.state.values() == values
        told = find(again, "embvar-message").value
        assert told.startswith("The link cannot be followed. ") and why in told
    again.state.marked = list(map(str, stats.tokens))
    message, _ = answer_of(find(again, "embvar-downloads"), "link")
    assert "query" not in message and "too many for a link" in message["told"]
    monkeypatch.setenv("QUERY_STRING", "token=another")
    first = made()
    first.follow_link()
    assert first.state.layer == 2 and find(first, "embvar-message").value == ""


def answer_of(downloads, button):
    """What a button sends to the browser: the message, and its buffers."""
    sent = []
    downloads.send = lambda content, buffers=None: sent.append((content, buffers))
    downloads._handle_custom_msg({"wanted": button, "view": "a"}, [])
    ((message, buffers),) = sent
    assert message["view"] == "a"
    return message, buffers


@pytest.mark.parametrize("kind", ["playground", "player", "tradeoff", "layers"])
def test_a_saved_page_has_a_still_picture(kind, stats):
    made = {
        "playground": ek.VariancePlayground,
        "player": lambda: ek.SequencePlayer(np.eye(4, dtype=np.float32)),
        "tradeoff": lambda: ek.TradeoffExplorer(stats, counts=(5, None)),
        "layers": lambda: ek.LayerExplorer(stats),
    }
    explorer = made[kind]()
    bundle, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["image/png"].startswith("iVBOR")
    assert "running notebook" in bundle["text/plain"]
    assert metadata["image/png"]["alt"].startswith("A still picture of an explorer. ")
    assert bundle[base.WIDGET]["model_id"] == explorer.view.model_id
    still = Image.open(io.BytesIO(explorer.still()))
    assert still.mode == "P" and min(still.size) > 200
    for control in controls(explorer):
        assert getattr(control, "description", "") or getattr(control, "tooltip", "")
        assert any(css.startswith("embvar-") for css in control._dom_classes), control
