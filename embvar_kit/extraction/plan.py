"""The plan of a pass, made before the model runs: tokens, counts, batches and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.dealing import deal_sentences, documents_of, documents_of_groups
from embvar_kit.corpora.tokens import (
    TokenizedCorpus,
    frequency_order,
    group_vocabulary,
    tokenize,
)
from embvar_kit.corpora.words import find_words
from embvar_kit.errors import ExtractionError, NothingLeftError
from embvar_kit.extraction.in_folds import InFolds, by_fold, check_documents
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.options import (
    check_leave_out,
    check_no_names,
    check_options,
    chosen_layers,
    whole_number,
)
from embvar_kit.extraction.plan_text import described
from embvar_kit.models.around import unusual
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments import memory

BATCH_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 32768}
"""Tokens per batch, padding included, by kind of device. A CPU is fastest while the hidden states
of a batch fit into its caches; an accelerator needs large batches to be busy."""

MAX_PADDING = 0.03
"""Largest share of a batch that may be padding; the next sequence beyond it begins a new batch."""

BATCH_PRICE = 64
"""Tokens of padding that any batch may have: starting another one takes about as long as these. So
a small text, or a small part of a large one, is not cut into many batches of a few sentences."""

NULL_SEED = 0
"""Seed of the permutation of labels in the null."""


@dataclass(frozen=True)
class Plan:
    """What a pass is going to do.

    Attributes:
        model, corpus: names of the model and the corpus.
        by: what forms a group: ``"token"``, ``"id"`` or ``"word"``.
        text: the tokenized sentences.
        batches: the sequences of each batch, the longest first.
        labels: ``(T,)`` the groups seen, tokens or words, the most frequent first.
        special: ``(T,)`` whether all vocabulary entries of a group are special tokens.
        n: ``(T,)`` the number of occurrences of each group.
        group: ``(K,)`` index in ``labels`` of each occurrence: of each token of the text, or of
            each word.
        word: ``(n,)`` the occurrence that each token is part of, -1 for none; ``None`` where each
            token is an occurrence of its own.
        subwords: ``(T,)`` mean number of tokens in the occurrences of a word; else ``None``.
        markers: the prefixes and suffixes that were removed from the tokens.
        layers: the hidden states taken.
        width: ``d``, the length of an embedding.
        batch_tokens: tokens per batch, padding included.
        long: what was done with sentences longer than the model takes.
        min_count: groups with fewer occurrences are left out; their ``group`` is -1.
        without_text: rows of the corpus's table that are left out, because no text is in them.
        equal_lengths: whether a batch holds sentences of one length only, because the model does
            not ignore padding.
        alone: whether each sentence is a batch of its own, because the model's states depend on
            the others.
        sites: number of places in the model where embeddings are taken.
        means_in: where the means are kept: ``"memory"``, a ``"file"`` or the ``"device"``.
        n_spanned: occurrences of words left out, because a token spans them and another word.
        around: what stands around each sentence, if it is more than a begin and an end token.
        notes: what was done otherwise than the model's files say, a line each.
        n_begin: number of begin tokens in front of each sequence.
        document: ``(S,)`` the document of each sequence, numbered as :func:`documents_of` does.
        leave_out: which occurrences are left out, if any are; their ``group`` is -1. Those of high
            norm are known only after the pass (:meth:`without`).
        n_at_first: number of occurrences left out because of their position.
        n_of_high_norm: number of those left out because of their norm.
        counts: by name, ``(T,)`` other counts of each group that add up over parts of a corpus:
            ``documents`` and ``document_squares`` of :func:`documents_of_groups`, ``begin`` and
            ``first`` of :attr:`in_front`.
        null: the same pass with the labels of the occurrences permuted, to be measured beside it;
            or ``None``.
        covariance: whether the d x d covariance of all embeddings is taken at each layer.
        in_folds: the same pass by folds of the documents, to be measured beside it; or ``None``.
    """

    model: str
    corpus: str
    by: str
    text: TokenizedCorpus
    batches: list[np.ndarray]
    labels: np.ndarray
    special: np.ndarray
    n: np.ndarray
    group: np.ndarray
    word: np.ndarray | None
    subwords: np.ndarray | None
    markers: tuple[str, ...]
    layers: tuple[int, ...]
    width: int
    batch_tokens: int
    long: str
    min_count: int = 1
    without_text: int = 0
    equal_lengths: bool = False
    alone: bool = False
    sites: int = 1
    means_in: str = "memory"
    n_spanned: int = 0
    around: str = ""
    notes: tuple[str, ...] = ()
    n_begin: int = 0
    document: np.ndarray | None = None
    leave_out: LeaveOut | None = None
    n_at_first: int = 0
    n_of_high_norm: int = 0
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    null: Plan | None = None
    covariance: bool = False
    in_folds: InFolds | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens to be run, begin and end tokens included."""
        return len(self.text.ids)

    @cached_property
    def first_token(self) -> np.ndarray:
        """``(K,)`` Index in the text's ids of the token that each occurrence is or begins with."""
        return _first_tokens(self.text, self.word, len(self.group))

    @cached_property
    def sequence(self) -> np.ndarray:
        """``(K,)`` Index of the sequence that each occurrence stands in."""
        return _sequences(self.text, self.first_token)

    @property
    def position(self) -> np.ndarray:
        """``(K,)`` Position of each occurrence in its sequence, 0 for the first begin token."""
        return _positions(self.text, self.first_token)

    def groups_of(self, tokens: Sequence[str]) -> list[int]:
        """The groups of these tokens or words, as indices in :attr:`labels`.

        Raises:
            ExtractionError: if one of them does not occur.
        """
        group_of = {str(label): group for group, label in enumerate(self.labels)}
        if absent := [token for token in tokens if token not in group_of]:
            raise ExtractionError(
                f"Corpus {self.corpus!r} does not contain {', '.join(map(repr, absent))}."
            )
        return [group_of[token] for token in tokens]

    def batches_with(self, chosen: np.ndarray) -> list[np.ndarray]:
        """The sequences that hold some occurrences, in their batches.

        Args:
            chosen: ``(K,)`` whether an occurrence is one of them.
        """
        needed = np.zeros(len(self.text.lengths), dtype=bool)
        needed[self.sequence[chosen]] = True
        return [kept for batch in self.batches if len(kept := batch[needed[batch]])]

    @property
    def in_front(self) -> dict[str, np.ndarray]:
        """``(T,)`` int64 occurrences of each group at the front of a sequence, in two counts.

        ``begin`` counts those at the positions of the model's begin tokens, ``first`` those that
        are, or begin with, the token behind them: the first one of the text, or of a piece of a
        sentence that was split. The position decides, so that an end token is not counted where
        begin and end are the same token, as in GPT-2. Without begin tokens ``begin`` is 0.
        """
        measured, position = self.group >= 0, self.position
        places = {"begin": position < self.n_begin, "first": position == self.n_begin}
        return {
            name: np.bincount(self.group[chosen & measured], minlength=len(self.labels))
            for name, chosen in places.items()
        }

    def without(self, left_out: np.ndarray) -> Plan:
        """The plan as it was carried out, without some occurrences.

        Args:
            left_out: ``(K,)`` whether an occurrence was left out during the pass.

        Returns:
            The plan, its groups numbered as before; some may have no occurrence left.
        """
        out = left_out.astype(bool) & (self.group >= 0)
        group = np.where(out, -1, self.group)
        n = np.bincount(group[group >= 0], minlength=len(self.labels))
        subwords = None if self.word is None else _subwords(self.word, group, len(self.labels))
        changed = {"group": group, "n": n, "subwords": subwords}
        changed["n_of_high_norm"] = self.n_of_high_norm + int(out.sum())
        changed["null"] = self.null.without(left_out) if self.null else None
        if self.in_folds:
            changed["in_folds"] = self.in_folds.without(left_out)
        after = replace(self, **changed)
        return replace(after, counts=_counts(after)) if self.counts else after

    @property
    def padding(self) -> float:
        """Share of all batches that is padding."""
        return 1 - self.n_tokens / sum(self.slots)

    @property
    def memory(self) -> int:
        """Bytes that the means of all layers and sites will take, with null and folds."""
        elements = len(self.labels) * len(self.layers) * self.width * self.sites
        own = elements * memory.BYTES_PER_ELEMENT
        beside = (self.null, self.in_folds and self.in_folds.work)
        return own + sum(one.memory for one in beside if one)

    @property
    def covariance_memory(self) -> int:
        """Bytes that the covariances of all layers and sites will take; 0 if none are taken."""
        return 8 * self.width**2 * len(self.layers) * self.sites * self.covariance

    @property
    def slots(self) -> list[int]:
        """Number of tokens in each batch, padding included."""
        lengths = self.text.lengths
        return [len(batch) * int(lengths[batch].max()) for batch in self.batches]

    def __str__(self) -> str:
        return described(self)


def plan(
    model: EmbeddingModel,
    corpus: Corpus,
    *,
    by: str = "token",
    layers: Iterable[int] | None = None,
    batch_tokens: int | None = None,
    long: str = "split",
    min_count: int = 1,
    parse_special: bool = False,
    sites: int = 1,
    leave_out: LeaveOut | None = None,
    null: bool = False,
    folds: int | None = None,
    covariance: bool = False,
    only: pd.Index | None = None,
    document: np.ndarray | None = None,
) -> Plan:
    """Tokenize a corpus and plan a pass over it; the model is not run.

    Args:
        model, corpus, by, layers, batch_tokens, long, min_count: as in :func:`embvar_kit.extract`.
        parse_special, null, folds, covariance: as there.
        sites: number of places in the model where embeddings will be taken.
        leave_out: which occurrences are left out. A factor ``norm`` needs the model, which is not
            run here: have :func:`embvar_kit.find_bounds` find the bounds that it stands for.
        only: the groups to measure, for a part of a corpus: those of the whole that are frequent
            enough. Here ``min_count`` only tells of it. A part in which none of them occurs has a
            plan without batches, which counts its text all the same.
        document: ``(N,)`` the document of each sentence, for a part of a corpus, which cannot tell
            whether a single title is an article or a list of sentences; by default that of
            :func:`documents_of`.

    Raises:
        ExtractionError: if an argument makes no sense, ``leave_out`` names hidden states that are
            not taken, a sentence is too long and ``long="error"``, the tokenizer cannot read what
            the text spells out as asked for, tokenizer and model do not belong together, or nothing
            is to be measured in some fold.
        CorpusError: if there are fewer documents than folds.
    """
    check_no_names(model, corpus)
    layers = chosen_layers(model, layers)
    batch_tokens, min_count = check_options(by, batch_tokens, long, min_count)
    if batch_tokens is None:
        batch_tokens = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
    check_leave_out(leave_out, layers, null=null and only is None)  # once for all shards
    text = tokenize(
        model.tokenizer,
        corpus,
        begin=model.begin,
        end=model.end,
        max_tokens=model.max_tokens,
        long=long,
        spans=by == "word",
        parse_special=parse_special,
        nothing=only is not None,
    )
    _check_ids(text, model)
    found = _grouped(text, model, corpus, by, nothing=only is not None)
    labels, group, word = found.labels, found.group, found.word
    n_at_first = 0
    if leave_out is not None and leave_out.first:
        at_first = _positions(text, _first_tokens(text, word, len(group))) < leave_out.first
        group, n_at_first = np.where(at_first, -1, group), int(at_first.sum())
    n = np.bincount(group[group >= 0], minlength=len(labels))
    wanted = n >= min_count if only is None else (n > 0) & (only.get_indexer(labels) >= 0)
    seen = np.flatnonzero(wanted)
    if not len(seen) and only is None:
        where = f", its first {leave_out.first} positions left out" if n_at_first else ""
        raise NothingLeftError(
            f"No {by} of corpus {corpus.name!r} occurs {min_count} times or more{where}: take a "
            "lower min_count, or more text."
        )
    seen = seen[frequency_order(n[seen], labels[seen])]
    rank = np.full(len(labels) + 1, -1)  # the last one for occurrences left out, whose group is -1
    rank[seen] = np.arange(len(seen))
    group = rank[group]
    most = batch_tokens if model.shares_batches else 1
    batches = _batches(text.lengths, most, equal=not model.ignores_padding) if len(seen) else ()
    work = Plan(
        model=model.name,
        corpus=corpus.name,
        without_text=corpus.without_text,
        by=by,
        text=text,
        batches=list(batches),
        equal_lengths=not model.ignores_padding,
        alone=not model.shares_batches,
        labels=labels[seen],
        special=found.special[seen],
        n=n[seen],
        group=group,
        word=word,
        subwords=None if word is None else _subwords(word, group, len(seen)),
        markers=found.markers,
        layers=layers,
        width=model.width,
        batch_tokens=batch_tokens,
        long=long,
        min_count=min_count,
        n_spanned=found.n_spanned,
        around=unusual(model.tokenizer, model.begin, model.end),
        notes=model.notes,
        n_begin=len(model.begin),
        document=(documents_of(corpus) if document is None else document)[text.sentence],
        leave_out=leave_out,
        n_at_first=n_at_first,
        covariance=covariance,
    )
    work = replace(work, counts=_counts(work))
    if null:
        kept = group >= 0
        shuffled = np.random.default_rng(NULL_SEED).permutation(group[kept])
        work = with_null(work, shuffled, work.labels, work.special)
    if folds is not None:
        folds = whole_number("folds", folds, 2)
        check_documents(corpus, folds)
        fold = deal_sentences(corpus, folds)[text.sentence]
        work = replace(work, in_folds=by_fold(work, folds, fold))
    return at_sites(work, sites, model)


def _check_ids(text: TokenizedCorpus, model: EmbeddingModel) -> None:
    """Refuse the ids of another model's tokenizer, for which this one has no embeddings."""
    rows = model.vocabulary_rows
    if rows is not None and (largest := int(text.ids.max(initial=0))) >= rows:
        raise ExtractionError(
            f"The tokenizer of {model.name!r} gives id {largest}, and the model has embeddings for "
            f"0 to {rows - 1} only: the two do not belong together."
        )


class _Grouped(NamedTuple):
    """The occurrences of a text and all groups that they may be in, as :class:`Plan` tells them."""

    labels: np.ndarray
    special: np.ndarray
    group: np.ndarray
    word: np.ndarray | None = None
    markers: tuple[str, ...] = ()
    n_spanned: int = 0


def _grouped(
    text: TokenizedCorpus, model: EmbeddingModel, corpus: Corpus, by: str, *, nothing: bool
) -> _Grouped:
    """The occurrences of a text; ``nothing`` allows that there are none."""
    if by == "word":
        words = find_words(corpus, text, nothing=nothing)
        special = np.zeros(len(words.labels), dtype=bool)
        return _Grouped(words.labels, special, words.group, words.word, (), words.n_spanned)
    vocabulary = group_vocabulary(model.tokenizer, by)
    group = vocabulary.group_of[text.ids]
    return _Grouped(vocabulary.labels, vocabulary.special, group, markers=vocabulary.markers)


def _counts(work: Plan) -> dict[str, np.ndarray]:
    """Further counts of each group of a plan."""
    spread = documents_of_groups(work.group, work.document[work.sequence], len(work.labels))
    documents = dict(zip(("documents", "document_squares"), spread, strict=True))
    return documents | work.in_front


def with_null(work: Plan, shuffled: np.ndarray, labels: np.ndarray, special: np.ndarray) -> Plan:
    """A plan whose null gives the measured occurrences other labels.

    Args:
        work: the plan.
        shuffled: for each occurrence that ``work`` measures, in order, the group that it is counted
            to, as an index in ``labels``; each of these occurs.
        labels, special: the groups of the null.
    """
    group = np.full(len(work.group), -1)
    group[work.group >= 0] = shuffled
    null = replace(
        work,
        group=group,
        labels=labels,
        special=special,
        n=np.bincount(shuffled, minlength=len(labels)),
        subwords=None if work.word is None else _subwords(work.word, group, len(labels)),
        counts={},
        covariance=False,
    )
    return replace(work, null=replace(null, counts=_counts(null)))


def _first_tokens(text: TokenizedCorpus, word: np.ndarray | None, number: int) -> np.ndarray:
    """``(K,)`` where each of a number of occurrences begins in the text's ids."""
    if word is None:
        return np.arange(len(text.ids))
    first = np.unique(word, return_index=True)[1]
    return first[len(first) - number :]  # without the -1 of tokens that are in no word


def _sequences(text: TokenizedCorpus, at: np.ndarray) -> np.ndarray:
    """The sequences that tokens stand in, which are given by where they stand in the text's ids."""
    return np.searchsorted(text.starts, at, side="right") - 1


def _positions(text: TokenizedCorpus, at: np.ndarray) -> np.ndarray:
    """The positions of tokens in their sequences."""
    return at - text.starts[_sequences(text, at)]


def _subwords(word: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """``(T,)`` mean number of tokens in the occurrences of each group; NaN where it has none."""
    parts = np.bincount(word[word >= 0], minlength=len(group))
    kept = group >= 0
    n = np.bincount(group[kept], minlength=n_groups)
    total = np.bincount(group[kept], weights=parts[kept], minlength=n_groups)
    return np.divide(total, n, out=np.full(n_groups, np.nan), where=n > 0)


def at_sites(work: Plan, sites: int, model: EmbeddingModel) -> Plan:
    """The plan of the same pass at this number of sites, its means kept where there is room."""
    work = _on_all(work, sites=sites)
    fits = memory.fit_into_memory(work.memory)
    place = "memory" if fits else "file"
    if model.device.type not in memory.HOST_MOMENTS:
        import torch

        cuda = model.device.type == "cuda" and torch.cuda.is_available()
        own = Counter(model.place(layer) for layer in work.layers)
        room = all(
            memory.fit_onto_device(
                work.memory * number // len(work.layers), torch.cuda.mem_get_info(device)[0]
            )
            for device, number in (own.items() if cuda else ())
        )
        # A pass on a device copies its means to the host at its end.
        if fits and room:
            place = "device"
    return _on_all(work, means_in=place)


def _on_all(work: Plan, **changed: Any) -> Plan:
    """A plan, its null and its folds with other attributes."""
    beside: dict[str, Any] = {}
    if work.null:
        beside["null"] = replace(work.null, **changed)
    if work.in_folds:
        of_entries = replace(work.in_folds.work, **changed)
        beside["in_folds"] = replace(work.in_folds, work=of_entries)
    return replace(work, **changed, **beside)


def _batches(
    lengths: np.ndarray, batch_tokens: int, *, equal: bool = False
) -> Iterator[np.ndarray]:
    """Batches of sequences of similar length, the longest first: too large a pass fails at once."""
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        longest = int(lengths[order[at]])
        most = lengths[order[at : at + max(1, batch_tokens // longest)]]
        slots = longest * np.arange(1, len(most) + 1)
        allowed = np.zeros(1) if equal else np.maximum(MAX_PADDING * slots, BATCH_PRICE)
        beyond = slots - np.cumsum(most) > allowed
        size = int(np.argmax(beyond)) if beyond.any() else len(most)
        yield order[at : at + size]
        at += size
