"""Reliability and instrumental slope of halves, with intervals, against leaving folds out."""

import numpy as np
import pandas as pd
import pytest
import simulated
from simulated import FOLDS

from embvar_kit import analysis
from embvar_kit.moments.folds import without_each_fold
from embvar_kit.statistics import evidence
from embvar_kit.statistics.folds import OF_ALL_LAYERS, Folds, with_intervals
from embvar_kit.statistics.token_statistics import TokenStatistics

ODD = np.arange(FOLDS) % 2 == 1


def apart(entries: dict):
    return without_each_fold(**entries, n_folds=FOLDS, half=ODD)


def without(entries: dict, fold: int) -> dict:
    """The entries of a corpus that never had this fold."""
    left = entries["fold"] != fold
    token = np.arange(len(entries["starts"]) - 1).repeat(np.diff(entries["starts"]))[left]
    rest = {name: array[left] for name, array in entries.items() if name != "starts"}
    return {"starts": np.searchsorted(token, np.arange(len(entries["starts"]))), **rest}


def folds_of(entries: dict) -> Folds:
    """The folds of one layer."""
    parts = apart(entries)._asdict()
    arrays = {name: x if name in OF_ALL_LAYERS else x[..., None, :] for name, x in parts.items()}
    return Folds(tokens=np.arange(40).astype(str).astype(object), **arrays)


def of_halves(entries: dict) -> tuple[float, float, float]:
    parts = apart(entries)
    known = np.isfinite(parts.half_M).all(axis=0)
    (M_A, M_B), (V_A, V_B) = parts.half_M[:, known], parts.half_V[:, known]
    slopes = [np.polyfit(M, V, 1)[0] for M, V in ((M_A, V_A), (M_B, V_B))]
    return np.corrcoef(M_A, M_B)[0, 1], evidence.slope_iv(V_A, M_A, M_B, V_B), np.mean(slopes)


def test_tokens_that_differ_in_bursts_alone_are_not_told_apart():
    """One mean and one V for all: M is larger for those that clump, in either half alike."""
    same = simulated.Tokens(np.zeros((300, simulated.DIM)), np.full(300, 9.0), np.full(300, 500.0))
    bursts = np.geomspace(1, 100, 300)[:, None]
    entries = simulated.draw(same, np.random.default_rng(0), bursts=bursts)
    parts = apart(entries)
    known = np.isfinite(parts.half_M).all(axis=0)
    assert known.sum() > 200
    assert abs(evidence.reliability(*parts.half_M[:, known]).half) < 0.15
    order = np.lexsort((entries["fold"] % 2, np.repeat(range(300), np.diff(entries["starts"]))))
    two = {name: x if name == "starts" else x[order] for name, x in entries.items()}
    two["fold"] = two["fold"] % 2
    halves = without_each_fold(**two, n_folds=2, half=ODD[:2])
    M, _ = analysis.unbiased(*(x[:, known] for x in (halves.n, halves.M, halves.V)))
    assert evidence.reliability(*M).half > 0.5  # unbiased only if occurrences are independent


def test_intervals_of_halves_are_those_of_corpora_without_a_fold():
    true = simulated.tokens(3, 40, 8, 500)
    entries = simulated.draw(true, np.random.default_rng(0))
    found = folds_of(entries).halves().iloc[0]
    whole = of_halves(entries)
    replicates = np.array([of_halves(without(entries, fold)) for fold in range(FOLDS)])
    low, high, *_ = evidence.interval(np.array(whole), replicates)
    for at, name in enumerate(("reliability", "slope_iv")):
        expected = whole[at], low[at], high[at]
        got = [found[column] for column in (name, f"{name}_low", f"{name}_high")]
        assert got == pytest.approx(expected, rel=1e-9)
    assert found["slope_half"] == pytest.approx(whole[2], rel=1e-9)
    assert found["n_halves"] == np.isfinite(apart(entries).half_M).all(axis=0).sum()
    assert found["slope_iv_low"] < found["slope_iv"] < found["slope_iv_high"]


@pytest.mark.parametrize("log", [False, True])
def test_slopes_on_frequency_from_pairs_are_those_of_corpora_without_a_fold(log):
    true = simulated.tokens(3, 40, 8, 500)
    entries = simulated.draw(true, np.random.default_rng(0))
    found = folds_of(entries).frequency_slopes_apart(log=log).iloc[0]

    def slopes(entries: dict) -> list[float]:
        parts = apart(entries)
        known = np.isfinite(parts.half_M).all(axis=0)
        log_n = np.log10(parts.half_n.sum(axis=0)[known])
        M, V = (x[:, known].mean(axis=0) for x in (parts.half_M, parts.half_V))
        assert (np.array([M, V]) > 0).all()
        return [np.polyfit(log_n, np.log10(x) if log else x, 1)[0] for x in (M + V, M, V)]

    whole = np.array(slopes(entries))
    replicates = np.array([slopes(without(entries, fold)) for fold in range(FOLDS)])
    low, high, *_ = evidence.interval(whole, replicates)
    for at, name in enumerate("QMV"):
        got = [found[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert got == pytest.approx([whole[at], low[at], high[at]], rel=1e-9)
    assert found["n_tokens"] == np.isfinite(apart(entries).half_M).all(axis=0).sum()


@pytest.mark.parametrize("n_used", [1, 3, 8])
def test_folds_that_have_none_of_the_tokens_lend_no_degrees_of_freedom(n_used):
    """With all 20 folds counted, the intervals of tokens in 3 of them are too narrow."""
    true = simulated.tokens(3, 40, 8, 500)
    entries = simulated.draw(true, np.random.default_rng(0))
    entries["fold"] = entries["fold"] * n_used // FOLDS
    parts = apart(entries)._asdict()
    found = folds_of(entries)
    assert found.used.tolist() == [*range(n_used)]
    without = found.tradeoffs(unbiased=False)
    whole = analysis.tradeoff(*(parts[name][-1] for name in "QMV"))  # the last fold is empty
    row = with_intervals(pd.DataFrame([{"at": 0, "slope": whole.slope}]), without, ["slope"])
    got = row[["slope_low", "slope_high"]].to_numpy()[0]
    if n_used == 1:
        assert np.isnan(got).all()
        return
    slopes = []
    for k in range(n_used):
        left = parts["n"][k] > 0
        slopes.append(analysis.tradeoff(*(parts[name][k, left] for name in "QMV")).slope)
    low, high, *_ = evidence.interval(whole.slope, np.array(slopes))
    assert got == pytest.approx([low, high], rel=1e-9)
    assert found.halves()["reliability_low"].isna().all() == (n_used < 6)
    assert [*found.similarities()["fold"]] == [*range(n_used)]


def test_taking_most_tokens_compares_each_with_few_others():
    """Comparing every token taken with every token of the folds took minutes for 60,000 of them."""
    compared = 0

    class Counted(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    n_tokens = 300
    tokens = np.array([Counted(at) for at in range(n_tokens)], dtype=object)
    counts, moments = np.ones((FOLDS, n_tokens)), np.ones((FOLDS, 1, n_tokens))
    two = {"half_n": counts[:2], "half_M": moments[:2], "half_V": moments[:2]}
    own = {"own_n": counts, "own_M": moments, "own_V": moments}
    Q, M, V = np.ones((3, 1, n_tokens))
    stats = TokenStatistics(
        tokens=tokens,
        special=np.zeros(n_tokens, dtype=bool),
        layers=np.array([0]),
        n=np.full(n_tokens, 10),
        Q=Q,
        M=M,
        V=V,
        mean=None,
        extra=None,
        info={},
        folds=Folds(tokens=tokens, n=counts, Q=moments, M=moments, V=moments, **two, **own),
    )
    less = stats.without(["7"])
    assert less.folds.tokens.tolist() == [str(at) for at in range(n_tokens) if at != 7]
    assert compared < 20 * n_tokens
