"""Weights in a model's files that the model, as its configuration builds it, has no place for.

transformers leaves them out and goes on: a file with biases under a configuration without them, or
with more layers than the configuration says, gives a model that nobody trained. Weights of parts
that are not run (a head, a pooler, the decoder beside an encoder, a tower for images) are left out
rightly. A weight belongs to what is run if its name leads into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from embvar_kit.errors import ModelError
from embvar_kit.models.parts import text_config, text_parts

_COMPUTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|(original_)?inv_freq|masked_bias|causal_mask|version"
    r"|num_batches_tracked)$"
)
"""Constants that older releases of transformers and other tools stored with the weights."""

_SCALES = re.compile(r"(scale|scale_inv|scales|zeros|qzeros|qweight|absmax|quant_map|SCB|g_idx)$")
"""Ends of names that quantised weights are stored with."""

_ROPE = re.compile(r"(blk\.\d+\.)?rope_f(reqs|actors)")
_LINEAR = "scale_linear"  # the factor in older headers
_OF_EXPERTS = ("_exps.", "_shexp.", "_projs.", "exp_probs_b")


def check_places(whole: nn.Module, run: nn.Module, unexpected: Iterable[str], label: str) -> None:
    """Refuse a model that lacks a place for weights which belong to what is run.

    Args:
        whole: the model as transformers built it.
        run: the part of it that gives the hidden states.
        unexpected: names in the files that the model has no weight for.
        label: the model's name for messages.

    Raises:
        ModelError: naming one of the weights.
    """
    known = _ignored(whole)
    lost = sorted(key for key in unexpected if not known(key) and _lost(key, whole, run))
    if not lost:
        return
    if any(_SCALES.search(key) for key in lost):
        raise ModelError(
            f"The weights of {label!r} are quantised (there is {_scale(lost)!r} among them) in a "
            "way that config.json does not describe, so that transformers would take the stored "
            "integers for weights. Load the model in float32, bfloat16 or float16."
        )
    raise ModelError(
        f"The files of {label!r} hold weights that the model has no place for ({len(lost)}, among "
        f"them {lost[0]!r}); transformers would leave them out. config.json describes another "
        "model than the weights are of: copy or download both again."
    )


def _scale(names: list[str]) -> str:
    return next(name for name in names if _SCALES.search(name))


def _ignored(whole: Any) -> Any:
    """Whether transformers itself declares that a name may be left out, with a head or without."""
    classes = [getattr(transformers, name, None) for name in whole.config.architectures or ()]
    patterns = [_COMPUTED.pattern]
    for one in classes:
        patterns += getattr(one, "_keys_to_ignore_on_load_unexpected", None) or ()
    # Layers that predict further tokens in training follow those that are run.
    more = getattr(text_config(whole), "num_nextn_predict_layers", None) or 0
    layers = getattr(text_config(whole), "num_hidden_layers", None) or 0
    patterns += [rf"(^|\.)layers\.{layers + i}\." for i in range(more)]
    return re.compile("|".join(f"({pattern})" for pattern in patterns)).search


def _lost(key: str, whole: nn.Module, run: nn.Module) -> bool:
    """Whether a weight that has no place belongs to the part that is run."""
    prefix = f"{getattr(whole, 'base_model_prefix', '')}."
    stripped = prefix != "." and key.startswith(prefix) and prefix[:-1] not in whole._modules
    node, rest = whole, key.removeprefix(prefix if stripped else "").split(".")
    while len(rest) > 1 and isinstance(below := node._modules.get(rest[0]), nn.Module):
        node, rest = below, rest[1:]
    parts = text_parts(run) or [run]
    if not any(node is module for part in parts for module in part.modules()):
        return False
    if rest[0] in node._buffers:  # a constant that the model computes itself
        return False
    if len(rest) == 1 and rest[0] == "bias" and not node._parameters:  # a mask, in GPT-NeoX
        return False
    if node is whole:  # a head stands beside the model under names of its own
        return len(rest) == 1 and stripped
    return node not in parts or len(rest) == 1


def check_gguf_places(path: Path, whole: Any, label: str) -> None:
    """Refuse a GGUF model of which transformers leaves something out without a word.

    Args:
        path: the file.
        whole: the model that transformers made of it.
        label: the model's name for messages.

    Raises:
        ModelError: if its rotary positions are scaled and the model's are not, or a layer has a
            weight that the model lacks.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader = GGUFReader(path)
    names = [tensor.name for tensor in reader.tensors]
    architecture = str(reader.get_field("general.architecture").contents())
    told = [reader.get_field(f"{architecture}.rope.{key}") for key in ("scaling.type", _LINEAR)]
    scaled = [str(field.contents()) for field in told if field is not None]
    scaled = [kind for kind in scaled if kind not in ("none", "1.0")]
    scaled += filter(_ROPE.match, names)
    if scaled and not _scales_rope(text_config(whole)):
        raise ModelError(
            f"{path.name} of {label!r} scales its rotary positions ({scaled[0]}), which "
            "transformers leaves out when it reads GGUF. Load the same model from safetensors."
        )
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config={})
    places = get_gguf_hf_weights_map(whole, processor)
    lost = sorted(
        name
        for name in names
        if name.startswith("blk.")
        and name not in places
        and not _ROPE.match(name)
        and not any(part in name for part in _OF_EXPERTS)
    )
    if lost:
        raise ModelError(
            f"{path.name} of {label!r} holds weights that transformers has no place for "
            f"({len(lost)}, among them {lost[0]!r}) and would leave out. Load the same model from "
            "safetensors."
        )


def _scales_rope(config: Any) -> bool:
    told = getattr(config, "rope_parameters", None) or {}
    kinds = [told.get("rope_type")]
    kinds += [part.get("rope_type") for part in told.values() if isinstance(part, dict)]
    return any(kind not in (None, "default") for kind in kinds)
