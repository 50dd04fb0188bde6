"""What a model is like, found by looking: its hidden states, where they are normalized, limits."""

from __future__ import annotations

from typing import Any, NamedTuple

from embvar_kit.errors import ModelError

_PROBE = "A short sentence."


class Found(NamedTuple):
    """What one sentence shows.

    Attributes:
        n_states: number of hidden states.
        width: of each.
        final_norm: class of the normalization that gave the last hidden state, or ``None``.
        normalization: where the blocks normalize: ``"post"`` (the hidden states between blocks
            are what a normalization gives out), ``"pre"`` (what one takes in: the residual
            stream) or ``"none"`` (neither).
    """

    n_states: int
    width: int
    final_norm: str | None
    normalization: str


def probe(
    module: Any, tokenizer: Any, begin: int | None, end: int | None, device: Any, label: str
) -> Found:
    """Run one sentence and compare the hidden states with what each normalization was given."""
    import torch

    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    ids = [i for i in (begin, *ids, end) if i is not None]
    norms: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def keep(part: Any, inputs: tuple, output: Any) -> None:
        if isinstance(output, torch.Tensor) and inputs and isinstance(inputs[0], torch.Tensor):
            norms.append((type(part).__name__, inputs[0].clone(), output.clone()))

    hooks = [
        part.register_forward_hook(keep)
        for part in module.modules()
        if "norm" in type(part).__name__.lower()
    ]
    try:
        with torch.inference_mode():
            states = module(
                input_ids=torch.tensor([ids], device=device), output_hidden_states=True
            ).hidden_states
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{label!r} cannot run on plain text: {first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not states:
        raise ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    shapes = {tuple(state.shape) for state in states}
    if len(shapes) != 1 or len(states[0].shape) != 3 or states[0].shape[1] != len(ids):
        raise ModelError(
            f"The hidden states of {label!r} differ in shape ({sorted(shapes)}); the kit needs one "
            "vector of one width per token and layer."
        )

    def same(one: torch.Tensor, other: torch.Tensor) -> bool:
        return one.shape == other.shape and torch.equal(one, other)

    last = states[-1]
    final = [kind for kind, _, given in norms if same(given, last)]
    # The first state is the embedding layer's, the last may have been through a final norm: only
    # those between blocks tell. A model of one block has none, and its first state must do.
    between = states[1:-1]
    after = [any(same(given, state) for _, _, given in norms) for state in between]
    before = [any(same(taken, state) for _, taken, _ in norms) for state in between or states[:1]]
    if between and all(after):
        placement = "post"
    elif before and all(before):
        placement = "pre"
    else:
        placement = "post" if not between and final else "none"
    return Found(len(states), last.shape[2], final[-1] if final else None, placement)


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
