"""The kit's folders and files: where they are, checksums, writing in one step, and locks.

Importing this needs only the standard library, so ``embvar fetch`` runs without other packages.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embvar_kit.errors import CheckpointError

_ABANDONED = 3600
"""Seconds, longer than any write takes, after which a scratch folder is left over."""

_SCRATCH = re.compile(r"\.writing-[a-z0-9_]{8}$")


def checkout() -> Path | None:
    """The root of the kit's repository; ``None`` if the package is not in one."""
    root = Path(__file__).resolve().parents[1]
    whole = (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir()
    return root if whole else None


def in_checkout(*parts: str) -> Path | None:
    """A path in the repository, for example ``in_checkout("data", "stats")``; ``None`` outside."""
    root = checkout()
    return root.joinpath(*parts) if root else None


def shipped(*parts: str) -> Path:
    """What comes with the kit: a path in ``data/`` of the checkout, or in an installed wheel."""
    return in_checkout("data", *parts) or Path(__file__).resolve().parent.joinpath("data", *parts)


def home() -> Path:
    """The folder for models and cached results.

    It is ``EMBVAR_HOME`` if that is set, else ``data/`` in a checkout, else a folder in the user's
    cache.
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
def replacing(path: Path, *, one_of_many: bool = False) -> Iterator[Path]:
    """Yield a scratch path; the file or folder written there then takes the place of ``path``.

    A reader of a file finds the old or the new one, complete; a folder is absent for an instant
    while it is replaced. If the block raises, the old one stays. A file is flushed to disk before
    it is renamed, and what killed writers of it left behind is removed.

    Args:
        path: the file or folder.
        one_of_many: whether the file is one of thousands in its folder that are checked when they
            are read and can be made again: it is not flushed, should the power fail, and its folder
            is not searched (see :func:`remove_abandoned`).

    Raises:
        OSError: if ``path`` cannot be written, or a file would replace a folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as scratch:
    ...     _ = scratch.write_text("whole")
    >>> [(path.name, path.read_text()) for path in folder.iterdir()]
    [('note.txt', 'whole')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not one_of_many:
        _remove_old(leftovers(path))
    # A scratch folder that cannot be removed does not undo what was written.
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=_scratch_prefix(path), ignore_cleanup_errors=True
    ) as scratch:
        made = Path(scratch) / path.name
        yield made
        if made.is_dir() and path.exists():
            # A rename cannot replace a folder unless it is empty: move the old one aside first.
            before = Path(scratch) / f"{path.name}.before"
            path.rename(before)
            try:
                made.rename(path)
            except BaseException:
                before.rename(path)
                raise
            return
        if made.is_file():
            if not one_of_many:
                with made.open("r+b") as file:
                    os.fsync(file.fileno())
            made.chmod(0o644)  # some libraries write files that only their owner can read
        os.replace(made, path)


def make_writable(folder: Path) -> list[Path]:
    """Make a folder if it is not there, and try to write to it.

    Returns:
        The folders that were made, the innermost first, for :func:`unmake`.

    Raises:
        OSError: if the folder cannot be written. What was made for it is removed.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        unmake(made)
        raise
    return made


def unmake(made: Iterable[Path]) -> None:
    """Remove the folders that :func:`make_writable` made, as far as they are empty."""
    for one in made:
        with suppress(OSError):  # it is not empty, or was never made
            one.rmdir()


def leftovers(path: Path) -> list[Path]:
    """Scratch folders beside ``path``, left over from killed writers or still being written to."""
    of_path = re.compile(re.escape(_scratch_prefix(path)) + r"[a-z0-9_]{8}")
    return sorted(near for near in path.parent.glob(".*") if of_path.fullmatch(near.name))


def remove_abandoned(folder: Path) -> None:
    """Remove the scratch folders that killed writers of any file of a folder left behind."""
    _remove_old(near for near in folder.glob(".*") if _SCRATCH.search(near.name))


def _remove_old(scratch: Iterable[Path]) -> None:
    for left in scratch:
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(left)


def remove_leftovers(path: Path) -> None:
    """Remove :func:`leftovers`. Only call this as the only writer of ``path``."""
    for left in leftovers(path):
        shutil.rmtree(left, ignore_errors=True)


def _scratch_prefix(path: Path) -> str:
    return f".{path.name}.writing-"  # tempfile adds eight characters


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the kit's cache, on a disk that has room, which is removed at the end."""
    cache = home() / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="pass-") as folder:
        yield Path(folder)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder of checkpoints for this process; the lock is released if the process dies.

    Args:
        folder: the folder; it is made if it does not exist.
        wait: if another process has locked the folder, print that and wait for it.

    Raises:
        CheckpointError: if another process has locked the folder and ``wait`` is false, or the
            folder cannot be written.
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
                    f"Another process is using {str(folder)!r}. Wait for it, or name another "
                    "folder."
                ) from error
            print(f"Another process is using {str(folder)!r}: waiting for it.", flush=True)
            lock.acquire()
    except OSError as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be written: {error.strerror or error}. Name a folder in "
            "which you may write."
        ) from error
    try:
        yield
    finally:
        lock.release()
