"""What the tokens show, one row for each layer: trade-off, decomposition, similarity and more.

A choice of tokens is ``min_count, max_count, special, unbiased``, as :meth:`TokenStatistics.table`
takes them. Intervals come from what the folds of documents give for the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics import analysis, compaction, measures
from embvar_kit.statistics.compaction import TOKENS
from embvar_kit.statistics.folds import TRADEOFF, with_intervals
from embvar_kit.statistics.geometry import require_unit

if TYPE_CHECKING:
    from embvar_kit.statistics.folds import Folds
    from embvar_kit.statistics.token_statistics import TokenStatistics

_SHARES = {"M/Q": ("M", "Q"), "V_B/Q": ("V_B", "Q"), "V_W/Q": ("V_W", "Q"), "V_W/V": ("V_W", "V")}


def tradeoff(
    statistics: TokenStatistics,
    choice: Mapping,
    *,
    robust: bool,
    weighted: bool,
    intervals: bool,
) -> pd.DataFrame:
    """The regression of V on M; see :meth:`TokenStatistics.tradeoff`."""
    rows = []
    for layer in statistics.layers:
        tokens = statistics.table(layer, **choice)
        fit = analysis.tradeoff(
            *(tokens[name].to_numpy() for name in "QMV"),
            weights=tokens["n"].to_numpy() if weighted else None,
            robust=robust,
        )
        rows.append({"layer": int(layer), **fit._asdict()})
    table = pd.DataFrame(rows)
    table = table if robust else table.drop(columns=["theil_sen", "spearman"])
    if not intervals:
        return table
    if weighted:
        raise StatisticsError("Intervals are kept for tokens that count alike: weighted=False.")
    return with_intervals(table, statistics.replicated("tradeoff", choice), TRADEOFF)


def decomposition(statistics: TokenStatistics, choice: Mapping, *, intervals: bool) -> pd.DataFrame:
    """The parts of Q(X); see :meth:`TokenStatistics.decomposition`."""
    if intervals:
        without_each = _with_shares(_without_each_fold(statistics, choice))
        whole = _with_shares(decomposition(statistics, choice, intervals=False))
        return with_intervals(whole, without_each, whole.columns[1:].tolist())
    if statistics.decompositions is not None:
        return compaction.stored_decomposition(statistics, choice).drop(columns="n")
    if statistics.mean is None:
        raise StatisticsError(
            "A decomposition needs the token means, which were left out of these statistics."
        )
    kept = statistics.kept(*(choice[name] for name in TOKENS))
    rows = []
    for at, layer in enumerate(statistics.layers):
        parts = analysis.decompose(
            statistics.n[kept],
            statistics.Q[at, kept],
            statistics.V[at, kept],
            statistics.mean[at][kept],
            correct=choice["unbiased"],
        )
        rows.append({"layer": int(layer), **parts._asdict()})
    return pd.DataFrame(rows)


def anisotropy(
    statistics: TokenStatistics, *, min_count: int, special: bool, intervals: bool
) -> pd.DataFrame:
    """Mean cosines of pairs of embeddings; see :meth:`TokenStatistics.anisotropy`."""
    require_unit(statistics, "Anisotropy is a mean cosine similarity")
    # Anisotropy is about all tokens, self-similarity about those with min_count occurrences.
    everything = {"min_count": 1, "max_count": None, "special": special, "unbiased": False}
    frequent = {**everything, "min_count": min_count, "unbiased": True}
    whole = decomposition(statistics, everything, intervals=False)
    baselines = _mean_dot_product(whole, _n_occurrences(statistics, everything))
    rows = []
    for layer, baseline in zip(whole["layer"], baselines, strict=True):
        tokens = statistics.table(layer, **frequent)
        if tokens.empty or min_count < 2:
            raise StatisticsError(
                f"Self-similarity needs tokens that occur at least twice; min_count={min_count} "
                f"leaves {len(tokens)} tokens. Choose a min_count of at least 2 that some tokens "
                "reach."
            )
        alike = float(tokens["M"].mean())
        rows.append((layer, baseline, alike, alike - baseline))
    columns = ["anisotropy", "self_similarity", "adjusted"]
    table = pd.DataFrame(rows, columns=["layer", *columns])
    if not intervals:
        return table
    without = _without_each_fold(statistics, everything)
    without["anisotropy"] = _mean_dot_product(without, without["n"])
    alike = statistics.replicated("similarity", frequent)
    without = without.merge(alike, on=["at", "fold"], how="left")
    # A fold that has none of the frequent tokens leaves their self-similarity as it is.
    unchanged = table["self_similarity"].to_numpy()[without["at"]]
    without["adjusted"] = without["self_similarity"].fillna(pd.Series(unchanged))
    without["adjusted"] -= without["anisotropy"]
    table = with_intervals(table, alike, ["self_similarity"])
    return with_intervals(table, without, ["anisotropy", "adjusted"])


def frequency_slopes(
    statistics: TokenStatistics, choice: Mapping, *, log: bool, apart: bool, intervals: bool
) -> pd.DataFrame:
    """Slopes on the logarithm of n_t; see :meth:`TokenStatistics.frequency_slopes`."""
    if apart:
        return _frequency_slopes_apart(statistics, choice, log=log, intervals=intervals)
    table = pd.DataFrame(
        {
            "layer": int(layer),
            **analysis.slopes_on_frequency(statistics.table(layer, **choice), log=log),
        }
        for layer in statistics.layers
    )
    if not intervals:
        return table
    what = "log_frequency" if log else "frequency"
    return with_intervals(table, statistics.replicated(what, choice), "QMV")


def _frequency_slopes_apart(
    statistics: TokenStatistics, choice: Mapping, *, log: bool, intervals: bool
) -> pd.DataFrame:
    """The slopes with the M and V of pairs of occurrences in different folds."""
    if choice["unbiased"]:
        raise StatisticsError(
            "apart=True and unbiased=True are two ways to estimate M and V: choose one."
        )
    kept = statistics.kept(*(choice[name] for name in TOKENS))
    found = _folds_of(statistics).of(statistics.tokens[kept]).frequency_slopes_apart(log=log)
    found = found.drop(columns="at").assign(layer=statistics.layers)
    ends = [f"_{end}" for end in ("low", "high") if intervals]
    return found[["layer", "n_tokens", *(f"{x}{end}" for x in "QMV" for end in ("", *ends))]]


def dispersion(statistics: TokenStatistics, choice: Mapping, *, intervals: bool) -> pd.DataFrame:
    """Frequency against dispersion; see :meth:`TokenStatistics.dispersion`."""
    documents = pd.Series(statistics.effective_documents, index=statistics.tokens)

    def of(table: pd.DataFrame) -> dict[str, float]:
        own = documents.loc[table["token"]].to_numpy()
        return measures.dispersion(table["n"].to_numpy(), own, table["V"].to_numpy())._asdict()

    if intervals:
        table = of_statistic(statistics, of, None, choice).astype({"n_tokens": int})
        return table.drop(columns=["n_tokens_low", "n_tokens_high"])
    return pd.DataFrame(
        {"layer": int(layer), **of(statistics.table(layer, **choice))}
        for layer in statistics.layers
    )


def of_statistic(
    statistics: TokenStatistics,
    statistic: Callable[[pd.DataFrame], Mapping[str, float]],
    layers: Iterable[int] | None,
    choice: Mapping,
) -> pd.DataFrame:
    """Numbers of the user's own; see :meth:`TokenStatistics.intervals_of`."""
    kept = statistics.kept(*(choice[name] for name in TOKENS))
    folds = _folds_of(statistics).of(statistics.tokens[kept])
    own, without = [], []
    if layers is None:
        layers = statistics.layers
    layers = list(layers) if isinstance(layers, Iterable) else [layers]
    for row, layer in enumerate(layers):
        table = statistics.table(layer, **choice)
        # The function may change the table that it gets.
        own.append(_numbers(statistic(table.copy())))
        at = int(np.flatnonzero(statistics.layers == layer)[0])
        for fold, left, moments in folds.without_each(at, unbiased=choice["unbiased"]):
            rest = table[left].assign(**dict(zip(("n", "Q", "M", "V"), moments, strict=True)))
            numbers = dict.fromkeys(own[-1], math.nan)
            with suppress(StatisticsError):  # too little is left without this fold
                numbers = _numbers(statistic(rest.reset_index(drop=True)))
            without.append({"at": row, "fold": fold, **numbers})
    table = with_intervals(pd.DataFrame(own), pd.DataFrame(without), list(own[0]) if own else [])
    table.insert(0, "layer", [int(layer) for layer in layers])
    return table


def _folds_of(statistics: TokenStatistics) -> Folds:
    """The folds themselves, which compact statistics do not keep.

    Raises:
        StatisticsError: if there are none.
    """
    if statistics.folds is None:
        why = "have none. Extract with folds=20."
        if statistics.has_folds:
            why = (
                "are compact: they keep what other methods need. Take them as they were extracted."
            )
        raise StatisticsError(f"This needs the folds of documents, and these statistics {why}")
    return statistics.folds


def _numbers(found: object) -> dict[str, float]:
    """What a user's function returned, once it is seen to be numbers by names that are free."""
    if not isinstance(found, Mapping | pd.Series) or not len(found):
        raise StatisticsError(
            "The function has to return numbers by their names, such as {'slope': -0.8}, and not "
            f"{type(found).__name__}."
        )
    taken = {
        "layer",
        "at",
        "fold",
        *(f"{name}{end}" for name in found for end in ("_low", "_high")),
    }
    if clash := taken & set(found):
        raise StatisticsError(
            f"{', '.join(map(repr, sorted(clash)))}: the table has columns of its own by this "
            "name. Call the number otherwise."
        )
    try:
        return {name: float(value) for name, value in found.items()}
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"What the function returned is no number: {error}.") from error


def _without_each_fold(statistics: TokenStatistics, choice: Mapping) -> pd.DataFrame:
    """The decomposition without each fold: ``at, fold, n, Q, M, V, V_W, V_B``."""
    if statistics.fold_decompositions is None:
        raise StatisticsError(
            "Intervals of a decomposition need folds of documents, which these statistics lack "
            "or which hold other tokens. Extract with folds=20, and take the whole statistics."
        )
    return compaction.stored_for_intervals(statistics, statistics.fold_decompositions, choice)


def _with_shares(parts: pd.DataFrame) -> pd.DataFrame:
    shares = {name: parts[part] / parts[whole] for name, (part, whole) in _SHARES.items()}
    return parts.assign(**shares)


def _n_occurrences(statistics: TokenStatistics, choice: Mapping) -> int:
    """Occurrences of all tokens, including those that compact statistics no longer list."""
    if statistics.decompositions is None:
        return int(statistics.n[choice["special"] | ~statistics.special].sum())
    return int(compaction.stored_decomposition(statistics, choice)["n"].iloc[0])


def _mean_dot_product(parts: pd.DataFrame, n: int | pd.Series) -> np.ndarray:
    """The mean dot product of distinct pairs: the unbiased M."""
    n = np.broadcast_to(np.asarray(n), len(parts))
    return analysis.unbiased(n, parts["M"].to_numpy(), parts["V"].to_numpy())[0]
