"""Compact statistics: results for a few choices of tokens in place of the means they come from.

The means are a hundred times as large as all the rest. A decomposition needs them, and intervals
need the folds, so both are computed beforehand for each of :data:`CHOICES` and found again by
:func:`key_of`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics import analysis
from embvar_kit.statistics.folds import LEAST

if TYPE_CHECKING:
    from embvar_kit.statistics.token_statistics import TokenStatistics

CHOICES = tuple(
    {"min_count": least, "max_count": most, "special": special, "unbiased": unbiased}
    for least, most in ((1, None), (2, None), (10, 100_000))
    for special in (True, False)
    for unbiased in ((False, True) if least > 1 else (False,))
)
"""Arguments of :meth:`TokenStatistics.decomposition` whose results compact statistics keep: all
tokens, those with two occurrences or more, and the paper's range; each with and without special
tokens, plain and unbiased."""

TOKENS = ("min_count", "max_count", "special")
"""What of a choice says which tokens are in it."""

STORED = ("decompositions", "fold_decompositions", "replicates")
"""Attributes of :class:`TokenStatistics` that hold results for choices of tokens."""

_LARGEST, _LEAST = 1e38, 1e-36
"""The Q that float32 has room for; a V that is Q's rounding has to fit, too."""

_NO_MAXIMUM = -1  # stands for max_count=None in a column of integers


def compact(
    statistics: TokenStatistics, min_count: int, left_out: Iterable[Iterable[str]]
) -> TokenStatistics:
    """The statistics without their means; see :meth:`TokenStatistics.compact`.

    Raises:
        StatisticsError: if the means were left out already, or no token would be left, or none for
            a decomposition.
    """
    if statistics.mean is None:
        raise StatisticsError(
            "Compacting needs the token means, which were left out of these statistics."
        )
    kept = statistics.n >= min_count
    if not kept.any():
        raise StatisticsError(
            f"No token occurs {min_count} times, so compact statistics would be empty: lower "
            "min_count, or keep the whole statistics."
        )
    already = statistics.info.get("left_out", ())  # what folds were measured with
    listed = Listed(min_count, frozenset([*statistics.tokens[kept].tolist(), *already]))
    of_parts: list[list[Keyed]] = []
    of_folds: list[list[Keyed]] = []
    for tokens in left_out:
        part = statistics.without(list(tokens))
        of_parts.append(list(_decompositions(part, listed)))
        if statistics.folds is not None:
            of_folds.append(list(_replicates(part, listed)))
        del part  # its means are as large as those of the whole
    if (decompositions := _stored(of_parts)) is None:
        raise StatisticsError(
            f"No token is left that occurs {statistics.least_count} times, the least that was "
            "measured, so compact statistics would have no decomposition: keep the whole "
            "statistics."
        )
    Q = statistics.Q[:, kept]
    fits = Q.max() <= _LARGEST and Q[Q > 0].min(initial=np.inf) >= _LEAST
    dtype = np.float32 if fits else np.float64
    fields = {name: getattr(statistics, name)[kept] for name in ("tokens", "special", "n")}
    fields |= {name: getattr(statistics, name)[:, kept].astype(dtype) for name in "QMV"}
    fields["counts"] = {name: count[kept] for name, count in statistics.counts.items()}
    if statistics.subwords is not None:
        fields["subwords"] = statistics.subwords[kept]
    fields |= {"mean": None, "extra": None, "folds": None}
    fields["decompositions"] = decompositions
    if statistics.covariance is not None:
        fields |= {"covariance": None, "isotropies": statistics.isotropy()}
    if statistics.folds is not None:
        fields["replicates"] = _stored(of_folds)
    if statistics.null is not None:
        fields["null"] = statistics.null.compact(min_count=min_count)
    told = {"min_count": min_count} | ({"left_out": sorted(already)} if already else {})
    return replace(statistics, **fields, info={**statistics.info, "compact": told})


def choices(statistics: TokenStatistics) -> Iterator[tuple[dict, np.ndarray]]:
    """Each of :data:`CHOICES` that leaves a token, and ``(T,)`` whether it keeps a token.

    A choice of rarer tokens than the statistics hold begins with the rarest they hold.
    """
    least = statistics.least_count
    raised = [{**choice, "min_count": max(least, choice["min_count"])} for choice in CHOICES]
    for at, choice in enumerate(raised):
        kept = statistics.kept(*(choice[name] for name in TOKENS))
        if choice not in raised[:at] and kept.any():
            yield choice, kept


class Listed(NamedTuple):
    """The tokens that compact statistics list, those with ``n_t >= min_count``.

    A choice of such tokens does not depend on rarer ones, whether they are left out or not. So its
    results are found whichever of the rarer ones are named: a vocabulary's shared strings, say, of
    which a corpus has many rarely or never.
    """

    min_count: int
    tokens: frozenset[str]

    def of(self, names: Iterable[str], choice: Mapping) -> list[str]:
        """Those of the tokens left out that a choice depends on."""
        if choice["min_count"] < self.min_count:
            return list(names)
        return [name for name in names if name in self.tokens]


def key_of(statistics: TokenStatistics, choice: Mapping, listed: Listed | None = None) -> dict:
    """The values that identify a choice among the stored results.

    Args:
        statistics: which tokens are left out of them is part of the key.
        choice: the choice.
        listed: the tokens that compact statistics will list, or listed before some were left out.
    """
    most = _NO_MAXIMUM if choice["max_count"] is None else choice["max_count"]
    names = statistics.info.get("left_out", ())
    names = list(names) if listed is None else listed.of(names, choice)
    left_out = json.dumps(names, ensure_ascii=False)
    return {**choice, "max_count": most, "left_out": left_out}


def stored_decomposition(statistics: TokenStatistics, choice: Mapping) -> pd.DataFrame:
    """One of the stored decompositions: ``layer, Q, M, V, V_W, V_B, n``.

    Raises:
        StatisticsError: if that of this choice is not among them.
    """
    stored = statistics.decompositions
    found = _of_choice(statistics, stored, choice)
    if found.empty:
        ranges = {(row.min_count, row.max_count) for row in stored.itertuples()}
        counts = ", ".join(
            f"{least} to {'all' if most == _NO_MAXIMUM else most}" for least, most in sorted(ranges)
        )
        raise StatisticsError(
            "These statistics are compact: the token means that a decomposition needs were left "
            "out, and this choice is not among the choices stored. Stored are min_count and "
            f"max_count of {counts} (unbiased from 2 on), with {stored['left_out'].nunique()} sets "
            "of tokens left out. Extract again for others."
        )
    return found[["layer", *analysis.Decomposition._fields, "n"]]


def stored_for_intervals(
    statistics: TokenStatistics, stored: pd.DataFrame, choice: Mapping
) -> pd.DataFrame:
    """The rows of a stored table of folds that were computed for a choice.

    Raises:
        StatisticsError: if there are none.
    """
    found = _of_choice(statistics, stored, choice)
    if found.empty:
        given = ", ".join(f"{name}={value!r}" for name, value in choice.items())
        raise StatisticsError(
            f"Intervals are not stored for this choice ({given}"
            + (", with tokens left out" if statistics.info.get("left_out") else "")
            + "). Stored are those of min_count=10 and max_count=100_000, and of decompositions "
            "and anisotropy those of all tokens. Others take whole statistics from a pass with "
            "folds=20; to keep intervals of the trade-off without some tokens in compact ones, "
            "pass them when compacting: compact(left_out=[(), tokens])."
        )
    return found


def _of_choice(statistics: TokenStatistics, stored: pd.DataFrame, choice: Mapping) -> pd.DataFrame:
    """The rows of a stored table that were computed for a choice, without its key's columns."""
    keys = [key_of(statistics, choice)]  # an older kit stored it under all tokens left out
    if told := statistics.info.get("compact"):
        listed = Listed(told["min_count"], frozenset(told.get("left_out", ())))
        keys.append(key_of(statistics, choice, listed))
    for key in keys:
        matching = np.logical_and.reduce([stored[name] == value for name, value in key.items()])
        if matching.any():
            break
    return stored.loc[matching].drop(columns=list(key)).reset_index(drop=True)


Keyed = tuple[dict, pd.DataFrame]
"""A key, and the table that is stored under it."""


def _stored(parts: Iterable[Iterable[Keyed]]) -> pd.DataFrame | None:
    """The tables of all parts, each key once; ``None`` if there are none."""
    tables: dict[tuple, pd.DataFrame] = {}
    for key, table in itertools.chain.from_iterable(parts):
        tables.setdefault(tuple(key.values()), table.assign(**key))
    if not tables:
        return None
    return pd.concat(tables.values(), ignore_index=True).astype({"left_out": "category"})


def _decompositions(statistics: TokenStatistics, listed: Listed) -> Iterator[Keyed]:
    """The decomposition for each choice, with ``n``, the number of embeddings."""
    for choice, kept in choices(statistics):
        n = int(statistics.n[kept].sum())
        yield key_of(statistics, choice, listed), statistics.decomposition(**choice).assign(n=n)


def _replicates(statistics: TokenStatistics, listed: Listed) -> Iterator[Keyed]:
    """What the folds give for each choice of frequent tokens; the key begins with ``what``."""
    for choice, _ in choices(statistics):
        if choice["min_count"] < LEAST:
            continue
        asked = [(what, choice) for what in ("tradeoff", "halves", "frequency", "log_frequency")]
        if choice["unbiased"]:
            asked.append(("similarity", {**choice, "max_count": None}))
        for what, choice in asked:
            key = {"what": what, **key_of(statistics, choice, listed)}
            yield key, statistics.replicated(what, choice)
