"""A store is a folder or a bucket: the same pass, and errors that name it."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

import embvar_kit as ek
from embvar_kit.extraction.store import Store

BUCKET = "embeddings"


@pytest.fixture(scope="module")
def server():
    """The address of a server that speaks S3's protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": server,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)
    yield f"s3://{BUCKET}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "bucket"])
def url(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def test_what_is_written_is_read(url):
    store = Store(url)
    assert store.names("shards") == set() and not store.has("shards/a.safetensors")
    arrays = {"x": np.arange(6.0).reshape(2, 3), "none": np.zeros(0, dtype=np.int64)}
    store.write_arrays("shards/a.safetensors", arrays, {"é": [1]})
    file = store.read_arrays("shards/a.safetensors")
    assert file.told == {"é": [1]}
    for name, array in arrays.items():
        np.testing.assert_array_equal(file[name], array)
    assert store.names("shards") == {"a.safetensors"} and store.has("shards/a.safetensors")
    store.write_json("manifest.json", {"ü": 1})
    assert store.read_json("manifest.json") == {"ü": 1}
    store.remove("manifest.json")
    store.remove("manifest.json")
    assert not store.has("manifest.json")
    store.check_writable()
    assert store.names("") - {"shards"} == set()


def test_a_pass_in_a_bucket_has_the_bits_of_one_in_a_folder(model, bucket, tmp_path):
    corpus = ek.load_corpus("wikipedia", sample=40, max_words=20)
    found = [
        ek.extract(model, corpus, shards=3, store=store, layers=[0, 2], progress=False)
        for store in (tmp_path / "folder", f"{bucket}/run", f"{bucket}/run")
    ]
    for other in found[1:]:
        assert other.tokens.tolist() == found[0].tokens.tolist()
        for name in ("n", "Q", "M", "V", "mean", "extra"):
            np.testing.assert_array_equal(getattr(other, name), getattr(found[0], name))
    assert not Store(f"{bucket}/run").has("in-use.json"), "the sign of life is taken away"


def test_a_damaged_object_is_named(bucket):
    store = Store(f"{bucket}/damaged")
    store.write_arrays("a.safetensors", {"x": np.arange(6.0)}, {})
    data = store._files.cat_file(store.path("a.safetensors"))
    store._files.pipe_file(store.path("a.safetensors"), data[:-1] + b"?")
    with pytest.raises(ek.CheckpointError, match=r"damaged/a\.safetensors' cannot be read"):
        store.read_arrays("a.safetensors")["x"]
    with pytest.raises(ek.CheckpointError, match=r"damaged/b\.safetensors' cannot be read"):
        store.read_arrays("b.safetensors")


def test_a_second_client_of_a_bucket_is_told_and_a_dead_one_is_not_waited_for(bucket):
    store = Store(f"{bucket}/leased")
    with (
        store.held(),
        pytest.raises(ek.CheckpointError, match=r"Another client \(process \d+ on .*is using"),
        Store(f"{bucket}/leased").held(),
    ):
        pass
    store.write_json("in-use.json", {"who": "process 1 on another", "alive": time.time() - 100})
    with store.held():
        assert "process 1 on another" not in json.dumps(store.read_json("in-use.json"))


def test_a_client_renews_its_sign_of_life(bucket, monkeypatch):
    monkeypatch.setattr("embvar_kit.extraction.store._RENEW", 0.05)
    store = Store(f"{bucket}/renewed")
    with store.held():
        first = store.read_json("in-use.json")["alive"]
        until = time.monotonic() + 10
        while store.read_json("in-use.json")["alive"] == first:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://x/y", "'nosuch://x/y' cannot be opened: Protocol not known"),
        ("s3://no-such-bucket/x", "'s3://no-such-bucket/x' cannot be written"),
    ],
)
def test_a_store_that_cannot_be_used_is_named(bucket, url, message):
    with pytest.raises(ek.CheckpointError, match=message):
        Store(url).check_writable()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ek.CheckpointError, match=r"store '.*file' cannot be written"):
        Store(tmp_path / "file").check_writable()


def test_what_killed_workers_left_behind_is_removed_when_it_is_old(tmp_path):
    (tmp_path / "shards").mkdir()
    old, new = (tmp_path / "shards" / f".a.safetensors.writing-{name * 8}" for name in "ab")
    for folder in (old, new):
        folder.mkdir()
        (folder / "a.safetensors").write_text("half")
    os.utime(old, (1, 1))
    store = Store(tmp_path)
    with store.held():
        assert not old.exists() and new.exists(), "another worker may be writing the new one"
    store.write_arrays("shards/a.safetensors", {"x": np.arange(3.0)}, {})
    assert store.names("shards") - {new.name} == {"a.safetensors"}


def test_files_in_a_bucket_are_a_corpus(model, bucket, tmp_path):
    import s3fs

    files = s3fs.S3FileSystem()
    texts = f"{bucket}/{tmp_path.name}/texts"
    sentences = {"a/one.txt": "The cat sat.", "b/one.txt": "The dog ran.", "b/é [x].txt": "A cat."}
    for name, sentence in sentences.items():
        files.pipe_file(f"{texts}/{name}", sentence.encode())
    files.pipe_file(f"{texts}/b/empty.txt", b"")
    files.pipe_file(f"{texts}/c.txt/", b"")  # what some programs write for a folder
    files.pipe_file(f"{texts}/.trash/one.txt", b"Deleted.")
    corpus = ek.load_corpus(f"{texts}/**/*.txt")
    read = corpus.read()
    assert dict(zip(read.titles, read, strict=True)) == sentences
    assert read.where(0) == "a/one.txt, line 1"
    found = ek.extract(model, corpus, shards=2, store=tmp_path / "store", progress=False)
    whole = ek.extract(model, ek.Corpus.of(sentences.values()), progress=False)
    assert dict(zip(found.tokens, found.n, strict=True)) == dict(
        zip(whole.tokens, whole.n, strict=True)
    )
    # Another process changes a file and adds one: this one's listing of the bucket is old then.
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.pipe_file(f"{texts}/b/two.txt", b"A new cat.")
    assert "A new cat." in ek.load_corpus(f"{texts}/**/*.txt").read().sentences
    files.pipe_file(f"{texts}/a/one.txt", b"caf\xe9")
    with pytest.raises(ek.CorpusError, match=r"a/one\.txt' was changed since"):
        corpus.read()
    with pytest.raises(ek.CorpusError, match=r"In 's3://.*/a/one\.txt': Line 1 of 'one\.txt'"):
        ek.load_corpus(f"{texts}/**/*.txt").read()
    files.rm(f"{texts}/a/one.txt")
    with pytest.raises(ek.CorpusError, match=r"'s3://.*/a/one\.txt' cannot be read: "):
        corpus.read()
