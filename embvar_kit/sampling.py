"""Which part of a corpus is taken: arguments checked, sentences drawn."""

from __future__ import annotations

import operator
from numbers import Real

import numpy as np

from embvar_kit.errors import CorpusError


def given_limits(max_words: int | None, limit: int | None) -> dict[str, int]:
    """Those of the two that are given, as :class:`Corpus` records them."""
    given = {"max_words": max_words, "limit": limit}
    return {name: whole(name, value) for name, value in given.items() if value is not None}


def draw(n: int, sample: float | int, seed: int) -> tuple[np.ndarray, dict]:
    """Indices drawn, ascending, and what there is to record of the draw."""
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
        raise CorpusError(f"seed={seed!r} is none: {error}. Give a number from 0 on.") from error
    return np.sort(drawn), {"sample": sample, "seed": seed}


def whole(name: str, value: int) -> int:
    """A whole number of at least 1, or a refusal that names the argument."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise CorpusError(f"{name} must be a whole number, got {value!r}.") from error
    if number < 1:
        raise CorpusError(f"{name} must be at least 1, got {number}.")
    return number
