"""Measures passes in shards and writes shards.md: workers, overhead, merging, scale, a large plan.

Run it on an otherwise idle machine: python tests/benchmarks/of_shards.py
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numba
import numpy as np
import psutil
import torch
from machine import processor

import embvar_kit as ek
from embvar_kit._version import __version__
from embvar_kit.corpora.listing import Listing
from embvar_kit.corpora.parts import FileCorpus
from embvar_kit.extraction import cluster, one_shard
from embvar_kit.extraction.shards import ShardedPass

OUT = Path(__file__).with_name("shards.md")
SHARDS_OF_TWO = 32  # of the passes on one and on two workers
WAIT = 0.2  # seconds that the stand-in for a forward pass takes
GROUPS, WIDTH, LAYERS = 50, 16, 3  # of the states of the simulation


def client_of(workers: int, threads: int = 1, **how):
    from distributed import Client, LocalCluster

    local = LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        **how,
    )
    return local, Client(local, timeout=300)


@contextlib.contextmanager
def workers(number: int, threads: int = 1, **how):
    local, client = client_of(number, threads, **how)
    try:
        yield client
    finally:
        client.close()
        local.close()


def sharded(model, corpus, folder: Path, client=None, shards: int = 64, threads=None):
    """Statistics of a pass in shards, and its seconds from the plan to the merged result."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    started = time.perf_counter()
    stats = ek.extract(
        model, corpus, shards=shards, store=store, client=client, threads=threads, progress=False
    )
    return stats, time.perf_counter() - started


def two_workers(model, corpus, folder: Path, rounds: int = 1) -> dict[str, float]:
    """Median seconds of a pass on this thread alone, and on one and two such workers, in turn."""
    taken: dict[str, list[float]] = {"here": [], "one": [], "two": []}
    with workers(1) as one, workers(2) as two:
        for number in range(rounds + 1):
            part = corpus if number else corpus[::12]  # workers load the model in the first round
            for name, client in (("here", None), ("one", one), ("two", two)):
                _, spent = sharded(model, part, folder, client, shards=SHARDS_OF_TWO, threads=1)
                print(f"  round {number}: {name} {spent:.1f} s", flush=True)
                if number:
                    taken[name].append(spent)
    return {name: statistics.median(times) for name, times in taken.items()}


def two_processes(sentences: int) -> dict[int, float]:
    """Seconds of plain passes with one thread each: one over all, then two over a half each.

    Nothing of Dask or of shards is in them: their ratio is what this machine gives two processes.
    """
    spawn = multiprocessing.get_context("spawn")
    spent = {}
    for number in (1, 2):
        together, times = spawn.Barrier(number, timeout=300), spawn.SimpleQueue()
        passes = [
            spawn.Process(target=_plain_pass, args=(at, number, sentences, together, times))
            for at in range(number)
        ]
        for one in passes:
            one.start()
        for one in passes:
            one.join()
        if failed := [one.exitcode for one in passes if one.exitcode]:
            # Its time is missing, and waiting for it would never end.
            sys.exit(f"Plain passes failed, with exit status {failed}.")
        spent[number] = max(times.get() for _ in passes)
    return spent


def _plain_pass(at: int, number: int, sentences: int, together, times) -> None:
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    model = ek.load_model("minilm", device="cpu")
    own = ek.load_corpus("wikipedia", sample=sentences)[at::number]
    ek.extract(model, own[:200], progress=False)  # compiled code
    together.wait()
    started = time.perf_counter()
    ek.extract(model, own, progress=False)
    times.put(time.perf_counter() - started)


def beside_one_pass(model, corpus, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a pass of 64 shards, of its parts, and of a pass without shards; differences.

    The differences are the largest of Q, M and V over all tokens and layers, divided by Q.
    """
    spent = {"measure": 0.0, "plan of a shard": 0.0}

    def timed(name, function):
        def call(*arguments, **named):
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[name] += time.perf_counter() - started

        return call

    with (
        mock.patch.object(one_shard, "measure", timed("measure", one_shard.measure)),
        mock.patch.object(one_shard, "plan", timed("plan of a shard", one_shard.plan)),
    ):
        merged, whole = sharded(model, corpus, folder)
    started = time.perf_counter()
    one = ek.extract(model, corpus, progress=False)
    spent = {"whole": whole, **spent, "without shards": time.perf_counter() - started}
    assert merged.tokens.tolist() == one.tokens.tolist()
    differences = largest(one, merged, one.n >= 1)
    frequent = largest(one, merged, one.n >= 10)
    differences |= {f"{name}, n ≥ 10": value for name, value in frequent.items()}
    return spent, {**differences, "least V": float(merged.V.min())}


def largest(one, other, chosen: np.ndarray) -> dict[str, float]:
    """The largest difference of Q, M and V over some tokens and all layers, divided by Q."""
    return {
        name: float((np.abs(getattr(one, name) - getattr(other, name)) / one.Q)[:, chosen].max())
        for name in "QMV"
    }


def of_the_forward_pass(model, corpus, folder: Path) -> dict[str, float]:
    """Largest differences over Q: of shards where the model runs in float64, and of float32."""
    exact = ek.load_model("minilm", device="cpu", dtype="float64")
    in_shards, _ = sharded(exact, corpus, folder, shards=16)
    one = ek.extract(exact, corpus, progress=False)
    rounded = ek.extract(model, corpus, progress=False)
    assert in_shards.tokens.tolist() == one.tokens.tolist() == rounded.tokens.tolist()
    return {
        "shards": max(largest(one, in_shards, one.n >= 1).values()),
        "float32": max(largest(one, rounded, one.n >= 1).values()),
    }


MERGE = """
import sys, time, psutil, threading
from embvar_kit.extraction.shards import ShardedPass
job = ShardedPass.open(sys.argv[1])
ShardedPass.open(sys.argv[1]).groups
process, peak, over = psutil.Process(), [0], threading.Event()
def watch():
    while not over.wait(0.005):
        held = process.memory_info()
        peak[0] = max(peak[0], held.rss - held.shared)
before = process.memory_info(); before = before.rss - before.shared
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
found = job.merge()["hidden"]
print(time.perf_counter() - started, peak[0] - before, found.mean.nbytes + found.extra.nbytes)
over.set()
"""


def merge(store: Path) -> dict[str, float]:
    """Seconds of a merge in a process of its own, bytes read, memory and size of the means."""
    size = sum(path.stat().st_size for path in (store / "shards").iterdir())
    runs = [
        subprocess.run(
            [sys.executable, "-c", MERGE, str(store)], check=True, capture_output=True, text=True
        )
        for _ in range(2)  # the first compiles
    ]
    seconds, grown, means = map(float, runs[-1].stdout.split())
    return {"seconds": seconds, "bytes": size, "memory": grown, "means": means}


def state_of(job: ShardedPass, shard: int) -> tuple[dict, dict]:
    """A real state of small groups in place of a forward pass."""
    random = np.random.default_rng(shard)
    group = np.sort(random.choice(len(job.groups), GROUPS, replace=False))
    arrays = {"group": group, "n": np.full(GROUPS, 2)}
    for layer in range(LAYERS):
        arrays |= {
            f"hidden/{layer}/mean": random.normal(size=(GROUPS, WIDTH)).astype(np.float32),
            f"hidden/{layer}/extra": np.zeros((GROUPS, WIDTH), dtype=np.int8),
            f"hidden/{layer}/squares": np.full(GROUPS, 40.0),
            f"hidden/{layer}/deviations": np.full(GROUPS, 4.0),
        }
    model, text = {"name": "stand-in"}, {"fingerprint": str(shard), "without_text": 0}
    info = {"model": model, "corpora": [], "convention": {}, "counts": {"tokens": 2 * GROUPS}}
    return arrays, {"tokens": 2 * GROUPS, "info": info, **text}


def scale(model, folder: Path, number: int) -> dict[str, float]:
    """A pass of many shards on 200 simulated workers: seconds of its parts, and memory."""
    store = folder / f"scale-{number}"
    corpus = listing(number)
    options = {"layers": list(range(LAYERS))}
    started = time.perf_counter()
    job = ShardedPass.plan(store, model, corpus, shards=number, **options)
    planned = time.perf_counter()
    job.manifest["width"] = WIDTH
    process = psutil.Process()
    before = process.memory_info().rss
    groups = job.groups

    def stand_in(job, shard, *_):
        time.sleep(WAIT)
        return state_of(job, shard)

    with (
        mock.patch.object(one_shard, "_measure", stand_in),
        mock.patch.object(cluster, "check_text", lambda job: None),  # its files are names
        mock.patch.object(cluster, "_one_at_a_time", contextlib.nullcontext()),
        mock.patch.object(cluster, "_ready", lambda url, digest: (job, model)),
        # They share this process' memory, of which a worker that has a limit would see too much.
        workers(10, 20, processes=False, memory_limit=None) as client,
    ):
        ready = time.perf_counter()
        make = cluster.on_cluster(client, job, progress=False)
        make("shards", list(range(number)))
        made = time.perf_counter()
        grown = process.memory_info().rss - before
        merged = job.merge()["hidden"]
        ended = time.perf_counter()
    assert int(merged.n.sum()) == number * GROUPS * 2 and len(groups)
    shutil.rmtree(store)
    return {
        "plan": planned - started,
        "shards": made - ready,
        "merge": ended - made,
        "memory": grown,
    }


def listing(number: int, size: int = 10_000_000) -> FileCorpus:
    paths = [f"/data/web/part-{i:07}.jsonl.zst" for i in range(number)]
    sizes = np.random.default_rng(0).integers(size // 2, 2 * size, number)
    return FileCorpus(
        "/data/web/*.jsonl.zst", Listing(paths, sizes, [str(i) for i in range(number)])
    )


LARGE = """
import sys, time, psutil
sys.path.insert(0, {here!r})
import embvar_kit as ek
from of_shards import listing
from embvar_kit.extraction.shards import ShardedPass
model = ek.load_model("minilm", device="cpu")
before = psutil.Process().memory_info().rss
started = time.perf_counter()
corpus = listing({number})
ShardedPass.plan({store!r}, model, corpus, shards=10_000)
# The peak that resource gives would be that of the process which started this one, too.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(time.perf_counter() - started, peak - before, int(corpus.listing.sizes.sum()))
"""


def large_plan(folder: Path, number: int = 400_000) -> dict[str, float]:
    """Seconds and memory of the plan of a listing of 1 T tokens, at 4 to 5 bytes a token."""
    script = LARGE.format(
        here=str(Path(__file__).parent), store=str(folder / "large"), number=number
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    seconds, grown, size = map(float, done.stdout.split())
    return {"files": number, "seconds": seconds, "memory": grown, "bytes": size}


def row(what: str, measured: str, bar: str = "", met: bool | None = None) -> str:
    word = "" if met is None else ("met" if met else "**missed**")
    return f"| {what} | {measured} | {bar} | {word} |"


def main(out: Path) -> None:
    model, corpus = ek.load_model("minilm", device="cpu"), ek.load_corpus("wikipedia")
    part = ek.load_corpus("wikipedia", sample=2000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ek.extract(model, part[:200], progress=False)  # compiled code, threads
        print("a pass of 64 shards", flush=True)
        parts, exact = beside_one_pass(model, corpus, folder)
        print(parts, exact, flush=True)
        merged = merge(folder / "store")
        print(merged, flush=True)
        rounding = of_the_forward_pass(model, part, folder)
        print(rounding, flush=True)
        print("two workers", flush=True)
        half = ek.load_corpus("wikipedia", sample=6000)
        # First: a process that is started after Dask's inherits how they give memory back.
        processes = two_processes(len(half))
        print(processes, flush=True)
        pair = two_workers(model, half, folder)
        print("a listing of 1 T tokens", flush=True)
        large = large_plan(folder)
        print(large, flush=True)
        print("200 simulated workers", flush=True)
        scales = {}
        for number in (1_000, 3_000, 10_000):
            scales[number] = scale(model, folder, number)
            print(number, scales[number], flush=True)
    alone = parts["measure"] + parts["plan of a shard"]  # what a pass takes without shards, too
    beside = parts["whole"] - alone
    slab = merged["means"] / model.n_states
    per = [scales[n]["shards"] / n for n in scales]
    lines = [
        "# Passes in shards",
        "",
        "Measured by `python tests/benchmarks/of_shards.py` in one run on {today()}: "
        f"{os.cpu_count()} cores of {processor()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, embvar-kit {__version__}. minilm over the excerpt, unless a "
        "line says otherwise.",
        "",
        "| | measured | bar | |",
        "| --- | ---: | ---: | --- |",
        row(
            f"two workers with one thread each, beside one such worker ({len(half):,} sentences, "
            f"{SHARDS_OF_TWO} shards)",
            f"{pair['two'] / pair['one']:.2f}",
            "≤ 0.60",
            pair["two"] <= 0.6 * pair["one"],
        ),
        row(
            "two processes without Dask or shards, beside one",
            f"{processes[2] / processes[1]:.2f}",
        ),
        row(
            "one such worker, beside the same thread without Dask",
            f"{pair['one'] / pair['here']:.2f}",
            "≤ 1.03",
            pair["one"] <= 1.03 * pair["here"],
        ),
        row(
            "a pass of 64 shards, beside one without",
            f"{parts['whole'] / parts['without shards']:.2f}",
        ),
        row(
            "files and merge of 64 shards, % of planning and measuring them",
            f"{100 * beside / alone:.1f}",
            "≤ 3",
            beside <= 0.03 * alone,
        ),
        row(
            f"merge of 64 shards ({merged['bytes'] / 1e9:.2f} GB), GB/s",
            f"{merged['bytes'] / 1e9 / merged['seconds']:.2f}",
        ),
        row(
            "its memory beside the result, MiB (one slab + 300)",
            f"{(merged['memory'] - merged['means']) / 2**20:.0f}",
            f"≤ {slab / 2**20 + 300:.0f}",
            merged["memory"] - merged["means"] <= slab + 300 * 2**20,
        ),
        *(
            row(
                f"64 shards beside one pass, largest difference of {name} over Q",
                f"{exact[name]:.1e}",
                "≤ 1e-6",
                exact[name] <= 1e-6,
            )
            for name in exact
            if name != "least V"
        ),
        row(
            "16 shards beside one pass, the model in float64 (2,000 sentences), over Q",
            f"{rounding['shards']:.1e}",
            "≤ 1e-6",
            rounding["shards"] <= 1e-6,
        ),
        row(
            "one pass in float32 beside the same in float64, over Q",
            f"{rounding['float32']:.1e}",
        ),
        row("least V", f"{exact['least V']:.1e}", "≥ 0", exact["least V"] >= 0),
        row(
            f"plan of {large['files']:,} files ({large['bytes'] / 1e12:.1f} TB, 1 T tokens), s",
            f"{large['seconds']:.1f}",
            "≤ 60",
            large["seconds"] <= 60,
        ),
        row("its memory, MiB", f"{large['memory'] / 2**20:.0f}", "≤ 1000", large["memory"] <= 1e9),
        row(
            "200 simulated workers: time a shard, 10,000 shards beside 1,000",
            f"{per[-1] / per[0]:.2f}",
        ),
        "",
        f"## 200 simulated workers, each forward pass a pause of {WAIT} s",
        "",
        "Ten workers of 20 threads in one process take their place, and a pause that of the "
        "forward pass; states, files, scheduling and merges are real.",
        "",
        "| shards | plan, s | shards, s | merge, s | memory of the process, MiB |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {number:,} | {one['plan']:.1f} | {one['shards']:.1f} | {one['merge']:.1f} | "
            f"{one['memory'] / 2**20:.0f} |"
            for number, one in scales.items()
        ),
        "",
        "## Where the time of 64 shards goes",
        "",
        "| | s |",
        "| --- | ---: |",
        *(f"| {name} | {spent:.2f} |" for name, spent in parts.items()),
        f"| merge | {merged['seconds']:.2f} |",
        "",
    ]
    page = "\n".join(lines)
    out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="page to write (default: shards.md)")
    main(parser.parse_args().out)
