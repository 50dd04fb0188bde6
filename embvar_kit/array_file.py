"""A checkpoint on disk: one file of arrays and a description, with a checksum of both.

It is a safetensors file, which cannot carry code; its header holds the description, as JSON, and a
SHA-256 of description and arrays. A new file is written beside the old one, flushed to disk, and
replaces it in one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from embvar_kit.errors import CheckpointError, first_line
from embvar_kit.files import remove_leftovers, replacing

_DESCRIPTION, _SHA256 = "told", "sha256"  # keys in the header


class CheckpointFile:
    """A checkpoint whose checksum was verified; ``file[name]`` reads one of its arrays.

    Attributes:
        path: the file.
        told: the description that was passed to :func:`write`.

    Raises:
        CheckpointError: if the file cannot be read, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _refusing_damage(path):
            with safe_open(path, "np") as file:
                header = file.metadata() or {}
                names = list(file.keys())
            self.told: dict[str, Any] = json.loads(header[_DESCRIPTION])
            digest = _digest(self.told, ((name, self[name]) for name in sorted(names)))
            if digest != header[_SHA256]:
                raise ValueError("its contents do not match its SHA-256")

    def __getitem__(self, name: str) -> np.ndarray:
        with safe_open(self.path, "np") as file:
            return file.get_tensor(name)


def write(path: Path, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> None:
    """Write arrays and a description; the old file stays until the new one is complete.

    Args:
        path: the file; the caller holds :func:`embvar_kit.files.locked` on its folder.
        arrays: C-contiguous arrays, which are written without a copy.
        description: values that JSON returns unchanged.

    Raises:
        CheckpointError: if the file cannot be written; the old file then stays.
    """
    whole = dict(sorted(arrays.items()))
    header = {_DESCRIPTION: json.dumps(description), _SHA256: _digest(description, whole.items())}
    try:
        remove_leftovers(path)
        with replacing(path) as scratch:
            save_file(whole, scratch, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Could not write the checkpoint {str(path)!r}: "
            f"{getattr(error, 'strerror', None) or first_line(error)}. "
            "An older checkpoint is unharmed."
        ) from error


def compare(asked: Mapping[str, Any], found: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse a checkpoint that was made with other settings.

    Args:
        asked: the settings of this run.
        found: the settings in the checkpoint.
        what: what the message says was made with them.
        remedy: what to do, as a sentence.

    Raises:
        CheckpointError: naming each setting that differs, with both of its values.

    >>> compare({"seed": 0, "steps": 9}, {"seed": 0, "steps": 8}, "It", "Remove it.")
    Traceback (most recent call last):
    embvar_kit.errors.CheckpointError: It was made with steps=8; this run has steps=9. Remove it.
    """
    changed = [key for key in asked | found if asked.get(key) != found.get(key)]
    if changed:
        before, now = (
            ", ".join(f"{key}={given.get(key)!r}" for key in changed) for given in (found, asked)
        )
        raise CheckpointError(f"{what} was made with {before}; this run has {now}. {remedy}")


def _digest(description: Mapping[str, Any], arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    digest = hashlib.sha256(json.dumps(description).encode())
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turn errors in reading a file into a CheckpointError that names it."""
    try:
        yield
    # A damaged header leads to errors of many kinds.
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} cannot be read ({first_line(error)}). Remove it to "
            "start over."
        ) from error
