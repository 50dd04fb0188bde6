"""Moments of every dimension over all embeddings: which dimensions carry M(X) and V(X).

A few dimensions of today's Transformers are far larger than all others (Kovaleva et al. 2021;
Timkey and van Schijndel 2021), so that cosine similarities say more about them than about the
rest. ``M(X)`` and ``V(X)`` are sums over dimensions, so the share of each can be read off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.forward import float64_device, in_float64, require_finite
from embvar_kit.extraction.plan import plan
from embvar_kit.models.loading import EmbeddingModel


@dataclass(frozen=True, eq=False)
class DimensionMoments:
    """Mean and variance of each dimension over all embeddings.

    Attributes:
        layers: ``(L,)`` indices of the hidden states.
        n: number of embeddings.
        mean: ``(L, d)`` Means, float64; their squares sum to M(X).
        variance: ``(L, d)`` variances (population form), float64; they sum to V(X).
    """

    layers: np.ndarray
    n: int
    mean: np.ndarray
    variance: np.ndarray

    def shares(self, layer: int) -> pd.DataFrame:
        """One row a dimension, ``dimension, M, V, Q``: its shares of M(X), V(X) and Q(X).

        The row with the largest share of Q comes first.

        Raises:
            ExtractionError: if the layer is not among :attr:`layers`.
        """
        found = np.flatnonzero(self.layers == layer)
        if not len(found):
            raise ExtractionError(
                f"Layer {layer} was not taken; there are {', '.join(map(str, self.layers))}."
            )
        M, V = self.mean[found[0]] ** 2, self.variance[found[0]]
        parts = {"M": M / M.sum(), "V": V / V.sum(), "Q": (M + V) / (M.sum() + V.sum())}
        table = pd.DataFrame({"dimension": np.arange(len(M)), **parts})
        return table.sort_values("Q", ascending=False, ignore_index=True)


def dimension_moments(
    model: EmbeddingModel,
    corpus: Corpus,
    layers: Iterable[int] | None = None,
    *,
    left_out: Iterable[str] = (),
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> DimensionMoments:
    """Run a corpus through a model once and return the moments of every dimension at each layer.

    Args:
        model, corpus, layers, batch_tokens, long, parse_special: as in
            :func:`embvar_kit.extract`.
        left_out: Tokens, named as in the statistics, whose embeddings are not counted, for example
            those of high norm.

    Raises:
        ExtractionError: if nothing is left to count, or the model gives NaN or infinity.
    """
    how = {"layers": layers, "batch_tokens": batch_tokens, "long": long}
    work = plan(model, corpus, **how, parse_special=parse_special)
    leave = pd.Index(work.labels).isin([str(token) for token in left_out])
    group = np.where(leave[work.group], -1, 0)  # all that is counted forms one group
    if not (group == 0).any():
        raise ExtractionError("All tokens of the corpus are left out: leave fewer of them out.")
    shape, place = (len(work.layers), model.width), float64_device(model)
    mean, squares = (torch.zeros(shape, dtype=torch.float64, device=place) for _ in range(2))
    n = 0
    for groups, embeddings in in_float64(model, work, "hidden", group):
        before, n = n, n + len(groups)
        for at, x in enumerate(embeddings):
            # Deviations from the batch's own mean, merged as Chan, Golub and LeVeque do.
            centre = x.mean(dim=0)
            shift = centre - mean[at]
            squares[at] += ((x - centre) ** 2).sum(dim=0) + shift**2 * (before * len(x) / n)
            mean[at] += shift * (len(x) / n)
    require_finite(model, squares)
    return DimensionMoments(
        np.array(work.layers), n, mean.cpu().numpy(), (squares / n).cpu().numpy()
    )
