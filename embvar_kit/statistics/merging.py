"""Two parts of a corpus: whether their statistics may be put together, and those of the whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import StatisticsError
from embvar_kit.models.identity import DIGESTS
from embvar_kit.moments import memory
from embvar_kit.moments.covariance import CovarianceMoments
from embvar_kit.statistics.geometry import overall_mean

if TYPE_CHECKING:
    from embvar_kit.moments.grouped import GroupedMoments
    from embvar_kit.statistics.token_statistics import TokenStatistics

_CONTROL = "parse_special"  # the convention of control tokens

_OF_DOCUMENTS = {"documents", "document_squares"}
"""Counts that do not add up over parts, because a document may be in both."""


def check_mergeable(ours: TokenStatistics, theirs: TokenStatistics) -> None:
    """Refuse statistics that were not measured alike, or that share a part of the corpus.

    Raises:
        StatisticsError: naming the difference.
    """
    both = (ours, theirs)
    if any("permuted" in statistics.info for statistics in both):
        raise StatisticsError(
            "A null cannot be merged: its labels were permuted over its part of the corpus only."
        )
    _check_alike(ours, theirs)
    for part in both:
        _check_whole(part)
    _check_distinct(ours.info["corpora"], theirs.info["corpora"])


def _check_alike(ours: TokenStatistics, theirs: TokenStatistics) -> None:
    """Refuse statistics of different models, conventions or layers."""
    for part in ("model", "convention"):
        one, other = ours.info[part], theirs.info[part]
        neutral = {"device"}  # where the pass ran does not change what it measured
        if part == "convention":
            one, other = (
                {**whole.info[part], _CONTROL: control_tokens_read(whole.info)}
                for whole in (ours, theirs)
            )
        elif not all(DIGESTS[0] in told for told in (one, other)):
            neutral |= set(DIGESTS)  # an older kit kept none
        for key in sorted((one.keys() | other.keys()) - neutral):
            if one.get(key) != other.get(key):
                raise StatisticsError(
                    f"Cannot merge statistics that differ in {part} {key}: {one.get(key)!r} "
                    f"and {other.get(key)!r}."
                )
    if not np.array_equal(ours.layers, theirs.layers):
        raise StatisticsError("Cannot merge statistics of different layers.")


def _check_whole(part: TokenStatistics) -> None:
    """Refuse statistics that lack something of the text that was measured."""
    if part.mean is None:
        raise StatisticsError(
            "Merging needs the token means, which were left out of these statistics."
        )
    if "partial" in part.info:
        raise StatisticsError(
            "Partial statistics cannot be merged: their pass was stopped, and which sentences "
            "it had run is unknown. Run the pass again, with a checkpoint to resume from."
        )
    if (least := part.info["convention"].get("min_count", 1)) > 1:
        raise StatisticsError(
            f"Statistics of the tokens with n_t >= {least} cannot be merged: a token that is "
            "rarer in one part was not measured there. Extract without min_count."
        )
    if left_out := part.info.get("left_out"):
        raise StatisticsError(
            f"Tokens were left out of these statistics ({', '.join(map(repr, left_out))}): "
            "merge first, then leave them out."
        )
    if "part_of_tokens" in part.info:
        raise StatisticsError(
            "These statistics hold a part of the tokens that were measured (take): merge "
            "first, then take them."
        )


def _check_distinct(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> None:
    """Refuse texts that share sentences, as their descriptions tell, or may share some."""
    for corpus in [*ours, *theirs]:
        if corpus["fingerprint"] is None:
            raise StatisticsError(
                f"Which sentences of {corpus['name']!r} were measured is unknown, so merging could "
                "count some of them twice. Read the statistics with their sentences "
                "(corpus=read_sentences(...)), or extract again."
            )
    for one, other in itertools.product(ours, theirs):
        if _overlap(one, other):
            raise StatisticsError(
                f"Both statistics contain the same part of corpus {other['name']!r}; merging "
                "them would count it twice."
            )


def _overlap(one: Mapping, other: Mapping) -> bool:
    """Whether two texts that were measured share sentences, as their descriptions tell.

    Shards of one dealing are the same or distinct. Those of different dealings of one text, and a
    shard and the whole, share sentences.
    """
    if one["fingerprint"] == other["fingerprint"]:
        return True
    dealt = [corpus.get("dealt", {}) for corpus in (one, other)]
    texts = [own.get("text", c["fingerprint"]) for own, c in zip(dealt, (one, other), strict=True)]
    if texts[0] != texts[1]:
        return False
    names = ("shards", "seed", "dealing")
    if any(dealt[0].get(name) != dealt[1].get(name) for name in names):
        return True
    chosen = [set(own.get("only", range(own.get("shards", 0)))) for own in dealt]
    return bool(chosen[0] & chosen[1])


def control_tokens_read(info: Mapping) -> bool:
    """Whether control tokens that the text spells out were read as control tokens.

    Kits that did not count them could not read them otherwise, and did not say so.
    """
    counted = "control_tokens_in_text" in info.get("counts", {})
    return bool(info.get("convention", {}).get(_CONTROL, not counted))


def merged(
    ours: TokenStatistics, theirs: TokenStatistics, *, whole_documents: bool
) -> TokenStatistics:
    """The statistics of two distinct parts together; see :meth:`TokenStatistics.add`.

    Raises:
        ExtractionError: if neither memory nor disk has room for the means.
    """
    parts = (ours, theirs)
    tokens = pd.Index(ours.tokens).union(pd.Index(theirs.tokens), sort=False)
    rows = [tokens.get_indexer(part.tokens) for part in parts]
    n = _summed([part.n for part in parts], rows, len(tokens))
    order = frequency_order(n, tokens.to_numpy())
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    tokens, n, rows = tokens.to_numpy()[order], n[order], [rank[of_part] for of_part in rows]

    special = np.zeros(len(tokens), dtype=bool)
    for part, of_part in zip(parts, rows, strict=True):
        special[of_part] = part.special
    subwords = None
    if ours.subwords is not None:
        subwords = _summed([part.subwords * part.n for part in parts], rows, len(n)) / n
    dropped = set() if whole_documents else _OF_DOCUMENTS
    counts = {
        name: _summed([part.counts[name] for part in parts], rows, len(n))
        for name in (ours.counts.keys() & theirs.counts.keys()) - dropped
    }
    from embvar_kit.moments.grouped import GroupedMoments  # compiled code: half a second to import

    n_layers, _, width = ours.mean.shape
    mean, extra = memory.allocate((n_layers, len(tokens), width))
    moments = []
    for at in range(n_layers):
        whole = GroupedMoments(len(tokens), width, mean=mean[at], extra=extra[at])
        for part, of_part in zip(parts, rows, strict=True):
            whole.merge(_moments_of(part, at), of_part)
        moments.append(whole)
    return ours.from_moments(
        moments,
        tokens=tokens,
        special=special,
        layers=ours.layers,
        mean=mean,
        extra=extra,
        info=merged_info(ours.info, theirs.info),
        subwords=subwords,
        counts=counts,
        covariance=_merged_covariance(parts),
    )


def _summed(values: Sequence[np.ndarray], rows: Sequence[np.ndarray], size: int) -> np.ndarray:
    """``(size,)`` sums over parts, each of which has some rows of the whole."""
    total = np.zeros(size, dtype=np.result_type(np.int64, *values))
    for value, of_part in zip(values, rows, strict=True):
        total[of_part] += value
    return total


def _moments_of(part: TokenStatistics, at: int) -> GroupedMoments:
    """The moments of a part's tokens at the layer of this index."""
    from embvar_kit.moments.grouped import GroupedMoments

    moments = GroupedMoments(len(part), part.mean.shape[-1])
    moments.load(
        np.arange(len(part)),
        count=part.n,
        mean=part.mean[at],
        Q=part.Q[at],
        V=part.V[at],
        extra=None if part.extra is None else part.extra[at],
    )
    return moments


def _merged_covariance(parts: Sequence[TokenStatistics]) -> np.ndarray | None:
    """``(L, d, d)`` covariance of the embeddings of all parts, if each part knows its own."""
    if any(part.covariance is None for part in parts):
        return None
    merged = []
    for at in range(len(parts[0].layers)):
        whole = CovarianceMoments(parts[0].covariance.shape[-1])
        for part in parts:
            n = int(part.n.sum())
            own = CovarianceMoments.of(n, overall_mean(part, at), part.covariance[at])
            whole.merge(own)
        merged.append(whole.covariance)
    return np.stack(merged)


def merged_info(ours: Mapping, theirs: Mapping) -> dict:
    """What was measured in two parts together."""
    info = {**ours, "corpora": [*ours["corpora"], *theirs["corpora"]]}
    # Digests that one part alone tells hold for the whole, so that no third part contradicts them.
    info["model"] = {**theirs["model"], **ours["model"]}
    parts = (ours, theirs)
    if any("environments" in part for part in parts):
        # None stands for what an older kit ran with.
        told = [one for part in parts for one in part.get("environments", [None])]
        info["environments"] = [one for at, one in enumerate(told) if one not in told[:at]]
    said = [note for part in parts for note in part["model"].get("notes", [])]
    if said:
        info["model"]["notes"] = list(dict.fromkeys(said))
    # What an older kit did not count is unknown for the whole, too.
    info["counts"] = {
        name: ours["counts"][name] + theirs["counts"][name]
        for name in ours["counts"]
        if name in theirs["counts"]
    }
    for key in ("sentences_by_words", "sentences_by_blanks"):
        lengths = [part[key] for part in parts if key in part]
        info.pop(key, None)
        if len(lengths) == 2:  # unknown for the whole if unknown for one part
            total = np.zeros(max(map(len, lengths)), dtype=np.int64)
            for found in lengths:
                total[: len(found)] += np.array(found, dtype=np.int64)  # of no sentence, empty
            info[key] = total.tolist()
    return info
