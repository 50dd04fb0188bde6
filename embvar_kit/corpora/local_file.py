"""A file on this machine: whether a name means one, and its text: a table, or lines."""

from __future__ import annotations

import os
from pathlib import Path

from embvar_kit.corpora.content import COMPRESSED, KINDS, Content, look
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.lined_tables import csv_table, is_json_lines, jsonl_table, refuse_csv
from embvar_kit.corpora.lines import paragraphs, text_lines
from embvar_kit.corpora.readers import split_records
from embvar_kit.corpora.tables import Table, parquet_table
from embvar_kit.corpora.taking import Taking
from embvar_kit.errors import CorpusError


def existing(name: str) -> Path:
    """The path of a file that can be opened.

    Raises:
        CorpusError: if there is none.
    """
    path = Path(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise CorpusError(
            f"There is no file {name!r} to read a corpus from. Check the path, or use "
            "'wikipedia', which needs no file."
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise CorpusError(f"{name!r} cannot be read: {error.strerror}.") from error
    return path


def names_a_file(name: str) -> bool:
    """Whether a name is that of a file, or has an ending that only files have."""
    return os.path.isfile(os.path.expanduser(name)) or bool(
        {".txt", *KINDS, *COMPRESSED} & {suffix.lower() for suffix in Path(name).suffixes[-1:]}
    )


def load_file(name: str, column: str, taking: Taking) -> Corpus:
    """The sentences of a file.

    Args:
        name: its path.
        column: name of the column with the text, if it is a table.
        taking: what to take of it.

    Raises:
        CorpusError: if it cannot be read, has no such column, or nothing is left of it.
    """
    content = look(existing(name))
    if (table := file_table(content, column)) is not None:
        return taking.of_table(content.name, table)
    records = text_lines(content)
    if taking.split_sentences:
        records = split_records(paragraphs(records), True, taking.language)
    return taking.of_records(content.name, records, "line")


def file_table(content: Content, column: str) -> Table | None:
    """The column of text of a file; ``None`` if it is no table, but lines of text.

    A file whose first line is a JSON object holds JSON lines, whatever its name.

    Raises:
        CorpusError: if the file cannot be read, has no such column, or is a CSV by another name.
    """
    if content.kind == "parquet":
        return parquet_table(content, column)
    if content.kind in ("csv", "tsv"):
        return csv_table(content, column)
    if content.kind == "jsonl" or is_json_lines(content):
        return jsonl_table(content, column)
    refuse_csv(content, column)
    return None
