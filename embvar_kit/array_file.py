"""A checkpoint on disk: one file, whole or not there at all, that knows whether it is intact.

It is a safetensors file, which cannot carry code; what JSON can say, and a SHA-256 of everything,
stand in its header. A new one is written beside the old one and takes its place in one rename,
once it is on the disk to its last byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from embvar_kit.errors import CheckpointError
from embvar_kit.files import remove_leftovers, replacing

_TOLD, _SHA256 = "told", "sha256"


class CheckpointFile:
    """A checkpoint that was opened and found intact; arrays are read one by one.

    Attributes:
        path: the file.
        told: what was told to :func:`write`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _named(path):
            with safe_open(path, "np") as file:
                header = file.metadata() or {}
                names = list(file.keys())
            self.told: dict[str, Any] = json.loads(header[_TOLD])
            digest = _digest(self.told, ((name, self[name]) for name in sorted(names)))
            if digest != header[_SHA256]:
                raise ValueError("its contents do not have the SHA-256 that it names")

    def __getitem__(self, name: str) -> np.ndarray:
        with safe_open(self.path, "np") as file:
            return file.get_tensor(name)


def write(path: Path, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> None:
    """Write arrays and what JSON can say; the file that was there stays until the new one is whole.

    Args:
        path: the file; a process that holds :func:`locked` on its folder is its only writer.
        arrays: C-contiguous; they are written from where they lie.
        told: survives JSON unchanged.

    Raises:
        CheckpointError: if it cannot be written. The file that was there is unharmed.
    """
    whole = dict(sorted(arrays.items()))
    header = {_TOLD: json.dumps(told), _SHA256: _digest(told, whole.items())}
    try:
        remove_leftovers(path)
        with replacing(path) as scratch:
            save_file(whole, scratch, metadata=header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Could not write the checkpoint {str(path)!r}: "
            f"{getattr(error, 'strerror', None) or error}. The one before it, if any, is unharmed."
        ) from error


def compare(asked: Mapping[str, Any], found: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse, by name, what other settings led to.

    Raises:
        CheckpointError: naming each setting that differs, as it was and as it is asked for.

    >>> compare({"seed": 0, "steps": 9}, {"seed": 0, "steps": 8}, "It", "Go.")
    Traceback (most recent call last):
    embvar_kit.errors.CheckpointError: It was made with steps=8; asked for is steps=9. Go.
    """
    changed = [key for key in asked | found if asked.get(key) != found.get(key)]
    if changed:
        before, now = (
            ", ".join(f"{key}={given.get(key)!r}" for key in changed) for given in (found, asked)
        )
        raise CheckpointError(f"{what} was made with {before}; asked for is {now}. {remedy}")


def _digest(told: Mapping[str, Any], arrays: Any) -> str:
    digest = hashlib.sha256(json.dumps(told).encode())
    for name, array in arrays:
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    # A damaged header leads to errors of many kinds.
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} cannot be read ({error}). Remove it to begin again."
        ) from error
