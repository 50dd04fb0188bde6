"""Where a token occurs: its occurrences in context, its neighbours, its embeddings.

Nothing is run through the model but the sentences of the occurrences asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.tokens import tokenize
from embvar_kit.errors import ExtractionError, StatisticsError
from embvar_kit.extraction.embeddings import Occurrences, collect_embeddings
from embvar_kit.extraction.plan import Plan, plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.statistics.token_statistics import TokenStatistics

_AROUND = 70  # characters of context on each side


@dataclass(frozen=True)
class Context:
    """One occurrence of a token, as it is read.

    Attributes:
        left, keyword, right: the sentence around it, cut to some seventy characters a side.
        before, after: the neighbouring tokens (or words), as the statistics call them; ``None`` at
            the edges of what the model was given.
        where: the source, as :meth:`embvar_kit.corpora.corpus.Corpus.where` says it.
        link: its address, where the corpus has one: of the offline excerpt, the article's.
    """

    left: str
    keyword: str
    right: str
    before: str | None
    after: str | None
    where: str
    link: str | None


@dataclass(frozen=True)
class Concordance:
    """The occurrences of each token of a corpus.

    Attributes:
        model: whose tokenizer says what a token is.
        corpus: the sentences.
        by: what forms a group, ``"token"``, ``"id"`` or ``"word"``.
        long: what is done with sentences longer than the model takes.
    """

    model: EmbeddingModel
    corpus: Corpus
    by: str = "token"
    long: str = "split"

    @cached_property
    def work(self) -> Plan:
        """The tokenized corpus: made at the first use, which takes a few seconds."""
        return self._plan(self.corpus)

    def count(self, token: str) -> int:
        """How often a token occurs in this corpus; 0 if never."""
        at = self._index.get(token)
        return 0 if at is None else int(self.work.n[at])

    def find(self, token: str, *, most: int = 60, seed: int = 0) -> Occurrences:
        """Occurrences of a token with their embeddings at each layer, in the corpus' order.

        Args:
            token: as the statistics call it.
            most: of one that occurs more often, draw so many, or a few more: a sentence that is
                drawn gives all it has.
            seed: of that draw.

        Raises:
            ExtractionError: if the token does not occur.
        """
        at = self._index.get(token)
        if at is None:
            raise ExtractionError(f"{token!r} does not occur in corpus {self.corpus.name!r}.")
        own = np.flatnonzero(self.work.group == at)
        if len(own) > most:
            own = np.random.default_rng(seed).choice(own, most, replace=False)
        sentences = np.unique(self._sentence_of[own])
        how = {"by": self.by, "long": self.long}
        found = collect_embeddings(self.model, self._part(sentences), [token], **how)[token]
        return Occurrences(
            found.token, found.layers, found.x, sentences[found.sentence], found.position
        )

    def contexts(self, occurrences: Occurrences) -> list[Context]:
        """What stands around occurrences that :meth:`find` gave, in their order."""
        sentences = np.unique(occurrences.sentence)
        part = self._part(sentences)
        work, spans = self._plan(part), self._spans(part)
        text, token_of = work.text, np.arange(len(work.text.ids))
        if work.word is not None:  # the first token of each word
            token_of = np.unique(work.word, return_index=True)[1][-len(work.group) :]
        sequence_of = np.searchsorted(text.starts, token_of, side="right") - 1
        place = {
            (int(text.sentence[sequence]), int(token - text.starts[sequence])): at
            for at, (token, sequence) in enumerate(zip(token_of, sequence_of, strict=True))
            if work.labels[work.group[at]] == occurrences.token
        }
        row = {int(sentence): at for at, sentence in enumerate(sentences)}
        contexts = []
        for sentence, position in zip(occurrences.sentence, occurrences.position, strict=True):
            at = place[row[int(sentence)], int(position)]
            near = [
                str(work.labels[work.group[i]])
                if 0 <= i < len(work.group) and sequence_of[i] == sequence_of[at]
                else None
                for i in (at - 1, at + 1)
            ]
            shown = self._shown(work, spans, token_of[at], at, str(self.corpus[int(sentence)]))
            where = self.corpus.where(int(sentence))
            link = source_link(self.corpus, int(sentence))
            contexts.append(Context(*shown, *near, where, link))
        return contexts

    def _shown(
        self, work: Plan, spans: np.ndarray | None, token: int, at: int, sentence: str
    ) -> tuple[str, str, str]:
        last = token
        if work.word is not None:
            last = int(np.flatnonzero(work.word == at)[-1])
        if spans is None:  # a tokenizer that does not say where its tokens stand
            sequence = np.searchsorted(work.text.starts, token, side="right") - 1
            start, end = work.text.starts[[sequence, sequence + 1]]
            decode = self.model.tokenizer.decode
            parts = (slice(start, token), slice(token, last + 1), slice(last + 1, end))
            left, keyword, right = (decode(work.text.ids[part].tolist()) for part in parts)
        elif spans[token, 0] < 0:  # a begin or end token, which stands for no characters
            first = token in work.text.starts
            keyword = str(work.labels[work.group[at]])
            left, right = ("", sentence) if first else (sentence, "")
        else:
            begin, end = int(spans[token, 0]), int(spans[last, 1])
            left, keyword, right = sentence[:begin], sentence[begin:end], sentence[end:]
        left = left if len(left) <= _AROUND else "…" + left[-_AROUND:]
        right = right if len(right) <= _AROUND else right[:_AROUND] + "…"
        return left, keyword, right

    def _spans(self, corpus: Corpus) -> np.ndarray | None:
        model = self.model
        if not model.tokenizer.is_fast:
            return None
        around = {"begin": model.begin, "end": model.end, "max_tokens": model.max_tokens}
        return tokenize(model.tokenizer, corpus, **around, long=self.long, spans=True).spans

    def _plan(self, corpus: Corpus) -> Plan:
        return plan(self.model, corpus, by=self.by, long=self.long)

    def _part(self, sentences: Sequence[int]) -> Corpus:
        of = self.corpus
        return Corpus(
            of.name,
            [of.sentences[i] for i in sentences],
            [of.titles[i] for i in sentences],
            of.positions[sentences],
            of.unit,
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {str(label): at for at, label in enumerate(self.work.labels)}

    @cached_property
    def _sentence_of(self) -> np.ndarray:
        """``(K,)`` the sentence of each occurrence."""
        text, work = self.work.text, self.work
        token = np.arange(len(text.ids))
        if work.word is not None:
            token = np.unique(work.word, return_index=True)[1][-len(work.group) :]
        return text.sentence[np.searchsorted(text.starts, token, side="right") - 1]


def source_link(corpus: Corpus, sentence: int) -> str | None:
    """The address of a sentence's source, or ``None``: of the offline excerpt, its article's.

    Today's article may read otherwise: the excerpt is of a dump years old.
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
    """One for each model given, grouping occurrences as its statistics do.

    Raises:
        StatisticsError: if a model is none of the statistics', or one of model and corpus lacks.
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
        convention = of_model[one.name, one.revision].info.get("convention", {})
        how = (convention.get("by", "token"), convention.get("long", "split"))
        found.append(Concordance(one, corpus, *how))
    return found
