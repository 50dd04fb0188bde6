"""What γ and β do to the trade-off: exact, for any mixture, from moments of every dimension.

Before γ and β, ``‖z‖² = d`` and V on M is a line of slope -1. After them a token's moments are
``M = Σ_j (γ_j μ_j + β_j)²`` and ``V = Σ_j γ_j² v_j``, where ``μ_j`` and ``v_j`` are mean and
variance of dimension j of its ``z``. So ``μ`` and ``v``, taken in one pass, tell what any other γ
and β would have given: none, half, or all but one dimension's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.forward import (
    float64_device,
    in_float64,
    norms_for,
    require_finite,
)
from embvar_kit.extraction.plan import plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.normalization import Norm
from embvar_kit.statistics import analysis


@dataclass(frozen=True, eq=False)
class AffineMoments:
    """Mean and variance of every dimension of a token's standardized embeddings, at one layer.

    Attributes:
        tokens: ``(T,)`` token strings, the most frequent first.
        n: ``(T,)`` number of occurrences of each token.
        mean: ``(T, d)`` mean of each dimension of ``z``, float64.
        variance: ``(T, d)`` variance of each dimension (population form), float64.
        layer: the hidden state.
        norm: the normalization at that hidden state, with the trained γ and β.
    """

    tokens: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    layer: int
    norm: Norm

    def moments(self, gamma: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(T,)`` M and ``(T,)`` V of the tokens' ``γ ⊙ z + β``, in squared norm.

        Args:
            gamma, beta: ``(d,)`` any values.
        """
        # Expanded, so that moving a slider costs three matrix-vector products and no large array.
        M = self._squared_mean @ gamma**2 + self.mean @ (2 * gamma * beta) + beta @ beta
        return M, self.variance @ gamma**2

    @cached_property
    def _squared_mean(self) -> np.ndarray:
        return self.mean**2

    def leave_out(self, tokens: Iterable[str]) -> AffineMoments:
        """The same moments without these tokens; tokens that are not here are ignored."""
        keep = ~np.isin(self.tokens.astype(str), [str(token) for token in tokens])
        arrays = {name: getattr(self, name)[keep] for name in ("tokens", "n", "mean", "variance")}
        return replace(self, **arrays)

    def mixed(self, gamma: float = 1.0, beta: float = 1.0) -> pd.DataFrame:
        """One row a token, ``token, n, Q, M, V``, with shares of γ and β mixed in.

        Args:
            gamma: with 0 every γ is 1, with 1 it is the trained one; a share a gives
                ``1 + a (γ - 1)``.
            beta: with 0 every β is 0, with 1 it is the trained one.
        """
        M, V = self.moments(*self._mix(gamma, beta))
        columns = {"token": self.tokens, "n": self.n, "Q": M + V, "M": M, "V": V}
        return pd.DataFrame(columns)

    def tradeoff(self, gamma: float = 1.0, beta: float = 1.0) -> analysis.Tradeoff:
        """The regression of V on M over the tokens, for a mixture as in :meth:`mixed`."""
        return self._line(*self._mix(gamma, beta))

    @property
    def common(self) -> float:
        """The median of ``|γ|``; if every γ had one value and β were 0, the slope would be -1."""
        return float(np.median(np.abs(self.norm.gamma)))

    def without(self, dimensions: Iterable[int]) -> analysis.Tradeoff:
        """The regression with γ = :attr:`common`, β = 0 in some dimensions, as trained elsewhere.

        Raises:
            ExtractionError: if a dimension is not one of the ``d``.
        """
        gamma, beta = self._mix(1, 1)
        at = np.array(list(dimensions), dtype=int)
        if len(at) and not (0 <= at.min() and at.max() < len(gamma)):
            raise ExtractionError(f"Dimensions are 0 to {len(gamma) - 1}, not {at.tolist()}.")
        gamma[at], beta[at] = self.common, 0
        return self._line(gamma, beta)

    def by_dimension(self) -> pd.DataFrame:
        """One row a dimension: its contribution to the line's departure from slope -1.

        As ``V = Q - M``, the slope is ``cov(M, V) / var(M) = -1 + cov(M, Q) / var(M)`` over
        tokens. Q is a sum over dimensions, and so is its covariance with M. A factor common to all
        γ adds nothing, since ``Σ_j E z_j² = d`` for every token, so the contribution of a
        dimension is counted from ``γ = common``, ``β = 0``.

        Returns:
            ``dimension, gamma, beta, bend``, the largest ``|bend|`` first. The bends add up to
            ``slope + 1``, as exactly as ``‖z‖² = d`` holds.
        """
        gamma, beta = self._mix(1, 1)
        M, _ = self.moments(gamma, beta)
        squares = self._squared_mean + self.variance
        Q = (gamma**2 - self.common**2) * squares + 2 * gamma * beta * self.mean
        centred = M - M.mean()
        bend = centred @ Q / (centred @ centred)
        columns = {"dimension": np.arange(len(bend)), "gamma": gamma, "beta": beta, "bend": bend}
        order = np.argsort(-np.abs(bend), kind="stable")
        return pd.DataFrame(columns).iloc[order].reset_index(drop=True)

    def _mix(self, gamma: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
        trained = self.norm.gamma.astype(np.float64)
        return 1 + gamma * (trained - 1), beta * self.norm.beta.astype(np.float64)

    def _line(self, gamma: np.ndarray, beta: np.ndarray) -> analysis.Tradeoff:
        M, V = self.moments(gamma, beta)
        return analysis.tradeoff(M + V, M, V)


def affine_moments(
    model: EmbeddingModel,
    corpus: Corpus,
    layers: Iterable[int],
    *,
    by: str = "token",
    min_count: int = 10,
    max_count: int | None = 100_000,
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> dict[int, AffineMoments]:
    """Run a corpus through a model once and return the moments of every dimension, token by token.

    The moments take 16 bytes per token, layer and dimension: 38 MB a layer for 6,255 tokens of
    width 384.

    Args:
        model, corpus, batch_tokens, long, parse_special: as in :func:`embvar_kit.extract`.
        layers: hidden states, each with a normalization.
        by: ``"token"`` or ``"id"``.
        min_count, max_count: keep the tokens with ``min_count <= n_t <= max_count``.

    Returns:
        The moments by layer.

    Raises:
        ExtractionError: if a layer has no normalization, no token is in the range, ``by`` is
            ``"word"``, or the model gives NaN or infinity.
    """
    if by not in ("token", "id"):
        raise ExtractionError(f"by={by!r} is not possible here: choose 'token' or 'id'.")
    how = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    work = plan(model, corpus, **how, parse_special=parse_special)
    norms = norms_for(model, ["standardized"], work.layers)
    kept = work.n >= max(1, min_count)
    if max_count is not None:
        kept &= work.n <= max_count
    if not kept.any():
        raise ExtractionError("No token occurs so often: lower min_count, or raise max_count.")
    row_of = np.where(kept, np.cumsum(kept) - 1, -1)
    n = work.n[kept]
    shape, place = (len(work.layers), len(n), model.width), float64_device(model)
    total, squares = (torch.zeros(shape, dtype=torch.float64, device=place) for _ in range(2))
    for groups, embeddings in in_float64(model, work, "standardized", row_of[work.group]):
        for at, z in enumerate(embeddings):
            total[at].index_add_(0, groups, z)
            squares[at].index_add_(0, groups, z * z)
    require_finite(model, squares)
    found = {}
    for at, layer in enumerate(work.layers):
        # z is of order 1, so that this difference loses little in float64.
        mean = total[at].cpu().numpy() / n[:, None]
        variance = np.maximum(squares[at].cpu().numpy() / n[:, None] - mean**2, 0)
        labels = work.labels[kept]
        found[layer] = AffineMoments(labels, n, mean, variance, layer, norms[layer])
    return found
