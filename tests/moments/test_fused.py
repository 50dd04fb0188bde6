"""The fused kernel gives what the compiled loops give: on the GPU, or by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from brute_force import assert_right, cloud
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit.moments import fused
from embvar_kit.moments.device import DeviceMoments
from embvar_kit.moments.fused import SWITCH, FusedMoments, device_moments
from embvar_kit.moments.grouped import GroupedMoments, GroupOrder

pytestmark = pytest.mark.skipif(fused.triton is None, reason="Triton has wheels for Linux only")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def fed(
    xs: list[torch.Tensor], groups: np.ndarray, n_groups: int, cuts: list[int], kind=FusedMoments
) -> DeviceMoments:
    """Moments of the layers, taken in as batches that end at the cuts."""
    moments = kind(n_groups, xs[0].shape[1], DEVICE, len(xs))
    xs = [x.to(DEVICE) for x in xs]
    for rows in np.split(np.arange(len(groups)), cuts):
        moments.add(xs, kind.Order(GroupOrder.of(groups[rows], rows), DEVICE))
    return moments


def one(x: np.ndarray, groups: np.ndarray, n_groups: int, cuts: list[int]) -> GroupedMoments:
    return fed([torch.from_numpy(x)], groups, n_groups, cuts).to_host()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 33, 129])
def test_each_layer_gives_what_the_host_gives_of_each_type(dtype, dim):
    x, groups = cloud(np.random.default_rng(dim), 60, dim, 1e-2)
    xs = [(scale * torch.from_numpy(x)).to(dtype) for scale in (1, -3, 100)]
    found = fed(xs, groups, 4, [20, 45])  # group 3 is never seen
    for layer, own in enumerate(xs):
        held = own.float().numpy()
        moments, host = found.to_host(layer), GroupedMoments(4, dim)
        for rows in np.split(np.arange(60), [20, 45]):
            host.update(held[rows], groups[rows])
        assert_right(moments, held, groups)
        for name in "QMV":
            apart = np.abs(getattr(moments, name) - getattr(host, name))
            assert (apart[:3] <= 1e-12 * host.Q[:3]).all(), name
        np.testing.assert_allclose(moments.mean, host.mean, rtol=2e-7)
    assert not found.refused


@settings(max_examples=25)
@given(
    n=st.integers(1, 40),
    dim=st.sampled_from([1, 2, 3, 17]),
    spread=st.sampled_from([1.0, 1e-2, 4e-4]),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 40), max_size=2),
)
def test_any_batching_gives_the_two_pass_result(n, dim, spread, seed, cuts):
    x, groups = cloud(np.random.default_rng(seed), n, dim, spread)
    assert_right(one(x, groups, 4, sorted(min(cut, n) for cut in cuts)), x, groups)


def test_means_a_thousand_times_the_spread_cost_no_digit():
    """The difference Q - M has lost all digits of V, also where each batch has its own shift."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(size=(90, 8)) + np.repeat([[0], [2], [-1]], 30, axis=0)) * 1.0
    x = x.astype(np.float32)
    groups = np.zeros(90, dtype=int)
    found = one(x, groups, 1, [30, 60])
    assert found.V[0] == pytest.approx(x.astype(np.float64).var(axis=0).sum(), rel=1e-6)
    assert_right(found, x, groups)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_identical_vectors_have_variance_zero(dtype):
    x = torch.randn((1, 33), generator=torch.Generator().manual_seed(0)).to(dtype).repeat(25, 1)
    found = fed([x], np.zeros(25, dtype=int), 1, [1, 10, 11]).to_host()
    assert found.V[0] == 0.0
    np.testing.assert_array_equal(found.mean[0], x[0].float().numpy())


def test_never_negative_at_one_ulp():
    rng = np.random.default_rng(0)
    base = rng.normal(size=32).astype(np.float32)
    x = np.where(rng.random((90, 32)) < 0.5, base, np.nextafter(base, np.float32(9)))
    groups = np.repeat([0, 1, 2], 30)
    assert (one(x, groups, 3, list(range(10, 90, 10))).V >= 0).all()


def test_one_occurrence_has_no_variance_and_its_own_norm():
    x = np.array([[3, 4]], dtype=np.float32)
    found = one(x, np.array([1]), 2, [])
    assert found.count.tolist() == [0, 1]
    assert (found.Q[1], found.M[1], found.V[1]) == (25, 25, 0)
    assert np.isnan([found.Q[0], found.M[0], found.V[0], *found.mean[0]]).all()


def test_two_passes_are_the_same_to_the_bit():
    x, groups = cloud(np.random.default_rng(5), 90, 130, 1e-2)
    one_pass, other = (one(x, groups, 3, [30, 60]).state() for _ in range(2))
    for name, array in one_pass.items():
        np.testing.assert_array_equal(array, other[name])


def test_a_batch_without_occurrences_changes_nothing():
    found = one(np.ones((3, 4), np.float32), np.zeros(3, dtype=int), 2, [0, 0, 3])
    assert found.count.tolist() == [3, 0] and found.V[0] == 0.0


def test_some_layers_may_be_added_apart_from_the_others():
    """As where the memory is too small for all at once."""
    x, groups = cloud(np.random.default_rng(6), 30, 5, 1.0)
    xs = [torch.from_numpy(x * scale).to(DEVICE) for scale in (1, 2, 3)]
    order = FusedMoments.Order(GroupOrder.of(groups), DEVICE)
    apart = FusedMoments(3, 5, DEVICE, 3)
    apart.add(xs[1:], order, 1)
    assert apart.count[:, 0].tolist() == [0, 0, 0]
    apart.add(xs[:1], order, 0)
    together = fed(xs, groups, 3, [])
    for layer in range(3):
        for name, array in together.to_host(layer).state().items():
            np.testing.assert_array_equal(apart.to_host(layer).state()[name], array)


def test_layers_of_several_types_and_features_that_lie_apart_are_read_right():
    x, groups = cloud(np.random.default_rng(7), 30, 14, 1.0)
    wide = torch.from_numpy(x)
    xs = [wide[:, ::2], wide[:, 7:], wide[:, :7].bfloat16()]
    found = fed(xs, groups, 3, [15])
    for layer, own in enumerate(xs):
        assert_right(found.to_host(layer), own.float().numpy(), groups)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_where_it_is_read(bad):
    x = torch.ones((4, 3), device=DEVICE)
    x[2, 1] = bad
    moments = FusedMoments(2, 3, DEVICE)
    some = GroupOrder.of(np.array([0, 1, 0]), rows=np.array([0, 1, 3]))
    moments.add([x], FusedMoments.Order(some, DEVICE))
    assert not moments.refused
    moments.add([x], FusedMoments.Order(GroupOrder.of(np.array([0, 1, 1, 0])), DEVICE))
    assert moments.refused


# In a pass


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"site": ["hidden", "unit"]}, {"by": "word"}], ids=str)
def test_a_pass_by_the_fused_kernel_gives_the_same_statistics(tiny, monkeypatch, options):
    model = ek.load_model(tiny("bert"), device=str(DEVICE))
    corpus = ek.Corpus.of(SENTENCES[:4])
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    run = dict(layers=[0, 2], batch_tokens=30, progress=False, **options)
    plain = ek.extract(model, corpus, **run)
    monkeypatch.setenv(SWITCH, "1")
    taken = []
    add = FusedMoments.add
    monkeypatch.setattr(FusedMoments, "add", lambda *given: (taken.append(given), add(*given)))
    found = ek.extract(model, corpus, **run)
    assert len(taken) >= 2
    pairs = (
        zip(plain.values(), found.values(), strict=True) if "site" in options else [(plain, found)]
    )
    for torchs, fuseds in pairs:
        np.testing.assert_array_equal(fuseds.n, torchs.n)
        for name in "QMV":
            apart = np.abs(getattr(fuseds, name) - getattr(torchs, name))
            assert (apart <= 1e-9 * torchs.Q).all(), name


def test_the_kernel_is_off_unless_asked_for(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    assert device_moments() is DeviceMoments
    monkeypatch.setenv(SWITCH, "1")
    assert device_moments() is FusedMoments
    monkeypatch.setattr(fused, "triton", None)
    with pytest.warns(ek.EmbvarWarning, match="needs the package triton"):
        assert device_moments() is DeviceMoments


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from embvar_kit.moments import fused

POINTERS = {
    "addresses": "*i64", "rows": "*i64", "first": "*i64", "lengths": "*i64", "groups": "*i64",
    "count": "*i64", "mean": "*fp32", "extra": "*i8", "found": "*fp64", "squares": "*fp64",
    "deviations": "*fp64", "refused": "*u8",
}

def compiled(kernel, target, **constants):
    names = kernel.arg_names
    kinds = {n: "constexpr" if n in constants else POINTERS.get(n, "i32") for n in names}
    # What Triton finds out about the arguments at a launch: tensors are aligned, and d fits.
    even = [n for n in names if n in POINTERS or n == "dim"]
    source = triton.compiler.ASTSource(
        kernel,
        signature=kinds,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in even},
    )
    return triton.compile(source, target=target).asm

for name, target in {80: ("cuda", 32), 90: ("cuda", 32), "gfx942": ("hip", 64)}.items():
    target = GPUTarget(target[0], name, target[1])
    for dtype in (tl.float32, tl.bfloat16):
        how = dict(DTYPE=dtype, ALIGNED=True, FEATURES=128, ROWS=fused._ROWS, STEP=fused.STEP)
        asm = compiled(fused._take_in, target, **how)
        if target.backend == "cuda":
            print(dtype, len(asm["cubin"]) > 0, "ld.global.v4.b32" in asm["ptx"])
    compiled(fused._finish, target, SEGMENTS=fused._SEGMENTS)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_and_read_sixteen_bytes_at_once(tmp_path):
    """No GPU is needed to compile; the interpreter lets pass what the compiler refuses."""
    kept = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, cwd=ROOT, env=kept
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["fp32 True True", "bf16 True True"] * 2
