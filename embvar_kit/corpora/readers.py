"""Records of text: their title, position and text, which of them are taken, and how they split."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from numbers import Real

import numpy as np

from embvar_kit.errors import CorpusError, as_sentence

Record = tuple[str, int, str]
"""The title of a text's source, the text's number in it (from 1), and the text."""


def draw(n: int, sample: float | int, seed: int) -> tuple[np.ndarray, dict]:
    """Draw some of ``n`` rows without replacement, with NumPy's legacy generator as in the paper.

    Args:
        n: number of rows to draw from.
        sample: share of the rows, between 0 and 1, or number of rows.
        seed: seed of the random draw.

    Returns:
        Ascending indices, and the settings to record: ``sample`` and ``seed`` as plain numbers.

    Raises:
        CorpusError: if ``sample`` or ``seed`` makes no sense.

    >>> rows, settings = draw(6, sample=0.5, seed=1)
    >>> rows.tolist(), settings
    ([1, 2, 4], {'sample': 0.5, 'seed': 1})
    """
    try:
        size = sample = operator.index(sample)
    except TypeError:
        sample = float(sample) if isinstance(sample, Real) else sample
        size = round(n * sample) if isinstance(sample, float) and 0 < sample < 1 else 0
    if not 0 < size <= n:
        raise CorpusError(
            f"sample={sample!r} of {n:,} sentences makes no sense: give a share between 0 and 1 "
            f"or a whole number from 1 to {n:,}. For all of them leave sample out; 1.0 is refused, "
            "since sample=1 draws one."
        )
    try:
        seed = operator.index(seed)
        drawn = np.random.RandomState(seed).choice(n, size, replace=False)
    except (ValueError, TypeError) as error:
        raise CorpusError(
            f"seed={seed!r} is not a seed: {as_sentence(error)} Give a whole number from 0 on."
        ) from error
    return np.sort(drawn), {"sample": sample, "seed": seed}


def given_limits(max_words: int | None, limit: int | None) -> dict[str, int]:
    """Those of the two that are not ``None``, as plain integers, to record as settings.

    Raises:
        CorpusError: if one is not a whole number of at least 1.
    """
    given = {"max_words": max_words, "limit": limit}
    return {name: whole(name, value) for name, value in given.items() if value is not None}


def whole(name: str, value: int) -> int:
    """Check that an argument is a whole number of at least 1.

    Raises:
        CorpusError: if it is not; the message names the argument.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise CorpusError(f"{name} must be a whole number, got {value!r}.") from error
    if number < 1:
        raise CorpusError(f"{name} must be at least 1, got {number}.")
    return number


def split_records(
    records: Iterable[Record], split_sentences: bool, language: str
) -> Iterator[Record]:
    """Leave blank texts out and, if asked, split the others into sentences.

    Each sentence keeps the number of its text.
    """
    if not split_sentences:
        yield from ((title, at, text.strip()) for title, at, text in records if text.strip())
        return
    from sentencex import segment

    for title, at, text in records:
        for sentence in segment(language, text):
            if sentence.strip():
                yield title, at, " ".join(sentence.split())


def numbered(pairs: Iterable[tuple[str, str]]) -> Iterator[Record]:
    """Number the sentences of each title from 1.

    >>> list(numbered([("A", "One."), ("A", "Two."), ("B", "Three.")]))
    [('A', 1, 'One.'), ('A', 2, 'Two.'), ('B', 1, 'Three.')]
    """
    current, number = None, 0
    for title, sentence in pairs:
        number = number + 1 if title == current else 1
        current = title
        yield title, number, sentence
