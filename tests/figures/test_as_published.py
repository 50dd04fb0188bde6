"""Figures hold what the authors' scripts draw: points, lines and bins, from one shared small file.

Expected values are computed from the file itself, a pickled dict of lists, as their scripts read
it, and from NumPy alone.
"""

from __future__ import annotations

import inspect
import pickle
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import embvar_kit as ek
from embvar_kit import figures, release
from embvar_kit.figures import given
from embvar_kit.figures.lettering import with_minus

SPECIAL = ("[CLS]", "[SEP]")
SENTENCES = ["a b", "a  b c", "one", "one\ttwo three", *["w " * n + "end" for n in range(1, 63)]]


def made(n_states: int = 7, *, by: str = "token", seed: int = 0) -> ek.TokenStatistics:
    """Statistics of 600 tokens: many occur once, and one more often than 100,000 times."""
    random = np.random.default_rng(seed)
    number, width = 600, 5
    n = np.sort(np.r_[150_000, 90_000, random.zipf(1.5, number - 2).clip(1, 60_000)])[::-1]
    mean = random.normal(1.0, 1.0, (n_states, number, width)).astype(np.float32)
    M = np.einsum("ltd,ltd->lt", mean, mean, dtype=np.float64)
    V = (20 - 0.7 * M + random.normal(0, 1, M.shape)).clip(0.1) * (n > 1)
    names = ["".join(random.choice(list("abcdefgh"), random.integers(1, 7))) for _ in range(number)]
    tokens = np.array([f"{name}{at}" if at % 3 else f"{at}" for at, name in enumerate(names)])
    tokens[[0, 7]] = SPECIAL
    return ek.TokenStatistics(
        tokens=tokens.astype(object),
        special=np.isin(tokens, SPECIAL),
        layers=np.arange(n_states),
        n=n.astype(np.int64),
        Q=M + V,
        M=M,
        V=V,
        mean=mean,
        extra=None,
        info={
            "model": {"name": "made", "n_states": n_states, "width": width},
            "corpora": [{"name": "made", "fingerprint": "0" * 16, "settings": {}}],
            "convention": {"by": by, "site": "hidden", "markers": ["##"]},
            "counts": {"occurrences": int(n.sum())},
        },
        subwords=random.uniform(1, 5, number) if by == "word" else None,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return release.write_token_statistics(made(), tmp_path_factory.mktemp("made") / "made.pkl")


@pytest.fixture(scope="module")
def theirs(path):
    """The content of the file as arrays: ``theirs[layer]["M_X_t"]``."""
    content = pickle.loads(path.read_bytes())
    return {
        layer: {key: np.array(column) for key, column in columns.items()}
        for layer, columns in content.items()
    }


@pytest.fixture(scope="module")
def ours(path):
    return release.read_token_statistics(path, corpus=ek.Corpus.of(SENTENCES), special=SPECIAL)


def published(figure: str, of, **other):
    """The figure with the arguments that :data:`figures.PAPER` lists for it."""
    function, _, options = figures.PAPER[figure]
    return function(of, **options, **other)


def in_range(layer: dict) -> np.ndarray:
    """Whether a token takes part in the paper's regressions."""
    logarithm = np.log10(layer["n_t"])
    return (logarithm >= 1) & (logarithm <= 5)


def offsets(ax, at: int = 0) -> np.ndarray:
    drawn = np.asarray(ax.collections[at].get_offsets())
    return drawn[np.lexsort(drawn.T)]


def ordered(x, y) -> np.ndarray:
    points = np.column_stack([x, y])
    return points[np.lexsort(points.T)]


def assert_lines(ax, x, y, fitted, *, over=None):
    """A solid line fitted by least squares, and a dotted one over all that is drawn."""
    slope, intercept = np.polyfit(x[fitted], y[fitted], 1)
    solid, dotted = ax.lines[-1], ax.lines[-2]
    assert (solid.get_linestyle(), dotted.get_linestyle()) == ("-", ":")
    for line, own in ((solid, x[fitted]), (dotted, x)):
        assert line.get_xdata() == pytest.approx([own.min(), own.max()])
        assert line.get_ydata() == pytest.approx(intercept + slope * np.asarray(line.get_xdata()))
    return slope


# Which layers


@pytest.mark.parametrize("n_states", [1, 2, 3, 6, 7, 8, 13, 25, 31])
def test_the_layers_are_those_of_the_authors_scripts(n_states):
    """Of a sorted list of layers they take the entries 0, h // 2, h, h + h // 2 and -1."""
    layers = list(range(n_states))
    half = len(layers) // 2
    taken = [layers[at] for at in (0, half // 2, half, half + half // 2, -1)]
    one = made(n_states)
    assert given.five_layers(one) == sorted(set(taken))
    assert given.layer_of(one, "middle") == layers[half]


def test_layers_that_were_not_extracted_are_replaced_by_the_nearest():
    some = made(13)
    kept = [0, 4, 12]
    parts = {name: getattr(some, name)[kept] for name in ("layers", "Q", "M", "V", "mean")}
    some = replace(some, **parts)
    assert given.layer_of(some, "middle") == 4
    assert given.five_layers(some) == [0, 4, 12]


# Scatter plots


def test_fig_2_draws_all_tokens_and_fits_the_frequent_ones(ours, theirs):
    ax = published("Fig. 2", ours)
    layer = theirs[3]
    np.testing.assert_allclose(offsets(ax), ordered(layer["M_X_t"], layer["V_X_t"]))
    slope = assert_lines(ax, layer["M_X_t"], layer["V_X_t"], in_range(layer))
    assert with_minus(f"slope {slope:.2f}") in ax.get_title()
    assert ax.collections[0].get_clim() == (0, pytest.approx(np.log10(layer["n_t"].max())))
    (note,) = [text.get_text() for text in ax.texts]
    assert note == "drawn: all\nline: $10 \\leq n_t \\leq 100{,}000$"


def test_fig_8_fits_all_tokens(ours, theirs):
    ax = published("Fig. 8", ours, label=ours.tokens[20:22].tolist())
    layer = theirs[3]
    M, V = layer["M_X_t"], layer["V_X_t"]
    np.testing.assert_allclose(offsets(ax), ordered(M, V))
    slope, intercept = np.polyfit(M, V, 1)
    assert ax.lines[-1].get_ydata() == pytest.approx(intercept + slope * np.array(ends(M)))
    assert {text.get_text() for text in ax.texts} >= set(ours.tokens[20:22])


def ends(x: np.ndarray) -> tuple[float, float]:
    return x.min(), x.max()


def test_fig_7_draws_all_tokens_and_fits_the_frequent_ones(ours, theirs):
    figure = published("Fig. 7", ours)
    layer = theirs[3]
    x = np.log10(layer["n_t"])
    for ax, name in zip(figure.axes, "QMV", strict=True):
        y = layer[f"{name}_X_t"]
        np.testing.assert_allclose(offsets(ax), ordered(x, y))
        assert_lines(ax, x, y, in_range(layer))


def test_figs_11_to_13_draw_all_tokens_of_five_layers(ours, theirs):
    figure = published("Figs. 11-13", ours)
    rows = np.reshape([ax for ax in figure.axes if ax.get_label() != "<colorbar>"], (5, 4))
    for row, at in zip(rows, (0, 1, 3, 4, 6), strict=True):
        layer = theirs[at]
        assert row[0].get_ylabel().startswith(f"layer {at}\n")
        x, fitted = np.log10(layer["n_t"]), in_range(layer)
        for ax, name in zip(row, "QMV", strict=False):
            y = np.log10(layer[f"{name}_X_t"] + 1)
            np.testing.assert_allclose(offsets(ax), ordered(x, y), atol=1e-12)
            assert_lines(ax, x, y, fitted)
        M, V = layer["M_X_t"], layer["V_X_t"]
        np.testing.assert_allclose(offsets(row[3]), ordered(M, V))
        assert_lines(row[3], M, V, fitted)
    assert figure.get_suptitle() == "made (drawn: all, line: $10 \\leq n_t \\leq 100{,}000$)"


def test_fig_17_fits_the_frequent_tokens(ours, theirs):
    figure = published("Fig. 17", ours)
    for ax, name in zip(figure.axes, "QMV", strict=True):
        for at, slope in ax.lines[0].get_xydata():
            layer = theirs[int(at)]
            fitted = in_range(layer)
            y = np.log10(layer[f"{name}_X_t"] + 1)
            expected = np.polyfit(np.log10(layer["n_t"])[fitted], y[fitted], 1)[0]
            assert slope == pytest.approx(expected)


def test_fig_22_draws_all_words_of_five_layers():
    words = made(by="word")
    figure = published("Fig. 22", words)
    rows = np.reshape(figure.axes, (5, 4))
    pieces = np.rint(words.subwords).clip(1, 4)
    for row, at in zip(rows, (0, 1, 3, 4, 6), strict=True):
        x = np.log10(words.n)
        for ax, (horizontal, name) in zip(
            row, ((x, "Q"), (x, "M"), (x, "V"), (words.M[at], "V")), strict=True
        ):
            value = getattr(words, name)[at]
            for number in (1, 2, 3, 4):
                own = pieces == number
                expected = ordered(horizontal[own], value[own])
                np.testing.assert_allclose(offsets(ax, number - 1), expected)
            assert_lines(ax, horizontal, value, (words.n >= 10) & (words.n <= 100_000))
    one = figures.word_moments(words, layers=[2])
    assert len(one.axes) == 4
    with pytest.raises(ek.StatisticsError, match="layers='all' is unknown"):
        figures.word_moments(words, layers="all")


# Layers


def whole(layer: dict) -> dict[str, float]:
    """Moments of all embeddings of the frequent tokens, and their parts, weighted by n_t.

    As in the authors' scripts, V(X) is Q(X) - M(X) and V_B(X) is V(X) - V_W(X).
    """
    frequent = in_range(layer)
    n = layer["n_t"][frequent]
    Q, V_W = (np.average(layer[name][frequent], weights=n) for name in ("Q_X_t", "V_X_t"))
    M = np.sum(np.average(layer["mu_X_t"][frequent], axis=0, weights=n) ** 2)
    return {"Q": Q, "M": M, "V": Q - M, "V_W": V_W, "V_B": Q - M - V_W}


def assert_by_layer(ax: Axes, theirs: dict, value) -> None:
    """The only line with a point a layer has the values that the file gives."""
    (line,) = [line for line in ax.lines if len(line.get_xdata()) == len(theirs)]
    assert line.get_xdata().tolist() == sorted(theirs)
    np.testing.assert_allclose(line.get_ydata(), [value(theirs[at]) for at in sorted(theirs)], 1e-6)


def test_fig_4_is_of_the_frequent_tokens_at_every_layer(ours, theirs):
    def cv(layer):
        Q = layer["Q_X_t"][in_range(layer)]
        return Q.std() / Q.mean()

    def line(layer):
        M, V = (layer[name][in_range(layer)] for name in ("M_X_t", "V_X_t"))
        slope, intercept = np.polyfit(M, V, 1)
        return slope, 1 - np.mean((V - intercept - slope * M) ** 2) / V.var()

    of_cv, of_slope, of_r2 = published("Fig. 4", ours).axes
    assert_by_layer(of_cv, theirs, cv)
    assert_by_layer(of_slope, theirs, lambda layer: line(layer)[0])
    assert_by_layer(of_r2, theirs, lambda layer: line(layer)[1])


def test_fig_5_stacks_the_shares_in_the_authors_order(ours, theirs):
    ax = published("Fig. 5", ours)
    bars = np.reshape(ax.patches, (3, len(theirs)))
    for at in theirs:
        parts = whole(theirs[at])
        bottom = 0.0
        for bar, name in zip(bars[:, at], ("M", "V_B", "V_W"), strict=True):
            assert bar.get_x() + bar.get_width() / 2 == pytest.approx(at)
            assert bar.get_y() == pytest.approx(bottom, abs=1e-12)
            assert bar.get_height() == pytest.approx(parts[name] / parts["Q"])
            bottom += bar.get_height()
        assert bottom == pytest.approx(1)


@pytest.mark.parametrize(
    ("figure", "drawn"),
    [
        ("Fig. 6", ["V_W/V"]),
        ("Fig. 18", ["M/Q", "V/Q", "V_W/Q", "V_B/Q"]),
        ("Fig. 19", ["Q", "M", "V"]),
        ("Fig. 20", ["V_W", "V_B", "V_B/V"]),
    ],
)
def test_lines_by_layer_are_of_all_embeddings_of_the_frequent_tokens(figure, drawn, ours, theirs):
    found = published(figure, ours)
    axes = [found] if isinstance(found, Axes) else found.axes
    for ax, name in zip(axes, drawn, strict=True):
        part, _, of = name.partition("/")

        def value(layer, part=part, of=of):
            parts = whole(layer)
            return parts[part] / (parts[of] if of else 1)

        assert_by_layer(ax, theirs, value)


# Embeddings


def test_fig_1_lies_in_the_plane_of_the_means_and_the_origin(ours, theirs):
    """Embeddings and their means along the two main axes of the means and the origin.

    The authors fit a PCA to the means and a vector of zeros, and measure from the image of zero.
    """
    layer, random = theirs[3], np.random.default_rng(0)
    clouds = {}
    for row in (30, 40, 51, 62):
        x = random.normal(size=(int(layer["n_t"][row]), 5))
        clouds[layer["tokens"][row]] = x - x.mean(axis=0) + layer["mu_X_t"][row]
    ax = published("Fig. 1", {t: occurrences(t, x) for t, x in clouds.items()}, layer=3, stats=ours)
    means = np.array([x.mean(axis=0) for x in clouds.values()])
    anchors = np.vstack([means, np.zeros(5)])
    centred = anchors - anchors.mean(axis=0)
    projector = np.linalg.svd(centred, full_matrices=False)[2][:2].T

    def projected(x):
        return (x - anchors.mean(axis=0)) @ projector - (-anchors.mean(axis=0)) @ projector

    drawn = {points.get_label(): np.asarray(points.get_offsets()) for points in ax.collections}
    signs = np.sign(
        (drawn[next(iter(clouds))] * projected(next(iter(clouds.values())))).sum(axis=0)
    )
    for token, x in clouds.items():
        np.testing.assert_allclose(drawn[token], projected(x) * signs, atol=1e-5)
    spots = np.asarray(ax.collections[-1].get_offsets())
    np.testing.assert_allclose(spots, projected(means) * signs, atol=1e-5)
    assert ax.lines[0].get_xydata().tolist() == [[0, 0]]


def occurrences(token: str, x: np.ndarray) -> ek.Occurrences:
    nothing = np.zeros(len(x), dtype=np.int64)
    return ek.Occurrences(token, np.array([3]), x[None].astype(np.float32), nothing, nothing)


def test_fig_3_draws_the_lengths_of_the_parts_of_the_file():
    """The squares of the drawn lengths are the parts that the authors take from sums by token."""
    random = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2], [5, 3, 8])
    x = random.normal(size=(16, 2)) + np.array([[3, 1], [4, 3], [1, 4]])[groups]
    layer = {"n_t": np.bincount(groups)}
    layer["mu_X_t"] = np.array([x[groups == t].mean(axis=0) for t in range(3)])
    layer["Q_X_t"] = np.array([(x[groups == t] ** 2).sum(axis=1).mean() for t in range(3)])
    layer["V_X_t"] = layer["Q_X_t"] - (layer["mu_X_t"] ** 2).sum(axis=1)
    parts = whole({**layer, "n_t": layer["n_t"] * 10})  # frequent enough to take part
    _, bars = published("Fig. 3", x, groups=groups).axes
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx([parts[name] for name in ("Q", "M", "V_B", "V_W")], rel=1e-5)


# Histograms


def test_figs_14_to_16_count_all_tokens_in_50_bins_and_mark_the_mean(ours, theirs):
    figure = published("Figs. 14-16", ours)
    for row, at in zip(np.reshape(figure.axes, (5, 3)), (0, 1, 3, 4, 6), strict=True):
        for ax, name in zip(row, "QMV", strict=True):
            value = theirs[at][f"{name}_X_t"]
            kept = value[value < np.percentile(value, 99)]
            heights, edges = np.histogram(kept, bins=50)
            assert [bar.get_height() for bar in ax.patches] == heights.tolist()
            assert [bar.get_x() for bar in ax.patches] == pytest.approx(edges[:-1])
            assert ax.lines[0].get_xdata() == pytest.approx([value.mean()] * 2)
            assert ax.get_title().startswith(f"mean (dashed): {value.mean():,.4g}\n")


def test_a_value_that_all_tokens_share_is_not_trimmed_away(ours):
    same = replace(ours, Q=np.full_like(ours.Q, 7.0))
    figure = figures.moment_histograms(same, layers=[0])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == len(same.table(0, **PAPERS))
    with pytest.raises(ek.StatisticsError, match="bins=0"):
        figures.moment_histograms(same, bins=0)


@pytest.mark.parametrize(("number", "trimmed"), [(10, 0), (99, 0), (100, 1), (150, 2)])
def test_no_token_is_trimmed_where_a_hundredth_is_less_than_one(ours, number, trimmed):
    few = ours.take(np.arange(number))
    figure = published("Figs. 14-16", few, layers=[0])
    for ax in figure.axes:
        assert sum(bar.get_height() for bar in ax.patches) == number - trimmed
        assert ("trimmed: " in ax.get_title()) == (trimmed > 0)
    said = "top 1 % trimmed" if trimmed else f"{number} tokens, too few to trim 1 %"
    assert said in figure.get_suptitle()
    assert "nothing trimmed" in figures.moment_histograms(few, layers=[0], trim=0).get_suptitle()


PAPERS = {"min_count": 10, "max_count": 100_000}


def test_fig_9_counts_by_single_blanks_in_30_bins_on_a_logarithmic_axis(ours):
    """Statistics read from the authors' file hold the lengths if they are given the sentences."""
    ax = published("Fig. 9", ours)
    heights, edges = np.histogram([len(s.split(" ")) for s in SENTENCES], bins=30)
    assert [bar.get_height() for bar in ax.patches] == heights.tolist()
    assert [bar.get_x() for bar in ax.patches] == pytest.approx(edges[:-1])
    assert ax.get_yscale() == "log"
    assert "single blanks" in ax.get_xlabel()
    older = {key: value for key, value in ours.info.items() if key != "sentences_by_blanks"}
    ax = published("Fig. 9", replace(ours, info=older))
    heights, _ = np.histogram([len(s.split()) for s in SENTENCES], bins=30)
    assert [bar.get_height() for bar in ax.patches] == heights.tolist()
    assert "white space" in ax.get_xlabel()


def test_without_the_sentences_fig_9_says_how_to_get_them(path):
    with pytest.raises(ek.StatisticsError, match=r"corpus=read_sentences\(\.\.\.\)"):
        published("Fig. 9", release.read_token_statistics(path))


def test_fig_10_has_29_bins_and_a_linear_axis(ours, theirs):
    ax = published("Fig. 10", ours)
    heights, edges = np.histogram(np.log10(theirs[0]["n_t"]), bins=np.linspace(0, 6.5, 30))
    assert [bar.get_height() for bar in ax.patches] == heights.tolist()
    assert [bar.get_x() for bar in ax.patches] == pytest.approx(edges[:-1])
    assert ax.get_yscale() == "linear"


def test_tokens_beyond_the_authors_bins_get_bins_of_their_own(ours):
    many = replace(ours, n=ours.n * 1000)
    ax = figures.token_frequencies(many, paper=True)
    assert sum(bar.get_height() for bar in ax.patches) == len(many)


# Table 2


def test_the_authors_draw_is_repeated_in_the_order_of_their_file(ours, path, theirs):
    """2 + int(4 sqrt(size / largest)) of the tokens of three characters, bin by bin."""
    layer = theirs[3]
    order = release.token_order(path)
    assert order == layer["tokens"].tolist()
    shuffled = np.random.default_rng(5).permutation(order).tolist()
    for listed in (order, shuffled):
        found = figures.pick_tokens(ours, paper=True, order=listed)
        n = dict(zip(layer["tokens"], layer["n_t"], strict=True))
        candidates = [t for t in listed if 10 <= n[t] <= 100_000]
        logs = np.log10([n[t] for t in candidates])
        edges = np.linspace(logs.min(), logs.max(), 11)
        bins: dict[int, list] = {}
        for token in candidates:
            if len(token) >= 3:
                at = min(int(np.digitize(np.log10(n[token]), edges)), 10)
                bins.setdefault(at, []).append(token)
        largest = max(len(own) for own in bins.values())
        generator = np.random.RandomState(3)
        expected = set()
        for at, own in bins.items():
            size = min(len(own), 2 + int(4 * np.sqrt(len(own) / largest)))
            picks = generator.choice(len(own), size, replace=False)
            expected |= {(own[i], at) for i in picks}
        assert set(zip(found["token"], found["bin"], strict=True)) == expected
    assert found["bin"].is_monotonic_increasing
    assert max(found.groupby("bin").size()) == 6


def test_orders_that_do_not_fit_are_refused(ours):
    with pytest.raises(ek.StatisticsError, match="order lacks"):
        figures.pick_tokens(ours, paper=True, order=["a"])
    with pytest.raises(ek.StatisticsError, match="paper=True"):
        figures.pick_tokens(ours, order=ours.tokens.tolist())
    short = replace(ours, tokens=np.array([chr(0x4E00 + i) for i in range(len(ours))], dtype="O"))
    with pytest.raises(ek.StatisticsError, match="3 characters"):
        figures.pick_tokens(short, paper=True)


# Drawn and fitted, compact statistics, special tokens


def test_any_range_can_be_drawn(ours):
    ax = figures.V_on_M(ours, layer=2, drawn=(3, 500))
    table = ours.table(2, min_count=3, max_count=500)
    np.testing.assert_allclose(offsets(ax), ordered(table["M"], table["V"]))
    assert ax.texts[0].get_text().startswith("drawn: $3 \\leq n_t \\leq 500$\n")
    for wrong in ("some", 5, (1, 2, 3)):
        with pytest.raises(ek.StatisticsError, match="'all', \\(least, most\\) or None"):
            figures.V_on_M(ours, drawn=wrong)


def test_single_occurrences_have_no_unbiased_form(ours):
    ax = figures.V_on_M(ours, layer=2, drawn="all", unbiased=True)
    table = ours.table(2, min_count=2, unbiased=True)
    np.testing.assert_allclose(offsets(ax), ordered(table["M"], table["V"]))
    assert ax.texts[0].get_text().startswith("drawn: $2 \\leq n_t$\n")
    with pytest.raises(ek.StatisticsError, match="no unbiased M and V"):
        figures.V_on_M(ours, drawn=(1, None), unbiased=True)


def test_compact_statistics_draw_what_there_is_and_say_so(ours):
    small = ours.compact()
    for function in (figures.V_on_M, figures.moments_on_frequency):
        drawn = function(small, drawn="all")
        ax = drawn if function is figures.V_on_M else drawn.axes[0]
        assert len(offsets(ax)) == (ours.n >= 10).sum() < len(ours)
        assert "drawn: $10 \\leq n_t$\n" in ax.texts[-1].get_text()
    with pytest.raises(ek.StatisticsError, match="keep only the tokens with n_t >= 10"):
        figures.V_on_M(small, drawn=(2, None))


def artists(drawn) -> list[np.ndarray]:
    """The data of all points, lines and bars of a figure."""
    figure = drawn.figure if isinstance(drawn, Axes) else drawn
    found = []
    for ax in figure.axes:
        if ax.get_label() == "<colorbar>":
            continue
        found += [np.asarray(points.get_offsets()) for points in ax.collections]
        found += [line.get_xydata() for line in ax.lines]
        found += [np.array([[p.get_x(), p.get_y(), p.get_height()] for p in ax.patches])]
    return found


OF_MANY_PANELS = {"statistics_grid", "moment_histograms"}
OTHERS = {"anisotropy_by_layer", "pick_tokens"}  # of unit vectors, and no figure


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(drawn, marks=[pytest.mark.slow] * (name in OF_MANY_PANELS))
        for name in sorted(set(dir(figures)) - OTHERS)
        if inspect.isfunction(drawn := getattr(figures, name))
        and {"special", "stats"} <= inspect.signature(drawn).parameters.keys()
    ],
)
def test_special_tokens_are_left_out_on_request(function, ours):
    """The figure is that of the statistics without them, and not that with them."""
    ours = replace(ours, info={**ours.info, "convention": {"by": "token"}})
    without = ours.take(np.flatnonzero(~ours.special))
    drawn, expected, whole = (
        artists(function(*given, **how))
        for given, how in (((ours,), {"special": False}), ((without,), {}), ((ours,), {}))
    )
    for one, other in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(one, other)
    assert any(
        one.shape != other.shape or not np.allclose(one, other)
        for one, other in zip(drawn, whole, strict=True)
    )


def test_the_unit_of_the_embeddings_changes_slopes_of_log_1_plus_x_only(ours):
    """With offset=0 the slope is the exponent of a power law."""
    scaled = replace(ours, **{name: 100 * getattr(ours, name) for name in "QMV"})

    def slopes(of, offset):
        figure = figures.frequency_slopes(of, offset=offset)
        return np.array([ax.lines[0].get_ydata() for ax in figure.axes])

    np.testing.assert_allclose(slopes(scaled, 0), slopes(ours, 0), atol=1e-12)
    assert not np.allclose(slopes(scaled, 1), slopes(ours, 1), rtol=0.01)
    for function in (figures.frequency_slopes, figures.statistics_grid):
        with pytest.raises(ek.StatisticsError, match=r"V \+ 0 of \d+ tokens \('.+' first\)"):
            function(ours, offset=0, min_count=1)


# The null


@pytest.fixture(scope="module")
def null(ours):
    """Statistics with permuted labels: the same counts, other moments."""
    other = made(seed=1)
    info = {**ours.info, "permuted": True}
    return replace(ours, Q=other.Q, M=other.M, V=other.V, info=info)


@pytest.mark.parametrize("log", [False, True])
def test_the_null_lies_behind_the_tokens_with_a_line_of_its_own(log, ours, null):
    ax = figures.V_on_M(ours, null=null, log=log)
    alone = figures.V_on_M(ours, log=log)
    np.testing.assert_allclose(offsets(ax), offsets(alone))
    np.testing.assert_allclose(ax.lines[-1].get_xydata(), alone.lines[-1].get_xydata())
    assert alone.get_legend() is None
    assert len(alone.collections) == 1
    table = null.table(3, **PAPERS)
    np.testing.assert_allclose(offsets(ax, 1), ordered(table["M"], table["V"]))
    assert ax.collections[1].get_zorder() < ax.collections[0].get_zorder()
    grey = to_hex(ax.collections[1].get_facecolor()[0])
    assert len({grey[1:3], grey[3:5], grey[5:7]}) == 1
    (line,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    fit = null.tradeoff().set_index("layer").loc[3]
    x, y = line.get_xydata().T
    np.testing.assert_allclose(y, fit["intercept"] + fit["slope"] * x)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    slope = with_minus(f"{fit['slope']:.2f}")
    assert f"labels permuted: slope {slope}, $R^2$ {fit['r2']:.2f}" in texts
    assert "labels as they are" in texts


def test_each_model_has_its_null(ours, null):
    figure = figures.V_on_M([ours, ours], null=[null, null])
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert [len(ax.collections) for ax in panels] == [2, 2]
    by_layer = figures.V_on_M_by_layer(ours, null=null)
    panels = [ax for ax in by_layer.axes if ax.get_label() != "<colorbar>"]
    for ax, layer in zip(panels, null.layers, strict=True):
        table = null.table(int(layer), **PAPERS)
        np.testing.assert_allclose(offsets(ax, 1), ordered(table["M"], table["V"]))
    other = replace(null, info={**null.info, "model": {**null.info["model"], "name": "other"}})
    for wrong in (other, [null, null], ours):
        with pytest.raises(ek.StatisticsError, match="takes the null of each"):
            figures.V_on_M(ours, null=wrong)


def test_options_of_the_paper_are_arguments_of_the_functions():
    for name, figure in figures.PAPER.items():
        assert figure.options.keys() <= inspect.signature(figure.function).parameters.keys(), name
