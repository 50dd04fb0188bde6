"""What a model is like, as observed on short sentences."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.limits import max_tokens
from embvar_kit.models.normalization import StateNorm, around, recording
from embvar_kit.models.parts import text_config
from embvar_kit.models.running import alike, apart, input_device, states_of, whole_states


class Observation(NamedTuple):
    """What short sentences show of a model.

    Attributes:
        n_states: number of hidden states.
        width: ``d``, the length of each state's vectors.
        norms: the normalizations around each hidden state, one entry per state.
        ignores_padding: whether a sentence's states stay the same when it is padded and masked.
        shares_batches: whether they stay the same beside another sentence of equal length.
        needs_mask: whether they change where no mask is given, though nothing is padded.
    """

    n_states: int
    width: int
    norms: tuple[StateNorm, ...]
    ignores_padding: bool
    shares_batches: bool
    needs_mask: bool


def probe(module: Any, ids: list[int], padding: int, label: str) -> Observation:
    """Run short sentences, look at their hidden states and the normalizations around these.

    Args:
        module: a transformers model that takes ``input_ids`` and ``output_hidden_states``; what a
            run changes of it is undone.
        ids: vocabulary ids of a sentence, with what is put around it.
        padding: vocabulary id that shorter sentences of a batch are filled up with.
        label: the model's name for messages.

    Raises:
        ModelError: if the model cannot run on text, returns no hidden states, its states are not
            of shapes ``(1, length, d)`` with one ``d`` and a vector for each token, one of them is
            zero everywhere, or it gives two answers to the same input.
    """
    try:
        with recording(module) as calls:
            raw = whole_states(module, _batch(module, ids))
    except Exception as error:  # what a model raises for an input it is not made for
        raise ModelError(f"{label!r} cannot run on plain text: {first_line(error)}") from error
    if not raw:
        raise ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    shapes = [tuple(getattr(state, "shape", ())) for state in raw]
    # States may be longer than the input, and differently so, where a model pads inside.
    fits = all(len(shape) == 3 and shape[1] >= len(ids) for shape in shapes)
    if not fits or len({shape[2] for shape in shapes}) != 1:
        raise ModelError(
            f"The hidden states of {label!r} differ in shape ({sorted(set(shapes))}); the kit "
            "needs one vector per token and layer, all of one width."
        )
    if dead := [layer for layer, state in enumerate(raw) if not state.any()]:
        raise ModelError(
            f"Hidden state {', '.join(map(str, dead))} of {label!r} is zero everywhere: weights "
            "were not loaded, or what one device gave did not reach the next. Load the model "
            "again, on one device if it was spread over several."
        )
    found = _Runs(module, ids, padding, [state[:, : len(ids)] for state in raw])
    if not alike(found.run([ids]), found.alone):
        raise ModelError(
            f"{label!r} gives two answers to the same input, so that its statistics would depend "
            "on chance. Does it draw random numbers in evaluation, too?"
        )
    shares = found.shares_batches()
    safe = shares and not _depends_on_length(module) and found.ignores_padding()
    norms = around(raw, calls)
    return Observation(len(raw), raw[0].shape[2], norms, safe, shares, found.needs_mask)


def _batch(module: Any, *sequences: list[int]) -> torch.Tensor:
    return torch.tensor(sequences, device=input_device(module))


class _Runs:
    """Runs of a sentence in batches that ought not to matter to it."""

    def __init__(self, module: Any, ids: list[int], padding: int, alone: list) -> None:
        self.module, self.ids, self.padding, self.alone = module, ids, padding, alone
        self.takes_mask = True
        self.needs_mask = False
        # A sentence may hold the padding's id where it is another token's, too (pad = eos).
        holding = [*ids[:-1], padding, *ids[-1:]] if len(ids) > 1 else ids
        try:
            masked = self.run([holding], mask=[[1] * len(holding)])
        except Exception:  # it takes no mask, or not the padding's id
            self.takes_mask = False
        else:
            self.needs_mask = not alike(self.run([holding], masks=False), masked)
            if self.needs_mask:
                self.alone = self.run([ids])
        both = self.run([ids, ids])
        self.rounding = max(apart([state[:1] for state in both], self.alone), 0.0)

    def run(
        self, sequences: list[list[int]], mask: list | None = None, masks: bool = True
    ) -> tuple[torch.Tensor, ...]:
        """Hidden states of sequences of one length, under a mask of ones where one is needed."""
        if mask is None and masks and self.needs_mask:
            mask = [[1] * len(sequences[0])] * len(sequences)
        given = None if mask is None else _batch(self.module, *mask)
        return states_of(self.module, _batch(self.module, *sequences), given)

    def shares_batches(self) -> bool:
        """Whether a sentence has the same states beside another of equal length as alone."""
        other = [*self.ids[:1], *self.ids[1:-1][::-1], *self.ids[1:][-1:]]
        both = self.run([self.ids, other])
        return alike([state[:1] for state in both], self.alone, self.rounding) and alike(
            [state[1:] for state in both], self.run([other]), self.rounding
        )

    def ignores_padding(self) -> bool:
        """Whether a sentence has the same states in a padded batch with a longer one as alone."""
        ids = self.ids
        longer = [*ids[:-1], *ids[1:-1] * 2, ids[-1]]
        if (limit := max_tokens(self.module)) is not None:
            longer = longer[: max(limit, len(ids))]
        if len(longer) == len(ids) or not self.takes_mask:
            return False
        left = len(longer) - len(ids)
        mask = [[1] * len(ids) + [0] * left, [1] * len(longer)]
        try:
            both = self.run([[*ids, *[self.padding] * left], longer], mask=mask)
            long_alone = self.run([longer])
        except Exception:  # for example because it masks in a way of its own
            return False
        return alike(
            [state[:1, : len(ids)] for state in both], self.alone, self.rounding
        ) and alike([state[1:] for state in both], long_alone, self.rounding)


def _depends_on_length(module: Any) -> bool:
    """Whether a model works otherwise in long sequences, in a way that short ones do not show.

    An indexer picks the keys that it scores highest, and which of several equal scores it picks
    depends on the length of the batch. Blocks and chunks of attention are counted from the
    beginning of the batch to its padded end. Some rotary positions are scaled by the batch's
    length.
    """
    config = text_config(module)
    named = any(
        _BY_LENGTH.fullmatch(name) and isinstance(value, int) and value > 0
        for name, value in vars(config).items()
    )
    rotary = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    return named or any(_rope_types(given) & _SCALED_BY_LENGTH for given in rotary)


_BY_LENGTH = re.compile(r"index_topk|indexer_budget|block_size|\w+_attn_chunk_length")
"""How configurations name it: DeepSeek-V3.2's keys and their kind, Qwen4's, BigBird's blocks,
Reformer's chunks."""

_SCALED_BY_LENGTH = {"longrope", "dynamic"}


def _rope_types(given: Any) -> set[Any]:
    """The kinds of rotary positions in a setting, which may hold one for each kind of layer."""
    if not isinstance(given, dict):
        return set()
    inner = [kind for value in given.values() for kind in _rope_types(value)]
    return {given.get("rope_type", given.get("type")), *inner}
