"""How alike directions are: mean cosine similarities over all pairs, without forming a pair.

The mean dot product over the pairs of distinct embeddings of a set is ``M - V / (n - 1)``, its
unbiased M. On embeddings of norm 1 that is the mean cosine similarity, so the measures of
Ethayarajh (2019) come out of one pass, exactly, where he draws pairs.

The statistics are :class:`embvar_kit.statistics.TokenStatistics`, which this module serves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from embvar_kit import analysis
from embvar_kit.errors import StatisticsError


def by_layer(statistics: Any, *, min_count: int, special: bool) -> pd.DataFrame:
    """What :meth:`embvar_kit.statistics.TokenStatistics.anisotropy` gives."""
    site = statistics.info.get("convention", {}).get("site")
    if site != "unit":
        raise StatisticsError(
            f"Anisotropy is a mean cosine similarity: it needs embeddings of norm 1, and these are "
            f"of site {site!r}. Extract with site='unit'."
        )
    whole = statistics.decomposition(min_count=1, max_count=None, special=special)
    number = np.array([_occurrences(statistics, special)])
    rows = []
    for row in whole.itertuples():
        baseline = float(analysis.unbiased(number, np.array([row.M]), np.array([row.V]))[0][0])
        tokens = statistics.table(row.layer, min_count=min_count, special=special, unbiased=True)
        if tokens.empty or min_count < 2:
            raise StatisticsError(
                f"Self-similarity needs tokens that occur twice or more; min_count={min_count} "
                f"leaves {len(tokens)}. Take min_count of at least 2, and as low as leaves some."
            )
        alike = float(tokens["M"].mean())
        rows.append((row.layer, baseline, alike, alike - baseline))
    return pd.DataFrame(rows, columns=["layer", "anisotropy", "self_similarity", "adjusted"])


def _occurrences(statistics: Any, special: bool) -> int:
    """Occurrences of all tokens, those that compact statistics no longer list included."""
    if "compact" not in statistics.info:
        return int(statistics.n[special | ~statistics.special].sum())
    if not special or statistics.info.get("left_out"):
        raise StatisticsError(
            "These statistics are compact and no longer know how many occurrences are left "
            "without some tokens: ask for all tokens, or extract again and keep the means."
        )
    return int(statistics.info["counts"]["occurrences"])
