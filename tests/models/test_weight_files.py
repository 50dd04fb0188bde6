"""Files of a model that are missing, cut short, pointers or parts are named, with the remedy."""

from __future__ import annotations

import json
import shutil

import gguf
import pytest
import transformers
from tiny_models import LAYERS, SENTENCES, build_gguf

import embvar_kit as ek
from embvar_kit.models.weight_files import check_tokenizer_files

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny("bert"), tmp_path / "bert")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_named(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(ek.ModelError, match=rf"{name} of 'bert' is a pointer.*`git lfs pull`"):
        ek.load_model(folder)


def test_pointers_of_git_lfs_are_all_named(folder):
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text(POINTER)
    with pytest.raises(ek.ModelError, match=r"model\.safetensors and tokenizer\.json .*are point"):
        ek.load_model(folder)


def test_a_gguf_that_is_a_pointer_is_named(tmp_path):
    (tmp_path / "a.gguf").write_text(POINTER)
    with pytest.raises(ek.ModelError, match=r"a\.gguf .*git lfs pull"):
        ek.load_model(tmp_path / "a.gguf")


@pytest.fixture
def sharded(tiny, tmp_path):
    model = transformers.AutoModel.from_pretrained(tiny("bert"))
    model.save_pretrained(tmp_path / "parts", max_shard_size="40KB")
    transformers.AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("model-*"))) > 1
    return tmp_path / "parts"


def test_weights_in_several_files_are_those_of_one(sharded, loaded):
    model = ek.load_model(sharded, device="cpu")
    assert model.revision.count("+") == len(list(sharded.glob("model-*"))) - 1
    corpus = ek.Corpus.of(SENTENCES)
    parts, whole = (ek.extract(m, corpus, progress=False) for m in (model, loaded("bert")))
    assert (parts.mean == whole.mean).all() and (parts.V == whole.V).all()


def test_a_missing_file_of_several_is_named_and_pickles_are_not(sharded):
    absent = min(sharded.glob("model-*"))
    absent.unlink()
    with pytest.raises(ek.ModelError, match=rf"lacks {absent.name}") as caught:
        ek.load_model(sharded)
    assert "can carry code" not in str(caught.value)


def test_an_index_that_is_no_index_is_a_model_error(sharded):
    for text in ("", "[]", "{}", '{"weight_map": 3}', POINTER):
        (sharded / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ek.ModelError):
            ek.load_model(sharded)


@pytest.mark.parametrize(("kept", "words"), [(0, "is empty"), (4, "cut short"), (-9, "cut short")])
def test_weights_that_are_empty_or_cut_short_are_named(folder, kept, words):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ek.ModelError, match=rf"model\.safetensors \(.*{words}.*download it again"):
        ek.load_model(folder)


def test_no_error_of_another_library_reaches_a_user(folder, monkeypatch):
    class Foreign(Exception):
        """Of a class that nobody expects."""

    def broken(*_, **__):
        raise Foreign("out of the blue")

    for owner, name in (
        (transformers.AutoModel, "from_pretrained"),
        (transformers.AutoTokenizer, "from_pretrained"),
        (transformers.BertModel, "forward"),
        (transformers.BertConfig, "get_text_config"),
        (transformers.BertModel, "to"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, broken)
            with pytest.raises(ek.ModelError, match=r"'bert'.*out of the blue"):
                ek.load_model(folder, device="cpu")
    with pytest.raises(ek.ModelError, match="File name too long"):
        ek.load_model("n" * 5000)


# GGUF


def test_parts_of_a_split_gguf_are_refused_before_they_are_loaded(tiny, tmp_path, monkeypatch):
    """transformers would make up the weights of the other parts, gigabytes of them."""
    whole = build_gguf(tiny("llama"), tmp_path / "whole.gguf")
    named = shutil.copy(whole, tmp_path / "big-00002-of-00003.gguf")
    told = tmp_path / "told.gguf"
    writer = gguf.GGUFWriter(told, "llama")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 4)
    for finish in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{finish}_to_file")()
    writer.close()

    def loading(*_, **__):
        raise AssertionError("it was loaded")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", loading)
    for path, parts in ((named, 3), (told, 4)):
        with pytest.raises(ek.ModelError, match=rf"one of {parts} parts.*gguf-split --merge"):
            ek.load_model(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"not a gguf at all, but long enough" * 9])
def test_a_file_that_is_no_gguf_is_said_so(content, tmp_path):
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ek.ModelError, match=r"a\.gguf is damaged, cut short or no GGUF"):
        ek.load_model(tmp_path / "a.gguf")


def test_a_gguf_that_is_cut_short_is_named(tiny, tmp_path):
    content = build_gguf(tiny("llama"), tmp_path / "whole.gguf").read_bytes()
    for size in (30, 2000, len(content) // 2, len(content) - 10):
        (tmp_path / "short.gguf").write_bytes(content[:size])
        with pytest.raises(ek.ModelError, match=r"Is short\.gguf whole\? Copy or download"):
            ek.load_model(tmp_path / "short.gguf", device="cpu")


def test_a_gguf_may_be_named_in_capitals(tiny, tmp_path):
    file = build_gguf(tiny("llama"), tmp_path / "UP.GGUF")
    for given in (file, tmp_path):
        assert ek.load_model(given, device="cpu").n_states == LAYERS + 1
    file.rename(file.with_name("UP-00001-OF-00002.GGUF"))
    with pytest.raises(ek.ModelError, match="one of 2 parts"):
        ek.load_model(tmp_path)


# Tokenizers


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.model", "source.spm"])
def test_a_sentencepiece_model_alone_names_what_is_missing(folder, name):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / name).write_bytes(b"\n\x0c")
    with pytest.raises(
        ek.ModelError, match=rf"{name}.*sentencepiece and protobuf.*tokenizer\.json"
    ):
        ek.load_model(folder)


def test_a_sentencepiece_model_beside_a_tokenizer_is_no_problem(folder):
    (folder / "spiece.model").write_bytes(b"\n\x0c")
    check_tokenizer_files(folder, "bert")
    assert ek.load_model(folder).n_states


# What transformers would report and go on


def test_weights_of_other_shapes_are_named_with_both(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(
        ek.ModelError, match=r"other shapes.*intermediate.*\(64,\) in the file, \(96,\) by"
    ):
        ek.load_model(folder)
