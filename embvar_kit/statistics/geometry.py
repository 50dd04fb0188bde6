"""How the embeddings of a layer lie: directions, dimensions, spectrum and information.

Here statistics give :mod:`embvar_kit.statistics.measures` the arrays that it computes with, or say
why they cannot. ``at`` is the index of a layer among those measured, and ``kept`` tells which
tokens are in a choice (:meth:`TokenStatistics.kept`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics import measures

if TYPE_CHECKING:
    from embvar_kit.statistics.token_statistics import TokenStatistics


def directions(statistics: TokenStatistics, tokens: pd.DataFrame) -> pd.DataFrame:
    """How far directions agree; see :meth:`TokenStatistics.directions`.

    Args:
        statistics: those of site ``unit``.
        tokens: their table of a layer, with the M and V to be used.
    """
    mean = statistics.mean
    width = statistics.info["model"]["width"] if mean is None else mean.shape[-1]
    M, V = tokens["M"].to_numpy(), tokens["V"].to_numpy()
    kappa = measures.concentration(M, width, V)
    with np.errstate(divide="ignore"):
        columns = {"norm": measures.mean_resultant_length(M), "kappa": kappa}
        return tokens[["token", "n"]].assign(**columns, diversity=1 / kappa)


def dimension_shares(statistics: TokenStatistics, at: int) -> pd.DataFrame:
    """What each dimension has of the mean cosine; see :meth:`TokenStatistics.dimension_shares`."""
    mean = overall_mean(statistics, at)
    table = pd.DataFrame({"dimension": np.arange(len(mean)), "mean": mean})
    table["share"] = measures.dimension_shares(mean)
    return table.sort_values("share", ascending=False, ignore_index=True)


def frequency_dimensions(statistics: TokenStatistics, at: int, kept: np.ndarray) -> pd.DataFrame:
    """Which dimensions go with frequency; see :meth:`TokenStatistics.frequency_dimensions`."""
    mean = overall_mean(statistics, at)
    r = measures.frequency_correlations(statistics.mean[at][kept], statistics.n[kept])
    table = pd.DataFrame({"dimension": np.arange(len(r)), "mean": mean, "correlation": r})
    return table.sort_values("correlation", key=abs, ascending=False, ignore_index=True)


def isotropy(statistics: TokenStatistics) -> pd.DataFrame:
    """How evenly the dimensions are used; see :meth:`TokenStatistics.isotropy`."""
    if statistics.isotropies is not None:
        return statistics.isotropies.copy()
    rows = []
    for layer, covariance in zip(statistics.layers, _covariance(statistics), strict=True):
        eigenvalues = measures.spectrum(covariance)
        rows.append(
            {
                "layer": int(layer),
                "V": float(eigenvalues.sum()),
                "largest": float(eigenvalues[0] / eigenvalues.sum()),
                "participation_ratio": measures.participation_ratio(eigenvalues),
                "effective_rank": measures.effective_rank(np.sqrt(eigenvalues)),
                "isoscore": measures.isoscore(eigenvalues),
            }
        )
    return pd.DataFrame(rows)


def information_gain(
    statistics: TokenStatistics, at: int, kept: np.ndarray, metric: np.ndarray | None
) -> pd.DataFrame:
    """What the tokens' means tell; see :meth:`TokenStatistics.information_gain`."""
    centre = overall_mean(statistics, at)
    if metric is None:
        metric = measures.precision(_covariance(statistics)[at])
    gain = measures.information_gain(statistics.mean[at][kept], centre, metric)
    return pd.DataFrame({"token": statistics.tokens[kept], "n": statistics.n[kept], "gain": gain})


def require_unit(statistics: TokenStatistics, why: str) -> None:
    """Refuse embeddings that are not of norm 1, for the reason that the message begins with.

    Raises:
        StatisticsError: if they are of another site than ``unit``.
    """
    site = statistics.info.get("convention", {}).get("site")
    if site != "unit":
        raise StatisticsError(
            f"{why}: it needs embeddings of norm 1, and these are of site {site!r}. Extract "
            "with site='unit'."
        )


def overall_mean(statistics: TokenStatistics, at: int) -> np.ndarray:
    """``(d,)`` float64 mean of all embeddings at a layer.

    Raises:
        StatisticsError: if the token means were left out.
    """
    if statistics.mean is None:
        raise StatisticsError(
            "The mean of all embeddings needs the token means, which were left out of these "
            "statistics."
        )
    weight = statistics.n / statistics.n.sum()
    return np.einsum("t,td->d", weight, statistics.mean[at], dtype=np.float64)


def _covariance(statistics: TokenStatistics) -> np.ndarray:
    """``(L, d, d)`` covariance of all embeddings at each layer."""
    if statistics.covariance is None:
        raise StatisticsError(
            "The covariance of the embeddings is unknown: extract with covariance=True. That "
            "of all embeddings says nothing of a part of them, so leaving tokens out drops it."
        )
    return statistics.covariance
