"""The groups of a corpus in shards: counted in parts where there are too many to hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import embvar_kit as ek
from embvar_kit.extraction import groups
from embvar_kit.extraction.shards import ShardedPass

SHARDS = 5


@pytest.fixture(scope="module")
def counted(minilm, tmp_path_factory) -> ShardedPass:
    """A pass whose words are counted, but not merged yet."""
    corpus = ek.load_corpus("wikipedia", sample=120, max_words=30)
    store = tmp_path_factory.mktemp("counted") / "store"
    job = ShardedPass.plan(store, minilm, corpus, shards=SHARDS, by="word", min_count=2)
    for shard in range(SHARDS):
        job.run("counts", shard, minilm)
    return job


def test_words_counted_in_parts_are_those_counted_at_once(counted, monkeypatch):
    whole = groups.merged_counts(counted)
    read, most_held = [], 0
    monkeypatch.setattr(
        ShardedPass,
        "read",
        lambda job, *which, inner=ShardedPass.read, **how: (
            read.append(which) or inner(job, *which, **how)
        ),
    )

    def hashes(labels, inner=groups._hashes):
        nonlocal most_held
        most_held = max(most_held, len(labels))
        return inner(labels)

    monkeypatch.setattr(groups, "_hashes", hashes)
    monkeypatch.setattr(groups, "_MOST_COUNTED", 100)
    in_parts = groups.merged_counts(counted)
    for found, wanted in zip(in_parts, whole, strict=True):
        np.testing.assert_array_equal(found, wanted)
    n_words = len(pd.unique(np.concatenate([_labels(counted, at) for at in range(SHARDS)])))
    assert len(whole[0]) < n_words
    assert len(read) % SHARDS == 0 and len(read) / SHARDS >= n_words / 100
    # Beside the words of one shard, no more are held than were allowed.
    assert most_held <= 100 + max(len(_labels(counted, at)) for at in range(SHARDS))


def _labels(job: ShardedPass, shard: int) -> np.ndarray:
    file = job.store.read_arrays(job.name("counts", shard), whole=True)
    return np.array(groups.strings_of(file, "label"), dtype=object)
