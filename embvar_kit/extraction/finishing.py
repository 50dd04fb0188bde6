"""Filling the store of a pass in shards, on this machine or on others, until it can be merged."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from embvar_kit.errors import EmbvarWarning, ExtractionInterrupted
from embvar_kit.extraction.checkpoint import EVERY
from embvar_kit.extraction.measure import Stopped
from embvar_kit.extraction.shards import DamagedShard, ShardedPass
from embvar_kit.extraction.size_of_folds import size_of_folds
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.statistics.token_statistics import TokenStatistics


@contextmanager
def filling(
    job: ShardedPass, phase: str, shards: Sequence[int], *, progress: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how far a phase is while its files are made.

    Args:
        job: the pass.
        phase: the folder that is filled.
        shards: the shards that lack.
        progress: print a bar: shards done, tokens per second, time left.

    Yields:
        What is told of each shard, as :meth:`ShardedPass.run` returns it.

    Raises:
        ExtractionInterrupted: if the pass is stopped by hand.
    """
    bar = tqdm(
        total=job.n_shards,
        initial=job.n_shards - len(shards),
        desc=phase,
        unit="shard",
        disable=not progress,
        file=sys.stdout,
    )
    started, tokens = time.perf_counter(), 0

    def done(told: Mapping[str, Any]) -> None:
        nonlocal tokens
        tokens += told["tokens"]
        rate = tokens / (time.perf_counter() - started)
        bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        bar.update()

    try:
        with bar:
            yield done
    except (Stopped, KeyboardInterrupt):
        there = job.n_shards - len(job.missing(phase))
        raise ExtractionInterrupted(
            f"Stopped after {there} of {job.n_shards} shards; the store keeps them, and the same "
            "call resumes the pass.",
            None,
        ) from None


def on_this_machine(
    job: ShardedPass, model: EmbeddingModel, *, folds: int | None = None, progress: bool = True
) -> Callable[[str, list[int]], None]:
    """What makes the files of shards in this process, one after another, for :func:`finish`.

    Args:
        job: the pass.
        model: the model.
        folds: as in :meth:`ShardedPass.merge`; what they take is printed with the bars.
        progress: print a bar for each phase.
    """
    job.check_model(model)

    def make(phase: str, shards: list[int]) -> None:
        if progress and folds is not None and phase == "shards":
            print(size_of_folds(job, model, folds), flush=True)
        with filling(job, phase, shards, progress=progress) as done:
            for shard in shards:
                done(job.run(phase, shard, model, checkpoint_every=EVERY))

    return make


def finish(
    job: ShardedPass, make: Callable[[str, list[int]], None], *, folds: int | None = None
) -> dict[str, TokenStatistics]:
    """Fill what a store lacks and merge it; a damaged file is made again, with a warning.

    Args:
        job: the pass.
        make: makes the files of a phase for some shards: on this machine, or on many.
        folds: as in :meth:`ShardedPass.merge`.
    """
    again: set[tuple[str, int]] = set()
    while True:
        try:
            while left := job.missing(phase := job.phase()):
                make(phase, left)
            found = job.merge(folds=folds)
            if job.store.local:  # what a worker kept of a shard that another one finished
                shutil.rmtree(job.store.path("running"), ignore_errors=True)
            return found
        except DamagedShard as damaged:
            if (at := (damaged.phase, damaged.index)) in again:
                raise
            again.add(at)
            name = job.name(*at)
            message = f"{name} in {job.store.url!r} is missing or damaged, and is made again."
            warnings.warn(message, EmbvarWarning, stacklevel=2)
            job.store.remove(name)
