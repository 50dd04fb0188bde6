"""A trade-off survives only where the tokens it is about could be tested, in a simulation."""

from dataclasses import replace

import numpy as np

import embvar_kit as ek
from embvar_kit.moments.folds import without_each_fold
from embvar_kit.statistics.folds import OF_ALL_LAYERS, Folds
from embvar_kit.statistics.token_statistics import TokenStatistics

DIM, DOCUMENTS, FOLDS = 32, 100, 20
CLUMPED, COMMON = 300, 5


def statistics(x: np.ndarray, token: np.ndarray, fold: np.ndarray) -> TokenStatistics:
    """Statistics of one layer with folds; tokens are numbers, each with 10 occurrences or more."""
    order = np.argsort(-np.bincount(token), kind="stable")
    token = np.argsort(order)[token]
    moments = ek.GroupedMoments(len(order), DIM)
    moments.update(x, token)
    pairs, entry = np.unique(token * FOLDS + fold, return_inverse=True)
    own = ek.GroupedMoments(len(pairs), DIM)
    own.update(x, entry)
    starts = np.searchsorted(pairs // FOLDS, np.arange(len(order) + 1))
    entries = [own.state()[name] for name in ek.GroupedMoments.STATE]
    apart = without_each_fold(
        starts, pairs % FOLDS, *entries, n_folds=FOLDS, half=np.arange(FOLDS) % 2 == 1
    )
    tokens = order.astype(str).astype(object)
    arrays = {
        name: array if name in OF_ALL_LAYERS else array[:, None]
        for name, array in apart._asdict().items()
    }
    return TokenStatistics(
        tokens=tokens,
        special=np.zeros(len(order), dtype=bool),
        layers=np.array([0]),
        n=moments.count,
        Q=moments.Q[None],
        M=moments.M[None],
        V=moments.V[None],
        mean=None,
        extra=None,
        info={},
        folds=Folds(tokens=tokens, **arrays),
    )


def test_tokens_that_could_not_be_tested_do_not_survive_on_the_merit_of_five_others():
    """300 tokens stand in one document each, whose spread is the document's, not the token's."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.2, 2.5, DOCUMENTS)
    x, token, document = [], [], []

    def add(at: int, length: float, where: np.ndarray, towards: np.ndarray) -> None:
        """Occurrences of norm sqrt(d), drawn around a direction that a larger length favours."""
        drawn = length * towards + rng.normal(size=(len(where), DIM)) / np.sqrt(DIM)
        x.append(drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * np.sqrt(DIM))
        token.append(np.full(len(where), at))
        document.append(where)

    for at in range(CLUMPED + COMMON):
        towards = rng.normal(size=DIM)
        towards /= np.linalg.norm(towards)
        if at < CLUMPED:
            own = rng.integers(DOCUMENTS)
            add(at, spread[own], np.full(rng.integers(10, 40), own), towards)
        else:
            everywhere = np.repeat(np.arange(DOCUMENTS), rng.integers(1, 4, DOCUMENTS))
            add(at, [0.2, 0.7, 1.2, 1.7, 2.5][at - CLUMPED], everywhere, towards)
    x, token, document = map(np.concatenate, (x, token, document))
    fold = (rng.permutation(DOCUMENTS) % FOLDS)[document]
    measured = statistics(x, token, fold)
    null = replace(statistics(x, rng.permutation(token), fold), folds=None)
    found = replace(measured, null=null).evidence().iloc[0]
    assert (found["n_halves"], found["n_tokens"]) == (COMMON, CLUMPED + COMMON)
    assert found["reliability"] > 0.9 and found["reliability_low"] > 0
    assert found["slope_high"] < 0 and found["slope_iv_high"] < 0
    assert found["sd_M_low"] > found["null_sd_M"]
    assert not found["survives"]
