"""Moments for any share of γ and β, computed from each dimension's, against passes at the sites."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit.extraction.affine import AffineMoments
from embvar_kit.models.normalization import Norm

CORPUS = ek.Corpus.of(SENTENCES)


@pytest.fixture(scope="module")
def parts(minilm, few):
    return ek.affine_moments(minilm, few, [2, 6], min_count=3)


@pytest.fixture(scope="module")
def passes(minilm, few):
    sites = ["standardized", "norm_output"]
    return ek.extract(minilm, few, layers=[2, 6], site=sites, progress=False)


@pytest.mark.parametrize("layer", [2, 6])
@pytest.mark.parametrize(("share", "site"), [(0, "standardized"), (1, "norm_output")])
def test_the_ends_of_the_mixture_are_the_sites(layer, share, site, parts, passes):
    table = passes[site].table(layer, min_count=3)
    mixed = parts[layer].mixed(share, share)
    assert mixed["token"].tolist() == table["token"].tolist()
    for name in "QMV":
        np.testing.assert_allclose(mixed[name], table[name], rtol=1e-4, atol=1e-3)
    line = passes[site].tradeoff(min_count=3).set_index("layer").loc[layer]
    assert parts[layer].tradeoff(share, share).slope == pytest.approx(line["slope"], abs=1e-3)


def test_between_the_ends_it_is_what_such_a_norm_gives(minilm, few, parts):
    """Half of γ and none of β, against the embeddings."""
    z = ek.collect_embeddings(minilm, few, ["the", "of"], [2], site="standardized")
    norm = minilm.norms[2].norm
    table = parts[2].mixed(0.5, 0).set_index("token")
    for token, occurrences in z.items():
        y = occurrences.at(2).astype(float) * (1 + norm.gamma) / 2
        mean = y.mean(axis=0)
        assert table.loc[token, "M"] == pytest.approx(mean @ mean, rel=1e-4)
        assert table.loc[token, "V"] == pytest.approx(((y - mean) ** 2).sum(1).mean(), rel=1e-4)


def test_bends_add_up_to_the_slope(parts):
    for part in parts.values():
        found = part.by_dimension()
        assert found["bend"].sum() == pytest.approx(part.tradeoff().slope + 1, abs=1e-4)
        assert sorted(found["dimension"]) == list(range(384))
        assert (found["bend"].abs().diff().dropna() <= 0).all()


def test_dimensions_can_be_set_back(parts):
    part = parts[2]
    assert part.without([]) == part.tradeoff()
    assert part.without(range(384)).slope == pytest.approx(-1, abs=1e-3)
    gamma, beta = part.norm.gamma.astype(float), part.norm.beta.astype(float)
    gamma[[5, 7]], beta[[5, 7]] = part.common, 0
    M, V = part.moments(gamma, beta)
    assert part.without([5, 7]).slope == pytest.approx(np.polyfit(M, V, 1)[0])
    with pytest.raises(ek.ExtractionError, match="0 to 383"):
        part.without([384])


@given(st.integers(0, 2**32 - 1))
def test_moments_hold_for_any_gamma_and_beta(seed):
    random = np.random.default_rng(seed)
    z = random.normal(size=(3, 20, 4)) + random.normal(size=(3, 1, 4))
    gamma, beta = random.normal(size=(2, 4)).astype(np.float32)
    norm = Norm("norm", 0, "LayerNorm", "LayerNorm", 0.0, gamma, beta)
    count = np.full(3, 20)
    part = AffineMoments(np.array(list("abc")), count, z.mean(1), z.var(1), 1, norm)
    y = z * gamma + beta
    M, V = part.moments(gamma.astype(float), beta.astype(float))
    np.testing.assert_allclose(M, (y.mean(1) ** 2).sum(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(V, y.var(1).sum(1), rtol=1e-6, atol=1e-9)
    table = part.mixed()
    np.testing.assert_allclose(table["Q"], (y**2).sum(2).mean(1), rtol=1e-6)
    # On the sphere ‖z‖² = 4, the bends add up.
    z *= 2 / np.linalg.norm(z, axis=2, keepdims=True)
    part = AffineMoments(np.array(list("abc")), count, z.mean(1), z.var(1), 1, norm)
    assert part.by_dimension()["bend"].sum() == pytest.approx(part.tradeoff().slope + 1)


def test_counts_choose_the_tokens(minilm, few):
    whole = ek.affine_moments(minilm, few, [1], min_count=1, max_count=None)[1]
    some = ek.affine_moments(minilm, few, [1], min_count=4, max_count=20)[1]
    kept = (whole.n >= 4) & (whole.n <= 20)
    assert some.tokens.tolist() == whole.tokens[kept].tolist()
    np.testing.assert_allclose(some.mean, whole.mean[kept])
    assert whole.variance[whole.n == 1].max() < 1e-12
    with pytest.raises(ek.ExtractionError, match="lower min_count"):
        ek.affine_moments(minilm, few, [1], min_count=10**6)


def test_what_it_cannot_take_is_refused(minilm, loaded):
    with pytest.raises(ek.ExtractionError, match="'word'"):
        ek.affine_moments(minilm, CORPUS, [1], by="word")
    with pytest.raises(ek.ExtractionError, match=r"take layers=\[1, 2\]"):
        ek.affine_moments(loaded("albert"), CORPUS, [0])
