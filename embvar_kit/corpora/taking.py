"""What is taken of a source: its sentences, drawn, split and limited as asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice

from embvar_kit.corpora.corpus import Corpus, corpus_of, nothing_left
from embvar_kit.corpora.readers import Record, draw, given_limits, split_records
from embvar_kit.corpora.tables import Table, WithoutText


@dataclass(frozen=True)
class Taking:
    """What to take of a source.

    Attributes:
        sample, seed, max_words, limit: see :meth:`embvar_kit.Corpus.select`.
        split_sentences, language: whether to split the texts into sentences, and their language.

    Raises:
        CorpusError: where they are used, if they make no sense or no sentence is left.
    """

    sample: float | int | None = None
    seed: int = 0
    max_words: int | None = None
    limit: int | None = None
    split_sentences: bool = False
    language: str = "en"

    @cached_property
    def limits(self) -> dict[str, int]:
        """``max_words`` and ``limit``, as far as they are given."""
        return given_limits(self.max_words, self.limit)

    def of_table(self, name: str, table: Table) -> Corpus:
        """The sentences of a table; rows are drawn before any is read."""
        kept, drawn, sample = None, {}, self.sample
        if sample is not None and not self.split_sentences:
            if table.n == 0:
                raise nothing_left(name, {})
            # A corpus like the paper's has 74 million rows.
            (kept, drawn), sample = draw(table.n, sample, self.seed), None
        left_out = WithoutText()
        rows = left_out.drop(table.read(kept))
        records = split_records(rows, self.split_sentences, self.language)
        return self._taken(name, records, table.unit, left_out, sample, drawn)

    def of_records(self, name: str, records: Iterator[Record], unit: str) -> Corpus:
        """The sentences of a source whose records are sentences."""
        return self._taken(name, records, unit, WithoutText(), self.sample, {})

    def _taken(
        self,
        name: str,
        records: Iterator[Record],
        unit: str,
        left_out: WithoutText,
        sample: float | int | None,
        drawn: dict,
    ) -> Corpus:
        if (first := next(records, None)) is None:
            raise nothing_left(name, {}, left_out)
        records = chain([first], records)
        if sample is not None:
            everything = corpus_of(name, records, unit, {}, left_out)
            chosen = everything.select(
                sample=sample, seed=self.seed, max_words=self.max_words, limit=self.limit
            )
            return replace(chosen, without_text=left_out.n)  # all rows were read for this corpus
        taken = list(limited(records, **self.limits))
        if not taken:
            raise nothing_left(name, drawn | self.limits, left_out)
        return corpus_of(name, taken, unit, drawn | self.limits, left_out)


def limited(
    records: Iterable[Record], max_words: int | None = None, limit: int | None = None
) -> Iterator[Record]:
    """The first ``limit`` records that have at most ``max_words`` words."""
    if max_words is not None:
        records = (record for record in records if len(record[2].split()) <= max_words)
    return islice(records, limit)
