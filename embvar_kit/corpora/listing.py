"""Many files found by a pattern, here or in the cloud: their listing, and one of them to read."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embvar_kit.errors import CorpusError, as_sentence

_PATTERN = re.compile(r"[*?\[]")


class Listing(NamedTuple):
    """Files in the order of their paths.

    Attributes:
        paths: where they are.
        sizes: ``(D,)`` their sizes in bytes.
        stamps: by which a changed file is told: the time of its last change, or its ETag.
    """

    paths: list[str]
    sizes: np.ndarray
    stamps: list[str]


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files.

    >>> [is_pattern(name) for name in ("texts/*.txt", "s3://bucket/part-?.parquet", "a.txt")]
    [True, True, False]
    """
    return bool(_PATTERN.search(name)) and not Path(name).expanduser().is_file()


def list_files(pattern: str) -> Listing:
    """The files that a pattern stands for, as fsspec finds them.

    Raises:
        CorpusError: if there are none, or the place cannot be read.
    """
    import fsspec

    try:
        files, root = fsspec.url_to_fs(pattern)
        found = files.glob(root, detail=True)
    except Exception as error:  # each kind of file system has errors of its own
        raise CorpusError(f"{pattern!r} cannot be listed: {as_sentence(error)}") from error
    kept = {path: told for path, told in sorted(found.items()) if told["type"] == "file"}
    if not kept:
        raise CorpusError(f"There is no file that fits {pattern!r}. Check the pattern.")
    return Listing(
        [files.unstrip_protocol(path) if "://" in pattern else path for path in kept],
        np.array([told["size"] for told in kept.values()], dtype=np.int64),
        [_stamp(told) for told in kept.values()],
    )


@contextmanager
def on_this_machine(path: str) -> Iterator[tuple[Path, str]]:
    """Give a file of a listing on this machine, copied if it lies elsewhere, and its stamp.

    Raises:
        CorpusError: if it cannot be read.
    """
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    with tempfile.TemporaryDirectory() as folder:
        try:
            files, place = fsspec.url_to_fs(path)
            stamp = _stamp(files.info(place))
            local = Path(place)
            if not isinstance(files, LocalFileSystem):
                local = Path(folder) / local.name
                files.get_file(place, str(local))
        except Exception as error:
            raise CorpusError(f"{path!r} cannot be read: {as_sentence(error)}") from error
        yield local, stamp


def _stamp(told: dict[str, Any]) -> str:
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    return str(next((told[name] for name in names if told.get(name)), ""))
