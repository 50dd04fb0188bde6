"""A pass that can be killed at any moment: its progress, kept in a folder, and taken up again.

The folder holds one file, ``pass.safetensors`` (see :mod:`embvar_kit.files`): the moments
after so many batches, and what was asked for. Batches and their order follow from model, corpus and
settings, so a pass that goes on ends with the bits of one that was never interrupted. Of a stream
there is also ``merged-N/SITE``, the statistics of its chunks before the N-th, as
:meth:`TokenStatistics.save` writes them.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embvar_kit._version import __version__
from embvar_kit.array_file import CheckpointFile, compare, write
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import CheckpointError, EmbvarWarning
from embvar_kit.extraction.plan import Plan
from embvar_kit.files import locked, remove_leftovers
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.statistics.token_statistics import TokenStatistics

EVERY = 300.0
"""Seconds between two checkpoints, unless asked for otherwise."""

_NAME = "pass.safetensors"
_COST = 20  # a checkpoint that took a second is not followed by another within so many
_REMEDY = "Go on with what it was made with, name another folder, or remove it to begin again."


class Checkpoint:
    """The progress of one pass in one folder, which no other process uses meanwhile.

    Args:
        folder: where to; made if it is not there.
        every: seconds between two checkpoints, at least. Where one takes long, they are made less
            often, so as not to slow the pass; 0 asks for one after every batch all the same.
        asked: what the pass depends on, as :func:`settings_of` says it.

    Raises:
        CheckpointError: if what is in the folder is damaged or was asked for otherwise.
    """

    def __init__(self, folder: Path, every: float, asked: Mapping[str, Any]) -> None:
        self.path, self.every, self.asked = folder / _NAME, every, dict(asked)
        self.parts: list[dict] = []
        self.kept = CheckpointFile(self.path) if self.path.is_file() else None
        if self.kept is not None:
            compare(self.asked, self.kept.told["asked"], self._named, _REMEDY)
        self._last, self._cost, self._warned = time.monotonic(), 0.0, False

    @property
    def _named(self) -> str:
        return f"The checkpoint {str(self.path)!r}"

    def begin_part(self, part: Corpus) -> bool:
        """A corpus, or the next chunk of a stream: has all of it been measured and merged?

        Raises:
            CheckpointError: if it is another text than the one that was measured.
        """
        self.parts.append({"corpus": part.name, "fingerprint": part.fingerprint})
        if self.kept is None:
            return False
        at, known = len(self.parts) - 1, self.kept.told["parts"]
        if at < len(known):
            text = {name: known[at][name] for name in self.parts[at]}
            compare(self.parts[at], text, self._named, _REMEDY)
        return at < len(known) - 1

    def check_all_seen(self) -> None:
        """To be called at the end of a stream.

        Raises:
            CheckpointError: if it was longer when the checkpoint was made.
        """
        if self.kept is not None and len(self.kept.told["parts"]) > len(self.parts):
            raise CheckpointError(f"{self._named} was made with a longer corpus. {_REMEDY}")

    def merged(self) -> dict[str, TokenStatistics]:
        """The statistics of the chunks before the present one, as they were kept."""
        if len(self.parts) < 2:
            return {}
        folder = self._merged_at(len(self.parts))
        return {site: TokenStatistics.load(folder / site) for site in self.asked["sites"]}

    def keep_merged(self, found: Mapping[str, TokenStatistics]) -> None:
        """Keep the statistics of all chunks till now; the next checkpoint builds on them."""
        folder = self._merged_at(len(self.parts) + 1)
        for site, statistics in found.items():
            statistics.save(folder / site)

    def resume(self, work: Plan) -> tuple[int, Mapping[str, np.ndarray] | None]:
        """How many batches of the present part were run, and the moments after them.

        Raises:
            CheckpointError: if its batches are no longer the same, since a library's tokenizer
                changed, for one.
        """
        self.parts[-1]["batches"] = _digest(work)
        if self.kept is None or len(self.kept.told["parts"]) != len(self.parts):
            return 0, None
        compare(self.parts[-1], self.kept.told["parts"][-1], self._named, _REMEDY)
        return self.kept.told["done"], self.kept

    def check_room(self, n_bytes: int) -> None:
        """Is there room on the disk for a checkpoint of so many bytes beside the one before it?

        Raises:
            CheckpointError: if there is not: better known before the pass than in its midst.
        """
        here = self.path.stat().st_size if self.path.is_file() else 0
        free = shutil.disk_usage(self.path.parent).free
        if free + here < 2 * n_bytes:
            raise CheckpointError(
                f"Checkpoints in {str(self.path.parent)!r} need up to {2 * n_bytes / 1e9:,.1f} GB, "
                f"and {free / 1e9:,.1f} GB are free: name a folder on another disk, or take fewer "
                "layers (layers=...)."
            )

    def due(self) -> bool:
        """Whether it is time for the next one."""
        wait = max(self.every, _COST * self._cost) if self.every else 0.0
        return time.monotonic() - self._last >= wait

    def save(self, done: int, state: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write what a pass has after ``done`` batches of the present part.

        Where that fails, on a full disk for one, the pass goes on and the checkpoint before this
        one stays; a warning says so, once.
        """
        started = time.monotonic()
        told = {"asked": self.asked, "parts": self.parts, "done": done}
        try:
            write(self.path, state(), told)
        except CheckpointError as error:
            if not self._warned:
                warnings.warn(f"{error} The pass goes on.", EmbvarWarning, stacklevel=2)
            self._warned = True
        else:
            self.kept = None  # its file is no more
            self._remove_merged(but=self._merged_at(len(self.parts)))
        self._last = time.monotonic()
        self._cost = self._last - started

    def _merged_at(self, part: int) -> Path:
        return self.path.parent / f"merged-{part}"

    def _remove_merged(self, but: Path) -> None:
        for folder in self.path.parent.glob("merged-*"):
            if folder != but:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def keeping(
    folder: str | Path | None, every: float, asked: Callable[[], Mapping[str, Any]]
) -> Iterator[Checkpoint | None]:
    """The checkpoint of a folder for as long as a pass takes; ``None`` for no folder.

    Raises:
        CheckpointError: if another process uses the folder, it cannot be written, ``every`` makes
            no sense, or see :class:`Checkpoint`.
    """
    if folder is None:
        yield None
        return
    if not every >= 0:
        raise CheckpointError(f"checkpoint_every={every!r} is no number of seconds, 300 for one.")
    folder = Path(folder).expanduser()
    with locked(folder):
        yield Checkpoint(folder, every, asked())


def remove(folder: str | Path) -> None:
    """Remove a checkpoint whose pass is done and saved; other files in the folder stay.

    Raises:
        CheckpointError: if another process uses the folder, or it cannot be removed.
    """
    folder = Path(folder).expanduser()
    with locked(folder):
        for path in folder.glob("merged-*"):
            shutil.rmtree(path, ignore_errors=True)
        remove_leftovers(folder / _NAME)
        (folder / _NAME).unlink(missing_ok=True)
    (folder / ".lock").unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def settings_of(
    model: EmbeddingModel, corpus_name: str, sites: list[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a pass's result depends on but its text, in a form that survives JSON unchanged."""
    return {
        "kit version": __version__,
        "model": model.name,
        "revision": model.revision,
        "weights": _weights(model),
        "dtype": model.dtype,
        "device": model.device.type,
        "corpus": corpus_name,
        "sites": sites,
        **{name: list(x) if isinstance(x, tuple) else x for name, x in options.items()},
    }


def _weights(model: EmbeddingModel) -> str:
    """Digest of the weights as they are: a fine-tuned model has the name of the one it was."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _digest(work: Plan) -> str:
    """Digest of the batches: which tokens, in which order, counted in which groups."""
    digest = hashlib.sha256("\n".join(map(str, work.labels)).encode("utf-8", "surrogatepass"))
    sizes = np.array([len(batch) for batch in work.batches])
    for array in (work.text.ids, work.text.starts, work.group, sizes, *work.batches):
        digest.update(np.ascontiguousarray(array))
    if work.word is not None:
        digest.update(work.word)
    return digest.hexdigest()[:16]
