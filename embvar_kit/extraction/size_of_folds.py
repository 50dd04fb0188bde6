"""What a pass in folds will take of disk and memory, told before the model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from embvar_kit.extraction.one_shard import groups_of_first
from embvar_kit.moments.memory import BYTES_PER_ELEMENT
from embvar_kit.statistics.folds import Folds

if TYPE_CHECKING:
    from embvar_kit.extraction.shards import ShardedPass
    from embvar_kit.models.loading import EmbeddingModel

_SUMS = 2 * 8  # bytes of a group's sums of squared norms and of squared deviations


class SizeOfFolds(NamedTuple):
    """Bytes that a pass in folds takes.

    Attributes:
        files: of the states of all shards, until they are merged; about, from the first shard.
        means: of the means of all groups, those of a null included; at most.
        layer: of the states of a layer, which are read at once when folds are taken out; about.
        folds: of what the result keeps of the folds; at most.
    """

    files: int
    means: int
    layer: int
    folds: int

    def __str__(self) -> str:
        files, means, layer, folds = (f"{size / 1e6:,.0f} MB" for size in self)
        return (
            f"files      about {files} until the folds are merged\n"
            f"memory     at most {means} for the means and {folds} for the folds; about {layer} "
            "more while they are merged"
        )


def size_of_folds(job: ShardedPass, model: EmbeddingModel, folds: int) -> SizeOfFolds:
    """What a pass takes. Files are judged by the first shard: all are of about equal size.

    Args:
        job: the pass; where its groups have to be counted first, they were.
        model: the model; it tokenizes the first shard if nothing was counted.
        folds: the number of folds.

    Raises:
        DamagedShard, CheckpointError: if what was counted is damaged.
    """
    in_shard, of_null = groups_of_first(job, model)
    sites, layers = len(job.asked["sites"]), len(job.manifest["layers"])
    mean = job.manifest["width"] * BYTES_PER_ELEMENT
    return SizeOfFolds(
        files=sites * layers * job.n_shards * (in_shard + of_null) * (mean + _SUMS),
        means=sites * layers * len(job.groups) * mean * (2 if "null" in job.asked else 1),
        layer=job.n_shards * in_shard * (mean + _SUMS),
        folds=sites * Folds.bytes_of(len(job.groups), folds, layers),
    )
