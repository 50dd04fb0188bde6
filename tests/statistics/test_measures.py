"""Measures of directions, dimensions, spectra, information and dispersion, from the definitions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import embvar_kit as ek
from embvar_kit.statistics import measures

SEEDS = st.integers(0, 2**32 - 1)


def directions(seed: int, n: int = 60, dim: int = 7) -> np.ndarray:
    """Directions around a common one."""
    x = np.random.default_rng(seed).normal(size=(n, dim)) + 1
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cloud(seed: int, n: int = 200, dim: int = 6) -> np.ndarray:
    """Embeddings whose features vary together, and unequally, around a mean far from 0."""
    rng = np.random.default_rng(seed)
    return 5 + rng.normal(size=(n, dim)) @ (rng.normal(size=(dim, dim)) * rng.lognormal(size=dim))


# Directions


@given(SEEDS)
def test_the_mean_resultant_length_is_the_norm_of_the_mean_direction(seed):
    x = directions(seed)
    M = np.sum(x.mean(axis=0) ** 2)
    length = measures.mean_resultant_length(np.array([M]))[0]
    assert length == pytest.approx(np.linalg.norm(x.sum(axis=0)) / len(x))
    assert 0 <= length <= 1


@pytest.mark.parametrize("kappa", [50.0, 200.0, 2000.0])
def test_concentration_solves_the_equation_of_maximum_likelihood(kappa):
    """``I_{d/2}(kappa) / I_{d/2-1}(kappa) = R``, to the accuracy of the closed form."""
    dim = 384
    R = special.ive(dim / 2, kappa) / special.ive(dim / 2 - 1, kappa)
    assert measures.concentration(np.array([R**2]), dim)[0] == pytest.approx(kappa, rel=1e-3)


@pytest.mark.parametrize("exponent", [2, 8, 11])
def test_concentration_keeps_its_digits_where_directions_nearly_agree(exponent):
    """M is 1 up to rounding there, and V is not."""
    V, dim = 10.0**-exponent, 64
    kappa = measures.concentration(np.array([1 - V]), dim, np.array([V]))[0]
    assert kappa == pytest.approx(np.sqrt(1 - V) * (dim - 1 + V) / V, rel=1e-12)
    assert np.isinf(measures.concentration(np.array([1 - 1e-7]), dim, np.array([1e-15])))


def test_concentration_is_what_scipy_fits():
    mu = np.ones(10) / np.sqrt(10)
    x = stats.vonmises_fisher(mu, 30).rvs(2000, random_state=np.random.default_rng(0))
    _, fitted = stats.vonmises_fisher.fit(x)
    M = np.sum(x.mean(axis=0) ** 2)
    assert measures.concentration(np.array([M]), 10)[0] == pytest.approx(fitted, rel=0.02)


def test_directions_at_the_ends_of_the_scale():
    M = np.array([-0.2, 0.0, 1.0, 1 + 1e-9, np.nan])
    np.testing.assert_array_equal(measures.mean_resultant_length(M), [0, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(measures.concentration(M, 3), [0, 0, np.inf, np.inf, np.nan])
    with pytest.raises(ek.StatisticsError, match=r"largest M is 1\.1.*site='unit'"):
        measures.mean_resultant_length(np.array([0.3, 1.1]))
    with pytest.raises(ek.StatisticsError, match="at least 2 dimensions"):
        measures.concentration(M, 1)


@given(SEEDS)
def test_shares_of_dimensions_are_mean_contributions_to_the_cosine_of_all_pairs(seed):
    x = directions(seed, n=15, dim=4)
    contributions = np.einsum("ij,kj->ikj", x, x).mean(axis=(0, 1))
    expected = contributions / contributions.sum()
    np.testing.assert_allclose(measures.dimension_shares(x.mean(axis=0)), expected, rtol=1e-9)


def test_a_mean_of_nothing_has_no_shares():
    for mean in (np.zeros(3), np.array([1.0, np.nan])):
        with pytest.raises(ek.StatisticsError, match="0 or not finite"):
            measures.dimension_shares(mean)


@given(SEEDS)
def test_frequency_correlations_are_pearsons(seed):
    rng = np.random.default_rng(seed)
    mean, n = rng.normal(size=(12, 3)), rng.permutation(np.arange(1, 13))
    expected = [stats.pearsonr(column, np.log(n)).statistic for column in mean.T]
    np.testing.assert_allclose(measures.frequency_correlations(mean, n), expected, atol=1e-12)


def test_frequency_correlations_where_something_is_constant():
    mean = np.column_stack([np.full(4, 0.1), np.arange(4.0)])
    assert np.isnan(measures.frequency_correlations(mean, np.arange(1, 5))).tolist() == [
        True,
        False,
    ]
    with pytest.raises(ek.StatisticsError, match="same count"):
        measures.frequency_correlations(mean, np.full(4, 7))
    with pytest.raises(ek.StatisticsError, match="same count"):  # whose logarithms' mean is rounded
        measures.frequency_correlations(np.random.default_rng(0).normal(size=(50, 3)), [10] * 50)
    for n in ([0, 1, 2, 3], [-1, 1, 2, 3]):
        with pytest.raises(ek.StatisticsError, match="above 0"):
            measures.frequency_correlations(mean, np.array(n))
    with pytest.raises(ek.StatisticsError, match="over 2 tokens"):
        measures.frequency_correlations(mean[:2], np.arange(1, 3))


# Spectra


def rudman(x: np.ndarray) -> float:
    """IsoScore by the steps of the paper, on the embeddings themselves."""
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    variances = np.diag(np.cov(axes @ x.T))
    d = len(variances)
    scaled = np.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - np.ones(d)) / np.sqrt(2 * (d - np.sqrt(d)))
    used = (d - defect**2 * (d - np.sqrt(d))) ** 2 / d
    return (used - 1) / (d - 1)


@given(SEEDS)
def test_isoscore_is_what_the_steps_of_the_paper_give(seed):
    x = cloud(seed)
    eigenvalues = measures.spectrum(np.cov(x.T, bias=True))
    assert measures.isoscore(eigenvalues) == pytest.approx(rudman(x), abs=1e-9)


@given(SEEDS)
def test_the_effective_rank_is_that_of_the_centred_embeddings(seed):
    x = cloud(seed)
    lengths = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    eigenvalues = measures.spectrum(np.cov(x.T, bias=True))
    found = measures.effective_rank(np.sqrt(eigenvalues))
    assert found == pytest.approx(np.exp(stats.entropy(lengths)))


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=9).filter(any), st.floats(1e-3, 1e3))
def test_measures_of_a_spectrum_are_ordered_and_have_no_scale(values, scale):
    eigenvalues = np.sort(values)[::-1]
    ratio = measures.participation_ratio(eigenvalues)
    rank = measures.effective_rank(np.sqrt(eigenvalues))
    # Renyi's entropies fall with their order, and roots are more equal than what they are roots of.
    near = 1 + 1e-9
    assert 1 <= ratio * near and ratio <= measures.effective_rank(eigenvalues) * near
    assert measures.effective_rank(eigenvalues) <= rank * near and rank <= len(values) * near
    assert measures.participation_ratio(scale * eigenvalues) == pytest.approx(ratio)
    assert -1e-9 <= measures.isoscore(eigenvalues) <= near


@given(SEEDS)
def test_a_spectrum_does_not_depend_on_the_axes(seed):
    x = cloud(seed)
    turn = stats.ortho_group.rvs(x.shape[1], random_state=seed)
    once, turned = (measures.spectrum(np.cov(y.T, bias=True)) for y in (x, x @ turn))
    np.testing.assert_allclose(turned, once, rtol=1e-8, atol=1e-9 * once[0])
    assert once.sum() == pytest.approx(x.var(axis=0).sum())


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones((2, 3)), "square matrix"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), "not symmetric"),
        (np.diag([1.0, -0.5]), "eigenvalue -0.5"),
        (np.diag([1.0, np.nan]), "not finite"),
        (np.zeros((2, 2)), "do not vary"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance, message):
    for function in (measures.spectrum, measures.precision):
        with pytest.raises(ek.StatisticsError, match=message):
            function(covariance)


def test_what_is_no_spectrum_is_refused():
    for values in ([1.0, -1.0], [np.nan, 1.0], [0.0, 0.0]):
        for function in (measures.participation_ratio, measures.effective_rank, measures.isoscore):
            with pytest.raises(ek.StatisticsError, match="not all 0"):
                function(np.array(values))
    with pytest.raises(ek.StatisticsError, match="at least 2 dimensions"):
        measures.isoscore(np.ones(1))


# Information


@given(SEEDS)
def test_information_gain_is_the_divergence_of_normal_distributions(seed):
    """Of two that share a covariance, the log ratio is linear, and its mean is that at the mean."""
    x = cloud(seed, dim=4)
    centre, C = x.mean(axis=0), np.cov(x.T, bias=True) + np.eye(4)
    own = centre + np.random.default_rng(seed).normal(size=4)
    here, all_ = (stats.multivariate_normal(mean, C) for mean in (own, centre))
    found = measures.information_gain(own[None], centre, measures.precision(C))
    assert found[0] == pytest.approx(here.logpdf(own) - all_.logpdf(own), rel=1e-6)


@pytest.mark.parametrize("size", [0.1, 0.01, 0.001])
def test_information_gain_nears_the_divergence_of_a_softmax_layer(size):
    """Oyama et al., eq. 9: the rest is of third order, so it is of first order in proportion."""
    rng = np.random.default_rng(0)
    vectors, bias, centre = rng.normal(size=(50, 5)), rng.normal(size=50), rng.normal(size=5)
    apart = size * rng.normal(size=(20, 5))
    p = special.softmax(vectors @ centre + bias)
    given_u = special.softmax((centre + apart) @ vectors.T + bias, axis=1)
    divergence = stats.entropy(given_u, p, axis=1)
    gain = measures.information_gain(centre + apart, centre, measures.output_metric(vectors, p))
    np.testing.assert_allclose(gain, divergence, rtol=10 * size)


@given(SEEDS)
def test_the_output_metric_is_a_weighted_covariance(seed):
    rng = np.random.default_rng(seed)
    vectors, n = rng.normal(size=(9, 3)), rng.integers(1, 20, 9)
    expected = np.cov(vectors.T, fweights=n, bias=True)
    parameter = torch.nn.Parameter(torch.tensor(vectors))
    for weights in (vectors, vectors.tolist(), parameter):
        found = measures.output_metric(weights, n / n.sum())
        np.testing.assert_allclose(found, expected, atol=1e-12)
    rounded = measures.output_metric(parameter.bfloat16(), n / n.sum())
    np.testing.assert_allclose(rounded, expected, atol=0.1)


def test_information_that_cannot_be_told_is_refused():
    with pytest.raises(ek.StatisticsError, match="1 as their sum"):
        measures.output_metric(np.ones((3, 2)), np.ones(3))
    with pytest.raises(ek.StatisticsError, match="3 dimensions and a metric"):
        measures.information_gain(np.ones((2, 3)), np.ones(3), np.eye(2))


@given(SEEDS)
def test_precision_passes_over_the_direction_that_a_normalization_takes(seed):
    """Features that sum to 0, as behind a layer normalization, have no inverse covariance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 5)) * rng.uniform(0.5, 2, size=5)
    x -= x.mean(axis=1, keepdims=True)
    C = np.cov(x.T, bias=True)
    P = measures.precision(C)
    np.testing.assert_allclose(C @ P @ C, C, atol=1e-12)
    assert np.trace(P @ C) == pytest.approx(4)  # the rank


TEXTS = st.lists(st.lists(st.integers(-1, 3), max_size=9), min_size=1, max_size=5)


@given(TEXTS, st.integers(1, 4))
def test_context_divergence_is_what_counting_neighbours_gives(texts, window):
    group = np.array([token for text in texts for token in text], dtype=int)
    sequence = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    found = measures.context_divergence(group, sequence, 4, window=window)
    n = Counter(group[group >= 0].tolist())
    for w in range(4):
        near = Counter(
            text[j]
            for text in texts
            for i in range(len(text))
            for j in range(max(0, i - window), min(len(text), i + window + 1))
            if i != j and text[i] == w and text[j] >= 0
        )
        if not near:
            assert np.isnan(found[w])
            continue
        total = near.total()
        p = {other: n[other] / n.total() for other in n}
        terms = [k / total * np.log(k / total / p[other]) for other, k in near.items()]
        assert found[w] == pytest.approx(sum(terms), abs=1e-12)


def test_context_divergence_refuses_what_does_not_fit():
    with pytest.raises(ek.StatisticsError, match="group below 2"):
        measures.context_divergence(np.array([0, 2]), np.zeros(2), 2)
    with pytest.raises(ek.StatisticsError, match="window"):
        measures.context_divergence(np.array([0, 1]), np.zeros(2), 2, window=0)


# Dispersion


@pytest.mark.parametrize("seed", range(3))
def test_dispersion_is_the_ols_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(10, 10_000, 300)
    documents = n ** rng.uniform(0.2, 1, 300)
    V = 50 - 0.5 * np.log10(n) + 9 * np.log10(documents) + rng.normal(size=300)
    found = measures.dispersion(n, documents, V)
    x, y = np.log10(n), np.log10(documents)
    both = sm.OLS(V, sm.add_constant(np.column_stack([x, y]))).fit()
    assert found.n_tokens == 300
    assert (found.both_n, found.both_documents) == pytest.approx(both.params[1:])
    assert found.r2 == pytest.approx(both.rsquared)
    for log, slope, r2 in (
        (x, found.slope_n, found.r2_n),
        (y, found.slope_documents, found.r2_documents),
    ):
        alone = sm.OLS(V, sm.add_constant(log)).fit()
        assert (slope, r2) == pytest.approx((alone.params[1], alone.rsquared))


def test_dispersion_refuses_what_cannot_be_told_apart():
    n, V = np.array([10, 20, 30, 40]), np.arange(4.0)
    with pytest.raises(ek.StatisticsError, match="cannot be told apart"):
        measures.dispersion(n, n**0.5, V)
    with pytest.raises(ek.StatisticsError, match="over 3 tokens"):
        measures.dispersion(n[:3], np.array([1.0, 3.0, 2.0]), V[:3])
    with pytest.raises(ek.StatisticsError, match="above 0"):
        measures.dispersion(n, np.array([0.0, 1.0, 2.0, 5.0]), V)
    with pytest.raises(ek.StatisticsError, match="a single document"):
        measures.dispersion(n, np.ones(4), V)
    with pytest.raises(ek.StatisticsError, match="not finite"):
        measures.dispersion(n, np.array([1.0, 3.0, 2.0, 5.0]), V * np.nan)


def test_dispersion_explains_no_rounding():
    n, documents = np.array([10, 10, 100, 100, 50]), np.array([1, 10, 1, 10, 7])
    for V in (7 + 1e-9 * documents, [7.0] * 5):
        found = measures.dispersion(n, documents, V)
        assert np.isnan([found.r2, found.r2_n, found.r2_documents]).all()
