"""The scatter plot: it shows the state's points and line, and its marks stay with their tokens."""

import numpy as np
import pytest
from explored import find, tradeoff_of_high_norm, without_tags
from matplotlib.colors import to_hex

import embvar_kit as ek
from embvar_kit.explorers.tables import decimal
from embvar_kit.explorers.tradeoff_plot import MARK


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
    assert not widget.transition_points
    assert set(explorer.plot._data["opacity"]) == {0.9}
    (left, right), (low, high) = explorer.state.limits()
    (line,) = widget.annotations
    ends = (np.array(line.vertices) + 1) / 2 * [right - left, high - low] + [left, low]
    fit = stats.tradeoff(min_count=5, max_count=None).set_index("layer").loc[4]
    np.testing.assert_allclose(ends[:, 1], fit["intercept"] + fit["slope"] * ends[:, 0])
    text = without_tags(find(explorer, "embvar-numbers").value)
    assert f"slope {decimal(fit['slope'])}" in text and f"CV of Q {fit['cv_Q']:.3f}" in text


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


def test_to_fade_or_not_takes_the_same_encoding(explorer):
    """The values of a message come in any order: none may fit only some of the others."""
    widget, state = explorer.plot.widget, explorer.state
    before = (widget.opacity_by, widget.opacity)
    n_opacities = []
    for shaded in (False, True, False, True, False):
        state.shaded = shaded
        assert (widget.opacity_by, widget.opacity) == before != (None, 0.9)
        assert widget.opacity_histogram is not None and tuple(widget.opacity_domain) == (0, 1)
        n_opacities.append(len(np.unique(widget.points[:, 3])))
    assert n_opacities[0] == n_opacities[2] == n_opacities[4] == 1 < min(n_opacities[1::2])


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


def test_the_outermost_unmarked_tokens_are_named(explorer, stats):
    axes, state = explorer.plot._axes, explorer.state
    for layer in (1, 5):
        state.layer = layer
        table = state.table().set_index("token")
        fit = state.fit
        residual = table["V"] - fit["intercept"] - fit["slope"] * table["M"]
        wanted = {end for one in (table["M"], table["V"], residual)
                  for end in (one.idxmin(), one.idxmax())}  # fmt: skip
        assert {name for *_, name in axes.outermost} == wanted and 2 < len(wanted) <= 6
        named = [name for *_, name in axes.outermost]
        np.testing.assert_allclose([p[:2] for p in axes.outermost], table.loc[named, ["M", "V"]])
    state.marked = [table["M"].idxmin()]
    outermost = {name for *_, name in axes.outermost}
    assert state.marked[0] not in outermost and table["M"].drop(state.marked).idxmin() in outermost
    state.marked = list(table.index)
    assert axes.outermost == []


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
