"""The streamed covariance against two passes in float64, in whatever batches the data arrive."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.moments.covariance import CovarianceMoments
from embvar_kit.moments.device import DeviceCovariance

SEEDS = st.integers(0, 2**32 - 1)
CUTS = st.lists(st.integers(0, 80), max_size=6).map(sorted)


def cloud(seed: int, spread: float = 1.0, n: int = 80, dim: int = 5) -> np.ndarray:
    """float32 vectors around a mean of length 10 or so, whose features vary together."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim))
    return (4 + spread * mixed).astype(np.float32)


def fed(parts: list[np.ndarray]) -> CovarianceMoments:
    m = CovarianceMoments(parts[0].shape[1])
    for part in parts:
        m.update(part)
    return m


def assert_right(m: CovarianceMoments, x: np.ndarray) -> None:
    wide = x.astype(np.float64)
    apart = wide - wide.mean(axis=0)
    expected = apart.T @ apart / len(x)
    assert m.count == len(x)
    np.testing.assert_allclose(m.mean, wide.mean(axis=0), rtol=1e-14)
    error, scale = np.abs(m.covariance - expected).max(), np.abs(expected).max()
    # The mean is rounded after each batch, which deviations from it see to first order.
    assert error <= 1e-13 * scale + 1e-15 * np.abs(m.mean).max() * np.sqrt(scale)


@given(SEEDS, CUTS, st.sampled_from([1.0, 1e-2, 1e-4]))
def test_batches_of_any_size_give_the_covariance_of_two_passes(seed, cuts, spread):
    x = cloud(seed, spread)
    found = fed(np.split(x, cuts))
    assert_right(found, x)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


@given(SEEDS, CUTS)
def test_parts_merge_exactly(seed, cuts):
    x = cloud(seed)
    whole = CovarianceMoments(5)
    for part in np.split(x, cuts):
        whole.merge(fed([part]))
    assert_right(whole, x)


def test_a_drift_of_the_mean_does_not_cancel():
    """Batches sorted by size, as sentences come sorted by length."""
    x = cloud(0, n=5000)
    x[:, 0] += np.arange(5000, dtype=np.float32)
    assert_right(fed(np.array_split(x, 50)), x)


def test_its_trace_is_the_variance_of_one_group():
    x = cloud(1)
    one = ek.GroupedMoments(1, 5)
    one.update(x, np.zeros(len(x), dtype=int))
    assert np.trace(fed([x]).covariance) == pytest.approx(one.V[0], rel=1e-9)


def test_a_state_restores_it_to_the_bit():
    x = cloud(2)
    first, whole = fed([x[:30]]), fed([x[:30], x[30:]])
    resumed = CovarianceMoments(5)
    resumed.restore({name: array.copy() for name, array in first.state().items()})
    resumed.update(x[30:])
    np.testing.assert_array_equal(resumed.covariance, whole.covariance)
    np.testing.assert_array_equal(resumed.mean, whole.mean)
    again = CovarianceMoments.of(whole.count, whole.mean, whole.covariance)
    np.testing.assert_allclose(again.covariance, whole.covariance, rtol=1e-15)


def test_nothing_has_no_covariance_and_does_not_change_another():
    assert np.isnan(CovarianceMoments(2).covariance).all()
    m = fed([cloud(3)])
    before = m.covariance
    m.merge(CovarianceMoments(5))
    m.update(np.empty((0, 5), dtype=np.float32))
    np.testing.assert_array_equal(m.covariance, before)


def test_vectors_of_another_length_are_refused():
    with pytest.raises(ek.MomentsError, match="dim >= 1"):
        CovarianceMoments(0)
    with pytest.raises(ek.MomentsError, match=r"shape \(N, 3\)"):
        CovarianceMoments(3).update(np.ones((2, 4)))
    with pytest.raises(ek.MomentsError, match="4 dimensions into 3"):
        CovarianceMoments(3).merge(CovarianceMoments(4))


@given(SEEDS, CUTS)
def test_the_device_form_gives_the_same_covariance(seed, cuts):
    x = cloud(seed)
    rows = np.random.default_rng(seed).permutation(80)
    device = DeviceCovariance(5, torch.device("cpu"))
    for part in np.split(rows, cuts):
        if len(part):
            device.update(torch.from_numpy(x), torch.from_numpy(part))
    assert_right(device.to_host(), x)
    again = DeviceCovariance(5, torch.device("cpu"))
    again.restore(device.to_host().state())
    np.testing.assert_array_equal(again.to_host().covariance, device.to_host().covariance)


PRODUCT = """
import hashlib
import numpy as np, torch
torch.set_num_threads(1)
from embvar_kit.moments.covariance import CovarianceMoments
moments, random = CovarianceMoments(100), np.random.default_rng(0)
for n in (900, 37, 513):
    moments.update(random.normal(size=(n, 100)).astype(np.float32) + 1)
print(hashlib.sha256(moments.covariance.tobytes()).hexdigest())
"""


def test_its_bits_do_not_depend_on_the_threads_of_numpy():
    """A pass sets PyTorch's; a process that Dask starts has another number of NumPy's."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PRODUCT],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in "124"
    }
    assert len(found) == 1
