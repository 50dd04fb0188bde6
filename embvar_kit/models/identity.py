"""What a model's numbers depend on beside its weights: its configuration, tokenizer and code.

Two folders with the same weights and another ``rms_norm_eps``, another vocabulary or edited code
are different models, though the SHA-256 of their weights is the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DIGESTS = ("configuration", "tokenizer", "code")
"""What digests are told of; of code only where a model brings its own."""

_NEUTRAL = frozenset(
    [
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "_attn_implementation",
        "attn_implementation",
        "_attn_implementation_internal",
        "_commit_hash",
        "use_cache",
        "_experts_implementation",
        "experts_implementation",
        "id2label",
        "label2id",
        "problem_type",
        "finetuning_task",
        "task_specific_params",
        "output_hidden_states",
        "output_attentions",
        "return_dict",
        "gradient_checkpointing",
    ]
)
"""Entries of a configuration that say where it is from, or how it is run, not what is computed."""


def digests(
    module: Any, tokenizer: Any, begin: Sequence[int], end: Sequence[int]
) -> dict[str, str]:
    """Short digests of the configuration, the tokenizer and, if it brings any, the model's code.

    Args:
        module: the transformers model that is run.
        tokenizer: its tokenizer.
        begin, end: vocabulary ids put around each sentence.
    """
    found = {
        "configuration": _short(_plain(module.config.to_dict())),
        "tokenizer": digest_of_tokenizer(tokenizer, begin, end),
    }
    brought = {_package(part) for part in (*module.modules(), module.config, tokenizer)}
    if code := _code(brought - {""}):
        found["code"] = _short(code)
    return found


def digest_of_tokenizer(tokenizer: Any, begin: Sequence[int], end: Sequence[int]) -> str:
    """A short digest of a tokenizer, and of the ids that it puts around each sentence."""
    return _short([_of_tokenizer(tokenizer), list(begin), list(end)])


def _of_tokenizer(tokenizer: Any) -> dict[str, Any]:
    told = {"class": type(tokenizer).__name__, "special": _plain(tokenizer.special_tokens_map)}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        # These are set and taken back by calls.
        return told | {"backend": {**whole, "truncation": None, "padding": None}}
    # A tokenizer without a backend keeps what it was made with; names of files do not matter.
    kept = {
        name: value
        for name, value in tokenizer.init_kwargs.items()
        if isinstance(value, bool | int | float)
    }
    told |= {"vocabulary": tokenizer.get_vocab(), "made with": kept}
    told["merges"] = _plain(getattr(tokenizer, "bpe_ranks", {}))
    if (pieces := getattr(tokenizer, "sp_model", None)) is not None:
        told["pieces"] = hashlib.sha256(pieces.serialized_model_proto()).hexdigest()
    return told


def _package(thing: Any) -> str:
    """The package of code that a model brought which a thing's class is from; empty if none."""
    module = type(thing).__module__
    return module.rpartition(".")[0] if module.startswith("transformers_modules.") else ""


def _code(packages: set[str]) -> list[tuple[str, str]]:
    """The name and SHA-256 of each module that was imported from packages."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(getattr(module, "__spec__", None), "origin", None)
        if name.rpartition(".")[0] in packages and file and Path(file).suffix == ".py":
            content = Path(file).read_bytes()
            found.add((name.rpartition(".")[2], hashlib.sha256(content).hexdigest()))
    return sorted(found)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, without what does not change what is computed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items() if str(key) not in _NEUTRAL}
    if isinstance(value, list | tuple | set):
        parts = [_plain(x) for x in value]
        return sorted(parts, key=repr) if isinstance(value, set) else parts
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value) if type(value).__repr__ is not object.__repr__ else type(value).__name__


def _short(value: Any) -> str:
    told = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]
