"""The paper's corpus: one line in a hundred of BookCorpus, drawn as in the authors' script.

The script (https://github.com/ymgw55/Norm-and-Variance, ``src/utils.py``) seeds NumPy's legacy
generator, draws ``int(0.01 * rows)`` rows of the ``train`` split without replacement, keeps those
with fewer than 64 words in the split's order, and sorts them stably by their number of words.
Single blanks separate words (``line.split(" ")``), and lines are not changed. The fingerprint of
this sample can therefore be compared with that of the sentences that the authors published
(:func:`embvar_kit.paper.release.read_sentences`).

On the Hub the dataset is defined by a script, which the ``datasets`` library no longer runs. The
rows are read directly from the parquet files that the Hub made of it (about 5 GB of text), on the
revision ``refs/convert/parquet``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np

from embvar_kit.corpora.content import look
from embvar_kit.corpora.hub_dataset import WITHOUT_NETWORK, why_not_from_hub
from embvar_kit.corpora.readers import Record, draw, given_limits
from embvar_kit.corpora.tables import Row, Table, WithoutText, parquet_table
from embvar_kit.errors import CorpusError, as_sentence

SAMPLE, MAX_WORDS = 0.01, 63
"""The paper's share of the lines, and the largest number of words in a line that is kept."""

REPOSITORY, REVISION, FILES = "bookcorpus/bookcorpus", "refs/convert/parquet", "plain_text/train"
"""Where the Hub keeps the parquet files: repository, revision and folder."""

ROWS = 74_004_228
"""Rows of the ``train`` split; with another number of rows, other rows would be drawn."""


def bookcorpus_table(place: str | None, column: str, revision: str | None) -> tuple[Table, dict]:
    """The rows of BookCorpus, and settings to record about their origin.

    Args:
        place: a parquet file, or a folder of them, which are read in the order of their names;
            ``None`` for the Hub, or what was downloaded from it before.
        column: name of the column with the text.
        revision: revision on the Hub; :data:`REVISION` by default.

    Raises:
        CorpusError: if the files are missing, incomplete or cannot be read.
    """
    origin = {}
    if place is not None:
        folder = Path(os.path.expanduser(place))
        files = [folder] if os.path.isfile(folder) else []
        if os.path.isdir(folder):
            files = sorted(folder.glob("*.parquet"))
        if not files:
            raise CorpusError(
                f"There is no parquet file {place!r}, nor a folder of that name with parquet "
                "files. 'bookcorpus:PATH' names a copy of BookCorpus on this machine."
            )
    else:
        folder = _downloaded(revision or REVISION)
        files = sorted((folder / FILES).glob("*.parquet"))
        origin = {"revision": folder.name}
    table = _joined([_parquet(file, column) for file in files])
    if place is None and table.n != ROWS:
        raise CorpusError(
            f"The Hub gave {table.n:,} rows of BookCorpus, not {ROWS:,}: some of its files are "
            "missing, or it has changed. The paper's sample cannot be drawn from them."
        )
    return table, origin


def _parquet(path: Path, column: str) -> Table:
    content = look(path)
    if content.kind != "parquet":
        raise CorpusError(
            f"{path.name!r} is not a parquet file, and only copies of BookCorpus as parquet are "
            "read with 'bookcorpus:PATH'. Leave out 'bookcorpus:' to read another corpus."
        )
    return parquet_table(content, column)


def paper_sample(
    table: Table,
    left_out: WithoutText,
    *,
    sample: float | int | None = None,
    max_words: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> tuple[list[Record], dict]:
    """Draw lines as in the paper.

    Args:
        table: the rows to draw from.
        left_out: counts rows without a value; blank lines are kept.
        sample: share (0.01 by default) or number of rows to draw.
        max_words: keep lines of at most this many words (63 by default).
        limit: keep only this many of those lines, the first in the table's order.
        seed: seed of the random draw.

    Returns:
        The records, sorted by their number of words, and the settings to record.

    Raises:
        CorpusError: if an argument makes no sense.
    """
    sample = SAMPLE if sample is None else sample
    limits = given_limits(MAX_WORDS if max_words is None else max_words, limit)
    size = sample
    if isinstance(sample, float) and 0 < sample < 1:
        size = int(sample * table.n)  # rounded down, as in the authors' script
    if not size:
        raise CorpusError(
            f"sample={sample!r} of {table.n:,} rows leaves no row: take a larger share."
        )
    kept, drawn = draw(table.n, size, seed)
    records = []
    for record in left_out.drop(table.read(kept), blank=False):
        if _words(record[2]) <= limits["max_words"]:
            records.append((_words(record[2]), record))
            if len(records) == limit:
                break
    records.sort(key=itemgetter(0))
    return [record for _, record in records], {**drawn, "sample": sample, **limits}


def _words(line: str) -> int:
    return len(line.split(" "))


def _joined(tables: list[Table]) -> Table:
    """Several tables as one, their rows numbered consecutively."""
    starts = np.cumsum([0, *(table.n for table in tables)])

    def read(kept: np.ndarray | None) -> Iterator[Row]:
        for table, first, end in zip(tables, starts[:-1], starts[1:], strict=True):
            own = None
            if kept is not None:
                own = kept[np.searchsorted(kept, first) : np.searchsorted(kept, end)] - first
                if not len(own):
                    continue
            for _, number, text in table.read(own):
                yield "bookcorpus", int(first) + number, text

    return Table(lambda: int(starts[-1]), read)


def _downloaded(revision: str) -> Path:
    """The folder of the files in the Hub's cache; its name is their commit."""
    from huggingface_hub import snapshot_download

    kept_from = why_not_from_hub(REPOSITORY, revision)
    try:
        folder = Path(
            snapshot_download(
                REPOSITORY,
                repo_type="dataset",
                revision=revision,
                allow_patterns=f"{FILES}/*.parquet",
                local_files_only=kept_from is not None,
            )
        )
        if not any((folder / FILES).glob("*.parquet")):
            raise FileNotFoundError(f"there is no parquet file in {FILES!r}")
    except Exception as error:  # the library raises many kinds; the user needs one message
        why = as_sentence(error)
        if kept_from == WITHOUT_NETWORK:
            why = "it was not downloaded before, and the Hub cannot be reached."
        elif kept_from:
            why = kept_from
        raise CorpusError(
            f"BookCorpus ({REPOSITORY}, revision {revision!r}) could not be loaded: {why} Name a "
            f"copy of its parquet files: 'bookcorpus:PATH'. {WITHOUT_NETWORK}"
        ) from error
    return folder
