"""Blocks of a model that no wanted hidden state depends on are not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from embvar_kit.models import EmbeddingModel
from embvar_kit.normalization import Norm, tapping


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
