"""A corpus: sentences that remember where they came from, and choices among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from embvar_kit.corpora.readers import Record, draw, given_limits
from embvar_kit.corpora.tables import WithoutText
from embvar_kit.errors import CorpusError, EmptyCorpusError
from embvar_kit.wording import number_of


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
            left_out = f"; {number_of(self.without_text, 'row')} without text left out"
        counts = f"{number_of(len(self), 'sentence')}, {number_of(self.n_words, 'word')}"
        return f"Corpus({self.name!r}: {counts}{left_out})"

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
            raise nothing_left(self.name, drawn | limits)
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


def corpus_of(
    name: str, records: Iterable[Record], unit: str, settings: dict, left_out: WithoutText
) -> Corpus:
    """The corpus of some records, of which there is at least one."""
    titles, positions, sentences = map(list, zip(*records, strict=True))
    return Corpus(name, sentences, titles, np.array(positions), unit, settings, left_out.n)


def nothing_left(name: str, choice: dict, left_out: WithoutText | None = None) -> EmptyCorpusError:
    """An error that says why no sentence is left: the choices that were made, if any."""
    n = left_out.n if left_out else 0
    if not choice:
        return EmptyCorpusError(
            f"Corpus {name!r} holds no sentence: there is no text in it. Check the path; a text "
            "file has one sentence a line.",
            n,
        )
    choices = ", ".join(f"{key}={value}" for key, value in choice.items())
    return EmptyCorpusError(
        f"No sentence of corpus {name!r} is left after {choices}: loosen one of them.", n
    )


def lengths_in_words(sentences: Iterable[str]) -> dict[str, list[int]]:
    """How many sentences have 0, 1, 2 ... words, in two ways of counting.

    Returns:
        ``sentences_by_words``: words are separated by white space. ``sentences_by_blanks``: by
        single blanks, as in the authors' scripts (paper, Fig. 9), so that two blanks in a row
        enclose an empty word.

    >>> lengths_in_words(["a  b", "c"])
    {'sentences_by_words': [0, 1, 1], 'sentences_by_blanks': [0, 1, 0, 1]}
    """
    sentences = list(sentences)
    return {
        "sentences_by_words": np.bincount([len(s.split()) for s in sentences]).tolist(),
        "sentences_by_blanks": np.bincount([len(s.split(" ")) for s in sentences]).tolist(),
    }
