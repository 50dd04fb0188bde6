"""The files of a model in a folder, looked at before transformers loads them.

What transformers says about a file that is missing, cut short or a mere pointer names neither the
file nor a remedy; some of it is random weights instead of an error.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.config_files import check_json_files

_POINTER = b"version https://git-lfs.github.com/spec/"
_SMALL = 1024  # bytes: a pointer of git-lfs has some 130
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
_TOKENIZER_FILES += ("merges.txt", "special_tokens_map.json", "added_tokens.json")
_GGUF_HEAD = 32 << 20  # bytes, more than the header of any vocabulary takes
ADAPTER = "adapter_config.json"
"""The file that marks an adapter."""

_FLOATS = ("F64", "F32", "F16", "BF16")  # what weights that are not quantised are stored as
_READERS = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
"""Packages that transformers reads a SentencePiece model with, and the modules they bring."""


def check_files(folder: Path, gguf: str | None, label: str) -> None:
    """Refuse files that cannot be loaded, or that would be loaded as something else.

    Args:
        folder: the model's folder.
        gguf: name of the GGUF file in it, if that is the model.
        label: the model's name for messages.

    Raises:
        ModelError: if a file is a git-lfs pointer, a shard is missing, weights are damaged or cut
            short, a JSON file holds something else, or a GGUF file is one part of several.
    """
    weights = [folder / gguf] if gguf else safetensors_files(folder)
    others = [] if gguf else [folder / name for name in ("config.json", *_TOKENIZER_FILES)]
    others += [] if gguf else folder.glob("*.model")
    if pointers := [path.name for path in (*weights, *others) if is_pointer(path)]:
        one = len(pointers) == 1
        raise ModelError(
            f"{_and(pointers)} of {label!r} {'is a pointer' if one else 'are pointers'} of git-lfs "
            f"in place of the file{'' if one else 's'}. Run `git lfs pull` in the folder that was "
            "cloned."
        )
    if not gguf:
        check_json_files(folder, label)
    if absent := [path.name for path in weights if not path.is_file()]:
        raise ModelError(
            f"{label!r} lacks {_and(absent)}: {_INDEX} names {len(weights)} files of weights. Copy "
            "or download what is missing into the folder."
        )
    if gguf:
        _check_gguf(folder / gguf, label)
    else:
        for path in weights:
            _check_safetensors(path, label)


def refuse_adapter(folder: Path, label: str) -> None:
    """Refuse a folder with an adapter: transformers applies it only where peft is installed.

    Raises:
        ModelError: with the remedy.
    """
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{label!r} holds an adapter ({ADAPTER}), which transformers applies or not "
            "depending on what is installed. Merge it into its model with peft "
            "(merge_and_unload, then save_pretrained to a folder of its own) and load that."
        )


def is_gguf(name: str) -> bool:
    """Whether a file is named as a GGUF file is, in capitals or not."""
    return name.lower().endswith(".gguf")


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads from a folder, present or not.

    Empty if there is neither a single file nor a readable index of several.
    """
    if (folder / _SINGLE).is_file() or not (folder / _INDEX).is_file():
        return [folder / _SINGLE] if (folder / _SINGLE).is_file() else []
    try:
        names = set(
            json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        )
        return [folder / name for name in sorted(names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return [folder / _INDEX] if is_pointer(folder / _INDEX) else []


def is_pointer(path: Path) -> bool:
    """Whether a file is a git-lfs pointer: a clone without git-lfs has those for large files."""
    if not path.is_file() or path.stat().st_size > _SMALL:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def check_tokenizer_files(folder: Path, label: str) -> None:
    """Refuse a folder whose tokenizer is a SentencePiece model alone, where none can be read.

    Raises:
        ModelError: naming the packages that are missing, and how to do without them.
    """
    if any((folder / name).is_file() for name in _TOKENIZER_FILES if "config" not in name):
        return
    models = sorted([*folder.glob("*.model"), *folder.glob("*.spm")])
    lacking = [package for package, module in _READERS.items() if not _importable(module)]
    if models and lacking:
        raise ModelError(
            f"The tokenizer of {label!r} is a SentencePiece model alone ({models[0].name}), which "
            f"transformers reads only with the packages {_and(list(_READERS))}: install "
            f"{_and(lacking)}, or add tokenizer.json. Where those packages are, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes it."
        )


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _check_safetensors(path: Path, label: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # reads the header, compares it with the file's size
            stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"Could not load the model {label!r}: {path.name} ({size:,} bytes) is "
            f"{'empty' if not size else 'damaged or cut short'} ({first_line(error)}). Copy or "
            "download it again."
        ) from error
    whole = [name for name in stored if name.endswith(".weight") and stored[name] not in _FLOATS]
    if whole:
        raise ModelError(
            f"The weights of {label!r} are quantised ({whole[0]!r} in {path.name} is stored as "
            f"{stored[whole[0]]}). Load the model in float32, bfloat16 or float16."
        )


def _check_gguf(path: Path, label: str) -> None:
    """Refuse a part of a split GGUF: transformers would fill the other parts' weights at random."""
    try:
        parts = gguf_parts(path)
    except Exception as error:  # the package raises many kinds for bytes that are no GGUF
        raise ModelError(
            f"Could not load the model {label!r}: {path.name} is damaged, cut short or no GGUF "
            f"file ({first_line(error)}). Copy or download it again."
        ) from error
    if parts > 1:
        raise ModelError(
            f"{path.name} of {label!r} is one of {parts} parts of a split GGUF, and transformers "
            "reads no split ones. Join them with llama.cpp (llama-gguf-split --merge FIRST-PART "
            "WHOLE.gguf) and load the whole."
        )


def gguf_parts(path: Path) -> int:
    """In how many parts a GGUF model was split, of which this file is one; 1 if it was not.

    Raises:
        Exception: of several kinds, if the file is no GGUF.
    """
    from gguf import GGUFReader

    named = re.search(r"-\d{5}-of-(\d{5})\.gguf$", path.name, re.IGNORECASE)
    with path.open("rb") as file:
        head = file.read(_GGUF_HEAD)
    if not head.startswith(b"GGUF"):
        raise ValueError("it does not begin with GGUF")
    # Reading all of a header takes seconds, so that it is read only where it tells of parts.
    field = GGUFReader(path).get_field("split.count") if b"split.count" in head else None
    return max(int(field.contents()) if field else 1, int(named[1]) if named else 1)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
