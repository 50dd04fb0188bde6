"""Squared norms of occurrences: what is typical, which are far from it, and where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

import numpy as np
import pandas as pd
import torch

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.forward import Batch, float64_device, forward, require_finite
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.options import check_no_names, chosen_layers
from embvar_kit.extraction.plan import Plan, plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments.device import send, squared_norms

PLACES = ("begin", "first", "elsewhere")
"""Where an occurrence stands: at the position of a begin token, of the first token behind it, or at
another one."""

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
        ExtractionError: if the corpus is a stream or many files, the pass does not take a hidden
            state at which the norm is to be compared, or the model gives NaN, infinity, or
            embeddings that are mostly zero.
    """
    if leave_out.norm is None:
        return leave_out
    check_no_names(model, corpus)
    if not isinstance(corpus, Corpus):
        raise ExtractionError(
            "A sample for typical norms cannot be drawn from a stream or from many files. Find the "
            "bounds on some of the text first: leave_out = find_bounds(model, part, leave_out)."
        )
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
    norms = norms_of(model, work, work.group >= 0)
    typical = np.median(norms, axis=1)
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


def position_profile(
    model: EmbeddingModel,
    corpus: Corpus,
    tokens: Sequence[str],
    layers: Iterable[int] | None = None,
    *,
    most: int = 200,
    seed: int = 0,
    by: str = "token",
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> pd.DataFrame:
    """Squared norms of a few tokens at the front of sequences and elsewhere.

    It says whether a token's norm is high (:meth:`TokenStatistics.high_norm`) because of where it
    stands: then it is high in front and usual elsewhere. Only sentences that hold one of the
    occurrences looked at are run.

    Args:
        model, corpus, layers, by, batch_tokens, long, parse_special: as in
            :func:`embvar_kit.extract`.
        tokens: the tokens (or words), named as in the statistics.
        most: look at so many occurrences of a token in each place, drawn from all of them.
        seed: seed of the draw.

    Returns:
        One row for each token, place and layer that has any: ``token, place, layer, n, looked_at,
        Q``. The places are ``begin``, the positions of the model's begin tokens; ``first``, that of
        the token behind them; and ``elsewhere``. ``n`` is the number of occurrences in the corpus,
        Q the mean squared norm of those looked at.

    Raises:
        ExtractionError: if a token does not occur, ``most`` is less than 1, or the model gives NaN
            or infinity.
    """
    if most < 1:
        raise ExtractionError(f"most={most}: look at one occurrence at least.")
    tokens = [tokens] if isinstance(tokens, str) else list(dict.fromkeys(tokens))
    how = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    work = plan(model, corpus, **how, parse_special=parse_special)
    place = np.select([work.position < work.n_begin, work.position == work.n_begin], [0, 1], 2)
    random = np.random.default_rng(seed)
    drawn: dict[tuple[str, str], tuple[int, np.ndarray]] = {}
    for token, group in zip(tokens, work.groups_of(tokens), strict=True):
        for at, name in enumerate(PLACES):
            own = np.flatnonzero((work.group == group) & (place == at))
            if len(own):
                looked_at = random.permutation(own)[:most]
                drawn[token, name] = len(own), looked_at
    chosen = np.zeros(len(work.group), dtype=bool)
    for _, looked_at in drawn.values():
        chosen[looked_at] = True
    norms, row = norms_of(model, work, chosen), np.cumsum(chosen) - 1
    rows = []
    for (token, name), (n, looked_at) in drawn.items():
        for layer, of_layer in zip(work.layers, norms, strict=True):
            Q = float(of_layer[row[looked_at]].mean())
            rows.append((token, name, layer, n, len(looked_at), Q))
    return pd.DataFrame(rows, columns=["token", "place", "layer", "n", "looked_at", "Q"])


def norms_of(model: EmbeddingModel, work: Plan, chosen: np.ndarray) -> np.ndarray:
    """Squared norms of some occurrences; only the sequences that hold one of them are run.

    Args:
        model: the model.
        work: the plan.
        chosen: ``(K,)`` whether an occurrence is one of them; at least one is.

    Returns:
        ``(L, R)`` squared norms of the hidden states, float64, in the order of the occurrences.

    Raises:
        ExtractionError: if the model gives NaN or infinity.
    """
    device = float64_device(model)
    norms, occurrences = [], []
    with closing(forward(model, work, batches=work.batches_with(chosen))) as batches:
        for batch in batches:
            batch.keep(chosen[batch.occurrences])
            rows = send(batch.rows, device)
            norms.append(torch.stack([_norms(batch, at, device)[rows] for at in work.layers]))
            occurrences.append(batch.occurrences)
            del batch  # frees its states before the next ones are made
    together = torch.cat(norms, dim=1)
    require_finite(model, together)
    return together.cpu().numpy()[:, np.argsort(np.concatenate(occurrences))]


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
