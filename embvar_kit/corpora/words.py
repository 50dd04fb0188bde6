"""Words: which sub-word tokens form a word, by the tokenizer's own offsets.

The words are those of the paper's Appendix J: gensim's ``simple_preprocess`` (alphabetic, lower
case, 2 to 15 characters). The model reads the sentence itself, with its case and punctuation; a
token is part of the word that it shares characters with. Token strings are not looked at, so
WordPiece, byte-level BPE and SentencePiece are treated alike.

A token may span two words or more: a piece that crosses a blank, or an unknown token for a stretch
of text that gensim cuts at its combining marks. It has one embedding and belongs to each of them,
so that none has a mean of its own tokens. Such words are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.tokens import TokenizedCorpus
from embvar_kit.errors import NothingLeftError

MIN_LENGTH, MAX_LENGTH = 2, 15
"""Number of characters of a word: the paper's ``min_len`` and gensim's default ``max_len``."""


@dataclass(frozen=True)
class Words:
    """The words of a tokenized corpus.

    Attributes:
        labels: ``(W,)`` distinct words.
        word: ``(n,)`` for each token, the occurrence of a word that it is part of, counted from 0;
            -1 if it is part of none.
        group: ``(K,)`` for each occurrence of a word, its index in ``labels``.
        n_spanned: number of occurrences left out, because a token spans them and another word.
    """

    labels: np.ndarray
    word: np.ndarray
    group: np.ndarray
    n_spanned: int = 0


def words_of(sentence: str) -> list[tuple[str, int, int]]:
    """The words of a sentence as ``(word, start, end)``, with the characters ``[start, end)``.

    >>> words_of("Don't panic, 42 times!")
    [('don', 0, 3), ('panic', 6, 11), ('times', 16, 21)]
    """
    from gensim.utils import PAT_ALPHABETIC

    lower = sentence.lower()
    # Lower case turns "İ" into two characters: positions are then mapped back to the sentence.
    back = None
    if len(lower) != len(sentence):
        back = [at for at, char in enumerate(sentence) for _ in char.lower()]
    found = []
    for match in PAT_ALPHABETIC.finditer(lower):
        word, (start, end) = match.group(), match.span()
        if MIN_LENGTH <= len(word) <= MAX_LENGTH and not word.startswith("_"):
            if back is not None:
                start, end = back[start], back[end - 1] + 1
            found.append((word, start, end))
    return found


def find_words(corpus: Corpus, text: TokenizedCorpus, *, nothing: bool = False) -> Words:
    """Assign tokens to words.

    Words that the model's sequence limit cuts in two are left out, as are words without a token,
    and words that share a token. A control token that the text spells out, if it was read as such,
    is part of no word.

    Args:
        corpus: the sentences.
        text: their tokens, with spans.
        nothing: give no words where there are none.

    Raises:
        NothingLeftError: if no word is left.
    """
    word = np.full(len(text.ids), -1, dtype=np.int64)
    index: dict[str, int] = {}
    group: list[int] = []
    n_spanned = 0
    for sentence, first, last in _sentences(text):
        spans = text.spans[first:last]
        sequence = np.searchsorted(text.starts, np.arange(first, last), side="right")
        words = words_of(corpus.sentences[sentence])
        if not words:
            continue
        starts, ends = (np.array([part[i] for part in words]) for i in (1, 2))
        # A token can only begin in the first word that ends behind the token's start.
        own = np.searchsorted(ends, spans[:, 0], side="right")
        inside = (spans[:, 0] >= 0) & (own < len(words))
        inside[inside] = starts[own[inside]] < spans[inside, 1]
        inside &= spans[:, 0] < spans[:, 1]
        inside[text.control[slice(*np.searchsorted(text.control, (first, last)))] - first] = False
        tokens = np.flatnonzero(inside)
        if not len(tokens):
            continue
        present, at, of_token = np.unique(own[tokens], return_index=True, return_inverse=True)
        until = np.append(at[1:], len(tokens)) - 1
        whole = sequence[tokens[at]] == sequence[tokens[until]]
        reach = spans[:, 1].max()  # less than a word's end if the sentence was cut in the word
        whole &= (ends[present] <= reach) | (starts[present] >= reach)
        spanned = _spanned(own[tokens], spans[tokens, 1], starts)
        whole &= ~spanned[present]
        n_spanned += int(spanned.sum())
        number = np.where(whole, len(group) + np.cumsum(whole) - 1, -1)
        word[first + tokens] = number[of_token]
        group += [index.setdefault(words[i][0], len(index)) for i in present[whole]]
    if not group and n_spanned and not nothing:
        raise NothingLeftError(
            f"All {n_spanned:,} words of corpus {corpus.name!r} share tokens with others, as words "
            "do that the tokenizer does not know: none has a mean of its own. Use by='token'."
        )
    if not group and not nothing:
        raise NothingLeftError(
            f"Corpus {corpus.name!r} has no word of {MIN_LENGTH} to {MAX_LENGTH} letters: "
            "use by='token'."
        )
    labels = np.array(list(index), dtype=object)
    return Words(labels, word, np.array(group, dtype=np.int64), n_spanned)


def _spanned(first: np.ndarray, end: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """``(w,)`` which words of a sentence share a token with another.

    Args:
        first: the first word that each token shares characters with.
        end: where each token ends.
        starts: ``(w,)`` where each word starts.
    """
    last = np.searchsorted(starts, end, side="left") - 1
    spanned = np.zeros(len(starts), dtype=bool)
    for at in np.flatnonzero(last > first):
        spanned[first[at] : last[at] + 1] = True
    return spanned


def _sentences(text: TokenizedCorpus) -> Iterator[tuple[int, int, int]]:
    """Each sentence's index, and where the tokens of its (adjacent) sequences begin and end."""
    change = np.flatnonzero(np.diff(text.sentence, prepend=-1))
    ends = np.append(change, len(text.sentence))[1:]
    for at, following in zip(change, ends, strict=True):
        yield int(text.sentence[at]), int(text.starts[at]), int(text.starts[following])
