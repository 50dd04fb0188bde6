"""The model's side of a pass: batches run, embeddings taken at a site, words pooled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from embvar_kit.corpora.tokens import TokenizedCorpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction.onednn import Room, clear, packed
from embvar_kit.extraction.plan import Plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.normalization import Norm, Tap, tapping
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
state is the one that gave it or, failing that, the first that takes it (see
:mod:`embvar_kit.models.normalization`)."""

AT_NORMS = ("norm_input", "standardized", "norm_output")
"""Sites that only a hidden state with a normalization has."""


def norms_for(
    model: EmbeddingModel, sites: Iterable[str], layers: Iterable[int]
) -> dict[int, Norm]:
    """The normalizations that the sites need at the layers; none for sites without.

    Raises:
        ExtractionError: if a layer has none, naming those that have one.
    """
    needing = [site for site in sites if site in AT_NORMS]
    if not needing:
        return {}
    having = {state.layer: state.norm for state in model.norms if state.norm}
    if lacking := [layer for layer in layers if layer not in having]:
        remedy = f"take layers={list(having)}" if having else "it has none at any: take 'hidden'"
        raise ExtractionError(
            f"{model.name!r} has no normalization at hidden state "
            f"{', '.join(map(str, lacking))}, which site {needing[0]!r} needs; {remedy}."
        )
    return {layer: having[layer] for layer in layers}


_GIVEN_BACK_EVERY = 32  # batches: some milliseconds each time, for tens of MiB


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        sequences: ``(B,)`` indices of the sequences in the tokenized corpus.
        rows: ``(N,)`` where the real tokens lie when ``(B, longest)`` is laid out flat.
        tokens: ``(N,)`` which tokens of the corpus' ids they are, in that order.
        states: hidden states, each ``(B, longest, d)``.
        taps: by layer, what the normalizations listened to took and gave.
        planned: which of the batches asked for this is, or a part of.
        last: whether it is the last part of that.
    """

    sequences: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    states: tuple[torch.Tensor, ...]
    taps: Mapping[int, Tap]
    planned: int
    last: bool

    def at(self, site: str, layer: int) -> torch.Tensor:
        """``(B, longest, d)`` embeddings at a site, but for ``"unit"`` not yet scaled."""
        if site not in AT_NORMS:
            return self.states[layer]
        norm, taken, given = self.taps[layer]
        x = given if site == "norm_output" else taken
        return (norm.standardize(x) if site == "standardized" else x).reshape(
            self.states[layer].shape
        )


def forward(
    model: EmbeddingModel,
    text: TokenizedCorpus,
    batches: Iterable[np.ndarray],
    norms: Mapping[int, Norm] | None = None,
    layers: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Run batches of sequences through a model, one after another; padding is never in ``rows``.

    Where the memory is too small for a batch, it is run in halves, and a warning says so once.

    Args:
        model: the model.
        text: the tokenized sentences.
        batches: the sequences of each batch.
        norms: by layer, the normalizations to listen to (see :func:`norms_for`).
        layers: the hidden states that will be looked at, all by default; blocks that none of them
            needs are not run, and states behind the deepest may be missing.

    Raises:
        ExtractionError: if the memory is too small for one sequence alone.
    """
    room = Room()
    norms = norms or {}
    wanted = range(model.n_states) if layers is None else layers
    shortest = int(np.argmin(text.lengths))
    sample = torch.from_numpy(text.ids[slice(*text.starts[[shortest, shortest + 1]])].astype(int))
    with (
        shortened(model, wanted, norms, sample[None].to(model.device)),
        packed(model.module),
        tapping(model.module, norms) as taps,
    ):
        for planned, whole in enumerate(batches):
            waiting = [whole]
            while waiting:
                sequences = waiting.pop(0)
                slots = len(sequences) * int(text.lengths[sequences].max())
                if slots > room.slots and len(sequences) > 1:
                    waiting[:0] = np.array_split(sequences, 2)
                    continue
                try:
                    with room.attempt():
                        states, rows, tokens = _run(model, text, sequences)
                except (RuntimeError, MemoryError) as error:
                    room.learn(error, slots, alone=len(sequences) == 1)
                    states = None
                taps_now = dict(taps)
                taps.clear()
                if states is None:
                    del taps_now
                    clear()
                    waiting.insert(0, sequences)
                    continue
                yield Batch(sequences, rows, tokens, states, taps_now, planned, not waiting)
                del states, taps_now  # before the next ones are made
            if planned % _GIVEN_BACK_EVERY == _GIVEN_BACK_EVERY - 1:
                memory.give_back()


def _run(
    model: EmbeddingModel, text: TokenizedCorpus, sequences: np.ndarray
) -> tuple[tuple[torch.Tensor, ...], np.ndarray, np.ndarray]:
    """Hidden states of a batch, the rows of its real tokens, and which tokens they are."""
    lengths = text.lengths[sequences]
    inside = np.arange(lengths.max()) < lengths[:, None]
    ends = np.cumsum(lengths)
    tokens = np.arange(ends[-1]) + np.repeat(text.starts[sequences] - ends + lengths, lengths)
    ids = np.full(inside.shape, model.tokenizer.pad_token_id or 0, dtype=np.int64)
    ids[inside] = text.ids[tokens]
    # Attention is faster without a mask; where batches are small, most need none.
    mask = None if inside.all() else send(inside.astype(np.int64), model.device)
    states = model.hidden_states(send(ids, model.device), mask)
    return states, np.flatnonzero(inside), tokens


@dataclass(frozen=True)
class Pooling:
    """Where a batch's occurrences, tokens or words, are found in its hidden states.

    Attributes:
        occurrences: ``(R,)`` the occurrences, indices in ``Plan.group``.
        at: ``(R,)`` their rows in what :meth:`of` returns.
        rows, lengths: tensors: the rows of every word's tokens, one word after another, and how
            many each word has; ``None`` where each token is an occurrence.
    """

    occurrences: np.ndarray
    at: np.ndarray
    rows: torch.Tensor | None = None
    lengths: torch.Tensor | None = None

    @classmethod
    def in_batch(cls, work: Plan, batch: Batch, device: torch.device) -> Pooling:
        """Those of one forward pass."""
        if work.word is None:
            return cls(batch.tokens, batch.rows)
        word = work.word[batch.tokens]
        inside = np.flatnonzero(word >= 0)
        by_word = inside[np.argsort(word[inside], kind="stable")]
        words, lengths = np.unique(word[by_word], return_counts=True)
        # MPS has no segmented sum: there, words are pooled where their moments are kept.
        place = torch.device("cpu") if device.type in memory.HOST_MOMENTS else device
        rows = send(batch.rows[by_word], place)
        return cls(words, np.arange(len(words)), rows, send(lengths, place))

    def of(self, state: torch.Tensor) -> torch.Tensor:
        """``(rows, d)`` embeddings in a hidden state ``(B, longest, d)``: of tokens, or words."""
        flat = state.reshape(-1, state.shape[-1])
        if self.rows is None:
            return flat
        rows = flat.to(self.rows.device)[self.rows].float()
        return torch.segment_reduce(rows, "mean", lengths=self.lengths, axis=0, unsafe=True)

    def embeddings(self, batch: Batch, site: str, layer: int) -> torch.Tensor:
        """``(rows, d)`` embeddings of a batch at a site: of tokens, or words."""
        x = self.of(batch.at(site, layer))
        # After the mean over a word's tokens: the direction of what it is a mean of.
        return torch.nn.functional.normalize(x.float(), dim=1) if site == "unit" else x


# Blocks that no wanted state needs


@contextmanager
def shortened(
    model: EmbeddingModel, layers: Sequence[int], norms: Mapping[int, Norm], ids: torch.Tensor
) -> Iterator[int]:
    """For as long as it lasts, the model runs no more blocks than some of its states need.

    Its list of blocks is found by its length and cut, and the cut is kept only if one sequence
    shows that every wanted state, and every normalization listened to, is what it was to the bit.
    One block more is tried where the last state goes through a final normalization. A model
    without such a list (ALBERT runs one block over and over) stays as it is.

    Args:
        model: as loaded; it is so again afterwards.
        layers: the hidden states wanted.
        norms: by layer, the normalizations to be listened to.
        ids: ``(1, length)`` a sequence to try it on.

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
    """The one list of so many modules, with its owner and its name there; ``None`` if not one."""
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
    """All that will be looked at, of one sequence; ``None`` if the model cannot be run so."""
    try:
        with tapping(model.module, norms) as taps:
            states = model.hidden_states(ids)
            seen = [states[layer] for layer in layers]
            return seen + [x for layer in norms for x in taps[layer][1:]]
    except (RuntimeError, IndexError, KeyError, TypeError, AttributeError):
        return None  # a state or a normalization listened to is not there


def _same(found: list[torch.Tensor] | None, wanted: list[torch.Tensor] | None) -> bool:
    if found is None or wanted is None:
        return False
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
