"""The JSON files of a model: that they hold what transformers expects, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embvar_kit.errors import ModelError, first_line

_INDEX = "model.safetensors.index.json"
_NEEDED = {"tokenizer.json": "model", _INDEX: "weight_map", "config.json": ""}
"""Files that must hold an entry, or any at all."""

_FILES = (*_NEEDED, "tokenizer_config.json", "special_tokens_map.json")
_OWN = ("eager", "sdpa")  # attention that needs PyTorch alone


def check_json_files(folder: Path, label: str) -> None:
    """Refuse a file that is no JSON, or JSON of something else than a model's.

    Raises:
        ModelError: naming the file.
    """
    for name in _FILES:
        path = folder / name
        if not path.is_file() or (name == _INDEX and (folder / "model.safetensors").is_file()):
            continue
        try:
            told, problem = json.loads(path.read_bytes()), ""
        except (OSError, ValueError, RecursionError) as error:
            told, problem = {}, f"no JSON, or cut short ({first_line(error)})"
        if not problem and not isinstance(told, dict):
            problem = "no JSON object"
        needed = _NEEDED.get(name)
        if not problem and needed is not None and not (told.get(needed) if needed else told):
            problem = f"without {needed!r}" if needed else "empty"
        if not problem and name == _INDEX and "metadata" not in told:
            problem = "without 'metadata'"
        if problem:
            raise ModelError(
                f"{name} of {label!r} is {problem}. Copy or download it again, or write it with "
                "save_pretrained(folder) where model and tokenizer still load."
            )


def refuse_quantised(told: Mapping[str, Any], label: str) -> None:
    """Refuse weights that are quantised: what runs in their place depends on device and packages.

    Args:
        told: the configuration as its file says it.
        label: the model's name for messages.

    Raises:
        ModelError: naming the method.
    """
    for part in _parts(told):
        if asked := part.get("quantization_config"):
            method = asked.get("quant_method") if isinstance(asked, Mapping) else asked
            raise ModelError(
                f"The weights of {label!r} are quantised ({method}: quantization_config in "
                "config.json), and what transformers computes with them depends on the device and "
                "on what is installed. Load the model in float32, bfloat16 or float16, or "
                "dequantize() it with transformers and save_pretrained() it."
            )


def attention_asked_for(told: Mapping[str, Any]) -> str | None:
    """The kernels that a configuration asks for which need a package of their own, if it does.

    FlashAttention, for one, runs on some GPUs in half precision, and only if it is installed. So
    that a result depends on neither, PyTorch's own kernels run in its place.

    Args:
        told: the configuration as its file says it.
    """
    for part in _parts(told):
        for name in ("attn_implementation", "_attn_implementation"):
            asked = part.get(name)
            # A mapping names kernels for each part of a model.
            for one in asked.values() if isinstance(asked, Mapping) else [asked]:
                if isinstance(one, str) and one not in _OWN:
                    return one
    return None


def _parts(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A configuration and the configurations of its parts."""
    yield told
    yield from (value for value in told.values() if isinstance(value, Mapping))
