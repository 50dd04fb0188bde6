"""The linked explorer: its plots, controls and results follow the state."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from explored import answer_of, controls, find, statistics_of, without_tags
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers import base
from embvar_kit.explorers.tables import decimal

LEFT = ["the", "of", "and", "only left", "rare"]
RIGHT = ["and", "the", "only right", "of", "rare"]


@pytest.fixture
def explorer(stats):
    return ek.LinkedExplorer(stats, left={"layer": 2}, right={"layer": 5}, counts=(5, None))


def test_both_plots_show_the_points_of_their_panels(explorer, stats):
    for panel, plot in zip(explorer.state.panels, explorer.plots, strict=True):
        table = stats.table(panel.layer, min_count=5)[::-1]
        x, y = (plot.scatter._data[name].to_numpy() for name in ("M", "V"))
        np.testing.assert_allclose(x, table["M"], rtol=1e-3)
        np.testing.assert_allclose(y, table["V"], rtol=1e-3)
        np.testing.assert_array_equal(plot.widget.points.shape[0], len(table))
    before = explorer.plots[0].widget.points.copy()
    find(explorer, "embvar-right").children[0].children[1].value = 6
    assert explorer.state.right.layer == 6
    np.testing.assert_array_equal(explorer.plots[0].widget.points, before)


def test_the_numbers_above_a_panel_are_its_own(explorer, stats):
    left, right = (without_tags(one.value) for one in explorer._numbers)
    fits = stats.tradeoff(min_count=5, max_count=None).set_index("layer")
    for text, layer in ((left, 2), (right, 5)):
        fit = fits.loc[layer]
        assert (
            f"layer {layer}: {int(fit['n_tokens']):,} tokens, slope {decimal(fit['slope'])}" in text
        )
        assert f"CV of Q {fit['cv_Q']:.3f}" in text
    told = without_tags(find(explorer, "embvar-both").value)
    ranks = explorer.state.rank_correlations()
    assert told.endswith(
        f"Q {ranks['Q']:.3f}, M {ranks['M']:.3f}, V {ranks['V']:.3f}."
    ) and told.startswith(f"{len(explorer.state.left.points.n):,} tokens, all in both panels")
    explorer.state.right.layer = 2
    assert "Q 1.000, M 1.000, V 1.000." in without_tags(find(explorer, "embvar-both").value)


def test_a_lasso_in_one_plot_selects_in_the_other(explorer):
    left, right = (plot.widget for plot in explorer.plots)
    rows = [3, 10, 20]
    left.selection = np.array(rows, dtype=np.uint32)
    names = list(explorer.state.left.points.tokens[rows])
    assert list(explorer.state.right.points.tokens[right.selection]) == names
    table = find(explorer, "embvar-marked").value
    assert all(name in table for name in names) and table.count("<tr>") == len(names) + 1
    right.selection = np.array([], dtype=np.uint32)
    assert len(left.selection) == 0 and find(explorer, "embvar-marked").value == ""


def test_of_the_same_tokens_hovering_needs_no_indices_and_of_others_it_has_them(explorer, stats):
    hover = explorer._hover
    assert hover.left_partners == hover.right_partners == b""
    explorer = ek.LinkedExplorer(
        {"a": statistics_of(LEFT), "b": statistics_of(RIGHT, seed=1)}, together=False
    )
    hover, (left, right) = explorer._hover, (panel.points for panel in explorer.state.panels)
    indices = np.frombuffer(hover.left_partners, "<i4")
    assert len(indices) == len(left.n)
    for here, there in enumerate(indices):
        name = left.tokens[here]
        assert (right.tokens[there] if there >= 0 else "only left") == name
    assert len(np.frombuffer(hover.right_partners, "<i4")) == len(right.n)
    explorer.state.together = True
    assert len(np.frombuffer(hover.left_partners, "<i4")) in (0, 4)


def test_both_plots_share_one_packed_script(explorer):
    from jscatter import Scatter
    from jscatter.widget import JupyterScatter

    whole = len(str(JupyterScatter._esm))
    scripts = {plot.widget.script for plot in explorer.plots}
    assert len(scripts) == 1 and len(scripts.pop().packed) < 0.25 * whole
    assert sum(len(plot.widget._esm) for plot in explorer.plots) < 5000
    alone = ek.TradeoffExplorer(statistics_of(LEFT)).plot.widget
    assert len(alone._esm) < 5000 and len(alone.script.packed) < 0.25 * whole
    own = Scatter(data=statistics_of(LEFT).table(0), x="M", y="V").widget
    assert len(str(own._esm)) == whole, "the plots of others are as they were"


def sent_of(plot) -> list[tuple[dict, int]]:
    """What a plot sends to the browser from now on: its state, and how many bytes of arrays."""
    sent, widget = [], plot.widget

    def record(key=None):
        state = widget.get_state(key)
        arrays = (value for value in state.values() if isinstance(value, dict) and "view" in value)
        sent.append((state, sum(array["view"].nbytes for array in arrays)))

    widget.send_state = record
    return sent


def drawn_by(sent) -> np.ndarray:
    """The points that the browser joins from the states it has got, the last of each kind."""
    parts = {}
    for state, _ in sent:
        parts |= {name: state[name] for name in ("points", "looks") if name in state}
    arrays = (np.frombuffer(one["view"], one["dtype"]).reshape(one["shape"])
              for one in (parts["points"], parts["looks"]))  # fmt: skip
    return np.hstack(list(arrays))


def test_a_step_sends_places_and_no_colours(explorer):
    """Both panels may move at a step: with their colours they would send twice as much."""
    explorer.state.same_depth = True
    sent = [sent_of(plot) for plot in explorer.plots]
    explorer.state.left.layer = 4
    assert explorer.state.right.layer == 4
    for panel, messages in zip(explorer.state.panels, sent, strict=True):
        with_points = [(state, size) for state, size in messages if "points" in state]
        ((state, size),) = with_points
        assert "looks" not in state and size == 8 * len(panel.points.n), "two floats a point"


def test_places_and_colours_are_those_of_the_points(explorer):
    plot, state = explorer.plots[0], explorer.state
    widget = plot.widget
    sent = [(widget.get_state(["points", "looks"]), 0)]  # as the page opens
    messages = sent_of(plot)
    for change in ({"counts": (20, None)}, {"unbiased": True}, {"counts": (5, None)}):
        for name, value in change.items():
            setattr(state, name, value)
        state.left.layer = (state.left.layer + 1) % 7
        seen = drawn_by([*sent, *messages])
        np.testing.assert_allclose(seen, widget.points, atol=1e-6)
        assert len(seen) == len(state.left.points.n)
    for told, _ in messages:
        if "points" in told and "looks" in told:
            assert told["points"]["shape"][0] == told["looks"]["shape"][0]


def test_other_colours_at_the_same_places_are_drawn(explorer):
    """The browser draws anew where what it has of the points differs: so it must."""
    widget = explorer.plots[0].widget
    before = widget.get_state("points")["points"]
    again = widget.points.copy()
    again[:, 3] /= 2
    widget.points = again
    after = widget.get_state("points")["points"]
    assert bytes(before.pop("view")) == bytes(after.pop("view")) and before != after


def test_a_dropdown_offers_the_layers_of_the_model_chosen():
    explorer = ek.LinkedExplorer(
        {
            "a": statistics_of(LEFT, layers=range(3)),
            "b": statistics_of(RIGHT, seed=1, layers=range(5)),
        }
    )
    _, layer, model = find(explorer, "embvar-left").children[0].children
    assert layer.max == 2
    model.value = "b"
    assert (explorer.state.left.model, layer.max) == ("b", 4)
    layer.value = 4
    model.value = "a"
    assert (layer.max, layer.value, explorer.state.left.layer) == (2, 2, 2)
    assert find(explorer, "embvar-message").value == ""


def test_a_refused_range_is_named_and_the_last_valid_one_stays(explorer):
    counts = find(explorer, "embvar-counts")
    counts.value = (100_000, None)
    told = find(explorer, "embvar-message").value
    assert "The left panel: No token occurs 100,000 times or more." in told
    assert counts.value == explorer.state.counts == (5, None)


def test_results_come_out_by_buttons(explorer, monkeypatch):
    downloads = find(explorer, "embvar-downloads")
    message, _ = answer_of(downloads, "CSV")
    assert "No token is marked" in message["told"]
    explorer.state.search = "the of"
    message, (content,) = answer_of(downloads, "CSV")
    assert re.fullmatch(r"linked-\w+-layer2-\w+-layer5-marked\.csv", message["name"])
    read = pd.read_csv(io.BytesIO(content))
    pd.testing.assert_frame_equal(read, explorer.marked, check_dtype=False, rtol=1e-12)
    assert set(read["token_left"]) == {"the", "of"} and (read["layer_right"] == 5).all()
    message, (content,) = answer_of(downloads, "PNG")
    assert Image.open(io.BytesIO(content)).width > 2000
    message, (content,) = answer_of(downloads, "SVG")
    assert message["type"] == "image/svg+xml" and b"layer 5" in content
    message, _ = answer_of(downloads, "code")
    again = ek.LinkedExplorer(explorer.state.sources)
    exec(message["code"], {"explorer": again})
    assert again.state.values() == explorer.state.values()


def test_a_link_of_the_app_shows_the_same_again(stats, monkeypatch):
    def made():
        return ek.LinkedExplorer({"one": stats, "other": stats}, counts=(5, None))

    assert "link" not in dict(find(made(), "embvar-downloads").buttons), "a notebook has none"
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/?token=secret")
    explorer = made()
    state = explorer.state
    state.left.model, state.right.layer, state.counts = "other", 1, (20, None)
    state.mark(["the", "of"])
    message, _ = answer_of(find(explorer, "embvar-downloads"), "link")
    monkeypatch.setenv("QUERY_STRING", f"token=another&{message['query']}")
    again = made()
    again.follow_link()
    assert again.state.values() == state.values() and state.marked
    assert find(again, "embvar-message").value == ""
    values = again.state.values()
    for query, why in (
        ("linked=%7B%22left%22:%7B%22layer%22:99%7D%7D", "Layer 99 was not extracted"),
        ("linked=%7B%22marked%22:[%22no<b>%22]%7D", "&#x27;no&lt;b&gt;&#x27; is not among"),
        ("linked=%7B%22marked%22:[3]%7D", "cannot be followed"),
        ("linked=%7B%22left%22:3%7D", "cannot be followed"),
        ("linked=%7B%22colour%22:1%7D", "no value &#x27;colour&#x27;"),
        ("linked=[1]", "no values by name"),
    ):
        again.follow_link(query)
        assert again.state.values() == values
        told = find(again, "embvar-message").value
        assert told.startswith("The link cannot be followed. ") and why in told


def test_a_saved_page_has_a_still_picture(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["image/png"].startswith("iVBOR")
    assert bundle[base.WIDGET]["model_id"] == explorer.view.model_id
    assert "V against M in two panels" in metadata["image/png"]["alt"]
    assert Image.open(io.BytesIO(explorer.still())).width > 900
    names = []
    for control in controls(explorer):
        names.append(getattr(control, "description", "") or getattr(control, "tooltip", ""))
        assert names[-1] and any(css.startswith("embvar-") for css in control._dom_classes)
    sliders = [name for name in names if "layer" in name]
    assert len(set(sliders)) == len(sliders), "a name of its own for each panel's"


def test_the_picture_has_both_panels_and_names_the_marked_tokens(explorer):
    explorer.state.search = "the of"
    left, right = (ax for ax in explorer.figure().axes if ax.get_title())
    for ax, panel in ((left, explorer.state.left), (right, explorer.state.right)):
        assert f"layer {panel.layer}\n" in ax.get_title()
        points = max((len(c.get_offsets()), c) for c in ax.collections)[1].get_offsets()
        assert len(points) == panel.fit["n_tokens"]
        table = panel.table()
        np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(table["M"]), rtol=1e-12)
        assert {"the", "of"} <= {text.get_text() for text in ax.texts}


def test_names_of_tokens_are_escaped():
    explorer = ek.LinkedExplorer(statistics_of(["<b>x", "y", "z"]))
    explorer.state.mark(["<b>x"])
    assert "&lt;b&gt;x" in find(explorer, "embvar-marked").value
