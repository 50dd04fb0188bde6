"""Passes that are stopped and resumed, and passes that run out of memory or disk space."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import embvar_kit as ek
from embvar_kit import files
from embvar_kit.corpora.parts import StreamedCorpus
from embvar_kit.extraction import batching, checkpoint, measure
from embvar_kit.extraction.forward import forward as run_batches
from embvar_kit.moments.device import DeviceMoments

BATCH = 100


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", limit=60, max_words=40)


@pytest.fixture(scope="module")
def whole(model, corpus):
    return extract(model, corpus)


def extract(model, corpus, **options):
    return ek.extract(model, corpus, batch_tokens=BATCH, progress=False, **options)


def same(found, wanted) -> None:
    """Two statistics are the same, to the bit."""
    assert found.tokens.tolist() == wanted.tokens.tolist()
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.info == wanted.info


def press_stop_at(monkeypatch, batch: int) -> list:
    """Press the stop button while this batch runs; returns a list that collects the batches run."""
    ran = []

    def forward(*arguments, **options):
        for one in run_batches(*arguments, **options):
            ran.append(one.planned)
            if len(ran) == batch:
                signal.raise_signal(signal.SIGINT)
            yield one

    monkeypatch.setattr(measure, "forward", forward)
    return ran


def stopped(model, corpus, monkeypatch, batch: int, **options):
    """The error of a pass that is stopped at this batch."""
    with monkeypatch.context() as patch:
        press_stop_at(patch, batch)
        with pytest.raises(ek.ExtractionInterrupted) as interrupt:
            extract(model, corpus, **options)
    return interrupt.value


# The stop button


def test_the_stop_button_leaves_a_partial_result_marked_as_partial(model, corpus, monkeypatch):
    corpus = ek.Corpus.of([sentence[:50] for sentence in corpus])  # short enough not to be split
    before = signal.getsignal(signal.SIGINT)
    interrupt = stopped(model, corpus, monkeypatch, 3)
    assert signal.getsignal(signal.SIGINT) is before
    work = ek.plan(model, corpus, batch_tokens=BATCH)
    share = sum(work.text.lengths[batch].sum() for batch in work.batches[:3]) / work.n_tokens
    assert str(interrupt).startswith(
        f"Stopped after 3 of {len(work.batches)} batches, {share:.0%} of the tokens. "
    )
    found = ek.partial_result()
    assert found is interrupt.partial
    assert found.info["partial"] == {"batches": 3, "of": len(work.batches)}
    assert f"PARTIAL: 3 of {len(work.batches)} batches" in repr(found)
    # It agrees with a pass over those sentences alone.
    sentences = sorted({int(work.text.sentence[i]) for batch in work.batches[:3] for i in batch})
    alone = extract(model, ek.Corpus.of([corpus.sentences[i] for i in sentences]))
    assert found.tokens.tolist() == alone.tokens.tolist()
    np.testing.assert_array_equal(found.n, alone.n)
    for name in "QMV":
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-5, atol=1e-6)
    assert extract(model, corpus).n.sum() == work.n_tokens, "the model can be used as before"


def test_a_partial_result_keeps_its_mark_and_is_not_merged(model, corpus, monkeypatch, tmp_path):
    partial = stopped(model, corpus[:30], monkeypatch, 2).partial
    partial.save(tmp_path)
    assert ek.TokenStatistics.load(tmp_path).info["partial"] == partial.info["partial"]
    with pytest.raises(ek.StatisticsError, match="Partial statistics cannot be merged"):
        extract(model, corpus[30:]).merge(partial)


def test_a_stream_that_is_stopped_has_its_earlier_chunks(model, corpus, monkeypatch):
    stream = stream_of(corpus)
    first = len(ek.plan(model, corpus[:20], batch_tokens=BATCH).batches)
    found = stopped(model, stream, monkeypatch, first + 1, site=["hidden", "unit"]).partial
    assert list(found) == ["hidden", "unit"]
    assert found["unit"].info["partial"]["batches"] == 1
    assert found["unit"].n.sum() > extract(model, corpus[:20]).n.sum()


def test_a_stop_before_the_first_batch_has_no_result(model, corpus, monkeypatch):
    def nothing(*_, **__):
        signal.raise_signal(signal.SIGINT)
        yield from ()

    monkeypatch.setattr(measure, "forward", nothing)
    with pytest.raises(ek.ExtractionInterrupted) as interrupt:
        extract(model, corpus)
    assert interrupt.value.partial is None
    with pytest.raises(ek.ExtractionError, match="No pass was stopped"):
        ek.partial_result()


def test_a_second_press_stops_at_once(model, corpus, monkeypatch):
    def forward(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield from ()

    monkeypatch.setattr(measure, "forward", forward)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        extract(model, corpus)
    assert not isinstance(interrupt.value, ek.ExtractionInterrupted)


def test_a_pass_in_a_thread_leaves_the_button_to_others(model, corpus, whole):
    found = []
    thread = threading.Thread(target=lambda: found.append(extract(model, corpus)))
    thread.start()
    thread.join()
    same(found[0], whole)


# Checkpoints


def stream_of(corpus, chunk: int = 20) -> StreamedCorpus:
    return StreamedCorpus(
        "stream", lambda: (("t", i, s) for i, s in enumerate(corpus, 1)), chunk=chunk
    )


@pytest.mark.parametrize("kept", [("cpu",), ()], ids=["host", "device form"])
def test_a_stopped_pass_goes_on_to_the_same_bits(
    model, corpus, monkeypatch, tmp_path, capsys, kept
):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", kept)
    whole = extract(model, corpus)
    assert "resumes" not in capsys.readouterr().out
    stopped(model, corpus, monkeypatch, 4, checkpoint=tmp_path)
    ran = press_stop_at(monkeypatch, -1)
    again = ek.extract(model, corpus, batch_tokens=BATCH, checkpoint=tmp_path)
    assert "resumes    after 4 of" in capsys.readouterr().out
    same(again, whole)
    work = ek.plan(model, corpus, batch_tokens=BATCH)
    assert len(ran) == len(work.batches) - 4
    same(extract(model, corpus, checkpoint=tmp_path), whole)
    assert len(ran) == len(work.batches) - 4, "a pass that was done is not run again"


def test_a_resumed_pass_names_all_that_it_was_run_with(model, corpus, monkeypatch, tmp_path):
    def kernels(found) -> list[str]:
        return [one["attention"] for one in found.info["environments"]]

    model.module.set_attn_implementation("eager")
    try:
        partial = stopped(model, corpus, monkeypatch, 4, checkpoint=tmp_path).partial
        assert kernels(partial) == ["eager"]
    finally:
        model.module.set_attn_implementation("sdpa")
    again = extract(model, corpus, checkpoint=tmp_path)
    assert kernels(again) == ["eager", "sdpa"]
    assert ek.TokenStatistics.load(again.save(tmp_path / "saved")).info == again.info
    model.module.set_attn_implementation("eager")
    try:
        done = extract(model, corpus, checkpoint=tmp_path)
        assert done.info == again.info, "nothing was run any more"
    finally:
        model.module.set_attn_implementation("sdpa")


@pytest.mark.parametrize("kept", [("cpu",), ()], ids=["host", "device form"])
def test_covariances_go_on_to_the_same_bits(model, corpus, monkeypatch, tmp_path, kept):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", kept)
    whole = extract(model, corpus, covariance=True)
    partial = stopped(model, corpus, monkeypatch, 4, checkpoint=tmp_path, covariance=True).partial
    V = partial.decomposition(min_count=1, max_count=None)["V"]
    np.testing.assert_allclose(np.trace(partial.covariance, axis1=1, axis2=2), V, rtol=1e-5)
    with pytest.raises(ek.StatisticsError, match="do not know in which documents"):
        _ = partial.effective_documents  # the plan counts those of all batches
    with pytest.raises(ek.CheckpointError, match=r"was made with covariance=True"):
        extract(model, corpus, checkpoint=tmp_path)
    again = extract(model, corpus, checkpoint=tmp_path, covariance=True)
    same(again, whole)
    np.testing.assert_array_equal(again.covariance, whole.covariance)


def test_a_stream_goes_on_in_its_chunk(model, corpus, monkeypatch, tmp_path):
    wanted = extract(model, stream_of(corpus))
    first = len(ek.plan(model, corpus[:20], batch_tokens=BATCH).batches)
    stopped(model, stream_of(corpus), monkeypatch, first + 2, checkpoint=tmp_path)
    ran = press_stop_at(monkeypatch, -1)
    same(extract(model, stream_of(corpus), checkpoint=tmp_path), wanted)
    parts = [corpus[20:40], corpus[40:]]
    left = sum(len(ek.plan(model, part, batch_tokens=BATCH).batches) for part in parts)
    assert len(ran) == left - 2
    for other, changed in (
        (stream_of(corpus[1:]), "fingerprint"),
        (stream_of(corpus[:40]), "longer corpus"),
    ):
        with pytest.raises(ek.CheckpointError, match=changed):
            extract(model, other, checkpoint=tmp_path)


def test_what_changed_is_refused_by_name(model, corpus, monkeypatch, tmp_path, tiny):
    stopped(model, corpus, monkeypatch, 2, checkpoint=tmp_path)
    kept = (tmp_path / "pass.safetensors").read_bytes()

    def refused(name: str, model=model, corpus=corpus, batch_tokens=BATCH, **options) -> None:
        with pytest.raises(ek.CheckpointError, match=rf"was made with .*{name}=.*remove it"):
            ek.extract(
                model,
                corpus,
                batch_tokens=batch_tokens,
                checkpoint=tmp_path,
                progress=False,
                **options,
            )
        assert (tmp_path / "pass.safetensors").read_bytes() == kept

    refused("by", by="id")
    refused("sites", site="unit")
    refused("sites", site=["hidden", "unit"])
    refused("layers", layers=[0, 1])
    refused("long", long="cut")
    refused("min_count", min_count=2)
    refused("batch_tokens", batch_tokens=BATCH + 1)
    refused("model", model=ek.load_model(tiny("roberta"), device="cpu"))
    refused("dtype", model=ek.load_model(tiny("bert"), device="cpu", dtype="bfloat16"))
    refused("fingerprint", corpus=corpus[1:])
    refused("corpus", corpus=replace(corpus, name="other"))
    tuned = ek.load_model(tiny("bert"), device="cpu")
    with torch.no_grad():
        next(tuned.module.parameters())[5, 0] += 0.25
    refused("weights", model=tuned)
    words = model.tokenizer.__call__
    monkeypatch.setattr(
        type(model.tokenizer), "__call__", lambda self, text, **o: words([*text[:-1], "x"], **o)
    )
    refused("batches")
    monkeypatch.setattr(checkpoint, "__version__", "99.0")
    refused("kit version")


def test_a_second_process_is_told(model, corpus, tmp_path):
    holder = (
        "import sys\nfrom pathlib import Path\nfrom embvar_kit.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ek.CheckpointError, match="Another process is using"):
        extract(model, corpus, checkpoint=tmp_path)
    process.kill()  # a killed process releases its lock
    process.wait()
    extract(model, corpus, checkpoint=tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "one bit", "no header", "empty"])
def test_a_damaged_checkpoint_is_named_and_left(model, corpus, tmp_path, damage):
    extract(model, corpus, checkpoint=tmp_path)
    path = tmp_path / "pass.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "one bit":
        data[len(data) // 2] ^= 4
    data = {"truncated": data[:-1], "no header": data[64:], "empty": b""}.get(damage, data)
    path.write_bytes(data)
    with pytest.raises(ek.CheckpointError, match=r"pass.safetensors' cannot be read.*Remove it"):
        extract(model, corpus, checkpoint=tmp_path)
    assert path.read_bytes() == data


def test_a_disk_that_fills_up_is_told_and_the_pass_goes_on(model, corpus, whole, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.warns(ek.EmbvarWarning, match=r"Could not write.*The pass continues") as told:
            found = extract(model, corpus, checkpoint=tmp_path, checkpoint_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(told) == 1, "said once"
    same(found, whole)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_will_not_do_is_refused_before_the_pass(model, corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("here already")
    with pytest.raises(ek.CheckpointError, match="cannot be written"):
        extract(model, corpus, checkpoint=tmp_path / "file")
    for every in (-1, float("nan")):
        with pytest.raises(ek.CheckpointError, match="not a number of seconds"):
            extract(model, corpus, checkpoint=tmp_path / "kept", checkpoint_every=every)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ek.CheckpointError, match="are free: name a folder on another disk"):
        extract(model, corpus, checkpoint=tmp_path / "kept")


def test_checkpoints_are_made_when_they_are_due(model, corpus, tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now.seconds)
    kept = checkpoint.Checkpoint(tmp_path, 10, {})
    kept.begin_part(corpus)

    def slow() -> dict:
        now.seconds += 3
        return {"x": np.zeros(3)}

    assert not kept.due()
    now.seconds = 10
    assert kept.due()
    kept.save(1, slow)
    now.seconds += 59
    assert not kept.due(), "it took 3 s: 20 times as long goes by before the next"
    now.seconds += 1
    assert kept.due()


def test_other_files_of_a_folder_stay(model, corpus, tmp_path):
    extract(model, corpus, checkpoint=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_checkpoint_carries_no_code(model, corpus, tmp_path):
    """Its header is JSON and its arrays are plain numbers, which safetensors alone can read."""
    extract(model, corpus, checkpoint=tmp_path)
    data = (tmp_path / "pass.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    kinds = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert kinds == {"I64", "F32", "I8", "F64"}
    told = json.loads(header["__metadata__"]["told"])
    assert told["parts"][0]["fingerprint"] == corpus.fingerprint
    assert str(tmp_path) not in header["__metadata__"]["told"]


# Memory


class SmallMemory:
    """A model that runs out of memory on batches of more than a given number of tokens."""

    def __init__(self, model, room: int) -> None:
        self.model, self.room, self.ran = model, room, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def fail(self, ids) -> None:
        """Fail as PyTorch does where these token ids are too many."""
        self.ran.append(ids.numel())
        if ids.numel() > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def hidden_states(self, ids, mask=None):
        self.fail(ids)
        return self.model.hidden_states(ids, mask)

    @contextmanager
    def keeping(self, layers, ids):
        with self.model.keeping(layers, ids) as run:

            def run_or_fail(ids, mask=None):
                self.fail(ids)
                return run(ids, mask)

            yield run_or_fail


def test_a_batch_too_large_for_the_memory_is_halved(model, corpus, whole, monkeypatch):
    monkeypatch.setattr(measure, "sharing", lambda *_: batching.Sharing.ANY)
    small = SmallMemory(model, 2 * BATCH)
    with pytest.warns(ek.EmbvarWarning, match="too small for .* tokens at once") as told:
        found = ek.extract(small, corpus, batch_tokens=5 * BATCH, progress=False)
    assert len(told) == 1, "said once"
    np.testing.assert_array_equal(found.n, whole.n)
    np.testing.assert_allclose(found.V, whole.V, rtol=1e-4, atol=1e-5)
    failed = [size for size in small.ran if size > small.room]
    assert len(failed) <= 2, "batches to come are halved before they fail"


def test_a_sequence_too_large_for_the_memory_is_named(model, corpus):
    with pytest.raises(ek.ExtractionError, match=r"sequence of \d+ tokens alone"):
        extract(SmallMemory(model, 10), corpus)


class CannotCompile(SmallMemory):
    """A model in a process where oneDNN, once out of memory, cannot compile any more."""

    def fail(self, ids) -> None:
        """Fail as PyTorch does where oneDNN cannot compile, after the first runs."""
        self.ran.append(torch.backends.mkldnn.enabled)
        if self.ran[-1] and len(self.ran) > self.room:
            raise RuntimeError("could not create a primitive")


def test_a_pass_goes_on_where_onednn_cannot_compile(model, corpus, whole, recwarn):
    broken = CannotCompile(model, 2)
    found = extract(broken, corpus)
    np.testing.assert_array_equal(found.n, whole.n)
    np.testing.assert_allclose(found.V, whole.V, rtol=1e-4, atol=1e-5)
    without = broken.ran.index(False)
    assert all(broken.ran[:without]) and not any(broken.ran[without:])
    assert not recwarn.list and torch.backends.mkldnn.enabled


@pytest.mark.slow
def test_the_hosts_memory_may_run_out_in_earnest(tiny, tmp_path):
    """PyTorch's own allocator fails, in a process with a limited address space."""
    script = f"""
import resource, warnings
import embvar_kit as ek, embvar_kit.extraction
model = ek.load_model({str(tiny("bert"))!r}, device="cpu")
corpus = ek.Corpus.of(["the cat sat on the mat"] * 30_000)
ek.extract(model, corpus[:300], progress=False)  # starts threads and compiles code
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {150 * 2**20}, used + {150 * 2**20}))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    found = ek.extract(model, corpus, batch_tokens=300_000, progress=False)
print([str(w.message)[:40] for w in told], int(found.n.sum()), float(found.V[-1].max()) >= 0)
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc here")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The memory is too small for") == 1, done.stdout


def test_the_devices_moments_are_taken_in_halves_where_memory_ends(model, corpus, monkeypatch):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    whole = extract(model, corpus)
    add, failed = DeviceMoments.add, []

    def little(self, xs, order, first):
        if len(order.groups) > 8 or len(xs) > 2:
            failed.append((len(xs), len(order.groups) > 8))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        add(self, xs, order, first)

    monkeypatch.setattr(DeviceMoments, "add", little)
    same(extract(model, corpus), whole)
    assert {(3, True), (1, True)} <= set(failed)


def test_a_lock_can_be_waited_for(tmp_path, capsys):
    released = threading.Event()
    entered = threading.Event()

    def hold() -> None:
        with files.locked(tmp_path):
            entered.set()
            released.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(20)
    threading.Timer(0.3, released.set).start()
    with files.locked(tmp_path, wait=True):
        assert released.is_set()
    thread.join()
    assert "waiting for it" in capsys.readouterr().out
