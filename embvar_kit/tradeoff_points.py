"""What the trade-off explorer draws: the tokens of a choice with their moments at all layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit import analysis
from embvar_kit.errors import StatisticsError
from embvar_kit.statistics import TokenStatistics


@dataclass(frozen=True)
class Points:
    """The tokens of a choice, the rarest first, at all layers.

    Attributes:
        tokens: ``(T,)``. n: ``(T,)``. layers: ``(L,)``. Q, M, V: ``(L, T)``; M and V in the form
            chosen, measured or unbiased.
    """

    tokens: np.ndarray
    n: np.ndarray
    layers: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray

    def at(self, layer: int) -> int:
        """The row of a layer."""
        return int(np.flatnonzero(self.layers == layer)[0])

    def rows(self, tokens: Iterable[str]) -> np.ndarray:
        """Where these tokens are, in their order; those that are not here are left out."""
        tokens = list(tokens)
        found = self._index.get_indexer(tokens) if tokens else np.array([], dtype=int)
        return found[found >= 0]

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.tokens)


def by_name(stats: TokenStatistics | Mapping[str, Any]) -> dict[str, dict[str, TokenStatistics]]:
    """Statistics by model and site, from one, ``{name: one}`` or ``{name: {site: one}}``.

    What :func:`embvar_kit.extract` gives for a list of sites, ``{site: one}``, is one model's.

    Raises:
        StatisticsError: if something else is given, or nothing.
    """

    def site(one: TokenStatistics) -> str:
        return str(one.info.get("convention", {}).get("site", "hidden"))

    def model(one: TokenStatistics) -> str:
        return str(one.info["model"]["name"])

    if isinstance(stats, TokenStatistics):
        return {model(stats): {site(stats): stats}}
    if not isinstance(stats, Mapping) or not stats:
        raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
    ones = list(stats.values())
    sites_of_one = (
        len(ones) > 1
        and all(isinstance(one, TokenStatistics) for one in ones)
        and [site(one) for one in ones] == list(stats)
        and len({model(one) for one in ones}) == 1
    )
    if sites_of_one:
        return {model(ones[0]): dict(stats)}
    found = {}
    for name, one in stats.items():
        sites = {site(one): one} if isinstance(one, TokenStatistics) else one
        values = list(sites.values()) if isinstance(sites, Mapping) else []
        if not values or not all(isinstance(each, TokenStatistics) for each in values):
            raise StatisticsError("Give TokenStatistics by name, or {name: {site: statistics}}.")
        found[str(name)] = dict(sites)
    return found


def points_of(
    stats: TokenStatistics, counts: tuple[int, int | None], *, special: bool, unbiased: bool
) -> Points:
    """The tokens of a choice, at all layers.

    Args:
        stats: one model's statistics.
        counts: least and most occurrences; ``None`` is no limit.
        special: whether special tokens are kept.
        unbiased: the finite-sample corrected M and V.

    Raises:
        StatisticsError: if no token is left, or the form or the range cannot be had.
    """
    least, most = counts
    if most is not None and most < least:
        raise StatisticsError(f"No token occurs {least:,} times or more and {most:,} or less.")
    choice = {"min_count": least, "max_count": most, "special": special}
    table = stats.table(int(stats.layers[0]), **choice)
    if table.empty:
        raise StatisticsError("No token is in this range: widen it.")
    if unbiased and least < 2:
        raise StatisticsError(
            "The unbiased forms need two occurrences of a token: raise the range to 2."
        )
    kept = pd.Index(stats.tokens).get_indexer(table["token"])[::-1]
    n, M, V = stats.n[kept], stats.M[:, kept], stats.V[:, kept]
    if unbiased:
        M, V = analysis.unbiased(n, M, V)
    return Points(stats.tokens[kept], n, stats.layers, stats.Q[:, kept], M, V)


def least_count(stats: TokenStatistics) -> int:
    """The smallest count that statistics hold."""
    return int(stats.info.get("compact", {}).get("min_count", 1))
