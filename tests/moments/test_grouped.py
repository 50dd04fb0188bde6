"""The moments are accurate where subtraction is not, in whatever batches the data arrive."""

import numpy as np
import pytest
import torch
from brute_force import BOUND, SequentialLoop, assert_right, cloud, two_pass
from hypothesis import given, settings
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.moments.device import DeviceMoments, DeviceOrder
from embvar_kit.moments.grouped import GroupedMoments, GroupOrder


def fed(x: np.ndarray, groups: np.ndarray, n_groups: int, cuts: list[int]) -> GroupedMoments:
    """Moments of the data, taken in as batches that end at the cuts."""
    m = GroupedMoments(n_groups, x.shape[1])
    for part_x, part_groups in zip(np.split(x, cuts), np.split(groups, cuts), strict=True):
        m.update(part_x, part_groups)
    return m


shapes = st.tuples(st.integers(1, 120), st.sampled_from([1, 2, 3, 17, 64]))


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes,
    spread=st.sampled_from([1.0, 1e-2, 1e-3, 4e-4]),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_any_batching_gives_the_two_pass_result(shape, spread, seed, cuts):
    x, groups = cloud(np.random.default_rng(seed), *shape, spread)
    m = fed(x, groups, 4, sorted(min(cut, len(x)) for cut in cuts))  # group 3 is never seen
    assert_right(m, x, groups)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 120))
def test_merging_any_split_gives_the_whole(shape, seed, cut):
    x, groups = cloud(np.random.default_rng(seed), *shape, 1e-3)
    part, rest = fed(x[:cut], groups[:cut], 4, []), fed(x[cut:], groups[cut:], 4, [])
    kept = rest.V.copy()
    part.merge(rest)
    assert_right(part, x, groups)
    np.testing.assert_array_equal(rest.V, kept)


@pytest.mark.parametrize("dim", [1, 3, 384])
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_accurate_over_thousands_of_updates(dim, batch):
    """Rounding of the mean does most harm over many small updates; V/Q is 2e-7 here."""
    x, groups = cloud(np.random.default_rng(dim), 5000, dim, 4.5e-4, n_groups=2)
    m = fed(x, groups, 2, list(range(batch, len(x), batch)))
    assert_right(m, x, groups)


def test_float32_means_would_not_do():
    """Without the extra byte of the mean, the error exceeds the bound in the same setting."""
    x, groups = cloud(np.random.default_rng(3), 5000, 3, 4.5e-4, n_groups=1)
    bare = GroupedMoments(1, 3)
    for row in range(len(x)):
        bare.update(x[row : row + 1], groups[row : row + 1])
        bare._extra[:] = 0
    *_, V = two_pass(x)
    assert abs(bare.V[0] / V - 1) > 10 * BOUND
    assert fed(x, groups, 1, list(range(1, len(x)))).V[0] == pytest.approx(V, rel=BOUND)


@settings(max_examples=60, deadline=None)
@given(
    vector=st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=8),
    times=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_identical_vectors_have_variance_zero(vector, times):
    x = np.array([vector], dtype=np.float32)
    total = GroupedMoments(1, len(vector))
    for n in times:
        total.update(np.repeat(x, n, axis=0), np.zeros(n, dtype=int))
    other = GroupedMoments(1, len(vector))
    other.update(x, np.zeros(1))
    total.merge(other)
    assert total.V[0] == 0.0
    np.testing.assert_array_equal(total.mean[0], x[0])


def test_never_negative_at_one_ulp():
    rng = np.random.default_rng(0)
    base = rng.normal(size=32).astype(np.float32)
    x = np.where(rng.random((400, 32)) < 0.5, base, np.nextafter(base, np.float32(9)))
    m = fed(x, np.zeros(400, dtype=int), 1, list(range(3, 400, 3)))
    assert m.V[0] >= 0


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_order_does_not_matter(shape, seed):
    rng = np.random.default_rng(seed)
    x, groups = cloud(rng, *shape, 1e-2)
    shuffled = rng.permutation(len(x))
    a, b = fed(x, groups, 3, [5]), fed(x[shuffled], groups[shuffled], 3, [50])
    for name in "QMV":
        np.testing.assert_allclose(
            getattr(a, name), getattr(b, name), rtol=BOUND, atol=BOUND * np.nanmin(a.Q) * 1e-6
        )


def test_agrees_with_the_papers_loop_where_that_is_accurate():
    x, groups = cloud(np.random.default_rng(1), 600, 48, 1.0, n_groups=5)
    loop = SequentialLoop(np.float32)
    loop.update(x, groups)
    m = fed(x, groups, 5, [100, 101, 400])
    for group in range(5):
        np.testing.assert_allclose(m.mean[group], loop.mean[group], atol=1e-6)
        assert m.Q[group] == pytest.approx(float(loop.Q[group]), rel=1e-5)
        assert m.M[group] == pytest.approx(loop.M(group), rel=1e-4)
        assert m.V[group] == pytest.approx(loop.V(group), rel=1e-4)


def test_the_papers_loop_breaks_where_the_kit_does_not():
    x, groups = cloud(np.random.default_rng(2), 300, 48, 2e-4, n_groups=12)
    loop = SequentialLoop(np.float32)
    loop.update(x, groups)
    m = fed(x, groups, 12, [100])
    true = np.array([two_pass(x[groups == g])[2] for g in range(12)])
    of_loop = np.array([loop.V(g) for g in range(12)])
    assert (of_loop < 0).any()
    assert np.max(np.abs(of_loop / true - 1)) > 0.5
    assert np.max(np.abs(m.V / true - 1)) < 1e-5


def test_rows_that_the_order_leaves_out_are_never_read():
    x = np.array([[1, 2], [np.nan, np.inf], [3, 4]], dtype=np.float32)
    m = GroupedMoments(1, 2)
    m.update(x, GroupOrder.of(np.array([0, 0]), rows=np.array([0, 2])))
    assert m.count[0] == 2 and m.mean[0].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_what_is_not_finite_is_refused_by_place_and_nothing_is_counted(bad, at):
    x, groups = np.ones((5, 3), dtype=np.float32), np.array([1, 0, 1, 1, 0])
    m = GroupedMoments(2, 3)
    m.update(x, groups)
    x[at, 2] = bad
    with pytest.raises(ek.MomentsError, match=rf"Row {at} \(group {groups[at]}\).*feature 2"):
        m.update(x, groups)
    assert m.count.tolist() == [2, 3] and m.V.tolist() == [0.0, 0.0]


def test_the_unchecked_path_refuses_too():
    x = np.ones((2, 3), dtype=np.float32)
    x[1, 0] = np.inf
    m = GroupedMoments(2, 3)
    with pytest.raises(ek.MomentsError, match="Row 1"):
        m.add(x, GroupOrder.of(np.array([0, 1])))
    assert m.count[1] == 0


@pytest.mark.parametrize(
    ("x", "groups", "message"),
    [
        (np.ones((2, 4)), [0, 1], r"shape \(N, 3\)"),
        (np.ones(3), [0], r"shape \(N, 3\)"),
        (np.ones((2, 3)), [0], "as many groups"),
        (np.ones((2, 3)), [0, 2], "Group 2 is outside 0..1"),
        (np.ones((2, 3)), [-1, 0], "Group -1 is outside"),
        (np.ones((2, 3)), [0.5, 0], "whole numbers"),
    ],
)
def test_input_that_does_not_fit_is_refused(x, groups, message):
    m = GroupedMoments(2, 3)
    with pytest.raises(ek.MomentsError, match=message):
        m.update(x, np.array(groups))
    assert m.count.sum() == 0


@pytest.mark.parametrize(
    ("rows", "starts", "groups"),
    [
        ([0, 1], [0, 3], [0]),
        ([0, 1], [0, 1, 2], [1, 0]),
        ([0, 1], [0, 2, 2], [0, 1]),
        ([0, 1], [0, 2], [0, 1]),
        ([0, 5], [0, 2], [0]),
    ],
)
def test_an_order_that_does_not_cover_its_rows_is_refused(rows, starts, groups):
    m = GroupedMoments(2, 3)
    order = GroupOrder(*(np.array(part) for part in (rows, starts, groups)))
    with pytest.raises(ek.MomentsError, match="order"):
        m.update(np.ones((2, 3)), order)


def test_empty_batches_change_nothing():
    m = GroupedMoments(2, 3)
    m.update(np.empty((0, 3)), np.empty(0, dtype=int))
    assert m.count.tolist() == [0, 0] and np.isnan(m.V).all()


def test_other_number_types_and_layouts_are_converted():
    x = np.random.default_rng(0).normal(size=(6, 8))
    groups = np.zeros(6, dtype=int)
    a, b = GroupedMoments(1, 4), GroupedMoments(1, 4)
    a.update(x[:, ::2], groups)
    b.update(np.ascontiguousarray(x[:, ::2], dtype=np.float32), groups)
    assert a.V[0] == b.V[0]


def test_moments_of_different_shape_do_not_merge():
    with pytest.raises(ek.MomentsError, match="3 groups in 2 dimensions into 2 groups"):
        GroupedMoments(2, 2).merge(GroupedMoments(3, 2))
    with pytest.raises(ek.MomentsError, match="dim >= 1"):
        GroupedMoments(2, 0)


def test_the_device_form_gives_the_same_moments():
    """The tensor form that a GPU runs, on the CPU, against the compiled loops."""
    rng = np.random.default_rng(4)
    x, groups = cloud(rng, 2000, 33, 4.5e-4, n_groups=11)
    host, device = GroupedMoments(12, 33), DeviceMoments(12, 33, torch.device("cpu"))
    for rows in np.array_split(rng.permutation(2000), 30):
        order = GroupOrder.of(groups[rows], rows)
        host.add(x, order)
        device.add([torch.from_numpy(x)], DeviceOrder(order, torch.device("cpu")))
    back = device.to_host()
    assert back.count.tolist() == host.count.tolist()
    np.testing.assert_allclose(back.V, host.V, rtol=1e-9)
    np.testing.assert_array_equal(back.mean, host.mean)
    assert_right(back, x, groups)
    assert not device.refused
    x[0, 0] = np.nan
    device.add([torch.from_numpy(x)], DeviceOrder(order, torch.device("cpu")))
    assert not device.refused  # row 0 is not in this batch
    device.add([torch.from_numpy(x)], DeviceOrder(GroupOrder.of(groups), torch.device("cpu")))
    assert device.refused
