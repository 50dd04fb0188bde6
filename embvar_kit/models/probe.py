"""What a model is like, as observed on short sentences or read from its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.normalization import StateNorm, around, recording

SENTENCE = "A short sentence."
"""The text that a model is tried on."""

_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
"""Names that configurations have for the longest sequence."""

_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)
"""What a model raises that cannot be run in the way it was tried."""


class Observation(NamedTuple):
    """What short sentences show of a model.

    Attributes:
        n_states: number of hidden states.
        width: ``d``, the length of each state's vectors.
        norms: the normalizations around each hidden state, one entry per state.
        ignores_padding: whether a sentence's states stay the same when it is padded and masked.
    """

    n_states: int
    width: int
    norms: tuple[StateNorm, ...]
    ignores_padding: bool


def probe(
    module: Any,
    tokenizer: Any,
    begin: int | None,
    end: int | None,
    device: str | torch.device,
    label: str,
) -> Observation:
    """Run short sentences, look at their hidden states and the normalizations around these.

    Args:
        module: a transformers model that takes ``input_ids`` and ``output_hidden_states``; what a
            run changes of it is undone.
        tokenizer: the model's tokenizer.
        begin, end: vocabulary ids put around the sentence, or ``None``.
        device: the device that holds the module.
        label: the model's name for messages.

    Raises:
        ModelError: if the model cannot run on text, returns no hidden states, its states are not
            all of one shape ``(1, length, d)``, or it gives two answers to the same input.
    """
    words = tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    ids = [i for i in (begin, *words, end) if i is not None]
    alone = torch.tensor([ids], device=device)
    try:
        with unchanged(module), torch.inference_mode(), recording(module) as calls:
            raw = module(input_ids=alone, output_hidden_states=True).hidden_states
    except _FAILURES as error:
        raise ModelError(f"{label!r} cannot run on plain text: {first_line(error)}") from error
    if not raw:
        raise ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    shapes = {tuple(state.shape) for state in raw}
    if len(shapes) != 1 or len(raw[0].shape) != 3 or raw[0].shape[1] < len(ids):
        raise ModelError(
            f"The hidden states of {label!r} differ in shape ({sorted(shapes)}); the kit needs one "
            "vector per token and layer, all of one width."
        )
    states = states_of(module, alone)
    if not _alike(states_of(module, alone), states):
        raise ModelError(
            f"{label!r} gives two answers to the same input, so that its statistics would depend "
            "on chance. Does it draw random numbers in evaluation, too?"
        )
    safe = _ignores_padding(module, ids, tokenizer.pad_token_id or 0, states)
    return Observation(len(raw), raw[0].shape[2], around(raw, calls), safe)


def states_of(
    module: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Hidden states ``(batch, length, d)`` of a batch; what the run changes of the model is undone.

    A model that works in chunks (Reformer) pads its input to a multiple of their length. What it
    returns for that padding is cut off here.

    Args:
        module: a transformers model.
        input_ids: ``(batch, length)`` token ids.
        attention_mask: ``(batch, length)``, or ``None`` where nothing is padded.
    """
    # A model may take no mask at all: where none is needed, it gets none.
    given = {} if attention_mask is None else {"attention_mask": attention_mask}
    with unchanged(module), torch.inference_mode():
        states = module(input_ids=input_ids, output_hidden_states=True, **given).hidden_states
    length = input_ids.shape[1]
    return tuple(state if state.shape[1] == length else state[:, :length] for state in states)


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Undo what forward passes change of a model while the context lasts.

    BigBird, for one, replaces its sparse attention by full attention for good after one short
    input. Submodules, parameters, buffers and plain attributes are put back; a tensor that was
    changed in place stays changed.
    """
    before = [
        (part, [dict(getattr(part, kind)) for kind in _KINDS], _plain(part))
        for part in module.modules()
    ]
    try:
        yield
    finally:
        for part, held, values in before:
            for kind, content in zip(_KINDS, held, strict=True):
                now = getattr(part, kind)
                now.clear()
                now.update(content)
            for name in _plain(part).keys() - values.keys():
                del vars(part)[name]
            vars(part).update(values)


_KINDS = ("_modules", "_parameters", "_buffers")


def _plain(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if not name.startswith("_")}


def _ignores_padding(
    module: Any, ids: list[int], padding: int, alone: tuple[torch.Tensor, ...]
) -> bool:
    """Whether a sentence has the same states in a padded batch with a longer one as alone."""
    device = alone[0].device
    longer = [*ids[:-1], *ids[1:-1] * 2, ids[-1]]
    if (limit := max_tokens(module)) is not None:
        longer = longer[: max(limit, len(ids))]
    if len(longer) == len(ids):
        return False
    padded = [*ids, *[padding] * (len(longer) - len(ids))]
    mask = torch.ones((2, len(longer)), dtype=torch.long, device=device)
    mask[0, len(ids) :] = 0
    try:
        both = states_of(module, torch.tensor([padded, longer], device=device), mask)
        long_alone = states_of(module, torch.tensor([longer], device=device))
    except _FAILURES:
        return False  # for example because it takes no mask
    return _alike([state[:1, : len(ids)] for state in both], alone) and _alike(
        [state[1:] for state in both], long_alone
    )


def _alike(states: Any, others: Any) -> bool:
    """Whether all vectors of two runs are the same up to rounding in the model's precision."""
    for state, other in zip(states, others, strict=True):
        tolerance = 3 * torch.finfo(state.dtype).eps ** 0.5  # 1e-3 in float32
        apart = (state.double() - other.double()).norm(dim=-1)
        if bool((apart > tolerance * (other.double().norm(dim=-1) + 1e-12)).any()):
            return False
    return True


def max_tokens(module: Any) -> int | None:
    """Longest sequence a model accepts, by its configuration and its tables of positions.

    Of a model of text and something else (LLaVA), the part for text counts. ``None`` if nothing
    sets a limit.
    """
    config = module.config.get_text_config()
    limits = [getattr(config, name, None) for name in _LIMITS]
    text = [
        part for part in module.modules() if type(getattr(part, "config", None)) is type(config)
    ]
    for name, part in (text[0] if text else module).named_modules():
        if isinstance(part, nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa's positions start after its padding index.
            reserved = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - reserved)
    limits = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(limits) if limits else None
