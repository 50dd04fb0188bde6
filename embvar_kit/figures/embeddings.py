"""A few tokens: their statistics in a table, and their embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import given, lettering, style
from embvar_kit.figures.lettering import as_label, label_points, written
from embvar_kit.figures.style import FREQUENCY_MAP
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
    paper: bool = False,
    order: Sequence[str] | None = None,
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
        paper: draw as the authors' script does: tokens of three characters or more,
            ``2 + int(4 * sqrt(s / largest))`` from a bin that has ``s`` of them where the largest
            has ``largest``, with NumPy's legacy generator and seed 3. ``per_bin`` and ``seed`` do
            not apply.
        order: with ``paper``, the tokens in the order of the authors' file
            (:func:`embvar_kit.paper.release.token_order`), on which their draw depends. By default
            the order is that of ``stats``, and other tokens are drawn than theirs.

    Returns:
        Rows of that table and their ``bin``, counted from 1. The rarest bin comes first, and
        within it the most frequent token.

    Raises:
        StatisticsError: if no token is in the range of counts, ``per_bin`` or ``bins`` is less
            than 1, or ``order`` lacks a token or is given without ``paper``.
    """
    one = given.only(stats, "pick_tokens")
    if per_bin < 1 or bins < 1:
        raise StatisticsError(f"per_bin={per_bin} and bins={bins}: both must be at least 1.")
    if order is not None and not paper:
        raise StatisticsError("order= belongs to the authors' draw: pass paper=True with it.")
    layer = given.layer_of(one, layer)
    table = given.chosen(
        one, layer, min_count=min_count, max_count=max_count, special=special, unbiased=unbiased
    )
    frequency = np.log10(table["n"].to_numpy())
    edges = np.linspace(frequency.min(), frequency.max(), bins + 1)
    number = np.clip(np.searchsorted(edges, frequency, side="right"), 1, bins)
    if paper:
        drawn = _drawn_by_the_authors(table["token"].to_numpy(), number, order)
    else:
        random = np.random.default_rng(seed)
        drawn = [
            random.choice(own, min(per_bin, len(own)), replace=False)
            for own in (np.flatnonzero(number == at) for at in np.unique(number))
        ]
    rows = np.concatenate([np.sort(own) for own in drawn])
    return table.iloc[rows].assign(bin=number[rows]).reset_index(drop=True)


_SHORTEST, _LEAST_DRAWN, _MORE_DRAWN, _SEED = 3, 2, 4, 3
"""The authors' choices for Fig. 1: characters in a token, tokens from a bin, seed."""


def _drawn_by_the_authors(
    tokens: np.ndarray, number: np.ndarray, order: Sequence[str] | None
) -> list[np.ndarray]:
    """The rows that the authors' script draws from each bin, the rarest bin first.

    The release corrects the formula of the paper's Appendix A: the root is taken of the ratio
    alone, before it is multiplied by 4.

    Args:
        tokens: ``(T,)`` the tokens.
        number: ``(T,)`` the bin of each, from 1.
        order: the tokens in the order of the authors' file.
    """
    rows = np.arange(len(tokens))
    if order is not None:
        place = {token: at for at, token in enumerate(order)}
        if absent := [token for token in tokens if token not in place]:
            raise StatisticsError(
                f"order lacks {absent[0]!r} and {len(absent) - 1:,} others: pass "
                "release.token_order of the file that the statistics were read from."
            )
        rows = np.argsort([place[token] for token in tokens])
    candidates: dict[int, list[int]] = {}  # their bins, too, are in the order of the file
    for row in rows:
        if len(tokens[row]) >= _SHORTEST:
            candidates.setdefault(number[row], []).append(row)
    if not candidates:
        raise StatisticsError(
            f"No token in this range has {_SHORTEST} characters: lower min_count, or pass "
            "paper=False."
        )
    largest = max(map(len, candidates.values()))
    random = np.random.RandomState(_SEED)
    drawn = {}
    for at, own in candidates.items():
        size = _LEAST_DRAWN + int(_MORE_DRAWN * (len(own) / largest) ** 0.5)
        drawn[at] = np.array(own)[random.choice(len(own), min(size, len(own)), replace=False)]
    return [drawn[at] for at in sorted(drawn)]


def token_clouds(
    occurrences: Mapping[str, Occurrences],
    *,
    layer: int,
    stats: TokenStatistics | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Embeddings of a few tokens in two dimensions, with their means and the origin (Fig. 1).

    Embeddings are projected on the first two principal axes of the token means and the origin; the
    origin lies at (0, 0), so that distances from it are (projected) norms.
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
    _, axes, share = analysis.principal_axes(np.vstack([means, np.zeros(means.shape[1])]))
    ax = style.new_axes(ax, 7.2, 5.6)
    colours = [style.model_colour(i) for i in range(len(points))]
    if counts is not None:
        colour_of = ScalarMappable(Normalize(*style.count_range(counts)), FREQUENCY_MAP)
        colours = [colour_of.to_rgba(np.log10(n)) for n in counts]
        ax.figure.colorbar(colour_of, ax=ax, label=r"$\log_{10} n_t$")
    # The largest clouds come first, so that they do not cover the small ones.
    flat = [x @ axes.T for x in points]
    for i in sorted(range(len(flat)), key=lambda i: -np.ptp(flat[i], axis=0).sum()):
        token = list(occurrences)[i]
        look = {"s": 7, "color": [colours[i]], "alpha": 0.55, "linewidths": 0}
        ax.scatter(*flat[i].T, label=written(token), **look)
    where = means @ axes.T
    ax.scatter(*where.T, s=42, c=colours, edgecolors="black", linewidths=0.9, zorder=4)
    ax.plot(0, 0, "X", color="black", markersize=10, zorder=5)
    texts = [*(as_label(token) for token in occurrences), "origin"]
    ax.set_xlabel(f"first axis of the means ({share[0]:.0%})")
    ax.set_ylabel(f"second axis ({share[1]:.0%})")
    name = f"{lettering.labels([stats])[0]}, " if stats is not None else ""
    ax.set_title(f"{name}layer {layer}")
    ax.set_aspect("equal", adjustable="datalim")
    spots = np.vstack([where, np.zeros(2)])
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
