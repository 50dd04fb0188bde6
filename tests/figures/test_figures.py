"""Figures draw what the analysis says; tests read artists, never pixels."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from brute_force import two_pass
from matplotlib.colors import to_hex

import embvar_kit as ek
from embvar_kit import figures
from embvar_kit.figures.lettering import with_minus


@pytest.fixture(scope="module")
def stats(minilm, corpus):
    return ek.extract(minilm, corpus[:150], layers=[0, 2], progress=False)


def test_V_on_M_draws_each_token_and_the_line_of_the_analysis(stats):
    ax = figures.V_on_M(stats, layer=2, min_count=5)
    table = stats.table(2, min_count=5)
    points = ax.collections[0]
    drawn = np.asarray(points.get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(table[["M", "V"]], axis=0))
    order = np.lexsort(drawn.T)
    expected = np.lexsort(table[["M", "V"]].to_numpy().T)
    np.testing.assert_allclose(
        np.asarray(points.get_array())[order], np.log10(table["n"].to_numpy())[expected]
    )
    fit = stats.tradeoff(min_count=5).set_index("layer").loc[2]
    (xs, ys) = ax.lines[0].get_xydata().T
    np.testing.assert_allclose(ys, fit["intercept"] + fit["slope"] * xs)
    slope = with_minus(f"{fit['slope']:.2f}")
    assert f"slope {slope}, $R^2$ {fit['r2']:.2f}" in ax.get_title()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$M(X_t)$", "$V(X_t)$")
    unbiased = figures.V_on_M(stats, layer=2, unbiased=True, ax=plt.figure().subplots())
    assert unbiased.get_title() != ax.get_title()


def test_all_layers_share_one_range_of_colours(stats):
    figure = figures.V_on_M_by_layer(stats)
    panels = [ax for ax in figure.axes if ax.collections and ax.get_xlabel()]
    assert [ax.get_title().split(":")[0] for ax in panels] == ["layer 0", "layer 2"]
    assert len({ax.collections[0].get_clim() for ax in panels}) == 1


def test_the_triangle_and_the_bars_are_the_moments():
    x = np.random.default_rng(0).normal(loc=(2, 1), size=(50, 2))
    Q, M, V = two_pass(x.astype(np.float32))
    cloud, triangle, bars = figures.variance_formula(x).axes
    np.testing.assert_allclose(cloud.collections[0].get_offsets(), x)
    assert cloud.patches[0].radius == pytest.approx(np.sqrt(V))
    sides = {to_hex(line.get_color()): line.get_xydata() for line in triangle.lines[:3]}
    for name, square in zip("QMV", (Q, M, V), strict=True):
        start, end = sides[figures.COLOURS[name]]
        assert np.sum((end - start) ** 2) == pytest.approx(square)
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx([Q, M, V])
    assert f"{Q:.2f} = {M:.2f} + {V:.2f}" in bars.get_title()


def test_running_moments_end_at_the_moments_of_the_whole():
    x = np.random.default_rng(1).normal(size=(40, 7)).astype(np.float32) + 1
    ax = figures.running_moments(x, upto=10)
    paths = {line.get_label(): line.get_ydata() for line in ax.lines}
    for name, value in zip("QMV", two_pass(x), strict=True):
        assert paths[f"${name}$"][-1] == pytest.approx(value)
    for name, value in zip("QMV", two_pass(x[:10]), strict=True):
        assert paths[f"${name}$"][9] == pytest.approx(value)


def test_bars_of_layers_stack_to_Q():
    ax = figures.moments_by_layer([0, 3], [5.0, 6.0], [1.0, 2.0])
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches]
    assert tops == [5.0, 6.0, 6.0, 8.0]


def test_errors_and_biases_are_drawn_as_given():
    ratio = np.array([1e-3, 1e-1])
    ax = figures.subtraction_error(ratio, {"a": np.array([1.0, 0.0]), "b": np.array([0.1, 0.2])})
    drawn = [np.asarray(points.get_offsets()) for points in ax.collections]
    np.testing.assert_allclose(drawn[0], [[1e-3, 1.0], [1e-1, 1e-16]])
    np.testing.assert_allclose(drawn[1][:, 1], [0.1, 0.2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    values = {"M": np.array([[1.0, 3.0]]), "V": np.array([[4.0, 6.0]])}
    figure = figures.sample_size_bias([2], values, values, {"M": 1.5, "V": 5.5})
    for ax, mean, whole in zip(figure.axes, (2.0, 5.0), (1.5, 5.5), strict=True):
        assert [line.get_ydata()[0] for line in ax.lines] == [mean, mean, whole]


def test_the_lengths_are_the_decomposition():
    x = np.random.default_rng(2).normal(loc=(3, 1), size=(12, 2))
    groups = np.array(["b", "a", "a"] * 4)
    cloud, bars = figures.decomposition_lengths(x, groups).axes
    Q, M, V = two_pass(x.astype(np.float32))
    means = {name: x[groups == name].mean(axis=0) for name in "ab"}
    V_W = np.mean([np.sum((row - means[name]) ** 2) for row, name in zip(x, groups, strict=True)])
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx([Q, M, V - V_W, V_W])
    spokes = [line.get_xydata() for line in cloud.lines if len(line.get_xdata()) == 2]
    assert np.mean([np.sum((a - b) ** 2) for a, b in spokes[: len(x)]]) == pytest.approx(V_W)
    arrows = [np.asarray(text.xy) - text.xyann for text in cloud.texts]
    weights = [8, 4]
    between = np.average([np.sum(arrow**2) for arrow in arrows[:2]], weights=weights)
    assert between == pytest.approx(V - V_W)
    assert np.sum(arrows[2] ** 2) == pytest.approx(M)
    for wrong in ((x[:, :1], groups), (x, groups[:3]), (x, np.arange(12))):
        with pytest.raises(ek.StatisticsError, match=r"vectors|12 groups"):
            figures.decomposition_lengths(*wrong)


def test_every_figure_of_the_paper_has_its_function():
    """Figs. 1-20 and 22, and Table 2; each function says which it draws."""
    numbers = []
    for name in figures.PAPER:
        kind, _, span = name.partition(" ")
        if kind.startswith("Fig"):
            first, _, last = span.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    assert numbers == [*range(1, 21), 22]
    assert list(figures.PAPER)[-1] == "Table 2"
    for name, figure in figures.PAPER.items():
        assert figure.function.__name__ in figures.__all__, name
        number = re.search(r"\d+", name).group()
        assert re.search(rf"\b{number}\b", figure.function.__doc__), name
        assert len(figure.shows.split()) > 3


def test_the_door_shows_all_that_it_opens():
    assert len(set(figures.__all__)) == len(figures.__all__)  # ruff keeps them in order
    drawn = {name for name in figures.__all__ if callable(getattr(figures, name))}
    assert {figure.function.__name__ for figure in figures.PAPER.values()} <= drawn


def test_variance_between_parts_is_drawn_as_a_share_beside_what_chance_gives():
    n, within, between = np.array([10, 100]), np.array([3.0, 9.0]), np.array([1.0, 1.0])
    ax = figures.variance_between_parts(n, within, between, parts=3)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[10, 0.25], [100, 0.1]])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[10, 0.2], [100, 0.02]])
