"""Two parts of a corpus made one: may their statistics be merged, and what comes of it.

The statistics are :class:`embvar_kit.statistics.TokenStatistics`, which this module serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit import means
from embvar_kit.errors import StatisticsError
from embvar_kit.moments import GroupedMoments
from embvar_kit.tokens import frequency_order


def check(ours: Any, theirs: Any) -> None:
    """Refuse two that were not measured alike, or that share a part of the corpus.

    Raises:
        StatisticsError: naming the difference.
    """
    for part in ("model", "convention"):
        one, other = ours.info[part], theirs.info[part]
        for key in one.keys() | other.keys():
            # Where the pass ran does not change what it measured.
            if key != "device" and one.get(key) != other.get(key):
                raise StatisticsError(
                    f"Cannot merge statistics that differ in {part} {key}: {one.get(key)!r} "
                    f"and {other.get(key)!r}."
                )
    if not np.array_equal(ours.layers, theirs.layers):
        raise StatisticsError("Cannot merge statistics of different layers.")
    for statistics in (ours, theirs):
        if statistics.mean is None:
            raise StatisticsError("Merging needs the token means, which were left out here.")
        if "partial" in statistics.info:
            raise StatisticsError(
                "A partial result is not merged: the pass was stopped, and which sentences it had "
                "run is not known. Run it again, with a checkpoint to go on from."
            )
        if (least := statistics.info["convention"].get("min_count", 1)) > 1:
            raise StatisticsError(
                f"Statistics of the tokens with n_t >= {least} are not merged: one that is rarer "
                "in a part would lack what was not measured. Extract without min_count."
            )
        if left_out := statistics.info.get("left_out"):
            raise StatisticsError(
                f"Tokens were left out of these statistics ({', '.join(map(repr, left_out))}): "
                "merge first, then leave them out."
            )
    for corpus in [*ours.info["corpora"], *theirs.info["corpora"]]:
        if corpus["fingerprint"] is None:
            raise StatisticsError(
                f"Which sentences of {corpus['name']!r} were measured is not known, so that "
                "merging could count some twice. Read the statistics with their sentences "
                "(corpus=read_sentences(...)), or extract again."
            )
    there = {corpus["fingerprint"] for corpus in ours.info["corpora"]}
    for corpus in theirs.info["corpora"]:
        if corpus["fingerprint"] in there:
            raise StatisticsError(
                f"Both statistics contain the same part of corpus {corpus['name']!r}; merging "
                "them would count it twice."
            )


def combine(ours: Any, theirs: Any) -> dict[str, Any]:
    """What :meth:`TokenStatistics.from_moments` takes, for the two together."""
    tokens = pd.Index(ours.tokens).union(pd.Index(theirs.tokens), sort=False)
    own, added = tokens.get_indexer(ours.tokens), tokens.get_indexer(theirs.tokens)
    special = np.zeros(len(tokens), dtype=bool)
    special[own], special[added] = ours.special, theirs.special
    n = np.zeros(len(tokens), dtype=np.int64)
    n[own] += ours.n
    n[added] += theirs.n
    order = frequency_order(n, tokens.to_numpy())
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    subwords = None
    if ours.subwords is not None:
        total = np.zeros(len(tokens))
        total[own] += ours.subwords * ours.n
        total[added] += theirs.subwords * theirs.n
        subwords = (total / n)[order]
    n_layers, _, width = ours.mean.shape
    mean, extra = means.allocate((n_layers, len(tokens), width))
    moments = []
    for at in range(n_layers):
        whole = GroupedMoments(len(tokens), width, mean=mean[at], extra=extra[at])
        whole.load(rank[own], **_of_layer(ours, at))
        part = GroupedMoments(len(tokens), width)
        part.load(rank[added], **_of_layer(theirs, at))
        whole.merge(part)
        moments.append(whole)
    return {
        "moments": moments,
        "tokens": tokens.to_numpy()[order],
        "special": special[order],
        "layers": ours.layers,
        "mean": mean,
        "extra": extra,
        "info": _info(ours.info, theirs.info),
        "subwords": subwords,
    }


def _of_layer(statistics: Any, at: int) -> dict[str, np.ndarray | None]:
    return {
        "count": statistics.n,
        "mean": statistics.mean[at],
        "Q": statistics.Q[at],
        "V": statistics.V[at],
        "extra": None if statistics.extra is None else statistics.extra[at],
    }


def _info(ours: Mapping, theirs: Mapping) -> dict:
    info = {**ours, "corpora": [*ours["corpora"], *theirs["corpora"]]}
    info["counts"] = {
        name: ours["counts"][name] + theirs["counts"][name] for name in ours["counts"]
    }
    key = "sentences_by_words"
    lengths = [part[key] for part in (ours, theirs) if key in part]
    info.pop(key, None)
    if len(lengths) == 2:  # where the lengths of one part are not known, those of the whole are not
        total = np.zeros(max(map(len, lengths)), dtype=np.int64)
        for found in lengths:
            total[: len(found)] += found
        info[key] = total.tolist()
    return info
