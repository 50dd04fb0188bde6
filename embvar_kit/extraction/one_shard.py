"""One shard: its groups counted, or its moments measured, as the arrays of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd
import torch

from embvar_kit.array_file import strings_as_arrays, strings_of
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import NothingLeftError
from embvar_kit.extraction.checkpoint import EVERY, keeping, remove
from embvar_kit.extraction.environment import environment
from embvar_kit.extraction.groups import with_dealt_labels
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.measure import NULL, Measured, info_of, measure
from embvar_kit.extraction.plan import Plan, at_sites, plan
from embvar_kit.extraction.shard_text import documents_in

if TYPE_CHECKING:
    from embvar_kit.extraction.shards import ShardedPass
    from embvar_kit.models.loading import EmbeddingModel

Contents = tuple[dict[str, np.ndarray], dict[str, Any]]
"""The arrays of a shard's file, and what is told beside them."""


def make(
    job: ShardedPass,
    phase: str,
    shard: int,
    model: EmbeddingModel,
    *,
    progress: bool = False,
    checkpoint_every: float | None = None,
) -> int:
    """Make the file of a shard; see :meth:`ShardedPass.run` for the arguments.

    Returns:
        Number of tokens in the shard.
    """
    kept_in = None
    if phase == "shards" and checkpoint_every is not None and job.store.local:
        kept_in = Path(job.store.path(f"running/{shard:05}"))
    with _threads(job.asked["threads"]):
        if phase == "counts":
            arrays, told = _count(job, shard, model)
        else:
            arrays, told = _measure(job, shard, model, progress, kept_in, checkpoint_every)
    job.write(job.name(phase, shard), arrays, told)
    # Only now: if the state cannot be written, the progress is all that there is of the shard.
    if kept_in is not None and kept_in.is_dir():
        remove(kept_in)
    return told["tokens"]


def groups_of_first(job: ShardedPass, model: EmbeddingModel) -> tuple[int, int]:
    """Number of measured groups in shard 0, and of groups in its null.

    Args:
        job: the pass.
        model: it tokenizes the shard if nothing was counted.

    Raises:
        DamagedShard, CheckpointError: if what was counted is damaged.
    """
    null = len(job.written(job.name("null", 0))["group"]) if "null" in job.asked else 0
    if job.counts_first:
        file = job.read("counts", 0, whole=True)
        measured = job.groups.index.get_indexer(strings_of(file, "label")) >= 0
        return int(measured.sum()), null
    try:
        work = _plan(job, job.text(0), model, None)
    except NothingLeftError:
        return 0, null
    return len(work.labels), null


def _plan(
    job: ShardedPass,
    corpus: Corpus,
    model: EmbeddingModel,
    only: pd.Index | None,
    document: np.ndarray | None = None,
) -> Plan:
    asked = job.asked
    names = ("by", "layers", "batch_tokens", "long", "parse_special")
    options = {name: asked[name] for name in names}
    if told := asked.get("leave_out"):
        options["leave_out"] = LeaveOut.from_told(told)
    return plan(
        model,
        corpus,
        sites=len(asked["sites"]),
        min_count=1 if only is None else asked["min_count"],
        covariance=asked.get("covariance", False),
        only=only,
        document=document,
        **options,
    )


def _count(job: ShardedPass, shard: int, model: EmbeddingModel) -> Contents:
    try:
        work = _plan(job, job.text(shard), model, None)
    except NothingLeftError:
        return _nothing("n", "special") | strings_as_arrays([], "label"), {"tokens": 0}
    arrays = {"n": work.n, "special": work.special.astype(np.uint8)}
    return arrays | strings_as_arrays(work.labels.tolist(), "label"), {"tokens": work.n_tokens}


def _measure(
    job: ShardedPass,
    shard: int,
    model: EmbeddingModel,
    progress: bool,
    kept_in: Path | None,
    checkpoint_every: float | None,
) -> Contents:
    corpus = job.text(shard)
    work = _plan(job, corpus, model, job.groups.index, documents_in(job, shard))
    if not len(work.labels):  # none of the groups is in it; its text counts all the same
        info = {**info_of(model, corpus, work, [environment(model)]), "corpora": []}
        told = {"tokens": 0, "info": info, **_read_from(corpus)}
        nothing = _nothing("group", "n", "subwords")
        return nothing | _nothing(*(f"{NULL}{name}" for name in nothing)), told
    groups = {"": job.groups.index.get_indexer(work.labels)}
    if "null" in job.asked:
        work, groups[NULL] = with_dealt_labels(job, work, shard)
        work = at_sites(work, len(job.asked["sites"]), model)
    asked = {**job.asked, "shard": shard}
    every = EVERY if checkpoint_every is None else checkpoint_every
    with keeping(kept_in, every, lambda: asked, whole=False) as kept:
        if kept:
            kept.begin_part(corpus)
        measured = measure(model, corpus, work, job.asked["sites"], progress=progress, kept=kept)
    work, arrays = measured.work, {}
    for prefix, own in (("", measured), (NULL, measured.null)):
        if own is not None:
            arrays |= _state(own, groups[prefix], prefix)
    info = {**measured.info, "corpora": []}
    told = {"tokens": work.n_tokens, "info": info, "counts": list(work.counts)}
    if measured.null is not None:
        told["null_counts"] = list(measured.null.work.counts)
    return arrays, told | _read_from(corpus)


def _state(measured: Measured, groups: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of what a shard's pass found, by name; ``groups`` are those of the corpus."""
    work = measured.work
    n = measured.held[0][0].count
    arrays = {"group": groups, "n": n}
    arrays |= {f"counts/{name}": count for name, count in work.counts.items()}
    if work.subwords is not None:
        arrays["subwords"] = work.subwords
    for site, own in zip(measured.moments.sites, measured.held, strict=True):
        for layer, moments in zip(work.layers, own, strict=True):
            state = moments.state()
            del state["count"]  # the same everywhere: n
            arrays |= {f"{site}/{layer}/{name}": array for name, array in state.items()}
    if not n.all():  # groups whose every occurrence was of high norm
        kept = np.flatnonzero(n)
        arrays = {name: array[kept] for name, array in arrays.items()}
    for (site, layer), own in measured.moments.covariances().items():
        arrays |= {f"{site}/{layer}/{name}": array for name, array in own.state().items()}
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _read_from(corpus: Corpus) -> Mapping[str, Any]:
    """What is known of a shard's text once it was read."""
    return {"fingerprint": corpus.fingerprint, "without_text": corpus.without_text}


def _nothing(*names: str) -> dict[str, np.ndarray]:
    return {name: np.zeros(0, dtype=np.int64) for name in names}


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let PyTorch and Numba use so many threads, when called from this one."""
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(number)
    numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
