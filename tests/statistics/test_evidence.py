"""Intervals, reliability and the instrumental slope, from their definitions and in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import embvar_kit as ek
from embvar_kit import analysis
from embvar_kit.statistics import evidence


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
def test_of_a_mean_the_jackknife_gives_students_interval(seed, n):
    x = np.random.default_rng(seed).normal(3, 2, n)
    without = (x.sum() - x) / (n - 1)
    assert evidence.jackknife(without) == pytest.approx(stats.sem(x))
    low, high, se, bias = evidence.interval(x.mean(), without, level=0.9)
    expected = stats.t.interval(0.9, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert (low, high) == pytest.approx(expected)
    assert se == pytest.approx(stats.sem(x))
    assert bias == pytest.approx(0, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 30))
def test_its_bias_turns_the_plain_variance_into_the_unbiased_one(seed, n):
    """The classical example (Quenouille): V less the bias is V n / (n - 1)."""
    x = np.random.default_rng(seed).normal(size=n)
    without = np.array([np.delete(x, k).var() for k in range(n)])
    found = evidence.interval(x.var(), without)
    assert x.var() - found.bias == pytest.approx(x.var(ddof=1))


def test_any_axis_and_any_shape():
    rng = np.random.default_rng(0)
    replicates, estimate = rng.normal(size=(3, 20, 4)), rng.normal(size=(3, 4))
    found = evidence.interval(estimate, replicates, axis=1)
    se = evidence.jackknife(replicates, axis=1)
    for i in range(3):
        for j in range(4):
            theta = replicates[i, :, j]
            expected = np.sqrt(19 / 20 * ((theta - theta.mean()) ** 2).sum())
            assert se[i, j] == pytest.approx(expected)
            one = evidence.interval(estimate[i, j], theta)
            assert [x[i, j] for x in found] == pytest.approx([float(x) for x in one])
            reach = stats.t.ppf(0.975, 19) * expected
            assert found.low[i, j] == pytest.approx(estimate[i, j] - reach)


def test_a_statistic_that_one_fold_alone_has_gets_no_interval_and_spoils_no_other():
    replicates = np.ones((5, 2)) + np.arange(5)[:, None]
    replicates[3, 0] = np.nan
    found = evidence.interval(np.ones(2), replicates)
    assert np.isnan([x[0] for x in found]).all() and np.isfinite([x[1] for x in found]).all()


@pytest.mark.parametrize("replicates", [np.ones(1), np.ones((1, 4)), np.float64(2.0)])
def test_a_jackknife_needs_two_folds(replicates):
    with pytest.raises(ek.StatisticsError, match="at least 2 folds"):
        evidence.jackknife(replicates)
    with pytest.raises(ek.StatisticsError, match="at least 2 folds"):
        evidence.interval(np.ones(np.shape(replicates)[1:]), replicates)


def test_an_interval_refuses_what_does_not_fit():
    with pytest.raises(ek.StatisticsError, match="do not fit an estimate of shape"):
        evidence.interval(np.ones(3), np.ones((20, 4)))
    for level in (0, 1, 95):
        with pytest.raises(ek.StatisticsError, match="between 0 and 1"):
            evidence.interval(1.0, np.ones(20), level=level)


def halves(seed: int, noise: float, n_tokens: int = 20_000):
    """Unbiased M and V in two halves, with a true slope of -0.7, and the true M.

    The noise of M enters V with the opposite sign, as it does where ``Q`` is measured well.
    """
    rng = np.random.default_rng(seed)
    M = rng.gamma(4, 2, n_tokens)
    V = 40 - 0.7 * M + rng.normal(size=n_tokens)
    errors = noise * rng.normal(size=(2, n_tokens))
    return M, *(M + e for e in errors), *(V - e + 0.5 * rng.normal(size=n_tokens) for e in errors)


@pytest.mark.parametrize("noise", [0.5, 2.0, 4.0])
def test_reliability_is_the_share_of_the_variance_that_tokens_have(noise):
    """Tokens have a variance of 16; a half adds noise², and the mean of both halves noise²/2."""
    M, M_A, M_B, *_ = halves(0, noise)
    found = evidence.reliability(M_A, M_B)
    assert found.half == pytest.approx(16 / (16 + noise**2), abs=0.02)
    assert found.whole == pytest.approx(16 / (16 + noise**2 / 2), abs=0.02)
    assert found.whole == pytest.approx(np.corrcoef((M_A + M_B) / 2, M)[0, 1] ** 2, abs=0.02)
    assert found.half == pytest.approx(np.corrcoef(M_A, M_B)[0, 1])


def test_the_instrument_removes_the_noise_that_least_squares_keep():
    _, M_A, M_B, V_A, V_B = halves(1, 2.0)
    assert analysis.regress(M_A, V_A).slope == pytest.approx(-0.7 - 0.3 * 4 / 20, abs=0.02)
    forward = evidence.slope_iv(V_A, M_A, M_B)
    back = evidence.slope_iv(V_B, M_B, M_A)
    assert forward == pytest.approx(-0.7, abs=0.02) and back == pytest.approx(-0.7, abs=0.02)
    assert evidence.slope_iv(V_A, M_A, M_B, V_B) == pytest.approx((forward + back) / 2)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 50), slope=st.floats(-5, 5))
def test_on_a_line_without_noise_any_instrument_gives_the_slope(seed, n, slope):
    rng = np.random.default_rng(seed)
    M = rng.normal(size=n)
    instrument = M + 0.1 * rng.normal(size=n)
    assert evidence.slope_iv(3 + slope * M, M, instrument) == pytest.approx(slope, abs=1e-7)


def test_halves_that_do_not_agree_have_no_slope_and_no_reliability():
    M = np.array([1.0, 2.0, 3.0, 5.0])
    assert np.isnan(evidence.slope_iv(M, M, -M)) and np.isnan(evidence.slope_iv(M, M, -M, M))
    found = evidence.reliability(M, -M)
    assert found.half == pytest.approx(-1) and np.isnan(found.whole)
    rounded = 7 + 1e-8 * M
    assert np.isnan(evidence.reliability(M, rounded)).all()
    assert np.isnan(evidence.slope_iv(M, M, rounded))
    assert np.isnan(evidence.slope_iv(M, rounded, M))


def test_halves_that_do_not_fit_are_refused():
    M = np.arange(4.0)
    for columns in ((M, M[:3]), (M[:2], M[:2]), (M[:, None], M[:, None])):
        with pytest.raises(ek.StatisticsError, match="one value for each of the same tokens"):
            evidence.reliability(*columns)
    with pytest.raises(ek.StatisticsError, match="not finite for some token"):
        evidence.slope_iv(M, np.where(M > 2, np.nan, M), M)
