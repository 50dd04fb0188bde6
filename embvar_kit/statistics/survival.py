"""Whether a slope survives: its interval, its null and its reliability, put together.

A slope near -1 is no evidence by itself: it is what unrelated Q and M give. What has to be shown is
that M differs between tokens by more than chance makes it, and that V falls with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from embvar_kit.errors import StatisticsError
from embvar_kit.wording import number_of

if TYPE_CHECKING:
    from embvar_kit.statistics.token_statistics import TokenStatistics

RELIABLE = 0.5
"""Least reliability of M over two halves of the documents of a slope that survives."""

TESTED, LEAST_TESTED = 1 / 3, 10
"""Least share, and least number, of the tokens in the regression that the reliability has to be
about where a slope survives: a few tokens in both halves say nothing of the many in neither."""

COLUMNS = (
    *("layer", "n_tokens", "slope", "slope_low", "slope_high", "null_slope"),
    *("r2", "r2_low", "r2_high", "null_r2", "sd_M", "sd_M_low", "sd_M_high", "null_sd_M"),
    *("n_halves", "reliability", "reliability_low", "reliability_high"),
    *("slope_half", "slope_iv", "slope_iv_low", "slope_iv_high"),
    *("theil_sen", "spearman", "null_spearman", "survives"),
)
"""Columns of :meth:`TokenStatistics.evidence`, in their order."""


def evidence_of(
    statistics: TokenStatistics,
    choice: Mapping,
    *,
    unbiased: bool,
    null: bool | TokenStatistics,
    simultaneous: bool,
) -> pd.DataFrame:
    """The table of :meth:`TokenStatistics.evidence`, which says what its columns mean.

    Args:
        statistics: with folds, and with a null if their own is asked for.
        choice: ``min_count``, ``max_count`` and ``special``.
        unbiased: regress the unbiased V on the unbiased M.
        null: compare with their own null, with none, or with this one.
        simultaneous: intervals that hold at all layers together.

    Raises:
        StatisticsError: see :meth:`TokenStatistics.evidence`.
    """
    if hasattr(null, "info"):
        of_null = _given_null(statistics, null)
    else:
        of_null = _null_of(statistics, choice) if null else None
    table = statistics.tradeoff(**choice, unbiased=unbiased, robust=True, intervals=True)
    spread = statistics.tradeoff(**choice, unbiased=True, intervals=True)
    halves = statistics.replicated("halves", {**choice, "unbiased": unbiased})
    found = {name: spread[name] for name in ("sd_M", "sd_M_low", "sd_M_high")}
    found |= {name: halves[name].to_numpy() for name in halves if name != "at"}
    if of_null is not None:
        permuted = of_null.tradeoff(**choice, unbiased=unbiased, robust=True)
        found |= {f"null_{name}": permuted[name] for name in ("slope", "r2", "spearman")}
        found["null_sd_M"] = of_null.tradeoff(**choice, unbiased=True)["sd_M"]
    table = table.assign(**found)
    if simultaneous:
        folds = statistics.replicated("tradeoff", {**choice, "unbiased": unbiased})["fold"]
        table = _widened(table, folds.nunique())
    if of_null is not None:
        table["survives"] = _survives(table)
    return table[[name for name in COLUMNS if name in table]]


def _widened(table: pd.DataFrame, n_folds: int, level: float = 0.95) -> pd.DataFrame:
    """The intervals of a table, made so wide that they hold at all layers together.

    By Bonferroni's inequality, ``k`` intervals that miss with a probability of ``alpha / k`` each
    all hold with ``1 - alpha`` or more, however the layers depend on one another.
    """
    miss = (1 - level) / len(table) / 2
    factor = stdtrit(n_folds - 1, miss) / stdtrit(n_folds - 1, (1 - level) / 2)
    ends = {}
    for name in table.columns:
        value, _, end = name.rpartition("_")
        if end in ("low", "high"):
            ends[name] = table[value] + factor * (table[name] - table[value])
    return table.assign(**ends)


def _survives(table: pd.DataFrame) -> pd.Series:
    """Whether the slope of a row stands against noise, chance and few tokens."""
    return (
        (table["slope_high"] < 0)
        & (table["slope_iv_high"] < 0)
        & (table["sd_M_low"] > table["null_sd_M"])
        & (table["reliability"] >= RELIABLE)
        & (table["reliability_low"] > 0)
        & (table["n_halves"] >= np.maximum(LEAST_TESTED, TESTED * table["n_tokens"]))
    )


def _null_of(statistics: TokenStatistics, choice: Mapping) -> TokenStatistics:
    """The null, if its labels were permuted over the occurrences that a choice is about.

    Raises:
        StatisticsError: if they were not, or there is none.
    """
    without = (
        "evidence(null=False) leaves the null out; evidence(null=whole.null) or "
        "evidence(null=whole.null.without(tokens)) compares with the sets of permuted labels that "
        "have these names, whatever is in them."
    )
    if statistics.null is None:
        raise StatisticsError(
            "These statistics have no null to compare with. Extract with null=True, folds=20; "
            "a null is lost where tokens are left out or statistics merged, because the labels "
            f"would have to be permuted again over the rest. {without}"
        )
    if not choice["special"]:
        raise StatisticsError(
            "In the null, other tokens have the occurrences of special tokens, too: compare "
            f"with special=True. {without}"
        )
    if not np.array_equal(np.sort(statistics.n), np.sort(statistics.null.n)):
        raise StatisticsError(
            "The null has other counts than the tokens: occurrences were left out by their "
            "norm, which is known only after the labels were permuted, or only some shards "
            f"were merged. {without}"
        )
    return statistics.null


def _given_null(statistics: TokenStatistics, null: TokenStatistics) -> TokenStatistics:
    """A null that the caller names, once it is seen to be one, measured as the tokens were.

    Raises:
        StatisticsError: if it is not.
    """
    if "permuted" not in null.info:
        raise StatisticsError(
            "null= takes a null, statistics whose labels were permuted: stats.null, or "
            "stats.null.without(tokens)."
        )
    parts = ("model", "convention", "corpora")
    alike = [null.info.get(part) == statistics.info.get(part) for part in parts]
    if not all(alike) or not np.array_equal(null.layers, statistics.layers):
        raise StatisticsError(
            "The null comes from another pass than the tokens: it differs in model, convention, "
            "text or layers. Take the null of the same statistics."
        )
    left_out = statistics.info.get("left_out", ())
    if forgotten := sorted(set(left_out) & set(null.tokens)):
        raise StatisticsError(
            f"The null has {number_of(len(forgotten), 'set')} by the names of tokens that were "
            f"left out of these statistics, such as {forgotten[0]!r}. Leave them out of it, too: "
            "null.without(tokens)."
        )
    return null
