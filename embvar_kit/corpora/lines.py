"""The lines of a text file, and the paragraphs that they form."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import count

from embvar_kit.corpora.content import Content
from embvar_kit.corpora.readers import Record
from embvar_kit.errors import CorpusError

_ISO_2022 = "\x1b$"
"""Escape and dollar: what follows is in characters of two bytes, in ISO-2022-JP and its kin."""

LONGEST = 2**28
"""Characters of the longest line that is read: more is no text, and would fill the memory."""


def lines(content: Content) -> Iterator[tuple[int, str]]:
    """All lines of a UTF-8 file with their numbers, from 1, and with the ends that they have.

    A line ends in LF, CR LF or CR alone. Other characters that some programs break lines at, such
    as U+2028, U+0085 and the form feed, are white space within a line. A byte-order mark at the
    beginning of the file is not part of its text.

    Raises:
        CorpusError: if a line is not valid UTF-8, holds a NUL or what only another encoding means,
            or is endless; the message names the line.
    """
    with (
        content.reading(),
        # Bytes that are not UTF-8 become lone surrogates, which nothing else does, so that the
        # line they stand in has a number.
        io.TextIOWrapper(
            content.open(), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as text,
    ):
        for number in count(1):
            line = text.readline(LONGEST)
            if not line:
                return
            _check(line, f"Line {number} of {content.name!r}")
            yield number, line


def _check(line: str, where: str) -> None:
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{where} is not valid UTF-8 (byte 0x{ord(line[error.start]) - 0xDC00:02x}). "
                "Convert the file to UTF-8, for example with: iconv -f ISO-8859-1 -t UTF-8"
            ) from error
    if "\0" in line:
        raise CorpusError(
            f"{where} holds a NUL character, which text does not: the file is of another kind, or "
            "of another encoding such as UTF-16. Convert it to UTF-8 text, or take the NULs out."
        )
    if _ISO_2022 in line:
        raise CorpusError(
            f"{where} is in ISO-2022-JP or a similar encoding, by its escape sequences. Convert "
            "the file to UTF-8, for example with: iconv -f ISO-2022-JP -t UTF-8"
        )
    if len(line) == LONGEST and line[-1] not in "\r\n":
        raise CorpusError(
            f"{where} is longer than {LONGEST:,} characters. Break the text into lines."
        )


def text_lines(content: Content) -> Iterator[Record]:
    """The lines of a UTF-8 file that are not blank, without white space around them.

    Raises:
        CorpusError: see :func:`lines`.
    """
    for number, line in lines(content):
        if line := line.strip():
            yield content.name, number, line


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
