"""One token, looked at closely: its Q, M and V by layer, its occurrences in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import style
from embvar_kit.figures.style import COLOURS, as_label, written
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from embvar_kit.extraction.embeddings import Occurrences

MOST_NEIGHBOURS = 6
"""Neighbours that get a colour and a mark of their own; the others are grey dots."""

_MARKS = "os^Dv*"
_WIDE = 100  # a range of values from which on the axis is logarithmic


def moments_of_token(
    stats: TokenStatistics, token: str, *, unbiased: bool = False, ax: Axes | None = None
) -> Axes:
    """Q(X_t), M(X_t) and V(X_t) of one token, against the layer.

    Args:
        stats: one model's statistics.
        token: as it is called there.
        unbiased: the finite-sample corrected M and V.
        ax: draw here.

    Raises:
        StatisticsError: if there is no such token.
    """
    found = np.flatnonzero(stats.tokens.astype(str) == token)
    if not len(found):
        raise StatisticsError(f"{token!r} is not in these statistics.")
    at = found[0]
    M, V = stats.M[:, at], stats.V[:, at]
    if unbiased:
        M, V = analysis.unbiased(np.full(len(M), stats.n[at]), M, V)
    ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")[1] if ax is None else ax
    tilde = r"\tilde{%s}" if unbiased else "%s"
    styles = (("Q", stats.Q[:, at], "s--"), ("M", M, "o-"), ("V", V, "^-"))
    for name, values, look in styles:
        label = f"${name if name == 'Q' else tilde % name}$"
        ax.plot(stats.layers, values, look, color=COLOURS[name], markersize=4, label=label)
    values = np.concatenate([values for _, values, _ in styles])
    Q = stats.Q[:, at]
    if np.nanmin(values) > 0 and Q.max() > _WIDE * Q.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0.0, float(np.nanmin(values))))
    ax.set_ylabel("squared norm")
    style.depth_axis(ax, "layer")
    name = written(stats.info["model"]["name"])
    ax.set_title(f"{as_label(token)} in {name}, by layer", fontsize=10)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


def occurrences_in_plane(
    occurrences: Occurrences,
    neighbours: Sequence[str | None],
    *,
    layer: int,
    what: str = "neighbour",
    ax: Axes | None = None,
) -> Axes:
    """Embeddings of one token on their first two principal axes, marked by a neighbouring token.

    Occurrences of one sense tend to have neighbours in common and to lie together.

    Args:
        occurrences: from :meth:`embvar_kit.explorers.concordance.Concordance.find`.
        neighbours: ``(n,)`` of each occurrence the token before or after it.
        layer: one of those collected.
        what: heading of the legend.
        ax: draw here.

    Raises:
        StatisticsError: if there are fewer than three occurrences, or neighbours do not fit them.
    """
    x = occurrences.at(layer)
    if len(x) < 3 or len(neighbours) != len(x):
        raise StatisticsError(
            f"{len(x)} occurrences and {len(neighbours)} neighbours: two axes need three "
            "occurrences or more, and a neighbour each."
        )
    ax = plt.subplots(figsize=(5.4, 3.4), layout="constrained")[1] if ax is None else ax
    if not np.ptp(x, axis=0).any():
        note = "all these vectors are the same"
        ax.text(0.5, 0.5, note, ha="center", va="center", transform=ax.transAxes)
        ax.set(xticks=(), yticks=(), title=f"layer {layer}")
        return ax
    centre, axes, share = analysis.principal_axes(x)
    flat = (x - centre) @ axes.T
    often = [n for n, _ in Counter(n for n in neighbours if n is not None).most_common()]
    named = often[:MOST_NEIGHBOURS]
    rest = np.array([n not in named for n in neighbours])
    if rest.any():
        look = {"color": "#b0b0b0", "s": 14, "linewidths": 0}
        ax.scatter(*flat[rest].T, label=f"others ({rest.sum()})", **look)
    for at, neighbour in enumerate(named):
        own = np.array([n == neighbour for n in neighbours])
        look = {"color": style.model_colour(at), "marker": _MARKS[at], "s": 26}
        label = f"{as_label(neighbour)} ({own.sum()})"
        ax.scatter(*flat[own].T, label=label, linewidths=0, zorder=3, **look)
    ax.set_xlabel(f"first principal axis ({share[0]:.0%})")
    ax.set_ylabel(f"second ({share[1]:.0%})")
    style.few_ticks(ax)
    title = f"{len(x)} occurrences of {as_label(occurrences.token)}, layer {layer}"
    ax.set_title(title, fontsize=10)
    ax.legend(title=what, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return ax
