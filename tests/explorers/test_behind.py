"""The null behind the points of the trade-off explorer: its picture, its line, its numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import traitlets
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers.behind import SIZE
from embvar_kit.explorers.tables import decimal
from embvar_kit.figures.lettering import with_minus
from embvar_kit.figures.tradeoff import NULL_COLOUR, NULL_LINE


@pytest.fixture(scope="module")
def stats():
    """Statistics of the whole excerpt: those of a few sentences have hardly a number in them."""
    return ek.cached_statistics("minilm", progress=False)


def grey(explorer) -> np.ndarray:
    """Which pixels of the picture behind the points are grey; the others are white."""
    image = np.asarray(Image.open(io.BytesIO(explorer.plot._axes.behind)).convert("RGB"))
    assert image.shape == (*SIZE[::-1], 3)
    ink = (image == np.round(255 * np.array(to_rgb(NULL_COLOUR)))).all(axis=2)
    assert (image[~ink] == 255).all()
    return ink


def pixels(explorer, table) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each token in the picture, from the ends of the axes."""
    (left, right), (low, high) = explorer.state.limits()
    across = (table["M"].to_numpy() - left) / (right - left)
    up = (table["V"].to_numpy() - low) / (high - low)
    width, height = SIZE
    return np.rint((1 - up) * (height - 1)).astype(int), np.rint(across * (width - 1)).astype(int)


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_nulls_points_are_drawn_where_they_belong(stats, unbiased):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, unbiased=unbiased)
    assert explorer.plot._axes.behind == b""
    explorer.state.null = True
    for layer in (2, 4):
        explorer.state.layer = layer
        table = stats.null.table(layer, min_count=5, unbiased=unbiased)
        rows, columns = pixels(explorer, table)
        ink = grey(explorer)
        assert ink[rows, columns].all()
        far = np.ones(ink.shape, dtype=bool)
        for row, column in zip(rows, columns, strict=True):
            far[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5] = False
        assert not ink[far].any() and far.any()
    explorer.state.null = False
    assert explorer.plot._axes.behind == b""


def test_the_axes_hold_the_null_and_the_points_keep_their_places(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, scales="own", null=True)
    (left, right), (low, high) = explorer.state.limits()
    null = stats.null.table(2, min_count=5)
    assert high > null["V"].max() > stats.table(2, min_count=5)["V"].max()
    sent = (explorer.plot.widget.points[:, :2] + 1) / 2 * [right - left, high - low] + [left, low]
    np.testing.assert_allclose(sent, explorer.state.table()[["M", "V"]], atol=1e-6)


def test_its_line_and_its_numbers_are_those_of_the_analysis(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, null=True)
    fit = stats.null.tradeoff(min_count=5, max_count=None).set_index("layer").loc[2]
    told = f"Labels permuted, in grey: slope {decimal(fit['slope'])}, R² {fit['r2']:.3f}."
    assert told in explorer._numbers.value
    assert told in explorer._frame.pictures["embvar-scatter"]
    null, line = explorer.plot._lines()
    assert [to_hex(one.line_color) for one in (null, line)] == [NULL_LINE, "#000000"]
    M, V = np.array(null.vertices).T
    np.testing.assert_allclose(V, fit["intercept"] + fit["slope"] * M)
    legend = explorer.figure().axes[0].get_legend()
    slope = with_minus(f"{fit['slope']:.2f}")
    assert f"slope {slope}" in legend.get_texts()[0].get_text()


def test_a_filter_takes_the_same_tokens_of_the_null(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, null=True)
    state = explorer.state
    state.only = "characters", "digits"
    assert sorted(state.null_points.tokens) == sorted(state.points.tokens)
    state.special, state.only = False, None
    assert "[CLS]" not in state.null_points.tokens


def test_logarithmic_axes_place_the_null_too(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2, scales="log", null=True)
    (left, right), (low, high) = np.log(explorer.state.limits())
    table = stats.null.table(2, min_count=5)
    columns = (np.log(table["M"]) - left) / (right - left) * (SIZE[0] - 1)
    rows = (1 - (np.log(table["V"]) - low) / (high - low)) * (SIZE[1] - 1)
    assert grey(explorer)[np.rint(rows).astype(int), np.rint(columns).astype(int)].all()


def test_statistics_without_a_null_refuse_it(stats, sites):
    assert sites["hidden"].null is None
    explorer = ek.TradeoffExplorer({"one": stats, "other": sites["hidden"]}, counts=(5, None))
    state = explorer.state
    state.null = True
    (checkbox,) = [w for w in explorer._options.row.children if "embvar-null" in w._dom_classes]
    assert checkbox.value and not checkbox.disabled
    values = state.values()
    state.model = "other"
    assert not state.null and not checkbox.value and checkbox.disabled
    assert "extract with null=True" in checkbox.tooltip
    with pytest.raises(traitlets.TraitError, match="of other have no null"):
        state.null = True
    state.restore(**values)
    assert state.null and state.model == "one"
