"""Where sentences come from: the offline Wikipedia excerpt, a file, or a dataset on the Hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np

from embvar_kit.corpora.bookcorpus import bookcorpus_table, paper_sample
from embvar_kit.corpora.content import look
from embvar_kit.corpora.hub_dataset import hub_table
from embvar_kit.corpora.lines import paragraphs, text_lines
from embvar_kit.corpora.listing import Listing, is_pattern, list_files, on_this_machine, title_of
from embvar_kit.corpora.local_file import existing, file_table, names_a_file
from embvar_kit.corpora.readers import Record, draw, given_limits, numbered, split_records, whole
from embvar_kit.corpora.tables import Row, Table, WithoutText
from embvar_kit.corpora.wikipedia import read_wikipedia
from embvar_kit.errors import CorpusError, EmptyCorpusError

CORPORA = {
    "wikipedia": "104 English Wikipedia articles (CC BY-SA), offline, from gensim's test data",
    "bookcorpus": "the paper's sample of BookCorpus, 1 % of its lines, from the Hub",
    "bookcorpus:PATH": "the same from a copy: a parquet file, or a folder of them",
    "PATH.txt": "a UTF-8 text file, one sentence a line, or prose to be split",
    "PATH.jsonl": "a JSON object in each line, with a key for the text",
    "PATH.csv": "a table with a column of text, whose first line names the columns (.tsv: tabs)",
    "PATH.parquet": "a parquet file with a column of text",
    "PATH.*.gz": "any of these files compressed with gzip or zstd (.zst)",
    "DIR/*.parquet": "many files, here or at s3://..., read one at a time; also other patterns",
    "hub:NAME": "a dataset of the Hugging Face Hub, whole or streamed",
}
"""The names that :func:`load_corpus` takes, with a line on each."""


@dataclass(frozen=True)
class Corpus:
    """Sentences that remember where they came from.

    Attributes:
        name: what the corpus is called in results.
        sentences: the sentences, in order.
        titles: for each sentence, the article, file or dataset that it came from.
        positions: ``(N,)`` for each of the ``N`` sentences, its number in that source, from 1: the
            line of a text file, the row of a table, the sentence of an article.
        unit: what a position counts: ``"line"``, ``"row"`` or ``"sentence"``; ``"line or row"`` if
            files of both kinds are in it.
        settings: the choices made (limit, sample, seed ...); later choices, made on the result,
            follow in a list under ``"then"``, in order.
        without_text: number of rows that were read from a table and left out, because the text in
            them is missing or blank. They are counted once, for the whole: a part of a corpus
            (a slice, :meth:`select`) has none.

    >>> corpus = Corpus.of(["A cat sat.", "Dogs bark."], name="pets")
    >>> corpus
    Corpus('pets': 2 sentences, 5 words)
    >>> corpus[1], corpus.where(1)
    ('Dogs bark.', 'pets, sentence 2')
    """

    name: str
    sentences: Sequence[str]
    titles: Sequence[str]
    positions: np.ndarray
    unit: str = "sentence"
    settings: dict = field(default_factory=dict)
    without_text: int = 0

    @classmethod
    def of(cls, sentences: Iterable[str], name: str = "sentences") -> Corpus:
        """Make a corpus from a list of sentences.

        Args:
            sentences: the sentences; empty ones are kept.
            name: what the corpus is called in results.

        Raises:
            CorpusError: if ``sentences`` is one string, or one of them is not a string.
        """
        if isinstance(sentences, str):
            raise CorpusError("A corpus is made of a list of sentences, not of one string.")
        sentences = list(sentences)
        for number, sentence in enumerate(sentences, start=1):
            if not isinstance(sentence, str):
                raise CorpusError(f"Sentence {number} is not a string: {sentence!r}.")
        return cls(name, sentences, [name] * len(sentences), np.arange(1, len(sentences) + 1))

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sentences)

    def __getitem__(self, index: int | slice) -> str | Corpus:
        if isinstance(index, slice):
            kept = range(len(self))[index]
            taken = f"[{kept.start}:{kept.stop}:{kept.step}]"
            return self._take(kept, {"slice": taken})
        return self.sentences[index]

    def __repr__(self) -> str:
        left_out = ""
        if self.without_text:
            rows = "row" if self.without_text == 1 else "rows"
            left_out = f"; {self.without_text:,} {rows} without text left out"
        return f"Corpus({self.name!r}: {len(self):,} sentences, {self.n_words:,} words{left_out})"

    @cached_property
    def n_words(self) -> int:
        """Number of words, separated by white space, in all sentences."""
        return sum(len(sentence.split()) for sentence in self.sentences)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of the sentences, to tell two corpora apart."""
        digest = hashlib.sha256()
        for sentence in self.sentences:
            data = sentence.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()[:16]

    def where(self, index: int) -> str:
        """Where a sentence came from, to look up its context."""
        return f"{self.titles[index]}, {self.unit} {self.positions[index]}"

    def select(
        self,
        *,
        limit: int | None = None,
        max_words: int | None = None,
        sample: float | int | None = None,
        seed: int = 0,
    ) -> Corpus:
        """Part of the corpus: first ``sample``, then ``max_words``, then ``limit``.

        Args:
            sample: how many sentences to draw without replacement: a share between 0 and 1 or a
                whole number. They stay in order. NumPy's legacy generator draws them, as in the
                paper.
            seed: seed of the random draw.
            max_words: keep sentences of at most this many white-space-separated words (the paper
                keeps fewer than 64: ``max_words=63``).
            limit: keep only this many, the first ones.

        Raises:
            CorpusError: if an argument makes no sense or no sentence is left.

        >>> letters = Corpus.of([f"letter {c}" for c in "abcdef"])
        >>> list(letters.select(sample=0.5, seed=1))
        ['letter b', 'letter c', 'letter e']
        """
        limits = given_limits(max_words, limit)
        kept, drawn = np.arange(len(self)), {}
        if sample is not None:
            kept, drawn = draw(len(self), sample, seed)
        if (most := limits.get("max_words")) is not None:
            kept = kept[[len(self.sentences[i].split()) <= most for i in kept]]
        kept = kept[: limits.get("limit")]
        if not len(kept):
            raise _nothing_left(self.name, drawn | limits)
        return self._take(kept, drawn | limits)

    def _take(self, kept: Sequence[int], choice: dict) -> Corpus:
        settings = self.settings or choice
        if self.settings and choice:
            settings = {**settings, "then": [*settings.get("then", []), choice]}
        return replace(
            self,
            sentences=[self.sentences[i] for i in kept],
            titles=[self.titles[i] for i in kept],
            positions=self.positions[np.asarray(kept, dtype=np.int64)],
            settings=settings,
            without_text=0,
        )


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
                yield _corpus(self.name, part, self.unit, self.settings, left_out)
                part, left_out.n = [], 0
            if failure is not None:
                raise failure
            if following is None:
                return
            part.append(following)

    def __repr__(self) -> str:
        return f"StreamedCorpus({self.name!r}, in chunks of {self.chunk:,} sentences)"


@dataclass(frozen=True)
class FileCorpus:
    """Many files, each a document, that are read one at a time by whoever measures them.

    Attributes:
        name: the pattern that found them.
        listing: their paths, sizes and stamps.
        settings: how each is read: arguments of :func:`load_corpus`.
    """

    name: str
    listing: Listing
    settings: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.listing.paths)

    def __repr__(self) -> str:
        size = self.listing.sizes.sum() / 1e6
        return f"FileCorpus({self.name!r}: {len(self):,} files, {size:,.1f} MB)"

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of the listing, and of how the files are read."""
        digest = hashlib.sha256(repr(sorted(self.settings.items())).encode())
        for path, size, stamp in zip(*self.listing, strict=True):
            digest.update(f"{path}\0{size}\0{stamp}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

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

    def _part(self, path: str, listed: str) -> Corpus:
        """One file, if its stamp is still that of the listing."""
        with on_this_machine(path) as (local, stamp):
            if stamp != listed:
                raise CorpusError(
                    f"{path!r} was changed since the corpus was listed. List it again, and "
                    "measure it from the start."
                )
            title = title_of(path, self.name)
            try:
                part = load_corpus(local, **self.settings)
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


def load_corpus(
    name: str | Path,
    *,
    limit: int | None = None,
    max_words: int | None = None,
    sample: float | int | None = None,
    seed: int = 0,
    split_sentences: bool = False,
    language: str = "en",
    text_column: str = "text",
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    chunk: int = 50_000,
) -> Corpus | StreamedCorpus | FileCorpus:
    """Load sentences from the excerpt, a file or the Hub.

    Args:
        name: ``"wikipedia"``, ``"bookcorpus"`` or ``"bookcorpus:PATH"``, the path of a file, a
            pattern of many files (``"DIR/*.parquet"``, ``"s3://BUCKET/**/*.jsonl"``), or
            ``"hub:NAME"``. A file is UTF-8 text, JSON lines, CSV, TSV or parquet, as it is or
            compressed with gzip or zstd. Compression, parquet and JSON lines are known by the
            content, whatever the name. Lines end in LF, CR LF or CR.
        limit, max_words, sample, seed: see :meth:`Corpus.select`. From a table or dataset that is
            not split into sentences, ``sample`` draws rows, and blank ones among them are left
            out. Without ``sample``, nothing beyond the limit is read. BookCorpus is sampled as in
            the paper by default (``sample=0.01, max_words=63, seed=0``) and sorted by length: see
            :func:`embvar_kit.corpora.bookcorpus.paper_sample`.
        split_sentences: the text is prose: split each paragraph (text file) or row (table,
            dataset) into sentences with ``sentencex``. Otherwise a line or row is a sentence.
        language: language code of the prose, for ``sentencex``.
        text_column: name of the column with the text, in a table or dataset, or of the key in JSON
            lines. In these and in parquet ``"column.field"`` is a field inside a column. Rows
            whose text is missing or blank are left out and counted
            (:attr:`Corpus.without_text`); words such as ``nan`` and ``null`` are text.
        split, config, revision: split, configuration and revision of a Hub dataset.
        streaming: read a Hub dataset as a stream, planned and extracted in chunks.
        chunk: number of sentences in a chunk of a stream.

    Returns:
        A :class:`Corpus`; a :class:`StreamedCorpus` with ``streaming=True``; for a pattern a
        :class:`FileCorpus`, which takes ``max_words``, ``split_sentences``, ``language`` and
        ``text_column`` and reads its files when they are measured.

    Raises:
        CorpusError: if the corpus is unknown, cannot be read (the message names the line), has no
            such column, or no sentence of it is left.
    """
    name = str(name)
    if not isinstance(text_column, str):
        raise CorpusError(f"text_column must be the name of a column, got {text_column!r}.")
    if streaming and not name.startswith("hub:"):
        raise CorpusError(f"Only a Hub dataset can be read as a stream, and {name!r} is not one.")
    if streaming and sample is not None:
        raise CorpusError(
            "A stream has no known length to sample from: use limit, or streaming=False."
        )
    if name.partition(":")[0] == "bookcorpus" and not os.path.isfile(os.path.expanduser(name)):
        if split_sentences or (split, config) != ("train", None):
            raise CorpusError(
                "BookCorpus is read as in the paper, by the lines of its train split: leave "
                "split_sentences, split and config out, or read 'hub:bookcorpus/bookcorpus'."
            )
        table, origin = bookcorpus_table(name[len("bookcorpus:") :] or None, text_column, revision)
        left_out = WithoutText()
        taken, settings = paper_sample(
            table, left_out, sample=sample, max_words=max_words, limit=limit, seed=seed
        )
        if not taken:
            raise _nothing_left(name, settings)
        return _corpus("bookcorpus", taken, "row", settings | origin, left_out)
    limits, drawn, unit = given_limits(max_words, limit), {}, "row"
    if not name.startswith("hub:") and is_pattern(name):
        if sample is not None or limit is not None:
            raise CorpusError(
                "Of many files no sentences are drawn or counted before they are read: leave "
                "sample and limit out, or name fewer files."
            )
        how = {"split_sentences": split_sentences, "language": language, "text_column": text_column}
        usual = {"split_sentences": False, "language": "en", "text_column": "text"}
        chosen = {key: value for key, value in how.items() if value != usual[key]}
        return FileCorpus(name, list_files(name), chosen | limits)
    table, left_out = None, WithoutText()
    if name == "wikipedia":
        label, unit = name, "sentence"
        records = numbered(read_wikipedia())
    elif name.startswith("hub:"):
        label = name
        table = hub_table(name[4:], text_column, split, config, revision, streaming)
        if table.n is None:
            return _stream(label, table, split_sentences, language, limits, chunk)
    elif names_a_file(name):
        content = look(existing(name))
        label, table = content.name, file_table(content, text_column)
    else:
        folder = os.path.isdir(os.path.expanduser(name))
        problem = f"{name!r} is a folder" if folder else f"Unknown corpus {name!r}"
        raise CorpusError(
            f"{problem}. Offline you can use 'wikipedia' or the path of a file (text, .jsonl, .csv "
            "or .parquet); 'bookcorpus' is the paper's sample, and 'hub:NAME' a dataset of the Hub."
        )
    if table is not None:
        unit, kept = table.unit, None
        if sample is not None and not split_sentences:
            if table.n == 0:
                raise _nothing_left(label, {})
            # Draw before reading: a corpus like the paper's has 74 million rows.
            (kept, drawn), sample = draw(table.n, sample, seed), None
        rows = left_out.drop(table.read(kept))
        records = split_records(rows, split_sentences, language)
    elif name != "wikipedia":
        unit, records = "line", text_lines(content)
        if split_sentences:
            records = split_records(paragraphs(records), True, language)
    if (first := next(records, None)) is None:
        raise _nothing_left(label, {}, left_out)
    records = chain([first], records)
    if sample is not None:
        everything = _corpus(label, records, unit, {}, left_out)
        chosen = everything.select(sample=sample, seed=seed, max_words=max_words, limit=limit)
        return replace(chosen, without_text=left_out.n)  # all rows were read for this corpus
    taken = list(_limited(records, **limits))
    if not taken:
        raise _nothing_left(label, drawn | limits, left_out)
    return _corpus(label, taken, unit, drawn | limits, left_out)


def _corpus(
    name: str, records: Iterable[Record], unit: str, settings: dict, left_out: WithoutText
) -> Corpus:
    titles, positions, sentences = map(list, zip(*records, strict=True))
    return Corpus(name, sentences, titles, np.array(positions), unit, settings, left_out.n)


def _limited(
    records: Iterable[Record], max_words: int | None = None, limit: int | None = None
) -> Iterator[Record]:
    if max_words is not None:
        records = (record for record in records if len(record[2].split()) <= max_words)
    return islice(records, limit)


def _nothing_left(name: str, choice: dict, left_out: WithoutText | None = None) -> EmptyCorpusError:
    n = left_out.n if left_out else 0
    if not choice:
        return EmptyCorpusError(f"Corpus {name!r} holds no sentence: there is no text in it.", n)
    choices = ", ".join(f"{key}={value}" for key, value in choice.items())
    return EmptyCorpusError(
        f"No sentence of corpus {name!r} is left after {choices}: loosen one of them.", n
    )


def _stream(
    name: str,
    table: Table,
    split_sentences: bool,
    language: str,
    limits: dict[str, int],
    chunk: int,
) -> StreamedCorpus:
    def read() -> Iterator[Row]:
        left_out, told = WithoutText(), 0
        rows = left_out.drop(table.read(None))
        records = _limited(split_records(rows, split_sentences, language), **limits)
        for record in chain(records, [None]):
            yield from repeat((name, 0, None), left_out.n - told)
            told = left_out.n
            if record is not None:
                yield record

    return StreamedCorpus(name, read, whole("chunk", chunk), settings=limits)
