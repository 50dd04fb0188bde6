"""Tables that are text files: JSON lines, and values separated by commas or tabs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from embvar_kit.corpora.content import Content
from embvar_kit.corpora.lines import LONGEST, lines
from embvar_kit.corpora.tables import Row, Table, no_column, not_text, one_name_twice
from embvar_kit.errors import CorpusError, first_line

T = TypeVar("T")

_DOCUMENT = re.compile(r'\s*(\{\s*"[^"\n]*"\s*:|\[\s*\{\s*")')
"""How a JSON document begins that is an object, or an array of objects."""

_ARRAY = re.compile(r'\s*\[[\s\[]*"(?:[^"\\]|\\.)*"\s*[,\]]', re.DOTALL)
"""How an array of strings begins, or of arrays of them; prose may begin this way, too."""

_NAMED = 20
"""Keys that a message gives at most."""


def _chosen(rows: Iterable[T], kept: np.ndarray | None) -> Iterator[T]:
    """The rows of ascending indices (from 0), or all; what follows the last is not read."""
    if kept is None:
        yield from rows
        return
    wanted = iter(kept.tolist())
    following = next(wanted, None)
    for index, row in enumerate(rows):
        if index == following:
            yield row
            following = next(wanted, None)
        if following is None:
            return


# JSON lines


def is_json_lines(content: Content) -> bool:
    """Whether the first line of a file that is not blank is a JSON object, as no prose is.

    Raises:
        CorpusError: if the file is one JSON document over several lines, or an array, instead.
    """
    beginning: list[str] = []
    try:
        for line in _first_lines(content):
            beginning.append(line)
    except CorpusError:
        pass  # the file is no text from there on; reading it says where
    if not beginning:
        return False
    try:
        if isinstance(json.loads(beginning[0]), dict):
            return True
    except (ValueError, RecursionError):
        pass
    begins = "".join(beginning)
    if _ARRAY.match(begins) and _is_arrays(content):
        raise CorpusError(
            f"{content.name!r} is a JSON array of strings, or has one in each line. Write each "
            "text as a line of its own: as it is, in a .txt file, or as an object such as "
            '{"text": "One sentence."}, in a .jsonl file.'
        )
    if content.kind == "json" or _DOCUMENT.match(begins):
        raise CorpusError(
            f"{content.name!r} is one JSON document, not a JSON object in each line. Write each "
            "text as a line of its own; pandas does it with DataFrame.to_json(PATH, "
            "orient='records', lines=True)."
        )
    return False


def _is_arrays(content: Content) -> bool:
    """Whether a whole file is one JSON array, or each of its lines that are not blank is one."""
    try:
        whole = [line for _, line in lines(content) if line.strip()]
    except CorpusError:
        return False  # reading the file says what is wrong with it
    for texts in (whole, ["".join(whole)]):
        try:
            return all(isinstance(json.loads(text), list) for text in texts)
        except (ValueError, RecursionError):
            pass
    return False


def _first_lines(content: Content) -> Iterator[str]:
    """The first three lines that are not blank."""
    found = 0
    for _, line in lines(content):
        if line.strip():
            found += 1
            yield line
        if found == 3:
            return


def jsonl_table(content: Content, column: str) -> Table:
    """One key of the JSON objects of a file, one in each line that is not blank.

    ``"key.inner"`` is a key inside another, unless an object has a key of just this name. The
    number of a row is that of its line. A key that is missing or ``null`` is a missing text.

    Raises:
        CorpusError: on reading, if a line is not an object (the message names it), its text is
            none, or no object that is read has such a key.
    """

    def full() -> Iterator[tuple[int, str]]:
        return ((number, line) for number, line in lines(content) if line.strip())

    def read(kept: np.ndarray | None) -> Iterator[Row]:
        file, decode = content.name, _decoder(column).decode
        names: dict[str, None] = {}
        missing = True
        for number, line in _chosen(full(), kept):
            try:
                row = decode(line)
            except (ValueError, RecursionError) as error:
                raise _no_object(
                    f"Line {number} of {file!r} is not a JSON object "
                    f"({getattr(error, 'msg', None) or first_line(error)})",
                    column,
                ) from error
            except _Twice as error:
                raise one_name_twice(f"Line {number} of {file!r}", str(error)) from error
            if not isinstance(row, dict):
                what = f"Line {number} of {file!r} is {_json_type(row)}, not a JSON object"
                raise _no_object(what, column)
            values = [row[column]] if column in row else _values(row, column)
            if len(values) > 1:
                raise one_name_twice(f"Line {number} of {file!r}", column)
            text = values[0] if values else None
            if text is not None and not isinstance(text, str):
                raise not_text(f"line {number} of {file!r}", column, _json_type(text))
            if missing:
                missing = not values
                names |= dict.fromkeys(row) if len(names) < _NAMED else {}
            yield file, number, text
        if missing and names:
            raise no_column(repr(file), column, list(names)[:_NAMED])

    return Table(lambda: sum(1 for _ in full()), read, "line")


def _no_object(what: str, column: str) -> CorpusError:
    example = json.dumps({column: "One sentence."}, ensure_ascii=False)
    return CorpusError(f"{what}. Each line has to be one, such as {example}; mend or delete it.")


class _Twice(Exception):
    """An object has a key twice that the name of the column may mean."""


def _decoder(column: str) -> json.JSONDecoder:
    """A decoder that does not choose where JSON allows a choice: an object may have a key twice."""
    meant = {column, *column.split(".")}

    def unambiguous(pairs: list[tuple[str, Any]]) -> dict:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs if key in meant]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise _Twice(twice[0])
        return row

    return json.JSONDecoder(object_pairs_hook=unambiguous)


def _values(row: dict, column: str) -> list[Any]:
    """The values of keys inside others that a name with dots may mean."""
    return [value for key, inner in row.items() for value in _inside(key, inner, column)]


def _inside(key: str, inner: Any, column: str) -> list[Any]:
    if not (isinstance(inner, dict) and column.startswith(f"{key}.")):
        return []
    rest = column[len(key) + 1 :]
    deeper = [value for name, at in inner.items() for value in _inside(name, at, rest)]
    return ([inner[rest]] if rest in inner else []) + deeper


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {dict: "an object", list: "an array", str: "a string", type(None): "null"}
    return kinds.get(type(value), "a number")


# Values separated by commas or tabs


def refuse_csv(content: Content, column: str) -> None:
    """Refuse a file of lines whose first one names columns, separated by commas or tabs.

    Prose has a blank behind a comma; a header has none, and one of its names is the column's.

    Raises:
        CorpusError: if it does.
    """
    _, line = next(lines(content), (1, ""))
    for delimiter, what, ending in ((",", "commas", ".csv"), ("\t", "tabs", ".tsv")):
        names = [name.strip().strip('"') for name in line.split(delimiter)]
        exact = len(names) > 1 and column in names and f"{delimiter} " not in line
        if exact and all(names) and len(set(names)) == len(names):
            raise CorpusError(
                f"The first line of {content.name!r} names columns, {column!r} among them, "
                f"separated by {what}, and under this name each row would be read as a sentence. "
                f"Give the file the ending {ending}; if its lines are texts, delete the first."
            )


def csv_table(content: Content, column: str) -> Table:
    """One column of a file of values separated by commas (or tabs), whose first row names them.

    A value with a comma, a quote or a line end stands in double quotes, and a quote in it twice
    (RFC 4180). All values are text: ``nan``, ``null`` and ``NA`` are words. An empty one is a
    missing text. Blank lines are no rows. Blanks behind a comma are not part of the value.

    Files of values separated by tabs mostly do not quote, so that a quote may begin a text and
    another, lines below, a second one. A quoted value with a line end is therefore refused there.

    Raises:
        CorpusError: if there is no such column or several. Reading the rows raises it, if one is
            malformed or has another number of values; the message names its line.
    """
    tabs = content.kind == "tsv"
    header = next(_csv_rows(content, tabs), (1, None))[1]

    def rows() -> Iterator[tuple[int, list[str]]]:
        found = _csv_rows(content, tabs)
        next(found, None)
        return found

    if header is None:
        return Table(lambda: 0, lambda kept: iter(()))
    if column not in header:
        hint = f"Its first line has to name them, separated by {'tabs' if tabs else 'commas'}. "
        raise no_column(repr(content.name), column, header, hint)
    if header.count(column) > 1:
        raise one_name_twice(repr(content.name), column)
    at = header.index(column)

    def read(kept: np.ndarray | None) -> Iterator[Row]:
        numbers = iter(range(1, 1 << 62)) if kept is None else iter((kept + 1).tolist())
        for number, (line, row) in zip(numbers, _chosen(rows(), kept), strict=False):
            if len(row) != len(header):
                what = "tab" if tabs else "comma"
                raise CorpusError(
                    f"The row in line {line} of {content.name!r} has {len(row)} values, and the "
                    f"first line names {len(header)} columns. A text that contains a {what} has "
                    "to stand in double quotes."
                )
            yield content.name, number, row[at] or None

    return Table(lambda: sum(1 for _ in rows()), read)


def _csv_rows(content: Content, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank lines, each with the number of the line that it begins in."""
    reader = csv.reader(
        (line for _, line in lines(content)),
        delimiter="\t" if tabs else ",",
        skipinitialspace=not tabs,
        strict=True,
    )
    while True:
        begin = reader.line_num + 1
        # The limit is the process's, and too low for documents: it is lifted for this row only.
        before = csv.field_size_limit(LONGEST)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise CorpusError(
                f"The row that begins in line {begin} of {content.name!r} is malformed ({error}). "
                "A text with a double quote in it has to stand in double quotes, and that quote "
                "twice."
            ) from error
        finally:
            csv.field_size_limit(before)
        if tabs and reader.line_num > begin:
            raise CorpusError(
                f"Lines {begin} to {reader.line_num} of {content.name!r} are one row if the double "
                "quotes in them hold a value together, and several if they are part of the text. "
                "Save the table as .csv, .jsonl or .parquet, or put each text that has double "
                "quotes in it into double quotes, on one line, and each of those quotes twice."
            )
        if row:
            yield begin, row
