"""A plan by folds of the documents: its tokens, each fold's part of each a group of its own.

Such a pass measures all folds in one: its batches are those of the plan, and so are its statistics,
to the bit. A fold's part of a token is measured beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embvar_kit.corpora.dealing import BLOCK, documents_of
from embvar_kit.errors import CorpusError, ExtractionError
from embvar_kit.statistics.folds import LEAST, Folds
from embvar_kit.wording import number_of

if TYPE_CHECKING:
    from embvar_kit.corpora.corpus import Corpus
    from embvar_kit.extraction.plan import Plan


@dataclass(frozen=True)
class InFolds:
    """A pass whose groups are *entries*: the occurrences of one token in one fold.

    Attributes:
        number: number of folds, ``K``.
        work: the pass; of its ``E`` groups, those of a token stand together, sorted by fold.
        starts: ``(T + 1,)`` where the entries of each group of the whole pass start, and ``E``.
        fold: ``(E,)`` the fold of each entry.
    """

    number: int
    work: Plan
    starts: np.ndarray
    fold: np.ndarray

    def without(self, left_out: np.ndarray) -> InFolds:
        """As :meth:`Plan.without`."""
        return replace(self, work=self.work.without(left_out))

    def check(self) -> None:
        """Refuse folds in which nothing is measured.

        Raises:
            ExtractionError: if there are some.
        """
        check_folds(np.bincount(self.fold, weights=self.work.n, minlength=self.number))

    def __str__(self) -> str:
        size = Folds.bytes_of(self._n_frequent, self.number, len(self.work.layers))
        return (
            f"{self.number} of whole documents; what is left without each takes at most "
            f"{self.work.sites * size / 1e6:,.0f} MB"
        )

    @property
    def _n_frequent(self) -> int:
        total = np.concatenate([[0], np.cumsum(self.work.n)])[self.starts]
        return int((np.diff(total) >= LEAST).sum())


def check_documents(corpus: Corpus, number: int) -> None:
    """Refuse a corpus of fewer documents than folds.

    Args:
        corpus: the corpus.
        number: number of folds.

    Raises:
        CorpusError: if it has fewer documents.
    """
    documents = int(documents_of(corpus).max()) + 1
    if documents < number:
        fewer = "take fewer folds (the reliability has an interval from 6 on), " * (documents > 1)
        raise CorpusError(
            f"Corpus {corpus.name!r} has {number_of(documents, 'document')}, too few for "
            f"{number} folds of whole documents: {fewer}leave folds out, or take more text. A "
            f"document is an article or a file. In a single file, every {BLOCK} lines or rows are "
            f"one, so that {number} folds need more than {(number - 1) * BLOCK:,} of them."
        )


def check_folds(n: np.ndarray) -> None:
    """Refuse folds in which nothing is measured.

    The jackknife would count them like any other, and give intervals that are too narrow.

    Args:
        n: ``(K,)`` occurrences in each fold.

    Raises:
        ExtractionError: if one has none.
    """
    if empty := int((n == 0).sum()):
        raise ExtractionError(
            f"There is nothing to measure in {empty} of {len(n)} folds: their documents have no "
            "text, or all of their occurrences are left out, by min_count or leave_out. Take fewer "
            "folds, or a larger corpus."
        )


def by_fold(work: Plan, number: int, fold: np.ndarray) -> InFolds:
    """The pass of a plan by folds.

    Args:
        work: the plan.
        number: number of folds.
        fold: ``(S,)`` the fold of each sequence.

    Raises:
        ExtractionError: if nothing is to be measured in some fold.
    """
    measured = work.group >= 0
    both = work.group[measured] * number + fold[work.sequence[measured]]
    entries, own, n = np.unique(both, return_inverse=True, return_counts=True)
    group = np.full(len(work.group), -1)
    group[measured] = own
    token = entries // number
    of_entries = replace(
        work,
        group=group,
        labels=work.labels[token],
        special=work.special[token],
        n=n,
        subwords=None,
        counts={},
        null=None,
        covariance=False,
    )
    starts = np.searchsorted(token, np.arange(len(work.labels) + 1))
    found = InFolds(number, of_entries, starts, entries % number)
    found.check()
    return found
