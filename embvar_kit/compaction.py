"""Decompositions kept in place of the token means that they need, for statistics made small.

The statistics are :class:`embvar_kit.statistics.TokenStatistics`, which this module serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pandas as pd

from embvar_kit import analysis
from embvar_kit.errors import StatisticsError

CHOICES = tuple(
    {"min_count": least, "max_count": most, "special": special, "unbiased": unbiased}
    for least, most in ((1, None), (2, None), (10, 100_000))
    for special in (True, False)
    for unbiased in ((False, True) if least > 1 else (False,))
)
"""The choices that are kept: all tokens, those with two occurrences, the paper's range."""

_ALL = -1  # max_count=None, in a column of whole numbers


def decompositions(statistics: Any, left_out: Iterable[Iterable[str]] = ((),)) -> pd.DataFrame:
    """The decomposition at each layer for each of :data:`CHOICES`, and each set of tokens left out.

    A choice that leaves no token is passed over. Columns: ``layer, Q, M, V, V_W, V_B``, then ``n``,
    the number of embeddings, then ``min_count, max_count, special, unbiased, left_out``.
    """
    rows = []
    for tokens in left_out:
        part = statistics.without(tokens)
        for choice in CHOICES:
            tokens_of = {name: value for name, value in choice.items() if name != "unbiased"}
            n = int(part.table(int(part.layers[0]), **tokens_of)["n"].sum())
            if not n:
                continue
            kept = {**choice, "max_count": _ALL if choice["max_count"] is None else 100_000}
            rows.append(part.decomposition(**choice).assign(n=n, **kept, left_out=_named(part)))
    return pd.concat(rows, ignore_index=True)


def look_up(statistics: Any, **choice: int | bool | None) -> pd.DataFrame:
    """One of the stored decompositions: ``layer, Q, M, V, V_W, V_B, n``.

    Raises:
        StatisticsError: if this choice was not stored; the message names those that were.
    """
    stored = statistics.decompositions
    wanted = {**choice, "left_out": _named(statistics)}
    wanted["max_count"] = _ALL if choice["max_count"] is None else choice["max_count"]
    matching = pd.Series(True, index=stored.index)
    for name, value in wanted.items():
        matching &= stored[name] == value
    if not matching.any():
        choices = {(row.min_count, row.max_count) for row in stored.itertuples()}
        counts = ", ".join(
            f"{least} to {'all' if most == _ALL else most}" for least, most in sorted(choices)
        )
        raise StatisticsError(
            "These statistics are compact: a decomposition needs the token means, which were left "
            f"out, and this choice is not among the choices stored for it: min_count and max_count "
            f"{counts} (unbiased from 2 on), with {stored['left_out'].nunique()} sets of tokens "
            "left out. Extract again for others."
        )
    columns = ["layer", *analysis.Decomposition._fields, "n"]
    return stored.loc[matching, columns].reset_index(drop=True)


def _named(statistics: Any) -> str:
    return json.dumps(list(statistics.info.get("left_out", ())), ensure_ascii=False)
