"""Where sentences come from: the offline Wikipedia excerpt, files, or a dataset on the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from embvar_kit.corpora.bookcorpus import bookcorpus_table, paper_sample
from embvar_kit.corpora.corpus import Corpus, corpus_of, nothing_left
from embvar_kit.corpora.hub_dataset import hub_table
from embvar_kit.corpora.listing import is_pattern, list_files
from embvar_kit.corpora.local_file import load_file, names_a_file
from embvar_kit.corpora.parts import FileCorpus, StreamedCorpus, streamed
from embvar_kit.corpora.readers import numbered
from embvar_kit.corpora.tables import WithoutText
from embvar_kit.corpora.taking import Taking
from embvar_kit.corpora.wikipedia import read_wikipedia
from embvar_kit.errors import CorpusError
from embvar_kit.wording import did_you_mean, named

CORPORA = {
    "wikipedia": "104 English Wikipedia articles (CC BY-SA), offline, from gensim's test data",
    "bookcorpus": "the paper's sample of BookCorpus, 1 % of its lines, from the Hub",
    "bookcorpus:PATH": "the same from a copy: a parquet file, or a folder of them",
    "PATH.txt": "a UTF-8 text file, one sentence a line, or prose to be split",
    "PATH.jsonl": "a JSON object in each line, with a key for the text",
    "PATH.csv": "a table with a column of text, whose first line names the columns (.tsv: tabs)",
    "PATH.parquet": "a parquet file with a column of text",
    "PATH.*.gz": "any of these files compressed with gzip or zstd (.zst)",
    "DIR/*.parquet": "many files, here or at s3://..., read one at a time; also other patterns",
    "hub:NAME": "a dataset of the Hugging Face Hub, whole or streamed",
}
"""The names that :func:`load_corpus` takes, with a line on each."""


def load_corpus(
    name: str | Path,
    *,
    limit: int | None = None,
    max_words: int | None = None,
    sample: float | int | None = None,
    seed: int = 0,
    split_sentences: bool = False,
    language: str = "en",
    text_column: str = "text",
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    chunk: int = 50_000,
) -> Corpus | StreamedCorpus | FileCorpus:
    """Load sentences from the excerpt, a file or the Hub.

    Args:
        name: ``"wikipedia"``, ``"bookcorpus"`` or ``"bookcorpus:PATH"``, the path of a file, a
            pattern of many files (``"DIR/*.parquet"``, ``"s3://BUCKET/**/*.jsonl"``), or
            ``"hub:NAME"``. A file is UTF-8 text, JSON lines, CSV, TSV or parquet, as it is or
            compressed with gzip or zstd. Compression, parquet and JSON lines are known by the
            content, whatever the name. Lines end in LF, CR LF or CR.
        limit, max_words, sample, seed: see :meth:`Corpus.select`. From a table or dataset that is
            not split into sentences, ``sample`` draws rows, and blank ones among them are left
            out. Without ``sample``, nothing beyond the limit is read. BookCorpus is sampled as in
            the paper by default (``sample=0.01, max_words=63, seed=0``) and sorted by length: see
            :func:`embvar_kit.corpora.bookcorpus.paper_sample`.
        split_sentences: the text is prose: split each paragraph (text file) or row (table,
            dataset) into sentences with ``sentencex``. Otherwise a line or row is a sentence.
        language: language code of the prose, for ``sentencex``.
        text_column: name of the column with the text, in a table or dataset, or of the key in JSON
            lines. In these and in parquet ``"column.field"`` is a field inside a column. Rows
            whose text is missing or blank are left out and counted
            (:attr:`Corpus.without_text`); words such as ``nan`` and ``null`` are text.
        split, config, revision: split, configuration and revision of a Hub dataset.
        streaming: read a Hub dataset as a stream, planned and extracted in chunks.
        chunk: number of sentences in a chunk of a stream.

    Returns:
        A :class:`Corpus`; a :class:`StreamedCorpus` with ``streaming=True``; for a pattern a
        :class:`FileCorpus`, which takes ``max_words``, ``split_sentences``, ``language`` and
        ``text_column`` and reads its files when they are measured.

        Folds and shards are made of whole documents: an article, or a file of a pattern. Of one
        file, a run of 250 lines or rows is a document (or of 250 sentences, if it is split). To
        name documents yourself, make a :class:`Corpus` with titles.

    Raises:
        CorpusError: if the corpus is unknown, cannot be read (the message names the line), has no
            such column, or no sentence of it is left, or ``split``, ``config``, ``revision``,
            ``language`` or ``text_column`` is given where it chooses nothing.
    """
    name = str(name)
    if not isinstance(text_column, str):
        raise CorpusError(f"text_column must be the name of a column, got {text_column!r}.")
    if streaming and not name.startswith("hub:"):
        raise CorpusError(
            f"streaming=True reads a dataset of the Hub ('hub:NAME'), and {name!r} is none: leave "
            "out streaming=True."
        )
    if streaming and sample is not None:
        raise CorpusError(
            f"sample={sample} draws from a known number of sentences, which streaming=True does "
            "not have: leave out streaming=True, or take the first with limit= in place of sample=."
        )
    if name.partition(":")[0] == "bookcorpus" and not os.path.isfile(os.path.expanduser(name)):
        if changed := _chosen(
            split_sentences=split_sentences, language=language, split=split, config=config
        ):
            raise CorpusError(
                f"{name!r} is read as in the paper, by the lines of its train split: leave out "
                f"{named(changed)}, or read 'hub:bookcorpus/bookcorpus'."
            )
        drawn = {"sample": sample, "max_words": max_words, "limit": limit, "seed": seed}
        return _bookcorpus(name, text_column, revision, drawn)
    of_hub = _chosen(split=split, config=config, revision=revision)
    _refuse_without_effect(name, split_sentences, language, text_column, of_hub)
    taking = Taking(sample, seed, max_words, limit, split_sentences, language)
    limits = taking.limits  # arguments that make no sense are refused before anything is read
    if name == "wikipedia":
        return taking.of_records(name, numbered(read_wikipedia()), "sentence")
    if name.startswith("hub:"):
        table = hub_table(name[4:], text_column, split, config, revision, streaming)
        if table.n is None:
            return streamed(name, table, taking, chunk)
        return taking.of_table(name, table)
    if is_pattern(name):
        counted = {"sample": sample, "limit": limit}
        if counted := {key: value for key, value in counted.items() if value is not None}:
            raise CorpusError(
                f"Of many files, such as {name!r}, no sentences are drawn or counted before they "
                f"are read: leave out {named(counted)}, or name one file."
            )
        chosen = _chosen(
            split_sentences=split_sentences, language=language, text_column=text_column
        )
        return FileCorpus(name, list_files(name), chosen | limits)
    if names_a_file(name):
        return load_file(name, text_column, taking)
    near = did_you_mean(name, [known for known in CORPORA if known.isalpha()])
    problem = f"Unknown corpus {name!r}.{near}"
    if os.path.isdir(os.path.expanduser(name)):
        problem = f"{name!r} is a folder."
    raise CorpusError(
        f"{problem} Offline you can use 'wikipedia' or the path of a file (text, .jsonl, .csv "
        "or .parquet); 'bookcorpus' is the paper's sample, and 'hub:NAME' a dataset of the Hub."
    )


_USUAL = {
    "split_sentences": False,
    "language": "en",
    "text_column": "text",
    "split": "train",
    "config": None,
    "revision": None,
}


def _chosen(**given: object) -> dict[str, object]:
    """Those arguments of :func:`load_corpus` that were not left at what they are by default."""
    return {name: value for name, value in given.items() if value not in (None, _USUAL[name])}


def _refuse_without_effect(
    name: str,
    split_sentences: bool,
    language: str,
    text_column: str,
    of_hub: Mapping[str, object],
) -> None:
    """Refuse arguments that would change nothing: who gives them expects something else."""
    if of_hub and not name.startswith("hub:"):
        raise CorpusError(
            "Only a dataset of the Hub has a split, a configuration or a revision, and "
            f"{name!r} is not named as one: leave out {named(of_hub)}, or write 'hub:NAME'."
        )
    if language != "en" and not split_sentences:
        raise CorpusError(
            f"language={language!r} is for prose that is split into sentences: pass "
            "split_sentences=True, too, or leave out the language."
        )
    if name == "wikipedia" and text_column != "text":
        raise CorpusError(
            f"The excerpt 'wikipedia' has no columns: leave out text_column={text_column!r}."
        )


def _bookcorpus(
    name: str, text_column: str, revision: str | None, drawn: Mapping[str, float | int | None]
) -> Corpus:
    """The paper's sample of BookCorpus, or another one that ``drawn`` describes."""
    place = name[len("bookcorpus:") :] or None
    table, origin = bookcorpus_table(place, text_column, revision)
    left_out = WithoutText()
    taken, settings = paper_sample(table, left_out, **drawn)
    if not taken:
        raise nothing_left(name, settings)
    return corpus_of("bookcorpus", taken, "row", settings | origin, left_out)
