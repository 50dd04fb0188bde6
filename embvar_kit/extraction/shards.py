"""Shards: fixed parts of a corpus, measured one by one, here or elsewhere, and merged.

A shard is a set of whole documents, dealt out by a rule that depends on the corpus alone. Its state
is a file of the moments of the groups that occur in it. A shard's file follows from model, text and
settings, so that it does not matter which worker makes it, nor how often. The result is the merge
of all shards, in their order, layer by layer: its bits depend neither on the number of workers nor
on what was interrupted, and no more layers are merged at a time than there are threads.

A store (:mod:`embvar_kit.extraction.store`) holds:

- ``manifest.json``: what was asked for;
- ``text/``: the sentences of each shard, so that workers need not have the corpus, and measure the
  text that was planned; or, for a corpus of many files, their ``listing.safetensors``: workers read
  the files themselves;
- ``counts/``: where the groups are not known before, those that occur in each shard;
- ``groups.safetensors``: the groups of the whole corpus, which all shards number alike;
- ``shared.safetensors``: the strings that several vocabulary entries share;
- ``shards/``: the states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from embvar_kit.array_file import CheckpointFile, compare, strings_as_arrays, strings_of
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.dealing import deal, documents_of
from embvar_kit.corpora.parts import FileCorpus
from embvar_kit.corpora.tokens import group_vocabulary
from embvar_kit.errors import (
    CheckpointError,
    DamagedFileError,
    ExtractionError,
)
from embvar_kit.extraction.checkpoint import settings_of
from embvar_kit.extraction.forward import norms_for
from embvar_kit.extraction.groups import deal_labels, merged_counts
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.merging import merge
from embvar_kit.extraction.one_shard import make
from embvar_kit.extraction.options import (
    check_leave_out,
    check_no_names,
    check_options,
    chosen_layers,
    whole_number,
)
from embvar_kit.extraction.plan import NULL_SEED
from embvar_kit.extraction.shard_text import text_of, write_text
from embvar_kit.extraction.store import Store
from embvar_kit.models.loading import EmbeddingModel, load_model
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import number_of

FORMAT = 1
PHASES = ("counts", "shards")
"""The folders of a store that workers fill: the groups of each shard, and the states."""

_GROUPS = "groups.safetensors"
_SHARED = "shared.safetensors"
_REMEDY = "Use the settings it was planned with, or name another store."


class DamagedShard(CheckpointError):
    """The file of a shard is missing or damaged.

    Attributes:
        phase: its folder.
        index: its number.
    """

    def __init__(self, message: str, phase: str, index: int) -> None:
        super().__init__(message)
        self.phase, self.index = phase, index


@dataclass(frozen=True)
class ShardedPass:
    """A pass over a corpus in shards, as planned in a store.

    Attributes:
        store: where its files are.
        manifest: what was asked for.
    """

    store: Store
    manifest: Mapping[str, Any]

    # The plan

    @classmethod
    def plan(
        cls,
        store: str | Path,
        model: EmbeddingModel,
        corpus: Corpus | FileCorpus,
        *,
        shards: int,
        seed: int = 0,
        threads: int | None = None,
        usual_threads: int | None = None,
        sites: Sequence[str] = ("hidden",),
        by: str = "token",
        layers: Iterable[int] | None = None,
        batch_tokens: int | None = None,
        long: str = "split",
        min_count: int = 1,
        parse_special: bool = False,
        leave_out: LeaveOut | None = None,
        null: bool = False,
        covariance: bool = False,
    ) -> ShardedPass:
        """Write what is asked for, and the text of each shard, to a store; or find it there.

        Args:
            store: a folder, or a path that fsspec understands.
            model, corpus: the model and the corpus.
            shards: number of shards.
            seed: seed of the dealing of documents.
            threads: number of threads that measure a shard on a CPU, on whatever machine: sums of
                small matrices are rounded differently by another number. By default that of a plan
                in the store.
            usual_threads: their number where neither says it; by default PyTorch's here.
            sites: where in the model embeddings are taken.
            by, layers, batch_tokens, long, min_count, parse_special, leave_out, null, covariance:
                as in :func:`embvar_kit.extract`, but for a factor of the norm: its bounds are found
                before (:func:`embvar_kit.find_bounds`), the same for all shards.

        Raises:
            ExtractionError: if an argument makes no sense, or a layer lacks the normalization that
                a site needs.
            CheckpointError: if the store holds another pass (the message names what differs), or
                cannot be written.
            CorpusError: if there are fewer documents than shards.
        """
        if not isinstance(corpus, Corpus | FileCorpus):
            raise ExtractionError(
                f"A pass in shards takes a corpus that is loaded whole, or many files, not "
                f"{corpus!r}: load it without streaming=True, or name its files by a pattern."
            )
        check_no_names(model, corpus)
        batch_tokens, min_count = check_options(by, batch_tokens, long, min_count)
        taken = chosen_layers(model, layers)
        norms_for(model, sites, taken)
        check_leave_out(leave_out, taken, null=null)
        threads = None if threads is None else whole_number("threads", threads)
        store = Store(store)
        options = {
            "by": by,
            "layers": None if layers is None else list(taken),  # -1 is the last one's number
            "batch_tokens": batch_tokens,
            "long": long,
            "min_count": min_count,
            "parse_special": parse_special,
            "leave_out": leave_out and leave_out.told(),
            **({"null": True, "null_seed": NULL_SEED} if null else {}),
            **({"covariance": True} if covariance else {}),
        }
        if isinstance(corpus, FileCorpus):
            documents, sizes = np.arange(len(corpus)), corpus.listing.sizes
        else:
            documents = documents_of(corpus)
            sizes = np.bincount(documents, weights=[len(one) for one in corpus.sentences])
        dealt = deal(sizes, shards, seed)
        asked = {
            **json.loads(json.dumps(settings_of(model, corpus.name, list(sites), options))),
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "text": corpus.fingerprint,
            # Titles make documents: the same sentences under other titles are dealt otherwise.
            "dealing": _digest_of(documents, dealt[documents]),
            "shards": int(shards),
            "seed": int(seed),
            "threads": threads,
        }
        manifest = {
            "format": FORMAT,
            "asked": asked,
            "model": model.source,
            "corpus": {"name": corpus.name, "settings": dict(corpus.settings), **_known(corpus)},
            "documents": np.bincount(dealt, minlength=shards).tolist(),
            "layers": list(taken),
            "width": model.width,
        }
        with store.held():
            if store.has("manifest.json"):
                job = cls.open(store)
                if threads is None:
                    asked["threads"] = job.asked["threads"]
                if any(asked[name] != job.asked[name] for name in ("text", "shards", "seed")):
                    asked["dealing"] = job.asked.get("dealing")  # another follows from these
                _compare(asked, job.asked, store)
                new = False
            else:
                if any(store.names(folder) for folder in PHASES):
                    raise CheckpointError(
                        f"{store.url!r} holds shards of a pass whose manifest.json is missing. "
                        "Name another store."
                    )
                store.check_writable()
                asked["threads"] = threads or usual_threads or torch.get_num_threads()
                job = cls(store, {**manifest, "sha256": _digest(manifest)})
                new = True
            write_text(job, corpus, dealt[documents], new=new)
            if job.counts_first:
                if new:
                    store.remove(_GROUPS)
            elif new or not store.has(_GROUPS):
                vocabulary = group_vocabulary(model.tokenizer, by)
                job._write_groups(vocabulary.labels, vocabulary.special)
            if new and by != "word":
                shared = group_vocabulary(model.tokenizer, by).shared.tolist()
                job.write(_SHARED, strings_as_arrays(shared, "label"))
            elif new:  # a plan that did not come to its end may have left one
                store.remove(_SHARED)
            if new:  # last: a store without a manifest was never planned to the end
                store.write_json("manifest.json", job.manifest)
        return job

    @classmethod
    def open(cls, store: str | Path | Store) -> ShardedPass:
        """The pass that was planned in a store.

        Raises:
            CheckpointError: if there is none, or its manifest is damaged or of a newer kit.
        """
        store = store if isinstance(store, Store) else Store(store)
        if not store.has("manifest.json"):
            raise CheckpointError(
                f"{store.url!r} holds no pass in shards. Plan one with: embvar shard plan"
            )
        manifest = store.read_json("manifest.json")
        if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _digest(manifest):
            raise CheckpointError(
                f"The manifest of {store.url!r} is damaged or was altered. Plan the pass again, in "
                "another store."
            )
        if manifest.get("format", FORMAT + 1) > FORMAT:
            raise CheckpointError(f"{store.url!r} was planned by a newer kit: update embvar-kit.")
        return cls(store, {**manifest, "sha256": _digest(manifest)})

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the result depends on, by name."""
        return self.manifest["asked"]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return self.asked["shards"]

    @property
    def counts_first(self) -> bool:
        """Whether the groups must be counted before any is measured."""
        asked = self.asked
        return asked["by"] == "word" or asked["min_count"] > 1 or "null" in asked

    @property
    def phases(self) -> tuple[str, ...]:
        """The folders that are to be filled, in order."""
        return PHASES if self.counts_first else PHASES[1:]

    def name(self, folder: str, shard: int) -> str:
        """The file of a shard in a folder."""
        return f"{folder}/{shard:05}-of-{self.n_shards:05}.safetensors"

    def missing(self, phase: str) -> list[int]:
        """The shards that a phase has not made yet."""
        there = self.store.names(phase)
        return [
            shard
            for shard in range(self.n_shards)
            if self.name(phase, shard).rpartition("/")[2] not in there
        ]

    def phase(self) -> str:
        """The phase that is to be filled now; the counts are merged as soon as all are there.

        Raises:
            DamagedShard: if the counts of a shard are damaged.
        """
        if self.counts_first and (
            not self.store.has(_GROUPS) or ("null" in self.asked and self.missing("null"))
        ):
            if self.missing("counts"):
                return "counts"
            self.merge_counts()
        return "shards"

    def __str__(self) -> str:
        left = len(self.missing("shards"))
        done = f"{self.n_shards - left:,} of {self.n_shards:,} done"
        return f"{self.summary()}\nstore      {self.store.url}: {done}"

    def summary(self) -> str:
        """What is measured, a line each."""
        asked = self.asked
        documents = number_of(sum(self.manifest["documents"]), "document")
        rows = [
            ("pass", f"{asked['model']} over {self.manifest['corpus']['name']}, by {asked['by']}"),
            ("shards", f"{self.n_shards:,} of {documents}"),
        ]
        if told := asked.get("leave_out"):
            rows.append(("left out", str(LeaveOut.from_told(told))))
        if "null" in asked:
            rows.append(("null", "labels permuted over the corpus, measured in the same pass"))
        return "\n".join(f"{name:<9}  {what}" for name, what in rows)

    # One shard

    def text(self, shard: int) -> Corpus:
        """The sentences of a shard.

        Raises:
            CheckpointError: if its file is missing or damaged.
        """
        return text_of(self, shard)

    def write(
        self, name: str, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any] | None = None
    ) -> None:
        """Write a file of the pass, marked as its own.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self.store.write_arrays(name, arrays, {**(told or {}), "pass": self.manifest["sha256"]})

    def written(self, name: str) -> CheckpointFile:
        """A file of the plan.

        Raises:
            CheckpointError: if it is missing, damaged, or of another plan.
        """
        remedy = "Remove it, and plan the pass again with the same arguments and the same store."
        try:
            file = self.store.read_arrays(name, whole=True)
        except DamagedFileError as error:
            raise DamagedFileError(
                f"{name!r} in {self.store.url!r} is missing or damaged. {remedy}"
            ) from error
        if file.told.get("pass") != self.manifest["sha256"]:
            raise CheckpointError(f"{name!r} in {self.store.url!r} is of another plan. {remedy}")
        return file

    def load_model(self) -> EmbeddingModel:
        """The model that the pass was planned with, loaded as this process can.

        Raises:
            ModelError: if it cannot be loaded here.
            ExtractionError: if it was made or changed in the memory of another process.
            CheckpointError: if it is another one.
        """
        self.require_source()
        return self.as_planned(load_model(device=self.asked["device"], **self.manifest["model"]))

    def as_planned(self, model: EmbeddingModel) -> EmbeddingModel:
        """A model as it was loaded, with what was set of it before the pass was planned.

        Where batches are kept apart by hand, they are here, too; what short sentences showed here
        and not there stays, and is refused.

        Raises:
            CheckpointError: if it is another one.
        """
        asked = self.asked
        model = replace(
            model,
            max_tokens=asked["max_tokens"],
            begin=tuple(asked.get("begin", model.begin)),  # an older kit kept none
            end=tuple(asked.get("end", model.end)),
            ignores_padding=model.ignores_padding and asked.get("ignores_padding", True),
            shares_batches=model.shares_batches and asked.get("shares_batches", True),
        )
        self.check_model(model)
        return model

    def require_source(self) -> None:
        """Refuse a model that no other process can load.

        Raises:
            ExtractionError: if it was made or changed in the memory of this or another process.
        """
        if self.manifest["model"] is None:
            raise ExtractionError(
                f"The model {self.asked['model']!r} was made or changed in this process or the one "
                "that planned the pass, so others cannot load it. Save it to a folder that they "
                "see, and plan with the model from there."
            )

    def check_model(self, model: EmbeddingModel) -> None:
        """Check that a model is the one that the pass was planned with.

        Raises:
            CheckpointError: naming what differs.
        """
        own = {
            **settings_of(model, self.asked["corpus"], self.asked["sites"], {}),
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
        }
        _compare(own, {name: self.asked.get(name) for name in own}, self.store)

    def run(self, phase: str, shard: int, model: EmbeddingModel, **how: Any) -> dict[str, Any]:
        """Make the file of a shard, unless it is there.

        Args:
            phase: ``"counts"`` or ``"shards"``.
            shard: its number.
            model: the model, as :meth:`check_model` takes it.
            how: ``progress=`` to print a bar; ``checkpoint_every=`` to keep, in a local store, the
                progress inside the shard so many seconds apart.

        Returns:
            ``tokens``: number of tokens in the shard; 0 if the file was there.
        """
        name = self.name(phase, shard)
        if self.store.has(name):
            return {"shard": shard, "tokens": 0}
        return {"shard": shard, "tokens": make(self, phase, shard, model, **how)}

    # The groups of the whole corpus

    @cached_property
    def groups(self) -> pd.DataFrame:
        """The groups that are measured, by label: ``special``, whether they are special tokens.

        Raises:
            CheckpointError: if they were not counted yet, or their file is damaged.
        """
        file = self.written(_GROUPS)
        index = pd.Index(strings_of(file, "label"), dtype=object)
        return pd.DataFrame({"special": file["special"].astype(bool)}, index=index)

    @property
    def shared(self) -> list[str]:
        """The strings that several vocabulary entries share; none of words, or of an older kit.

        Raises:
            CheckpointError: if their file is damaged.
        """
        return strings_of(self.written(_SHARED), "label") if self.store.has(_SHARED) else []

    def merge_counts(self) -> None:
        """Make the table of groups, and deal labels for a null, from the counts of all shards.

        Raises:
            DamagedShard: if the counts of a shard are missing or damaged.
            ExtractionError: if no group is frequent enough.
        """
        labels, n, special = merged_counts(self)
        if "null" in self.asked:
            deal_labels(self, labels, n)
        self._write_groups(labels, special)

    def _write_groups(self, labels: np.ndarray, special: np.ndarray) -> None:
        arrays = {
            "special": special.astype(np.uint8),
            **strings_as_arrays(labels.tolist(), "label"),
        }
        self.write(_GROUPS, arrays)

    # The whole

    def merge(
        self, only: Iterable[int] | None = None, folds: int | None = None
    ) -> dict[str, TokenStatistics]:
        """The statistics of all shards together, or of some, by site.

        Args:
            only: the shards to merge, in this order; by default all of them.
            folds: keep what is left without each of so many folds of shards, too.

        Raises:
            DamagedShard: if a shard is missing or damaged.
            ExtractionError: if nothing was measured, there is no room for the means, there is
                no shard of such a number, ``folds`` is not from 2 to the number of shards, or
                nothing was measured in some fold.
        """
        return merge(self, only, folds)

    def read(self, phase: str, shard: int, **how: bool) -> CheckpointFile:
        """The file of a shard.

        Raises:
            DamagedShard: if it is missing or damaged.
            CheckpointError: if it is of another pass.
        """
        try:
            file = self.store.read_arrays(self.name(phase, shard), **how)
        except DamagedFileError as error:
            raise self._damaged(phase, shard) from error
        if file.told.get("pass") != self.manifest["sha256"]:
            raise CheckpointError(
                f"{self.name(phase, shard)!r} in {self.store.url!r} belongs to another pass. Move "
                "it away, or name another store."
            )
        return file

    def array(self, file: CheckpointFile, shard: int, name: str) -> np.ndarray:
        """An array of the state of a shard, from its file.

        Raises:
            DamagedShard: if it is damaged.
        """
        try:
            return file[name]
        except DamagedFileError as error:
            raise self._damaged("shards", shard) from error

    def _damaged(self, phase: str, shard: int) -> DamagedShard:
        return DamagedShard(
            f"{self.name(phase, shard)!r} in {self.store.url!r} is missing or damaged. Remove "
            f"it and measure shard {shard} again: embvar shard run {self.store.url} --index "
            f"{shard}.",
            phase,
            shard,
        )


def _compare(asked: Mapping[str, Any], found: Mapping[str, Any], store: Store) -> None:
    compare(asked, found, f"The pass in {store.url!r}", _REMEDY)


def _known(corpus: Corpus | FileCorpus) -> dict[str, Any]:
    """What is known of a corpus before its text is measured."""
    if isinstance(corpus, FileCorpus):
        return {"files": len(corpus)}
    known = {"fingerprint": corpus.fingerprint, "unit": corpus.unit}
    return known | {"without_text": corpus.without_text}


def _digest(manifest: Any) -> str:
    canonical = json.dumps(manifest, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:16]


def _digest_of(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<i8"))
    return digest.hexdigest()[:16]
