"""Corpora with document effects whose tokens have a known M and V, as entries of folds.

A token's embedding in a document is its mean, plus an effect that all tokens of the document share
(its topic), plus one of this token in this document (the sense it has there), plus noise. Documents
differ in length, and tokens clump: most documents have none of a rare token, and some have many.
No embedding is drawn: a token's occurrences in a document have a normal mean and a chi-square sum
of squared deviations, so that a corpus takes milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from embvar_kit import analysis
from embvar_kit.corpora.dealing import deal
from embvar_kit.moments import folds
from embvar_kit.statistics import evidence

DIM = 24
FOLDS = 20
DOCUMENTS = 100
TOPIC = 0.4  # variance of the effect that a document has on all of its tokens
SENSE = 0.3  # share of the rest of V that is an effect of the document on this token
BURSTS = 2.5  # occurrences in a document that one brings along, as in the excerpt of Wikipedia


class Tokens(NamedTuple):
    """What is true of ``T`` tokens: ``(T, d)`` means, ``(T,)`` V, expected n in a corpus."""

    mean: np.ndarray
    V: np.ndarray
    rate: np.ndarray

    @property
    def M(self) -> np.ndarray:
        return np.einsum("td,td->t", self.mean, self.mean)


def tokens(seed: int, n_tokens: int, least: float, most: float) -> Tokens:
    """Tokens whose V falls as M rises, with expected counts that follow Zipf's law."""
    rng = np.random.default_rng(seed)
    M = rng.uniform(2, 9, n_tokens)
    Q = 11 + 0.2 * M + rng.uniform(-1.5, 1.5, n_tokens)
    towards = rng.normal(size=(n_tokens, DIM))
    towards[:, 0] = 0
    towards *= 0.8 / np.linalg.norm(towards, axis=1, keepdims=True)
    towards[:, 0] = 0.6  # all means lean the same way
    rate = least / rng.uniform(least / most, 1, n_tokens)
    return Tokens(np.sqrt(M)[:, None] * towards, Q - M, rate)


def draw(
    true: Tokens, rng: np.random.Generator, *, bursts: float = BURSTS, cut: bool = False
) -> dict:
    """One corpus, as entries for :func:`folds.without_each_fold`: one a token and document.

    Args:
        true: the tokens.
        rng: what draws the corpus.
        bursts: how many more occurrences of a token one brings along in its document: counts are
            negative binomial, with a variance of ``1 + bursts`` times their mean.
        cut: deal entries into folds one by one, so that folds cut through documents.
    """
    n_tokens = len(true.V)
    length = rng.lognormal(-(0.7**2) / 2, 0.7, DOCUMENTS)
    expected = true.rate[:, None] * length / DOCUMENTS
    n = rng.poisson(bursts * rng.standard_gamma(expected / bursts))
    token, document = np.nonzero(n)
    count = n[token, document]
    own = true.V[token] - TOPIC
    topic = np.sqrt(TOPIC / DIM) * rng.normal(size=(DOCUMENTS, DIM))
    noise = (1 - SENSE) * own  # variance within a document
    spread = np.sqrt((SENSE * own + noise / count) / DIM)
    mean = true.mean[token] + topic[document] + spread[:, None] * rng.normal(size=(len(own), DIM))
    mean = mean.astype(np.float32)
    freedom = (count - 1) * DIM
    deviations = noise / DIM * 2 * rng.standard_gamma(freedom / 2)
    M = np.einsum("ed,ed->e", mean, mean, dtype=np.float64)
    fold = rng.integers(0, FOLDS, len(own)) if cut else deal(length, FOLDS)[document]
    entries = {
        "fold": fold,
        "count": count,
        "mean": mean,
        "extra": np.zeros(mean.shape, dtype=np.int8),
        "squares": deviations + count * M,
        "deviations": deviations,
    }
    order = np.lexsort((fold, token))
    entries = {name: array[order] for name, array in entries.items()}
    return {"starts": np.searchsorted(token, np.arange(n_tokens + 1)), **entries}


STATISTICS = (
    "slope",
    "slope, unbiased",
    "slope by instrument",
    "R², unbiased",
    "V_W/V",
    "V_W/V, unbiased",
    "mean dot product of pairs",
    "M/Q",
    "V_B/Q",
    "mean M over tokens, unbiased",
    "sd of M over tokens, unbiased",
    "reliability of M",
)


def population(true: Tokens) -> np.ndarray:
    """``(S,)`` :data:`STATISTICS` of a corpus without end, where plain and unbiased agree.

    The reliability is of a corpus of some size: in one without end, M has no noise.
    """
    fit = analysis.tradeoff(true.M + true.V, true.M, true.V)
    weight = true.rate / true.rate.sum()
    overall = weight @ true.mean
    within, M, Q = weight @ true.V, overall @ overall, weight @ (true.M + true.V)
    share = within / (Q - M)
    slopes = [fit.slope] * 3
    of_M = [true.M.mean(), true.M.std(), np.nan]
    return np.array([*slopes, fit.r2, share, share, M, M / Q, (Q - M - within) / Q, *of_M])


def measured(entries: dict, min_count: int, again: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each of :data:`STATISTICS` over a corpus, and without each fold.

    Args:
        entries: from :func:`draw`.
        min_count: take the tokens with so many occurrences.
        again: choose them again without each fold; else keep those of the whole corpus that have
            two occurrences left.

    Returns:
        ``(S,)`` statistics and ``(K, S)`` statistics without each fold.
    """
    # A last fold that has nothing: without it, the moments are those of the whole.
    n_folds = FOLDS + 1
    half = np.arange(n_folds) % 2 == 1
    parts = folds.without_each_fold(**entries, n_folds=n_folds, half=half)
    rows = []
    before = None
    for k in range(n_folds):
        counted = parts.n[k] if again else parts.n[-1]
        chosen = (counted >= min_count) & (parts.n[k] >= 2)
        if before is None or (chosen != before).any():
            union = folds.pool(np.flatnonzero(chosen), **entries, n_folds=n_folds)
            whole = folds.leave_one_out(*union)
            before = chosen
        halves = [x.copy() for x in (parts.half_M, parts.half_V)]
        for of_halves, own in zip(halves, (parts.own_M, parts.own_V), strict=True):
            of_halves[int(half[k])] = own[k]
        known = chosen & np.isfinite(halves[0]).all(axis=0)
        (M_A, M_B), (V_A, V_B) = (x[:, known] for x in halves)
        by_instrument = evidence.slope_iv(V_A, M_A, M_B, V_B)
        of_tokens = (x[k, chosen] for x in parts[:4])
        reliability = evidence.reliability(M_A, M_B).half
        rows.append([*_row(*of_tokens, *(x[k] for x in whole), by_instrument), reliability])
    return np.array(rows[-1]), np.array(rows[:-1])


def by_instrument(entries: dict, min_count: int, least: int) -> tuple[int, float, np.ndarray]:
    """The slope by instrument, over tokens in some number of folds of each half.

    Args:
        entries: from :func:`draw`.
        min_count: take the tokens with so many occurrences.
        least: and with occurrences in so many folds of each half, at least 2.

    Returns:
        The number of tokens, the slope, and ``(K,)`` slopes without each fold, each over those of
        the tokens that are left in two folds of each half.
    """
    half = np.arange(FOLDS) % 2 == 1
    parts = folds.without_each_fold(**entries, n_folds=FOLDS, half=half)
    token = np.repeat(np.arange(parts.n.shape[1]), np.diff(entries["starts"]))
    there = np.zeros((parts.n.shape[1], FOLDS), dtype=bool)
    there[token, entries["fold"]] = True
    enough = np.minimum(there[:, half].sum(axis=1), there[:, ~half].sum(axis=1)) >= least
    chosen = enough & (parts.half_n.sum(axis=0) >= min_count)

    def slope(M: np.ndarray, V: np.ndarray) -> float:
        known = chosen & np.isfinite(M).all(axis=0)
        return evidence.slope_iv(V[0, known], M[0, known], M[1, known], V[1, known])

    slopes = []
    for k in range(FOLDS):
        M, V = parts.half_M.copy(), parts.half_V.copy()
        M[int(half[k])], V[int(half[k])] = parts.own_M[k], parts.own_V[k]
        slopes.append(slope(M, V))
    return int(chosen.sum()), slope(parts.half_M, parts.half_V), np.array(slopes)


def _row(n, Q, M, V, n_X, Q_X, M_X, V_X, by_instrument) -> list[float]:
    fit = analysis.tradeoff(Q, M, V)
    unbiased = analysis.tradeoff(Q, *analysis.unbiased(n, M, V))
    V_B = V_X - float(n @ V) / n_X
    plain, corrected = (
        analysis.parts_of(n, V, Q_X, M_X, V_B, correct=correct) for correct in (False, True)
    )
    pairs = analysis.unbiased(n_X, M_X, V_X)[0]
    M_t = analysis.unbiased(n, M, V)[0]
    return [
        fit.slope,
        unbiased.slope,
        by_instrument,
        unbiased.r2,
        plain.V_W / plain.V,
        corrected.V_W / corrected.V,
        float(pairs),
        plain.M / plain.Q,
        plain.V_B / plain.Q,
        float(M_t.mean()),
        float(M_t.std()),
    ]


class Corpora(NamedTuple):
    """``R`` corpora: ``(R, S)`` statistics, and ``(R, K, S)`` statistics without each fold."""

    found: np.ndarray
    without: np.ndarray

    def covered(self, target: np.ndarray, shift: bool = False) -> np.ndarray:
        """``(S,)`` the share of corpora whose 95 % interval holds a target.

        Args:
            target: ``(S,)`` what the intervals should cover.
            shift: move each interval by the jackknife's estimate of the bias.
        """
        low, high, _, bias = evidence.interval(self.found, self.without, axis=1)
        moved = bias if shift else 0.0
        return ((low - moved <= target) & (target <= high - moved)).mean(axis=0)


def corpora(
    true: Tokens, number: int, *, min_count: int = 10, again: bool = False, **how: float
) -> Corpora:
    """Draw and measure corpora (see :func:`draw` and :func:`measured`), always the same ones."""
    rng = np.random.default_rng(0)
    both = [measured(draw(true, rng, **how), min_count, again) for _ in range(number)]
    return Corpora(*(np.array(part) for part in zip(*both, strict=True)))
