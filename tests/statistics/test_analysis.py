"""Regressions, decompositions and corrections against other people's code and the definitions."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import two_pass
from statsmodels.formula.api import ols

import embvar_kit as ek
from embvar_kit import analysis


def clusters(seed: int, dim: int = 5, n_tokens: int = 6, n: int = 80):
    """Embeddings, their tokens, and the token statistics computed from the definitions."""
    rng = np.random.default_rng(seed)
    tokens = np.concatenate([np.arange(n_tokens).repeat(2), rng.integers(0, n_tokens, n)])
    x = rng.normal(size=(n_tokens, dim))[tokens] * 2 + 1 + rng.normal(size=(len(tokens), dim))
    own = [x[tokens == t] for t in range(n_tokens)]
    Q, M, V = np.array([two_pass(part) for part in own]).T
    counts = np.array([len(part) for part in own])
    return x, tokens, counts, Q, M, V, np.array([part.mean(axis=0) for part in own])


@pytest.mark.parametrize("seed", range(5))
def test_tradeoff_is_the_ols_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    M = rng.uniform(10, 100, 400)
    V = 130 - 0.8 * M + rng.normal(scale=5, size=400)
    ours = analysis.tradeoff(M + V, M, V)
    theirs = sm.OLS(V, sm.add_constant(M)).fit()
    assert ours.intercept == pytest.approx(theirs.params[0])
    assert ours.slope == pytest.approx(theirs.params[1])
    assert ours.r2 == pytest.approx(theirs.rsquared)
    assert ours.n_tokens == 400
    assert ours.cv_Q == pytest.approx((M + V).std(ddof=0) / (M + V).mean())


def test_tradeoff_refuses_what_has_no_line():
    with pytest.raises(ek.StatisticsError, match="over 2 tokens"):
        analysis.tradeoff(np.ones(2), np.array([1.0, 2.0]), np.ones(2))
    with pytest.raises(ek.StatisticsError, match="same M"):
        analysis.tradeoff(np.ones(5), np.ones(5), np.arange(5.0))


@pytest.mark.parametrize("seed", range(5))
def test_decomposition_is_one_way_anova(seed):
    """Feature by feature, n V_W and n V_B are the sums of squares within and between groups."""
    x, tokens, counts, Q, _, V, mean = clusters(seed)
    parts = analysis.decompose(counts, Q, V, mean)
    within = between = 0.0
    for feature in range(x.shape[1]):
        frame = pd.DataFrame({"x": x[:, feature], "token": tokens})
        anova = sm.stats.anova_lm(ols("x ~ C(token)", frame).fit())
        between += anova.loc["C(token)", "sum_sq"] / len(x)
        within += anova.loc["Residual", "sum_sq"] / len(x)
    assert parts.V_W == pytest.approx(within)
    assert parts.V_B == pytest.approx(between)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 20))
def test_decomposition_is_what_the_definitions_say(seed, dim):
    x, _, counts, Q, _, V, mean = clusters(seed, dim)
    parts = analysis.decompose(counts, Q, V, mean)
    assert (parts.Q, parts.M, parts.V) == pytest.approx(two_pass(x))
    assert parts.V == pytest.approx(parts.V_W + parts.V_B)
    assert parts.Q == pytest.approx(parts.M + parts.V_W + parts.V_B)
    corrected = analysis.decompose(counts, Q, V, mean, correct=True)
    assert corrected.Q == pytest.approx(corrected.M + corrected.V_W + corrected.V_B)


def test_unbiased_forms_keep_the_sum_and_hit_the_population():
    """Averaged over many samples of 4, the corrected M and V are the population's."""
    rng = np.random.default_rng(0)
    draws, n, dim = 4000, 4, 6
    mu = np.full(dim, 0.7)
    samples = mu + rng.normal(size=(draws, n, dim))
    Q, M, V = np.array([two_pass(sample) for sample in samples]).T
    M_tilde, V_tilde = analysis.unbiased(np.full(draws, n), M, V)
    np.testing.assert_allclose(M_tilde + V_tilde, Q, rtol=1e-9)
    true_M, true_V = mu @ mu, dim
    for estimate, truth in ((M_tilde, true_M), (V_tilde, true_V)):
        assert estimate.mean() == pytest.approx(truth, abs=4 * estimate.std() / np.sqrt(draws))
    assert M.mean() == pytest.approx(true_M + true_V / n, rel=0.03)
    assert abs(M.mean() - true_M) > 20 * M.std() / np.sqrt(draws)


def test_unbiased_M_is_the_mean_dot_product_of_pairs():
    x = np.random.default_rng(1).normal(size=(9, 4)) + 1
    _, M, V = two_pass(x)
    dots = x @ x.T
    pairs = (dots.sum() - np.trace(dots)) / (9 * 8)
    M_tilde, _ = analysis.unbiased(np.array([9]), np.array([M]), np.array([V]))
    assert M_tilde[0] == pytest.approx(pairs)


def test_corrected_decomposition_hits_the_population():
    """The true token means are equal: V_B should be 0, and is inflated without the correction."""
    rng = np.random.default_rng(5)
    counts = np.array([3, 3, 5, 10])
    plain, corrected = [], []
    for _ in range(2000):
        own = [1.0 + rng.normal(size=(n, 4)) for n in counts]
        Q, _, V = np.array([two_pass(part) for part in own]).T
        mean = np.array([part.mean(axis=0) for part in own])
        plain.append(analysis.decompose(counts, Q, V, mean))
        corrected.append(analysis.decompose(counts, Q, V, mean, correct=True))
    plain, corrected = np.array(plain), np.array(corrected)
    V_B, M, V_W = corrected[:, 4], corrected[:, 1], corrected[:, 3]
    assert V_B.mean() == pytest.approx(0, abs=4 * V_B.std() / np.sqrt(2000))
    assert V_W.mean() == pytest.approx(4, abs=4 * V_W.std() / np.sqrt(2000))
    assert M.mean() == pytest.approx(4, abs=4 * M.std() / np.sqrt(2000))
    assert plain[:, 4].mean() > 0.4


def test_decomposition_refuses_what_it_cannot_do():
    none = np.empty(0)
    with pytest.raises(ek.StatisticsError, match="No token is left"):
        analysis.decompose(none, none, none, np.empty((0, 3)))
    with pytest.raises(ek.StatisticsError, match="min_count=2"):
        one = np.array([1, 5])
        analysis.decompose(one, np.ones(2), np.ones(2), np.ones((2, 3)), correct=True)


def test_regress_is_the_ols_of_statsmodels_and_refuses_what_has_no_line():
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, 300)
    y = 0.3 * x + rng.normal(size=300)
    ours = analysis.regress(x, y)
    theirs = sm.OLS(y, sm.add_constant(x)).fit()
    assert ours == pytest.approx((theirs.params[1], theirs.params[0], theirs.rsquared))
    flat = analysis.regress(x, np.ones(300))
    assert flat.slope == pytest.approx(0, abs=1e-12)
    assert np.isnan(flat.r2)
    with pytest.raises(ek.StatisticsError, match="n_t or Q is not finite"):
        analysis.regress(x, np.full(300, np.nan), names=("n_t", "Q"))
    with pytest.raises(ek.StatisticsError, match="the same n_t"):
        analysis.regress(np.ones(300), y, names=("n_t", "Q"))


def test_principal_axes_are_the_eigenvectors_of_the_covariance():
    x = np.random.default_rng(1).normal(size=(40, 6)) * [5, 1, 3, 1, 1, 1] + 2
    centre, axes, share = analysis.principal_axes(x, n=3)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(centre, x.mean(axis=0))
    np.testing.assert_allclose(share, values[::-1][:3] / values.sum())
    np.testing.assert_allclose(np.abs(axes), np.abs(vectors[:, ::-1][:, :3].T))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert (axes[np.arange(3), np.abs(axes).argmax(axis=1)] > 0).all()
    with pytest.raises(ek.StatisticsError, match="need 2 points"):
        analysis.principal_axes(x[:1])
