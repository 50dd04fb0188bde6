"""The merge of the shards of a pass, layer by layer, and the folds that shards make up."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numba
import numpy as np

from embvar_kit.array_file import CheckpointFile
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import ExtractionError, NothingLeftError
from embvar_kit.extraction.folding import with_folds
from embvar_kit.extraction.in_folds import check_folds
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.measure import NULL, all_of_high_norm, at_site
from embvar_kit.extraction.options import whole_number
from embvar_kit.moments import memory
from embvar_kit.moments.covariance import CovarianceMoments
from embvar_kit.moments.grouped import GroupedMoments
from embvar_kit.statistics.merging import merged_info
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:
    from embvar_kit.extraction.shards import ShardedPass

_SLAB = 2**28  # most bytes of the layers that are merged at the same time


def merge(
    job: ShardedPass, only: Iterable[int] | None = None, folds: int | None = None
) -> dict[str, TokenStatistics]:
    """The statistics of the shards of a pass together; see :meth:`ShardedPass.merge`."""
    try:
        chosen = list(map(operator.index, range(job.n_shards) if only is None else only))
    except TypeError:
        chosen = []
    if not chosen or len(set(chosen) & set(range(job.n_shards))) < len(chosen):
        raise ExtractionError(
            f"only={chosen or only!r} must be different numbers of shards, from 0 to "
            f"{job.n_shards - 1}."
        )
    parts = [(shard, job.read("shards", shard)) for shard in chosen]
    if folds is not None and whole_number("folds", folds, 2) > len(chosen):
        raise ExtractionError(
            f"folds={folds!r} must be a whole number from 2 to {len(chosen)}, the number of shards."
        )
    merged = _Merge.of(job, parts, "")
    if folds is not None:
        merged.check_folds(folds)
    info = _info(job, [file.told for _, file in parts], None if only is None else chosen)
    null: dict[str, TokenStatistics] = {}
    if job.asked.get("null"):
        info |= {"null_seed": job.asked["null_seed"]}
        of_null = _Merge.of(job, parts, NULL)
        null = of_null.statistics({**info, "permuted": True}, {})
    return merged.statistics(info, null, folds)


@dataclass(frozen=True)
class _Merge:
    """The merge of some shards, with the labels as they are or permuted.

    Attributes:
        job: the pass.
        parts: the number and the file of each shard.
        prefix: before the names of its arrays: nothing, or :data:`NULL`.
        seen: ``(T,)`` the groups that occur, the most frequent first.
        rank: ``(G,)`` index in ``seen`` of each group, or -1.
        n: ``(T,)`` occurrences.
    """

    job: ShardedPass
    parts: Sequence[tuple[int, CheckpointFile]]
    prefix: str
    seen: np.ndarray
    rank: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, job: ShardedPass, parts: Sequence, prefix: str) -> _Merge:
        n = np.zeros(len(job.groups), dtype=np.int64)
        for shard, file in parts:
            n[job.array(file, shard, f"{prefix}group")] += job.array(file, shard, f"{prefix}n")
        seen = np.flatnonzero(n)
        if not len(seen):
            raise _nothing_left(job, parts)
        labels = job.groups.index.to_numpy()
        seen = seen[frequency_order(n[seen], labels[seen])]
        rank = np.full(len(n), -1)
        rank[seen] = np.arange(len(seen))
        return cls(job, parts, prefix, seen, rank, n[seen])

    def _array(self, part: tuple[int, CheckpointFile], name: str) -> np.ndarray:
        shard, file = part
        return self.job.array(file, shard, f"{self.prefix}{name}")

    def _rows(self, part: tuple[int, CheckpointFile]) -> np.ndarray:
        """Index in :attr:`seen` of each group of a shard."""
        return self.rank[self._array(part, "group")]

    def statistics(
        self, info: Mapping, null: Mapping[str, TokenStatistics], folds: int | None = None
    ) -> dict[str, TokenStatistics]:
        """The merged statistics by site.

        Args:
            info: what was measured.
            null: the statistics of the null by site, if there is one.
            folds: the number of folds to take out in turn, if any.
        """
        job, sites, layers = self.job, self.job.asked["sites"], self.job.manifest["layers"]
        width = job.manifest["width"]
        mean, extra = memory.allocate((len(sites), len(layers), len(self.seen), width))
        slabs = [(site, layer) for site in range(len(sites)) for layer in range(len(layers))]
        at_once = _SLAB // (len(self.seen) * width * memory.BYTES_PER_ELEMENT)
        threads = max(1, min(numba.get_num_threads(), at_once, len(slabs)))

        def merged(at: tuple[int, int]) -> GroupedMoments:
            return self._moments(f"{sites[at[0]]}/{layers[at[1]]}", mean[at], extra[at])

        with ThreadPoolExecutor(threads) as pool:
            held = list(pool.map(merged, slabs))
        counts, subwords = self._counts(), None
        if job.asked["by"] == "word":
            subwords = self._sum("subwords", weight="n") / self.n
        found = {}
        for at, site in enumerate(sites):
            statistics = TokenStatistics.from_moments(
                held[at * len(layers) : (at + 1) * len(layers)],
                tokens=job.groups.index.to_numpy()[self.seen],
                special=job.groups["special"].to_numpy()[self.seen],
                layers=np.array(layers),
                mean=mean[at],
                extra=extra[at],
                info=at_site(info, site),
                subwords=subwords,
                counts=counts,
                null=null.get(site),
                covariance=self._covariance(site),
            )
            if folds is not None:
                statistics = self._with_folds(statistics, site, folds)
            found[site] = statistics
        return found

    def _moments(self, name: str, mean: np.ndarray, extra: np.ndarray) -> GroupedMoments:
        """The merged moments of a site and layer, in the arrays for their means."""
        whole = GroupedMoments(*mean.shape, mean=mean, extra=extra)
        for part in self.parts:
            count = self._array(part, "n")
            if not len(count):
                continue
            state = {key: self._array(part, f"{name}/{key}") for key in GroupedMoments.STATE[1:]}
            own = GroupedMoments.from_state({"count": count, **state})
            whole.merge(own, self._rows(part))
        return whole

    def _covariance(self, site: str) -> np.ndarray | None:
        """``(L, d, d)`` covariance of all embeddings at a site, if the pass takes it."""
        if not self.job.asked.get("covariance") or self.prefix:
            return None
        merged = []
        for layer in self.job.manifest["layers"]:
            whole = CovarianceMoments(self.job.manifest["width"])
            for part in self.parts:
                if not len(self._array(part, "n")):
                    continue
                names = CovarianceMoments.STATE
                own = CovarianceMoments(whole.dim)
                own.restore({name: self._array(part, f"{site}/{layer}/{name}") for name in names})
                whole.merge(own)
            merged.append(whole.covariance)
        return np.stack(merged)

    def _counts(self) -> dict[str, np.ndarray]:
        """The further counts that all shards tell."""
        name = "null_counts" if self.prefix else "counts"
        told = [set(file.told.get(name, ())) for _, file in self.parts if file.told["tokens"]]
        names = set.intersection(*told) if told else set()
        return {name: self._sum(f"counts/{name}") for name in sorted(names)}

    def _sum(self, name: str, *, weight: str | None = None) -> np.ndarray:
        """``(T,)`` an array of the shards, summed over these."""
        total = np.zeros(len(self.seen), dtype=np.int64 if weight is None else np.float64)
        for part in self.parts:
            if len(rows := self._rows(part)):
                own = self._array(part, name)
                total[rows] += own if weight is None else own * self._array(part, weight)
        return total

    # Folds

    def check_folds(self, folds: int) -> None:
        """Refuse folds in which nothing was measured.

        Raises:
            ExtractionError: if there are some.
        """
        n = np.zeros(folds, dtype=np.int64)
        for at, part in enumerate(self.parts):
            n[at % folds] += self._array(part, "n").sum()
        check_folds(n)

    def _with_folds(self, statistics: TokenStatistics, site: str, folds: int) -> TokenStatistics:
        """Statistics with what is left of them without each fold, layer by layer.

        The i-th shard is in fold ``i % folds``.
        """
        rows = [self._rows(part) for part in self.parts]
        token = np.concatenate(rows)
        fold = np.repeat(np.arange(len(rows)) % folds, [len(own) for own in rows])
        order = np.lexsort((fold, token))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        ends = np.cumsum([len(own) for own in rows])
        places = zip(self.parts, np.split(place, ends[:-1]), strict=True)
        parts = [(part, at) for part, at in places if len(at)]

        kept: dict[str, np.ndarray] = {}

        def entries(name: str, layer: str = "") -> np.ndarray:
            """An array of all shards, in the order of groups; the next layer's takes its place."""
            for part, at in parts:
                own = self._array(part, f"{layer}{name}")
                if name not in kept:
                    kept[name] = np.empty((len(place), *own.shape[1:]), dtype=own.dtype)
                kept[name][at] = own
            return kept[name]

        count = entries("n")
        layers = (
            {"count": count}
            | {name: entries(name, f"{site}/{layer}/") for name in GroupedMoments.STATE[1:]}
            for layer in self.job.manifest["layers"]
        )
        return with_folds(
            statistics,
            layers,
            starts=np.searchsorted(token[order], np.arange(len(self.seen) + 1)),
            fold=fold[order],
            n_folds=folds,
            rows=np.arange(len(self.seen)),
        )


def _nothing_left(job: ShardedPass, parts: Sequence[tuple[int, CheckpointFile]]) -> Exception:
    """What to say of shards in which nothing was measured."""
    corpus = job.asked["corpus"]
    counts = [info["counts"] for _, file in parts if (info := file.told["info"])]
    if any(count.get("left_out_by_norm") for count in counts):
        return all_of_high_norm(corpus, LeaveOut.from_told(job.asked["leave_out"]))
    if not any(count["sentences"] for count in counts):
        where = "" if len(parts) == job.n_shards else " in these shards"
        return NothingLeftError(f"Corpus {corpus!r} yields no sentence{where}.")
    shards = ", ".join(str(shard) for shard, _ in parts)
    return NothingLeftError(
        f"No {job.asked['by']} that the pass over {corpus!r} measures occurs in shard {shards}: "
        "merge it with others."
    )


def _info(job: ShardedPass, told: Sequence[Mapping], only: list[int] | None) -> dict:
    """What was measured in some shards together."""
    info = reduce(merged_info, (part["info"] for part in told if part["info"]))
    text = job.manifest["corpus"]
    whole = {"name": text["name"], "settings": text["settings"]}
    together = json.dumps([part["fingerprint"] for part in told], sort_keys=True)
    of_text = hashlib.sha256(json.dumps(together).encode()).hexdigest()[:16]
    without_text = sum(part["without_text"] for part in told)
    # Which text was dealt, and how: parts of it are told from parts of another.
    names = ("shards", "seed", "text", "dealing")  # an older kit kept no dealing
    whole["dealt"] = {name: job.asked[name] for name in names if name in job.asked}
    if only is None:
        # The sentences of files are known only once they were read.
        of_text = text.get("fingerprint", of_text)
        without_text += text.get("without_text", 0)
    else:
        whole["dealt"]["only"] = only
    whole["fingerprint"] = of_text
    whole |= {"without_text": without_text} if without_text else {}
    return {**info, "corpora": [whole]}
