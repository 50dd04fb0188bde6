"""The density of the points of the trade-off explorer, shown by their opacity."""

from __future__ import annotations

import numpy as np

import embvar_kit as ek
from embvar_kit.explorers.shading import opacities


def drawn(explorer) -> np.ndarray:
    """The opacity of each point, as the browser picks it from what it is sent."""
    widget = explorer.plot.widget
    if widget.opacity_by is None:
        return np.full(len(widget.points), widget.opacity)
    assert widget.opacity_by == "valueB"
    places = widget.points[:, 3].astype(np.float32)
    return np.array(widget.opacity)[np.floor(places * (len(widget.opacity) - 1)).astype(int)]


def test_the_more_points_are_near_the_more_transparent_is_each():
    rng = np.random.default_rng(0)
    clouds = [rng.normal(centre, 0.02, (n, 2)) for centre, n in ((0.2, 20_000), (0.7, 500))]
    places = np.concatenate([*clouds, [[0.9, 0.1]]])
    found = opacities(*places.T)
    assert found[-1] == 1, "alone"
    dense, loose = found[:20_000].mean(), found[20_000:-1].mean()
    assert 0 < found.min() <= dense < 0.5 * loose < 1
    np.testing.assert_allclose(opacities(*(0.1 + 0.5 * places).T)[-1], 1)


def test_points_are_shaded_at_the_layer_shown_and_none_without_it(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(2, None), layer=2, special=False)
    assert set(drawn(explorer)) == {0.9}
    before = explorer.plot.widget.points.copy()
    explorer.state.shaded = True
    for layer in (2, 5):
        explorer.state.layer = layer
        points, at = explorer.state.points, explorer.state.points.at(layer)
        ends = explorer.state.limits()
        shares = [
            (x[at] - low) / (high - low)
            for x, (low, high) in zip((points.M, points.V), ends, strict=True)
        ]
        np.testing.assert_allclose(drawn(explorer), opacities(*shares), atol=0.011)
        assert np.ptp(drawn(explorer)) > 0.2
    explorer.state.layer, explorer.state.colour_by = 2, "Q"
    assert np.ptp(drawn(explorer)) > 0.2
    explorer.state.colour_by, explorer.state.shaded = "n", False
    assert set(drawn(explorer)) == {0.9}
    np.testing.assert_array_equal(explorer.plot.widget.points, before)


def test_it_is_in_the_code(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), shaded=True)
    assert "shaded=True" in explorer.code
    again = ek.TradeoffExplorer(stats, counts=(5, None))
    exec(explorer.code, {"explorer": again})
    assert again.state.shaded and np.ptp(drawn(again)) > 0.1
