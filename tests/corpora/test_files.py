"""Files as corpora: their kind by content and name, compression, line ends, and tables."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.corpora import content as content_module
from embvar_kit.corpora import lines as lines_module

ROWS = ["One sentence.", "Two, with “quotes” and a comma."]


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def as_text() -> bytes:
    return "\n".join(ROWS).encode()


def as_jsonl() -> bytes:
    return "\n".join(json.dumps({"n": n, "text": row}) for n, row in enumerate(ROWS)).encode()


def as_csv(delimiter: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["n", "text"], *enumerate(ROWS)])
    return file.getvalue().encode()


def as_parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"n": [0, 1], "text": ROWS}), file)
    return file.getvalue()


KINDS = {
    "txt": as_text(),
    "jsonl": as_jsonl(),
    "csv": as_csv(),
    "tsv": as_csv("\t"),
    "parquet": as_parquet(),
}
PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstd, ".zstd": zstd}


# Kinds and compression


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_read_as_it_is_and_compressed(kind, packed, tmp_path):
    path = write(tmp_path / f"a.{kind}{packed}", PACKED[packed](KINDS[kind]))
    corpus = ek.load_corpus(path)
    assert list(corpus) == ROWS
    assert corpus.name == path.name
    unit = "row" if kind in ("csv", "tsv", "parquet") else "line"
    assert corpus.where(1) == f"{path.name}, {unit} 2"
    assert list(ek.load_corpus(path, sample=1, seed=0)) == [ROWS[i] for i in draw(2, 1, 0)]
    assert list(ek.load_corpus(path, limit=1)) == ROWS[:1]


def draw(n: int, size: int, seed: int) -> list[int]:
    """Rows as the paper's release draws them, in order."""
    return sorted(np.random.RandomState(seed).choice(n, size, replace=False).tolist())


@pytest.mark.parametrize("ending", ["", ".txt", ".dat", ".csv", ".gz", ".parquet"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_content_that_tells_its_kind_goes_before_the_name(pack, ending, tmp_path):
    assert list(ek.load_corpus(write(tmp_path / f"a{ending}", pack(as_parquet())))) == ROWS
    if ending not in (".parquet", ".csv"):  # these say what the text in them would be
        for data in (as_text(), as_jsonl()):
            assert list(ek.load_corpus(write(tmp_path / f"a{ending}", pack(data)))) == ROWS


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.log"])
def test_a_file_that_begins_with_a_json_object_holds_json_lines(name, tmp_path):
    path = write(tmp_path / name, "\n\n" + as_jsonl().decode() + "\n{not json\n")
    with pytest.raises(ek.CorpusError, match=rf"Line 5 of '{name}' is not a JSON object"):
        ek.load_corpus(path)
    assert list(ek.load_corpus(path, limit=2)) == ROWS


def test_prose_that_looks_a_little_like_json_is_prose(tmp_path):
    lines = [
        "{a set} of words",
        '["Yes," he said]',
        "[1] Introduction",
        "{",
        "PAR1 is a name",
        "PAREIDOLIA",
        "PAR1",
        "ARROW1",
    ]
    for line in lines:
        assert list(ek.load_corpus(write(tmp_path / "a.txt", line))) == [line]


@pytest.mark.parametrize("name", ["a.json", "a.txt"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"text": row} for row in ROWS]),
        json.dumps([{"text": row} for row in ROWS], indent=1),
        json.dumps({"text": ROWS}, indent=2),
    ],
    ids=["array", "indented array", "indented object"],
)
def test_one_json_document_is_refused_with_what_to_do(name, text, tmp_path):
    with pytest.raises(ek.CorpusError, match=r"one JSON document.*to_json\(PATH, .*lines=True"):
        ek.load_corpus(write(tmp_path / name, text))


STRINGS = json.dumps(ROWS), json.dumps(ROWS, indent=1), json.dumps([ROWS, ["3"]], indent=1)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "text",
    [*STRINGS, "\n" + STRINGS[0] + "\n\n", STRINGS[0] + '\n["Three.", "Four."]\n'],
    ids=["one line", "several lines", "nested", "blank lines", "in each line"],
)
def test_an_array_of_strings_is_refused_with_what_to_do(text, pack, tmp_path):
    for name in ("a.txt", "a.json", "a"):
        with pytest.raises(ek.CorpusError, match=rf"'{name}' is a JSON array of strings.*\.jsonl"):
            ek.load_corpus(write(tmp_path / name, pack(text.encode())))


def test_prose_that_begins_like_an_array_of_strings_is_prose(tmp_path):
    for text in (
        '["Yes", he said]',
        '["Yes"] is what he said.',
        '["Yes", "no"]\nare two words.',
        '["Yes"]\n[He nods.]',
        '["Yes",\n"no"',
        '["a", ' * 30_000,
    ):
        wanted = [line.strip() for line in text.split("\n")]
        assert list(ek.load_corpus(write(tmp_path / "a.txt", text))) == wanted


@pytest.mark.parametrize("encoding", ["iso2022_jp", "iso2022_kr", "iso2022_jp_2"])
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
def test_text_that_switches_encodings_by_escapes_is_refused_by_line(kind, encoding, tmp_path):
    begin = {"jsonl": '{"text": "One."}\n{"text": "%s"}'}.get(kind, "text\n%s")
    word = "한국어" if encoding == "iso2022_kr" else "日本語"
    path = write(tmp_path / f"a.{kind}", (begin % word).encode(encoding))
    with pytest.raises(ek.CorpusError, match=r"Line \d .* ISO-2022-JP or a similar.*iconv"):
        ek.load_corpus(path)
    colour = write(tmp_path / "b.txt", "\x1b(B\x1b[1mBold\x1b[m costs $B\n")  # of a terminal
    assert len(ek.load_corpus(colour)) == 1


def test_utf7_is_refused_by_its_mark(tmp_path):
    for text in ("\ufeff日本語", "\ufeffOne.", "\ufeff\u0fff"):
        data = text.encode("utf-7")
        for packed in (data, gzip.compress(data)):
            with pytest.raises(ek.CorpusError, match=r"is UTF-7 text.*iconv"):
                ek.load_corpus(write(tmp_path / "a.txt", packed))
    assert list(ek.load_corpus(write(tmp_path / "a.txt", "1+/v is a formula"))) != []


def test_the_remedy_for_a_json_document_works(tmp_path):
    pd.DataFrame({"text": ROWS}).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert list(ek.load_corpus(tmp_path / "a.jsonl")) == ROWS


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("a.txt", "One.")
    return file.getvalue()


def tar(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as packed:
        packed.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


def arrow() -> bytes:
    file = io.BytesIO()
    table = pa.table({"text": ROWS})
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


NO_TEXT = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid\n", "a pointer.*git lfs pull"),
    "zip": (archive(), "a zip archive or an office document.*Unpack"),
    "tar": (tar("w"), "a tar archive.*Unpack"),
    "tar.gz": (tar("w:gz"), "a tar archive.*Unpack"),
    "tar.xz": (tar("w:xz"), "compressed with xz.*Unpack"),
    "tar.bz2": (tar("w:bz2"), "compressed with bzip2.*Unpack"),
    "pdf": (b"%PDF-1.7\n", "a PDF document.*Save its text"),
    "arrow": (arrow(), "an Arrow file.*Save its text"),
    "gzip twice": (gzip.compress(gzip.compress(b"One.")), "compressed twice"),
    "gzip in zstd": (zstd(gzip.compress(b"One.")), "compressed twice"),
    "utf-16 in gzip": (gzip.compress("One.".encode("utf-16")), "UTF-16 text.*iconv"),
}


@pytest.mark.parametrize("ending", ["txt", "csv", "parquet", "jsonl", "gz"])
@pytest.mark.parametrize("kind", NO_TEXT)
def test_what_holds_no_text_is_refused_by_name(kind, ending, tmp_path):
    data, words = NO_TEXT[kind]
    path = write(tmp_path / f"a.{ending}", data)
    with pytest.raises(ek.CorpusError, match=rf"(?s)'a\.{ending}' is {words}"):
        ek.load_corpus(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_truncated_compressed_data_are_refused(pack, kind, tmp_path):
    whole = pack(KINDS[kind])
    for cut in (5, len(whole) // 2, len(whole) - 1):
        path = write(tmp_path / f"a.{kind}.z", whole[:cut])
        with pytest.raises(
            ek.CorpusError,
            match=rf"'a\.{kind}\.z' is damaged or incomplete.*zstd|"
            rf"'a\.{kind}\.z' is damaged or incomplete.*gzip",
        ):
            ek.load_corpus(path)


def test_compressed_data_with_a_tail_of_other_bytes_are_refused(tmp_path):
    for pack in (gzip.compress, zstd):
        with pytest.raises(ek.CorpusError, match="is damaged or incomplete"):
            ek.load_corpus(write(tmp_path / "a.txt", pack(as_text()) + b"tail"))
        joined = write(tmp_path / "b.txt", pack(b"One.\n") + pack(b"Two.\n"))
        assert list(ek.load_corpus(joined)) == ["One.", "Two."]


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_compressed_data_in_parts_are_read_to_the_end(pack, tmp_path):
    """Tools that compress in parallel write many frames; some may be empty."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" if pack is zstd else b""
    whole = "".join(f"Line {n}.\n" for n in range(1200)).encode()
    for size in (1, 1000, 9000):
        parts = [whole[at : at + size] for at in range(0, len(whole), size)]
        data = skipped + b"".join(pack(part) + pack(b"") for part in [b"", *parts])
        corpus = ek.load_corpus(write(tmp_path / "a.txt", data))
        assert "\n".join(corpus).encode() + b"\n" == whole
    pieces = [pack(as_parquet()[at : at + 2]) for at in range(0, len(as_parquet()), 2)]
    assert list(ek.load_corpus(write(tmp_path / "a", b"".join(pieces)))) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_compressed_text_is_read_piece_by_piece(pack, tmp_path):
    """A hundred megabytes in a small file: the first lines come without the others."""
    path = write(tmp_path / "a.txt", pack(b"One sentence.\n" * 7_500_000))
    assert path.stat().st_size < 500_000
    import tracemalloc

    tracemalloc.start()
    before = pa.total_allocated_bytes()
    try:
        assert list(ek.load_corpus(path, limit=3)) == ["One sentence."] * 3
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + pa.total_allocated_bytes() - before < 10_000_000


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "LONGEST", 1000)
    assert len(ek.load_corpus(write(tmp_path / "a.txt", "x" * 999))[0]) == 999
    for data in (b"x" * 10_000, gzip.compress(b"x" * 10_000)):
        with pytest.raises(ek.CorpusError, match=r"Line 1 of 'a\.txt' is longer than 1,000"):
            ek.load_corpus(write(tmp_path / "a.txt", data))


def test_a_full_disk_while_unpacking_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(content_module.shutil, "copyfileobj", full)
    with pytest.raises(ek.CorpusError, match=r"'a\.parquet\.gz' cannot be read: No space left"):
        ek.load_corpus(write(tmp_path / "a.parquet.gz", gzip.compress(as_parquet())))


def test_names_that_no_file_can_have_are_unknown():
    for name in ("x" * 5000, "a\0b", "~nobody-of-this-name/a"):
        with pytest.raises(ek.CorpusError, match=r"Unknown corpus"):
            ek.load_corpus(name)
    with pytest.raises(ek.CorpusError, match="There is no file"):
        ek.load_corpus("~nobody-of-this-name/a.txt")
    for place in ("~nobody-of-this-name/a", "x" * 5000, "a\0b"):
        with pytest.raises(ek.CorpusError, match="There is no parquet file"):
            ek.load_corpus(f"bookcorpus:{place}")


# Lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("last", [True, False])
def test_all_line_ends_are_read(end, last, tmp_path):
    text = end.join(["One.", "", "Two  words.", "Three."]) + end * last
    path = write(tmp_path / "a.txt", text)
    corpus = ek.load_corpus(path)
    assert list(corpus) == ["One.", "Two  words.", "Three."]
    assert corpus.positions.tolist() == [1, 3, 4]
    prose = ek.load_corpus(path, split_sentences=True)
    assert list(prose) == ["One.", "Two words.", "Three."]
    objects = end.join(json.dumps({"text": t}) for t in ("One.", "Two."))
    assert list(ek.load_corpus(write(tmp_path / "a.jsonl", objects))) == ["One.", "Two."]
    table = end.join(["n,text", "1,One.", f'2,"Two{end}lines."']) + end * last
    assert list(ek.load_corpus(write(tmp_path / "a.csv", table))) == ["One.", f"Two{end}lines."]


def test_line_ends_of_several_kinds_in_one_file(tmp_path):
    corpus = ek.load_corpus(write(tmp_path / "a.txt", "1\r2\r\n3\n4\n\r5"))
    assert list(corpus) == ["1", "2", "3", "4", "5"]
    assert corpus.positions.tolist() == [1, 2, 3, 4, 6]


def test_a_line_end_at_the_edge_of_a_block_counts_once(tmp_path):
    for size in range(8189, 8194):  # the stream decodes 8192 bytes at a time
        corpus = ek.load_corpus(write(tmp_path / "a.txt", "x" * size + "\r\nnext"))
        assert corpus.positions.tolist() == [1, 2]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c"])
def test_other_separators_are_white_space_in_a_line(character, tmp_path):
    text = f"One{character}two.\nThree."
    assert list(ek.load_corpus(write(tmp_path / "a.txt", text))) == text.split("\n")
    line = json.dumps({"text": f"One{character}two."}, ensure_ascii=character < " ")
    assert list(ek.load_corpus(write(tmp_path / "a.jsonl", line))) == [f"One{character}two."]
    table = f"text\nOne{character}two.\n"
    assert list(ek.load_corpus(write(tmp_path / "a.csv", table))) == [f"One{character}two."]


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_bytes_that_are_no_text_are_named_by_line(kind, tmp_path):
    begin = {"txt": b"text\n", "csv": b"text\n", "jsonl": b'{"text": "One."}\n'}[kind]
    path = write(tmp_path / f"a.{kind}", begin + b"caf\xe9\n")
    with pytest.raises(ek.CorpusError, match=rf"Line 2 of 'a\.{kind}' is not valid UTF-8.*0xe9"):
        ek.load_corpus(path)
    path = write(tmp_path / f"a.{kind}", begin + b"a\0b\n")
    with pytest.raises(ek.CorpusError, match=rf"Line 2 of 'a\.{kind}' holds a NUL"):
        ek.load_corpus(path)


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_empty_files_hold_no_sentence(kind, tmp_path):
    for data in (b"", b"\n\r\n", gzip.compress(b""), zstd(b"")):
        with pytest.raises(ek.CorpusError, match="holds no sentence"):
            ek.load_corpus(write(tmp_path / f"a.{kind}", data))


# JSON lines


def test_rows_without_a_text_are_counted(tmp_path):
    lines = ['{"n": 1}', '{"text": null}', "", '{"text": " "}', '{"text": "Five."}', '{"text":"6"}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    corpus = ek.load_corpus(path)
    assert (list(corpus), corpus.positions.tolist()) == (["Five.", "6"], [5, 6])
    assert corpus.without_text == 3
    drawn = draw(5, 3, 2)  # the blank line is no row
    sampled = ek.load_corpus(path, sample=3, seed=2)
    assert sampled.positions.tolist() == [[1, 2, 4, 5, 6][i] for i in drawn if i > 2]
    assert sampled.without_text == sum(i < 3 for i in drawn)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "One."', r"Line 2 of 'a\.jsonl' is not a JSON object \(Expecting"),
        ("One.", r"Line 2 of 'a\.jsonl' is not a JSON object \(Expecting value\)"),
        ('["One."]', r"Line 2 of 'a\.jsonl' is an array, not a JSON object"),
        ('"One."', r"Line 2 of 'a\.jsonl' is a string, not"),
        ("3", r"Line 2 of 'a\.jsonl' is a number, not"),
        ("null", r"Line 2 of 'a\.jsonl' is null, not"),
        ("[" * 100_000, r"Line 2 of 'a\.jsonl' is not a JSON object"),
        ('{"text": ' + "9" * 5000 + "}", r"[Ll]ine 2 of 'a\.jsonl'"),
        ('{"text": 3}', r"'text' of line 2 of 'a\.jsonl' holds a number, not text"),
        ('{"text": true}', r"'text' of line 2 of 'a\.jsonl' holds true or false, not text"),
        ('{"text": ["One."]}', r"'text' of line 2 of 'a\.jsonl' holds an array, not text"),
        ('{"text": {"a": 1}}', r"'text' of line 2 of 'a\.jsonl' holds an object, not text"),
        ('{"text": "a", "text": "b"}', r"Line 2 of 'a\.jsonl' has more than one column 'text'"),
    ],
)
def test_a_bad_line_is_named_by_number(line, words, tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "One."}\n' + line + "\n")
    with pytest.raises(ek.CorpusError, match=words):
        ek.load_corpus(path)


def test_a_key_that_no_object_has_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "One."}\n{"body": "Two.", "n": 2}\n{}\n')
    with pytest.raises(
        ek.CorpusError, match=r"no column 'text'; its columns are body, n\. .*text_"
    ):
        ek.load_corpus(path)
    assert list(ek.load_corpus(path, text_column="body")) == ["One.", "Two."]


def test_a_key_inside_another_is_named_with_a_dot(tmp_path):
    row = {"a": {"b": {"c": "deep"}, "d": "not this"}, "a.d": "here", "text": 1}
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    assert list(ek.load_corpus(path, text_column="a.b.c")) == ["deep"]
    assert list(ek.load_corpus(path, text_column="a.d")) == ["here"]
    both = write(tmp_path / "b.jsonl", json.dumps({"a": {"b": {"c": "1"}, "b.c": "2"}}))
    with pytest.raises(ek.CorpusError, match=r"Line 1 of 'b\.jsonl' has more than one .*'a\.b\.c'"):
        ek.load_corpus(both, text_column="a.b.c")
    with pytest.raises(ek.CorpusError, match=r"no column 'a\.x'"):
        ek.load_corpus(path, text_column="a.x")


def test_other_keys_may_stand_twice(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"n": 1, "n": 2, "text": "One.", "t": {"e": 1, "e": 2}}')
    assert list(ek.load_corpus(path)) == ["One."]


# CSV


def test_words_that_mean_a_missing_value_elsewhere_are_text(tmp_path):
    words = ["nan", "NaN", "null", "NULL", "NA", "N/A", "None", "-", "1", "1.50", "true"]
    lines = "\n".join(words)
    assert list(ek.load_corpus(write(tmp_path / "a.csv", f"text\n{lines}\n"))) == words
    rows = "\n".join(json.dumps({"text": word}) for word in words)
    assert list(ek.load_corpus(write(tmp_path / "a.jsonl", rows))) == words


@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv.bak", "a.txt.gz"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL], ids=["minimal", "all"])
def test_a_table_by_another_name_is_refused(quoting, name, tmp_path):
    table = pd.DataFrame({"id": [1, 2], "text": ROWS, "label": ["a", "b"]})
    for delimiter, ending in ((",", "csv"), ("\t", "tsv")):
        data = table.to_csv(sep=delimiter, index=False, quoting=quoting).encode()
        path = write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
        with pytest.raises(ek.CorpusError, match=rf"first line of .* 'text' .*ending \.{ending};"):
            ek.load_corpus(path)
        renamed = path.rename(tmp_path / f"renamed.{ending}")
        assert list(ek.load_corpus(renamed)) == ROWS, "the remedy works"


def test_a_first_line_that_is_a_little_like_a_header_is_a_sentence(tmp_path):
    for line in (
        "text",
        "A word, text, and more",
        "text, code",
        "some text,more",
        "text,",
        "text,text",
    ):
        assert list(ek.load_corpus(write(tmp_path / "a.txt", f"{line}\nTwo.\n"))) == [line, "Two."]


def test_an_empty_value_is_a_row_without_text(tmp_path):
    pd.DataFrame({"n": [1, 2, 3, 4], "text": ["One.", None, " ", "Four."]}).to_csv(
        tmp_path / "a.csv", index=False
    )
    corpus = ek.load_corpus(tmp_path / "a.csv")
    assert (list(corpus), corpus.positions.tolist()) == (["One.", "Four."], [1, 4])
    assert corpus.without_text == 2


def test_quotes_and_line_ends_inside_values(tmp_path):
    text = 'text,n\n"She said ""no"".\nThen, nothing.",1\nplain 5" disk,2\n'
    corpus = ek.load_corpus(write(tmp_path / "a.csv", text))
    assert list(corpus) == ['She said "no".\nThen, nothing.', 'plain 5" disk']
    assert corpus.positions.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "text,n\nOne, two.,1\n",
            r"row in line 2 of 'a\.csv' has 3 values.* 2 columns.*com",
        ),
        ("a.tsv", "text\tn\n\nOne.\n", r"row in line 3 of 'a\.tsv' has 1 values.* 2 columns.*tab"),
        (
            "a.csv",
            'text\n"One\ntwo\nthree.\n',
            r"row that begins in line 2 of 'a\.csv' is malformed",
        ),
        ("a.csv", 'text\nOne.\n"Yes" he said\n', r"begins in line 3 of 'a\.csv' is malformed"),
        ("a.tsv", 'text\n"Yes" he said\n', r"begins in line 2 of 'a\.tsv' is malformed.*quote"),
        ("a.csv", "text,n,text\nOne.,1,Two.\n", r"'a\.csv' has more than one column 'text'"),
        ("a.csv", "n;text\n1;One.\n", r"no column 'text'; its columns are n;text\..*by commas"),
        ("a.tsv", "n,text\n1,One.\n", r"no column 'text'; its columns are n,text\..*by tabs"),
        ("a.csv", '"text\n', r"begins in line 1 of 'a\.csv' is malformed"),
    ],
)
def test_malformed_tables_are_refused_by_line(name, text, words, tmp_path):
    path = write(tmp_path / name, text)
    with pytest.raises(ek.CorpusError, match=words):
        ek.load_corpus(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_quotes_that_join_lines_of_a_tsv_are_refused(end, tmp_path):
    """Such a file mostly does not quote, and the rows between two stray quotes would be one."""
    lines = ["label\ttext", '1\t"unbalanced start', "0\tnext row", '1\tends here"', ""]
    path = write(tmp_path / "a.tsv", end.join(lines))
    with pytest.raises(ek.CorpusError, match=r"Lines 2 to 4 of 'a\.tsv' are one row if.*\.csv"):
        ek.load_corpus(path)
    assert len(ek.load_corpus(write(tmp_path / "a.csv", end.join(lines).replace("\t", ",")))) == 1


def test_a_tsv_that_pandas_quotes_is_read(tmp_path):
    texts = ['She said "no".', 'A tab\tand "quotes"', '"All of it"', "Plain."]
    table = pd.DataFrame({"n": range(4), "text": texts})
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        table.to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=quoting)
        assert list(ek.load_corpus(tmp_path / "a.tsv")) == texts


def test_blanks_behind_a_comma_are_no_part_of_a_value(tmp_path):
    text = 'n, text, m\n1, "x, y", 2\n2, plain, 3\n3,"  inside",4\n4,   ,5\n'
    corpus = ek.load_corpus(write(tmp_path / "a.csv", text))
    assert (list(corpus), corpus.without_text) == (["x, y", "plain", "inside"], 1)
    for line in ('1, "x" y, 2', '1, "x y" , 2', '1,\xa0"x, y",2'):
        path = write(tmp_path / "a.csv", f"n, text, m\n{line}\n")
        with pytest.raises(ek.CorpusError, match=r"line 2 of 'a\.csv'"):
            ek.load_corpus(path)
    # Tabs need no blanks behind them: there, quotes behind a blank are text.
    assert list(ek.load_corpus(write(tmp_path / "a.tsv", 'n\ttext\n1\t "x y"\n'))) == ['"x y"']


def test_a_long_value_is_read_and_leaves_the_csv_module_as_it_was(tmp_path):
    before = csv.field_size_limit()
    long = "word " * 100_000
    corpus = ek.load_corpus(write(tmp_path / "a.csv", f"text\n{long}\n"))
    assert list(corpus) == [long.strip()]
    assert csv.field_size_limit() == before


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["csv", "tsv", "jsonl"]),
)
def test_any_text_survives_a_table(tmp_path_factory, rows, kind):
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    if kind == "jsonl":
        data = "\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows)
        path.write_text(data, encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            writer.writerows([["n", "text"], *enumerate(rows)])
    if kind == "tsv" and any("\n" in row or "\r" in row for row in rows):
        with pytest.raises(ek.CorpusError, match=r"are one row if"):
            ek.load_corpus(path)
        return
    wanted = {number: row.strip() for number, row in enumerate(rows, 1) if row.strip()}
    try:
        corpus = ek.load_corpus(path)
    except ek.CorpusError as error:
        assert "holds no sentence" in str(error) and not wanted
    else:
        assert dict(zip(corpus.positions.tolist(), corpus, strict=True)) == wanted
        assert corpus.without_text == len(rows) - len(wanted)


# Parquet


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ek.CorpusError, match=r"'a\.parquet' has more than one column 'text'"):
        ek.load_corpus(tmp_path / "a.parquet")


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
def test_names_with_dots_are_told_from_fields_of_structs(order, tmp_path):
    columns = {
        "a.b": pa.array(["dotted", "2"]),
        "a": pa.array([{"b": "inside", "c": {"d": "deep"}}, None]),
        "a.c": pa.array([{"e": "odd"}, {"e": None}]),
    }
    chosen = {list(columns)[i]: list(columns.values())[i] for i in order}
    pq.write_table(pa.table(chosen), tmp_path / "a.parquet")

    def read(column: str) -> list[str]:
        corpus = ek.load_corpus(tmp_path / "a.parquet", text_column=column)
        assert len(corpus) + corpus.without_text == 2
        return list(corpus)

    assert read("a.b") == ["dotted", "2"]
    assert read("a.c.d") == ["deep"]
    assert read("a.c.e") == ["odd"]
    for column, words in (("a", "struct.*not text"), ("a.c", "struct"), ("a.x", "no column 'a.x'")):
        with pytest.raises(ek.CorpusError, match=words):
            read(column)


def test_fields_with_dots_in_their_names_are_read(tmp_path):
    inner = pa.array([{"b.c": "One.", "b": {"d": "Two."}}])
    pq.write_table(pa.table({"a": inner}), tmp_path / "a.parquet")
    assert list(ek.load_corpus(tmp_path / "a.parquet", text_column="a.b.c")) == ["One."]
    assert list(ek.load_corpus(tmp_path / "a.parquet", text_column="a.b.d")) == ["Two."]


def test_a_field_that_two_structs_name_is_refused(tmp_path):
    columns = {"a": pa.array([{"b.c": "1"}]), "a.b": pa.array([{"c": "2"}])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ek.CorpusError, match=r"more than one column 'a\.b\.c'"):
        ek.load_corpus(tmp_path / "a.parquet", text_column="a.b.c")
    twice = [pa.array([{"x": "1"}]), pa.array([{"b": "2"}])]
    pq.write_table(pa.Table.from_arrays(twice, names=["a", "a"]), tmp_path / "b.parquet")
    with pytest.raises(ek.CorpusError, match=r"more than one column 'a',"):
        ek.load_corpus(tmp_path / "b.parquet", text_column="a.b")


@pytest.mark.parametrize("kind", ["list", "map", "binary", "null"])
def test_columns_of_other_kinds_are_refused(kind, tmp_path):
    columns = {
        "list": pa.array([["One."]]),
        "map": pa.array([[("text", "One.")]], pa.map_(pa.string(), pa.string())),
        "binary": pa.array([b"One."]),
        "null": pa.nulls(1),
    }
    pq.write_table(pa.table({"text": columns[kind]}), tmp_path / "a.parquet")
    with pytest.raises(ek.CorpusError, match=rf"'a\.parquet' holds {kind}.*, not text"):
        ek.load_corpus(tmp_path / "a.parquet")
    with pytest.raises(ek.CorpusError, match=r"no column 'text\.text'"):
        ek.load_corpus(tmp_path / "a.parquet", text_column="text.text")


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_a_column_is_a_string(kind, tmp_path):
    with pytest.raises(ek.CorpusError, match="text_column must be the name of a column, got 3"):
        ek.load_corpus(write(tmp_path / f"a.{kind}", KINDS[kind]), text_column=3)


def test_a_sample_of_no_rows_is_refused_as_no_sentence(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    write(tmp_path / "a.csv", "text\n")
    write(tmp_path / "a.jsonl", "\n")
    for kind in ("parquet", "csv", "jsonl"):
        with pytest.raises(ek.CorpusError, match=rf"'a\.{kind}' holds no sentence"):
            ek.load_corpus(tmp_path / f"a.{kind}", sample=2)


def test_text_in_parquet_that_is_not_utf8_is_named_by_row(tmp_path):
    bad = pa.array([b"One.", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(ek.CorpusError, match=r"Row 2 of 'a\.parquet' is not valid UTF-8"):
        ek.load_corpus(tmp_path / "a.parquet")


@pytest.mark.parametrize("column", ["text", "a.text"])
def test_a_page_whose_checksum_is_wrong_is_refused(column, tmp_path):
    texts = pa.array([f"Sentence {n}." for n in range(400)])
    columns = (
        {"text": texts}
        if column == "text"
        else {"a": pa.StructArray.from_arrays([texts], ["text"])}
    )
    how = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", write_page_checksum=True, **how)
    assert len(ek.load_corpus(tmp_path / "a.parquet", text_column=column)) == 400
    data = (tmp_path / "a.parquet").read_bytes()
    for pack in PACKED.values():
        path = write(tmp_path / "b.parquet", pack(data.replace(b"Sentence 99.", b"Sentence 98.")))
        with pytest.raises(ek.CorpusError, match=r"'b\.parquet' cannot be read as.*CRC checksum"):
            ek.load_corpus(path, text_column=column)
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", **how)  # without checksums
    assert len(ek.load_corpus(tmp_path / "a.parquet", text_column=column)) == 400


# Rows without text, told and recorded


def test_a_part_of_a_corpus_does_not_count_the_rows_of_the_whole_again(tmp_path):
    texts = ["One two.", None, "Three.", " ", "Four five six."]
    pd.DataFrame({"text": texts}).to_parquet(tmp_path / "a.parquet")
    corpus = ek.load_corpus(tmp_path / "a.parquet")
    assert corpus.without_text == 2
    parts = [corpus[:1], corpus[1:], corpus.select(limit=2), corpus.select(sample=2)]
    assert [part.without_text for part in parts] == [0] * 4
    for options in ({"max_words": 2}, {"split_sentences": True, "sample": 2}):
        read = ek.load_corpus(tmp_path / "a.parquet", **options)
        assert (len(read), read.without_text) == (2, 2), "its rows were read, and left out"


def test_blank_lines_of_bookcorpus_stay_and_missing_ones_are_counted(tmp_path):
    pq.write_table(pa.table({"text": ["One.", None, "", "Four."]}), tmp_path / "a.parquet")
    corpus = ek.load_corpus(f"bookcorpus:{tmp_path}", sample=4)
    assert sorted(corpus) == ["", "Four.", "One."]
    assert corpus.without_text == 1
    with pytest.raises(ek.CorpusError, match=r"'a\.txt' is not a parquet file"):
        ek.load_corpus(f"bookcorpus:{write(tmp_path / 'a.txt', 'One.')}")
