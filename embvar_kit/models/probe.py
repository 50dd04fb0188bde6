"""What a model is like, as observed on short sentences."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.limits import max_tokens
from embvar_kit.models.normalization import StateNorm, around, recording
from embvar_kit.models.parts import text_config
from embvar_kit.models.running import alike, states_of, whole_states


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
            of shapes ``(1, length, d)`` with one ``d`` and a vector for each token, or it gives two
            answers to the same input.
    """
    alone = torch.tensor([ids], device=next(module.parameters()).device)
    try:
        with recording(module) as calls:
            raw = whole_states(module, alone)
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
    states = states_of(module, alone)
    if not alike(states_of(module, alone), states):
        raise ModelError(
            f"{label!r} gives two answers to the same input, so that its statistics would depend "
            "on chance. Does it draw random numbers in evaluation, too?"
        )
    safe = not _picks_keys(module) and _ignores_padding(module, ids, padding, states)
    return Observation(len(raw), raw[0].shape[2], around(raw, calls), safe)


def _picks_keys(module: Any) -> bool:
    """Whether attention goes to a number of keys only, those that an indexer scores highest.

    Many scores are equal, and which of those are picked depends on the length of the batch. Short
    sentences do not show it, since all of their keys are picked.
    """
    settings = vars(text_config(module)).items()
    return any(_PICKED.match(name) and isinstance(value, int) for name, value in settings)


_PICKED = re.compile(r"index_topk|indexer_budget")
"""How configurations name that number: DeepSeek-V3.2's and its kind, Qwen4's."""


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
    except Exception:  # for example because it takes no mask
        return False
    return alike([state[:1, : len(ids)] for state in both], alone) and alike(
        [state[1:] for state in both], long_alone
    )
