"""The forward passes of a plan: batches run through a model, their pooled embeddings given out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.batching import (
    Sharing,
    apart_as_needed,
    failed,
    padded,
    sharing,
    tokens_of,
)
from embvar_kit.extraction.onednn import BatchLimit, free_memory, out_of_memory, packed
from embvar_kit.extraction.plan import Plan
from embvar_kit.models.loading import EmbeddingModel, Keep
from embvar_kit.models.normalization import Norm, NormCall, record_norms
from embvar_kit.models.running import use_of
from embvar_kit.moments import memory
from embvar_kit.moments.device import send

SITES = {
    "hidden": "the hidden states, as transformers returns them",
    "norm_input": "what the normalization at the hidden state takes in",
    "standardized": "that, centred and scaled by the normalization, before gamma and beta",
    "norm_output": "what the normalization gives out",
    "unit": "the hidden states scaled to norm 1: their directions, for cosine similarities",
}
"""Where in the model embeddings can be taken, with a line on each. The normalization at a hidden
state is the one that produced it or, failing that, the first one that takes it in (see
:mod:`embvar_kit.models.normalization`)."""

AT_NORMS = ("norm_input", "standardized", "norm_output")
"""Sites that only a hidden state with a normalization has."""

_SAMPLE = 64  # most tokens of the sequence that a model is tried on before a pass

_TRIM_EVERY = 32  # batches between two calls that hand free memory back: each takes milliseconds


def norms_for(
    model: EmbeddingModel, sites: Iterable[str], layers: Iterable[int]
) -> dict[int, Norm]:
    """The normalizations that the sites need at the layers, by layer; empty if they need none.

    Raises:
        ExtractionError: if a layer has no normalization; the message names the layers that do.
    """
    needing = [site for site in sites if site in AT_NORMS]
    if not needing:
        return {}
    having = {state.layer: state.norm for state in model.norms if state.norm}
    if lacking := [layer for layer in layers if layer not in having]:
        remedy = (
            f"take layers={list(having)}" if having else "no hidden state has one: take 'hidden'"
        )
        raise ExtractionError(
            f"{model.name!r} has no normalization at hidden state "
            f"{', '.join(map(str, lacking))}, which site {needing[0]!r} needs; {remedy}."
        )
    return {layer: having[layer] for layer in layers}


class Batch:
    """One forward pass: which occurrences it holds, and their embeddings by site and layer.

    Attributes:
        occurrences: ``(R,)`` its occurrences, tokens or words, as indices in ``Plan.group``.
        rows: ``(R,)`` the row of each occurrence in what :meth:`embeddings` returns.
        n_tokens: number of tokens that were run, without padding.
        planned: index of the planned batch that this one is, or is a part of.
        last: whether it is the last part of that planned batch.
    """

    def __init__(
        self,
        outcome: _Outcome,
        taps: Mapping[int, NormCall],
        work: Plan,
        *,
        planned: int,
        last: bool,
    ) -> None:
        self._states, self._taps = outcome.states, taps
        self.planned, self.last = planned, last
        self.n_tokens = len(outcome.tokens)
        self._pool: _WordMean | None = None
        if work.word is None:
            self.occurrences, self.rows = outcome.tokens, outcome.rows
        else:
            self.occurrences, self._pool = _WordMean.of(work.word, outcome)
            self.rows = np.arange(len(self.occurrences))

    def keep(self, chosen: np.ndarray) -> None:
        """Leave out all occurrences but some; the rows of :meth:`embeddings` stay as they are.

        Args:
            chosen: ``(R,)`` whether an occurrence is kept.
        """
        self.occurrences, self.rows = self.occurrences[chosen], self.rows[chosen]

    def embeddings(self, site: str, layer: int) -> torch.Tensor:
        """``(rows, d)`` embeddings, computed when asked for: only one layer's need be held.

        Where each token is an occurrence, there are rows of padding among them, which
        :attr:`rows` leaves out.
        """
        state = self._states[layer]
        if site in AT_NORMS:
            norm, taken, given = self._taps[layer]
            x = given if site == "norm_output" else taken
            x = norm.standardize(x) if site == "standardized" else x
            # Of a model that pads inside, the norm saw more positions than there are tokens.
            x = x.reshape(state.shape[0], -1, state.shape[2])
            state = x[:, : state.shape[1]]
        x = state.reshape(-1, state.shape[-1])
        if self._pool is not None:
            x = self._pool.mean(x)
        # A word's direction is that of its mean over tokens, so the scaling comes last.
        return nn.functional.normalize(x.float(), dim=1) if site == "unit" else x


def forward(
    model: EmbeddingModel,
    work: Plan,
    sites: Sequence[str] = ("hidden",),
    batches: Iterable[np.ndarray] | None = None,
    *,
    shared: Sharing | None = None,
) -> Iterator[Batch]:
    """Run the batches of a plan through the model, one after another.

    A batch that the memory is too small for is run in halves, and a warning says so once. Blocks
    that no layer of the plan needs are not run, and states of other layers are not kept. Where
    padding would change what the model gives, only sequences of equal length are run together.

    Args:
        model: the model.
        work: the plan.
        sites: where embeddings are going to be taken, keys of :data:`SITES`.
        batches: the sequences of each batch, if not those of the plan.
        shared: which sequences may be run together; by default :func:`sharing` tries it.

    Raises:
        ExtractionError: if a layer lacks the normalization that a site needs, the memory is too
            small for one sequence alone, or the model fails on a sequence.
    """
    text = work.text
    norms = norms_for(model, sites, work.layers)
    limit = BatchLimit()
    shared = shared or sharing(model, work)
    sample = _sample(work).to(model.device)
    with (
        use_of(model.module),
        shortened(model, work.layers, norms, sample),
        packed(model.module),
        model.keeping(work.layers, sample) as run,
        record_norms(model.module, norms) as taps,
    ):
        for planned, whole in enumerate(work.batches if batches is None else batches):
            waiting = [whole]
            while waiting:
                sequences = waiting.pop(0)
                if len(parts := apart_as_needed(work, sequences, shared)) > 1:
                    waiting[:0] = parts
                    continue
                slots = len(sequences) * int(text.lengths[sequences].max())
                if slots > limit.slots and len(sequences) > 1:
                    waiting[:0] = np.array_split(sequences, 2)
                    continue
                outcome, seen = None, {}
                try:
                    with limit.attempt():
                        outcome = _run(run, model, work, sequences)
                        seen = dict(taps)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise failed(model, int(text.lengths[sequences].max()), error) from error
                    limit.learn(error, slots, alone=len(sequences) == 1)
                except (IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
                    raise failed(model, int(text.lengths[sequences].max()), error) from error
                taps.clear()
                if outcome is None:
                    del seen
                    free_memory()
                    waiting.insert(0, sequences)
                    continue
                last = not waiting
                yield Batch(outcome, seen, work, planned=planned, last=last)
                del outcome, seen  # frees this batch's states before the next ones are made
            if planned % _TRIM_EVERY == _TRIM_EVERY - 1:
                memory.give_back()


@dataclass(frozen=True)
class _Outcome:
    """What the model gave for a batch.

    Attributes:
        states: hidden states ``(B, longest, d)``, of the layers of the plan at least.
        rows: ``(N,)`` rows of the tokens when ``(B, longest)`` is laid out flat; no padding.
        tokens: ``(N,)`` which tokens of the corpus they are, in that order.
    """

    states: Mapping[int, torch.Tensor]
    rows: np.ndarray
    tokens: np.ndarray


def _sample(work: Plan) -> torch.Tensor:
    """``(1, length)`` a sequence to try the model on: long enough to tell a state from a vector."""
    lengths = work.text.lengths
    short = lengths <= _SAMPLE
    chosen = int(np.argmax(np.where(short, lengths, 0)) if short.any() else np.argmin(lengths))
    ids = work.text.ids[slice(*work.text.starts[[chosen, chosen + 1]])]
    return torch.from_numpy(ids.astype(np.int64))[None]


def _run(run: Keep, model: EmbeddingModel, work: Plan, sequences: np.ndarray) -> _Outcome:
    ids, inside = padded(model, work, sequences)
    # Attention is faster without a mask, and most small batches have no padding to mask.
    mask = None if inside.all() else send(inside.astype(np.int64), model.device)
    states = run(send(ids, model.device), mask)
    return _Outcome(states, np.flatnonzero(inside), tokens_of(work, sequences))


@dataclass(frozen=True)
class _WordMean:
    """The mean over each word's tokens.

    Attributes:
        rows: rows of every word's tokens, one word after another.
        lengths: ``(R,)`` number of tokens of each word.
        sent: both by device, sent there when first needed.
    """

    rows: np.ndarray
    lengths: np.ndarray
    sent: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, word: np.ndarray, outcome: _Outcome) -> tuple[np.ndarray, _WordMean]:
        """The words of a batch, and what takes their means."""
        own = word[outcome.tokens]
        inside = np.flatnonzero(own >= 0)
        by_word = inside[np.argsort(own[inside], kind="stable")]
        words, lengths = np.unique(own[by_word], return_counts=True)
        return words, cls(outcome.rows[by_word], lengths)

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """``(R, d)`` float32 means of rows of ``(rows, d)``."""
        # MPS has no segmented sum: there, words are pooled where their moments are kept.
        x = x.cpu() if x.device.type in memory.HOST_MOMENTS else x
        if x.device not in self.sent:
            self.sent[x.device] = send(self.rows, x.device), send(self.lengths, x.device)
        rows, lengths = self.sent[x.device]
        return torch.segment_reduce(x[rows].float(), "mean", lengths=lengths, axis=0, unsafe=True)


# Passes that keep moments of every dimension


def in_float64(
    model: EmbeddingModel, work: Plan, site: str, group: np.ndarray
) -> Iterator[tuple[torch.Tensor, Iterator[torch.Tensor]]]:
    """Run a plan and give the chosen occurrences' embeddings, batch by batch, in float64.

    Args:
        model: the model.
        work: the plan.
        site: where embeddings are taken.
        group: ``(K,)`` the group of each occurrence of the plan, -1 for those to be left out.

    Yields:
        ``(R,)`` groups of the chosen occurrences of a batch, and an iterator over the layers of
        the plan that gives their ``(R, d)`` embeddings. Batches without one are passed over.
    """
    place = float64_device(model)
    with closing(forward(model, work, [site])) as batches:
        for batch in batches:
            own = group[batch.occurrences]
            kept = own >= 0
            if kept.any():
                rows = send(batch.rows[kept], place)
                yield (
                    send(own[kept], place),
                    (batch.embeddings(site, at).to(place)[rows].double() for at in work.layers),
                )
            del batch  # frees its states before the next ones are made


def float64_device(model: EmbeddingModel) -> torch.device:
    """Where float64 sums of the model's embeddings are kept: MPS has no float64."""
    return torch.device("cpu") if model.device.type == "mps" else model.device


def require_finite(model: EmbeddingModel, values: torch.Tensor) -> None:
    """Refuse sums over embeddings that are NaN or infinite.

    Raises:
        ExtractionError: with the remedy.
    """
    if not bool(torch.isfinite(values).all()):
        raise ExtractionError(
            f"The model gave NaN or infinity: a number was too large for {model.dtype}, or the "
            "weights are damaged. Load the model with dtype='float32'."
        )


# Blocks that no layer of the plan needs


@contextmanager
def shortened(
    model: EmbeddingModel, layers: Sequence[int], norms: Mapping[int, Norm], ids: torch.Tensor
) -> Iterator[int]:
    """While the context lasts, the model runs no more blocks than some of its states need.

    Its list of blocks is found by its length and cut. The cut is kept only if one sequence shows
    that every wanted state, and every normalization listened to, stays the same to the bit. One
    block more is tried where the last state goes through a final normalization. A model without
    such a list (ALBERT runs one block over and over) stays as it is.

    Args:
        model: the model, which is restored afterwards.
        layers: the hidden states wanted.
        norms: by layer, the normalizations to be listened to.
        ids: ``(1, length)`` a sequence to try the cut on.

    Yields:
        How many blocks are run.
    """
    whole, deepest = model.n_states - 1, max(layers)
    found = _blocks(model.module, whole) if deepest < whole else None
    if found is None:
        yield whole
        return
    owner, name, blocks = found
    wanted = _seen(model, layers, norms, ids)
    try:
        number = whole
        for fewer in range(max(1, deepest), min(deepest + 2, whole)):
            setattr(owner, name, blocks[:fewer])
            if _same(_seen(model, layers, norms, ids), wanted):
                number = fewer
                break
        else:
            setattr(owner, name, blocks)
        yield number
    finally:
        setattr(owner, name, blocks)


def _blocks(module: nn.Module, number: int) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """The only list of that number of modules, with its owner and name; else ``None``."""
    found = [
        (owner, name, part)
        for owner in module.modules()
        for name, part in owner.named_children()
        if isinstance(part, nn.ModuleList) and len(part) == number
    ]
    return found[0] if len(found) == 1 else None


def _seen(
    model: EmbeddingModel, layers: Sequence[int], norms: Mapping[int, Norm], ids: torch.Tensor
) -> list[torch.Tensor] | None:
    """All that a pass looks at, of one sequence; ``None`` if the model cannot be run so short."""
    try:
        with record_norms(model.module, norms) as taps:
            states = model.hidden_states(ids)
            seen = [states[layer] for layer in layers]
            return seen + [x for layer in norms for x in taps[layer][1:]]
    except (RuntimeError, IndexError, KeyError, TypeError, AttributeError):
        return None  # a state or a normalization listened to is missing


def _same(found: list[torch.Tensor] | None, wanted: list[torch.Tensor] | None) -> bool:
    if found is None or wanted is None:
        return False
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
