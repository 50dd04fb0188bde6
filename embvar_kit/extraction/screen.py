"""Occurrences of high norm: the bound at each layer, and a pass without those above it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing

import numpy as np
import torch

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.forward import Batch, float64_device, forward, require_finite
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.plan import Plan, chosen_layers, plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments.device import send, squared_norms

_DIGITS = 3
"""Significant digits of a bound that is found: another number of threads, which rounds the model's
states differently, then finds the same one."""


def find_bounds(
    model: EmbeddingModel,
    corpus: Corpus,
    leave_out: LeaveOut,
    *,
    by: str = "token",
    layers: Iterable[int] | None = None,
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> LeaveOut:
    """Find the bounds on the squared norm that a factor stands for, on a sample of a corpus.

    At each hidden state the bound is ``leave_out.norm`` times the median of ``‖x‖²`` over the
    occurrences in ``leave_out.sample`` sentences, drawn with ``leave_out.seed``, and rounded to
    three digits. :func:`embvar_kit.extract` does this by itself. Statistics that are to be merged
    need the same bounds: find them once, and pass the result to each pass.

    Args:
        model, corpus: the model and the corpus.
        leave_out: what to leave out, with a factor ``norm``; with bounds it is returned as it is.
        by, layers, batch_tokens, long, parse_special: as in :func:`embvar_kit.extract`.

    Returns:
        The same with ``bounds``, in squared norm of the embedding, in place of ``norm``.

    Raises:
        ExtractionError: if the pass does not take a hidden state at which the norm is to be
            compared, or the model gives NaN, infinity, or embeddings that are mostly zero.
    """
    if leave_out.norm is None:
        return leave_out
    taken = chosen_layers(model, layers)
    compared = taken if leave_out.layers is None else chosen_layers(model, leave_out.layers)
    if beyond := sorted(set(compared) - set(taken)):
        raise ExtractionError(
            f"The norm cannot be compared at hidden states that the pass does not take: "
            f"{', '.join(map(str, beyond))}. Name others in LeaveOut(layers=...), or take them."
        )
    drawn = corpus
    if len(corpus) > leave_out.sample:
        drawn = corpus.select(sample=leave_out.sample, seed=leave_out.seed)
    how = {"by": by, "layers": compared, "batch_tokens": batch_tokens, "long": long}
    first = LeaveOut(first=leave_out.first) if leave_out.first else None
    work = plan(model, drawn, **how, parse_special=parse_special, leave_out=first)
    place = float64_device(model)
    norms: list[torch.Tensor] = []
    with closing(forward(model, work)) as batches:
        for batch in batches:
            batch.keep(work.group[batch.occurrences] >= 0)
            rows = send(batch.rows, place)
            norms.append(torch.stack([_norms(batch, at, place)[rows] for at in work.layers]))
            del batch  # frees its states before the next ones are made
    together = torch.cat(norms, dim=1)
    require_finite(model, together)
    typical = np.median(together.cpu().numpy(), axis=1)
    if not (typical > 0).all():
        zero = ", ".join(str(at) for at, x in zip(work.layers, typical, strict=True) if not x > 0)
        raise ExtractionError(
            f"Half of the embeddings are zero at hidden state {zero}, so that no norm is typical: "
            "compare norms elsewhere, LeaveOut(norm=..., layers=...)."
        )
    bounds = {
        at: float(f"{leave_out.norm * x:.{_DIGITS}g}")
        for at, x in zip(work.layers, typical.tolist(), strict=True)
    }
    found = {name: getattr(leave_out, name) for name in ("norm", "sample", "seed")}
    return LeaveOut(first=leave_out.first, bounds=bounds, found={**found, "in": corpus.name})


class Screen:
    """Takes occurrences of high norm out of the batches of a pass, and remembers them.

    Args:
        model: the model that is run.
        work: a plan whose ``leave_out`` has bounds.

    Attributes:
        left_out: ``(K,)`` uint8, 1 for each occurrence of the plan that was left out so far.
    """

    def __init__(self, model: EmbeddingModel, work: Plan) -> None:
        bounds, self._place = work.leave_out.bounds, float64_device(model)
        self._layers = list(bounds)
        self._bounds = send(np.array(list(bounds.values())), self._place)
        self.left_out = np.zeros(len(work.group), dtype=np.uint8)

    def take_out(self, batch: Batch) -> None:
        """Leave out the occurrences whose squared norm reaches the bound of some layer.

        One of them with NaN or infinity stays, so that the pass refuses it. On an accelerator the
        host waits here for the batch, since it sorts the occurrences that stay.
        """
        norms = torch.stack([_norms(batch, layer, self._place) for layer in self._layers])
        high = (norms >= self._bounds[:, None]).any(0) & torch.isfinite(norms).all(0)
        out = high.cpu().numpy()[batch.rows]
        self.left_out[batch.occurrences[out]] = 1
        batch.keep(~out)

    def state(self) -> dict[str, np.ndarray]:
        """What a resumed pass needs to know."""
        return {"left_out": self.left_out}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state` gave."""
        self.left_out[:] = state["left_out"]


def _norms(batch: Batch, layer: int, place: torch.device) -> torch.Tensor:
    """``(rows,)`` float64 squared norms of the hidden states of a batch, padding included."""
    return squared_norms(batch.embeddings("hidden", layer).to(place))
