"""The shards of a pass, handed to the workers of a Dask cluster.

Dask only schedules. A task is the number of a shard; a worker reads the shard's text from the store
and writes its state there, so that nothing large passes through the scheduler. A task whose worker
is lost is given to another one.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from embvar_kit._version import __version__
from embvar_kit.errors import CheckpointError, ExtractionError, as_sentence
from embvar_kit.extraction.environment import versions
from embvar_kit.extraction.finishing import filling
from embvar_kit.extraction.shard_text import check_text
from embvar_kit.extraction.shards import ShardedPass
from embvar_kit.models.loading import EmbeddingModel

if TYPE_CHECKING:
    from distributed import Client

_MOST_LOSSES = 20
"""How often workers may be lost while they measure one shard before it is blamed for that."""

_FIRST_WORKER = 600  # seconds

_LOOK = 15.0
"""Seconds between two looks at whether the workers are paused."""

_TRIM_OF_DASK = "65536"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h

_one_at_a_time = threading.Lock()


def on_cluster(
    client: Client, job: ShardedPass, *, progress: bool = True
) -> Callable[[str, list[int]], None]:
    """What makes the files of shards on the workers of a cluster, for ``finishing.finish``.

    Args:
        client: the client of the cluster.
        job: the pass.
        progress: print a bar: shards done, tokens per second of all workers, time left.

    Raises:
        ExtractionError: if a worker has other versions or another model, cannot load it, or
            cannot write to the store.
    """
    _check_workers(client, job)

    def make(phase: str, shards: list[int]) -> None:
        tasks = _Tasks(client, job, phase)
        try:
            with _telling_of_pauses(client), filling(job, phase, shards, progress=progress) as done:
                for told in tasks.run(shards):
                    done(told)
        finally:
            tasks.cancel()

    return make


class _Tasks:
    """The tasks of one phase on a cluster."""

    def __init__(self, client: Client, job: ShardedPass, phase: str) -> None:
        self.client, self.job, self.phase = client, job, phase
        self.losses: Counter[int] = Counter()
        self.shard_of: dict[str, int] = {}
        self.futures: set[Any] = set()

    def run(self, shards: list[int]) -> Any:
        """Yield what each task returns, in the order in which they end.

        Raises:
            ExtractionError: if a shard cannot be measured.
        """
        from distributed import CancelledError, as_completed
        from distributed.scheduler import KilledWorker

        waiting = as_completed([self._submit(shard) for shard in shards])
        for future in waiting:
            shard = self.shard_of[future.key]
            self.futures.discard(future)
            try:
                yield future.result()
            except KilledWorker as error:
                # Several workers were lost in turn: cut off by their queue, or out of memory.
                self.losses[shard] += 1
                if self.losses[shard] * 3 > _MOST_LOSSES:
                    raise ExtractionError(
                        f"Shard {shard} lost its worker more than {_MOST_LOSSES} times. Is their "
                        "memory too small for the model and the means of one shard? Plan more, "
                        "smaller shards, or give the workers more memory."
                    ) from error
                waiting.add(self._submit(shard))
            except CancelledError as error:
                raise ExtractionError(
                    "The scheduler of the cluster is gone, or it cancelled the pass. What was "
                    "measured stays in the store: the same call with a new client resumes it."
                ) from error
            except Exception as error:
                raise ExtractionError(
                    f"Shard {shard} of {self.job.n_shards} failed: {as_sentence(error)} What was "
                    "measured stays in the store."
                ) from error

    def cancel(self) -> None:
        """Cancel what has not ended yet."""
        if self.futures:
            self.client.cancel(list(self.futures), force=True)

    def _submit(self, shard: int) -> Any:
        digest = self.job.manifest["sha256"]
        # A name of its own for each try: Dask remembers the outcome of a name.
        future = self.client.submit(
            _make,
            self.job.store.url,
            digest,
            self.phase,
            shard,
            key=f"{self.phase}-{digest}-{shard}-{self.losses[shard]}-{time.time_ns():x}",
            pure=False,
        )
        self.shard_of[future.key] = shard
        self.futures.add(future)
        return future


@contextmanager
def _telling_of_pauses(client: Client) -> Iterator[None]:
    """Say so, once, if all workers are paused.

    Dask gives no task to a worker whose memory is nearly full, and tells only the worker's own log.
    """
    ended = threading.Event()

    def look() -> None:
        paused_before = False
        while not ended.wait(_LOOK):
            with suppress(OSError, ValueError):  # the pass itself reports a scheduler that is gone
                workers = client.scheduler_info()["workers"].values()
                paused = bool(workers) and all(one["status"] == "paused" for one in workers)
                if paused and paused_before:
                    print(
                        f"waits      all workers ({len(workers)}) are paused by Dask, since their "
                        "memory is nearly full. Give them more (--memory-limit), or cancel and "
                        "plan more, smaller shards",
                        flush=True,
                    )
                    return
                paused_before = paused

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def threads_of_workers(client: Client) -> int:
    """The least number of threads of a worker; waits for a first one.

    Raises:
        ExtractionError: if there is none after ten minutes, or the cluster does not answer.
    """
    try:
        if not (threads := client.nthreads()):
            print("waits      for a first worker of the cluster", flush=True)
            client.wait_for_workers(1, timeout=_FIRST_WORKER)
            threads = client.nthreads()
    except TimeoutError as error:
        raise ExtractionError(
            f"The cluster has no worker after {_FIRST_WORKER} seconds. Start some, and try again."
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ExtractionError(
            f"client={client!r} is no client of a cluster that answers: {as_sentence(error)}"
        ) from error
    return min(threads.values())


def _check_workers(client: Client, job: ShardedPass) -> None:
    """Compare versions, load the model and write to the store, on all workers at once."""
    job.require_source()
    ours = versions()
    for worker, theirs in _ask(client, versions).items():
        if isinstance(theirs, BaseException):
            raise ExtractionError(
                f"Worker {worker} cannot run the kit: {as_sentence(theirs)} Install embvar-kit "
                f"{__version__} there, in the environment that the worker is started in."
            ) from theirs
        if theirs != ours:
            differ = [name for name in ours if theirs[name] != ours[name]]
            has, wanted = (
                ", ".join(f"{name} {given[name]}" for name in differ) for given in (theirs, ours)
            )
            raise ExtractionError(
                f"Worker {worker} has {has}, and this process has {wanted}. Use the same "
                "environment on both."
            )
    for worker, problem in _ask(client, _check, job.store.url, job.manifest["sha256"]).items():
        if isinstance(problem, BaseException):
            raise ExtractionError(
                f"Worker {worker} cannot take part: {as_sentence(problem)}"
            ) from problem


def _ask(client: Client, function: Callable, *arguments: Any) -> dict[str, Any]:
    """What a function returns or raises on each worker, but for those lost meanwhile."""
    try:
        answers = client.run(function, *arguments, on_error="return")
    except (OSError, ValueError, AttributeError) as error:
        raise ExtractionError(f"The cluster does not answer: {as_sentence(error)}") from error
    # A worker that comes later, or again, is compared with the plan before its first shard.
    lost = OSError  # Dask's error of a connection that broke; the kit's own errors are none
    return {worker: said for worker, said in answers.items() if not isinstance(said, lost)}


# On a worker


async def _check(url: str, digest: str) -> None:
    # In a thread of its own: a worker that does not answer for minutes, while it loads a large
    # model, is taken for dead.
    await asyncio.to_thread(_checked, url, digest)


def _checked(url: str, digest: str) -> None:
    with _one_at_a_time:
        job, _ = _ready(url, digest)
    job.store.check_writable()
    check_text(job)


def _make(url: str, digest: str, phase: str, shard: int) -> dict[str, Any]:
    _keep_freed_memory()
    # A worker with several threads gets several tasks: the model serves one after another.
    with _one_at_a_time:
        job, model = _ready(url, digest)
        return job.run(phase, shard, model)


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next batch, as it does where Dask did not forbid it.

    Dask starts its workers with a variable that gives freed memory back at once. Each batch then
    waits for the same pages again, and a pass takes a third longer.
    """
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") == _TRIM_OF_DASK:
        with suppress(AttributeError, OSError, TypeError):  # another C library
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # what glibc itself arrives at
            libc.mallopt(_M_TRIM_THRESHOLD, 2**26)


@lru_cache(maxsize=1)
def _ready(url: str, digest: str) -> tuple[ShardedPass, EmbeddingModel]:
    """The pass and its model, compared with the plan once a worker and pass."""
    job = ShardedPass.open(url)
    if job.manifest["sha256"] != digest:
        raise ExtractionError(f"The worker sees another pass in {url!r} than the client does.")
    return job, _model_of(job)


_held: dict[str, EmbeddingModel] = {}
"""The model that was loaded last, by how: the next pass often takes the same one."""


def _model_of(job: ShardedPass) -> EmbeddingModel:
    """The model of a pass: the one that the worker holds, if it is that, or loaded anew.

    Its weights are compared with the plan's either way: files may have changed since.
    """
    job.require_source()
    how = json.dumps([job.manifest["model"], job.asked["device"]], sort_keys=True)
    if how in _held:
        with suppress(CheckpointError):
            return job.as_planned(_held[how])
    _held.clear()
    _ready.cache_clear()  # two models may be more than the memory holds
    loaded = job.load_model()
    _held[how] = loaded
    return loaded
