"""Documents of a corpus dealt out to shards, by a rule that depends on the corpus alone."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Sequence

import numpy as np

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import CorpusError
from embvar_kit.wording import number_of

BLOCK = 250
"""Lines or rows that count as one document, where a corpus does not say where documents end."""


def documents_of(corpus: Corpus) -> np.ndarray:
    """``(N,)`` the document that each sentence belongs to, numbered in order of appearance.

    Sentences of one title form a document, an article for one. A text file or a table has one
    title only: there, each run of :data:`BLOCK` lines or rows is a document, and so it is in a
    list of sentences. Lines and rows are taken by their positions in the source: those of a corpus
    that is sorted otherwise, such as the paper's by number of words, would make documents of
    sentences that have nothing to do with one another, and cut real ones through all folds.

    >>> documents_of(Corpus.of(["a"] * 600))[[0, 249, 250, 599]].tolist()
    [0, 0, 1, 2]
    """
    titles: dict[str, int] = {}
    title = np.array(
        [titles.setdefault(title, len(titles)) for title in corpus.titles], dtype=np.int64
    )
    if corpus.unit == "sentence" and len(titles) > 1:
        return title
    # Count each sentence inside its title, so that no block holds sentences of two.
    order = np.lexsort((corpus.positions, title))
    first = np.searchsorted(title[order], np.arange(len(titles)))
    within = np.empty(len(title), dtype=np.int64)
    within[order] = np.arange(len(title)) - first[title[order]]
    blocks = title * (len(title) // BLOCK + 1) + within // BLOCK
    _, at, number = np.unique(blocks, return_index=True, return_inverse=True)
    rank = np.empty(len(at), dtype=np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    return rank[number]


def documents_of_groups(
    group: np.ndarray, document: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """How each group's occurrences spread over documents: what dispersion follows from.

    With ``n_td`` occurrences of group ``t`` in document ``d``, ``n_t^2 / sum_d n_td^2`` is the
    effective number of documents, the inverse of Simpson's index: ``D`` where a group occurs
    equally often in ``D`` documents, 1 where it occurs in one. Both numbers returned here add up
    over parts of a corpus that share no document.

    Args:
        group: ``(K,)`` the group of each occurrence, -1 for those that are not counted.
        document: ``(K,)`` the document of each occurrence, as in :func:`documents_of`.
        n_groups: number of groups, ``T``.

    Returns:
        ``(T,)`` number of documents in which each group occurs, and ``(T,)``
        ``sum_d n_td^2``; both int64, 0 for groups that do not occur.

    Raises:
        CorpusError: if the two arrays differ in length, or a group or document is out of range.

    >>> documents, squares = documents_of_groups(
    ...     np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 2, 2]), n_groups=2
    ... )
    >>> documents.tolist(), squares.tolist()
    ([2, 1], [5, 1])
    """
    group, document = np.asarray(group), np.asarray(document)
    if group.shape != document.shape:
        raise CorpusError(
            f"{group.shape} groups and {document.shape} documents: each occurrence has one of both."
        )
    counted = group >= 0
    group, document = group[counted].astype(np.int64), document[counted].astype(np.int64)
    if len(group) and (group.max() >= n_groups or document.min() < 0):
        raise CorpusError(f"A group is outside 0..{n_groups - 1}, or a document is negative.")
    width = int(document.max(initial=0)) + 1
    pairs, n_pairs = np.unique(group * width + document, return_counts=True)
    documents = np.bincount(pairs // width, minlength=n_groups).astype(np.int64)
    squares = np.zeros(n_groups, dtype=np.int64)
    np.add.at(squares, pairs // width, n_pairs.astype(np.int64) ** 2)
    return documents, squares


def deal_sentences(corpus: Corpus, shards: int, seed: int = 0) -> np.ndarray:
    """``(N,)`` the shard of each sentence: :func:`deal` of whole documents, by their characters.

    Raises:
        CorpusError: as :func:`deal`.

    >>> corpus = Corpus("two", ["a b", "c", "d"], ["x", "x", "y"], np.array([1, 2, 1]))
    >>> deal_sentences(corpus, shards=2).tolist()
    [0, 0, 1]
    """
    documents = documents_of(corpus)
    sizes = np.bincount(documents, weights=[len(one) for one in corpus.sentences])
    return deal(sizes, shards, seed)[documents]


def deal(sizes: Sequence[int] | np.ndarray, shards: int, seed: int = 0) -> np.ndarray:
    """Deal documents out so that shards have about equal sizes.

    The documents come in a seeded random order, and each goes to the shard that is smallest so
    far: the shard with the lowest number, if several are.

    Args:
        sizes: ``(D,)`` size of each document, in characters or bytes.
        shards: number of shards.
        seed: seed of the order.

    Returns:
        ``(D,)`` the shard of each document, from 0.

    Raises:
        CorpusError: if ``shards`` or ``seed`` makes no sense, or there are fewer documents.

    >>> deal([5, 5, 1, 1, 8], shards=2).tolist()
    [0, 0, 0, 0, 1]
    """
    try:
        shards, seed = operator.index(shards), operator.index(seed)
        order = np.random.default_rng(seed).permutation(len(sizes))
    except (TypeError, ValueError) as error:
        raise CorpusError(
            f"shards={shards!r} and seed={seed!r} must be whole numbers, from 1 and from 0 on."
        ) from error
    if not 1 <= shards <= len(sizes):
        most = "1" if len(sizes) == 1 else f"from 1 to {len(sizes):,}"
        raise CorpusError(
            f"{number_of(len(sizes), 'document')} cannot be dealt out to {shards:,} shards: take "
            f"{most}. A document is an article or a file; of one file of lines or rows, {BLOCK} of "
            "these."
        )
    filled = [(0, shard) for shard in range(shards)]
    dealt = np.empty(len(sizes), dtype=np.int64)
    for document in order:
        size, shard = heapq.heappop(filled)
        dealt[document] = shard
        heapq.heappush(filled, (size + max(1, int(sizes[document])), shard))
    return dealt
