"""Folds: what is left of a corpus' statistics without each part of its documents, and two halves.

Sentences of one document are alike, so that neither sentences nor tokens are independent draws;
documents are. The statistics without each fold of the documents give intervals by the jackknife
(:mod:`embvar_kit.statistics.evidence`). A fold is not run again: moments come apart as exactly as
they merge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from embvar_kit.errors import NoLineError, StatisticsError
from embvar_kit.statistics import analysis, evidence

LEAST = 10
"""Folds are kept for the tokens that occur at least this often: the paper's range."""

TRADEOFF = ("cv_Q", "sd_Q", "sd_M", "r", "rho", "slope", "intercept", "r2")
"""Columns of a trade-off that get intervals."""

COLUMNS = {
    "tradeoff": ("at", "fold", *TRADEOFF),
    "similarity": ("at", "fold", "self_similarity"),
    "frequency": ("at", "fold", *"QMV"),
    "log_frequency": ("at", "fold", *"QMV"),
    "halves": (
        *("at", "n_halves", "reliability", "reliability_low", "reliability_high"),
        *("slope_half", "slope_iv", "slope_iv_low", "slope_iv_high"),
    ),
}
"""Columns of what :meth:`Folds.give` gives, by its name."""


OF_ALL_LAYERS = ("n", "half_n", "own_n")
"""Arrays of :class:`Folds` that are the same at each layer, and so have no axis of layers."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Statistics of tokens without each of ``K`` folds of the documents, and of two halves.

    The halves A and B are those of the folds: each document is in one of them. The unit of Q, M and
    V is the squared norm of the embedding.

    Attributes:
        tokens: ``(F,)`` the tokens with ``n_t >=`` :data:`LEAST`, the most frequent first.
        n: ``(K, F)`` occurrences outside each fold.
        Q, M, V: ``(K, L, F)`` moments of these occurrences; NaN where there are none.
        half_n: ``(2, F)`` occurrences in each half.
        half_M, half_V: ``(2, L, F)`` their M and V, estimated from pairs of occurrences in
            different folds, which share no document (see
            :class:`embvar_kit.moments.folds.FoldMoments`); NaN where fewer than two folds have any.
        own_n: ``(K, F)`` occurrences in each fold's own half, without this fold.
        own_M, own_V: ``(K, L, F)`` their M and V, as those of a half. The half of fold k is
            ``k % 2``.
    """

    tokens: np.ndarray
    n: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray
    half_n: np.ndarray
    half_M: np.ndarray
    half_V: np.ndarray
    own_n: np.ndarray
    own_M: np.ndarray
    own_V: np.ndarray

    def __len__(self) -> int:
        """Number of folds, ``K``."""
        return len(self.n)

    @staticmethod
    def bytes_of(n_tokens: int, n_folds: int, n_layers: int) -> int:
        """Bytes of the arrays for so many tokens, folds and layers."""
        counts, moments = 2 * n_folds + 2, 5 * n_folds + 2 * 2  # a fold's or a half's, by array
        return 8 * n_tokens * (counts + n_layers * moments)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays except the tokens, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)[1:]}

    def take(self, columns: np.ndarray) -> Folds:
        """The same of some tokens, given as indices in :attr:`tokens`."""
        return replace(
            self,
            **{name: x[..., columns] for name, x in self.arrays().items()},
            tokens=self.tokens[columns],
        )

    def of(self, tokens: np.ndarray) -> Folds:
        """The same of some tokens, in their order.

        Raises:
            StatisticsError: if one of them is too rare to be kept.
        """
        at = pd.Index(self.tokens).get_indexer(tokens)
        if (at < 0).any():
            raise StatisticsError(
                f"Folds are kept for tokens with n_t >= {LEAST}: pass min_count={LEAST}, or more."
            )
        return self.take(at)

    @property
    def used(self) -> np.ndarray:
        """The folds in which some of the tokens occur.

        The others say nothing of these tokens. If they counted, three folds out of twenty would
        have the degrees of freedom of twenty, and intervals would be too narrow.
        """
        return np.flatnonzero((self.n < self.half_n.sum(axis=0)).any(axis=1))

    def without_each(
        self, layer: int, *, unbiased: bool
    ) -> Iterator[tuple[int, np.ndarray, tuple[np.ndarray, ...]]]:
        """``n, Q, M, V`` of the tokens left, without each fold of :attr:`used` in turn.

        With the fold comes a mask: which of :attr:`tokens` are left.

        Args:
            layer: index of the layer among those measured.
            unbiased: give the unbiased M and V, of the tokens that are left twice or more.
        """
        for fold in self.used:
            n, Q, M, V = self.n[fold], *(x[fold, layer] for x in (self.Q, self.M, self.V))
            left = n >= (2 if unbiased else 1)
            n, Q, M, V = n[left], Q[left], M[left], V[left]
            yield int(fold), left, (n, Q, *(analysis.unbiased(n, M, V) if unbiased else (M, V)))

    def give(self, what: str, *, unbiased: bool) -> pd.DataFrame:
        """One of the tables of :data:`COLUMNS`, by its name."""
        if what == "tradeoff":
            return self.tradeoffs(unbiased=unbiased)
        if what in ("frequency", "log_frequency"):
            return self.frequency_slopes(unbiased=unbiased, log=what == "log_frequency")
        return self.similarities() if what == "similarity" else self.halves()

    def tradeoffs(self, *, unbiased: bool) -> pd.DataFrame:
        """The regression of V on M without each fold: ``at, fold``, and columns of the trade-off.

        ``at`` is the index of the layer among those measured. Where no line can be fitted without
        some fold, because hardly a token is left, its numbers are NaN, and so is their interval.
        """

        def of(n: np.ndarray, *moments: np.ndarray) -> dict[str, float]:
            return analysis.tradeoff(*moments)._asdict()

        return self._lines(of, COLUMNS["tradeoff"], unbiased=unbiased)

    def frequency_slopes(self, *, unbiased: bool, log: bool) -> pd.DataFrame:
        """The slopes on log10 n_t without each fold: ``at, fold, Q, M, V``.

        They are those of :func:`analysis.slopes_on_frequency`; NaN as in :meth:`tradeoffs`.
        """

        def of(*moments: np.ndarray) -> dict[str, float]:
            return analysis.slopes_on_frequency(dict(zip("nQMV", moments, strict=True)), log=log)

        return self._lines(of, COLUMNS["frequency"], unbiased=unbiased)

    def _lines(
        self, of: Callable[..., dict[str, float]], columns: Sequence[str], *, unbiased: bool
    ) -> pd.DataFrame:
        """What ``of(n, Q, M, V)`` gives without each fold; NaN where it fits no line."""
        rows = []
        for at in range(self.Q.shape[1]):
            for fold, _, moments in self.without_each(at, unbiased=unbiased):
                rows.append({"at": at, "fold": fold})
                with suppress(StatisticsError):
                    rows[-1] |= of(*moments)
        return pd.DataFrame(rows, columns=columns)

    def similarities(self) -> pd.DataFrame:
        """Mean of the unbiased M over tokens, without each fold: ``at, fold, self_similarity``."""
        rows = [
            {"at": at, "fold": fold, "self_similarity": float(M.mean()) if len(M) else math.nan}
            for at in range(self.Q.shape[1])
            for fold, _, (_, _, M, _) in self.without_each(at, unbiased=True)
        ]
        return pd.DataFrame(rows, columns=COLUMNS["similarity"])

    def halves(self) -> pd.DataFrame:
        """What two halves of the documents say of M.

        ``at``, the index of the layer; ``n_halves``, the number of tokens; ``reliability`` of M;
        ``slope_half``, the slope of V on M by least squares in a half; and ``slope_iv``, the same
        free of the noise in M.

        M and V are those of pairs of occurrences in different folds, so that they have no bias
        from few occurrences, nor from occurrences of one document that are alike. Tokens count that
        occur in two folds or more of each half: those that clump most are not among them. Beside
        ``reliability`` and ``slope_iv`` stand ``_low`` and ``_high``, the bounds of an interval of
        95 % or more: the jackknife takes the halves for one, which errs to the wide side. They are
        NaN where fewer than 3 such tokens are left without some fold, as always with fewer than 6
        folds.
        """
        return self._of_both_halves(_of_halves, ("reliability", "slope_iv"))

    def frequency_slopes_apart(self, *, log: bool) -> pd.DataFrame:
        """The slopes on log10 n_t with the M and V of pairs of occurrences in different folds.

        ``at``, the index of the layer; ``n_tokens``, the tokens in two folds or more of each half;
        ``Q, M, V``, slopes as in :meth:`frequency_slopes`, of the mean of both halves on all
        occurrences; and beside each ``_low`` and ``_high``, the bounds of its 95 % interval.
        """

        def of(n: np.ndarray, M: np.ndarray, V: np.ndarray) -> dict[str, float]:
            known = np.isfinite(M).all(axis=0)
            found = {"n_tokens": int(known.sum()), **dict.fromkeys("QMV", math.nan)}
            M, V = M[:, known].mean(axis=0), V[:, known].mean(axis=0)
            with suppress(NoLineError):
                moments = {"n": n[known], "Q": M + V, "M": M, "V": V}
                found |= analysis.slopes_on_frequency(moments, log=log)
            return found

        return self._of_both_halves(of, "QMV")

    def _of_both_halves(
        self, of: Callable[..., dict[str, float]], names: Sequence[str]
    ) -> pd.DataFrame:
        """What ``of(n, M, V)`` gives of all occurrences' counts and the halves' ``(2, F)`` moments.

        One row for each layer, with the intervals of ``names``: without a fold, the moments of its
        own half are those of ``own_M`` and ``own_V``.
        """
        rows, without = [], []
        for at in range(self.Q.shape[1]):
            whole = self.half_M[:, at], self.half_V[:, at]
            rows.append({"at": at, **of(self.half_n.sum(axis=0), *whole)})
            for fold in map(int, self.used):
                parts = [part.copy() for part in whole]
                for part, left in zip(parts, (self.own_M, self.own_V), strict=True):
                    part[fold % 2] = left[fold, at]
                without.append({"at": at, "fold": fold, **of(self.n[fold], *parts)})
        return with_intervals(pd.DataFrame(rows), pd.DataFrame(without), names)


def _of_halves(_n: np.ndarray, M: np.ndarray, V: np.ndarray) -> dict[str, float]:
    """Columns of :meth:`Folds.halves`, of ``(2, F)`` M and V of two halves."""
    known = np.isfinite(M).all(axis=0)
    if known.sum() < 3:
        few = dict.fromkeys(("reliability", "slope_half", "slope_iv"), math.nan)
        return {"n_halves": int(known.sum()), **few}
    (M_A, M_B), (V_A, V_B) = M[:, known], V[:, known]
    return {
        "n_halves": int(known.sum()),
        "reliability": evidence.reliability(M_A, M_B).half,
        # With a variable as its own instrument, the slope is that of least squares.
        "slope_half": evidence.slope_iv(V_A, M_A, M_A) / 2 + evidence.slope_iv(V_B, M_B, M_B) / 2,
        "slope_iv": evidence.slope_iv(V_A, M_A, M_B, V_B),
    }


def with_intervals(
    estimates: pd.DataFrame, replicates: pd.DataFrame, columns: Sequence[str]
) -> pd.DataFrame:
    """A table of estimates, one row a layer, with the jackknife's interval beside each column.

    Args:
        estimates: one row for each layer.
        replicates: the same columns without each fold: ``at``, the row of ``estimates``, ``fold``.
        columns: the columns that get ``_low`` and ``_high``, the bounds of the 95 % interval. They
            are NaN where fewer than two folds have any of the tokens.
    """
    table = estimates.copy()
    for name in columns:
        low = high = np.full(len(table), math.nan)
        if len(replicates) and replicates["fold"].nunique() > 1:
            by_fold = replicates.pivot(index="fold", columns="at", values=name).to_numpy()
            low, high, _, _ = evidence.interval(table[name].to_numpy(), by_fold)
        after = table.columns.get_loc(name) + 1
        table.insert(after, f"{name}_low", low)
        table.insert(after + 1, f"{name}_high", high)
    return table
