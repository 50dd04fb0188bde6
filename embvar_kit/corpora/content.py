"""What a file is, by its first bytes and then by its name, and its bytes without compression."""

from __future__ import annotations

import codecs
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from embvar_kit.errors import CorpusError, first_line

KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
"""Endings that tell a kind of file, where its content does not. Any other is ``"text"``."""

COMPRESSED = (".gz", ".gzip", ".zst", ".zstd")
"""Endings that may stand behind that of the kind. The content says whether they are true."""

_HEAD = 512
"""Bytes that are looked at: those of a tar archive begin with the longest description."""

GZIP, PARQUET = b"\x1f\x8b\x08", b"PAR1"
ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16)))
"""How the data of these formats begin; zstd with a frame of data, or one to be skipped."""

UTF7_MARKS = tuple(b"+/v" + last for last in (b"8", b"9", b"+", b"/"))
"""The byte-order mark in UTF-7, whose last character depends on what follows."""

_UNPACK = "Unpack it, and name a file in it."
_CONVERT = "Save its text as a .txt, .jsonl, .csv or .parquet file."
REFUSED = {
    b"version https://git-lfs.github.com/spec": (
        "a pointer of git-lfs in place of the file itself",
        "Fetch the file with: git lfs pull",
    ),
    b"PK\x03\x04": ("a zip archive or an office document", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a rar archive", _UNPACK),
    b"\xfd7zXZ\x00": ("compressed with xz", "Unpack it, or compress it with gzip or zstd."),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "Unpack it, or compress it with gzip or zstd."),
    b"%PDF-": ("a PDF document", _CONVERT),
    b"{\\rtf": ("an RTF document", _CONVERT),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a document of an old office program", _CONVERT),
    b"ARROW1\x00\x00": ("an Arrow file", _CONVERT),
    b"Obj\x01": ("an Avro file", _CONVERT),
    b"SQLite format 3\x00": ("a SQLite database", _CONVERT),
    b"\x89HDF\r\n": ("an HDF5 file", _CONVERT),
    b"\x93NUMPY": ("a NumPy array", _CONVERT),
}
"""Beginnings of files that hold no text as it stands: what they are, and what to do."""


@dataclass(frozen=True)
class Content:
    """The content of a file, without its compression.

    Attributes:
        path: the file.
        compression: ``"gzip"``, ``"zstd"`` or ``None``.
        kind: ``"parquet"``, ``"csv"``, ``"tsv"``, ``"jsonl"``, ``"json"`` or ``"text"``.
    """

    path: Path
    compression: str | None
    kind: str

    @property
    def name(self) -> str:
        """The file's name, as messages and results give it."""
        return self.path.name

    def open(self) -> BinaryIO:
        """A stream of the content from its start; compressed data are read piece by piece."""
        return _opened(self.path, self.compression)

    def open_for_seeking(self) -> BinaryIO:
        """The same, where one can go back; unpacked into a temporary file if it is compressed.

        Raises:
            CorpusError: if the compressed data are damaged, or the disk is full.
        """
        if self.compression is None:
            return self.open()
        with self.reading(), self.open() as stream:
            unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the caller's; deleted when closed)
            try:
                shutil.copyfileobj(stream, unpacked, 1 << 20)
                unpacked.seek(0)
            except BaseException:
                unpacked.close()
                raise
        return unpacked

    def reading(self) -> AbstractContextManager[None]:
        """A context in which failures to read the file are raised as :class:`CorpusError`."""
        return _reading(self.path, self.compression)


def look(path: Path) -> Content:
    """Tell what a file is: its compression and format by its bytes, else its kind by its name.

    Raises:
        CorpusError: if it is of a kind that holds no text, of another encoding than UTF-8, or its
            compressed data are damaged.
    """
    head, compression = _head(path, None), None
    if told := _compression(head):
        head, compression = _head(path, told), told
        if _compression(head):
            raise CorpusError(f"{path.name!r} is compressed twice. Unpack it once.")
    _refuse(path.name, head)
    # Text may begin with these letters, too; in the format a control character follows.
    behind = head[4:5]
    if head.startswith(PARQUET) and b"" < behind < b" " and behind not in b"\t\n\r":
        return Content(path, compression, "parquet")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return Content(path, compression, KINDS.get(suffixes[-1], "text") if suffixes else "text")


def _refuse(name: str, head: bytes) -> None:
    for beginning, (what, remedy) in REFUSED.items():
        if head.startswith(beginning):
            raise CorpusError(f"{name!r} is {what}, which cannot be read as text. {remedy}")
    if head[257:262] == b"ustar":
        raise CorpusError(f"{name!r} is a tar archive, which cannot be read as text. {_UNPACK}")
    # Three letters and a digit could be text; those that follow them in the format are not.
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        raise CorpusError(
            f"{name!r} is compressed with bzip2. Unpack it, or compress it with gzip or zstd."
        )
    encodings = {
        "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
        "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    }  # the mark of UTF-32 begins with that of UTF-16
    for encoding, marks in encodings.items():
        if head.startswith(marks):
            raise CorpusError(
                f"{name!r} is {encoding} text by its byte-order mark. Convert it to UTF-8, for "
                f"example with: iconv -f {encoding} -t UTF-8"
            )
    if head.startswith(UTF7_MARKS):
        raise CorpusError(
            f"{name!r} is UTF-7 text by its byte-order mark. Convert it to UTF-8, for example "
            "with: iconv -f UTF-7 -t UTF-8"
        )


def _compression(head: bytes) -> str | None:
    if head.startswith(GZIP):
        return "gzip"
    return "zstd" if head.startswith(ZSTD) else None


def _head(path: Path, compression: str | None) -> bytes:
    head = b""
    with _reading(path, compression), _opened(path, compression) as stream:
        # Compressed data may come in parts that are shorter than what is asked for.
        while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
            head += more
    return head


def _opened(path: Path, compression: str | None) -> BinaryIO:
    if compression == "gzip":
        return gzip.open(path, "rb")
    if compression == "zstd":
        import pyarrow as pa

        return pa.CompressedInputStream(path.open("rb"), "zstd")
    return path.open("rb")


@contextmanager
def _reading(path: Path, compression: str | None) -> Iterator[None]:
    failures: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    if compression == "zstd":
        import pyarrow as pa

        failures += (pa.ArrowException,)
    try:
        yield
    except failures as error:
        if compression is None or getattr(error, "errno", None):
            why = getattr(error, "strerror", None) or first_line(error)
            raise CorpusError(f"{path.name!r} cannot be read: {why}.") from error
        raise CorpusError(
            f"{path.name!r} is damaged or incomplete: its {compression} data cannot be unpacked "
            f"({first_line(error)}). Download or write it again."
        ) from error
