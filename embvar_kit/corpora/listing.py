"""Many files found by a pattern, here or in the cloud: their listing, and one of them to read."""

from __future__ import annotations

import os
import re
import stat
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

    Links are followed. As in a shell, files and folders whose name begins with a dot are passed
    over, unless the pattern names one: programs keep copies there (``.ipynb_checkpoints``).

    Raises:
        CorpusError: if there are none, the place cannot be read, or a link leads nowhere.
    """
    import fsspec

    try:
        files, root = fsspec.url_to_fs(pattern)
        files.invalidate_cache()  # of what this process saw in a bucket before
        found = files.glob(root, detail=True)
    except Exception as error:  # each kind of file system has errors of its own
        raise CorpusError(f"{pattern!r} cannot be listed: {as_sentence(error)}") from error
    fixed = len(_fixed(root))
    dots = "/." in f"/{root[fixed:]}"
    shown = {path: told for path, told in found.items() if dots or "/." not in f"/{path[fixed:]}"}
    followed = {path: _followed(told) for path, told in sorted(shown.items())}
    kept = {path: told for path, told in followed.items() if told["type"] == "file"}
    if not kept:
        raise CorpusError(f"There is no file that fits {pattern!r}. Check the pattern.")
    return Listing(
        [files.unstrip_protocol(path) if "://" in pattern else path for path in kept],
        np.array([told["size"] for told in kept.values()], dtype=np.int64),
        [_stamp(told) for told in kept.values()],
    )


def title_of(path: str, pattern: str) -> str:
    """The path of a file below the folder in which a pattern looks; it tells files of equal names.

    >>> title_of("s3://bucket/a/one.txt", "s3://bucket/**/*.txt")
    'a/one.txt'
    """
    import fsspec

    root = pattern if "://" in pattern else fsspec.url_to_fs(pattern)[1]
    return path.removeprefix(_fixed(root)) or path


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
            # Two colons in the name of a local file are no chain of file systems.
            files, place = fsspec.url_to_fs(path) if "://" in path else (LocalFileSystem(), path)
            files.invalidate_cache()  # the stamp is to be that of the bytes read below
            stamp = _stamp(_followed(files.info(place)))
            local = Path(place)
            if not isinstance(files, LocalFileSystem):
                local = Path(folder) / local.name
                files.get_file(place, str(local))
        except CorpusError:
            raise
        except Exception as error:
            raise CorpusError(f"{path!r} cannot be read: {as_sentence(error)}") from error
        yield local, stamp


def _fixed(root: str) -> str:
    """The folder in which a pattern looks: what stands before its first part with a wildcard."""
    before = root[: _PATTERN.search(root).start()] if _PATTERN.search(root) else root
    return before[: before.rfind("/") + 1]


def _followed(told: dict[str, Any]) -> dict[str, Any]:
    """What is known of a file on this machine, or of the file that a link leads to."""
    if not told.get("islink"):
        return told
    try:
        target = os.stat(told["name"])
    except OSError as error:
        raise CorpusError(
            f"{told['name']!r} is a link that leads to no file ({error.strerror}). Mend it or "
            "delete it."
        ) from error
    kind = "file" if stat.S_ISREG(target.st_mode) else "other"
    return {"type": kind, "size": target.st_size, "mtime": target.st_mtime}


def _stamp(told: dict[str, Any]) -> str:
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    changed = next((told[name] for name in names if told.get(name)), "")
    return f"{told.get('size')} bytes, {changed}"  # some copies keep the time
