"""The text of a pass in shards: what the plan writes of it, and what workers read.

Of a corpus that is loaded, the sentences of each shard, so that workers need not have the corpus,
and measure the text that was planned. Of many files, their listing: workers read the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embvar_kit.array_file import strings_as_arrays, strings_of
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.dealing import documents_of
from embvar_kit.corpora.listing import Listing
from embvar_kit.corpora.parts import FileCorpus

if TYPE_CHECKING:
    from embvar_kit.extraction.shards import ShardedPass

_LISTING = "listing.safetensors"


def write_text(
    job: ShardedPass, corpus: Corpus | FileCorpus, shard_of: np.ndarray, *, new: bool
) -> None:
    """Write the text of each shard, or the listing of the files.

    Args:
        job: the pass.
        corpus: its corpus.
        shard_of: ``(D,)`` the shard of each document.
        new: whether the store is new; else only what is missing is written.

    Raises:
        CheckpointError: if the store cannot be written.
    """
    if isinstance(corpus, FileCorpus):
        if new or not job.store.has(_LISTING):
            job.write(_LISTING, _listing_as_arrays(corpus.listing, shard_of))
        return
    documents = documents_of(corpus)
    for shard in range(job.n_shards) if new else job.missing("text"):
        chosen = np.flatnonzero(shard_of == shard)
        arrays = _text_as_arrays(corpus, chosen) | {"document": documents[chosen]}
        job.write(job.name("text", shard), arrays)


def text_of(job: ShardedPass, shard: int) -> Corpus:
    """The sentences of a shard.

    Raises:
        CheckpointError: if their file is missing or damaged.
        CorpusError: if a file of the corpus cannot be read or has changed.
    """
    if _of_files(job):
        return files_of(job, shard).read()
    text, file = job.manifest["corpus"], job.written(job.name("text", shard))
    titles = strings_of(file, "title")
    return Corpus(
        text["name"],
        strings_of(file, "sentence"),
        [titles[at] for at in file["source"]],
        file["position"],
        text["unit"],
        text["settings"],
    )


def documents_in(job: ShardedPass, shard: int) -> np.ndarray | None:
    """``(N,)`` the document of each sentence of a shard, as in the whole; ``None`` for files.

    Raises:
        CheckpointError: if their file is missing or damaged.
    """
    return None if _of_files(job) else job.written(job.name("text", shard))["document"]


def files_of(job: ShardedPass, shard: int) -> FileCorpus:
    """The files of a shard.

    Raises:
        CheckpointError: if the listing is missing or damaged.
    """
    listing, text = job.written(_LISTING), job.manifest["corpus"]
    paths, stamps = strings_of(listing, "path"), strings_of(listing, "stamp")
    own = np.flatnonzero(listing["shard"] == shard)
    chosen = Listing([paths[i] for i in own], listing["size"][own], [stamps[i] for i in own])
    return FileCorpus(text["name"], chosen, text["settings"])


def check_text(job: ShardedPass) -> None:
    """Check that this machine sees the corpus: of many files, the first.

    Raises:
        CorpusError: if it cannot be read.
        CheckpointError: if the listing is missing or damaged.
    """
    if _of_files(job):
        files_of(job, 0).check_first()


def _of_files(job: ShardedPass) -> bool:
    return "files" in job.manifest["corpus"]


def _listing_as_arrays(listing: Listing, dealt: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {"size": listing.sizes, "shard": dealt}
    arrays |= strings_as_arrays(listing.paths, "path")
    return arrays | strings_as_arrays(listing.stamps, "stamp")


def _text_as_arrays(corpus: Corpus, chosen: np.ndarray) -> dict[str, np.ndarray]:
    titles: dict[str, int] = {}
    source = [titles.setdefault(corpus.titles[i], len(titles)) for i in chosen]
    arrays = {"source": np.array(source, dtype=np.int64), "position": corpus.positions[chosen]}
    arrays |= strings_as_arrays(list(titles), "title")
    return arrays | strings_as_arrays([corpus.sentences[i] for i in chosen], "sentence")
