"""Shards on the workers of a Dask cluster: the same bits, and nothing lost with a worker."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import embvar_kit as ek
from embvar_kit.corpora.parts import FileCorpus
from embvar_kit.extraction import cluster, shards
from embvar_kit.extraction.shard_text import check_text
from embvar_kit.extraction.shards import ShardedPass

distributed = pytest.importorskip("distributed")

SHARDS = 6


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", sample=200, max_words=30)


@pytest.fixture(scope="module")
def wanted(model, corpus, tmp_path_factory):
    """What one machine makes of the shards."""
    store = tmp_path_factory.mktemp("here") / "store"
    return ek.extract(model, corpus, shards=SHARDS, store=store, threads=1, progress=False)


@pytest.fixture
def threads():
    """A client whose workers are threads of this process: quick to start."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def processes():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def extract(model, corpus, store, client, **options):
    options = {"shards": SHARDS, "threads": 1, "progress": False} | options
    return ek.extract(model, corpus, store=store, client=client, **options)


def same(found, wanted) -> None:
    """Two statistics are the same, to the bit."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.info == wanted.info


def test_workers_give_the_bits_of_one_machine(model, corpus, wanted, threads, tmp_path, capsys):
    found = extract(model, corpus, tmp_path / "store", threads, progress=True)
    same(found, wanted)
    told = capsys.readouterr().out
    assert "6/6" in told and "tokens/s" in told
    # What a client left undone, this machine finishes, and the other way round.
    (tmp_path / "store/shards/00003-of-00006.safetensors").unlink()
    same(ek.extract(model, corpus, shards=SHARDS, store=tmp_path / "store", progress=False), wanted)


def test_the_number_of_threads_is_that_of_the_plan_wherever_it_is_measured(
    model, corpus, threads, tmp_path
):
    """Sums of small matrices are rounded differently by another number of threads."""
    for number, store in ((2, "a"), (1, "b")):
        here = ek.extract(
            model,
            corpus,
            shards=SHARDS,
            store=tmp_path / store,
            threads=number,
            progress=False,
        )
        for path in (tmp_path / store / "shards").iterdir():
            path.unlink()
        same(extract(model, corpus, tmp_path / store, threads, threads=None), here)
    # By default, a new plan takes the number that the workers have.
    extract(model, corpus, tmp_path / "c", threads, threads=None)
    assert ShardedPass.open(tmp_path / "c").asked["threads"] == 2
    with pytest.raises(ek.CheckpointError, match="threads=2; this run has threads=1"):
        extract(model, corpus, tmp_path / "c", threads)


def test_words_are_counted_and_measured_on_workers(model, corpus, threads, tmp_path):
    options = {"by": "word", "min_count": 2, "threads": 1}
    one = ek.extract(
        model, corpus, shards=SHARDS, store=tmp_path / "here", progress=False, **options
    )
    same(extract(model, corpus, tmp_path / "store", threads, **options), one)


@pytest.mark.slow
def test_two_processes_give_the_same_bits(model, corpus, wanted, processes, tmp_path):
    same(extract(model, corpus, tmp_path / "store", processes), wanted)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep no memory")
def test_a_worker_keeps_freed_memory_for_the_next_batch(model, corpus, processes, tmp_path):
    """Dask's workers give it back at once unless told not to: a pass takes a third longer."""
    extract(model, corpus, tmp_path / "store", processes)

    def pages_that_were_mapped_again() -> int:
        import resource

        import torch

        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(100):
            torch.ones(2**18)  # a megabyte: 256 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for mapped in processes.run(pages_that_were_mapped_again).values():
        assert mapped < 20 * 256


def test_a_process_gives_the_bits_of_a_covariance(tiny, corpus, tmp_path, monkeypatch):
    """NumPy's product has another number of threads there, and at this width other last bits."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny("bert"))
    config.hidden_size, config.num_attention_heads = 100, 4
    shutil.copytree(tiny("bert"), tmp_path / "model")
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    wide = ek.load_model(tmp_path / "model", device="cpu")
    options = {"covariance": True, "threads": 1, "shards": 3, "progress": False}
    here = ek.extract(wide, corpus, store=tmp_path / "a", **options)
    others = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", others)  # read when a process starts
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as local,
        distributed.Client(local) as client,
    ):
        (told,) = client.run(os.environ.get, "OPENBLAS_NUM_THREADS").values()
        assert told == others
        there = ek.extract(wide, corpus, store=tmp_path / "b", client=client, **options)
    same(there, here)
    np.testing.assert_array_equal(there.covariance, here.covariance)


def test_workers_that_dask_pauses_are_told_of(model, corpus, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "_LOOK", 0.2)
    told = []

    def resume() -> None:
        until = time.monotonic() + 60
        while not told and time.monotonic() < until:
            time.sleep(0.2)
            told.extend(line for line in capsys.readouterr().out.splitlines() if "paused" in line)
        client.run(_limit_memory, 2**40)

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as local,
        distributed.Client(local) as client,
    ):
        client.run(_limit_memory, 2**20)  # less than this process takes
        resuming = threading.Thread(target=resume)
        resuming.start()
        same(extract(model, corpus, tmp_path / "store", client), wanted)
        resuming.join()
    assert len(told) == 1 and "all workers (1) are paused by Dask" in told[0]


def _limit_memory(limit: int, dask_worker: object) -> None:
    dask_worker.memory_manager.memory_limit = limit


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(model, corpus, wanted, processes, tmp_path):
    """SIGKILL of one worker, as soon as the first shard is there."""
    store = tmp_path / "store"
    processes.wait_for_workers(2, timeout=60)

    at_the_kill = []

    def kill():
        until = time.monotonic() + 120
        while not list((store / "shards").glob("*.safetensors")):
            assert time.monotonic() < until
            time.sleep(0.01)
        at_the_kill.append(len(list((store / "shards").glob("*.safetensors"))))
        os.kill(next(iter(processes.run(os.getpid).values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    same(extract(model, corpus, store, processes), wanted)
    killer.join()
    assert 1 <= at_the_kill[0] < SHARDS, "a worker was killed in the middle"


def test_a_damaged_shard_is_made_again_by_a_worker(model, corpus, wanted, threads, tmp_path):
    store = tmp_path / "store"
    extract(model, corpus, store, threads)
    path = store / "shards" / "00001-of-00006.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(ek.EmbvarWarning, match=r"00001-of-00006\.safetensors in .* made again"):
        same(extract(model, corpus, store, threads), wanted)


def test_a_worker_keeps_the_model_for_the_next_pass(
    model, corpus, threads, tiny, tmp_path, monkeypatch
):
    """As long as it is the same: what its files held before is not measured for what they hold."""
    load, loaded = shards.load_model, []
    monkeypatch.setattr(
        shards, "load_model", lambda *a, **how: loaded.append(how["name"]) or load(*a, **how)
    )
    short = corpus[:40]
    folder = tmp_path / "model"
    shutil.copytree(tiny("bert"), folder)
    one = ek.load_model(folder, device="cpu")
    extract(one, short, tmp_path / "a", threads, shards=1)
    found = extract(replace(one, max_tokens=9), short, tmp_path / "b", threads, shards=1)
    assert found.info["counts"]["split"] > 0
    careful = replace(one, ignores_padding=False)
    extract(careful, short, tmp_path / "c", threads, shards=1)
    assert len(loaded) == 1
    fresh = ek.untrained(one)
    fresh.module.save_pretrained(folder)
    two = ek.load_model(folder, device="cpu")
    wanted = ek.extract(two, short, shards=1, store=tmp_path / "d", threads=1, progress=False)
    same(extract(two, short, tmp_path / "e", threads, shards=1), wanted)
    with pytest.raises(ek.ExtractionError, match=r"cannot take part.*weights="):
        extract(one, short, tmp_path / "f", threads, shards=1)
    assert len(loaded) == 3, "once for other weights, and once to see that there are no others"


def test_begin_and_end_that_were_set_hold_on_workers(model, corpus, threads, tmp_path):
    bare = replace(model, begin=(), end=model.end * 2)
    options = {"shards": 1, "threads": 1, "progress": False}
    wanted = ek.extract(bare, corpus[:20], store=tmp_path / "here", **options)
    assert wanted.info["convention"]["begin"] is None
    same(ek.extract(bare, corpus[:20], store=tmp_path / "a", client=threads, **options), wanted)
    with pytest.raises(ek.CheckpointError, match=r"begin=\[\], end=.*; this run has .*begin=\[\d"):
        ek.extract(model, corpus[:20], store=tmp_path / "a", **options)


def test_the_first_of_many_files_is_read_on_each_worker(model, threads, tmp_path, monkeypatch):
    """The first alone: files can be large."""
    (tmp_path / "texts").mkdir()
    for name in "abcd":
        (tmp_path / "texts" / f"{name}.txt").write_text("The cat sat.\n")
    files = ek.load_corpus(f"{tmp_path}/texts/*.txt")
    part, read = FileCorpus._part, []
    monkeypatch.setattr(FileCorpus, "_part", lambda *a: read.append(a[1]) or part(*a))
    job = ShardedPass.plan(tmp_path / "store", model, files, shards=2)
    check_text(job)
    assert len(read) == 1
    (tmp_path / "texts" / read[0][-5:]).unlink()
    with pytest.raises(ek.ExtractionError, match=r"cannot take part.*cannot be read"):
        ek.extract(model, files, shards=2, store=tmp_path / "store", client=threads, progress=False)


def test_a_model_that_workers_cannot_load_is_refused(model, corpus, threads, tmp_path):
    with pytest.raises(ek.ExtractionError, match="made or changed in this process"):
        extract(ek.untrained(model), corpus, tmp_path / "a", threads)
    # Fine-tuned in memory: it keeps its name, and the workers load the original.
    other = replace(ek.untrained(model), name=model.name, source=model.source)
    other = replace(other, revision=model.revision)
    with pytest.raises(ek.ExtractionError, match=r"Worker .* cannot take part.*weights="):
        extract(other, corpus, tmp_path / "b", threads)
    gone = replace(model, source={**model.source, "name": "/no/such/folder"})
    with pytest.raises(ek.ExtractionError, match=r"Worker .* cannot take part.*no folder"):
        extract(gone, corpus, tmp_path / "c", threads)


def test_workers_of_another_version_are_refused(model, corpus, threads, tmp_path, monkeypatch):
    ours = cluster.versions()
    answers = iter([{**ours, "torch": "2.4.0"}, ours])
    # The client asks first for its own versions, the worker in this process second.
    monkeypatch.setattr(cluster, "versions", lambda: next(answers))
    with pytest.raises(ek.ExtractionError, match=r"has torch .*, and this process has torch 2.4.0"):
        extract(model, corpus, tmp_path / "store", threads)


def test_a_store_that_a_worker_cannot_write_is_refused(
    model, corpus, threads, tmp_path, monkeypatch
):
    from embvar_kit.extraction.store import Store

    ShardedPass.plan(tmp_path / "store", model, corpus, shards=SHARDS, threads=1)

    def refuse(store):
        raise ek.CheckpointError(f"The store {store.url!r} cannot be written: Permission denied.")

    monkeypatch.setattr(Store, "check_writable", refuse)
    with pytest.raises(ek.ExtractionError, match=r"cannot take part.*Permission denied"):
        extract(model, corpus, tmp_path / "store", threads)


def test_what_fails_on_a_worker_is_named_and_the_rest_stays(model, corpus, threads, tmp_path):
    store = tmp_path / "store"
    ShardedPass.plan(store, model, corpus, shards=SHARDS, threads=1)
    path = store / "text" / "00004-of-00006.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ek.ExtractionError, match=r"Shard 4 of 6 failed:.*text/00004"):
        extract(model, corpus, store, threads)
    path.write_bytes(data)
    extract(model, corpus, store, threads)
