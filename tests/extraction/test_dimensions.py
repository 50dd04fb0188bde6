"""The moments of dimensions sum to those of the statistics."""

import numpy as np
import pytest

import embvar_kit as ek


def test_dimensions_sum_to_M_and_V_of_all_embeddings(minilm, few):
    found = ek.dimension_moments(minilm, few, layers=[0, 3, 6])
    stats = ek.extract(minilm, few, layers=[0, 3, 6], progress=False)
    whole = stats.decomposition(min_count=1, max_count=None)
    assert found.n == stats.n.sum()
    np.testing.assert_allclose((found.mean**2).sum(axis=1), whole["M"], rtol=1e-6)
    np.testing.assert_allclose(found.variance.sum(axis=1), whole["V"], rtol=1e-6)


def test_each_dimension_is_that_of_the_embeddings(minilm, few):
    x = ek.sample_embeddings(minilm, few, 10**6, layers=[2]).at(2).astype(np.float64)
    found = ek.dimension_moments(minilm, few, layers=[2], batch_tokens=100)
    np.testing.assert_allclose(found.mean[0], x.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.variance[0], x.var(axis=0), rtol=1e-4)
    shares = found.shares(2)
    assert shares[["M", "V", "Q"]].sum().to_numpy() == pytest.approx([1, 1, 1])
    top = int(shares["dimension"][0])
    assert top == (x**2).sum(axis=0).argmax()


def test_tokens_left_out_are_not_counted(minilm, few):
    found = ek.dimension_moments(minilm, few, layers=[6], left_out=["[CLS]", "[SEP]", "xyzzy"])
    stats = ek.extract(minilm, few, layers=[6], progress=False).without(["[CLS]", "[SEP]"])
    whole = stats.decomposition(min_count=1, max_count=None)
    assert found.n == stats.n.sum()
    assert found.variance.sum() == pytest.approx(whole["V"][0], rel=1e-6)
    with pytest.raises(ek.ExtractionError, match="All tokens"):
        ek.dimension_moments(minilm, few, left_out=[*stats.tokens, "[CLS]", "[SEP]"])
    with pytest.raises(ek.ExtractionError, match="Layer 5 was not taken; there are 6"):
        found.shares(5)
