"""Folds come out of groups as exactly as if they had never been measured."""

import numpy as np
import pytest
from brute_force import two_pass
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.moments import folds
from embvar_kit.moments.grouped import GroupedMoments
from embvar_kit.moments.kernels import STEP


def random_entries(seed: int, n_groups: int, n_folds: int, dim: int, spread: float) -> dict:
    """Entries of groups that some folds have none of, or several entries, or empty ones."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 2 * n_folds, n_groups)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    fold = np.concatenate([np.sort(rng.integers(0, n_folds, size)) for size in sizes])
    total = len(fold)
    count = rng.integers(0, 9, total)
    centre = rng.normal(size=(n_groups, dim)).repeat(sizes, axis=0)
    mean = (centre + spread * rng.normal(size=(total, dim))).astype(np.float32)
    mean[count == 0] = np.nan
    extra = rng.integers(-128, 128, (total, dim)).astype(np.int8)
    deviations = np.where(count > 1, rng.random(total) * spread**2 * count * dim, 0)
    M = np.einsum("ed,ed->e", widened(mean, extra), widened(mean, extra))
    squares = np.where(count > 0, deviations + count * M, 0)
    return {
        "starts": starts,
        "fold": fold.astype(np.int64),
        "count": count,
        "mean": mean,
        "extra": extra,
        "squares": squares,
        "deviations": deviations,
    }


def widened(mean: np.ndarray, extra: np.ndarray) -> np.ndarray:
    bits = mean.astype(np.float64).view(np.int64) + (extra.astype(np.int64) << STEP)
    return bits.view(np.float64)


def together(entries: dict, chosen: np.ndarray) -> tuple[int, float, float, float, np.ndarray]:
    """n, Q, M, V and mean of some entries together, by the definitions, in extended precision."""
    chosen = chosen & (entries["count"] > 0)
    count = entries["count"][chosen].astype(np.longdouble)
    if not len(count):
        return 0, np.nan, np.nan, np.nan, np.full(entries["mean"].shape[1], np.nan)
    n = count.sum()
    means = widened(entries["mean"], entries["extra"])[chosen].astype(np.longdouble)
    mean = count @ means / n
    between = count @ ((means - mean) ** 2).sum(axis=1)
    within = entries["deviations"][chosen].sum(dtype=np.longdouble)
    Q = entries["squares"][chosen].sum(dtype=np.longdouble) / n
    return int(n), float(Q), float(mean @ mean), float((within + between) / n), mean


def across(entries: dict, chosen: np.ndarray) -> tuple[int, float, float]:
    """n of some entries, the mean dot product of pairs in different folds, and Q less it."""
    n, Q, *_ = together(entries, chosen)
    chosen = chosen & (entries["count"] > 0)
    fold, count = entries["fold"][chosen], entries["count"][chosen]
    means = widened(entries["mean"], entries["extra"])[chosen].astype(np.longdouble)
    pairs = np.outer(count, count) * (fold[:, None] != fold)
    if not pairs.any():
        return n, np.nan, np.nan
    M = float((pairs * (means @ means.T)).sum() / pairs.sum())
    return n, M, Q - M


ENTRIES = {
    "seed": st.integers(0, 2**32 - 1),
    "n_groups": st.integers(1, 5),
    "n_folds": st.integers(1, 7),
    "dim": st.sampled_from([1, 2, 33]),
    "spread": st.sampled_from([3.0, 1.0, 1e-3]),
}


@given(**ENTRIES)
def test_without_each_fold_is_the_rest_by_definition(seed, n_groups, n_folds, dim, spread):
    entries = random_entries(seed, n_groups, n_folds, dim, spread)
    half = np.random.default_rng(seed).random(n_folds) < 0.5
    found = folds.without_each_fold(**entries, n_folds=n_folds, half=half)
    group = np.arange(n_groups).repeat(np.diff(entries["starts"]))
    for g in range(n_groups):
        for k in range(n_folds):
            expected = together(entries, (group == g) & (entries["fold"] != k))
            got = [getattr(found, name)[k, g] for name in "nQMV"]
            np.testing.assert_allclose(got, expected[:4], rtol=1e-9)
        for h in (0, 1):
            expected = across(entries, (group == g) & (half[entries["fold"]] == h))
            got = found.half_n[h, g], found.half_M[h, g], found.half_V[h, g]
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
        for k in range(n_folds):
            of_half = (half[entries["fold"]] == half[k]) & (entries["fold"] != k)
            got = found.own_n[k, g], found.own_M[k, g], found.own_V[k, g]
            expected = across(entries, (group == g) & of_half)
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@given(**ENTRIES)
def test_a_union_without_each_fold_is_the_rest_by_definition(seed, n_groups, n_folds, dim, spread):
    entries = random_entries(seed, n_groups, n_folds, dim, spread)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(n_groups)[: rng.integers(0, n_groups + 1)]
    union = folds.pool(groups, **entries, n_folds=n_folds)
    n, Q, M, V = folds.leave_one_out(*union)
    own = np.isin(np.arange(n_groups).repeat(np.diff(entries["starts"])), groups)
    for k in range(n_folds):
        expected = together(entries, own & (entries["fold"] != k))
        np.testing.assert_allclose((n[k], Q[k], M[k], V[k]), expected[:4], rtol=1e-9)


def test_what_is_left_keeps_its_digits_where_one_fold_has_all_of_the_spread():
    """V without that fold is below 1e-19 of V with it, so a difference would have no digit."""
    rng = np.random.default_rng(0)
    mean = (1 + 1e-6 * rng.normal(size=(4, 8))).astype(np.float32)
    mean[1] += np.float32(1e4)
    entries = {
        "starts": np.array([0, 4]),
        "fold": np.arange(4),
        "count": np.full(4, 3),
        "mean": mean,
        "extra": np.zeros((4, 8), dtype=np.int8),
        "squares": np.ones(4),
        "deviations": np.zeros(4),
    }
    found = folds.without_each_fold(**entries, n_folds=4, half=np.zeros(4, dtype=bool))
    expected = [together(entries, entries["fold"] != k)[3] for k in range(4)]
    np.testing.assert_allclose(found.V[:, 0], expected, rtol=1e-9)
    assert found.V[1, 0] < 1e-19 * found.V[0, 0]


def test_identical_vectors_have_variance_zero_without_any_fold():
    vector = np.array([[0.1, 1e8, -3.3e-7]], dtype=np.float32)
    found = folds.without_each_fold(
        starts=np.array([0, 5]),
        fold=np.array([0, 0, 1, 3, 4]),
        count=np.array([1, 2, 3, 7, 11]),
        mean=vector.repeat(5, axis=0),
        extra=np.full((5, 3), 77, dtype=np.int8),
        squares=np.ones(5),
        deviations=np.zeros(5),
        n_folds=5,
        half=np.array([True, False, False, True, True]),
    )
    assert not found.V.any()
    assert len(set(found.M.ravel().tolist())) == 1
    assert found.half_M[1, 0] == pytest.approx(found.M[0, 0], rel=1e-14)


def test_from_embeddings_to_folds():
    """Occurrences measured fold by fold give what two passes over the others give."""
    rng = np.random.default_rng(1)
    fold, group = rng.integers(0, 4, 300), rng.integers(0, 6, 300)
    x = (rng.normal(size=(6, 9))[group] + rng.normal(size=(300, 9))).astype(np.float32)
    group[fold == 2] = 5  # the other groups have no occurrence in this fold
    moments = GroupedMoments(24, 9)
    moments.update(x, group * 4 + fold)
    kept = np.flatnonzero(moments.count)
    state = {name: array[kept] for name, array in moments.state().items()}
    starts = np.searchsorted(kept // 4, np.arange(7))
    half = np.array([False, True, True, False])
    found = folds.without_each_fold(starts=starts, fold=kept % 4, **state, n_folds=4, half=half)
    union = folds.pool(np.arange(6), starts=starts, fold=kept % 4, **state, n_folds=4)
    n, *of_union = folds.leave_one_out(*union)
    for k in range(4):
        np.testing.assert_allclose([m[k] for m in of_union], two_pass(x[fold != k]), rtol=1e-6)
        assert n[k] == (fold != k).sum()
        for g in range(6):
            own = x[(group == g) & (fold != k)]
            assert found.n[k, g] == len(own)
            got = [getattr(found, name)[k, g] for name in "QMV"]
            np.testing.assert_allclose(got, two_pass(own), rtol=1e-6)
        a, b = (x[(group == g) & (fold == k)].astype(float) for k in (0, 3))
        if g < 5:  # in this half, folds 0 and 3
            assert found.half_M[0, g] == pytest.approx((a @ b.T).mean(), rel=1e-6)


def test_a_group_in_one_fold_alone_leaves_nothing():
    found = folds.without_each_fold(
        starts=np.array([0, 2, 3]),
        fold=np.ones(3, dtype=np.int64),
        count=np.array([2, 1, 5]),
        mean=np.ones((3, 4), dtype=np.float32),
        extra=np.zeros((3, 4), dtype=np.int8),
        squares=np.full(3, 20.0),
        deviations=np.zeros(3),
        n_folds=3,
        half=np.array([False, True, False]),
    )
    assert (found.n[1] == 0).all() and np.isnan(found.V[1]).all() and np.isnan(found.M[1]).all()
    assert (found.half_n[0] == 0).all() and found.half_n[1].tolist() == [3, 5]
    assert np.isnan(found.half_M).all() and np.isnan(found.half_V).all()
    assert np.isfinite(found.V[[0, 2]]).all() and found.n[0].tolist() == [3, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": np.array([1, 0, 0])}, "sorted by fold"),
        ({"fold": np.array([0, 1, 3])}, "outside 0..2"),
        ({"fold": np.array([-1, 1, 2])}, "outside 0..2"),
        ({"starts": np.array([0, 2])}, "do not cover"),
        ({"starts": np.array([0, 3, 2, 3])}, "do not cover"),
        ({"count": np.ones(2)}, "one value for each of 3"),
        ({"mean": np.ones((3, 2))}, "float32"),
        ({"extra": np.ones((3, 1), dtype=np.int8)}, r"shape \(3, d\)"),
        ({"half": np.zeros(2, dtype=bool)}, "each of 3 folds"),
        ({"half": np.zeros(3)}, "bool"),
    ],
)
def test_entries_that_do_not_fit_are_refused(change, message):
    entries = {
        "starts": np.array([0, 2, 3]),
        "fold": np.array([0, 2, 1]),
        "count": np.ones(3, dtype=np.int64),
        "mean": np.ones((3, 2), dtype=np.float32),
        "extra": np.zeros((3, 2), dtype=np.int8),
        "squares": np.ones(3),
        "deviations": np.zeros(3),
        "n_folds": 3,
        "half": np.array([True, False, True]),
    }
    assert folds.without_each_fold(**entries).n.tolist() == [[1, 1], [2, 0], [1, 1]]
    with pytest.raises(ek.MomentsError, match=message):
        folds.without_each_fold(**entries | change)


@pytest.mark.parametrize(("groups", "message"), [([0, 0], "once"), ([2], "outside 0..1")])
def test_a_union_of_other_groups_is_refused(groups, message):
    entries = random_entries(0, 2, 3, 4, 1.0)
    with pytest.raises(ek.MomentsError, match=message):
        folds.pool(np.array(groups), **entries, n_folds=3)
