"""Concordance of a corpus: a token's occurrences in context, its neighbours, its embeddings.

The model runs only on the sentences of the occurrences asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.tokens import tokenize
from embvar_kit.errors import ExtractionError, NothingLeftError, StatisticsError
from embvar_kit.extraction.embeddings import (
    Occurrences,
    collect_embeddings,
    require_all_occurrences,
)
from embvar_kit.extraction.plan import Plan, plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.running import use_of
from embvar_kit.statistics.merging import control_tokens_read
from embvar_kit.statistics.token_statistics import TokenStatistics

_LONGEST = 1000  # most tokens of a typed sentence, whatever the model takes: more take long
_WIDTH = 70  # characters of context on each side


@dataclass(frozen=True)
class Context:
    """One occurrence of a token in its sentence: keyword in context.

    Attributes:
        left: the sentence before the keyword, its last seventy characters at most.
        keyword: the token's characters in the sentence.
        right: the sentence after the keyword, its first seventy characters at most.
        before: the preceding token (or word), as the statistics name it; ``None`` at the start of
            the model's input.
        after: the following token (or word); ``None`` at the end of the model's input.
        where: the source, from :meth:`embvar_kit.corpora.corpus.Corpus.where`.
        link: the source's address (for the offline excerpt, the article's), if it has one.
    """

    left: str
    keyword: str
    right: str
    before: str | None
    after: str | None
    where: str
    link: str | None


@dataclass(frozen=True, eq=False)
class Insertion:
    """A sentence that need not be in the corpus, as the model reads it, and a token's place in it.

    Attributes:
        sentence: the text.
        tokens: ``(K,)`` its tokens (or words) as the statistics name them, in order, begin and end
            tokens included.
        occurrences: the token's occurrences among them; ``None`` if there are none.
        parts: the sentence before, in and after each occurrence.
    """

    sentence: str
    tokens: np.ndarray
    occurrences: Occurrences | None
    parts: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Concordance:
    """The occurrences of each token of a corpus.

    Attributes:
        model: the model whose tokenizer is used and whose embeddings are collected.
        corpus: the sentences.
        by: what forms a group, ``"token"``, ``"id"`` or ``"word"``.
        long: what is done with sentences longer than the model's input.
        parse_special: whether control tokens that the text spells out are read as such.
    """

    model: EmbeddingModel
    corpus: Corpus
    by: str = "token"
    long: str = "split"
    parse_special: bool = False

    @property
    def lock(self) -> threading.RLock:
        """To be held by whoever uses this in a thread: the model and its tokenizer are shared."""
        return use_of(self.model.module)

    @cached_property
    def tokenized(self) -> Plan:
        """The tokenized corpus; the first use takes a few seconds."""
        return self._plan(self.corpus)

    def count(self, token: str) -> int:
        """How often a token occurs in this corpus."""
        at = self._index.get(token)
        return 0 if at is None else int(self.tokenized.n[at])

    def find(self, token: str, *, most: int = 60, seed: int = 0) -> Occurrences:
        """Occurrences of a token with their embeddings at each layer, in the corpus' order.

        Args:
            token: the token's name in the statistics.
            most: if the token occurs more often, draw this many occurrences. A few more may be
                returned: all those in the sentences drawn.
            seed: seed of the random draw.

        Raises:
            ExtractionError: if the token does not occur.
        """
        at = self._index.get(token)
        if at is None:
            raise ExtractionError(f"{token!r} does not occur in corpus {self.corpus.name!r}.")
        own = np.flatnonzero(self.tokenized.group == at)
        if len(own) > most:
            own = np.random.default_rng(seed).choice(own, most, replace=False)
        sentences = np.unique(self._sentence_of[own])
        part = self._part(sentences)
        found = collect_embeddings(self.model, part, [token], by=self.by, **self._how)[token]
        return Occurrences(
            found.token, found.layers, found.x, sentences[found.sentence], found.position
        )

    def contexts(self, occurrences: Occurrences) -> list[Context]:
        """Contexts of the occurrences that :meth:`find` returned, in their order."""
        sentences = np.unique(occurrences.sentence)
        part = self._part(sentences)
        work, spans = self._plan(part), self._spans(part)
        text, token_of, sequence_of = work.text, work.first_token, work.sequence
        place = {
            (int(text.sentence[sequence]), int(token - text.starts[sequence])): at
            for at, (token, sequence) in enumerate(zip(token_of, sequence_of, strict=True))
            if work.labels[work.group[at]] == occurrences.token
        }
        row = {int(sentence): at for at, sentence in enumerate(sentences)}
        contexts = []
        for sentence, position in zip(occurrences.sentence, occurrences.position, strict=True):
            at = place[row[int(sentence)], int(position)]
            neighbours = [
                str(work.labels[work.group[i]])
                if 0 <= i < len(work.group) and sequence_of[i] == sequence_of[at]
                else None
                for i in (at - 1, at + 1)
            ]
            parts = self._split(work, spans, token_of[at], at, str(self.corpus[int(sentence)]))
            where = self.corpus.where(int(sentence))
            link = source_link(self.corpus, int(sentence))
            contexts.append(Context(*parts, *neighbours, where, link))
        return contexts

    def insert(self, sentence: str, token: str) -> Insertion:
        """Run the model on a sentence, read as those of the corpus are, and find a token in it.

        Args:
            sentence: the text.
            token: the token (or word), named as in the statistics.

        Raises:
            ExtractionError: if the sentence is blank, nothing or only special tokens are left of
                it, or it is too long.
        """
        if not sentence.strip():
            raise ExtractionError("Type a sentence: there is no text yet.")
        corpus = Corpus.of([sentence], "your sentence")
        how = {"by": self.by, "parse_special": self.parse_special}
        try:
            work = plan(self.model, corpus, **how)
        except NothingLeftError as error:
            raise ExtractionError(
                f"{self.model.name} finds no {'word' if self.by == 'word' else 'token'} in this "
                "text: type another sentence."
            ) from error
        self._require_sentence(work)
        tokens = work.labels[work.group]
        own = np.flatnonzero(tokens == token)
        if not len(own):
            return Insertion(sentence, tokens, None, [])
        found = collect_embeddings(self.model, corpus, [token], **how)[token]
        spans = self._spans(corpus)
        parts = [self._split(work, spans, work.first_token[at], at, sentence) for at in own]
        return Insertion(sentence, tokens, found, parts)

    def _require_sentence(self, work: Plan) -> None:
        """Refuse a text that is too long for one run of the model, or has special tokens only.

        Raises:
            ExtractionError: if it is or has.
        """
        around = len(self.model.begin) + len(self.model.end)
        tokens = len(work.text.ids) - around * len(work.text.lengths)
        room = _LONGEST
        if self.model.max_tokens is not None:
            room = min(room, self.model.max_tokens - around)
        if tokens > room:
            raise ExtractionError(
                f"Your sentence has {tokens:,} tokens, and {self.model.name} is run on {room:,} "
                "at most here: shorten it."
            )
        if work.special.all():
            raise ExtractionError(
                f"{self.model.name} reads only special tokens in this text: "
                f"{', '.join(map(str, work.labels))}. Type another sentence."
            )

    def _split(
        self, work: Plan, spans: np.ndarray | None, token: int, at: int, sentence: str
    ) -> tuple[str, str, str]:
        """The sentence before, in and after an occurrence.

        Args:
            work: the tokenized sentences.
            spans: ``(N, 2)`` first character and end of each token, if the tokenizer knows them.
            token: the occurrence's first token, an index in all tokens.
            at: the occurrence, an index in all occurrences.
            sentence: the text.
        """
        last = token
        if work.word is not None:
            last = int(np.flatnonzero(work.word == at)[-1])
        if spans is None:  # the tokenizer does not report its tokens' characters
            sequence = np.searchsorted(work.text.starts, token, side="right") - 1
            start, end = work.text.starts[[sequence, sequence + 1]]
            decode = self.model.tokenizer.decode
            parts = (slice(start, token), slice(token, last + 1), slice(last + 1, end))
            left, keyword, right = (decode(work.text.ids[part].tolist()) for part in parts)
        elif spans[token, 0] < 0:  # a begin or end token has no characters
            first = token in work.text.starts
            keyword = str(work.labels[work.group[at]])
            left, right = ("", sentence) if first else (sentence, "")
        else:
            begin, end = int(spans[token, 0]), int(spans[last, 1])
            left, keyword, right = sentence[:begin], sentence[begin:end], sentence[end:]
        left = left if len(left) <= _WIDTH else "…" + left[-_WIDTH:]
        right = right if len(right) <= _WIDTH else right[:_WIDTH] + "…"
        return left, keyword, right

    def _spans(self, corpus: Corpus) -> np.ndarray | None:
        model = self.model
        if not model.tokenizer.is_fast:
            return None
        how = {"begin": model.begin, "end": model.end, "max_tokens": model.max_tokens}
        try:
            return tokenize(model.tokenizer, corpus, **how, **self._how, spans=True).spans
        except ExtractionError:  # it gives wrong ones for this text, which was read without them
            return None

    def _plan(self, corpus: Corpus) -> Plan:
        return plan(self.model, corpus, by=self.by, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        """How sentences become tokens."""
        return {"long": self.long, "parse_special": self.parse_special}

    def _part(self, sentences: Sequence[int]) -> Corpus:
        whole = self.corpus
        return Corpus(
            whole.name,
            [whole.sentences[i] for i in sentences],
            [whole.titles[i] for i in sentences],
            whole.positions[sentences],
            whole.unit,
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {str(label): at for at, label in enumerate(self.tokenized.labels)}

    @cached_property
    def _sentence_of(self) -> np.ndarray:
        """``(K,)`` the sentence of each occurrence."""
        return self.tokenized.text.sentence[self.tokenized.sequence]


def source_link(corpus: Corpus, sentence: int) -> str | None:
    """The address of a sentence's source: for the offline excerpt its article's, else ``None``.

    The article may have changed since: the excerpt comes from a dump that is years old.
    """
    if corpus.name != "wikipedia":
        return None
    title = str(corpus.titles[sentence]).replace(" ", "_")
    return f"https://en.wikipedia.org/wiki/{quote(title)}"


def concordances(
    statistics: Iterable[TokenStatistics],
    model: EmbeddingModel | Sequence[EmbeddingModel] | None,
    corpus: Corpus | None,
) -> list[Concordance]:
    """A concordance for each model given, which groups occurrences as the model's statistics do.

    Raises:
        StatisticsError: if a model is not among the statistics', only one of model and corpus is
            given, or occurrences were left out of the statistics.
    """
    models = [] if model is None else [model] if isinstance(model, EmbeddingModel) else list(model)
    if bool(models) != (corpus is not None):
        raise StatisticsError("Cards need a model and a corpus: give both, or neither.")
    of_model = {}
    for one in statistics:
        of_model[one.info["model"]["name"], one.info["model"].get("revision")] = one
    found = []
    for one in models:
        if (one.name, one.revision) not in of_model:
            raise StatisticsError(
                f"The statistics are not of the model {one.name!r} given, or of other weights."
            )
        require_all_occurrences(of_model[one.name, one.revision])
        info = of_model[one.name, one.revision].info
        for what, digest in one.digests.items():
            if info["model"].get(what, digest) != digest:  # an older kit kept none
                raise StatisticsError(
                    f"The statistics of {one.name!r} are of another {what} than the model given."
                )
        convention = info.get("convention", {})
        defaults = {"by": "token", "long": "split"}
        how = {name: convention.get(name, default) for name, default in defaults.items()}
        how["parse_special"] = control_tokens_read(info)
        found.append(Concordance(one, corpus, **how))
    return found
