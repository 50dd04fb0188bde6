"""What a model is like, found by looking: its hidden states, where they are normalized, limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from embvar_kit.errors import ModelError

if TYPE_CHECKING:
    from embvar_kit.normalization import StateNorm

_PROBE = "A short sentence."


class Found(NamedTuple):
    """What one sentence shows.

    Attributes:
        n_states: number of hidden states.
        width: of each.
        norms: the normalizations around each hidden state, one entry a state.
    """

    n_states: int
    width: int
    norms: tuple[StateNorm, ...]


def probe(
    module: Any, tokenizer: Any, begin: int | None, end: int | None, device: Any, label: str
) -> Found:
    """Run one sentence; look at the hidden states and at the normalizations around them."""
    import torch

    from embvar_kit.normalization import around, recording

    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
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
            "vector of one width per token and layer."
        )
    return Found(len(states), states[0].shape[2], around(states, calls))


def placement(norms: Sequence[StateNorm]) -> str:
    """Where a model's blocks normalize: ``"post"``, ``"pre"`` or ``"none"``.

    The first state is the embedding layer's and the last may have been through a final norm: only
    those between blocks tell. A model of one block has none, and its first state must do.
    """
    between = norms[1:-1]
    if between and all(state.produced_by for state in between):
        return "post"
    if all(state.consumed_by for state in between or norms[:1]):
        return "pre"
    return "post" if not between and norms[-1].produced_by else "none"


def max_tokens(module: Any) -> int | None:
    """Positions that the model can tell apart: from its configuration and position tables."""
    from torch import nn

    config = module.config
    limits = [getattr(config, "max_position_embeddings", None)]
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa's table starts counting behind its padding index.
            taken = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - taken)
    limits = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(limits) if limits else None


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first, and the next where the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__
