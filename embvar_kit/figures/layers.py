"""All embeddings of a model together, layer by layer: their mean, and the parts of their variance.

Each figure takes one model's statistics or those of several. M(X), V(X), V_W(X) and V_B(X) are
those of the set X of all embeddings of the tokens in the range of counts (see
:meth:`embvar_kit.TokenStatistics.decomposition`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import given, lettering, style
from embvar_kit.figures.given import Statistics
from embvar_kit.figures.style import COLOURS

_SYMBOLS = {"Q": "Q(X)", "M": "M(X)", "V": "V(X)", "V_W": "V_W(X)", "V_B": "V_B(X)"}
PARTS_OF = {"Q": ("M", "V_B", "V_W"), "V": ("V_B", "V_W")}
"""The parts of Q(X) and of V(X), from the bottom of a stack to its top."""

_WIDE = 100  # axes of absolute values are logarithmic if these differ by this factor


def shares_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
    ax: Axes | None = None,
) -> Axes | Figure:
    """M(X), V_B(X) and V_W(X) as shares of Q(X), stacked to 1 (paper, Fig. 5).

    Args:
        stats: one model's statistics, or those of several, which have a panel each.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count, max_count: use the tokens with ``min_count <= n_t <= max_count``.
        special: also use special tokens.
        unbiased: remove what finite samples add to M and V_B.
        ax: the Axes to draw on, for one model only; by default new ones.

    Returns:
        The Axes for one model, the Figure for several.
    """
    statistics = given.several(stats)
    x, name = given.depths(statistics, depth)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    found = [one.decomposition(**choice) for one in statistics]
    single = len(statistics) == 1
    size = (6.5, 3.6) if single else (3.5, 3.1)
    figure, axes = style.one_or_panels(len(statistics), ax, 3, *size)
    for at, parts, title, panel in zip(x, found, lettering.labels(statistics), axes, strict=True):
        stack_parts(panel, at, parts)
        panel.set(title=title, ylim=(0, 1), ylabel="share of $Q(X)$")
        style.depth_axis(panel, name)
    handles, names = axes[0].get_legend_handles_labels()
    if single:
        axes[0].legend(
            handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False
        )
        return axes[0]
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def stack_parts(
    ax: Axes, at: np.ndarray, parts: pd.DataFrame, *, of: str = "Q", absolute: bool = False
) -> float:
    """Stack the parts of a decomposition in one bar per layer, and label them for a legend.

    Args:
        ax: the Axes to draw on.
        at: ``(L,)`` the layers' positions.
        parts: rows of :meth:`embvar_kit.TokenStatistics.decomposition`.
        of: ``"Q"`` stacks M, V_B and V_W; ``"V"`` only V_B and V_W.
        absolute: stack the parts themselves instead of their shares of the whole.

    Returns:
        The height of the highest bar: 1 for shares.
    """
    bottom, width = np.zeros(len(at)), style.bar_width(at)
    for part in PARTS_OF[of]:
        height = (parts[part] if absolute else parts[part] / parts[of]).to_numpy()
        label = f"${_SYMBOLS[part]}$" if absolute else f"${_SYMBOLS[part]}/{of}(X)$"
        ax.bar(at, height, width, bottom, color=COLOURS[part], label=label, linewidth=0)
        bottom += height
    return float(bottom.max())


def within_share_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """V_W(X) / V(X): the share of the variance that lies within tokens (paper, Fig. 6).

    The arguments are those of :func:`shares_by_layer`, but ``ax`` takes several models, too.
    """
    ax = style.new_axes(ax, 6, 3.6)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    _by_layer({ax: ("$V_W(X)/V(X)$", lambda d: d["V_W"] / d["V"], "V_W")}, stats, depth, choice)
    ax.set_ylim(0, 1)
    _name(ax, stats)
    return ax


def parts_over_Q_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
) -> Figure:
    """M(X), V(X), V_W(X) and V_B(X) over Q(X), in one panel each (paper, Fig. 18).

    The arguments are those of :func:`shares_by_layer`.
    """
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    parts = {
        f"${_SYMBOLS[part]}/Q(X)$": (lambda d, part=part: d[part] / d["Q"], part)
        for part in ("M", "V", "V_W", "V_B")
    }
    figure = _panels_by_layer(parts, stats, depth, choice, columns=4, width=2.7)
    for ax in figure.axes:
        ax.set_ylim(0, 1)
    return figure


def moments_of_all_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
) -> Figure:
    """Q(X), M(X) and V(X), in one panel each (paper, Fig. 19).

    The arguments are those of :func:`shares_by_layer`. If the values in a panel differ by a
    factor of 100 or more, the axes are logarithmic.
    """
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    parts = {f"${_SYMBOLS[m]}$": (lambda d, m=m: d[m], m) for m in "QMV"}
    figure = _panels_by_layer(parts, stats, depth, choice, columns=3, width=3.5)
    _absolute(figure.axes)
    return figure


def variance_parts_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
) -> Figure:
    """V_W(X), V_B(X) and V_B(X) / V(X), in one panel each (paper, Fig. 20).

    The arguments are those of :func:`shares_by_layer`. If the values in a panel differ by a
    factor of 100 or more, the first two axes are logarithmic.
    """
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    parts = {f"${_SYMBOLS[part]}$": (lambda d, p=part: d[p], part) for part in ("V_W", "V_B")}
    parts["$V_B(X)/V(X)$"] = (lambda d: d["V_B"] / d["V"], "V_B")
    figure = _panels_by_layer(parts, stats, depth, choice, columns=3, width=3.5)
    _absolute(figure.axes[:2])
    figure.axes[2].set_ylim(0, 1)
    return figure


def anisotropy_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    special: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Mean cosine similarities over all pairs of embeddings, and over pairs of the same token.

    These are exact values of Ethayarajh's (2019) anisotropy baseline (filled markers, solid) and
    self-similarity (open markers, dashed); see :meth:`embvar_kit.TokenStatistics.anisotropy`.

    Args:
        stats: statistics of site ``"unit"``, of one model or of several.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count: average self-similarity over the tokens that occur at least this often.
        special: also use special tokens.
        ax: the Axes to draw on; by default new ones.
    """
    statistics = given.several(stats)
    found = [one.anisotropy(min_count=min_count, special=special) for one in statistics]
    x, axis = given.depths(statistics, depth)
    ax = style.new_axes(ax, 7.5, 3.8)
    kinds = (
        ("self_similarity", "within a token, mean over tokens", "--", "white"),
        ("anisotropy", "all pairs (anisotropy baseline)", "-", None),
    )
    names, styles = lettering.labels(statistics), style.looks(len(statistics))
    for at, table, name, look in zip(x, found, names, styles, strict=True):
        for column, text, line, face in kinds:
            label = text if len(statistics) == 1 else f"{name}: {text}"
            drawn = {**look, "linestyle": line, "markerfacecolor": face or look["color"]}
            ax.plot(at, table[column], label=label, **drawn)
    ax.axhline(0, color="black", linestyle=":", linewidth=1)
    ax.set_ylabel("mean cosine similarity")
    style.depth_axis(ax, axis)
    if len(statistics) == 1:
        ax.set_title(names[0])
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=9, frameon=False)
    return ax


def dimension_shares(
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    layers: Sequence[int] | None = None,
    top: int = 5,
) -> Figure:
    """Each dimension's share of M(X) and of V(X), stacked in one bar per layer.

    In many decoders a few dimensions carry nearly all of both. The ``top`` dimensions with the
    largest share of either at any layer have a colour each; the others are grey.

    Args:
        mean: ``(L, d)`` overall mean of the embeddings at each layer.
        variance: ``(L, d)`` variance of each dimension at each layer.
        layers: ``(L,)`` the layers' numbers; by default 0, 1, ...
        top: how many dimensions to name, at most 8.

    Raises:
        StatisticsError: if the arrays do not fit together, a variance is negative, or ``top`` is
            out of range.
    """
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    if mean.ndim != 2 or mean.shape != variance.shape or (variance < 0).any():
        raise StatisticsError(
            f"Pass means and variances, both of shape (layers, d); these are {mean.shape} and "
            f"{variance.shape}, and no variance may be negative."
        )
    if not 1 <= top <= 8:
        raise StatisticsError(f"top={top}: between 1 and 8 dimensions can be told apart.")
    layers = np.arange(len(mean)) if layers is None else np.asarray(layers)
    if len(layers) != len(mean):
        raise StatisticsError(f"layers has {len(layers)} numbers for {len(mean)} layers.")
    squares = {"M": mean**2, "V": variance}
    shares = {
        name: square / np.maximum(square.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        for name, square in squares.items()
    }
    largest = np.maximum(shares["M"].max(axis=0), shares["V"].max(axis=0))
    named = np.argsort(-largest, kind="stable")[: min(top, mean.shape[1])]
    figure, axes = style.panels(2, 2, 4.8, 3.4)
    width = style.bar_width(layers)
    for ax, (moment, share) in zip(axes, shares.items(), strict=True):
        bottom = np.zeros(len(layers))
        for at, dimension in enumerate(named):
            look = {"color": style.model_colour(at), "label": f"dimension {dimension}"}
            ax.bar(layers, share[:, dimension], width, bottom, linewidth=0, **look)
            bottom += share[:, dimension]
        look = {"color": "#d9d9d9", "label": f"the other {mean.shape[1] - len(named):,}"}
        ax.bar(layers, share.sum(axis=1) - bottom, width, bottom, linewidth=0, **look)
        ax.set(ylim=(0, 1), title=f"share of ${moment}(X)$")
        style.depth_axis(ax, "layer")
        if len(layers) <= 12:  # they may not be consecutive
            ax.set_xticks(layers)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


_Part = tuple[Callable[[pd.DataFrame], pd.Series], str]


def _panels_by_layer(
    parts: Mapping[str, _Part],
    stats: Statistics,
    depth: str | None,
    choice: Mapping[str, int | bool | None],
    *,
    columns: int,
    width: float,
) -> Figure:
    figure, axes = style.panels(len(parts), columns, width, 3.2)
    drawn = {ax: (title, *part) for ax, (title, part) in zip(axes, parts.items(), strict=True)}
    _by_layer(drawn, stats, depth, choice)
    style.name_models(figure, axes[0], given.several(stats))
    return figure


def _by_layer(
    drawn: Mapping[Axes, tuple[str, Callable[[pd.DataFrame], pd.Series], str]],
    stats: Statistics,
    depth: str | None,
    choice: Mapping[str, int | bool | None],
) -> None:
    """Draw a quantity of the decomposition on each Axes, with a line for each model."""
    statistics = given.several(stats)
    x, name = given.depths(statistics, depth)
    found = [one.decomposition(**choice) for one in statistics]
    for ax, (title, value, colour) in drawn.items():
        style.lines(ax, statistics, x, [value(parts) for parts in found], COLOURS[colour])
        ax.set_title(title, fontsize=11)
        style.depth_axis(ax, name)


def _name(ax: Axes, stats: Statistics) -> None:
    """Name the models that a figure of a single panel shows."""
    statistics = given.several(stats)
    if len(statistics) == 1:
        ax.set(ylabel=ax.get_title(), title=lettering.labels(statistics)[0])
    else:
        ax.set(ylabel=ax.get_title(), title="")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _absolute(axes: Sequence[Axes]) -> None:
    """Make the axes logarithmic if values in one differ much and all are positive."""
    values = [np.concatenate([line.get_ydata() for line in ax.lines]) for ax in axes]
    least = min(float(of.min()) for of in values)
    if least > 0 and any(of.max() >= _WIDE * of.min() for of in values):
        for ax in axes:
            ax.set_yscale("log")
    else:
        for ax, of in zip(axes, values, strict=True):
            style.hide_rounding(ax, "y", of)
            ax.set_ylim(bottom=min(0.0, least))
    axes[0].set_ylabel("squared norm")
