"""A few tokens: their statistics in a table, and their embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import style
from embvar_kit.figures.style import FREQUENCY_MAP, as_label, label_points, written
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # importing torch takes seconds
    from embvar_kit.extraction.embeddings import Occurrences


def pick_tokens(
    stats: TokenStatistics,
    *,
    layer: int | str = "middle",
    per_bin: int = 2,
    bins: int = 10,
    seed: int = 0,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
) -> pd.DataFrame:
    """A few tokens of every frequency, with their n_t, Q, M and V (paper, Table 2).

    The range of log10 n_t is cut into bins of equal width, and ``per_bin`` tokens are drawn at
    random from each; a bin with fewer tokens gives all of them.

    Args:
        stats: one model's statistics.
        layer: the layer of Q, M and V; the choice of tokens does not depend on it.
        per_bin: how many tokens to draw from each bin.
        bins: the number of bins.
        seed: seed of the random draw.
        min_count, max_count, special, unbiased: as in
            :meth:`embvar_kit.TokenStatistics.table`.

    Returns:
        Rows of that table and their ``bin``, counted from 1. The rarest bin comes first, and
        within it the most frequent token.

    Raises:
        StatisticsError: if no token is in the range of counts, or ``per_bin`` or ``bins`` is less
            than 1.
    """
    one = style.only(stats, "pick_tokens")
    if per_bin < 1 or bins < 1:
        raise StatisticsError(f"per_bin={per_bin} and bins={bins}: both must be at least 1.")
    layer = style.layer_of(one, layer)
    style.chosen(one, layer, min_count=min_count, max_count=max_count)
    table = one.table(
        layer, min_count=min_count, max_count=max_count, special=special, unbiased=unbiased
    )
    if table.empty:
        raise StatisticsError("All tokens in this range are special ones: special=True keeps them.")
    frequency = np.log10(table["n"].to_numpy())
    edges = np.linspace(frequency.min(), frequency.max(), bins + 1)
    number = np.clip(np.searchsorted(edges, frequency, side="right"), 1, bins)
    random = np.random.default_rng(seed)
    drawn = []
    for at in np.unique(number):
        own = np.flatnonzero(number == at)
        drawn.append(np.sort(random.choice(own, min(per_bin, len(own)), replace=False)))
    rows = np.concatenate(drawn)
    return table.iloc[rows].assign(bin=number[rows]).reset_index(drop=True)


def token_clouds(
    occurrences: Mapping[str, Occurrences],
    *,
    layer: int,
    stats: TokenStatistics | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Embeddings of a few tokens in two dimensions, with their means and the origin (Fig. 1).

    Embeddings are projected on the first two principal axes of the token means and the origin.
    The other dimensions are not shown, so a cloud may look narrower than it is; the axes' labels
    say which share of the means' variance each shows.

    Args:
        occurrences: each token's occurrences, from :func:`embvar_kit.collect_embeddings`.
        layer: one of the layers collected.
        stats: statistics with these tokens. If given, tokens are coloured by log10 n_t, and their
            means are those over all occurrences, if the statistics hold means.
        ax: the Axes to draw on; by default new ones.

    Returns:
        The Axes.

    Raises:
        StatisticsError: if there are fewer than two tokens, or one is not in ``stats``.
    """
    if len(occurrences) < 2:
        raise StatisticsError("Two axes need at least two tokens: collect the embeddings of more.")
    points = [found.at(layer) for found in occurrences.values()]
    means = np.array([x.mean(axis=0, dtype=np.float64) for x in points])
    counts = None
    if stats is not None:
        at = _rows(stats, list(occurrences))
        counts = stats.n[at]
        if stats.mean is not None:
            means = stats.mean[np.flatnonzero(stats.layers == layer)[0]][at].astype(np.float64)
    centre, axes, share = analysis.principal_axes(np.vstack([means, np.zeros(means.shape[1])]))
    ax = style.new_axes(ax, 7.2, 5.6)
    colours = [style.model_colour(i) for i in range(len(points))]
    if counts is not None:
        colour_of = ScalarMappable(Normalize(*style.count_range(counts)), FREQUENCY_MAP)
        colours = [colour_of.to_rgba(np.log10(n)) for n in counts]
        ax.figure.colorbar(colour_of, ax=ax, label=r"$\log_{10} n_t$")
    # The largest clouds come first, so that they do not cover the small ones.
    flat = [(x - centre) @ axes.T for x in points]
    for i in sorted(range(len(flat)), key=lambda i: -np.ptp(flat[i], axis=0).sum()):
        token = list(occurrences)[i]
        look = {"s": 7, "color": [colours[i]], "alpha": 0.55, "linewidths": 0}
        ax.scatter(*flat[i].T, label=written(token), **look)
    where = (means - centre) @ axes.T
    ax.scatter(*where.T, s=42, c=colours, edgecolors="black", linewidths=0.9, zorder=4)
    origin = -centre @ axes.T
    ax.plot(*origin, "X", color="black", markersize=10, zorder=5)
    texts = [*(as_label(token) for token in occurrences), "origin"]
    ax.set_xlabel(f"first axis of the means ({share[0]:.0%})")
    ax.set_ylabel(f"second axis ({share[1]:.0%})")
    name = f"{style.labels([stats])[0]}, " if stats is not None else ""
    ax.set_title(f"{name}layer {layer}")
    ax.set_aspect("equal", adjustable="datalim")
    spots = np.vstack([where, origin])
    label_points(ax, spots[:, 0], spots[:, 1], texts)
    return ax


def _rows(stats: TokenStatistics, tokens: list[str]) -> np.ndarray:
    row = {token: at for at, token in enumerate(stats.tokens)}
    if absent := [token for token in tokens if token not in row]:
        raise StatisticsError(
            f"The statistics do not hold {', '.join(map(repr, absent))}: leave stats out, or "
            "pass those of the same model and corpus."
        )
    return np.array([row[token] for token in tokens])
