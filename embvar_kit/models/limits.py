"""The longest input of a model: what its configuration says, and whether it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embvar_kit.models.parts import text_config
from embvar_kit.models.running import input_device, states_of

_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
"""Names that configurations have for the longest sequence."""

TRIED_UP_TO = 1024
"""Longest limit that is tried out when a model is loaded; longer ones take too long."""

_MOST_WORK = 10**11
"""Most weights times tokens of such a trial: about a second on two cores."""


def max_tokens(module: Any) -> int | None:
    """Longest sequence a model accepts, by its configuration and its tables of positions.

    Of a model of text and something else (LLaVA), the part for text counts. ``None`` if nothing
    sets a limit.
    """
    config = text_config(module)
    limits = [getattr(config, name, None) for name in _LIMITS]
    text = [
        part for part in module.modules() if type(getattr(part, "config", None)) is type(config)
    ]
    module = text[0] if text else module
    others = _not_for_text(module, config)
    for name, part in module.named_modules():
        if part in others or not isinstance(part, nn.Embedding):
            continue
        if "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa's positions start after its padding index.
            reserved = 0 if part.padding_idx is None else part.padding_idx + 1
            limits.append(part.num_embeddings - reserved)
    limits = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(limits) if limits else None


def _not_for_text(module: Any, config: Any) -> set[nn.Module]:
    """All modules of the parts for something else than text (GIT's encoder of images).

    Such a part has a configuration of its own, which is a part of the model's.
    """
    kinds = {type(getattr(config, name, None)) for name in getattr(config, "sub_configs", {})}
    kinds -= {type(config), type(None)}
    return {
        inner
        for part in module.modules()
        if type(getattr(part, "config", None)) in kinds
        for inner in part.modules()
    }


def tried_max_tokens(module: Any, ids: list[int]) -> int | None:
    """:func:`max_tokens`, run once where that is cheap; what runs, if the limit does not.

    A limit above :data:`TRIED_UP_TO`, that of a large model and any on an accelerator is not tried.

    Args:
        module: a transformers model.
        ids: vocabulary ids of a sentence that the model runs on.
    """
    limit = max_tokens(module)
    device = input_device(module)
    if limit is None or limit > TRIED_UP_TO or device.type != "cpu" or limit <= len(ids):
        return limit
    if limit * sum(weight.numel() for weight in module.parameters()) > _MOST_WORK:
        return limit
    runs = len(ids)  # known to run

    def tried(length: int) -> bool:
        repeated = (ids * (length // len(ids) + 1))[:length]
        try:
            states_of(module, torch.tensor([repeated]))
        except Exception as error:  # each architecture has its own
            # Memory says nothing about positions: the pass will halve its batches.
            return "memory" in str(error).lower()
        return True

    if tried(limit):
        return limit
    while limit - runs > 1:
        middle = (runs + limit) // 2
        runs, limit = (middle, limit) if tried(middle) else (runs, middle)
    return runs
