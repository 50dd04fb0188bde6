"""Linear layers on packed weights: the same model to rounding, and untouched afterwards."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, SENTENCES
from torch import nn

import embvar_kit as ek
from embvar_kit.extraction import onednn
from embvar_kit.extraction.onednn import packed

pytestmark = pytest.mark.skipif(
    not onednn._available(), reason="PyTorch has no oneDNN here, or the CPU is no x86"
)

IDS = torch.arange(40).reshape(2, 20)


def states(model) -> list[np.ndarray]:
    return [state.numpy().copy() for state in model.hidden_states(IDS)]


def linear(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if type(part).__name__ in ("Linear", "Conv1D")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_same_states_to_rounding(family, loaded):
    model = loaded(family)
    plain = states(model)
    with packed(model.module) as number:
        found = states(model)
    assert number == len(linear(model.module)) > 0
    for own, wanted in zip(found, plain, strict=True):
        np.testing.assert_allclose(own, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_the_model_is_as_it_was_also_after_an_error(minilm):
    plain, kept = states(minilm), [dict(vars(part)) for part in minilm.module.modules()]
    with pytest.raises(KeyboardInterrupt), packed(minilm.module):
        raise KeyboardInterrupt
    assert [vars(part) for part in minilm.module.modules()] == kept
    for own, wanted in zip(states(minilm), plain, strict=True):
        np.testing.assert_array_equal(own, wanted)


@pytest.mark.filterwarnings("ignore:TF32")  # PyTorch warns whenever the flags are set
def test_a_pass_gives_the_same_statistics_with_and_without(minilm):
    corpus = ek.Corpus.of(SENTENCES)
    found = ek.extract(minilm, corpus, progress=False)
    again = ek.extract(minilm, corpus, progress=False)
    with torch.backends.mkldnn.flags(enabled=False):
        plain = ek.extract(minilm, corpus, progress=False)
    for name in "QMV":
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-4, atol=1e-9)
    assert (found.Q != plain.Q).any(), "packed and plain products round alike: neither was tried"


def test_weights_changed_between_two_passes_are_seen(tiny):
    model = ek.load_model(tiny("bert"), device="cpu")
    corpus = ek.Corpus.of(SENTENCES)
    before = ek.extract(model, corpus, progress=False)
    with torch.no_grad():
        for part in linear(model.module):
            part.weight.data.mul_(2)  # which PyTorch's version counters do not see
    assert (ek.extract(model, corpus, progress=False).Q != before.Q).any()


def test_what_is_not_plain_float32_on_the_cpu_is_left_alone(tiny):
    with packed(ek.load_model(tiny("bert"), device="cpu", dtype="bfloat16").module) as number:
        assert number == 0
    own = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    own[0].forward = lambda x: x
    with packed(own) as number:
        assert number == 1
    assert own[0](3) == 3
    computed = nn.Linear(4, 4)
    weight = computed.weight.detach()
    del computed.weight
    computed.weight = weight  # as torch.nn.utils.weight_norm leaves it
    with packed(computed) as number:
        assert number == 0


def test_what_onednn_cannot_multiply_is_left_to_pytorch():
    layer, seen = nn.Linear(4, 4), []
    plain = layer.forward
    with packed(layer) as number, pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        assert number == 1 and layer.forward != plain
        seen.append(layer(torch.ones(1, 2, 4)).shape)
        layer(torch.ones(1, 5))  # PyTorch's words, not oneDNN's
    assert seen == [(1, 2, 4)] and layer.forward == plain


def test_weights_too_large_for_a_second_copy_are_left_alone(minilm, monkeypatch):
    size = sum(part.weight.nbytes for part in linear(minilm.module))
    for total, expected in ((4 * size, len(linear(minilm.module))), (4 * size - 1, 0)):
        monkeypatch.setattr("psutil.virtual_memory", lambda n=total: SimpleNamespace(total=n))
        with packed(minilm.module) as number:
            assert number == expected


@pytest.fixture
def untried():
    """No trial has been made yet, nor is one left behind."""
    onednn._tried_slower.cache_clear()
    yield
    onednn._tried_slower.cache_clear()


def test_packed_products_are_off_where_two_trials_find_them_slower(minilm, monkeypatch, untried):
    tried = []

    def ratios(*found):
        left = iter(found)
        monkeypatch.setattr(onednn, "time_ratio", lambda *shape: tried.append(shape) or next(left))

    ratios(onednn.SLOWER + 0.1, onednn.SLOWER + 0.1)
    for _ in range(2):  # the second time without a trial: all passes of a process decide alike
        with packed(minilm.module) as number:
            assert number == 0
    assert tried == [(384, 384)] * 2  # the shape of most of minilm's layers
    onednn._tried_slower.cache_clear()
    ratios(onednn.SLOWER + 0.1, onednn.SLOWER - 0.1)
    with packed(minilm.module) as number:
        assert number == len(linear(minilm.module))


def test_small_layers_are_packed_without_a_trial(monkeypatch, untried):
    monkeypatch.setattr(onednn, "time_ratio", lambda *_: pytest.fail("tried"))
    with packed(nn.Linear(64, 64)) as number:
        assert number == 1


def test_a_trial_times_both_kinds_and_is_short(monkeypatch):
    start = time.perf_counter()
    assert 0 < onednn.time_ratio(341, 768) < math.inf
    assert time.perf_counter() - start < 1  # 0.08 s, on a machine that may be busy
    product = onednn._product
    monkeypatch.setattr(onednn, "_TRIAL", 1.0)
    monkeypatch.setattr(onednn, "_product", lambda *x: time.sleep(0.03) or product(*x))
    assert onednn.time_ratio(341, 768) > onednn.SLOWER


@pytest.mark.parametrize("default", [{"dtype": torch.float64}, {"device": "meta"}])
def test_defaults_of_the_user_do_not_reach_the_trial(default):
    before = torch.get_default_dtype()
    try:
        if "dtype" in default:
            torch.set_default_dtype(default["dtype"])
        else:
            torch.set_default_device(default["device"])
        assert 0 < onednn.time_ratio(64, 64) < math.inf
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)
