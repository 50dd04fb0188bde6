"""Figures of one model and of several draw what the statistics and the analysis say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import embvar_kit as ek
from embvar_kit import analysis, figures
from embvar_kit.figures import given, lettering

RANGE = {"min_count": 5, "max_count": 100_000}


@pytest.fixture(scope="module")
def stats(sites):
    return sites["hidden"]


@pytest.fixture(scope="module")
def words(minilm, corpus):
    return ek.extract(minilm, corpus, by="word", layers=[0, 3], progress=False)


@pytest.fixture(scope="module")
def shallow(loaded, corpus):
    """Statistics of another model, with 3 hidden states."""
    return ek.extract(loaded("gpt2"), corpus, progress=False)


def panels_of(figure):
    """The Axes of a figure, without those of colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def lines_of(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def line_of(ax):
    """The regression line: the last one drawn."""
    return np.asarray(ax.lines[-1].get_xydata())


def assert_on_line(ax, x, y):
    fit = analysis.regress(x, y)
    xs, ys = line_of(ax).T
    np.testing.assert_allclose(ys, fit.intercept + fit.slope * xs, rtol=1e-6, atol=1e-9)
    assert (xs.min(), xs.max()) == pytest.approx((x.min(), x.max()))
    return fit


# V on M


def test_several_models_are_panels_on_one_range_of_colours(stats, shallow):
    figure = figures.V_on_M([stats, shallow], **RANGE)
    panels = panels_of(figure)
    assert [ax.get_title().split("\n")[0] for ax in panels] == [
        "minilm, layer 3",
        f"{shallow.info['model']['name']}, layer 1",
    ]
    assert len({ax.collections[0].get_clim() for ax in panels}) == 1
    counts = [one.table(0, **RANGE)["n"] for one in (stats, shallow)]
    low, high = panels[0].collections[0].get_clim()
    assert low <= np.log10(min(map(min, counts)))
    assert high == pytest.approx(np.log10(max(map(max, counts))))
    for ax, one, layer in zip(panels, (stats, shallow), (3, 1), strict=True):
        table = one.table(layer, **RANGE)
        drawn = np.asarray(ax.collections[0].get_offsets())
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(table[["M", "V"]], axis=0))
        assert_on_line(ax, table["M"].to_numpy(), table["V"].to_numpy())


def test_tokens_are_named_where_they_lie(stats):
    ax = figures.V_on_M(stats, layer=2, label=["the", "of"], **RANGE)
    table = stats.table(2, **RANGE).set_index("token")
    named = {text.get_text(): text.xy for text in ax.texts}
    assert set(named) == {"the", "of"}
    for token, at in named.items():
        assert at == pytest.approx(table.loc[token, ["M", "V"]].to_numpy(dtype=float))
    with pytest.raises(ek.StatisticsError, match="'xyzzy': no such token"):
        figures.V_on_M(stats, layer=2, label=["xyzzy"], **RANGE)


def test_logarithmic_axes_hold_what_has_a_logarithm_and_count_the_rest(stats):
    V, M = stats.V.copy(), stats.M.copy()
    table = stats.table(2, **RANGE)
    V[:, :3], M[:, :3] = 0, stats.Q[:, :3]
    odd = replace(stats, V=V, M=M)
    ax = figures.V_on_M(odd, layer=2, log=True, **RANGE)
    expected = odd.table(2, **RANGE).iloc[3:]
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected[["M", "V"]], axis=0))
    assert len(drawn) == len(table) - 3
    assert ax.texts[0].get_text().startswith("3 not shown")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    for axis, values in ((ax.xaxis, drawn[:, 0]), (ax.yaxis, drawn[:, 1])):
        ticks = axis.get_majorticklocs()
        assert 2 <= len(ticks) <= 3
        assert values.min() <= ticks[0] <= ticks[-1] <= values.max()
        assert all(label.get_text() for label in axis.get_ticklabels())
    fit = odd.tradeoff(**RANGE).set_index("layer").loc[2]
    xs, ys = line_of(ax).T
    np.testing.assert_allclose(ys, fit["intercept"] + fit["slope"] * xs)
    panels = panels_of(figures.V_on_M_by_layer(stats, log=True, **RANGE))
    assert {panel.get_yscale() for panel in panels} == {"log"}
    nothing = replace(stats, V=np.zeros_like(V), M=stats.Q)
    with pytest.raises(ek.StatisticsError, match="log=False"):
        figures.V_on_M(nothing, layer=2, log=True, **RANGE)


def test_unbiased_forms_are_drawn_and_called_so(stats):
    ax = figures.V_on_M(stats, layer=2, unbiased=True, **RANGE)
    table = stats.table(2, unbiased=True, **RANGE)
    np.testing.assert_allclose(
        np.sort(ax.collections[0].get_offsets(), axis=0), np.sort(table[["M", "V"]], axis=0)
    )
    assert ax.get_xlabel() == r"$\tilde{M}(X_t)$"


def test_high_norm_tokens_are_named_in_the_figure_they_dominate(stats):
    Q = stats.Q.copy()
    Q[:, 0] = 5000 * np.median(Q)
    M = stats.M.copy()
    M[:, 0] = Q[:, 0] - stats.V[:, 0]
    odd = replace(stats, Q=Q, M=M)
    ax = figures.V_on_M(odd, layer=2, **RANGE)
    assert "1 high-norm token:" in ax.texts[0].get_text()
    healed = odd.without(odd.high_norm(min_count=5).token)
    ax = figures.V_on_M(healed, layer=2, **RANGE)
    assert not ax.texts
    assert "(1 token left out)" in ax.get_title()


# By layer


def test_the_tradeoff_by_layer_is_the_table(stats, shallow):
    figure = figures.tradeoff_by_layer([stats, shallow], **RANGE)
    names = lettering.labels([stats, shallow])
    for ax, column in zip(figure.axes, ("cv_Q", "slope", "r2"), strict=True):
        drawn = lines_of(ax)
        for one, name in zip((stats, shallow), names, strict=True):
            table = one.tradeoff(**RANGE)
            np.testing.assert_allclose(drawn[name][:, 1], table[column])
            np.testing.assert_allclose(drawn[name][:, 0], table["layer"] / table["layer"].max())
        assert "relative depth" in ax.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    by_index = figures.tradeoff_by_layer([stats, shallow], depth="index", **RANGE)
    assert lines_of(by_index.axes[0])["minilm"][:, 0].tolist() == list(range(7))
    alone = figures.tradeoff_by_layer(stats, **RANGE)
    assert alone.axes[0].get_xlabel() == "layer"
    assert not alone.legends


def test_models_differ_in_colour_marker_and_line(stats, shallow):
    ax = figures.within_share_by_layer([stats, shallow, stats.without(["the"])], **RANGE)
    for look in ("get_color", "get_marker", "get_linestyle"):
        assert len({str(getattr(line, look)()) for line in ax.lines}) == 3
    assert not {to_hex(line.get_color()) for line in ax.lines} & set(figures.COLOURS.values())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[0] == "minilm"
    assert names[2] == "minilm (1 token left out)"


def test_equal_names_are_told_apart(stats, sites, words, minilm):
    assert lettering.labels([stats, sites["unit"]]) == ["minilm, site hidden", "minilm, site unit"]
    assert lettering.labels([stats, words]) == ["minilm, by token", "minilm, by word"]
    assert lettering.labels([stats, stats]) == ["minilm [1]", "minilm [2]"]
    other = ek.extract(minilm, ek.Corpus.of(["A cat."], "pets"), layers=[0], progress=False)
    assert lettering.labels([stats, other]) == ["minilm, on wikipedia", "minilm, on pets"]


@pytest.mark.parametrize("unbiased", [False, True])
def test_shares_stack_to_1(stats, shallow, unbiased):
    ax = figures.shares_by_layer(stats, unbiased=unbiased, **RANGE)
    parts = stats.decomposition(unbiased=unbiased, **RANGE)
    assert isinstance(ax, Axes)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(3, -1)
    for height, name in zip(heights, ("M", "V_B", "V_W"), strict=True):
        np.testing.assert_allclose(height, parts[name] / parts["Q"])
    np.testing.assert_allclose(heights.sum(axis=0), 1)
    tops = [bar.get_y() + bar.get_height() for bar in ax.patches[-len(parts) :]]
    np.testing.assert_allclose(tops, 1)
    colours = [to_hex(ax.patches[i].get_facecolor()) for i in (0, len(parts), 2 * len(parts))]
    assert colours == [figures.COLOURS[name] for name in ("M", "V_B", "V_W")]
    several = figures.shares_by_layer([stats, shallow], unbiased=unbiased, **RANGE)
    assert [len(panel.patches) for panel in several.axes] == [21, 9]
    with pytest.raises(ek.StatisticsError, match="leave ax out"):
        figures.shares_by_layer([stats, shallow], ax=ax, **RANGE)


@pytest.mark.parametrize(
    ("function", "columns"),
    [
        (figures.parts_over_Q_by_layer, ["M/Q", "V/Q", "V_W/Q", "V_B/Q"]),
        (figures.moments_of_all_by_layer, ["Q", "M", "V"]),
        (figures.variance_parts_by_layer, ["V_W", "V_B", "V_B/V"]),
        (figures.within_share_by_layer, ["V_W/V"]),
    ],
)
def test_lines_are_the_decomposition(function, columns, stats, shallow):
    drawn = function([stats, shallow], **RANGE)
    axes = [drawn] if isinstance(drawn, Axes) else drawn.axes
    assert len(axes) == len(columns)
    for ax, column in zip(axes, columns, strict=True):
        for one, name in zip((stats, shallow), lettering.labels([stats, shallow]), strict=True):
            expected = one.decomposition(**RANGE).eval(column)
            np.testing.assert_allclose(lines_of(ax)[name][:, 1], expected)
    alone = function(stats, **RANGE)
    axis = alone if isinstance(alone, Axes) else alone.axes[0]
    assert to_hex(axis.lines[0].get_color()) == figures.COLOURS[columns[0].split("/")[0]]


def test_anisotropy_is_drawn_from_unit_embeddings(sites):
    ax = figures.anisotropy_by_layer(sites["unit"], min_count=5)
    table = sites["unit"].anisotropy(min_count=5)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["self_similarity"])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), table["anisotropy"])
    with pytest.raises(ek.StatisticsError, match="site='unit'"):
        figures.anisotropy_by_layer(sites["hidden"])


def test_the_largest_dimensions_are_named_and_all_stack_to_1():
    mean = np.array([[3.0, 0.0, 1.0, 0.5], [0.0, 4.0, 1.0, 0.5]])
    variance = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 9.0, 1.0]])
    figure = figures.dimension_shares(mean, variance, layers=[2, 5], top=2)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["dimension 1", "dimension 2", "the other 2"]
    for ax, square in zip(figure.axes, (mean**2, variance), strict=True):
        share = square / square.sum(axis=1, keepdims=True)
        heights = np.array([bar.get_height() for bar in ax.patches]).reshape(3, 2)
        np.testing.assert_allclose(heights, [share[:, 1], share[:, 2], share[:, [0, 3]].sum(1)])
        assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches[:2]] == [2, 5]
    for wrong in ((mean, variance[:1]), (mean, -variance)):
        with pytest.raises(ek.StatisticsError, match="means and variances"):
            figures.dimension_shares(*wrong)
    with pytest.raises(ek.StatisticsError, match="top=9"):
        figures.dimension_shares(mean, variance, top=9)


# Against frequency


@pytest.mark.parametrize("unbiased", [False, True])
def test_moments_on_frequency(stats, shallow, unbiased):
    figure = figures.moments_on_frequency([stats, shallow], unbiased=unbiased, **RANGE)
    panels = iter(figure.axes)
    for one, layer in ((stats, 3), (shallow, 1)):
        table = one.table(layer, unbiased=unbiased, **RANGE)
        x = np.log10(table["n"].to_numpy())
        for name in "QMV":
            ax = next(panels)
            drawn = np.asarray(ax.collections[0].get_offsets())
            np.testing.assert_allclose(drawn, np.column_stack([x, table[name]]))
            fit = assert_on_line(ax, x, table[name].to_numpy())
            assert f"$R^2$ {fit.r2:.2f}" in ax.get_title()
            assert to_hex(ax.collections[0].get_facecolor()[0]) == figures.COLOURS[name]


@pytest.mark.parametrize("x", ["documents", "effective_documents"])
def test_moments_can_be_drawn_against_documents(stats, shallow, x):
    figure = figures.moments_on_frequency([stats, shallow], x=x, **RANGE)
    panels = iter(figure.axes)
    for one, layer in ((stats, 3), (shallow, 1)):
        table, kept = (
            one.table(layer, **RANGE),
            np.isin(one.tokens, one.table(layer, **RANGE).token),
        )
        count = np.log10(getattr(one, x)[kept])
        for name in "QMV":
            ax = next(panels)
            drawn = np.asarray(ax.collections[0].get_offsets())
            np.testing.assert_allclose(drawn, np.column_stack([count, table[name]]))
            assert_on_line(ax, count, table[name].to_numpy())
            assert x.replace("_", " ") in ax.get_xlabel()


def test_moments_on_documents_need_to_know_them(stats):
    with pytest.raises(ek.StatisticsError, match="do not know in which documents"):
        figures.moments_on_frequency(replace(stats, counts={}), x="documents", **RANGE)
    with pytest.raises(ek.StatisticsError, match="x='articles' is unknown"):
        figures.moments_on_frequency(stats, x="articles", **RANGE)


def test_the_grid_has_five_layers(stats):
    figure = figures.statistics_grid(stats, **RANGE)
    panels = panels_of(figure)
    assert len(panels) == 20
    for row, layer in zip(np.reshape(panels, (5, 4)), (0, 1, 3, 4, 6), strict=True):
        assert row[0].get_ylabel().startswith(f"layer {layer}\n")
        table = stats.table(layer, **RANGE)
        x = np.log10(table["n"].to_numpy())
        for ax, name in zip(row, "QMV", strict=False):
            y = np.log10(1 + table[name].to_numpy())
            np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([x, y]))
            assert_on_line(ax, x, y)
        assert_on_line(row[3], table["M"].to_numpy(), table["V"].to_numpy())
    assert len({row.collections[0].get_clim() for row in panels[3::4]}) == 1


def test_histograms_trim_the_top_and_say_so(stats):
    figure = figures.moment_histograms(stats, layers=[1, 5], **RANGE)
    assert "top 1 % trimmed" in figure.get_suptitle()
    axes = np.reshape(figure.axes, (2, 3))
    for row, layer in zip(axes, (1, 5), strict=True):
        table = stats.table(layer, **RANGE)
        for ax, name in zip(row, "QMV", strict=True):
            value = np.sort(table[name])
            counted = sum(bar.get_height() for bar in ax.patches)
            trimmed = len(value) - counted
            assert 0 < trimmed <= np.ceil(0.01 * len(value))
            mean, told = ax.get_title().split("\n")
            assert mean == f"mean (dashed): {value.mean():,.4g}"
            assert told == f"trimmed: {trimmed:.0f}, up to {value[-1]:,.4g}"
            assert ax.get_legend() is None  # it would cover bars
            ends = [ax.patches[0].get_x(), ax.patches[-1].get_x() + ax.patches[-1].get_width()]
            assert ends == pytest.approx([value[0], value[int(counted) - 1]])
    whole = figures.moment_histograms(stats, layers=[1], trim=0, **RANGE)
    assert sum(bar.get_height() for bar in whole.axes[0].patches) == len(stats.table(1, **RANGE))
    with pytest.raises(ek.StatisticsError, match="trim=1"):
        figures.moment_histograms(stats, trim=1)


def test_slopes_on_frequency(stats):
    figure = figures.frequency_slopes(stats, **RANGE)
    for ax, name in zip(figure.axes, "QMV", strict=True):
        for layer, slope in ax.lines[0].get_xydata():
            table = stats.table(int(layer), **RANGE)
            fit = analysis.regress(np.log10(table["n"]), np.log10(1 + table[name]))
            assert slope == pytest.approx(fit.slope)


def test_frequencies_count_every_token(stats, shallow):
    ax = figures.token_frequencies(stats)
    assert sum(bar.get_height() for bar in ax.patches) == len(stats)
    edges = np.array([bar.get_x() for bar in ax.patches])
    once = [bar.get_height() for bar in ax.patches][int(np.argmin(np.abs(edges)))]
    assert once == (np.log10(stats.n) < edges[1]).sum()
    ax = figures.token_frequencies([stats, shallow])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == lettering.labels(
        [stats, shallow]
    )
    with pytest.raises(ek.StatisticsError, match="lower min_count"):
        figures.token_frequencies(stats, min_count=10**6)


def test_sentence_lengths(stats, shallow):
    ax = figures.sentence_lengths([stats, shallow])  # the same sentences: one histogram
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    lengths = stats.info["sentences_by_words"]
    assert {at: height for at, height in heights.items() if height} == {
        at: number for at, number in enumerate(lengths) if number
    }
    assert ax.get_title() == "wikipedia: 300 sentences"
    assert not ax.texts  # no sentence in a thousand is longer than the rest
    lengths = [0] * 5 + [1999] + [0] * 94 + [1]
    long = figures.sentence_lengths(
        replace(stats, info={**stats.info, "sentences_by_words": lengths})
    )
    assert long.get_xlim() == (0, 5.5)
    assert [text.get_text() for text in long.texts] == ["1 longer, up to 100"]
    info = {name: value for name, value in stats.info.items() if name != "sentences_by_words"}
    with pytest.raises(ek.StatisticsError, match="extract from the corpus again"):
        figures.sentence_lengths([stats, replace(stats, info=info)])


# Words, and embeddings themselves


def test_words_by_their_number_of_subwords(words):
    figure = figures.word_moments(words, layer=3, min_count=2)
    table = words.table(3, min_count=2)
    pieces = np.clip(np.rint(table["subwords"]), 1, 4).astype(int)
    present = sorted(set(pieces))
    assert len(present) > 2
    x = np.log10(table["n"].to_numpy())
    for ax, (horizontal, name) in zip(
        figure.axes, ((x, "Q"), (x, "M"), (x, "V"), (table["M"].to_numpy(), "V")), strict=True
    ):
        for points, number in zip(ax.collections, present, strict=True):
            own = (pieces == number).to_numpy()
            expected = np.column_stack([horizontal[own], table[name][own]])
            np.testing.assert_allclose(points.get_offsets(), expected)
        assert_on_line(ax, horizontal, table[name].to_numpy())
    assert len({tuple(p.get_facecolor()[0]) for p in figure.axes[0].collections}) == len(present)
    assert figure.axes[3].get_ylabel() == "$V(X_w)$"


def test_tokens_are_no_words(stats, words):
    with pytest.raises(ek.StatisticsError, match="by='word'"):
        figures.word_moments([words, stats])


def test_tokens_are_picked_from_every_bin(stats):
    table = figures.pick_tokens(stats, layer=3, per_bin=2, bins=5, **RANGE)
    assert table.groupby("bin").size().max() <= 2
    assert {1, 5} <= set(table["bin"]) <= {1, 2, 3, 4, 5}
    whole = stats.table(3, **RANGE)
    merged = table.merge(whole, on=["token", "n", "Q", "M", "V"])
    assert len(merged) == len(table)
    edges = np.linspace(*np.log10([whole["n"].min(), whole["n"].max()]), 6)
    for row in table.itertuples():
        assert edges[row.bin - 1] - 1e-9 <= np.log10(row.n) <= edges[row.bin] + 1e-9
    again = figures.pick_tokens(stats, layer=3, per_bin=2, bins=5, **RANGE)
    assert again.equals(table)
    others = figures.pick_tokens(stats, layer=3, per_bin=2, bins=5, seed=1, **RANGE)
    assert not others["token"].equals(table["token"])


def test_clouds_are_projected_on_the_axes_of_the_means(stats, minilm, corpus):
    found = ek.collect_embeddings(minilm, corpus, ["the", "of", "."], layers=[3], most=30)
    ax = figures.token_clouds(found, layer=3, stats=stats)
    rows = [list(stats.tokens).index(token) for token in found]
    means = np.vstack([stats.mean[3][rows], np.zeros(minilm.width)]).astype(float)
    centred = means - means.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    drawn = {p.get_label(): np.asarray(p.get_offsets()) for p in ax.collections}
    for token, occurrences in found.items():
        expected = occurrences.at(3) @ axes
        np.testing.assert_allclose(np.abs(drawn[token]), np.abs(expected), atol=1e-4)
    spots = np.asarray(ax.collections[-1].get_offsets())
    np.testing.assert_allclose(np.abs(spots), np.abs(means[:-1] @ axes), atol=1e-4)
    assert ax.lines[0].get_xydata().tolist() == [[0, 0]]
    assert [text.get_text() for text in ax.texts] == ["the", "of", "‘.’", "origin"]
    share = values[::-1][0] / values.sum()
    assert f"({share:.0%})" in ax.get_xlabel()
    colour = ax.collections[-1].get_facecolors()
    assert len(np.unique(colour, axis=0)) == len({*stats.n[rows]})


def test_clouds_without_statistics_take_their_own_means(minilm, corpus):
    found = ek.collect_embeddings(minilm, corpus, ["the", "of"], layers=[3], most=30)
    ax = figures.token_clouds(found, layer=3)
    for at, token in enumerate(found):
        own = next(p for p in ax.collections if p.get_label() == token)
        middle = np.asarray(own.get_offsets()).mean(axis=0)
        np.testing.assert_allclose(ax.collections[-1].get_offsets()[at], middle, atol=1e-4)
    with pytest.raises(ek.StatisticsError, match="at least two tokens"):
        figures.token_clouds({"the": found["the"]}, layer=3)


# Compact, sparse and odd statistics


def test_compact_statistics_give_the_same_figures(stats, sites):
    small = stats.compact()
    for function in (figures.V_on_M, figures.within_share_by_layer):
        whole, compact = function(stats), function(small)
        for line, other in zip(whole.lines, compact.lines, strict=True):
            np.testing.assert_allclose(line.get_ydata(), other.get_ydata(), rtol=1e-4)
    with pytest.raises(ek.StatisticsError, match="min_count=10 or more"):
        figures.V_on_M(small, min_count=5)
    assert figures.token_frequencies(small).get_title() == "minilm, $n_t$ ≥ 10"
    whole = sites["unit"].anisotropy()
    np.testing.assert_allclose(sites["unit"].compact().anisotropy(), whole, rtol=1e-4)


STATISTICS_FIGURES = [
    figures.V_on_M,
    figures.V_on_M_by_layer,
    figures.tradeoff_by_layer,
    figures.shares_by_layer,
    figures.within_share_by_layer,
    figures.parts_over_Q_by_layer,
    figures.moments_of_all_by_layer,
    figures.variance_parts_by_layer,
    figures.moments_on_frequency,
    figures.statistics_grid,
    figures.moment_histograms,
    figures.frequency_slopes,
    figures.pick_tokens,
]


@pytest.mark.parametrize("function", STATISTICS_FIGURES)
def test_where_no_token_is_in_the_range_the_error_names_the_remedy(function, stats):
    with pytest.raises(ek.StatisticsError, match="lower min_count"):
        function(stats, min_count=10**6, max_count=None)


@pytest.mark.parametrize("function", STATISTICS_FIGURES)
def test_one_layer_is_enough(function, words):
    one = replace(
        words,
        **{name: getattr(words, name)[:1] for name in ("layers", "Q", "M", "V", "mean", "extra")},
    )
    function(one, min_count=2)


@pytest.mark.parametrize(
    "function",
    [
        figures.V_on_M,
        figures.tradeoff_by_layer,
        figures.moments_on_frequency,
        figures.statistics_grid,
        figures.frequency_slopes,
    ],
)
def test_one_token_is_too_few_for_a_line(function, stats):
    most = int(stats.n[0])
    with pytest.raises(ek.StatisticsError, match="1 token says nothing: lower min_count"):
        function(stats, min_count=most)


def test_figures_of_one_model_refuse_several(stats, shallow):
    for function in (figures.statistics_grid, figures.moment_histograms, figures.V_on_M_by_layer):
        with pytest.raises(ek.StatisticsError, match=r"one model.*each of the 2"):
            function([stats, shallow])


def test_what_is_no_statistics_is_refused(stats):
    for wrong in ([], [stats, "minilm"]):
        with pytest.raises(ek.StatisticsError, match="pass one, or a list"):
            figures.tradeoff_by_layer(wrong)
    with pytest.raises(ek.StatisticsError, match="depth='deep'"):
        figures.tradeoff_by_layer(stats, depth="deep")
    with pytest.raises(ek.StatisticsError, match="layer='last'"):
        figures.V_on_M(stats, layer="last")
    with pytest.raises(ek.StatisticsError, match="Layer 9 was not extracted"):
        figures.V_on_M(stats, layer=9)


def test_the_number_of_layers_may_be_unknown(stats):
    """The authors' files hold no description of the model."""
    model = {name: value for name, value in stats.info["model"].items() if name != "n_states"}
    bare = replace(stats, info={**stats.info, "model": model})
    with pytest.raises(ek.StatisticsError, match="name the layer by its number"):
        figures.V_on_M(bare)
    with pytest.raises(ek.StatisticsError, match="depth='index'"):
        figures.tradeoff_by_layer(bare, depth="relative")
    figures.tradeoff_by_layer(bare)
    figures.V_on_M(bare, layer=3)


def test_layers_are_found_by_share_of_the_depth(stats, words):
    assert given.layer_of(stats, "middle") == 3
    assert given.layer_of(stats, -1) == 6
    assert given.five_layers(stats) == [0, 1, 3, 4, 6]
    assert given.five_layers(words) == [0, 3]  # those that there are
