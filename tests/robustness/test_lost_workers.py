"""Workers and whole clusters that are killed cost a pass in shards nothing but time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import dask
import distributed
import numpy as np
import pytest
from effort import effort, tried

import embvar_kit as ek

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS = 24
A_PASS = 4  # workers killed in one pass: each takes seconds to start again

# A client, its scheduler and two workers, in a group of processes of their own.
CLIENT = """
import sys
import embvar_kit as ek
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
        Client(local) as client,
    ):
        ek.extract(
            ek.load_model({model!r}, device="cpu"),
            ek.load_corpus("wikipedia", sample=400, max_words=40),
            shards={shards},
            store={store!r},
            client=client,
            threads=1,
            progress=False,
        ).save({out!r})
"""


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", sample=400, max_words=40)


@pytest.fixture(scope="module")
def wanted(model, corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("here") / "store"
    return ek.extract(model, corpus, shards=SHARDS, store=store, threads=1, progress=False)


def same(found, wanted) -> None:
    """Two statistics are the same, to the bit."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_workers_killed_at_random_moments(model, corpus, wanted, tmp_path):
    """SIGKILL of one of two workers, again and again; a nanny starts another in its place."""
    random.seed(0)
    until, killed, passes = effort(4, 40), 0, 0
    with (
        # By chance Dask gives up a worker that is killed twice, just 15 s apart.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
        distributed.Client(local) as client,
    ):
        while killed < until:
            over = threading.Event()
            kills = [0]

            store = tmp_path / str(passes)

            def kill(over=over, kills=kills, store=store):
                """Kill once a shard is there that was not at the last kill, so that it ends."""
                there = 0
                while kills[0] < A_PASS and not over.wait(random.uniform(0, 0.3)):
                    now = len(list(store.glob("shards/*.safetensors")))
                    workers = [nanny.pid for nanny in local.workers.values() if nanny.pid]
                    if now > there and workers:
                        with suppress(ProcessLookupError):
                            os.kill(random.choice(workers), signal.SIGKILL)
                            kills[0] += 1
                            there = now

            client.wait_for_workers(2, timeout=120)
            killer = threading.Thread(target=kill)
            killer.start()
            try:
                found = ek.extract(
                    model,
                    corpus,
                    shards=SHARDS,
                    store=store,
                    client=client,
                    threads=1,
                    progress=False,
                )
            finally:
                over.set()
                killer.join()
            same(found, wanted)
            killed += kills[0]
            passes += 1
            assert kills[0] or passes < 20, "passes end before any worker is killed"
    tried("workers of a cluster killed", killed)


def test_clusters_killed_with_their_client(tiny, wanted, tmp_path):
    """SIGKILL of client, scheduler and workers together; the same call then resumes the pass."""
    random.seed(0)
    store, out, script = tmp_path / "store", tmp_path / "out", tmp_path / "client.py"
    script.write_text(
        CLIENT.format(model=str(tiny("bert")), shards=SHARDS, store=str(store), out=str(out))
    )
    for _ in range(effort(1, 4)):
        client = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
        until = time.monotonic() + 120
        there = len(list(store.glob("shards/*.safetensors")))
        more = random.randint(1, 4)
        while len(list(store.glob("shards/*.safetensors"))) < min(SHARDS, there + more):
            assert client.poll() is None or there + more >= SHARDS
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(client.pid, signal.SIGKILL)
        client.wait()
        tried("clusters killed with their client")
    subprocess.run([sys.executable, str(script)], check=True, timeout=300)
    same(ek.TokenStatistics.load(out), wanted)


def cluster_of_processes(folder, number):
    """A scheduler and two workers, each a process of its own; the address of the scheduler."""
    file = folder / f"scheduler-{number}.json"
    at = ["--scheduler-file", str(file)]
    own = ["--no-dashboard", "--host", "127.0.0.1"]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *at, *own, "--port", "0"],
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < until and scheduler.poll() is None
        time.sleep(0.05)
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                *at,
                *own,
                "--nthreads=1",
                "--no-nanny",
                "--death-timeout=5",
            ],
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        for _ in range(2)
    ]
    return scheduler, workers, str(file)


def test_schedulers_killed_while_their_client_lives(tiny, wanted, tmp_path):
    """SIGKILL of the scheduler alone: the client is told, and a new client resumes the pass."""
    random.seed(0)
    model = ek.load_model(str(tiny("bert")), device="cpu")
    corpus = ek.load_corpus("wikipedia", sample=400, max_words=40)
    store = tmp_path / "store"
    kills = effort(1, 3)
    for number in range(kills + 1):
        scheduler, workers, file = cluster_of_processes(tmp_path, number)
        over = threading.Event()

        def kill(scheduler=scheduler, over=over):
            there = len(list(store.glob("shards/*.safetensors")))
            while not over.wait(0.02):
                if len(list(store.glob("shards/*.safetensors"))) > there + random.randint(0, 2):
                    scheduler.kill()
                    return

        killer = threading.Thread(target=kill)
        try:
            with distributed.Client(scheduler_file=file, timeout=60) as client:
                client.wait_for_workers(2, timeout=120)
                options = {"shards": SHARDS, "store": store, "client": client, "threads": 1}
                if number < kills:
                    killer.start()
                    with pytest.raises(ek.ExtractionError, match=r"stays in the store|not answer"):
                        ek.extract(model, corpus, progress=False, **options)
                    tried("schedulers killed under their client")
                else:
                    same(ek.extract(model, corpus, progress=False, **options), wanted)
        finally:
            over.set()
            if killer.ident:
                killer.join()
            for process in (scheduler, *workers):
                process.kill()
                process.wait()
