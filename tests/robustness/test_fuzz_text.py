"""Any text gives a correct result, or an error that names the place of what is wrong."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from effort import effort, tried
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import embvar_kit as ek
from embvar_kit.corpora.content import GZIP, PARQUET, REFUSED, ZSTD

NASTY = (
    "",
    " \t ",
    "\0",
    "a\0b",
    "\ud800",
    "x\udfffy",
    "\ufeffbegin",
    "line\u2028and\u2029paragraph",
    "next\x85line",
    "carriage\rreturn",
    "zero\u200bwidth\u200djoiner",
    "e" + "\u0301" * 40,
    "שלום עולם",
    "مرحبا \u202eright to left\u202c",
    "👩‍👩‍👧‍👦 👍🏽 🇯🇵 🏴‍☠️",
    "İstanbul ŞIK ǅ ﬃ ß",
    "\U0010ffff\ufffe",
    "[CLS] [SEP] [PAD] </s> <|endoftext|>",
    "##ing Ġthe ▁a",
    "9" * 300,
    "word" * 200,
    "0JJ",
)
FAMILIES = ("bert", "gpt2", "llama", "t5")
GROUPINGS = st.sampled_from(["token", "id", "word"])
LINES = st.lists(
    st.lists(st.sampled_from(NASTY) | st.text(max_size=20), max_size=5).map("".join), max_size=6
)


@pytest.fixture(scope="module")
def models(loaded):
    return {family: loaded(family) for family in FAMILIES}


@settings(max_examples=effort(60, 1500))
@given(
    sentences=LINES, family=st.sampled_from(FAMILIES), by=st.sampled_from(["token", "id", "word"])
)
def test_any_text_is_measured_or_refused_by_name(models, sentences, family, by):
    model, corpus = models[family], ek.Corpus.of(sentences)
    tried("texts measured or refused")
    try:
        stats = ek.extract(model, corpus, by=by, progress=False)
    except ek.EmbvarError as error:
        refused(str(error), corpus, model, by)
        return
    assert np.isfinite([stats.Q, stats.M, stats.V]).all() and (stats.V >= 0).all()
    assert (np.abs(stats.Q - stats.M - stats.V) <= 1e-6 * stats.Q).all()
    if by != "word":
        # A text is text, also where it spells out a control token.
        how = {"add_special_tokens": False, "split_special_tokens": True}
        ids = [model.tokenizer(s, **how)["input_ids"] for s in sentences]
        counts = stats.info["counts"]
        assert counts["empty"] == sum(not one for one in ids), "what is left out is reported"
        around = len(model.begin) + len(model.end)
        assert stats.n.sum() == sum(map(len, ids)) + around * counts["sequences"]
        assert stats.n.sum() == counts["occurrences"] == counts["tokens"]


def refused(message: str, corpus: ek.Corpus, model, by: str) -> None:
    """Check that the pass had a reason to refuse the text, and that the message names it."""
    for at, sentence in enumerate(corpus):
        try:
            sentence.encode()
        except UnicodeEncodeError:
            # The message names the first sentence that is not valid text.
            assert corpus.where(at) in message and "surrogate" in message
            return
    left = [s for s in corpus if model.tokenizer(s, add_special_tokens=False)["input_ids"]]
    if left:
        assert by == "word", message
        # Offsets that a dropped character shifts are refused.
        dropped = "LlamaTokenizer drops characters" in message
        assert dropped or "has no word" in message or "share tokens" in message, message
    else:
        assert "is left after tokenization" in message, message


FRAGMENTS = st.sampled_from(
    [b"\xef\xbb\xbf", b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8"]
    + [text.encode("utf-8", "surrogatepass") for text in NASTY]
)


OTHERS, JSON = (*REFUSED, GZIP, *ZSTD, PARQUET), (b"{", b"[")
"""Beginnings of files that are, or may be, of another kind than text."""

MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte-order marks of UTF-16; those of UTF-32 begin or end with them."""


@settings(max_examples=effort(150, 4000))
@given(data=st.lists(FRAGMENTS | st.binary(max_size=12), max_size=12).map(b"".join))
def test_any_file_gives_its_lines_or_names_the_one_that_is_no_text(data, tmp_path_factory):
    assume(not data.startswith(OTHERS) and not data.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(JSON))
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    tried("text files read or refused")
    lines = re.split(b"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))
    bad = next((number for number, line in enumerate(lines, 1) if not is_text(line)), None)
    wanted = [] if bad else [line.decode().strip() for line in lines]
    try:
        corpus = ek.load_corpus(path)
    except ek.CorpusError as error:
        if data.startswith(MARKS) or data.startswith(b"\0\0\xfe\xff"):
            assert re.search("'any.txt' is UTF-(16|32) text", str(error))
        elif bad:
            assert re.search(
                rf"Line {bad} of 'any.txt' (is not valid UTF-8|holds a NUL)", str(error)
            )
        else:
            assert not any(wanted) and "no sentence" in str(error)
    else:
        assert bad is None
        numbers = [number for number, line in enumerate(wanted, 1) if line]
        assert list(corpus) == [wanted[number - 1] for number in numbers]
        assert corpus.positions.tolist() == numbers
    try:
        split = ek.load_corpus(path, split_sentences=True)
    except ek.CorpusError as error:
        assert bad or not any(wanted), error
    else:
        assert not bad
        # Splitting prose into sentences changes white space only.
        assert "".join("".join(split).split()) == "".join("".join(wanted).split())


def is_text(line: bytes) -> bool:
    try:
        return "\0" not in line.decode()
    except UnicodeDecodeError:
        return False


@settings(max_examples=effort(40, 1000))
@given(rows=st.lists(st.none() | st.sampled_from(NASTY) | st.text(max_size=9), max_size=8))
def test_any_column_gives_its_rows(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    rows = [None if row is None else row.encode("utf-8", "ignore").decode() for row in rows]
    wanted = {number: row.strip() for number, row in enumerate(rows, 1) if row and row.strip()}
    categories = pa.dictionary(pa.int32(), pa.string())
    for kind in (pa.string(), pa.large_string(), pa.string_view(), categories):
        pq.write_table(pa.table({"text": pa.array(rows, type=kind)}), path)
        tried("parquet files read or refused")
        try:
            corpus = ek.load_corpus(path)
        except ek.CorpusError as error:
            assert not wanted, error
        else:
            assert dict(zip(corpus.positions.tolist(), corpus, strict=True)) == wanted


@pytest.mark.parametrize("family", [*FAMILIES, "minilm"])
@pytest.mark.parametrize("character", ["a", "é", "👍", "字"])
@pytest.mark.slow
def test_a_million_characters_without_a_blank_take_seconds(models, minilm, family, character):
    model = minilm if family == "minilm" else models[family]
    corpus = ek.Corpus.of(["A short sentence.", character * 1_000_000])
    started = time.monotonic()
    work = ek.plan(model, corpus)
    assert time.monotonic() - started < 60
    assert len(work.text.lengths) > 1
    if model.max_tokens:
        assert work.text.lengths.max() <= model.max_tokens
    assert all(first <= last for first, last in pairwise(work.text.sentence))


@pytest.mark.parametrize("by", ["token", "word"])
def test_strange_tokens_survive_being_saved(models, by, tmp_path):
    text = [line for line in NASTY if line.strip() and line.isprintable()] + ["two plain words"]
    stats = ek.extract(models["gpt2"], ek.Corpus.of(text), by=by, progress=False)
    stats.save(tmp_path)
    again = ek.TokenStatistics.load(tmp_path)
    assert again.tokens.tolist() == stats.tokens.tolist()
    np.testing.assert_array_equal(again.V, stats.V)
