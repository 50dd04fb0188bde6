"""Anisotropy from the streamed statistics, against the cosines of all pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import embvar_kit as ek


@pytest.fixture(scope="module")
def corpus(few):
    return few[:25]


@pytest.fixture(scope="module")
def unit(minilm, corpus):
    return ek.extract(minilm, corpus, site="unit", layers=[0, 4], progress=False)


def mean_cosine(x: np.ndarray) -> float:
    """Mean cosine similarity over all pairs of distinct rows."""
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = x @ x.T
    return cosines[~np.eye(len(x), dtype=bool)].mean()


@pytest.mark.parametrize("special", [True, False])
def test_it_is_the_mean_cosine_of_all_pairs(special, unit, minilm, corpus):
    kept = unit.tokens[special | ~unit.special].tolist()
    found = ek.collect_embeddings(minilm, corpus, kept, layers=[0, 4])
    table = unit.anisotropy(min_count=3, special=special)
    assert table["layer"].tolist() == [0, 4]
    for row in table.itertuples():
        clouds = [occurrences.at(row.layer) for occurrences in found.values()]
        assert row.anisotropy == pytest.approx(mean_cosine(np.concatenate(clouds)), abs=1e-5)
        alike = [mean_cosine(x) for x in clouds if len(x) >= 3]
        assert len(alike) > 20
        assert row.self_similarity == pytest.approx(np.mean(alike), abs=1e-5)
        assert row.adjusted == pytest.approx(row.self_similarity - row.anisotropy)


def test_compact_statistics_know_it_too(unit):
    small = unit.compact(min_count=3, left_out=[(), ("the",)])
    assert len(small) < len(unit)
    for special in (True, False):
        for left_out in ((), ("the",)):
            np.testing.assert_allclose(
                small.without(left_out).anisotropy(min_count=3, special=special),
                unit.without(left_out).anisotropy(min_count=3, special=special),
                rtol=1e-5,
            )
    with pytest.raises(ek.StatisticsError, match="not among the choices stored"):
        small.without(["of"]).anisotropy(min_count=3)


def test_it_is_refused_where_it_would_mean_nothing(unit):
    info = {**unit.info, "convention": {**unit.info["convention"], "site": "hidden"}}
    with pytest.raises(ek.StatisticsError, match=r"site 'hidden'.*site='unit'"):
        replace(unit, info=info).anisotropy()
    for least in (1, 10**6):
        with pytest.raises(ek.StatisticsError, match=f"min_count={least} leaves"):
            unit.anisotropy(min_count=least)
