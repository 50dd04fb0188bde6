"""Reading text from files and datasets, whole or some rows: records of title, position and text."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from embvar_kit import hub
from embvar_kit.errors import CorpusError, as_sentence, first_line

Record = tuple[str, int, str]
"""The title of a text's source, the text's number in it (from 1), and the text."""

WITHOUT_NETWORK = "Without a network use 'wikipedia' or a local .txt or .parquet file."
"""Advice for messages when the Hub is out of reach."""


@dataclass(frozen=True)
class Table:
    """A column of text whose rows can be counted and chosen before any is read.

    Attributes:
        n: number of rows; ``None`` for a stream.
        read: yields the rows that hold text, starting afresh at each call: all of them for
            ``None``, or those of an ascending array of indices (from 0).
    """

    n: int | None
    read: Callable[[np.ndarray | None], Iterator[Record]]


# Which rows are taken


def draw(n: int, sample: float | int, seed: int) -> tuple[np.ndarray, dict]:
    """Draw some of ``n`` rows without replacement, with NumPy's legacy generator as in the paper.

    Args:
        n: number of rows to draw from.
        sample: share of the rows, between 0 and 1, or number of rows.
        seed: seed of the random draw.

    Returns:
        Ascending indices, and the settings to record: ``sample`` and ``seed`` as plain numbers.

    Raises:
        CorpusError: if ``sample`` or ``seed`` makes no sense.

    >>> rows, settings = draw(6, sample=0.5, seed=1)
    >>> rows.tolist(), settings
    ([1, 2, 4], {'sample': 0.5, 'seed': 1})
    """
    try:
        size = sample = operator.index(sample)
    except TypeError:
        sample = float(sample) if isinstance(sample, Real) else sample
        size = round(n * sample) if isinstance(sample, float) and 0 < sample < 1 else 0
    if not 0 < size <= n:
        raise CorpusError(
            f"sample={sample!r} of {n:,} sentences makes no sense: give a share between 0 and 1 "
            f"or a whole number from 1 to {n:,}. For all of them leave sample out; 1.0 is refused, "
            "since sample=1 draws one."
        )
    try:
        seed = operator.index(seed)
        drawn = np.random.RandomState(seed).choice(n, size, replace=False)
    except (ValueError, TypeError) as error:
        raise CorpusError(
            f"seed={seed!r} is not a seed: {as_sentence(error)} Give a whole number from 0 on."
        ) from error
    return np.sort(drawn), {"sample": sample, "seed": seed}


def given_limits(max_words: int | None, limit: int | None) -> dict[str, int]:
    """Those of the two that are not ``None``, as plain integers, to record as settings.

    Raises:
        CorpusError: if one is not a whole number of at least 1.
    """
    given = {"max_words": max_words, "limit": limit}
    return {name: whole(name, value) for name, value in given.items() if value is not None}


def whole(name: str, value: int) -> int:
    """Check that an argument is a whole number of at least 1.

    Raises:
        CorpusError: if it is not; the message names the argument.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise CorpusError(f"{name} must be a whole number, got {value!r}.") from error
    if number < 1:
        raise CorpusError(f"{name} must be at least 1, got {number}.")
    return number


# Text files and prose


def existing(name: str) -> Path:
    """The path of a file that can be opened.

    Raises:
        CorpusError: if there is none.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise CorpusError(
            f"There is no file {name!r} to read a corpus from. Check the path, or use "
            "'wikipedia', which needs no file."
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise CorpusError(f"{name!r} cannot be read: {error.strerror}.") from error
    return path


def text_lines(path: Path) -> Iterator[Record]:
    """The lines of a UTF-8 file that are not blank, with their numbers.

    Raises:
        CorpusError: if a line is not valid UTF-8; the message names the line.
    """
    # Bytes are split into lines before they are decoded, so that a bad line has a number.
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
    """Join consecutive lines; a gap in their numbers, left by a blank line, ends a paragraph.

    >>> list(paragraphs([("a.txt", 1, "One"), ("a.txt", 2, "line."), ("a.txt", 4, "Two.")]))
    [('a.txt', 1, 'One line.'), ('a.txt', 4, 'Two.')]
    """
    joined: list[str] = []
    title, first, last = "", 0, 0
    for title, number, line in lines:
        if joined and number > last + 1:
            yield title, first, " ".join(joined)
            joined = []
        if not joined:
            first = number
        joined.append(line)
        last = number
    if joined:
        yield title, first, " ".join(joined)


def split_records(
    records: Iterable[Record], split_sentences: bool, language: str
) -> Iterator[Record]:
    """Leave blank texts out and, if asked, split the others into sentences.

    Each sentence keeps the number of its text.
    """
    if not split_sentences:
        yield from ((title, at, text.strip()) for title, at, text in records if text.strip())
        return
    from sentencex import segment

    for title, at, text in records:
        for sentence in segment(language, text):
            if sentence.strip():
                yield title, at, " ".join(sentence.split())


def numbered(pairs: Iterable[tuple[str, str]]) -> Iterator[Record]:
    """Number the sentences of each title from 1.

    >>> list(numbered([("A", "One."), ("A", "Two."), ("B", "Three.")]))
    [('A', 1, 'One.'), ('A', 2, 'Two.'), ('B', 1, 'Three.')]
    """
    current, number = None, 0
    for title, sentence in pairs:
        number = number + 1 if title == current else 1
        current = title
        yield title, number, sentence


# Tables


def parquet_table(path: Path, column: str) -> Table:
    """One column of a parquet file.

    Raises:
        CorpusError: if the file cannot be read, or has no such column of text. Reading the rows
            raises it, too.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    unreadable = (pa.ArrowException, OSError, UnicodeDecodeError)

    def refusal(error: Exception) -> CorpusError:
        return CorpusError(
            f"{path.name!r} cannot be read as parquet ({first_line(error)}). Is it complete? "
            "Download or write it again."
        )

    try:
        file = pq.ParquetFile(path)
    except unreadable as error:
        raise refusal(error) from error
    names = file.schema_arrow.names
    if column not in names:
        raise _no_column(repr(path.name), column, names)
    kind = file.schema_arrow.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _not_text(repr(path.name), column, kind)

    def read(kept: np.ndarray | None) -> Iterator[Record]:
        first = 0
        try:
            for batch in file.iter_batches(columns=[column]):
                rows = np.arange(first, first + len(batch))
                texts = batch.column(0)
                if kept is not None:
                    rows = kept[np.searchsorted(kept, first) : np.searchsorted(kept, rows[-1] + 1)]
                    texts = texts.take(pa.array(rows - first))
                for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
                    if text is not None:
                        yield path.name, row + 1, text
                first += len(batch)
        except unreadable as error:
            raise refusal(error) from error

    return Table(file.metadata.num_rows, read)


def hub_table(
    name: str,
    column: str,
    split: str,
    config: str | None,
    revision: str | None,
    streaming: bool,
) -> Table:
    """One column of a Hub dataset, or of a folder laid out as one.

    Raises:
        CorpusError: if the dataset cannot be loaded, or has no such column of text. Reading the
            rows raises it, too.
    """
    from datasets import load_dataset

    folder = Path(name).expanduser()
    local = bool(name) and folder.is_dir()
    offline = False if local else not on_hub(name, revision)
    try:
        with _offline(offline):
            dataset = load_dataset(
                str(folder) if local else name,
                config,
                split=split,
                revision=revision,
                streaming=streaming,
            )
    except Exception as error:  # the library raises many kinds; the user needs one message
        raise CorpusError(
            f"The Hub dataset {name!r} (split {split!r}) could not be loaded: {as_sentence(error)} "
            f"{WITHOUT_NETWORK}"
        ) from error
    columns = dataset.column_names or []
    if columns and column not in columns:
        raise _no_column(f"Dataset {name!r}", column, columns)
    kind = getattr((dataset.features or {}).get(column), "dtype", None)
    if kind not in (None, "string", "large_string"):
        raise _not_text(f"dataset {name!r}", column, kind)
    if columns:
        dataset = dataset.select_columns([column])

    def read(kept: np.ndarray | None) -> Iterator[Record]:
        chosen = dataset if kept is None else dataset.select(kept)
        numbers = count(1) if kept is None else iter((kept + 1).tolist())
        number = 0
        try:
            for row in chosen:
                number = next(numbers)
                if isinstance(row.get(column), str):
                    yield name, number, row[column]
        except Exception as error:
            raise CorpusError(
                f"Dataset {name!r} cannot be read beyond row {number:,}: {as_sentence(error)}"
            ) from error

    return Table(None if streaming else len(dataset), read)


def on_hub(name: str, revision: str | None) -> bool:
    """Whether the Hub has a dataset; ``False`` if the Hub is out of reach.

    Raises:
        CorpusError: if the Hub answers that it has no such dataset.
    """
    answer, error = hub.ask("dataset", name, revision)
    if answer in (hub.Answer.ABSENT, hub.Answer.IMPOSSIBLE):
        at = f" at revision {revision!r}" if revision else ""
        raise CorpusError(
            f"The Hub has no dataset {name!r}{at} that you can read. {WITHOUT_NETWORK}"
        ) from error
    return answer is hub.Answer.PRESENT


@contextmanager
def _offline(yes: bool) -> Iterator[None]:
    """If ``yes``, have ``datasets`` use only its cache, rather than retry for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or yes
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _no_column(where: str, column: str, names: Iterable[str]) -> CorpusError:
    return CorpusError(
        f"{where} has no column {column!r}; its columns are {', '.join(names)}. Name one with "
        "text_column=..."
    )


def _not_text(where: str, column: str, kind: Any) -> CorpusError:
    return CorpusError(
        f"Column {column!r} of {where} holds {kind}, not text. Name another with text_column=..."
    )
