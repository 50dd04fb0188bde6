"""The pass on a GPU; all of it is skipped where there is none."""

from __future__ import annotations

import random
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit.extraction.accumulator import Accumulator
from embvar_kit.extraction.forward import forward
from embvar_kit.moments import fused

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")

WORDS = " ".join(SENTENCES).split()
BATCH = 4096


@pytest.fixture(scope="module")
def corpus() -> ek.Corpus:
    """Sentences of many lengths, so that batches are padded."""
    rng = random.Random(0)
    return ek.Corpus.of([" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) for _ in range(2000)])


@pytest.fixture(scope="module")
def on(tiny):
    """``on("cuda", "bert")``: a tiny model, or a twin, on a device."""

    def load(device: str, name: str) -> ek.EmbeddingModel:
        if name in ek.TWINS:
            return ek.load_twin(name, device=device)
        return ek.load_model(tiny(name), device=device)

    return load


def extract(model: ek.EmbeddingModel, corpus: ek.Corpus, **options) -> ek.TokenStatistics:
    return ek.extract(model, corpus, batch_tokens=BATCH, progress=False, **options)


def same(a: ek.TokenStatistics, b: ek.TokenStatistics) -> None:
    for name in ("tokens", "n", "Q", "M", "V", "mean"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "post-ln", "no-norm"])
@pytest.mark.parametrize("options", [{}, {"by": "word"}, {"site": ["hidden", "unit"]}], ids=str)
def test_the_gpu_gives_what_the_cpu_gives(on, corpus, name, options):
    cpu = extract(on("cpu", name), corpus, **options)
    gpu = extract(on("cuda", name), corpus, **options)
    pairs = [(cpu[site], gpu[site]) for site in cpu] if "site" in options else [(cpu, gpu)]
    for host, device in pairs:
        np.testing.assert_array_equal(device.tokens, host.tokens)
        np.testing.assert_array_equal(device.n, host.n)
        # Two float32 forward passes, whose products add in different orders.
        for quantity in "QMV":
            apart = np.abs(getattr(device, quantity) - getattr(host, quantity))
            assert (apart <= 2e-5 * host.Q).all(), quantity
        np.testing.assert_allclose(device.Q, device.M + device.V, rtol=1e-7)


def test_two_passes_are_the_same_to_the_bit(on, corpus):
    model = on("cuda", "bert")
    same(extract(model, corpus), extract(model, corpus))


@pytest.mark.skipif(fused.triton is None, reason="Triton is not installed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"by": "word"}, {"site": "unit"}], ids=str)
def test_the_fused_kernel_gives_what_the_torch_form_gives(
    tiny, corpus, monkeypatch, dtype, options
):
    """Both take in the same states, so that only the order of sums differs."""
    model = ek.load_model(tiny("bert"), device="cuda", dtype=dtype)
    plain = extract(model, corpus, **options)
    monkeypatch.setenv(fused.SWITCH, "1")
    found = extract(model, corpus, **options)
    np.testing.assert_array_equal(found.n, plain.n)
    for quantity in "QMV":
        apart = np.abs(getattr(found, quantity) - getattr(plain, quantity))
        assert (apart <= 1e-9 * plain.Q).all(), quantity
    assert (found.V >= 0).all()
    same(extract(model, corpus, **options), found)


@contextmanager
def refused_to_wait():
    """An error wherever the host would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["bert", "gpt2", "post-ln"])
@pytest.mark.parametrize("by", ["token", "word"])
@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_statistics_never_wait_for_the_gpu(on, corpus, monkeypatch, name, by, switch):
    monkeypatch.setenv(fused.SWITCH, switch)
    model = on("cuda", name)
    work = ek.plan(model, corpus, by=by, batch_tokens=BATCH)
    moments = Accumulator(model, work, ["hidden", "unit"])
    for number, batch in enumerate(forward(model, work, ["hidden", "unit"])):
        with refused_to_wait() if number else nullcontext():  # libraries set up what they need
            moments.add(batch)


@pytest.mark.parametrize("name", ["bert", "post-ln"])
def test_a_batch_without_padding_is_run_without_waiting(on, name):
    """With padding, transformers itself asks the GPU once a batch whether its mask masks."""
    model = on("cuda", name)
    corpus = ek.Corpus.of([" ".join(WORDS[at : at + 5]) for at in range(len(WORDS) - 5)] * 100)
    work = ek.plan(model, corpus, batch_tokens=BATCH)
    full = [b for b in work.batches if len(set(work.text.lengths[b])) == 1]
    batches = forward(model, work, batches=full)
    next(batches)
    with refused_to_wait():
        assert len(list(batches)) == len(full) - 1 > 3


def test_where_the_gpus_memory_ends_batches_are_halved(on):
    model = on("cuda", "bert")
    corpus = ek.Corpus.of(SENTENCES * 4000)
    whole = extract(model, corpus)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    room = torch.cuda.memory_reserved() + 200 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        with pytest.warns(ek.EmbvarWarning, match="too small for .* tokens at once"):
            found = ek.extract(model, corpus, batch_tokens=2_000_000, progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_array_equal(found.n, whole.n)
    np.testing.assert_allclose(found.V, whole.V, rtol=1e-3, atol=1e-4)


def test_what_is_not_finite_is_found(on, corpus):
    model = on("cuda", "bert")
    norms = [m for m in model.module.modules() if isinstance(m, torch.nn.LayerNorm)]
    with torch.no_grad():
        norms[-1].weight.fill_(torch.inf)
    with pytest.raises(ek.ExtractionError, match=r"in layer 2 for .*, sentence \d+.*float32"):
        extract(model, corpus)


def test_a_pass_that_was_cut_goes_on_to_the_same_end(on, corpus, tmp_path, monkeypatch):
    model = on("cuda", "bert")
    whole = extract(model, corpus)
    add, taken = Accumulator.add, []

    def cut(self, batch):
        taken.append(batch)
        if len(taken) == 6:
            raise RuntimeError("the power is out")
        add(self, batch)

    kept = {"checkpoint": tmp_path / "kept", "checkpoint_every": 0}
    with monkeypatch.context() as patched:
        patched.setattr(Accumulator, "add", cut)
        with pytest.raises(RuntimeError, match="the power is out"):
            extract(model, corpus, **kept)
    added = []
    monkeypatch.setattr(Accumulator, "add", lambda self, b: (added.append(b), add(self, b)))
    same(extract(model, corpus, **kept), whole)
    assert 0 < len(added) < len(ek.plan(model, corpus, batch_tokens=BATCH).batches)
