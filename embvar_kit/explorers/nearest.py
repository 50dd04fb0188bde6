"""The tokens whose mean embeddings are nearest to that of one token."""

from __future__ import annotations

import numpy as np
import pandas as pd

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics.token_statistics import TokenStatistics

MEASURES = ("cosine", "distance")
"""What nearness is measured by."""

_CHUNK = 4096  # tokens whose means are in memory at once, in double precision


def nearest_means(
    stats: TokenStatistics,
    layer: int,
    token: str,
    rows: np.ndarray,
    *,
    by: str = "cosine",
    most: int = 10,
) -> pd.DataFrame:
    """The tokens whose means are nearest to a token's: ``token, n, cosine, distance``.

    ``cosine`` is that of the angle between the two means as seen from the origin, NaN where one is
    0; ``distance`` is Euclidean, in norms of the embedding, not in squared ones. In an anisotropic
    layer all means point the same way, and their cosines are near 1: distances then tell more.

    Args:
        stats: one model's statistics, with means.
        layer: one of its layers.
        token: one of its tokens.
        rows: ``(K,)`` indices of the tokens to choose from; the token itself is left out.
        by: one of :data:`MEASURES`.
        most: how many tokens to return at most.

    Raises:
        StatisticsError: if the means were left out of the statistics, or ``by`` is unknown.
    """
    if by not in MEASURES:
        raise StatisticsError(f"by={by!r} is unknown: choose one of {', '.join(MEASURES)}.")
    if stats.mean is None:
        raise StatisticsError(
            "Nearest means need the token means, which were left out of these statistics "
            "(compact ones have none): extract again, and do not compact."
        )
    at = int(np.flatnonzero(stats.layers == layer)[0])
    own = int(np.flatnonzero(stats.tokens.astype(str) == token)[0])
    rows = rows[rows != own]
    centre = stats.mean[at, own].astype(np.float64)
    cosine, distance = np.empty(len(rows)), np.empty(len(rows))
    for first in range(0, len(rows), _CHUNK):
        part = slice(first, first + _CHUNK)
        means = stats.mean[at][rows[part]].astype(np.float64)
        with np.errstate(invalid="ignore"):
            norms = np.linalg.norm(means, axis=1) * np.linalg.norm(centre)
            cosine[part] = means @ centre / norms
        distance[part] = np.linalg.norm(means - centre, axis=1)
    far = -cosine if by == "cosine" else distance
    order = np.argsort(far, kind="stable")[:most]  # NaN comes last
    columns = {"token": stats.tokens[rows], "n": stats.n[rows]}
    table = pd.DataFrame({**columns, "cosine": cosine, "distance": distance})
    return table.iloc[order].reset_index(drop=True)
