"""Where sentences come from: the offline Wikipedia excerpt, a file, or a dataset on the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

import numpy as np

from embvar_kit.corpora.bookcorpus import bookcorpus_table, paper_sample
from embvar_kit.corpora.readers import (
    Record,
    Table,
    draw,
    existing,
    given_limits,
    hub_table,
    numbered,
    paragraphs,
    parquet_table,
    split_records,
    text_lines,
    whole,
)
from embvar_kit.corpora.wikipedia import read_wikipedia
from embvar_kit.errors import CorpusError

CORPORA = {
    "wikipedia": "104 English Wikipedia articles (CC BY-SA), offline, from gensim's test data",
    "bookcorpus": "the paper's sample of BookCorpus, 1 % of its lines, from the Hub",
    "bookcorpus:PATH": "the same from a copy: a parquet file, or a folder of them",
    "PATH.txt": "a UTF-8 text file, one sentence a line, or prose to be split",
    "PATH.parquet": "a parquet file with a column of text",
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
        unit: what a position counts: ``"line"``, ``"row"`` or ``"sentence"``.
        settings: the choices made (limit, sample, seed ...); later choices, made on the result,
            follow in a list under ``"then"``, in order.

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
        return f"Corpus({self.name!r}: {len(self):,} sentences, {self.n_words:,} words)"

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
        )


@dataclass(frozen=True)
class StreamedCorpus:
    """A corpus too large for the memory: :meth:`chunks` yields it as a sequence of corpora.

    Attributes:
        name: what the corpus is called in results.
        read: yields the records, starting afresh at each call.
        chunk: number of sentences in each corpus that is yielded.
        unit: what a position counts.
        settings: the choices made (limit, max_words).
    """

    name: str
    read: Callable[[], Iterator[Record]]
    chunk: int
    unit: str = "row"
    settings: dict = field(default_factory=dict)

    def chunks(self) -> Iterator[Corpus]:
        """Yield the sentences in order, ``chunk`` at a time.

        Raises:
            CorpusError: if the dataset cannot be read; the message names the row.
        """
        records = iter(self.read())
        while part := list(islice(records, self.chunk)):
            yield _corpus(self.name, part, self.unit, self.settings)

    def __repr__(self) -> str:
        return f"StreamedCorpus({self.name!r}, in chunks of {self.chunk:,} sentences)"


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
) -> Corpus | StreamedCorpus:
    """Load sentences from the excerpt, a file or the Hub.

    Args:
        name: ``"wikipedia"``, ``"bookcorpus"`` or ``"bookcorpus:PATH"``, the path of a ``.txt`` or
            ``.parquet`` file, or ``"hub:NAME"``.
        limit, max_words, sample, seed: see :meth:`Corpus.select`. From a table or dataset that is
            not split into sentences, ``sample`` draws rows, and blank ones among them are left
            out. Without ``sample``, nothing beyond the limit is read. BookCorpus is sampled as in
            the paper by default (``sample=0.01, max_words=63, seed=0``) and sorted by length: see
            :func:`embvar_kit.corpora.bookcorpus.paper_sample`.
        split_sentences: the text is prose: split each paragraph (text file) or row (table,
            dataset) into sentences with ``sentencex``. Otherwise a line or row is a sentence.
        language: language code of the prose, for ``sentencex``.
        text_column: name of the column with the text, in a table or dataset.
        split, config, revision: split, configuration and revision of a Hub dataset.
        streaming: read a Hub dataset as a stream, planned and extracted in chunks.
        chunk: number of sentences in a chunk of a stream.

    Returns:
        A :class:`Corpus`, or a :class:`StreamedCorpus` with ``streaming=True``.

    Raises:
        CorpusError: if the corpus is unknown, cannot be read (the message names the line), has no
            such column, or no sentence of it is left.
    """
    name = str(name)
    if streaming and not name.startswith("hub:"):
        raise CorpusError(f"Only a Hub dataset can be read as a stream, and {name!r} is not one.")
    if streaming and sample is not None:
        raise CorpusError(
            "A stream has no known length to sample from: use limit, or streaming=False."
        )
    if name.partition(":")[0] == "bookcorpus" and not Path(name).expanduser().is_file():
        if split_sentences or (split, config) != ("train", None):
            raise CorpusError(
                "BookCorpus is read as in the paper, by the lines of its train split: leave "
                "split_sentences, split and config out, or read 'hub:bookcorpus/bookcorpus'."
            )
        table, origin = bookcorpus_table(name[len("bookcorpus:") :] or None, text_column, revision)
        taken, settings = paper_sample(
            table, sample=sample, max_words=max_words, limit=limit, seed=seed
        )
        if not taken:
            raise _nothing_left(name, settings)
        return _corpus("bookcorpus", taken, "row", settings | origin)
    limits, drawn, unit = given_limits(max_words, limit), {}, "row"
    if name == "wikipedia":
        label, unit = name, "sentence"
        records = numbered(read_wikipedia())
    elif name.startswith("hub:") or name.endswith(".parquet"):
        if name.startswith("hub:"):
            label = name
            table = hub_table(name[4:], text_column, split, config, revision, streaming)
        else:
            path = existing(name)
            label, table = path.name, parquet_table(path, text_column)
        if table.n is None:
            return _stream(label, table, split_sentences, language, limits, chunk)
        kept = None
        if sample is not None and not split_sentences:
            # Draw before reading: a corpus like the paper's has 74 million rows.
            (kept, drawn), sample = draw(table.n, sample, seed), None
        records = split_records(table.read(kept), split_sentences, language)
    elif name.endswith(".txt") or Path(name).expanduser().is_file():
        path = existing(name)
        label, unit = path.name, "line"
        records = text_lines(path)
        if split_sentences:
            records = split_records(paragraphs(records), True, language)
    else:
        folder = Path(name).expanduser().is_dir()
        problem = f"{name!r} is a folder" if folder else f"Unknown corpus {name!r}"
        raise CorpusError(
            f"{problem}. Offline you can use 'wikipedia' or the path of a .txt or .parquet file; "
            "'bookcorpus' is the paper's sample, and 'hub:NAME' a dataset of the Hub."
        )
    if (first := next(records, None)) is None:
        raise _nothing_left(label, {})
    records = chain([first], records)
    if sample is not None:
        everything = _corpus(label, records, unit, {})
        return everything.select(sample=sample, seed=seed, max_words=max_words, limit=limit)
    taken = list(_limited(records, **limits))
    if not taken:
        raise _nothing_left(label, drawn | limits)
    return _corpus(label, taken, unit, drawn | limits)


def _corpus(name: str, records: Iterable[Record], unit: str, settings: dict) -> Corpus:
    titles, positions, sentences = map(list, zip(*records, strict=True))
    return Corpus(name, sentences, titles, np.array(positions), unit, settings)


def _limited(
    records: Iterable[Record], max_words: int | None = None, limit: int | None = None
) -> Iterator[Record]:
    if max_words is not None:
        records = (record for record in records if len(record[2].split()) <= max_words)
    return islice(records, limit)


def _nothing_left(name: str, choice: dict) -> CorpusError:
    if not choice:
        return CorpusError(f"Corpus {name!r} holds no sentence: there is no text in it.")
    choices = ", ".join(f"{key}={value}" for key, value in choice.items())
    return CorpusError(
        f"No sentence of corpus {name!r} is left after {choices}: loosen one of them."
    )


def _stream(
    name: str,
    table: Table,
    split_sentences: bool,
    language: str,
    limits: dict[str, int],
    chunk: int,
) -> StreamedCorpus:
    def read() -> Iterator[Record]:
        return _limited(split_records(table.read(None), split_sentences, language), **limits)

    return StreamedCorpus(name, read, whole("chunk", chunk), settings=limits)
