"""The kit's folders and the files in them: where they lie, their checksums, who may write.

Standard library only at import, so that ``embvar fetch`` runs where nothing else is installed.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embvar_kit.errors import CheckpointError


def checkout() -> Path | None:
    """The kit's repository, where the package lies in one; else ``None``."""
    root = Path(__file__).resolve().parents[1]
    whole = (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir()
    return root if whole else None


def in_checkout(*parts: str) -> Path | None:
    """A path below the repository's top, ``in_checkout("data", "stats")``; ``None`` outside one."""
    root = checkout()
    return root.joinpath(*parts) if root else None


def home() -> Path:
    """The folder for models and cached results.

    ``EMBVAR_HOME`` where it is set; ``data/`` in a checkout; else the user's cache folder.
    """
    if chosen := os.environ.get("EMBVAR_HOME"):
        return Path(chosen).expanduser()
    if root := checkout():
        return root / "data"
    import platformdirs

    return Path(platformdirs.user_cache_dir("embvar-kit"))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path; what is written there, file or folder, takes the place of ``path``.

    A reader finds the old one or the new one and nothing in between, and if the block raises, the
    old one stays. A file is on the disk to its last byte before it is renamed.

    Raises:
        OSError: if ``path`` cannot be written, or a file is to take the place of a folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as scratch:
    ...     _ = scratch.write_text("whole")
    >>> [(path.name, path.read_text()) for path in folder.iterdir()]
    [('note.txt', 'whole')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_scratch_prefix(path)) as scratch:
        made = Path(scratch) / path.name
        yield made
        if made.is_dir() and path.exists():
            # Only an empty folder can be renamed over: the old one steps aside.
            before = Path(scratch) / f"{path.name}.before"
            path.rename(before)
            try:
                made.rename(path)
            except BaseException:
                before.rename(path)
                raise
            return
        if made.is_file():
            with made.open("r+b") as file:
                os.fsync(file.fileno())
        os.replace(made, path)


def leftovers(path: Path) -> list[Path]:
    """Scratch folders that killed writers left beside ``path``, or that others are writing to."""
    return sorted(path.parent.glob(f"{glob.escape(_scratch_prefix(path))}*"))


def remove_leftovers(path: Path) -> None:
    """Remove :func:`leftovers`; for the only writer of ``path``, which knows that all are dead."""
    for left in leftovers(path):
        shutil.rmtree(left, ignore_errors=True)


def _scratch_prefix(path: Path) -> str:
    return f".{path.name}-"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep a folder of checkpoints to oneself; the system lets go of it when the process ends.

    Args:
        folder: made if it is not there.
        wait: for another process that has it, saying so, instead of raising an error.

    Raises:
        CheckpointError: if another process has it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if not wait:
                raise CheckpointError(
                    f"Another process is at work on {str(folder)!r}. Wait for it, or name another "
                    "folder."
                ) from error
            print(f"Another process is at work on {str(folder)!r}: waiting for it.", flush=True)
            lock.acquire()
    except OSError as error:
        raise CheckpointError(
            f"Checkpoints cannot be kept in {str(folder)!r}: {error.strerror or error}."
        ) from error
    try:
        yield
    finally:
        lock.release()
