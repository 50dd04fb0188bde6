"""Reading text from files and datasets: records of title, position and text, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from embvar_kit.errors import CorpusError

Record = tuple[str, int, str]
"""Where a text came from, its number there (from 1), and the text."""


def numbered(pairs: Iterable[tuple[str, str]]) -> Iterator[Record]:
    """Number the sentences of each title from 1."""
    current, number = None, 0
    for title, sentence in pairs:
        number = number + 1 if title == current else 1
        current = title
        yield title, number, sentence


def existing(name: str) -> Path:
    """The path of a file, or a clear refusal."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise CorpusError(f"There is no file {name!r} to read a corpus from.")
    return path


def text_lines(path: Path) -> Iterator[Record]:
    """Lines that are not blank. Bytes are split first, so that a bad one can be named by line."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"Line {number} of {path.name!r} is not valid UTF-8 (byte "
                    f"0x{raw[error.start]:02x}). Convert the file to UTF-8 and try again."
                ) from error
            if line:
                yield path.name, number, line


def paragraphs(lines: Iterable[Record]) -> Iterator[Record]:
    """Join lines that follow one another; a blank line, seen as a gap in the numbers, parts."""
    held: list[str] = []
    title, first, last = "", 0, 0
    for title, number, line in lines:
        if held and number > last + 1:
            yield title, first, " ".join(held)
            held = []
        if not held:
            first = number
        held.append(line)
        last = number
    if held:
        yield title, first, " ".join(held)


def split_records(
    records: Iterable[Record], split_sentences: bool, language: str
) -> Iterator[Record]:
    """Texts without the blank ones; split into sentences, if asked, that keep their number."""
    if not split_sentences:
        yield from ((title, at, text.strip()) for title, at, text in records if text.strip())
        return
    from sentencex import segment

    for title, at, text in records:
        for sentence in segment(language, text):
            if sentence.strip():
                yield title, at, " ".join(sentence.split())


def parquet_rows(path: Path, column: str) -> Iterator[Record]:
    """The texts of one column of a parquet file; missing ones are passed over."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path.name!r} cannot be read as parquet: {error}") from error
    names = file.schema_arrow.names
    if column not in names:
        raise CorpusError(f"{path.name!r} has no column {column!r}; it has {', '.join(names)}.")
    kind = file.schema_arrow.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise CorpusError(f"Column {column!r} of {path.name!r} holds {kind}, not text.")
    row = 0
    for batch in file.iter_batches(columns=[column]):
        for text in batch.column(0).to_pylist():
            row += 1
            if text is not None:
                yield path.name, row, text


def hub_rows(
    name: str,
    column: str,
    split: str,
    config: str | None,
    revision: str | None,
    streaming: bool,
) -> Callable[[], Iterator[Record]]:
    """A function that starts reading a Hub dataset, once its text column is known to be there."""
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, config, split=split, revision=revision, streaming=streaming)
    except Exception as error:  # the library raises many kinds; the user needs one message
        reason = str(error).strip().splitlines()
        raise CorpusError(
            f"The Hub dataset {name!r} (split {split!r}) could not be loaded: "
            f"{reason[0] if reason else type(error).__name__}. Without a network use 'wikipedia' "
            "or a local .txt or .parquet file."
        ) from error
    columns = dataset.column_names or []
    if columns and column not in columns:
        raise CorpusError(
            f"Dataset {name!r} has no column {column!r}; it has {', '.join(columns)}."
        )

    def rows() -> Iterator[Record]:
        for number, row in enumerate(dataset, start=1):
            if isinstance(row.get(column), str):
                yield name, number, row[column]

    return rows
