"""Running a model on token ids: its hidden states, one vector per token, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from embvar_kit.models.silence import quiet


def whole_states(
    module: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Hidden states as the model gives them, ``(batch, length or more, d)``; empty for none.

    A model whose last layer returns several things (PEGASUS-X: the states of tokens and of global
    tokens) may give them together as one state; the first of them is the tokens'. What the run
    changes of the model is undone.

    Args:
        module: a transformers model.
        input_ids: ``(batch, length)`` token ids.
        attention_mask: ``(batch, length)``, or ``None`` where nothing is padded.
    """
    # A model may take no mask at all: where none is needed, it gets none.
    given = {} if attention_mask is None else {"attention_mask": attention_mask}
    with quiet(), unchanged(module), torch.inference_mode():
        states = module(input_ids=input_ids, output_hidden_states=True, **given).hidden_states
    return tuple(state[0] if isinstance(state, tuple) else state for state in states or ())


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
    states = whole_states(module, input_ids, attention_mask)
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


def alike(states: Any, others: Any) -> bool:
    """Whether all vectors of two runs are the same up to rounding in the model's precision."""
    for state, other in zip(states, others, strict=True):
        eps = torch.finfo(state.dtype).eps
        # Rounding is 1e-6 in float32; in half precision, it is not told from less than this.
        tolerance = 1e-4 if eps < 1e-6 else 3 * eps**0.5
        apart = (state.double() - other.double()).norm(dim=-1)
        if bool((apart > tolerance * (other.double().norm(dim=-1) + 1e-12)).any()):
            return False
    return True
