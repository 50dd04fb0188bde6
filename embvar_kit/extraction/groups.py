"""The groups of a corpus in shards: counted in each, numbered alike, and dealt out for a null."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embvar_kit.array_file import strings_of
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import ExtractionError, NothingLeftError
from embvar_kit.extraction.plan import Plan, with_null

if TYPE_CHECKING:
    from embvar_kit.extraction.shards import ShardedPass

_MOST_COUNTED = 4_000_000
"""Labels that are counted at a time: about a gigabyte of strings and numbers."""

_MOST_DEALT = 10**9
"""Occurrences whose labels NumPy can deal out at random."""


def merged_counts(job: ShardedPass) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups of all shards that are frequent enough, the most frequent first.

    A web corpus has more words than the memory holds, and most occur once. Where there are more
    than fit, those of one half of all hashes are counted first, then the others, and so on; each
    part reads all counts again.

    Args:
        job: the pass, whose shards are counted.

    Returns:
        ``(T,)`` labels, numbers of occurrences, and whether they are special tokens.

    Raises:
        DamagedShard: if the counts of a shard are missing or damaged.
        NothingLeftError: if no group occurs ``min_count`` times.
    """
    least = job.asked["min_count"]
    kept: dict[str, int] = {}
    special: set[str] = set()
    left = [(0, 1)]  # to count are the labels whose hash modulo the second number is the first
    while left:
        at, of = left.pop()
        n: dict[str, int] = {}
        for shard in range(job.n_shards):
            file = job.read("counts", shard, whole=True)
            labels = np.array(strings_of(file, "label"), dtype=object)
            special.update(labels[file["special"].astype(bool)])
            own = _hashes(labels) % of == at
            for label, count in zip(labels[own], file["n"][own].tolist(), strict=True):
                n[label] = n.get(label, 0) + count
            while len(n) > _MOST_COUNTED:
                left.append((at + of, 2 * of))
                of *= 2
                labels = np.array(list(n), dtype=object)
                n = {label: n[label] for label in labels[_hashes(labels) % of == at]}
        kept |= {label: count for label, count in n.items() if count >= least}
    if not kept:
        raise NothingLeftError(
            f"No {job.asked['by']} of corpus {job.asked['corpus']!r} occurs {least} times or "
            "more: take a lower min_count, or more text."
        )
    labels, counted = np.array(list(kept), dtype=object), np.array(list(kept.values()))
    order = frequency_order(counted, labels)
    is_special = np.array([label in special for label in labels[order]])
    return labels[order], counted[order], is_special


def _hashes(labels: np.ndarray) -> np.ndarray:
    return pd.util.hash_array(labels, categorize=False)


def deal_labels(job: ShardedPass, labels: np.ndarray, n: np.ndarray) -> None:
    """Deal the labels of all occurrences out to the shards, at random: those of the null.

    Each shard gets as many labels as it has occurrences, and permutes them over these; together
    that is a permutation over the whole corpus.

    Args:
        job: the pass, whose shards are counted.
        labels: ``(T,)`` the groups that are measured.
        n: ``(T,)`` their numbers of occurrences.

    Raises:
        DamagedShard: if the counts of a shard are missing or damaged.
        ExtractionError: if there are too many occurrences.
    """
    if (total := int(n.sum())) >= _MOST_DEALT:
        raise ExtractionError(
            f"null=True takes fewer than {_MOST_DEALT:,} occurrences, and corpus "
            f"{job.asked['corpus']!r} has {total:,}: measure the null of a part of it."
        )
    index, left = pd.Index(labels), n.copy()
    random = np.random.default_rng(job.asked["null_seed"])
    for shard in range(job.n_shards):
        file = job.read("counts", shard, whole=True)
        measured = index.get_indexer(strings_of(file, "label")) >= 0
        own = int(file["n"][measured].sum())
        dealt = random.multivariate_hypergeometric(left, own, method="marginals")
        left -= dealt
        group = np.flatnonzero(dealt)
        job.write(job.name("null", shard), {"group": group, "n": dealt[group]})


def with_dealt_labels(job: ShardedPass, work: Plan, shard: int) -> tuple[Plan, np.ndarray]:
    """A shard's plan with its null, and the groups of the null in the whole corpus.

    Args:
        job: the pass.
        work: the plan of the shard.
        shard: its number.

    Raises:
        CheckpointError: if what was dealt is missing, damaged or of another plan.
    """
    dealt = job.written(job.name("null", shard))
    group, n = dealt["group"], dealt["n"]
    labels = np.repeat(np.arange(len(group)), n)
    shuffled = np.random.default_rng([job.asked["null_seed"], shard]).permutation(labels)
    groups = job.groups
    special = groups["special"].to_numpy()[group]
    return with_null(work, shuffled, groups.index.to_numpy()[group], special), group
