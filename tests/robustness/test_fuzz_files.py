"""Damaged files, truncated anywhere or with any bit flipped, are refused or read unchanged.

The kit's own files carry a SHA-256, so no change goes unnoticed. Files of others carry none, and a
flipped bit in a weight or a letter makes another weight or letter; there the kit promises that it
raises a named error or reads the file, and never runs code from it.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from effort import LONG, effort, tried

import embvar_kit as ek
from embvar_kit.array_file import CheckpointFile, write
from embvar_kit.paper.release import read_sentences, read_token_statistics, write_token_statistics


@pytest.fixture(scope="module")
def stats(model):
    return ek.extract(model, ek.load_corpus("wikipedia", limit=30), progress=False)


def damaged(data: bytes, kind: str, number: int) -> Iterator[bytes]:
    """The file cut at lengths of each kind, then with one bit flipped, ``number`` times.

    Half of the flips fall near its ends, where headers and indices lie.
    """
    rng = random.Random(None if LONG else kind)
    size = len(data)
    lengths = {0, 1, 7, 8, 9, size // 3, size // 2, size - 9, size - 8, size - 1}
    for length in sorted(length for length in lengths if 0 <= length < size):
        tried(f"{kind} truncated")
        yield data[:length]
    for turn in range(number):
        near = min(size, 400)
        at = (rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near))
        at = at[0] if turn % 2 else at[1 + turn // 2 % 2]
        tried(f"{kind} with a bit flipped")
        yield data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def each_file(folder: Path, kind: str, number: int) -> Iterator[str]:
    """Damage each file of a folder in turn; yields its name, and restores it afterwards."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        whole = path.read_bytes()
        for data in damaged(whole, f"{kind}: {path.suffix}", number):
            path.write_bytes(data)
            yield path.name
        path.write_bytes(whole)


def same(found: ek.TokenStatistics, wanted: ek.TokenStatistics) -> None:
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert found.info == wanted.info
    for name in ("n", "Q", "M", "V", "mean", "extra", "special", "layers", "subwords"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["with means", "compact", "of words"])
def test_saved_statistics_are_whole_or_refused(stats, model, tmp_path, form):
    if form == "compact":
        stats = stats.compact()
    if form == "of words":
        stats = ek.extract(model, ek.load_corpus("wikipedia", limit=5), by="word", progress=False)
    stats.save(tmp_path)
    wanted = ek.TokenStatistics.load(tmp_path)
    for name in each_file(tmp_path, "statistics", effort(60, 3000)):
        try:
            found = ek.TokenStatistics.load(tmp_path)
        except ek.StatisticsFileError as error:
            assert name.partition("-")[0].partition(".")[0] in str(error) or "saved" in str(error)
        else:
            same(found, wanted)
    same(ek.TokenStatistics.load(tmp_path), wanted)


@pytest.mark.timeout(900)
def test_a_checkpoint_is_whole_or_refused(tmp_path):
    path = tmp_path / "pass.safetensors"
    x = np.random.default_rng(0).normal(size=(20, 30))
    write(path, {"x": x, "n": np.arange(7)}, {"done": 3, "asked": {"by": "token"}})
    whole = path.read_bytes()
    for data in damaged(whole, "checkpoint", effort(300, 6000)):
        path.write_bytes(data)
        try:
            kept = CheckpointFile(path)
        except ek.CheckpointError as error:
            assert "cannot be read" in str(error)
        else:
            assert kept.told == {"done": 3, "asked": {"by": "token"}}
            np.testing.assert_array_equal(kept["x"], x)
            np.testing.assert_array_equal(kept["n"], np.arange(7))


@pytest.mark.timeout(900)
def test_the_authors_statistics_are_consistent_or_refused(stats, tmp_path):
    """These files have no checksum: a changed number shows where it contradicts the others."""
    path = write_token_statistics(stats, tmp_path / "model.pkl")
    read_token_statistics(path)
    for data in damaged(path.read_bytes(), "authors' statistics", effort(150, 4000)):
        path.write_bytes(data)
        try:
            found = read_token_statistics(path)
        except ek.ReleaseError as error:
            assert "model.pkl" in str(error)
        else:
            assert (np.abs(found.Q - found.M - found.V) <= 1e-3 * np.abs(found.Q)).all()
            assert len(found) == len(set(found.tokens))


@pytest.mark.timeout(900)
def test_the_authors_sentences_are_text_or_refused(tmp_path):
    path = tmp_path / "sentences.pkl"
    for data in damaged(
        pickle.dumps([f"sentence number {n} é 👍" for n in range(50)]),
        "authors' sentences",
        effort(300, 6000),
    ):
        path.write_bytes(data)
        try:
            corpus = read_sentences(path)
        except ek.EmbvarError as error:
            assert "sentences.pkl" in str(error)
        else:
            assert all(isinstance(sentence, str) for sentence in corpus)


def test_a_pickle_with_a_flipped_bit_runs_nothing(tmp_path):
    """None of the flips makes the call in the file happen; it would leave a folder behind."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "bomb.pkl"
    whole = pickle.dumps([Bomb(), "a sentence"])
    flips = [(at, bit) for at in range(len(whole)) for bit in range(8)]
    for at, bit in flips if LONG else random.Random(0).sample(flips, 300):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        tried("pickles with code and a bit flipped")
        with pytest.raises(ek.EmbvarError):
            read_sentences(path)
        assert not (tmp_path / "ran").exists()


ROWS = [f"row number {n}, some “text”" for n in range(300)]
TABLES: dict[str, Callable[[Path], object]] = {
    "text.parquet": lambda path: pq.write_table(pa.table({"text": ROWS}), path),
    "text.csv": lambda path: pd.DataFrame({"text": ROWS}).to_csv(path, index_label="n"),
    "text.jsonl": lambda path: pd.DataFrame({"text": ROWS}).to_json(
        path, orient="records", lines=True
    ),
    "text.csv.gz": lambda path: pd.DataFrame({"text": ROWS}).to_csv(path, index_label="n"),
    "text.txt.gz": lambda path: path.write_bytes(gzip.compress("\n".join(ROWS).encode())),
    "text.txt.zst": lambda path: path.write_bytes(
        pa.compress("\n".join(ROWS).encode(), codec="zstd", asbytes=True)
    ),
    "text.parquet.gz": lambda path: path.write_bytes(gzip.compress(parquet_bytes())),
}


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ROWS}), file)
    return file.getvalue()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TABLES)
def test_a_corpus_in_a_file_is_read_or_refused(name, tmp_path):
    path = tmp_path / name
    TABLES[name](path)
    assert list(ek.load_corpus(path)) == ROWS
    known = name == "text.parquet"
    kind = "parquet" if known else "corpora in other files"
    number = effort(200, 6000) if known else effort(100, 2000)
    for data in damaged(path.read_bytes(), kind, number):
        path.write_bytes(data)
        try:
            corpus = ek.load_corpus(path)
        except ek.CorpusError as error:
            assert name in str(error)
        else:
            assert all(isinstance(sentence, str) for sentence in corpus)
            # gzip has a checksum: what it gives has not changed, if its header still says gzip.
            if name.endswith(".gz") and data.startswith(b"\x1f\x8b\x08"):
                assert list(corpus) == ROWS


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_is_loaded_or_refused(tiny, tmp_path, family):
    folder = tmp_path / family
    shutil.copytree(tiny(family), folder)
    check: Callable[[], object] = lambda: ek.load_model(folder, device="cpu")  # noqa: E731
    states = check().n_states
    for name in each_file(folder, "model", effort(20, 400)):
        try:
            assert check().n_states >= 1
        except ek.ModelError as error:
            assert family in str(error), name
    assert check().n_states == states


def test_a_small_file_that_claims_much_takes_no_memory(tmp_path):
    header = b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path = tmp_path / "pass.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ek.CheckpointError, match="cannot be read"):
        CheckpointFile(path)
    path.write_bytes((1 << 62).to_bytes(8, "little") + header)
    with pytest.raises(ek.CheckpointError, match="cannot be read"):
        CheckpointFile(path)
