"""A corpus of many files: found by a pattern, read when it is measured, refused if changed."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pandas as pd
import pytest

import embvar_kit as ek
from embvar_kit.extraction.shard_text import files_of
from embvar_kit.extraction.shards import ShardedPass

SENTENCES = [f"the cat number {i} sat on the mat and the dog was barking" for i in range(12)]


@pytest.fixture
def folder(tmp_path):
    """Six files of two sentences each, of several kinds, and one without text."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for at in range(0, 12, 2):
        own, path = SENTENCES[at : at + 2], folder / f"{at:02}"
        if at == 0:
            pd.DataFrame({"text": [own[0], None, own[1]]}).to_parquet(f"{path}.parquet")
        elif at == 2:
            lines = "\n".join(json.dumps({"text": sentence}) for sentence in own)
            path.with_suffix(".jsonl").write_text(lines)
        elif at == 4:
            with gzip.open(f"{path}.txt.gz", "wt") as file:
                file.write("\n".join(own))
        else:
            path.with_suffix(".txt").write_text("\n".join(own))
    (folder / "13.txt").write_text("\n\n")
    return folder


def test_a_pattern_lists_files_and_reads_them_in_order(folder):
    corpus = ek.load_corpus(f"{folder}/*")
    assert len(corpus) == 7 and "7 files" in repr(corpus)
    assert list(corpus.read()) == SENTENCES
    assert [len(part) for part in corpus.chunks()] == [2] * 6
    assert corpus.read().without_text == 1
    assert len(ek.load_corpus(f"{folder}/*.txt")) == 4
    assert list(ek.load_corpus(f"{folder}/*.txt", max_words=5).read()) == []


def test_without_shards_one_file_after_another_is_measured(folder, model):
    found = ek.extract(model, ek.load_corpus(f"{folder}/*"), progress=False)
    whole = ek.extract(model, ek.Corpus.of(SENTENCES), progress=False)
    assert found.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_allclose(found.V, whole.V, atol=1e-6 * whole.Q.max())


@pytest.mark.parametrize("options", [{}, {"by": "word", "min_count": 12}], ids=["token", "word"])
def test_shards_read_the_files_themselves(folder, model, tmp_path, options):
    corpus = ek.load_corpus(f"{folder}/*")
    store = tmp_path / "store"
    found = ek.extract(model, corpus, shards=3, store=store, progress=False, **options)
    whole = ek.extract(model, ek.Corpus.of(SENTENCES), progress=False, **options)
    assert found.tokens.tolist() == whole.tokens.tolist()
    assert found.n.tolist() == whole.n.tolist()
    np.testing.assert_allclose(found.V, whole.V, atol=1e-6 * whole.Q.max())
    assert not (store / "text").exists(), "the store holds no text"
    told = found.info["corpora"]
    assert [(one["name"], one["without_text"]) for one in told] == [(f"{folder}/*", 1)]
    files = sorted(
        path
        for shard in range(3)
        for path in files_of(ShardedPass.open(store), shard).listing.paths
    )
    assert files == sorted(map(str, folder.iterdir())), "each file is in one shard"


def test_a_file_that_changed_since_is_named(folder, model, tmp_path):
    corpus = ek.load_corpus(f"{folder}/*")
    job = ShardedPass.plan(tmp_path / "store", model, corpus, shards=7)
    path = folder / "06.txt"
    before = path.stat()
    path.write_text("Another text.")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some copies do
    errors = []
    for shard in range(7):
        try:
            job.run("shards", shard, model)
        except ek.CorpusError as error:
            errors.append(str(error))
    assert len(errors) == 1 and "06.txt' was changed since the corpus was listed" in errors[0]
    # A corpus that is listed again is another one.
    with pytest.raises(ek.CheckpointError, match="text='"):
        ek.extract(
            model,
            ek.load_corpus(f"{folder}/*"),
            shards=7,
            store=tmp_path / "store",
            progress=False,
        )


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("*.csv", {}, "no file that fits"),
        ("*", {"sample": 3}, "leave out sample=3, or"),
        ("*", {"limit": 3}, "leave out limit=3, or"),
        ("*", {"max_words": 0}, "max_words must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, pattern, options, message):
    with pytest.raises(ek.CorpusError, match=message):
        ek.load_corpus(f"{folder}/{pattern}", **options)


def test_a_place_that_cannot_be_listed_is_named():
    with pytest.raises(ek.CorpusError, match=r"'nosuch://x/\*' cannot be listed: Protocol"):
        ek.load_corpus("nosuch://x/*")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    path = tmp_path / "what [sic].txt"
    path.write_text("A cat sat.")
    assert list(ek.load_corpus(path)) == ["A cat sat."]


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def test_files_of_equal_names_are_told_apart(tmp_path):
    write(tmp_path / "a" / "one.txt", "The first.")
    write(tmp_path / "b" / "one.txt", "The second.")
    corpus = ek.load_corpus(f"{tmp_path}/*/one.txt").read()
    assert [corpus.where(i) for i in (0, 1)] == ["a/one.txt, line 1", "b/one.txt, line 1"]
    (tmp_path / "b" / "one.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ek.CorpusError, match=r"In '.*/b/one\.txt': Line 1 of 'one\.txt' is not"):
        ek.load_corpus(f"{tmp_path}/**/*.txt").read()


def test_what_a_position_counts_is_said_of_files_of_several_kinds(tmp_path):
    write(tmp_path / "a.txt", "A line.")
    write(tmp_path / "b.csv", "text", "A row.")
    corpus = ek.load_corpus(f"{tmp_path}/*").read()
    assert [corpus.where(i) for i in (0, 1)] == ["a.txt, line or row 1", "b.csv, line or row 1"]
    assert ek.load_corpus(f"{tmp_path}/*.csv").read().unit == "row"


def test_odd_names_are_read(tmp_path):
    names = ["é 水.txt", "a [b].txt", "a::b.txt", "a?b#c.txt", "~a.txt", "wikipedia", "hub:a", "-"]
    for name in names:
        write(tmp_path / "texts" / name, f"In {name}")
    corpus = ek.load_corpus(f"{tmp_path}/texts/*").read()
    assert sorted(corpus) == sorted(f"In {name}" for name in names)
    assert sorted(corpus.titles) == sorted(names)


def test_folders_and_hidden_files_are_passed_over(tmp_path):
    write(tmp_path / "a.txt", "One.")
    write(tmp_path / "folder.txt" / "b.txt", "Two.")
    write(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.txt", "One.")
    write(tmp_path / ".hidden.txt", "Three.")
    assert list(ek.load_corpus(f"{tmp_path}/*.txt").read()) == ["One."]
    assert list(ek.load_corpus(f"{tmp_path}/**/*.txt").read()) == ["One.", "Two."]
    assert list(ek.load_corpus(f"{tmp_path}/.*.txt").read()) == ["Three."]
    assert list(ek.load_corpus(f"{tmp_path}/.ipynb_checkpoints/*").read()) == ["One."]
    with pytest.raises(ek.CorpusError, match="no file that fits"):
        ek.load_corpus(f"{tmp_path}/fol*")


def test_links_are_followed(tmp_path):
    """A cache of the Hub is made of them."""
    target = write(tmp_path / "blobs" / "f00", "One.")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").symlink_to(target)
    (tmp_path / "texts" / "b.txt").symlink_to(tmp_path / "blobs")
    corpus = ek.load_corpus(f"{tmp_path}/texts/*.txt")
    assert list(corpus.read()) == ["One."]
    assert corpus.listing.sizes.tolist() == [4]
    write(target, "Another.")
    os.utime(target, (1, 1))
    with pytest.raises(ek.CorpusError, match=r"a\.txt' was changed since"):
        corpus.read()
    target.unlink()
    with pytest.raises(ek.CorpusError, match=r"a\.txt' cannot be read: .*No such file"):
        corpus.read()
    with pytest.raises(ek.CorpusError, match=r"a\.txt' is a link that leads to no file \(No such"):
        ek.load_corpus(f"{tmp_path}/texts/*.txt")


def test_a_file_that_is_gone_is_named_after_the_ones_before_it(folder):
    corpus = ek.load_corpus(f"{folder}/*")
    (folder / "06.txt").unlink()
    parts = corpus.chunks()
    assert [len(next(parts)) for _ in range(3)] == [2] * 3
    with pytest.raises(ek.CorpusError, match=r"06\.txt' cannot be read: .*No such file"):
        next(parts)


def test_rows_of_files_without_text_are_counted(tmp_path):
    write(tmp_path / "a.csv", "n,text", "1,", "2,")
    write(tmp_path / "b.csv", "n,text", "1,One.", "2,")
    write(tmp_path / "c.csv", "n,text", "1,Two.")
    write(tmp_path / "d.csv", "n,text", "1,")
    write(tmp_path / "e.csv")
    corpus = ek.load_corpus(f"{tmp_path}/*.csv")
    assert [part.without_text for part in corpus.chunks()] == [3, 1]
    assert corpus.read().without_text == 4


def test_files_of_equal_content_count_as_often_as_they_are(model, tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "texts" / f"{name}.txt", "The cat sat." if name != "c" else "A dog ran.")
    corpus = ek.load_corpus(f"{tmp_path}/texts/*.txt")
    for options in (
        {},
        {"checkpoint": tmp_path / "checkpoint"},
        {"shards": 3, "store": tmp_path / "store"},
    ):
        found = ek.extract(model, corpus, progress=False, **options)
        assert found.n[found.tokens == "cat"] == 2


def test_a_file_without_a_word_is_named_and_shards_pass_over_it(model, tmp_path):
    for name, text in {"a": "The cat sat.", "b": "1 2 3", "c": "A dog ran."}.items():
        write(tmp_path / "texts" / f"{name}.txt", text)
    corpus = ek.load_corpus(f"{tmp_path}/texts/*.txt")
    with pytest.raises(ek.ExtractionError, match=r"file 'b\.txt' can be measured by word.*shards"):
        ek.extract(model, corpus, by="word", progress=False)
    where = {"shards": 3, "store": tmp_path / "store"}
    found = ek.extract(model, corpus, by="word", progress=False, **where)
    assert sorted(found.tokens) == ["cat", "dog", "ran", "sat", "the"]
