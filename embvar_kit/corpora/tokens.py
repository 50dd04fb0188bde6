"""Token strings, their markers, and which occurrences form one set ``X_t``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from embvar_kit.corpora.control_tokens import ControlTokens
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.offsets import OffsetCheck
from embvar_kit.errors import ExtractionError, NothingLeftError, first_line

GROUPINGS = {
    "token": "token strings without their markers, as in the paper: ##ing and ing are one token",
    "id": "entries of the vocabulary as they are: ##ing and ing are two tokens",
    "word": "words as in the paper's Appendix J: the mean of the embeddings of a word's tokens",
}
"""The values of ``by``, with a line on each."""

MARKERS = ("##", "Ġ", "▁")
"""Prefixes of token strings: "continues a word" (WordPiece), and "starts a word" (byte-level BPE
and SentencePiece)."""

SUFFIXES = ("</w>", "@@")
"""Their mirror image at the end of token strings: "ends a word" (CLIP, XLM, GPT-1) and "the word
goes on" (BERTweet, PhoBERT, CTRL)."""

_OF_PIECES = ("##", "@@")  # the others are on what is no mere piece of a word

_MARKER_SHARE = 0.05
"""Share of the vocabulary that begins or ends with a marker, from which on a tokenizer uses it."""

LONG = ("split", "cut", "error")
"""What can be done with sentences that are longer than the model takes."""

_CHUNK = 1000  # sentences tokenized at once


@dataclass(frozen=True)
class Grouping:
    """Which group each vocabulary entry belongs to.

    Attributes:
        by: ``"token"`` or ``"id"``.
        labels: ``(G,)`` name of each of the ``G`` groups.
        special: ``(G,)`` whether all of a group's entries are special tokens.
        group_of: ``(vocabulary,)`` group of each vocabulary id.
        markers: the prefixes and suffixes that were removed.
    """

    by: str
    labels: np.ndarray
    special: np.ndarray
    group_of: np.ndarray
    markers: tuple[str, ...]

    @property
    def shared(self) -> np.ndarray:
        """Labels that several vocabulary entries share, as ``ing`` and ``##ing`` do."""
        return self.labels[np.bincount(self.group_of, minlength=len(self.labels)) > 1]


@dataclass(frozen=True)
class TokenizedCorpus:
    """Sentences as sequences of token ids, one after another.

    Attributes:
        ids: ``(n,)`` int32 token ids, begin and end tokens included.
        starts: ``(S + 1,)`` where each of the ``S`` sequences starts in ``ids``, and ``n``.
        sentence: ``(S,)`` index of the corpus sentence that each sequence came from.
        n_split: number of sentences split because they were longer than the model takes.
        n_cut: number of sentences cut for the same reason.
        n_empty: number of sentences without any token; they have no sequence.
        spans: ``(n, 2)`` characters ``[start, end)`` of its sentence that each token stands for,
            -1 for begin and end tokens; ``None`` if they were not requested.
        parse_special: whether control tokens that the text spells out were read as such.
        spelled_out: how often the text spells out each control token, by its string.
        control: ``(C,)`` where the control tokens that the text spells out stand in ``ids``; empty
            if they were read as text.
    """

    ids: np.ndarray
    starts: np.ndarray
    sentence: np.ndarray
    n_split: int = 0
    n_cut: int = 0
    n_empty: int = 0
    spans: np.ndarray | None = None
    parse_special: bool = False
    spelled_out: Mapping[str, int] = field(default_factory=dict)
    control: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def n_spelled_out(self) -> int:
        """Number of control tokens that the text spells out."""
        return sum(self.spelled_out.values())

    @cached_property  # used for every batch of a pass
    def lengths(self) -> np.ndarray:
        """``(S,)`` number of tokens in each sequence."""
        return np.diff(self.starts)


def markers_of(tokenizer: Any) -> tuple[str, ...]:
    """The markers that a tokenizer uses: those that 5 % or more of its vocabulary have.

    Prefixes (:data:`MARKERS`) come first, then :data:`SUFFIXES`.
    """
    vocabulary = list(tokenizer.get_vocab())
    least = _MARKER_SHARE * len(vocabulary)
    return tuple(
        marker
        for marker in (*MARKERS, *SUFFIXES)
        if sum(_has(token, marker) for token in vocabulary) >= least
    )


def _has(token: str, marker: str) -> bool:
    return token.endswith(marker) if marker in SUFFIXES else token.startswith(marker)


def strip_marker(token: str, markers: tuple[str, ...]) -> str:
    """A token without its marker; a token that is nothing but markers stays.

    >>> [strip_marker(t, ("##",)) for t in ("##ing", "ing", "##")]
    ['ing', 'ing', '##']
    >>> [strip_marker(t, ("Ġ",)) for t in ("Ġthe", "Ġ", "ĠĠ")]  # two sets of blanks, not one
    ['the', 'Ġ', 'ĠĠ']
    >>> [strip_marker(t, ("</w>",)) for t in ("the</w>", "the", "</w>")]
    ['the', 'the', '</w>']
    """
    for marker in markers:
        if _has(token, marker) and token.replace(marker, ""):
            return token.removesuffix(marker) if marker in SUFFIXES else token[len(marker) :]
    return token


def word_pieces(tokenizer: Any, by: str = "token") -> dict[str, str]:
    """For each label of a vocabulary, whether its entries are whole words or pieces of words.

    The markers tell: ``##ing``, ``low@@`` and, where others carry ``Ġ``, ``▁`` or ``</w>``, entries
    without it are a ``"sub-word"``; all others can be a ``"whole word"`` (or the end of a longer
    one that is unmarked). Where ``ing`` and ``##ing`` share a label, it is ``"both"``. An entry
    says nothing of how often a text has it as a whole word. Special tokens are left out, and the
    result is empty where the vocabulary has no markers.

    Args:
        tokenizer: a transformers tokenizer.
        by: ``"token"`` or ``"id"``, see :data:`GROUPINGS`.
    """
    markers, special = markers_of(tokenizer), set(tokenizer.all_special_tokens)
    of_pieces = [marker for marker in markers if marker in _OF_PIECES]
    of_words = [marker for marker in markers if marker not in _OF_PIECES]
    if not markers:
        return {}
    found: dict[str, str] = {}
    for token in tokenizer.get_vocab():
        if token in special:
            continue
        label = strip_marker(token, markers) if by == "token" else token
        piece = any(_has(token, marker) for marker in of_pieces)
        piece |= bool(of_words) and not any(_has(token, marker) for marker in of_words)
        kind = "sub-word" if piece else "whole word"
        found[label] = kind if found.get(label, kind) == kind else "both"
    return found


def group_vocabulary(tokenizer: Any, by: str = "token") -> Grouping:
    """Group the vocabulary as the paper does, or entry by entry.

    Args:
        tokenizer: a transformers tokenizer.
        by: ``"token"`` or ``"id"``, see :data:`GROUPINGS`. Special tokens keep their whole strings.

    Raises:
        ExtractionError: if ``by`` is neither.
    """
    if by not in ("token", "id"):
        raise ExtractionError(f"by={by!r} cannot group a vocabulary; choose 'token' or 'id'.")
    # Every shard of a corpus asks for it. Tokens that are added make another vocabulary.
    known = _GROUPINGS.setdefault(tokenizer, {})
    key = by, len(tokenizer), *tokenizer.all_special_ids
    if key not in known:
        known[key] = _group_vocabulary(tokenizer, by)
    return known[key]


_GROUPINGS: WeakKeyDictionary[Any, dict[tuple, Grouping]] = WeakKeyDictionary()


def _group_vocabulary(tokenizer: Any, by: str) -> Grouping:
    size = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    strings = [f"[{i}]" if token is None else str(token) for i, token in enumerate(tokens)]
    special = np.zeros(size, dtype=bool)
    special[[i for i in tokenizer.all_special_ids if i < size]] = True
    markers = markers_of(tokenizer) if by == "token" else ()
    strings = [
        token if special[i] else strip_marker(token, markers) for i, token in enumerate(strings)
    ]
    labels, group_of = np.unique(np.array(strings, dtype=object), return_inverse=True)
    ordinary = np.bincount(group_of, weights=~special, minlength=len(labels))
    return Grouping(by, labels, ordinary == 0, group_of.astype(np.int64), markers)


def frequency_order(n: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """``(T,)`` indices that sort tokens by count, the largest first, and equal counts by string.

    Args:
        n: ``(T,)`` counts.
        tokens: ``(T,)`` token strings.

    >>> frequency_order(np.array([2, 5, 2]), np.array(["b", "the", "a"], dtype=object)).tolist()
    [1, 2, 0]
    """
    return np.array(sorted(range(len(n)), key=lambda i: (-n[i], tokens[i])), dtype=np.int64)


def tokenize(
    tokenizer: Any,
    corpus: Corpus,
    *,
    begin: Sequence[int] = (),
    end: Sequence[int] = (),
    max_tokens: int | None = None,
    long: str = "split",
    spans: bool = False,
    parse_special: bool = False,
    nothing: bool = False,
) -> TokenizedCorpus:
    """Turn sentences into sequences of token ids, each with its begin and end tokens.

    Args:
        tokenizer: a transformers tokenizer.
        corpus: the sentences.
        begin, end: ids to put before and after each sequence.
        max_tokens: length of the longest sequence allowed, begin and end included; ``None`` for
            any length.
        long: what to do with longer sentences: ``"split"`` them into several sequences, ``"cut"``
            them, or raise an ``"error"``.
        spans: also record the characters that each token stands for.
        parse_special: read control tokens that the text spells out, such as ``[SEP]``, as control
            tokens; otherwise they are text.
        nothing: give a text without tokens where no sentence has one.

    Raises:
        ExtractionError: if a sentence is too long and ``long="error"``, ``max_tokens`` leaves no
            room for a token, no sentence has a token, a sentence is not valid Unicode, the
            tokenizer does not know spans or gives wrong ones, or it cannot read a control token as
            text.
    """
    if long not in LONG:
        raise ExtractionError(f"long={long!r} is unknown; choose 'split', 'cut' or 'error'.")
    before, after = list(begin), list(end)
    room = None if max_tokens is None else max_tokens - len(before) - len(after)
    if room is not None and room < 1:
        raise ExtractionError(f"max_tokens={max_tokens} leaves no room for a token.")
    if spans and not tokenizer.is_fast:
        raise ExtractionError(
            f"{type(tokenizer).__name__} does not tell which characters a token stands for, and "
            "by='word' needs that. Load the model with its fast tokenizer (tokenizer.json)."
        )
    ids: list[np.ndarray] = []
    sentence: list[int] = []
    places: list[np.ndarray] = []
    control: list[int] = []
    spelled_out: Counter[int] = Counter()
    n_split = n_cut = n_empty = n_ids = 0
    readings = _readings(tokenizer, corpus, spans, parse_special)
    for index, (tokens, offsets, spelled, at_control) in enumerate(readings):
        spelled_out += spelled
        if not tokens:
            n_empty += 1
            continue
        size = len(tokens) if room is None else room
        pieces = [slice(at, at + size) for at in range(0, len(tokens), size)]
        if len(pieces) > 1:
            if long == "error":
                raise ExtractionError(
                    f"A sentence of {len(tokens):,} tokens ({corpus.where(index)}) is longer than "
                    f"the {room:,} that the model takes. Pass long='split' or long='cut'."
                )
            if long == "cut":
                pieces = pieces[:1]
                n_cut += 1
            else:
                n_split += 1
        for piece in pieces:
            ids.append(np.array([*before, *tokens[piece], *after], dtype=np.int32))
            sentence.append(index)
            first = n_ids + len(before) - piece.start
            control += [first + at for at in at_control if piece.start <= at < piece.stop]
            n_ids += len(ids[-1])
            if spans:
                around_them = ((len(before), len(after)), (0, 0))
                own = np.array(offsets[piece], dtype=np.int32)
                places.append(np.pad(own, around_them, constant_values=-1))
    if not ids and not nothing:
        raise NothingLeftError(f"Nothing of corpus {corpus.name!r} is left after tokenization.")
    starts = np.cumsum([0, *(len(i) for i in ids)])
    return TokenizedCorpus(
        np.concatenate([np.zeros(0, dtype=np.int32), *ids]),
        starts,
        np.array(sentence, dtype=np.int64),
        n_split,
        n_cut,
        n_empty,
        np.concatenate([np.zeros((0, 2), dtype=np.int32), *places]) if spans else None,
        parse_special,
        {tokenizer.convert_ids_to_tokens(i): n for i, n in spelled_out.most_common()},
        np.array(control, dtype=np.int64),
    )


class _Reading(NamedTuple):
    """A sentence's token ids and their spans (empty if they are not requested); how often it spells
    out each control token, and where in ``ids`` these are, if they were read as control tokens."""

    ids: list[int]
    spans: list[tuple[int, int]]
    spelled_out: Counter[int]
    control: list[int]


_NOTHING: Counter[int] = Counter()


def _readings(
    tokenizer: Any, corpus: Corpus, spans: bool, parse_special: bool
) -> Iterator[_Reading]:
    """The reading of each sentence."""
    options = {
        "add_special_tokens": False,
        "truncation": False,
        "padding": False,
        "return_attention_mask": False,
        "return_offsets_mapping": spans,
        "verbose": False,
    }
    # Some tokenizers are saved so that they read control tokens as text.
    own = {"split_special_tokens": False} if getattr(tokenizer, "split_special_tokens", 0) else {}
    control, offsets = ControlTokens(tokenizer), OffsetCheck(tokenizer)
    for first in range(0, len(corpus), _CHUNK):
        sentences = list(corpus.sentences[first : first + _CHUNK])
        try:
            encoded = tokenizer(sentences, **options, **own)
        except Exception as error:  # a tokenizer may bring code of its own
            raise _unreadable(tokenizer, corpus, first, sentences, error) from error
        all_spans = encoded["offset_mapping"] if spans else repeat([])
        read = zip(sentences, encoded["input_ids"], all_spans, strict=spans)
        for index, (sentence, ids, places) in enumerate(read, start=first):
            spelled = control.spelled_out(ids, sentence)
            if not spelled:
                reading = _Reading(ids, places, _NOTHING, [])
            elif parse_special:
                reading = _Reading(ids, places, spelled, control.places(ids, places, sentence))
            else:
                again = control.as_text(ids, sentence, corpus.where(index), **options)
                reading = _Reading(*again, spelled, [])
            if spans and offsets.finds_fault(reading.ids, reading.spans, sentence):
                raise ExtractionError(
                    f"{type(tokenizer).__name__} drops characters that its vocabulary lacks, and "
                    f"then tells the wrong characters of tokens ({corpus.where(index)}): by='word' "
                    "needs the right ones. Take such characters out of the text, or use by='token'."
                )
            yield reading


def _unreadable(
    tokenizer: Any, corpus: Corpus, first: int, sentences: list[str], error: Exception
) -> ExtractionError:
    """The error for sentences, from number ``first`` on, that a tokenizer fails at."""
    for index, sentence in enumerate(sentences, start=first):
        if not _is_text(sentence):
            return ExtractionError(
                f"A sentence is not valid Unicode text ({corpus.where(index)}): it "
                "contains half a surrogate pair. Read its source again as UTF-8."
            )
    return ExtractionError(
        f"{type(tokenizer).__name__} fails at one of the sentences from {corpus.where(first)} to "
        f"{corpus.where(first + len(sentences) - 1)}: {first_line(error)}. Take out what it cannot "
        "read, or save the model with a fast tokenizer (tokenizer.json)."
    )


def _is_text(sentence: str) -> bool:
    try:
        sentence.encode()
    except UnicodeError:
        return False
    return True
