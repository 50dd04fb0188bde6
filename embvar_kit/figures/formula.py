"""Teaching figures: what Q, M and V are, how they are computed, how V splits into V_W and V_B.

They draw vectors and numbers given by the caller, not the statistics of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from embvar_kit.errors import StatisticsError
from embvar_kit.figures.style import COLOURS, GROUP_MARKERS, new_axes
from embvar_kit.statistics import analysis

NEAR = 0.1
"""A value counts as near its final value within this fraction of it."""

_CLOUD = "#56b4e9"


def moments_of(x: np.ndarray) -> dict[str, float]:
    """Q, M and V of one cloud of vectors ``(N, d)``, from :class:`embvar_kit.GroupedMoments`."""
    from embvar_kit.moments.grouped import GroupedMoments  # compiled code: half a second to import

    m = GroupedMoments(1, x.shape[1])
    m.update(x, np.zeros(len(x), dtype=int))
    return {name: float(getattr(m, name)[0]) for name in "QMV"}


def variance_formula(x: np.ndarray, *, limit: float | None = None) -> Figure:
    """A cloud of 2-D vectors, its right triangle, and ``Q = M + V`` as bars.

    Left: the vectors with their mean and a circle of radius ``sqrt(V)`` around it. Middle: the
    lengths, with legs ``sqrt(M)`` and ``sqrt(V)`` and hypotenuse ``sqrt(Q)``. Right: the squared
    lengths.

    Args:
        x: ``(N, 2)`` vectors.
        limit: half the width of the cloud's plot. It fixes the scales of all three plots, so that
            animated figures keep them; by default they follow the vectors.
    """
    figure = plt.figure(figsize=(11, 4.125), layout="constrained")
    moments = moments_of(x)
    if limit is None:
        axes = formula_frame(figure, float(np.abs(x).max() * 1.1), 1.15 * moments["Q"])
    else:
        axes = formula_frame(figure, limit)
    formula_artists(axes, x, moments)
    return figure


def formula_frame(figure: Figure, limit: float, top: float | None = None) -> tuple[Axes, ...]:
    """The three Axes of :func:`variance_formula`, empty: cloud, triangle and bars.

    Args:
        figure: the figure to draw on.
        limit: half the width of the cloud's plot.
        top: the largest squared norm that the other two plots show; by default a little more than
            ``limit**2``.
    """
    cloud, triangle, bars = figure.subplots(1, 3, width_ratios=(3, 3, 1.7))
    top = 1.1 * limit**2 if top is None else top
    reach = 1.15 * float(np.sqrt(top))
    cloud.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    cloud.set(xlabel="feature 1", ylabel="feature 2", title="the cloud")
    for axis in (cloud.xaxis, cloud.yaxis):  # the same numbers on both
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    cloud.plot([], [], "o", color=_CLOUD, markersize=3, alpha=0.6, label="embeddings $x$")
    cloud.plot([], [], color=COLOURS["M"], linewidth=2, label=r"mean $\mu$, length $\sqrt{M}$")
    cloud.plot([], [], color=COLOURS["V"], linewidth=2, label=r"circle of radius $\sqrt{V}$")
    # Below the plots: inside them a cloud could lie where the legend is.
    figure.legend(loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    triangle.set(xlim=(-0.05 * reach, reach), ylim=(-0.05 * reach, reach), aspect="equal")
    triangle.set(xlabel="length", ylabel="length", title="Pythagoras")
    bars.set(xlim=(-0.5, 1.5), xticks=(0, 1), xticklabels=("$Q$", "$M+V$"))
    bars.set(ylim=(0, top), ylabel="squared norm")
    return cloud, triangle, bars


def formula_artists(
    axes: tuple[Axes, ...], x: np.ndarray, moments: Mapping[str, float]
) -> list[Artist]:
    """Draw one cloud, its triangle and its bars on the Axes of :func:`variance_formula`.

    Args:
        axes: the three Axes, from :func:`formula_frame`.
        x: ``(N, 2)`` vectors.
        moments: the vectors' Q, M and V, from :func:`moments_of`.

    Returns:
        All artists drawn, including the title of the bars.
    """
    cloud, triangle, bars = axes
    return [
        *_draw_cloud(cloud, x, moments),
        *_draw_triangle(triangle, moments),
        *_draw_bars(bars, moments),
    ]


def _draw_cloud(ax: Axes, x: np.ndarray, moments: Mapping[str, float]) -> list[Artist]:
    mean = x.mean(axis=0)
    points = ax.scatter(*x.T, s=9, color=_CLOUD, alpha=0.6, linewidths=0)
    radius = float(np.sqrt(moments["V"]))
    circle = Circle(tuple(mean), radius, fill=False, color=COLOURS["V"], linewidth=2)
    ax.add_patch(circle)
    arrow = ax.annotate(
        "", xy=tuple(mean), xytext=(0, 0), arrowprops={"color": COLOURS["M"], "width": 1.5}
    )
    origin = ax.plot(0, 0, "o", color="black", markersize=5)
    return [points, circle, *origin, arrow]


def _draw_triangle(ax: Axes, moments: Mapping[str, float]) -> list[Artist]:
    across, up = np.sqrt(moments["M"]), np.sqrt(moments["V"])
    sides = {"M": ((0, across), (0, 0)), "V": ((across, across), (0, up))}
    sides["Q"] = ((0, across), (0, up))
    drawn = []
    for name, (xs, ys) in sides.items():
        length = np.sqrt(moments[name])
        drawn += ax.plot(
            xs, ys, color=COLOURS[name], linewidth=3, label=rf"$\sqrt{{{name}}}$ = {length:.2f}"
        )
    corner = 0.05 * ax.get_xlim()[1]
    if min(across, up) > 2 * corner:
        square = ([across - corner] * 2 + [across], [0, corner, corner])
        drawn += ax.plot(*square, color="black", linewidth=1)
    return [*drawn, ax.legend(loc="upper left", fontsize=9)]


def _draw_bars(ax: Axes, moments: Mapping[str, float]) -> list[Artist]:
    top = ax.get_ylim()[1]
    drawn: list[Artist] = []
    for name, at, bottom in (("Q", 0, 0.0), ("M", 1, 0.0), ("V", 1, moments["M"])):
        height = moments[name]
        drawn += ax.bar([at], [height], bottom=[bottom], color=COLOURS[name], width=0.6)
        # The name stands inside the bar if it fits; else V is named above it, Q and M are not.
        if height > 0.08 * top:
            middle = bottom + height / 2
            drawn.append(ax.text(at, middle, f"${name}$", ha="center", va="center", color="white"))
        elif name == "V":
            over = {"ha": "center", "va": "bottom", "color": COLOURS["V"]}
            drawn.append(ax.text(at, moments["Q"], "$V$", **over))
    numbers = f"{moments['Q']:.2f} = {moments['M']:.2f} + {moments['V']:.2f}"
    return [*drawn, ax.set_title(f"$Q = M + V$\n{numbers}")]


def moments_by_layer(
    layers: Sequence[int], M: Sequence[float], V: Sequence[float], *, ax: Axes | None = None
) -> Axes:
    """M and V of one set of embeddings, stacked in one bar per layer whose height is Q."""
    ax = new_axes(ax, 7, 3.6)
    ax.bar(layers, M, color=COLOURS["M"], label="$M$")
    ax.bar(layers, V, bottom=M, color=COLOURS["V"], label="$V$")
    ax.set(xlabel="layer", ylabel="squared norm, $Q = M + V$", xticks=list(layers))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return ax


def running_moments(x: np.ndarray, *, upto: int | None = None, ax: Axes | None = None) -> Axes:
    """Q, M and V after each vector of a sequence, with dotted lines at their final values.

    Args:
        x: ``(N, d)`` vectors in the order in which they arrive.
        upto: mark the values after this many vectors.
        ax: the Axes to draw on; by default new ones.
    """
    path = running_path(x)
    ax = _running_axes(ax)
    k = np.arange(1, len(x) + 1)
    for name in "QMV":
        ax.plot(k, path[name], color=COLOURS[name], linewidth=2, label=f"${name}$")
        ax.axhline(path[name][-1], color=COLOURS[name], linestyle=":", linewidth=1)
    if upto is not None:
        _running_marks(ax, path, upto)
    ax.set_ylim(0, None)
    _running_legend(ax)
    return ax


def running_path(x: np.ndarray) -> dict[str, np.ndarray]:
    """Q, M and V after each vector of a sequence ``(N, d)``, as arrays ``(N,)``.

    V comes from deviations (Welford 1962), not as ``Q - M``: identical vectors give exactly 0, and
    no V is negative.
    """
    wide = x.astype(np.float64)
    mean, squares, deviations = np.zeros(wide.shape[1]), 0.0, 0.0
    path: dict[str, list[float]] = {"Q": [], "M": [], "V": []}
    for k, vector in enumerate(wide, start=1):
        moved = vector - mean
        mean = mean + moved / k
        squares += vector @ vector
        deviations += (moved @ moved) * (k - 1) / k
        for name, value in zip("QMV", (squares / k, mean @ mean, deviations / k), strict=True):
            path[name].append(value)
    return {name: np.array(values) for name, values in path.items()}


def running_frame(path: Mapping[str, np.ndarray], *, ax: Axes | None = None) -> Axes:
    """The Axes of :func:`running_moments` without curves, wide and high enough for all of them."""
    ax = _running_axes(ax)
    ax.set_xlim(0.9, 1.12 * max(len(path["Q"]), 2))
    ax.set_ylim(0, 1.02 * (1 + NEAR) * max(values.max() for values in path.values()) or 1.0)
    return ax


def running_artists(
    ax: Axes, path: Mapping[str, np.ndarray], upto: int, *, answer: bool
) -> list[Artist]:
    """Draw the curves of :func:`running_moments` as far as they go after ``upto`` vectors.

    Args:
        ax: the Axes, from :func:`running_frame`.
        path: Q, M and V after each vector, from :func:`running_path`.
        upto: how many vectors have arrived.
        answer: also draw the values after all vectors, each in a band of :data:`NEAR` around it.
    """
    k = np.arange(1, upto + 1)
    drawn: list[Artist] = []
    for name in "QMV":
        final, colour = path[name][-1], COLOURS[name]
        if answer:
            drawn.append(
                ax.axhspan((1 - NEAR) * final, (1 + NEAR) * final, color=colour, alpha=0.15)
            )
            drawn.append(ax.axhline(final, color=colour, linestyle=":", linewidth=1))
        drawn += ax.plot(k, path[name][:upto], color=colour, linewidth=2, label=f"${name}$")
    return [*drawn, *_running_marks(ax, path, upto), _running_legend(ax)]


def near_from(values: np.ndarray) -> int:
    """From which k on all values ``(N,)`` after k vectors are within :data:`NEAR` of the last.

    >>> near_from(np.array([0.0, 9.5, 8.0, 10.5, 10.0]))
    4
    """
    far = np.abs(values - values[-1]) > NEAR * np.abs(values[-1])
    return int(np.flatnonzero(far)[-1]) + 2 if far.any() else 1


def _running_axes(ax: Axes | None) -> Axes:
    ax = new_axes(ax, 7.5, 3.8)
    ax.set_xscale("log")
    ax.set(xlabel="occurrences seen, $k$", ylabel="squared norm")
    return ax


def _running_marks(ax: Axes, path: Mapping[str, np.ndarray], upto: int) -> list[Artist]:
    """Mark the values after ``upto`` vectors."""
    marks = [
        point
        for name in "QMV"
        for point in ax.plot(upto, path[name][upto - 1], "o", color=COLOURS[name], markersize=8)
    ]
    return [*marks, ax.axvline(upto, color="black", linewidth=0.8)]


def _running_legend(ax: Axes) -> Artist:
    return ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def subtraction_error(
    ratio: np.ndarray, errors: Mapping[str, np.ndarray], *, ax: Axes | None = None
) -> Axes:
    """Relative error of V against V/Q, for up to three ways of computing V.

    Args:
        ratio: ``(T,)`` true V / Q of each set of vectors.
        errors: for each way, by its name, ``(T,)`` relative errors ``|V - true V| / true V``.
        ax: the Axes to draw on; by default new ones.
    """
    ax = new_axes(ax, 7.5, 4)
    floor = 1e-16  # where an error of exactly 0 is drawn
    looks = (("o", COLOURS["V"]), ("^", COLOURS["M"]), ("s", COLOURS["Q"]))
    for (way, error), (marker, colour) in zip(errors.items(), looks, strict=False):
        ax.scatter(
            ratio,
            np.maximum(error, floor),
            s=14,
            marker=marker,
            color=colour,
            alpha=0.7,
            linewidths=0,
            label=way,
        )
    ax.axhline(1, color="black", linewidth=0.8)
    ax.annotate("the error is as large as V itself", (ratio.max(), 1.4), ha="right", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="$V/Q$", ylabel="relative error of $V$")
    ax.legend(loc="lower left", fontsize=9)
    return ax


def sample_size_bias(
    sizes: Sequence[int],
    measured: Mapping[str, np.ndarray],
    corrected: Mapping[str, np.ndarray],
    whole: Mapping[str, float],
) -> Figure:
    """M and V against the number of occurrences that they are computed from.

    Args:
        sizes: the sample sizes.
        measured: ``"M"`` and ``"V"`` as computed, ``(sizes, repeats)`` values each.
        corrected: ``"M"`` and ``"V"`` in their unbiased forms, in the same shape.
        whole: ``"M"`` and ``"V"`` over all occurrences.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for ax, name in zip(axes, "MV", strict=True):
        for values, look, label in (
            (measured[name], "o-", f"${name}$ as computed"),
            (corrected[name], "s--", rf"unbiased $\tilde{{{name}}}$"),
        ):
            centre, spread = values.mean(axis=1), values.std(axis=1)
            colour = COLOURS[name] if look == "o-" else COLOURS["Q"]
            ax.plot(sizes, centre, look, color=colour, label=label)
            ax.fill_between(sizes, centre - spread, centre + spread, color=colour, alpha=0.15)
        ax.axhline(whole[name], color="black", linestyle=":", label="over all occurrences")
        ax.set_xscale("log")
        ax.set(xlabel="occurrences in the sample, $n$", ylabel="squared norm", title=f"${name}$")
        ax.legend(fontsize=9)
    return figure


def variance_between_parts(
    n: np.ndarray,
    within: np.ndarray,
    between: np.ndarray,
    parts: int,
    *,
    ax: Axes | None = None,
) -> Axes:
    """The share of a token's variance that lies between the parts of a corpus, against its count.

    Independent occurrences, dealt out at random to S parts, would lie on the line ``(S - 1) / n``
    on average: the means of parts differ by chance alone. Points above it belong to tokens whose
    occurrences in one part are alike.

    Args:
        n: ``(G,)`` occurrences of each token.
        within: ``(G,)`` its variance within parts, V_W(X_t).
        between: ``(G,)`` its variance between parts, V_B(X_t).
        parts: the number of parts, S.
        ax: the Axes to draw on; by default new ones.
    """
    ax = new_axes(ax, 6.5, 4)
    share = between / (within + between)
    points = {"s": 8, "alpha": 0.45, "linewidths": 0, "rasterized": True}
    ax.scatter(n, share, color=COLOURS["V_B"], label="a token", **points)
    ends = np.array([n.min(), n.max()])
    label = f"independent occurrences, $({parts} - 1)/n_t$"
    ax.plot(ends, (parts - 1) / ends, color="black", label=label)
    ax.set(xscale="log", yscale="log", xlabel="$n_t$", ylabel="$V_B(X_t)\\,/\\,V(X_t)$")
    ax.legend(frameon=False)
    return ax


def decomposition_lengths(x: np.ndarray, groups: np.ndarray) -> Figure:
    """M, V_W and V_B as lengths, and their squares stacked to Q (paper, Fig. 3).

    Left: an arrow of length ``sqrt(M)`` leads from the origin to the overall mean. Arrows from
    there lead to the mean of each token; their mean squared length, weighted by ``n_t``, is V_B.
    Lines from these means lead to the token's embeddings; their mean squared length is V_W.
    Right: ``Q = M + V_W + V_B``.

    Args:
        x: ``(N, 2)`` vectors.
        groups: ``(N,)`` the token of each vector, 0, 1 ...; at most 6 tokens.

    Raises:
        StatisticsError: if the vectors are not two-dimensional, the groups do not fit them, or
            there are more than 6 groups.
    """
    from embvar_kit.moments.grouped import GroupedMoments

    x, groups = np.asarray(x, dtype=float), np.asarray(groups)
    if x.ndim != 2 or x.shape[1] != 2 or groups.shape != x.shape[:1] or not len(x):
        raise StatisticsError(
            f"Give (N, 2) vectors and (N,) groups; these are {x.shape} and {groups.shape}."
        )
    if len(tokens := np.unique(groups)) > len(GROUP_MARKERS):
        raise StatisticsError(f"{len(tokens)} groups: at most {len(GROUP_MARKERS)} can be drawn.")
    number = np.searchsorted(tokens, groups)
    moments = GroupedMoments(len(tokens), 2)
    moments.update(x, number)
    parts = analysis.decompose(moments.count, moments.Q, moments.V, moments.mean)
    overall = x.mean(axis=0)

    figure, (cloud, bars) = plt.subplots(
        1, 2, figsize=(9.5, 5.2), width_ratios=(2.6, 1), layout="constrained"
    )
    for at, mean in enumerate(moments.mean):
        own = x[number == at]
        for point in own:
            cloud.plot(*np.transpose([mean, point]), color=COLOURS["V_W"], linewidth=0.8, zorder=1)
        cloud.plot(
            *own.T, GROUP_MARKERS[at], color=_CLOUD, markersize=5, zorder=2, label=f"$X_{at + 1}$"
        )
        _arrow(cloud, overall, mean, COLOURS["V_B"])
    _arrow(cloud, np.zeros(2), overall, COLOURS["M"])
    cloud.plot(0, 0, "o", color="black", markersize=6, zorder=5)
    for name, text in (
        ("M", r"$\mu(X)$, squared length $M$"),
        ("V_B", r"$\mu(X_t) - \mu(X)$, mean square $V_B$"),
        ("V_W", r"$x - \mu(X_t)$, mean square $V_W$"),
    ):
        cloud.plot([], [], color=COLOURS[name], linewidth=2, label=text)
    cloud.set(xlabel="feature 1", ylabel="feature 2", title="the clouds")
    cloud.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)

    bars.bar(["$Q$"], [parts.Q], color=COLOURS["Q"], width=0.7)
    bars.text(0, parts.Q / 2, "$Q$", ha="center", va="center", color="white")
    bottom = 0.0
    for name, symbol in (("M", "$M$"), ("V_B", "$V_B$"), ("V_W", "$V_W$")):
        height = getattr(parts, name)
        bars.bar(["$M+V$"], [height], bottom=[bottom], color=COLOURS[name], width=0.7)
        look = {"ha": "center", "color": "white"}
        if height <= 0.06 * parts.Q:  # too thin for its name, which stands beside it
            look = {"ha": "left", "color": COLOURS[name]}
        bars.text(
            1 if look["ha"] == "center" else 1.38, bottom + height / 2, symbol, va="center", **look
        )
        bottom += height
    bars.set_xlim(right=1.65)
    numbers = f"{parts.Q:.2f} = {parts.M:.2f} + {parts.V_B:.2f} + {parts.V_W:.2f}"
    bars.set(ylabel="squared norm")
    bars.set_title(f"$Q = M + V_B + V_W$\n{numbers}", fontsize=10)
    return figure


def _arrow(ax: Axes, start: np.ndarray, end: np.ndarray, colour: str) -> None:
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=look, zorder=4)
