"""Regressions, decompositions and corrections against other people's code and the definitions."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from brute_force import two_pass
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
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
    with pytest.raises(ek.StatisticsError, match="Q must be finite"):
        analysis.tradeoff(np.full(5, np.nan), np.arange(5.0), np.ones(5))
    with pytest.raises(ek.StatisticsError, match="Q must be finite, with one value"):
        analysis.tradeoff(np.ones(4), np.arange(5.0), np.ones(5))


@given(
    seed=st.integers(0, 2**32 - 1),
    n_tokens=st.integers(3, 60),
    sd_Q=st.sampled_from([1e-3, 1.0, 30.0]),
    shared=st.floats(-1, 1),
    weighted=st.booleans(),
)
def test_Q_and_M_alone_determine_the_line(seed, n_tokens, sd_Q, shared, weighted):
    """slope = -1 + rho r, R² = 1 - r² (1 - rho²) / (1 - 2 rho r + r²), with or without weights."""
    rng = np.random.default_rng(seed)
    M = rng.gamma(4, 2, n_tokens)
    Q = 100 + sd_Q * (shared * (M - 8) / 4 + rng.normal(size=n_tokens))
    weights = rng.integers(1, 50, n_tokens) if weighted else None
    fit = analysis.tradeoff(Q, M, Q - M, weights=weights)
    assert fit.r == pytest.approx(fit.sd_Q / fit.sd_M)
    assert fit.slope == pytest.approx(-1 + fit.rho * fit.r, abs=1e-9)
    left = fit.r**2 * (1 - fit.rho**2) / (1 - 2 * fit.rho * fit.r + fit.r**2)
    assert fit.r2 == pytest.approx(1 - left, abs=1e-9)


def test_spread_and_correlation_are_numpys():
    rng = np.random.default_rng(2)
    M = rng.uniform(10, 100, 40)
    Q = 130 + 0.2 * M + rng.normal(scale=5, size=40)
    fit = analysis.tradeoff(Q, M, Q - M)
    assert (fit.sd_Q, fit.sd_M) == pytest.approx((Q.std(), M.std()))
    assert fit.rho == pytest.approx(np.corrcoef(Q, M)[0, 1])
    assert fit.theil_sen is None and fit.spearman is None


def test_a_weight_is_so_many_tokens():
    """The weighted fit is that of statsmodels, and of tokens repeated as often as they weigh."""
    rng = np.random.default_rng(3)
    M = rng.uniform(10, 100, 60)
    Q = 130 + 0.2 * M + rng.normal(scale=5, size=60)
    times = rng.integers(1, 9, 60)
    ours = analysis.tradeoff(Q, M, Q - M, weights=times)
    theirs = sm.WLS(Q - M, sm.add_constant(M), weights=times).fit()
    assert (ours.intercept, ours.slope) == pytest.approx(tuple(theirs.params))
    assert ours.r2 == pytest.approx(theirs.rsquared)
    repeated = analysis.tradeoff(*(x.repeat(times) for x in (Q, M, Q - M)))
    assert ours[1:9] == pytest.approx(repeated[1:9])
    assert ours.n_tokens == 60
    for wrong in (np.ones(59), np.where(times > 1, times, 0), np.full(60, np.nan)):
        with pytest.raises(ek.StatisticsError, match="Weights must be positive and finite"):
            analysis.tradeoff(Q, M, Q - M, weights=wrong)


def test_spearman_is_that_of_pandas():
    rng = np.random.default_rng(4)
    M, V = rng.integers(0, 20, (2, 300)).astype(float)
    fit = analysis.tradeoff(M + V, M, V, robust=True)
    assert fit.spearman == pytest.approx(pd.Series(M).corr(pd.Series(V), method="spearman"))


def slopes_of_pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of all pairs of tokens whose x differ, in order."""
    first, second = np.triu_indices(len(x), 1)
    kept = x[first] != x[second]
    first, second = first[kept], second[kept]
    return np.sort((y[first] - y[second]) / (x[first] - x[second]))


@given(
    seed=st.integers(0, 2**32 - 1),
    n_tokens=st.integers(3, 40),
    ties=st.booleans(),
    slope=st.sampled_from([-300.0, -0.8, 0.0, 5e-4]),
)
def test_theil_sen_is_the_median_of_all_pairs(seed, n_tokens, ties, slope):
    """Both ways to it; between two middle slopes, one of the ways may stop anywhere."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 12, n_tokens).astype(float) if ties else rng.normal(size=n_tokens)
    assume(np.ptp(x) > 0)
    y = slope * x + rng.standard_t(1, size=n_tokens)
    pairs = slopes_of_pairs(x, y)
    assert analysis.theil_sen(x, y) == pytest.approx(np.median(pairs), rel=1e-9, abs=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "_ALL_PAIRS", 0)
        found = analysis.theil_sen(x, y)
    middle = pairs[(len(pairs) - 1) // 2], pairs[len(pairs) // 2]
    near = 1e-7 * (1 + np.std(y) / np.std(x))
    assert middle[0] - near <= found <= middle[1] + near


@pytest.mark.parametrize("far", [1e6, 1e9, 1e12])
def test_theil_sen_of_many_tokens_is_not_carried_away_by_one(far):
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    y = -0.5 * x + 0.1 * rng.normal(size=600)
    y[0] += far
    assert analysis.theil_sen(x, y) == pytest.approx(stats.theilslopes(y, x).slope, rel=1e-5)


def test_a_V_that_is_rounding_beside_Q_is_constant():
    """Tokens with one embedding each have no V; what is left of it has no rank and no R²."""
    rng = np.random.default_rng(0)
    M = rng.uniform(1, 9, 2000)
    V = np.abs(rng.normal(size=2000)) * 1e-9 * M
    fit = analysis.tradeoff(M + V, M, V, robust=True)
    assert np.isnan([fit.r2, fit.spearman]).all() and fit.slope == 0
    M[0], V[0] = 1e6, 1e3  # one token far from all others hides no spread of theirs
    V[1:] = 1e-3 * rng.uniform(1, 9, 1999)
    assert np.isfinite(analysis.tradeoff(M + V, M, V, robust=True)).all()


def test_a_Q_that_differs_by_rounding_has_no_spread():
    """As embeddings of norm 1 leave it; what differs by more is measured."""
    rng = np.random.default_rng(0)
    M = rng.uniform(0.2, 0.9, 2000)
    for noise, there in ((1e-8, False), (1e-5, True)):
        Q = 1 + noise * rng.normal(size=2000)
        fit = analysis.tradeoff(Q, M, Q - M)
        assert [x > 0 for x in (fit.sd_Q, fit.cv_Q, fit.r)] == [there] * 3
        assert np.isnan(fit.rho) != there
        assert fit.slope == pytest.approx(-1, abs=1e-5) and fit.r2 == pytest.approx(1)


def test_theil_sen_of_many_tokens_is_that_of_scipy():
    rng = np.random.default_rng(5)
    M = rng.uniform(10, 100, 1200)
    V = 130 - 0.8 * M + rng.normal(scale=5, size=1200)
    V[:200] += 1e4
    expected = stats.theilslopes(V, M).slope
    assert analysis.theil_sen(M, V) == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(-0.8, abs=0.05)
    assert abs(analysis.regress(M, V).slope + 0.8) > 0.5
    assert analysis.theil_sen(M, 130 - 2 * M) == pytest.approx(-2)
    assert analysis.theil_sen(M, np.full(1200, 3.0)) == 0


@pytest.mark.parametrize("robust", [False, True])
def test_a_spread_that_is_rounding_gives_no_slope(robust):
    """As float32 and the compiled loops leave it: M that is one number, and so are V and Q."""
    rng = np.random.default_rng(6)
    M = rng.uniform(10, 100, 600)
    noise = 1 + 1e-7 * rng.uniform(-1, 1, 600)
    constant = np.float32(7.3) * noise
    for same in (constant, constant.astype(np.float32), 1e-12 * rng.normal(size=600)):
        with pytest.raises(ek.StatisticsError, match="same M up to rounding"):
            analysis.tradeoff(constant + 50, same, M, robust=robust)
    flat_V = analysis.tradeoff(M + constant, M, constant, robust=robust)
    assert flat_V.slope == pytest.approx(0, abs=1e-6)
    assert np.isnan(flat_V.r2) and flat_V.rho == pytest.approx(1)
    flat_Q = analysis.tradeoff(200 * noise, M, 200 - M, robust=robust)
    assert flat_Q.slope == pytest.approx(-1) and flat_Q.r2 == pytest.approx(1)
    assert np.isnan(flat_Q.rho) and flat_Q.r == pytest.approx(0, abs=1e-6)
    if robust:
        assert flat_V.theil_sen == pytest.approx(0, abs=1e-6) and np.isnan(flat_V.spearman)
        assert flat_Q.theil_sen == pytest.approx(-1) and flat_Q.spearman == pytest.approx(-1)


def test_a_small_spread_that_float32_can_hold_keeps_its_line():
    """A range of M of a thousandth, rounded as compact statistics are."""
    rng = np.random.default_rng(7)
    M = 50 + rng.uniform(0, 0.05, 400)
    V = 20 - 0.7 * (M - 50) + rng.normal(scale=0.005, size=400)
    whole = analysis.tradeoff(M + V, M, V)
    rounded = analysis.tradeoff(*(x.astype(np.float32) for x in (M + V, M, V)))
    assert rounded.slope == pytest.approx(whole.slope, rel=1e-3)
    assert rounded.r2 == pytest.approx(whole.r2, rel=1e-3)


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
    with pytest.raises(ek.StatisticsError, match="one value for each token"):
        analysis.regress(x[:-1], y)


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


def test_a_slope_of_logarithms_is_over_the_tokens_that_have_this_logarithm():
    """A token without variance has a Q and an M all the same."""
    n = np.array([10, 100, 1000, 10_000])
    table = {"n": n, "Q": 2.0 * n, "M": [-1, 10, 10, 10], "V": [5, 50, 500, 0]}
    found = analysis.slopes_on_frequency(table, log=True)
    assert found == {"Q": pytest.approx(1), "M": 0.0, "V": pytest.approx(1)}


def test_rounding_has_no_slope_on_frequency():
    n, noise = np.array([10, 100, 1000, 10_000]), np.array([1, 3, 2, 9]) * 1e-7
    table = {"n": n, "Q": 1 + noise, "M": np.array([0.2, 0.4, 0.3, 0.1]), "V": noise}
    assert analysis.slopes_on_frequency(table)["V"] == 0
    assert analysis.slopes_on_frequency({**table, "V": 1 - table["M"]}, log=True)["Q"] == 0
