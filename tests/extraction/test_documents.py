"""In which documents a token stands: counted by the plan, merged, and set against frequency."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import embvar_kit as ek
from embvar_kit.corpora.dealing import BLOCK, documents_of
from embvar_kit.statistics import measures


@pytest.fixture(scope="module")
def articles(few):
    """Sixty sentences in ten articles of six."""
    return replace(few, titles=[f"article {at // 6}" for at in range(len(few))])


@pytest.fixture(scope="module")
def stats(model, articles):
    return ek.extract(model, articles, progress=False)


@pytest.mark.parametrize("by", ["token", "word"])
def test_the_plan_counts_the_documents_of_each_token(model, articles, by):
    work = ek.plan(model, articles, by=by)
    document = documents_of(articles)
    own: dict[int, Counter] = {group: Counter() for group in range(len(work.labels))}
    for group, sequence in zip(work.group, work.sequence, strict=True):
        own[group][document[work.text.sentence[sequence]]] += 1
    for group, found in own.items():
        assert found.total() == work.n[group]
        assert work.counts["documents"][group] == len(found)
        squares = sum(n * n for n in found.values())
        assert work.counts["document_squares"][group] == squares


def test_rare_tokens_that_are_left_out_are_not_counted(model, articles):
    whole, frequent = ek.plan(model, articles), ek.plan(model, articles, min_count=5)
    kept = whole.n >= 5
    for name, count in frequent.counts.items():
        np.testing.assert_array_equal(count, whole.counts[name][kept])


def test_the_effective_number_of_documents_is_simpsons(stats):
    begin = stats.tokens.tolist().index("[CLS]")
    # One begins each sequence, and the articles have as many, but for sentences that are split.
    assert stats.effective_documents[begin] == pytest.approx(10, rel=0.1)
    assert (stats.effective_documents <= stats.counts["documents"] * (1 + 1e-12)).all()
    assert (stats.effective_documents >= 1).all()
    np.testing.assert_array_equal(stats.effective_documents[stats.n == 1], 1)


def test_documents_of_merged_parts_are_unknown(model, articles):
    """An article may be in both parts."""
    parts = [ek.extract(model, part, progress=False) for part in (articles[:25], articles[25:])]
    merged = parts[0].merge(parts[1])
    assert {"begin", "first"} == merged.counts.keys()
    with pytest.raises(ek.StatisticsError, match="parts were merged, which may share a document"):
        merged.dispersion()


def test_documents_are_saved_and_add_up_over_shards(model, articles, stats, tmp_path):
    stats.save(tmp_path)
    again = ek.TokenStatistics.load(tmp_path)
    np.testing.assert_array_equal(again.effective_documents, stats.effective_documents)
    shards = ek.extract(model, articles, shards=4, store=tmp_path / "store", progress=False)
    np.testing.assert_array_equal(shards.effective_documents, stats.effective_documents)
    some = stats.without(["the", "[CLS]"])
    assert len(some.effective_documents) == len(some) == len(stats) - 2


def test_an_article_alone_in_a_shard_is_one_document(model, tmp_path):
    """It is longer than a block of lines, and its shard has one title only."""
    titles = ["long"] * (BLOCK + 20) + ["short"] * 5
    texts = [f"the cat {at % 7}" for at in range(len(titles))]
    corpus = ek.Corpus("two", texts, titles, np.arange(1, len(titles) + 1))
    whole = ek.extract(model, corpus, layers=[0], progress=False)
    parts = ek.extract(
        model, corpus, layers=[0], shards=2, store=tmp_path / "store", progress=False
    )
    assert parts.documents[parts.tokens.tolist().index("[CLS]")] == 2
    np.testing.assert_array_equal(parts.effective_documents, whole.effective_documents)


def test_dispersion_is_regressed_on_at_each_layer(stats):
    table = stats.dispersion(min_count=3, special=False)
    assert table["layer"].tolist() == stats.layers.tolist()
    kept = (stats.n >= 3) & ~stats.special
    for row in table.itertuples():
        V = stats.table(row.layer, min_count=3, special=False, unbiased=True)["V"].to_numpy()
        expected = measures.dispersion(stats.n[kept], stats.effective_documents[kept], V)
        assert tuple(row)[2:] == pytest.approx(expected)
        # Two predictors explain at least what each explains alone.
        assert row.r2 >= max(row.r2_n, row.r2_documents) - 1e-12
    plain = stats.dispersion(min_count=3, unbiased=False)
    assert not np.allclose(plain["slope_n"], stats.dispersion(min_count=3)["slope_n"])


def test_statistics_that_do_not_know_the_documents_say_so(stats):
    old = replace(stats, counts={})
    with pytest.raises(ek.StatisticsError, match="do not know in which documents"):
        old.dispersion()
