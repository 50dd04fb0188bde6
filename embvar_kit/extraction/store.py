"""A store: a folder, on this machine or in the cloud, that the workers of a pass write files to.

A file appears in it whole or not at all. On a file system it is written beside its place and
renamed; an object store puts whole objects by itself.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embvar_kit.array_file import CheckpointFile, write
from embvar_kit.errors import CheckpointError, first_line
from embvar_kit.files import locked, remove_abandoned, replacing

_LEASE = "in-use.json"
_RENEW, _STALE, _SETTLE = 20.0, 90.0, 1.0
"""Seconds between two signs of life of a client, after which it is taken for dead, and that it
waits for another that signs at the same time."""


class Store:
    """The files of one pass, under a path that fsspec understands.

    Args:
        url: a local folder, or ``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER`` and the like, for
            which fsspec needs the package of that kind (``s3fs``, ``gcsfs``).

    Raises:
        CheckpointError: if fsspec does not know the kind of path or lacks its package. Every
            method raises it if the store cannot be reached, read or written.
    """

    def __init__(self, url: str | Path) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = str(url)
        with self._refusing("opened"):
            self._files, self._root = fsspec.url_to_fs(self.url)
        self.local = isinstance(self._files, LocalFileSystem)
        if self.local:  # a worker may have another working folder
            self.url = self._root

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def path(self, name: str) -> str:
        """The whole path of a file, without the protocol."""
        return f"{self._root.rstrip('/')}/{name}"

    def names(self, folder: str) -> set[str]:
        """The names of the files in a folder; empty if there is no such folder."""
        with self._refusing("read"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self.path(folder), detail=False)
            except FileNotFoundError:
                return set()
        return {name.rsplit("/", 1)[-1] for name in found}

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with self._refusing("read"):
            self._files.invalidate_cache()
            return self._files.exists(self.path(name))

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file.

        Raises:
            CheckpointError: also if it is damaged.
        """
        with self._refusing("read"):
            data = self._files.cat_file(self.path(name))
        try:
            return json.loads(data)
        except ValueError as error:
            raise CheckpointError(f"{name!r} in {self.url!r} is damaged. Remove it.") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        data = json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self._refusing("written"):
            if self.local:
                with replacing(Path(self.path(name))) as scratch:
                    scratch.write_bytes(data)
            else:
                self._files.pipe_file(self.path(name), data)

    def read_arrays(self, name: str, *, whole: bool = False) -> CheckpointFile:
        """A file of arrays, each of which is verified when it is read, or all now.

        Raises:
            CheckpointError: also if it is missing or damaged.
        """
        opened = (
            None
            if self.local
            else partial(self._files.open, self.path(name), "rb", cache_type="none")
        )
        return CheckpointFile(self.path(name), whole=whole, opened=opened)

    def write_arrays(
        self, name: str, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]
    ) -> None:
        """Write a file of arrays and a description (see :mod:`embvar_kit.array_file`).

        It is not flushed to disk: its checksums tell whether it got there.
        """
        if self.local:
            write(Path(self.path(name)), arrays, description, one_of_many=True)
            return
        with tempfile.TemporaryDirectory() as folder, self._refusing("written"):
            write(Path(folder) / "arrays", arrays, description, one_of_many=True)
            self._files.put_file(str(Path(folder) / "arrays"), self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._refusing("written"), suppress(FileNotFoundError):
            self._files.rm_file(self.path(name))

    def check_writable(self) -> None:
        """Write a small file and remove it again."""
        name = f".writable-{secrets.token_hex(4)}.json"
        self.write_json(name, {})
        self.remove(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only client of the store while the context lasts; workers need not be.

        A local folder is locked. Elsewhere a file tells other clients of this one, and is renewed
        while it lives.

        Raises:
            CheckpointError: if another client uses the store.
        """
        if self.local:
            root = Path(self.path(""))
            with locked(root):
                for folder in (root, *root.iterdir()):
                    remove_abandoned(folder)
                yield
            return
        token = secrets.token_hex(8)
        self._take_lease(token)
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=[over, token], daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()
            with suppress(CheckpointError):  # it then grows old
                if self._holder().get("token") == token:
                    self.remove(_LEASE)

    def _take_lease(self, token: str) -> None:
        other = self._holder()
        if other and abs(time.time() - other["alive"]) < _STALE:
            raise CheckpointError(
                f"Another client ({other['who']}) is using {self.url!r}. Wait for it, or name "
                f"another store; if it died, wait for {_STALE:.0f} seconds."
            )
        self._sign(token)
        time.sleep(_SETTLE)  # of two that sign at once, the later one holds it
        if self._holder().get("token") != token:
            raise CheckpointError(f"Another client is using {self.url!r}. Wait for it.")

    def _holder(self) -> dict[str, Any]:
        """What the client that holds the store has signed; empty if none does."""
        try:
            held = self.read_json(_LEASE) if self.has(_LEASE) else {}
            return {**held, "alive": float(held["alive"])} if held else {}
        except (CheckpointError, TypeError, KeyError, ValueError):
            return {}  # it was removed meanwhile, or is no sign of a client

    def _sign(self, token: str) -> None:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        self.write_json(_LEASE, {"who": who, "alive": time.time(), "token": token})

    def _renew(self, over: threading.Event, token: str) -> None:
        while not over.wait(_RENEW):
            with suppress(CheckpointError):  # the next sign may succeed
                if self._holder().get("token") in (token, None):
                    self._sign(token)

    @contextmanager
    def _refusing(self, done: str) -> Iterator[None]:
        """Turn whatever a file system raises into a CheckpointError that names the store."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            reason = getattr(error, "strerror", None) or first_line(error)
            raise CheckpointError(f"The store {self.url!r} cannot be {done}: {reason}.") from error
