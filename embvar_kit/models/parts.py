"""The part of a transformers model that gives the hidden states of text, found by its structure."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.running import alike, input_device, states_of, whole_states


def bare(module: Any) -> Any:
    """The part of a transformers model that gives the hidden states, ready for evaluation.

    That is the encoder of a model with a decoder, and the model itself otherwise.
    """
    if all(hasattr(module, part) for part in ("encoder", "decoder")):
        config, module = module.config, module.get_encoder()
        if not hasattr(module, "config"):  # FSMT's encoder is a plain module
            module.config = config
    for name, value in (("use_cache", False), ("return_dict", True)):
        if hasattr(module.config, name):
            setattr(module.config, name, value)
    for part in module.modules():
        # Feed-forward layers in chunks save memory, and fail where the length is no multiple.
        if hasattr(part, "chunk_size_feed_forward"):
            part.chunk_size_feed_forward = 0
    return module.eval().requires_grad_(False)


def for_text(module: Any, ids: list[int], label: str) -> Any:
    """The model, or the part of it for text if the whole does not run on text alone.

    A model such as CLIP takes an image with every text. Its part for text is a model of its own,
    built from the configuration's part for text, and runs alone.

    Args:
        module: what :func:`bare` returned.
        ids: vocabulary ids of a sentence, with what is put around it.
        label: the model's name for messages.

    Raises:
        ModelError: if neither the model nor a part of it runs on text alone and returns its hidden
            states.
    """
    given = torch.tensor([ids], device=input_device(module))
    try:
        states = whole_states(module, given)
    except Exception as error:  # what a model raises for an input it is not made for
        failure: Exception = error
    else:
        if states:
            return module
        failure = ModelError(f"{label!r} returns no hidden states; the kit needs all of them.")
    for part in text_parts(module):
        try:
            if whole_states(part, given):
                return part
        except Exception:  # the part is no model that runs alone: the next may be one
            continue
    if isinstance(failure, ModelError):
        raise failure
    raise ModelError(
        f"{label!r} ({type(module).__name__}) cannot run on plain text, and no part of it can: "
        f"{first_line(failure)}"
    ) from failure


def text_parts(module: Any) -> list[Any]:
    """The parts of a model whose configuration is the configuration's part for text."""
    config = text_config(module)
    if config is module.config:
        return []
    return [
        part
        for part in module.modules()
        if part is not module and type(getattr(part, "config", None)) is type(config)
    ]


def text_config(module: Any) -> Any:
    """A model's configuration, or the part of it for text; the whole where that is ambiguous."""
    try:
        return module.config.get_text_config()
    except (ValueError, AttributeError):
        return module.config


def without_pooler(module: Any, ids: list[int]) -> Any:
    """Take the pooler off a model, unless the model does not run, or runs otherwise, without it.

    The pooler reads only the last state; it is not needed, and often it is not trained.

    Args:
        module: the model, which is changed.
        ids: vocabulary ids of a sentence to try it on.
    """
    pooler = getattr(module, "pooler", None)
    if pooler is None:
        return module
    given = torch.tensor([ids], device=input_device(module))
    before = states_of(module, given)
    module.pooler = None
    try:
        same = alike(states_of(module, given), before)
    except Exception:  # SqueezeBERT calls its pooler whether it has one or not
        same = False
    if not same:
        module.pooler = pooler
    return module


def vocabulary_rows(module: Any) -> int | None:
    """Number of rows of the table that vocabulary ids are looked up in; ``None`` if unknown.

    The table may be of a class of its own, such as I-BERT's.
    """
    try:
        table = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # a part that is no whole model, for one
        found = (part for name, part in module.named_modules() if _named_for_tokens(name, part))
        table = next(found, None)
    weight = getattr(table, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.dim() == 2 else None


def _named_for_tokens(name: str, part: nn.Module) -> bool:
    own = name.rsplit(".", 1)[-1]
    named = own.startswith(("token_embedding", "word_embedding")) or own == "embed_tokens"
    return isinstance(part, nn.Embedding) and named
