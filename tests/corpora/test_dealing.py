"""Documents are found, and dealt out evenly by a rule that depends on the corpus alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.corpora.dealing import BLOCK, deal, documents_of, documents_of_groups

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


@given(st.permutations(range(40)))
def test_blocks_are_of_neighbours_in_the_source_however_a_corpus_is_sorted(order):
    """The paper's text is sorted by number of words; a book must not be dealt to all folds."""
    lines = np.arange(40 * BLOCK // 10) // (BLOCK // 10)  # each part of it, 25 lines
    order = np.array(order)
    rows = np.concatenate([np.flatnonzero(lines == at) for at in order])
    sentences = [f"line {row}" for row in rows]
    corpus = ek.Corpus("one", sentences, ["one.txt"] * len(rows), rows + 1, unit="line")
    found = documents_of(corpus)
    assert len({*zip(found, rows // BLOCK, strict=True)}) == found.max() + 1 == 4
    assert found[0] == 0 and (np.diff([*dict.fromkeys(found)]) == 1).all()


OCCURRENCES = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 6)), max_size=60)


@given(OCCURRENCES)
def test_documents_of_a_group_are_counted_from_the_definition(occurrences):
    group, document = np.array(occurrences, dtype=int).reshape(-1, 2).T
    documents, squares = documents_of_groups(group, document, n_groups=5)
    for t in range(5):
        own = Counter(d for g, d in occurrences if g == t)
        assert documents[t] == len(own)
        assert squares[t] == sum(n * n for n in own.values())


@given(OCCURRENCES, st.integers(0, 7))
def test_documents_of_groups_add_up_over_parts_that_share_no_document(occurrences, cut):
    group, document = np.array(occurrences, dtype=int).reshape(-1, 2).T
    first = document < cut
    whole = documents_of_groups(group, document, n_groups=5)
    parts = [documents_of_groups(group[own], document[own], 5) for own in (first, ~first)]
    np.testing.assert_array_equal(whole, np.add(*parts))


def test_documents_of_groups_that_do_not_fit_are_refused():
    with pytest.raises(ek.CorpusError, match="has one of both"):
        documents_of_groups(np.zeros(2, int), np.zeros(3, int), n_groups=1)
    with pytest.raises(ek.CorpusError, match=r"outside 0\.\.0"):
        documents_of_groups(np.array([1]), np.array([0]), n_groups=1)


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
