"""One token in detail: its Q, M and V by layer, and its occurrences in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from embvar_kit.corpora.byte_level import named
from embvar_kit.errors import StatisticsError
from embvar_kit.figures import lettering, style
from embvar_kit.figures.lettering import as_label, written
from embvar_kit.figures.style import COLOURS, GROUP_MARKERS
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # importing torch takes seconds
    from embvar_kit.extraction.embeddings import Occurrences

MOST_NEIGHBOURS = len(GROUP_MARKERS)
"""How many neighbours have a colour and a marker of their own; the others are grey dots."""

_WIDE = 100  # the axis is logarithmic if Q differs by this factor between layers


def moments_of_token(
    stats: TokenStatistics, token: str, *, unbiased: bool = False, ax: Axes | None = None
) -> Axes:
    """Q(X_t), M(X_t) and V(X_t) of one token against the layer.

    Args:
        stats: one model's statistics.
        token: the token, as written in the statistics.
        unbiased: draw the finite-sample corrected M and V.
        ax: the Axes to draw on; by default new ones.

    Raises:
        StatisticsError: if the statistics do not hold the token.
    """
    found = np.flatnonzero(stats.tokens.astype(str) == token)
    if not len(found):
        raise StatisticsError(f"{token!r} is not in these statistics.")
    at = found[0]
    M, V = stats.M[:, at], stats.V[:, at]
    if unbiased:
        M, V = analysis.unbiased(np.full(len(M), stats.n[at]), M, V)
    ax = style.new_axes(ax, 5.4, 3.4)
    styles = (("Q", stats.Q[:, at], "s--"), ("M", M, "o-"), ("V", V, "^-"))
    for name, values, look in styles:
        label = lettering.symbol(name, unbiased=unbiased)
        ax.plot(stats.layers, values, look, color=COLOURS[name], markersize=4, label=label)
    values = np.concatenate([values for _, values, _ in styles])
    Q = stats.Q[:, at]
    if np.nanmin(values) > 0 and Q.max() > _WIDE * Q.min():
        ax.set_yscale("log")
    else:
        style.hide_rounding(ax, "y", values)
        ax.set_ylim(bottom=min(0.0, float(np.nanmin(values))))
    ax.set_ylabel("squared norm")
    style.depth_axis(ax, "layer")
    name, shown = written(stats.info["model"]["name"]), named(token, stats.texts[at])
    ax.set_title(f"{as_label(shown)} in {name}, by layer", fontsize=10)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


def occurrences_in_plane(
    occurrences: Occurrences,
    neighbours: Sequence[str | None],
    *,
    layer: int,
    what: str = "neighbour",
    name: str | None = None,
    added: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Embeddings of one token on their first two principal axes, marked by a neighbouring token.

    Occurrences of the same sense tend to share neighbours and to lie close together.

    Args:
        occurrences: the token's occurrences, from
            :meth:`embvar_kit.explorers.concordance.Concordance.find`.
        neighbours: ``(n,)`` the token before or after each occurrence.
        layer: one of the layers collected.
        what: the legend's heading.
        name: what the title calls the token, by default as the statistics do.
        added: ``(k, d)`` embeddings of other occurrences, such as those in a sentence of the
            reader's: marked by a black cross, on the axes of the others.
        ax: the Axes to draw on; by default new ones.

    Raises:
        StatisticsError: if there are fewer than three occurrences, or their number is not that of
            the neighbours.
    """
    x = occurrences.at(layer)
    if len(x) < 3 or len(neighbours) != len(x):
        raise StatisticsError(
            f"{len(x)} occurrences and {len(neighbours)} neighbours: two axes need at least three "
            "occurrences, and a neighbour for each."
        )
    ax = style.new_axes(ax, 5.4, 3.4)
    if (found := in_plane(x)) is None:
        note = "all these vectors are the same"
        ax.text(0.5, 0.5, note, ha="center", va="center", transform=ax.transAxes)
        ax.set(xticks=(), yticks=(), title=f"layer {layer}")
        return ax
    flat, share = found.places, found.share
    often = [n for n, _ in Counter(n for n in neighbours if n is not None).most_common()]
    marked = often[:MOST_NEIGHBOURS]
    rest = np.array([n not in marked for n in neighbours])
    if rest.any():
        look = {"color": "#b0b0b0", "s": 14, "linewidths": 0}
        ax.scatter(*flat[rest].T, label=f"others ({rest.sum()})", **look)
    for at, neighbour in enumerate(marked):
        own = np.array([n == neighbour for n in neighbours])
        look = {"color": style.model_colour(at), "marker": GROUP_MARKERS[at], "s": 26}
        label = f"{as_label(neighbour)} ({own.sum()})"
        ax.scatter(*flat[own].T, label=label, linewidths=0, zorder=3, **look)
    ax.set_xlabel(f"first principal axis ({share[0]:.0%})")
    ax.set_ylabel(f"second ({share[1]:.0%})")
    style.few_ticks(ax)
    shown = as_label(occurrences.token if name is None else name)
    title = f"{len(x)} occurrences of {shown}, layer {layer}"
    ax.set_title(title, fontsize=10)
    beside = {"bbox_to_anchor": (1, 0.5), "frameon": False, "fontsize": 8}
    legend = ax.legend(title=what, loc="center left", **beside)
    if added is not None and len(added):
        look = {"color": "black", "edgecolors": "white", "linewidths": 0.8, "zorder": 5}
        cross = ax.scatter(*found.place(added).T, marker="X", s=110, **look)
        ax.add_artist(legend)
        beside["bbox_to_anchor"] = (1, 0)
        ax.legend([cross], [f"your sentence ({len(added)})"], loc="lower left", **beside)
    return ax


class PrincipalPlane(NamedTuple):
    """Vectors on their first two principal axes.

    Attributes:
        places: ``(n, 2)`` where they are.
        share: ``(2,)`` the share of their variance on each axis.
        centre: ``(d,)`` their mean.
        axes: ``(2, d)`` the axes, orthonormal.
    """

    places: np.ndarray
    share: np.ndarray
    centre: np.ndarray
    axes: np.ndarray

    def place(self, x: np.ndarray) -> np.ndarray:
        """``(k, 2)`` where other vectors ``(k, d)`` are on these axes."""
        return (x - self.centre) @ self.axes.T


def in_plane(x: np.ndarray) -> PrincipalPlane | None:
    """Vectors on their first two principal axes; ``None`` if all are the same.

    Args:
        x: ``(n, d)`` vectors, at least three.
    """
    if not np.ptp(x, axis=0).any():
        return None
    centre, axes, share = analysis.principal_axes(x)
    return PrincipalPlane((x - centre) @ axes.T, share, centre, axes)
