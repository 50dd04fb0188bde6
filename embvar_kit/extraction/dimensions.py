"""Moments of every dimension over all embeddings: which of them carry M(X) and V(X).

A few dimensions of today's Transformers are out of all proportion (Kovaleva et al. 2021;
Timkey and van Schijndel 2021), and cosine similarities then say more about them than about the
rest. ``M(X)`` and ``V(X)`` are sums over dimensions, so each one's share can be read off.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.forward import forward
from embvar_kit.extraction.plan import plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments.device import send


@dataclass(frozen=True, eq=False)
class DimensionMoments:
    """Mean and variance of each dimension over all embeddings.

    Attributes:
        layers: ``(L,)`` indices of the hidden states.
        n: embeddings seen.
        mean: ``(L, d)`` float64 means; their squares sum to M(X).
        variance: ``(L, d)`` float64 variances (population form); they sum to V(X).
    """

    layers: np.ndarray
    n: int
    mean: np.ndarray
    variance: np.ndarray

    def shares(self, layer: int) -> pd.DataFrame:
        """One row a dimension: ``dimension, M, V, Q``, its shares of M(X), V(X) and Q(X).

        The largest share of Q first.

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
) -> DimensionMoments:
    """Run a corpus through a model and return the moments of every dimension, at each layer.

    Args:
        model, corpus, layers, batch_tokens, long: as in :func:`embvar_kit.extract`.
        left_out: tokens, named as in the statistics, whose embeddings are not counted: sinks.

    Raises:
        ExtractionError: if nothing is left to count, or the model gives NaN or infinity.
    """
    work = plan(model, corpus, layers=layers, batch_tokens=batch_tokens, long=long)
    leave = pd.Index(work.labels).isin([str(token) for token in left_out])
    counted = ~leave[work.group]
    if not counted.any():
        raise ExtractionError("All tokens of the corpus are left out: leave fewer of them out.")
    place = torch.device("cpu") if model.device.type == "mps" else model.device  # has no float64
    shape = (len(work.layers), model.width)
    mean, squares = (torch.zeros(shape, dtype=torch.float64, device=place) for _ in range(2))
    n = 0
    with closing(forward(model, work.text, work.batches, layers=work.layers)) as batches:
        for batch in batches:
            here = counted[batch.tokens]
            rows = send(batch.rows[here], place)
            if not len(rows):
                continue
            before, n = n, n + len(rows)
            for at, layer in enumerate(work.layers):
                # Deviations from the batch's own mean, merged as Chan, Golub and LeVeque do.
                x = batch.states[layer].reshape(-1, work.width).to(place)[rows].double()
                centre = x.mean(dim=0)
                shift = centre - mean[at]
                squares[at] += ((x - centre) ** 2).sum(dim=0) + shift**2 * (before * len(rows) / n)
                mean[at] += shift * (len(rows) / n)
    if not bool(torch.isfinite(squares).all()):
        raise ExtractionError(
            f"The model gave NaN or infinity: a number was too large for {model.dtype}, or the "
            "weights are damaged. Load the model with dtype='float32'."
        )
    return DimensionMoments(
        np.array(work.layers), n, mean.cpu().numpy(), (squares / n).cpu().numpy()
    )
