"""A quantity that is the same for all tokens is drawn as one value, not as its rounding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import embvar_kit as ek
from embvar_kit import figures
from embvar_kit.figures import style
from embvar_kit.figures.token import moments_of_token

WIDTH, LAYERS, TOKENS = 6, 5, 300


def made(Q: float, V: float | None = None, *, by: str = "token") -> ek.TokenStatistics:
    """Statistics of tokens that have one Q, and one V if it is given, up to rounding."""
    rng = np.random.default_rng(0)
    n = np.sort(rng.zipf(1.5, TOKENS).clip(10, 60_000))[::-1].astype(np.int64)
    shape = LAYERS, TOKENS
    noise = Q * 2e-8 * rng.normal(size=(2, *shape))
    M = rng.uniform(0.2, 0.9, shape) * Q
    return ek.TokenStatistics(
        tokens=np.array([f"token{at}" for at in range(TOKENS)], dtype=object),
        special=np.zeros(TOKENS, dtype=bool),
        layers=np.arange(LAYERS),
        n=n,
        Q=(Q if V is None else M + V) + noise[0],
        M=M,
        V=Q - M if V is None else V + noise[1],
        mean=np.sqrt(M / WIDTH)[:, :, None].repeat(WIDTH, axis=2).astype(np.float32),
        extra=None,
        info={
            "model": {"name": "made", "n_states": LAYERS, "width": WIDTH},
            "corpora": [{"name": "made", "fingerprint": "0" * 16, "settings": {}}],
            "convention": {"by": by, "site": "unit", "markers": []},
            "counts": {"occurrences": int(n.sum())},
        },
        subwords=np.ones(TOKENS) if by == "word" else None,
    )


def offsets(drawn) -> list[str]:
    """What is written at the ends of axes: an offset, or a power of ten below 1."""
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    figure.draw_without_rendering()
    found = [
        axis.get_offset_text().get_text() for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)
    ]
    return [text for text in found if "+" in text or "-" in text.replace("−", "-")]


FUNCTIONS = [
    figures.V_on_M,
    figures.V_on_M_by_layer,
    figures.tradeoff_by_layer,
    figures.moments_on_frequency,
    figures.statistics_grid,
    figures.moment_histograms,
    figures.frequency_slopes,
    figures.shares_by_layer,
    figures.within_share_by_layer,
    figures.parts_over_Q_by_layer,
    figures.moments_of_all_by_layer,
    figures.variance_parts_by_layer,
    lambda one: moments_of_token(one, "token1"),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("scale", [1, 384.0], ids=["unit", "standardized"])
def test_no_axis_is_stretched_to_the_rounding_of_Q(function, scale):
    assert not [text for text in offsets(function(made(scale))) if "+" in text]


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_constant_Q_has_no_slope_on_frequency(offset):
    figure = figures.frequency_slopes(made(1), offset=offset)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.0] * LAYERS
    assert figure.axes[1].lines[0].get_ydata().all()
    grid = figures.statistics_grid(made(1), layers=[2], offset=offset)
    assert grid.axes[0].get_title() == "slope 0.00, $R^2$ undefined"
    assert not offsets(grid)


def test_the_axis_of_a_constant_Q_lies_around_it():
    for Q in (1, 384.0):
        ax = figures.moments_on_frequency(made(Q)).axes[0]
        assert ax.get_ylim() == pytest.approx((0.95 * Q, 1.05 * Q))
        assert ax.get_title().endswith("slope 0.00, $R^2$ undefined")
        ax = figures.moments_of_all_by_layer(made(Q)).axes[0]
        assert ax.get_ylim() == pytest.approx((0, 1.05 * Q))
    by_layer = figures.tradeoff_by_layer(made(1))
    assert by_layer.axes[0].lines[0].get_ydata().tolist() == [0.0] * LAYERS
    assert by_layer.axes[1].get_ylim() == pytest.approx((-1.05, -0.95))
    words = figures.word_moments(made(1, by="word"), layer=2)
    assert words.axes[0].get_ylim() == pytest.approx((0.95, 1.05)) and not offsets(words)


def test_all_tokens_of_a_constant_Q_are_in_one_bar():
    ax = figures.moment_histograms(made(1), layers=[2]).axes[0]
    assert max(bar.get_height() for bar in ax.patches) == TOKENS
    assert "trimmed" not in ax.get_title()
    assert ax.get_xlim()[0] < 0.95 < 1.05 < ax.get_xlim()[1]


@pytest.mark.parametrize("V", [0.0, 0.3])
def test_a_constant_V_is_drawn_as_one_value(V):
    ax = figures.V_on_M(made(1, V))
    low, high = ax.get_ylim()
    assert low < V < high and high - low > 0.05 and not offsets(ax)
    assert ax.get_title().endswith("slope 0.00, $R^2$ undefined")


def test_what_differs_by_more_keeps_its_axis():
    assert style.around_constant(np.array([1.0, 1.00001])) is None
    assert style.around_constant(np.array([0.0, 1e-9]), scale=1.0) == pytest.approx(
        (-0.05, 0.05), abs=1e-8
    )
    assert style.around_constant(np.array([0.0, np.nan])) == (-0.05, 0.05)
    assert style.around_constant(np.array([np.nan])) is None


def test_slopes_of_minus_1_are_drawn_as_such():
    """As gains of one size leave them, whatever is mixed in."""
    line = SimpleNamespace(slope=-1 + 2e-9, r2=1.0)
    table = pd.DataFrame({"dimension": range(8), "gamma": 1.0, "beta": 0.0})
    table["bend"] = np.linspace(-1e-9, 1e-9, 8)
    part = SimpleNamespace(
        layer=1,
        common=1.0,
        tradeoff=lambda gamma, beta: SimpleNamespace(slope=-1 + 1e-9 * gamma, r2=1.0),
        by_dimension=lambda: table,
        without=lambda dimensions: line,
    )
    mixture = figures.affine_mixture(part)
    assert not offsets(mixture) and mixture.axes[0].get_ylim() == pytest.approx((-1.05, -0.95))
    assert not offsets(figures.bends(part))
    twins = pd.DataFrame(
        {"twin": "post-ln-frozen", "weights": "trained", "site": "hidden"}, range(3)
    )
    twins = twins.assign(tokens="all", layer=range(3), slope=-1 + 1e-9 * np.arange(3), r2=1.0)
    twins = pd.concat([twins, twins.assign(weights="untrained")])
    assert not offsets(figures.twins_by_layer(twins))
