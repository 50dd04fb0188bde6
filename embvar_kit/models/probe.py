"""What a model is like, as observed on one short sentence or read from its configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.normalization import StateNorm, around, recording

SENTENCE = "A short sentence."
"""The text that a model is tried on."""


class Observation(NamedTuple):
    """What one sentence shows of a model.

    Attributes:
        n_states: number of hidden states.
        width: ``d``, the length of each state's vectors.
        norms: the normalizations around each hidden state, one entry per state.
    """

    n_states: int
    width: int
    norms: tuple[StateNorm, ...]


def probe(
    module: Any,
    tokenizer: Any,
    begin: int | None,
    end: int | None,
    device: str | torch.device,
    label: str,
) -> Observation:
    """Run one sentence and look at the hidden states and the normalizations around them.

    Args:
        module: a transformers model that takes ``input_ids`` and ``output_hidden_states``.
        tokenizer: the model's tokenizer.
        begin, end: vocabulary ids put around the sentence, or ``None``.
        device: the device that holds the module.
        label: the model's name for messages.

    Raises:
        ModelError: if the model cannot run on text, returns no hidden states, or its states are
            not all of one shape ``(1, length, d)``.
    """
    ids = tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    ids = [i for i in (begin, *ids, end) if i is not None]
    try:
        with torch.inference_mode(), recording(module) as calls:
            states = module(
                input_ids=torch.tensor([ids], device=device), output_hidden_states=True
            ).hidden_states
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{label!r} cannot run on plain text: {first_line(error)}") from error
    if not states:
        raise ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    shapes = {tuple(state.shape) for state in states}
    if len(shapes) != 1 or len(states[0].shape) != 3 or states[0].shape[1] != len(ids):
        raise ModelError(
            f"The hidden states of {label!r} differ in shape ({sorted(shapes)}); the kit needs one "
            "vector per token and layer, all of one width."
        )
    return Observation(len(states), states[0].shape[2], around(states, calls))


def max_tokens(module: Any) -> int | None:
    """Longest sequence a model accepts, by its configuration and its tables of positions.

    ``None`` if neither sets a limit.
    """
    limits = [getattr(module.config, "max_position_embeddings", None)]
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa's positions start after its padding index.
            reserved = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - reserved)
    limits = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(limits) if limits else None
