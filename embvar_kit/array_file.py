"""Named arrays and a description in one file, with checksums: checkpoints, and states of shards.

It is a safetensors file, which cannot carry code. Its header holds the description, as JSON, a
checksum of each array (XXH3, 128 bits, which is as fast as memory), and a SHA-256 of the header
itself, so that one array can be read and checked without the others. Checksums find damage; they
do not tell who wrote a file. A new file is written beside the old one, flushed to disk, and
replaces it in one rename.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import save_file

from embvar_kit.errors import CheckpointError, DamagedFileError, first_line
from embvar_kit.files import remove_leftovers, replacing

_DESCRIPTION, _DIGESTS, _SHA256 = "told", "digests", "sha256"  # keys in the header

_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1"}
"""The types of number in these files, by their names in safetensors."""

_HASHES = {
    "text": "The sentences differ: compare the corpus, its limit, sample and seed.",
    "fingerprint": "The sentences differ: compare the corpus, its limit, sample and seed.",
    "dealing": "The documents differ: compare the titles.",
    "weights": "The weights of the model differ.",
}
"""What to say of settings that are shown as a hash, by their names."""

_MOST_HEADER = 100_000_000
"""Most bytes of a header, as in the safetensors library: a damaged length must not fill memory."""


class CheckpointFile:
    """A file of arrays whose checksums were verified; ``file[name]`` reads one of them.

    Args:
        path: the file.
        whole: verify every array now; otherwise each is verified when it is read.
        opened: opens the file for reading, if it does not lie on this machine.

    Attributes:
        path: the file.
        told: the description that was passed to :func:`write`.

    Raises:
        CheckpointError: if the file cannot be read; reading an array raises it, too.
        DamagedFileError: if it is missing or damaged.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        whole: bool = True,
        opened: Callable[[], BinaryIO] | None = None,
    ) -> None:
        self.path = path
        self._opened = opened or partial(open, path, "rb", buffering=0)
        with _refusing_damage(path):
            with self._opened() as file:
                size = int.from_bytes(file.read(8), "little")
                if not 0 < size <= _MOST_HEADER:
                    raise ValueError("its header is damaged")
                header = json.loads(file.read(size))
            metadata = header.pop("__metadata__")
            self.told: dict[str, Any] = json.loads(metadata[_DESCRIPTION])
            self._digests: dict[str, str] = json.loads(metadata[_DIGESTS])
            shapes = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
            if _digest(self.told, self._digests, shapes) != metadata[_SHA256]:
                raise ValueError("its contents do not match its SHA-256")
            self._arrays, self._first = header, 8 + size
        if whole:
            for name in self._digests:
                self[name]

    def __getitem__(self, name: str) -> np.ndarray:
        with _refusing_damage(self.path):
            entry = self._arrays[name]
            array = np.empty(entry["shape"], _DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if end - begin != array.nbytes:
                raise ValueError("its contents do not match its header")
            if array.size:
                with self._opened() as file:
                    file.seek(self._first + begin)
                    _fill(array, file)
            if _digest_of(array) != self._digests[name]:
                raise ValueError("its contents do not match their checksum")
            return array


def write(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    description: Mapping[str, Any],
    *,
    one_of_many: bool = False,
) -> None:
    """Write arrays and a description; the old file stays until the new one is complete.

    Args:
        path: the file; no other process writes it meanwhile.
        arrays: C-contiguous arrays, which are written without a copy.
        description: values that JSON returns unchanged.
        one_of_many: as in :func:`embvar_kit.files.replacing`.

    Raises:
        CheckpointError: if the file cannot be written; the old file then stays.
    """
    whole = dict(sorted(arrays.items()))
    names = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
    shapes = {name: (names[array.dtype], list(array.shape)) for name, array in whole.items()}
    digests = {name: _digest_of(array) for name, array in whole.items()}
    header = {
        _DESCRIPTION: json.dumps(description),
        _DIGESTS: json.dumps(digests),
        _SHA256: _digest(description, digests, shapes),
    }
    try:
        if not one_of_many:
            remove_leftovers(path)
        with replacing(path, one_of_many=one_of_many) as scratch:
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
        told = [_HASHES[key] for key in changed if key in _HASHES]
        raise CheckpointError(
            " ".join([f"{what} was made with {before}; this run has {now}.", *told, remedy])
        )


def _digest(
    description: Mapping[str, Any], digests: Mapping[str, str], shapes: Mapping[str, tuple]
) -> str:
    canonical = [json.dumps(part, sort_keys=True) for part in (description, digests, shapes)]
    return hashlib.sha256("\n".join(canonical).encode()).hexdigest()


def _digest_of(array: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(memoryview(array).cast("B") if array.size else b"")


def _fill(array: np.ndarray, file: BinaryIO) -> None:
    """Read an array's bytes from where the file stands."""
    left = memoryview(array).cast("B")
    while len(left):
        if not (read := file.readinto(left)):
            raise ValueError("it is truncated")
        left = left[read:]


@contextmanager
def _refusing_damage(path: Path | str) -> Iterator[None]:
    """Turn what is raised in reading a file into an error that names it.

    A file that is there and cannot be read now, for want of memory or of rights, is not damaged.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedFileError(
            f"The checkpoint {str(path)!r} cannot be read ({first_line(error)}). Remove it to "
            "start over."
        ) from error
    except Exception as error:  # file systems in the cloud have errors of their own
        raise CheckpointError(
            f"The checkpoint {str(path)!r} cannot be read ({first_line(error)})."
        ) from error


def strings_as_arrays(strings: Sequence[str], name: str) -> dict[str, np.ndarray]:
    """Strings as one array of their UTF-8 bytes and one of where each ends, to be written."""
    encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
    return {
        f"{name} bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{name} ends": np.cumsum([len(data) for data in encoded], dtype=np.int64),
    }


def strings_of(file: Mapping[str, np.ndarray], name: str) -> list[str]:
    """The strings that :func:`strings_as_arrays` made arrays of."""
    data, ends = file[f"{name} bytes"].tobytes(), file[f"{name} ends"].tolist()
    return [
        data[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip([0, *ends], ends, strict=False)
    ]
