"""Columns of text whose rows can be counted and chosen: what they have in common, and parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embvar_kit.corpora.content import Content
from embvar_kit.corpora.readers import Record
from embvar_kit.errors import CorpusError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[str, int, str | None]
"""A record whose text may be missing."""


@dataclass(frozen=True)
class Table:
    """A column of text whose rows can be counted and chosen before any is read.

    Attributes:
        count: gives the number of rows; ``None`` for a stream.
        read: yields the rows, starting afresh at each call: all of them for ``None``, or those of
            an ascending array of indices (from 0). A row without a value has the text ``None``.
        unit: what the number of a row counts: ``"row"`` or ``"line"``.
    """

    count: Callable[[], int] | None
    read: Callable[[np.ndarray | None], Iterator[Row]]
    unit: str = "row"

    @cached_property
    def n(self) -> int | None:
        """Number of rows; ``None`` for a stream."""
        return self.count() if self.count else None


@dataclass
class WithoutText:
    """Counts the rows that are left out because there is no text in them.

    >>> left_out = WithoutText()
    >>> list(left_out.drop([("a", 1, "One."), ("a", 2, None), ("a", 3, " ")])), left_out.n
    ([('a', 1, 'One.')], 2)
    """

    n: int = 0

    def drop(self, rows: Iterable[Row], *, blank: bool = True) -> Iterator[Record]:
        """Leave out and count the rows without a value and, unless told otherwise, blank ones."""
        for row in rows:
            if row[2] is None or (blank and not row[2].strip()):
                self.n += 1
            else:
                yield row


def no_column(where: str, column: str, names: Iterable[str], hint: str = "") -> CorpusError:
    """An error that says which columns there are."""
    return CorpusError(
        f"{where} has no column {column!r}; its columns are {', '.join(names)}. {hint}Name one "
        "with text_column=..."
    )


def not_text(where: str, column: str, kind: Any) -> CorpusError:
    """An error that says what a column holds."""
    return CorpusError(
        f"Column {column!r} of {where} holds {kind}, not text. Name another with text_column=..."
    )


def one_name_twice(where: str, column: str) -> CorpusError:
    """An error for a column that cannot be told from another."""
    return CorpusError(
        f"{where} has more than one column {column!r}, and which one is meant is unknown. Rename "
        "all but one of them, or name another with text_column=..."
    )


def parquet_table(content: Content, column: str) -> Table:
    """One column of a parquet file, or a field of a column of structs: ``"column.field"``.

    Raises:
        CorpusError: if the file cannot be read, or has no such column of text or several. Reading
            the rows raises it, too.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = repr(content.name)
    unreadable = (pa.ArrowException, OSError)

    def refusal(error: Exception) -> CorpusError:
        return CorpusError(
            f"{where} cannot be read as parquet ({first_line(error)}). Is it complete? "
            "Download or write it again."
        )

    try:
        file = pq.ParquetFile(
            content.open_for_seeking() if content.compression else content.path,
            page_checksum_verification=True,  # of those pages that have a checksum
        )
        path, kind = _place(file.schema_arrow, column, where)
    except (*unreadable, UnicodeDecodeError) as error:
        raise refusal(error) from error
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(check(kind) for check in checks):
        raise not_text(where, column, kind)

    def read(kept: np.ndarray | None) -> Iterator[Row]:
        first = 0
        try:
            for batch in file.iter_batches(columns=[column]):
                rows = np.arange(first, first + len(batch))
                texts = _texts(batch, path)
                if kept is not None:
                    rows = kept[np.searchsorted(kept, first) : np.searchsorted(kept, rows[-1] + 1)]
                    texts = texts.take(pa.array(rows - first))
                for row, text in zip(rows.tolist(), _strings(texts, rows, where), strict=True):
                    yield content.name, row + 1, text
                first += len(batch)
        except unreadable as error:
            raise refusal(error) from error

    return Table(lambda: file.metadata.num_rows, read)


def _inside(kind: pa.DataType) -> list[pa.Field]:
    """The fields of a struct; a list has a field, too, but one that no name with dots means."""
    import pyarrow as pa

    return [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []


def _place(schema: pa.Schema, column: str, where: str) -> tuple[tuple[str, ...], pa.DataType]:
    """The names of a column, and of the fields inside it, that a name with dots means; its type.

    A column of just this name goes before a field of a struct.
    """

    def places(
        fields: Iterable[pa.Field], name: str
    ) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
        for field in fields:
            if field.name == name:
                yield (name,), field.type
            elif name.startswith(f"{field.name}."):
                for rest, kind in places(_inside(field.type), name[len(field.name) + 1 :]):
                    yield (field.name, *rest), kind

    found = list(places(schema, column))
    found = [place for place in found if len(place[0]) == 1] or found
    if not found:
        raise no_column(where, column, schema.names)
    if len(found) > 1:
        raise one_name_twice(where, column)
    path, kind = found[0]
    if schema.names.count(path[0]) > 1:
        raise one_name_twice(where, path[0])
    return path, kind


def _texts(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    """The column of a batch, which may hold others: pyarrow takes dots for fields of structs."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = batch.column(batch.schema.get_field_index(path[0]))
    if len(path) > 1:
        texts = pc.struct_field(texts, list(path[1:]))
    if pa.types.is_string_view(texts.type):  # from which pyarrow cannot take rows
        texts = texts.cast(pa.large_string())
    return texts


def _strings(texts: pa.Array, rows: np.ndarray, where: str) -> list[str | None]:
    try:
        return texts.to_pylist()
    except UnicodeDecodeError:
        for row, text in zip(rows.tolist(), texts, strict=True):
            try:
                text.as_py()
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"Row {row + 1} of {where} is not valid UTF-8 ({first_line(error)}). Write "
                    "the file again with its text in UTF-8."
                ) from error
        raise
