"""Over many simulated corpora with document effects, 95 % intervals hold what they promise.

``tests/benchmarks/of_coverage.py`` writes the same for more cases to ``coverage.md``.
"""

import numpy as np
import pytest
import simulated
from effort import LONG, effort, tried

from embvar_kit.statistics import evidence

pytestmark = pytest.mark.slow

TRUE = simulated.tokens(1, 300, 40, 5000)
NUMBER = effort(40, 500)
LEAST, MOST = (0.92, 0.98) if LONG else (0.8, 1.0)
INSTRUMENT = simulated.STATISTICS.index("slope by instrument")
BENT = [name for name in simulated.STATISTICS if name.startswith(("slope", "R²", "V_W"))]
"""The statistics that noise in the tokens' means moves."""
WIDE = simulated.STATISTICS.index("reliability of M")
"""Made of products of noises, whose variance the jackknife counts more than once (coverage.md): its
intervals are wider than they promise, and are held to the lower end of the bar alone."""


@pytest.fixture(scope="module")
def many():
    tried("simulated corpora", NUMBER)
    return simulated.corpora(TRUE, NUMBER, min_count=2)


def test_a_corpus_has_the_moments_that_it_is_drawn_from():
    """In a long corpus; effects of the documents that a token is in stay in M, and out of V."""
    much = TRUE._replace(rate=np.full(len(TRUE.V), 1e5))
    entries = simulated.draw(much, np.random.default_rng(0))
    token = np.arange(len(TRUE.V)).repeat(np.diff(entries["starts"]))
    n = np.bincount(token, entries["count"])
    share = entries["count"] / n[token]
    effects = simulated.TOPIC + simulated.SENSE * (TRUE.V - simulated.TOPIC)
    in_M = effects * np.bincount(token, share**2)
    squares, mean = np.bincount(token, entries["squares"]) / n, np.zeros((len(n), simulated.DIM))
    np.add.at(mean, token, share[:, None] * entries["mean"])
    M = np.einsum("td,td->t", mean, mean)
    np.testing.assert_allclose(squares, TRUE.M + TRUE.V, rtol=0.1)
    assert np.mean((squares - M) / (TRUE.V - in_M)) == pytest.approx(1, abs=0.01)
    assert np.mean(M - TRUE.M - in_M) == pytest.approx(0, abs=0.15)


def test_intervals_cover_what_the_statistic_is_on_average(many):
    """Of 40 intervals 95 % are 38, and fewer than 32 are to be seen once in a thousand times."""
    covered = many.covered(many.found.mean(axis=0))
    assert (covered >= LEAST).all()
    assert (np.delete(covered, WIDE) <= MOST).all()


def test_the_standard_error_is_the_spread_over_corpora(many):
    ratio = evidence.jackknife(many.without, axis=1).mean(axis=0) / many.found.std(axis=0, ddof=1)
    assert (np.abs(np.delete(ratio, WIDE) - 1) < (0.2 if LONG else 0.4)).all()
    assert ratio[WIDE] > 1


def test_the_slope_by_instrument_by_folds_of_each_half_is_the_same(many):
    """What ``of_coverage.py`` takes apart is what the intervals rest on."""
    entries = simulated.draw(TRUE, np.random.default_rng(0))
    n_tokens, slope, without = simulated.by_instrument(entries, min_count=2, least=2)
    assert slope == pytest.approx(many.found[0, INSTRUMENT], rel=1e-9)
    np.testing.assert_allclose(without, many.without[0, :, INSTRUMENT], rtol=1e-9)
    fewer, other, _ = simulated.by_instrument(entries, min_count=2, least=5)
    assert fewer < n_tokens and other != slope


def test_the_slope_by_instrument_alone_is_that_of_a_corpus_without_end(many):
    """Least squares stay short of it by the noise in M, unless the bias is taken off."""
    endless = simulated.population(TRUE)
    covered = many.covered(endless)
    assert covered[INSTRUMENT] >= LEAST
    bent = [simulated.STATISTICS.index(name) for name in BENT]
    assert (many.covered(endless, shift=True)[bent] >= LEAST).all()
    assert (covered[:INSTRUMENT] < 0.7).all()
    off = np.abs(many.found.mean(axis=0) - endless)
    assert off[INSTRUMENT] < 0.3 * off[:INSTRUMENT].min()
