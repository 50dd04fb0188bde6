"""Documents are found, and dealt out evenly by a rule that depends on the corpus alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.corpora.dealing import BLOCK, deal, documents_of

SIZES = st.lists(st.integers(0, 1000), min_size=1, max_size=60)


def test_an_article_is_a_document():
    corpus = ek.load_corpus("wikipedia")
    found = documents_of(corpus)
    titles = np.array(corpus.titles, dtype=object)
    assert found.max() + 1 == len(set(titles)) == 104
    assert all(len(set(titles[found == document])) == 1 for document in range(104))


def test_lines_of_a_file_form_blocks_and_no_block_has_lines_of_two_files():
    sentences = [f"line {i}" for i in range(2 * BLOCK + 20)]
    titles = ["a.txt"] * (BLOCK + 10) + ["b.txt"] * (BLOCK + 10)
    corpus = ek.Corpus("files", sentences, titles, np.arange(len(sentences)), unit="line")
    found = documents_of(corpus)
    assert np.bincount(found).tolist() == [BLOCK, 10, BLOCK, 10]
    assert (np.diff(found) >= 0).all(), "numbered in order of appearance"
    # Titles may alternate: a block is counted inside its title.
    mixed = ek.Corpus("files", sentences[:4], ["a", "b", "a", "b"], np.arange(4), unit="row")
    assert documents_of(mixed).tolist() == [0, 1, 0, 1]


@given(SIZES, st.integers(1, 60), st.integers(0, 3))
def test_each_document_goes_to_one_shard_and_no_shard_is_empty(sizes, shards, seed):
    shards = min(shards, len(sizes))
    dealt = deal(sizes, shards, seed)
    assert set(dealt.tolist()) == set(range(shards))
    assert dealt.tolist() == deal(np.array(sizes), shards, seed).tolist()


@given(SIZES, st.integers(1, 10))
def test_shards_differ_by_at_most_the_largest_document(sizes, shards):
    shards = min(shards, len(sizes))
    whole = np.bincount(deal(sizes, shards), weights=np.maximum(1, sizes))
    assert np.ptp(whole) <= max(1, *sizes, 1)


def test_the_seed_decides():
    dealt = [deal([1] * 40, 4, seed).tolist() for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


@pytest.mark.parametrize(
    ("shards", "message"),
    [(0, "from 1 to 3"), (4, "3 documents cannot be dealt out to 4"), (1.5, "whole numbers")],
)
def test_a_number_of_shards_that_cannot_be_is_refused(shards, message):
    with pytest.raises(ek.CorpusError, match=message):
        deal([5, 5, 5], shards)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(ek.CorpusError, match="seed=-1"):
        deal([5, 5, 5], 2, -1)
