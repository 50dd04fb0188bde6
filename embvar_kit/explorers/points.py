"""The tokens of a choice as points: their moments at all layers, from one model's statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from embvar_kit.corpora.byte_level import named
from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.tables import times
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import HIGH_NORM_FACTOR, TokenStatistics

Statistics = (
    TokenStatistics | Mapping[str, TokenStatistics] | Mapping[str, Mapping[str, TokenStatistics]]
)
"""One model's statistics, several by name, or ``{name: {site: statistics}}``."""


@dataclass(frozen=True)
class Points:
    """The tokens of a choice, the rarest first, with their moments at all layers.

    Attributes:
        rows: ``(T,)`` their indices in the statistics.
        tokens: ``(T,)`` names.
        texts: ``(T,)`` their texts, which differ from the names of byte-level tokens.
        n: ``(T,)`` occurrences.
        layers: ``(L,)`` numbers of the layers.
        Q: ``(L, T)`` squared norms.
        M: ``(L, T)`` squared norms of the mean, measured or unbiased as chosen.
        V: ``(L, T)`` variances, measured or unbiased as chosen.
    """

    rows: np.ndarray
    tokens: np.ndarray
    texts: np.ndarray
    n: np.ndarray
    layers: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray

    def at(self, layer: int) -> int:
        """The row of a layer in Q, M and V."""
        return int(np.flatnonzero(self.layers == layer)[0])

    def indices_of(self, tokens: Iterable[str]) -> np.ndarray:
        """Positions of these tokens, in the order given; tokens that are absent are skipped."""
        found = self.rows_of(tokens)
        return found[found >= 0]

    def rows_of(self, tokens: Iterable[str | None]) -> np.ndarray:
        """``(K,)`` positions of these tokens, in the order given; -1 where one is absent."""
        tokens = list(tokens)
        if not tokens:
            return np.array([], dtype=int)
        return self._index.get_indexer(pd.Index(tokens, dtype=object))

    @cached_property
    def shown(self) -> np.ndarray:
        """``(T,)`` each name, with its text beside it where the two differ."""
        pairs = zip(self.tokens, self.texts, strict=True)
        return np.array([named(str(token), text) for token, text in pairs], dtype=object)

    @cached_property
    def high_norm(self) -> bool:
        """Whether some token's Q is far above the median at some layer."""
        return bool((self.Q.max(axis=1) >= HIGH_NORM_FACTOR * np.median(self.Q, axis=1)).any())

    @cached_property
    def _index(self) -> pd.Index:
        # With another dtype than what is looked up, pandas would hash all tokens anew each time.
        return pd.Index(self.tokens, dtype=object)


def by_name(stats: Statistics) -> dict[str, dict[str, TokenStatistics]]:
    """Statistics by model and site.

    The result of :func:`embvar_kit.extract` for a list of sites, ``{site: statistics}``, is taken
    as one model's.

    Raises:
        StatisticsError: if ``stats`` is empty or something else.
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


def usual_counts(*stats: TokenStatistics, unbiased: bool = False) -> tuple[int, int | None]:
    """The range to begin with: 10 to 100,000 occurrences, or in a small text any number of them.

    Args:
        stats: the statistics, of which each has tokens in the range.
        unbiased: whether M and V are corrected, which takes two occurrences.
    """
    known = max(one.least_count for one in stats)
    least, most = max(10, known), 100_000
    if all(((one.n >= least) & (one.n <= most)).any() for one in stats):
        return least, most
    return max(known, 2 if unbiased else 1), None


def rarest_text(least: int) -> str:
    """Why a range cannot begin below the least count that statistics know of, for a reader.

    >>> rarest_text(10)
    'Tokens that occur fewer than 10 times are not known here: start the range at 10 or above.'
    """
    return (
        f"Tokens that occur fewer than {least:,} times are not known here: start the range at "
        f"{least:,} or above."
    )


def points_of(
    stats: TokenStatistics,
    counts: tuple[int, int | None],
    *,
    special: bool,
    unbiased: bool,
    among: np.ndarray | None = None,
    chosen_by: str = "The filter",
) -> Points:
    """The tokens of a choice, at all layers.

    Args:
        stats: one model's statistics.
        counts: least and most occurrences; ``None`` means no limit.
        special: whether special tokens are kept.
        unbiased: whether M and V are corrected for finite samples.
        among: ``(T,)`` which tokens of the statistics a filter lets through; ``None`` for all.
        chosen_by: what ``among`` is, for the message that it leaves no token.

    Raises:
        StatisticsError: if no token is left, the range is empty, or the unbiased forms are not
            defined in it.
    """
    least, most = counts
    if least < stats.least_count:
        raise StatisticsError(rarest_text(stats.least_count))
    choice = {"min_count": least, "max_count": most, "special": special}
    table = stats.table(int(stats.layers[0]), **choice)
    if table.empty:
        raise StatisticsError(f"No token occurs {times(counts)}.")
    if unbiased and least < 2:
        raise StatisticsError(
            "The unbiased forms need two occurrences of each token: start the range at 2."
        )
    kept = pd.Index(stats.tokens).get_indexer(table["token"])[::-1]
    if among is not None:
        kept = kept[among[kept]]
        if not len(kept):
            raise StatisticsError(f"{chosen_by} leaves no token that occurs {times(counts)}.")
    n, M, V = stats.n[kept], stats.M[:, kept], stats.V[:, kept]
    if unbiased:
        M, V = analysis.unbiased(n, M, V)
    names, texts = stats.tokens[kept], stats.texts[kept]
    return Points(kept, names, texts, n, stats.layers, stats.Q[:, kept], M, V)
