"""Checkpoints: a pass that is killed at any moment resumes from the progress kept in a folder.

The folder holds one file, ``pass.safetensors`` (see :mod:`embvar_kit.array_file`): the moments
after a number of batches, and what was asked for. Batches and their order follow from model, corpus
and settings, so a resumed pass ends with the bits of one that was never interrupted, if it is
resumed with the same attention kernel and libraries; it names those that it was run with. For a
stream there is also ``merged-N/SITE``: the statistics of its chunks before the N-th, as
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
"""Default number of seconds between two checkpoints."""

_NAME = "pass.safetensors"
_ENVIRONMENTS = "environments"  # in what is told of a part
_COST = 20  # least pause after a checkpoint, in multiples of the time it took
_REMEDY = "Use the settings it was made with, name another folder, or remove it to start again."


class Checkpoint:
    """The progress of one pass in one folder, which no other process uses meanwhile.

    Args:
        folder: the folder of the checkpoint; made if it does not exist.
        every: least number of seconds between two checkpoints. Checkpoints that take long are
            made less often, so as not to slow the pass; with 0, one follows every batch.
        asked: what the pass depends on, as :func:`settings_of` gives it.
        whole: whether to keep the state after the last batch, too.

    Raises:
        CheckpointError: if the checkpoint in the folder is damaged or has other settings.
    """

    def __init__(
        self, folder: Path, every: float, asked: Mapping[str, Any], *, whole: bool = True
    ) -> None:
        self.path, self.every, self.asked = folder / _NAME, every, dict(asked)
        self.whole = whole
        self.parts: list[dict] = []
        self.kept = CheckpointFile(self.path) if self.path.is_file() else None
        if self.kept is not None:
            compare(self.asked, self.kept.told["asked"], self._named, _REMEDY)
        self._last, self._cost, self._warned = time.monotonic(), 0.0, False

    @property
    def _named(self) -> str:
        return f"The checkpoint {str(self.path)!r}"

    def begin_part(self, part: Corpus) -> bool:
        """Begin a corpus or the next chunk of a stream; return whether it is already in the result.

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
        """Check, at the end of a stream, that the checkpoint does not hold more of it.

        Raises:
            CheckpointError: if the stream was longer when the checkpoint was made.
        """
        if self.kept is not None and len(self.kept.told["parts"]) > len(self.parts):
            raise CheckpointError(f"{self._named} was made with a longer corpus. {_REMEDY}")

    def merged(self) -> dict[str, TokenStatistics]:
        """The stored statistics of the chunks before the present one, by site."""
        if len(self.parts) < 2:
            return {}
        folder = self._merged_at(len(self.parts))
        return {site: TokenStatistics.load(folder / site) for site in self.asked["sites"]}

    def keep_merged(self, found: Mapping[str, TokenStatistics]) -> None:
        """Store the statistics of all chunks so far; the next checkpoint builds on them."""
        folder = self._merged_at(len(self.parts) + 1)
        for site, statistics in found.items():
            statistics.save(folder / site)

    def resume(self, work: Plan) -> tuple[int, Mapping[str, np.ndarray] | None]:
        """The number of batches of the present part that were run, and the moments after them.

        Raises:
            CheckpointError: if its batches are no longer the same, for example because a newer
                library tokenizes differently.
        """
        self.parts[-1]["batches"] = _digest(work)
        if self.kept is None or len(self.kept.told["parts"]) != len(self.parts):
            return 0, None
        known = self.kept.told["parts"][-1]
        known = {name: told for name, told in known.items() if name != _ENVIRONMENTS}
        compare(self.parts[-1], known, self._named, _REMEDY)
        return self.kept.told["done"], self.kept

    def environments(self, now: dict[str, Any] | None) -> list[dict[str, Any] | None]:
        """What the batches of the present part were run with, and will be; checkpoints keep it.

        Args:
            now: what those still to be run are run with, as
                :func:`embvar_kit.extraction.environment.environment` tells; ``None`` if all were.
        """
        before: list[dict[str, Any] | None] = []
        if self.kept is not None and len(self.kept.told["parts"]) == len(self.parts):
            before = self.kept.told["parts"][-1].get(_ENVIRONMENTS, [None])  # unknown to older kits
        found = before if now is None or now in before else [*before, now]
        self.parts[-1][_ENVIRONMENTS] = found
        return found

    def check_room(self, n_bytes: int) -> None:
        """Check that the disk has room for a checkpoint of this size beside the last one.

        Raises:
            CheckpointError: if it has not; it is better to know that before the pass.
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
        """Whether it is time for the next checkpoint."""
        wait = max(self.every, _COST * self._cost) if self.every else 0.0
        return time.monotonic() - self._last >= wait

    def save(self, done: int, state: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Write the state of a pass after ``done`` batches of the present part.

        If that fails, for example on a full disk, the pass continues and the last checkpoint
        stays; a warning says so once.
        """
        started = time.monotonic()
        told = {"asked": self.asked, "parts": self.parts, "done": done}
        try:
            write(self.path, state(), told)
        except CheckpointError as error:
            if not self._warned:
                warnings.warn(f"{error} The pass continues.", EmbvarWarning, stacklevel=2)
            self._warned = True
        else:
            self.kept = None  # its file has been replaced
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
    folder: str | Path | None,
    every: float,
    asked: Callable[[], Mapping[str, Any]],
    *,
    whole: bool = True,
) -> Iterator[Checkpoint | None]:
    """Hold the checkpoint of a folder while a pass runs; gives ``None`` if there is no folder.

    Raises:
        CheckpointError: if another process uses the folder, the folder cannot be written,
            ``every`` is not a number of seconds, or as :class:`Checkpoint`.
    """
    if folder is None:
        yield None
        return
    if not every >= 0:
        raise CheckpointError(f"checkpoint_every={every!r} is not a number of seconds such as 300.")
    folder = Path(folder).expanduser()
    with locked(folder):
        yield Checkpoint(folder, every, asked(), whole=whole)


def remove(folder: str | Path) -> None:
    """Remove a checkpoint whose result has been saved; other files in the folder stay.

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
    """All that a result depends on except the text, in a form that survives JSON unchanged."""
    return {
        "kit version": __version__,
        "model": model.name,
        "revision": model.revision,
        "weights": _weights(model),
        **model.digests,
        "dtype": model.dtype,
        "max_tokens": model.max_tokens,
        "begin": list(model.begin),
        "end": list(model.end),
        "ignores_padding": model.ignores_padding,
        "shares_batches": model.shares_batches,
        "needs_mask": model.needs_mask,
        "device": model.device.type,
        "corpus": corpus_name,
        "sites": sites,
        **{name: list(x) if isinstance(x, tuple) else x for name, x in options.items()},
    }


def _weights(model: EmbeddingModel) -> str:
    """Digest of the weights in memory: a fine-tuned model may keep the name of the original."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.device.type == "meta":  # offloaded: the revision tells the file's weights
            continue
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _digest(work: Plan) -> str:
    """Digest of the batches: their tokens, the order of these, and their groups."""
    digest = hashlib.sha256("\n".join(map(str, work.labels)).encode("utf-8", "surrogatepass"))
    sizes = np.array([len(batch) for batch in work.batches])
    for array in (work.text.ids, work.text.starts, work.group, sizes, *work.batches):
        digest.update(np.ascontiguousarray(array))
    if work.word is not None:
        digest.update(work.word)
    if work.in_folds:  # titles make documents, and the fingerprint of a text does not know them
        for array in (work.in_folds.work.group, work.in_folds.fold):
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
