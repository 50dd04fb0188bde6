"""Whether batches leave the states of the sentences in them alone, tried on the text of a pass.

Short sentences, which a model is tried on when it is loaded, do not show all: attention that is
sparse in long sequences only (BigBird's) can depend on the length of the batch there, and a model
can answer by chance in long ones only (Reformer, where it hashes).
"""

from __future__ import annotations

import warnings
from enum import Enum
from weakref import WeakKeyDictionary

import numpy as np
import torch

from embvar_kit.errors import EmbvarWarning, ExtractionError, first_line
from embvar_kit.extraction.onednn import free_memory, out_of_memory
from embvar_kit.extraction.plan import Plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.running import alike, apart

_MOST = 8  # sequences of a batch that are tried


class Sharing(Enum):
    """Which sequences may be run together."""

    ANY = "any, the shorter ones padded"
    EQUAL = "those of equal length"
    NONE = "none"


def known(model: EmbeddingModel) -> Sharing:
    """Which sequences may be run together, as short sentences showed it."""
    if not model.shares_batches:
        return Sharing.NONE
    return Sharing.ANY if model.ignores_padding else Sharing.EQUAL


def sharing(model: EmbeddingModel, work: Plan) -> Sharing:
    """Which sequences of a plan may be run together, tried on one batch of each doubling of length.

    How much is padded decides what shows. So a batch is not tried where one of the same doubling,
    padded as much or more, was left alone before, in another shard for one; whatever else was shown
    there is not taken for the answer here, and a shard's numbers do not depend on the shards before
    it. A warning tells where the answer is another than short sentences showed.

    Args:
        model: the model.
        work: the plan.

    Raises:
        ExtractionError: if the model fails on the longest sequence of the plan, or gives two
            answers to it.
    """
    steady = _STEADY.setdefault(model.module, set())
    lengths = work.text.lengths
    longest = int(np.argmax(lengths))
    if (doubling := _doubling(lengths[longest])) not in steady:
        if not _is_steady(model, work, longest):
            return known(model)  # the pass says what to do
        steady.add(doubling)
    left_alone = _LEFT_ALONE.setdefault(model.module, {})
    answers = [known(model)]
    for doubling, (padding, batch) in _examples(work).items():
        if known(model) is Sharing.ANY and padding <= left_alone.get(doubling, -1):
            continue
        answers.append(_try(model, work, batch))
        if answers[-1] is Sharing.ANY:
            left_alone[doubling] = padding
    found = max(answers, key=list(Sharing).index)
    if found is not known(model):
        warnings.warn(f"{told(model, found)}.", EmbvarWarning, stacklevel=2)
    return found


_STEADY: WeakKeyDictionary[torch.nn.Module, set[int]] = WeakKeyDictionary()
"""Doublings of length in which a model gave one answer twice: no number depends on it."""

_LEFT_ALONE: WeakKeyDictionary[torch.nn.Module, dict[int, int]] = WeakKeyDictionary()
"""By doubling of length, the largest padding of a batch whose sequences were as they are alone."""


def _doubling(length: int) -> int:
    return int(length).bit_length()


def _is_steady(model: EmbeddingModel, work: Plan, longest: int) -> bool:
    """Whether a sequence can be run twice; false where the memory is too small to try.

    Raises:
        ExtractionError: if the model fails on it, or gives two answers to it.
    """
    length = int(work.text.lengths[longest])
    try:
        first, again = (_states(model, work, [longest]) for _ in range(2))
    except Exception as error:  # each architecture has its own
        if out_of_memory(error):
            return False
        raise failed(model, length, error) from error
    if not alike(again, first):
        raise ExtractionError(
            f"{model.name!r} gives two answers to the same long sequence ({length:,} tokens), so "
            "that its statistics would depend on chance. If its configuration has a seed "
            "(hash_seed, for one), set it; or cut the sentences shorter."
        )
    return True


def _try(model: EmbeddingModel, work: Plan, batch: np.ndarray) -> Sharing:
    """Which sequences of a batch may be run together."""
    found = known(model)
    while found is not Sharing.NONE:
        if found is Sharing.EQUAL:
            batch = max(of_equal_length(work, batch), key=len)
        if _left_alone(model, work, batch):
            break
        lengths = work.text.lengths[batch]
        equal = found is Sharing.EQUAL or lengths.min() == lengths.max()
        found = Sharing.NONE if equal else Sharing.EQUAL
    return found


def told(model: EmbeddingModel, found: Sharing) -> str:
    """What the sentences of a pass showed of a model that its short trial had not shown."""
    what = "padding changes" if found is Sharing.EQUAL else "the rest of a batch changes"
    together = "only sentences of equal length are run together"
    how = together if found is Sharing.EQUAL else "each is run alone"
    return f"In long sentences, {what} what {model.name!r} gives: {how}"


def apart_as_needed(work: Plan, sequences: np.ndarray, found: Sharing) -> list[np.ndarray]:
    """The sequences of a batch in the groups that may be run together, the longest first."""
    if found is Sharing.ANY:
        return [sequences]
    if found is Sharing.NONE:
        return list(sequences[:, None])
    return of_equal_length(work, sequences)


def failed(model: EmbeddingModel, longest: int, error: Exception) -> ExtractionError:
    """What to say of a model that fails in the middle of a pass, as on too long an input."""
    limit = "sets no limit" if model.max_tokens is None else f"allows {model.max_tokens:,}"
    return ExtractionError(
        f"{model.name!r} failed on a sequence of {longest:,} tokens ({first_line(error)}). It "
        f"{limit}; if shorter ones run, set the longest that does: "
        f"model = dataclasses.replace(model, max_tokens={max(longest // 2, 1)})."
    )


def of_equal_length(work: Plan, sequences: np.ndarray) -> list[np.ndarray]:
    """The sequences of a batch in groups of one length each, the longest first."""
    lengths = work.text.lengths[sequences]
    order = np.argsort(-lengths, kind="stable")
    return np.split(sequences[order], np.flatnonzero(np.diff(lengths[order])) + 1)


def _examples(work: Plan) -> dict[int, tuple[int, np.ndarray]]:
    """By doubling of length, the most padded batch, else the largest, with its padding."""
    chosen: dict[int, tuple[tuple[int, int], np.ndarray]] = {}
    for batch in work.batches:
        if len(batch) > 1:
            lengths = work.text.lengths[batch]
            rank = int(lengths.max() - lengths.min()), len(batch)
            doubling = _doubling(lengths.max())
            if doubling not in chosen or rank > chosen[doubling][0]:
                chosen[doubling] = rank, batch
    # Some of the sequences are enough, the longest and the shortest among them.
    return {
        doubling: (padding, batch[np.unique(np.linspace(0, len(batch) - 1, _MOST).astype(int))])
        for doubling, ((padding, _), batch) in chosen.items()
    }


def _left_alone(model: EmbeddingModel, work: Plan, batch: np.ndarray) -> bool:
    """Whether the longest and the shortest sequence of a batch have the same states alone.

    Where the memory is too small to try, the pass will run smaller batches.
    """
    if len(batch) < 2:
        return True
    lengths = work.text.lengths[batch]
    try:
        together = _states(model, work, batch)
        for at in (int(np.argmax(lengths)), int(len(lengths) - 1 - np.argmin(lengths[::-1]))):
            alone = _states(model, work, batch[[at]])
            own = [state[at : at + 1, : int(lengths[at])] for state in together]
            if alike(own, alone):
                continue
            # Perhaps it is rounding: how far apart is the same sequence beside itself?
            twice = _states(model, work, batch[[at, at]])
            if not alike(own, alone, apart([state[:1] for state in twice], alone)):
                return False
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        free_memory()
    return True


def _states(
    model: EmbeddingModel, work: Plan, sequences: np.ndarray | list[int]
) -> tuple[torch.Tensor, ...]:
    ids, inside = padded(model, work, np.asarray(sequences))
    mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(model.device)
    return model.hidden_states(torch.from_numpy(ids).to(model.device), mask)


def padded(
    model: EmbeddingModel, work: Plan, sequences: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(B, longest)`` ids of a batch, filled up with padding, and which of them are tokens."""
    text = work.text
    lengths = text.lengths[sequences]
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(inside.shape, model.padding, dtype=np.int64)
    ids[inside] = text.ids[tokens_of(work, sequences)]
    return ids, inside


def tokens_of(work: Plan, sequences: np.ndarray) -> np.ndarray:
    """``(N,)`` indices in the text's ids of the tokens of some sequences, one after another."""
    lengths = work.text.lengths[sequences]
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(work.text.starts[sequences] - ends + lengths, lengths)
