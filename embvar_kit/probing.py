"""What a model is like, found by looking: its hidden states, their width, its sequence limit."""

from __future__ import annotations

from typing import Any

from embvar_kit.errors import ModelError

_PROBE = "A short sentence."


def probe(
    module: Any, tokenizer: Any, begin: int | None, end: int | None, device: Any, label: str
) -> tuple[int, int, str | None]:
    """Run one sentence: how many states of what width, and which normalization gave the last."""
    import torch

    ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    ids = [i for i in (begin, *ids, end) if i is not None]
    outputs: list[tuple[str, torch.Tensor]] = []

    def keep(part: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append((type(part).__name__, output))

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
    last = states[-1]
    norms = [kind for kind, out in outputs if out.shape == last.shape and torch.equal(out, last)]
    return len(states), last.shape[2], norms[-1] if norms else None


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
