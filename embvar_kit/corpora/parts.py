"""Corpora that are read in parts: a dataset as a stream, and many files one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

import numpy as np

from embvar_kit.corpora.corpus import Corpus, corpus_of
from embvar_kit.corpora.listing import Listing, on_this_machine, title_of
from embvar_kit.corpora.local_file import load_file
from embvar_kit.corpora.readers import Record, split_records, whole
from embvar_kit.corpora.tables import Row, Table, WithoutText
from embvar_kit.corpora.taking import Taking, limited
from embvar_kit.errors import CorpusError, EmptyCorpusError
from embvar_kit.wording import number_of


@dataclass(frozen=True)
class StreamedCorpus:
    """A corpus too large for the memory: :meth:`chunks` yields it as a sequence of corpora.

    Attributes:
        name: what the corpus is called in results.
        read: yields the records, starting afresh at each call; ``None`` in place of a text stands
            for a row without one, which is left out and counted.
        chunk: number of sentences in each corpus that is yielded.
        unit: what a position counts.
        settings: the choices made (limit, max_words).
    """

    name: str
    read: Callable[[], Iterator[Row]]
    chunk: int
    unit: str = "row"
    settings: dict = field(default_factory=dict)

    def chunks(self) -> Iterator[Corpus]:
        """Yield the sentences in order, ``chunk`` at a time.

        Raises:
            CorpusError: if the dataset cannot be read; the message names the row.
        """
        left_out, failure = WithoutText(), None
        records = left_out.drop(self.read(), blank=False)
        part: list[Record] = []
        while True:
            # The next is looked for before a full chunk is yielded, so that rows without text at
            # the very end are counted with it; if the next fails, the full chunk still comes.
            try:
                following = next(records, None)
            except Exception as error:
                following, failure = None, error
            if len(part) == self.chunk or (part and following is None and failure is None):
                yield corpus_of(self.name, part, self.unit, self.settings, left_out)
                part, left_out.n = [], 0
            if failure is not None:
                raise failure
            if following is None:
                return
            part.append(following)

    def __repr__(self) -> str:
        return f"StreamedCorpus({self.name!r}, in chunks of {number_of(self.chunk, 'sentence')})"


@dataclass(frozen=True)
class FileCorpus:
    """Many files, each a document, that are read one at a time by whoever measures them.

    Attributes:
        name: the pattern that found them.
        listing: their paths, sizes and stamps.
        settings: how each is read: arguments of :func:`embvar_kit.load_corpus`.
    """

    name: str
    listing: Listing
    settings: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __repr__(self) -> str:
        size = self.listing.sizes.sum() / 1e6
        return f"FileCorpus({self.name!r}: {number_of(len(self), 'file')}, {size:,.1f} MB)"

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of the listing, and of how the files are read."""
        digest = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        for path, size, stamp in zip(*self.listing, strict=True):
            digest.update(f"{path}\0{size}\0{stamp}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    def check_first(self) -> None:
        """Read the first file, to find out whether this machine can.

        Raises:
            CorpusError: as :meth:`chunks`.
        """
        with suppress(EmptyCorpusError):
            self._part(self.listing.paths[0], self.listing.stamps[0])

    def chunks(self) -> Iterator[Corpus]:
        """The files one after another, each as a corpus; files without text are passed over.

        Raises:
            CorpusError: if a file cannot be read, or was changed since it was listed.
        """
        held, left_out = None, 0
        for path, _, listed in zip(*self.listing, strict=True):
            # A part waits for the next one, so that rows without text in files that have no other
            # rows are counted with it; if the next fails, the one that waits still comes.
            try:
                part = self._part(path, listed)
            except EmptyCorpusError as empty:
                left_out += empty.without_text
                continue
            except CorpusError:
                if held is not None:
                    yield replace(held, without_text=held.without_text + left_out)
                raise
            if held is not None:
                yield replace(held, without_text=held.without_text + left_out)
                left_out = 0
            held = part
        if held is not None:
            yield replace(held, without_text=held.without_text + left_out)
        elif left_out:  # no file has text: their rows are counted all the same
            nothing = np.zeros(0, dtype=np.int64)
            yield Corpus(self.name, [], [], nothing, "row", self.settings, left_out)

    def _part(self, path: str, listed: str) -> Corpus:
        """One file, if its stamp is still that of the listing."""
        with on_this_machine(path) as (local, stamp):
            if stamp != listed:
                raise CorpusError(
                    f"{path!r} was changed since the corpus was listed. List it again, and "
                    "measure it from the start."
                )
            title, settings = title_of(path, self.name), dict(self.settings)
            column = settings.pop("text_column", "text")
            try:
                part = load_file(str(local), column, Taking(**settings))
            except EmptyCorpusError:
                raise
            except CorpusError as error:
                if title == local.name:
                    raise
                raise CorpusError(f"In {path!r}: {error}") from error
        return replace(part, name=self.name, titles=[title] * len(part))

    def read(self) -> Corpus:
        """All sentences of the files as one corpus.

        Raises:
            CorpusError: as :meth:`chunks`.
        """
        parts = list(self.chunks())
        units = sorted({part.unit for part in parts})
        return Corpus(
            self.name,
            [sentence for part in parts for sentence in part.sentences],
            [title for part in parts for title in part.titles],
            np.concatenate([np.zeros(0, dtype=np.int64), *(part.positions for part in parts)]),
            " or ".join(units) or "line",
            self.settings,
            sum(part.without_text for part in parts),
        )


def streamed(
    name: str,
    table: Table,
    taking: Taking,
    chunk: int,
) -> StreamedCorpus:
    """The corpus of a table that is read as a stream."""

    def read() -> Iterator[Row]:
        left_out, told = WithoutText(), 0
        rows = left_out.drop(table.read(None))
        records = limited(
            split_records(rows, taking.split_sentences, taking.language), **taking.limits
        )
        for record in chain(records, [None]):
            yield from repeat((name, 0, None), left_out.n - told)
            told = left_out.n
            if record is not None:
                yield record

    return StreamedCorpus(name, read, whole("chunk", chunk), settings=taking.limits)
