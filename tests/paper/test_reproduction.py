"""The paper's protocol from end to end, on a tiny model and a few lines of text."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from gensim.utils import simple_preprocess
from local_hub import serving
from paths import ROOT
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit import release
from embvar_kit.paper import reproduction
from embvar_kit.paper.reproduction import (
    LEVELS,
    PAPER_MODELS,
    bare_words,
    sample_name,
    short_name,
)

NOWHERE = "http://127.0.0.1:9"
SAMPLE = "bookcorpus_train_lt64_pct001_seed0"


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A folder with 12,000 lines, from which the paper's sample takes 120."""
    folder = tmp_path_factory.mktemp("books")
    pq.write_table(pa.table({"text": SENTENCES * 1500}), folder / "0000.parquet")
    return folder


def run(url: str, home: Path, *arguments: object) -> tuple[int, str, str]:
    """Run ``embvar`` in a process of its own, with the Hub at ``url``."""
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        environment.pop(name, None)
    environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "embvar_kit", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def reproduced(tiny, books, tmp_path_factory):
    """``(folder, printed text, cache)`` of a run with a Hub that has the model."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("out") / "deep"
    with serving(tiny("bert"), name="google-bert/bert-base-uncased") as hub:
        code, said, error = run(
            *[hub.url, home, "reproduce", "bert-base-uncased", "--out", out, "--device", "cpu"],
            *["--corpus", f"bookcorpus:{books}"],
        )
    assert code == 0, error
    return out, said, home


@pytest.mark.slow
def test_the_statistics_are_those_of_the_papers_sample(reproduced, tiny, books):
    out, said, _ = reproduced
    corpus = ek.load_corpus(f"bookcorpus:{books}")
    assert len(corpus) == 120
    by_hand = ek.extract(ek.load_model(tiny("bert"), device="cpu"), corpus, progress=False)
    stats = ek.TokenStatistics.load(out / "kit" / SAMPLE / "bert-base-uncased-token")
    assert stats.info["model"]["name"] == "google-bert/bert-base-uncased"
    assert stats.info["corpora"][0]["fingerprint"] == corpus.fingerprint
    assert stats.tokens.tolist() == by_hand.tokens.tolist()
    assert stats.n.tolist() == by_hand.n.tolist()
    assert stats.V == pytest.approx(by_hand.V, rel=1e-4, abs=1e-6)
    # The two tables are printed.
    head, _, second = said.partition("Q = M + V_W + V_B over all their embeddings\n")
    for layer, row in stats.tradeoff().set_index("layer").iterrows():
        assert f"{row['slope']:.3f} {row['intercept']:.3f} {row['r2']:.3f}".split() == next(
            line.split()[3:6] for line in head.splitlines() if line.split()[:1] == [str(layer)]
        )
    assert [line.split()[0] for line in second.splitlines()] == ["layer", "0", "1", "2"]


@pytest.mark.slow
def test_the_folder_is_laid_out_as_the_authors_scripts_expect(reproduced):
    out, _, _ = reproduced
    stats = ek.TokenStatistics.load(out / "kit" / SAMPLE / "bert-base-uncased-token")
    sentences = release.read_sentences(out / "datasets" / f"{SAMPLE}.pkl")
    assert sentences.fingerprint == stats.info["corpora"][0]["fingerprint"]
    assert len(pickle.loads((out / "datasets" / "bookcorpus.pkl").read_bytes())["train"]) > 10**7
    path = out / "token_stats" / SAMPLE / "bert-base-uncased.pkl"
    assert list(pickle.loads(path.read_bytes())) == [0, 1, 2]
    read = release.read_token_statistics(path, corpus=sentences, special=("[CLS]", "[SEP]"))
    for name in ("tokens", "n", "special", "Q", "M", "V", "mean"):
        assert np.array_equal(getattr(read, name), getattr(stats, name))


@pytest.mark.slow
def test_words_come_from_the_cache_without_a_network(reproduced, books, tmp_path):
    _, _, home = reproduced
    code, said, error = run(
        *[NOWHERE, home, "reproduce", "google-bert/bert-base-uncased", "--by", "word", "--quiet"],
        *["--out", tmp_path, "--corpus", f"bookcorpus:{books}", "--limit", 100, "--device", "cpu"],
    )
    assert code == 0, error
    sample = f"{SAMPLE}_first100"
    stats = ek.TokenStatistics.load(tmp_path / "kit" / sample / "bert-base-uncased-word")
    assert stats.info["counts"]["sentences"] == 100
    folder = tmp_path / "word_stats" / sample
    counts = folder / "bookcorpus_bert-base-uncased_word2token_count.pkl"
    read = release.read_word_statistics(folder / "bert-base-uncased.pkl", token_counts=counts)
    assert read.tokens.tolist() == stats.tokens.tolist()
    assert read.subwords.tolist() == np.rint(stats.subwords).tolist()
    assert "cat" in read.tokens
    assert said.startswith(f"saved      {tmp_path}, laid out as")


@pytest.mark.parametrize("corpus", ["bookcorpus", "bookcorpus:{books}", "wikipedia"])
@pytest.mark.slow
def test_without_a_hub_it_says_so_at_once(corpus, books, tmp_path):
    code, said, error = run(
        *[NOWHERE, tmp_path / "home", "reproduce", "gpt2", "--out", tmp_path / "out"],
        *["--corpus", corpus.format(books=books)],
    )
    assert (code, said) == (1, "")
    assert error.count("\n") == 1
    assert error.startswith("embvar: 'openai-community/gpt2' is not here, and the Hub cannot be re")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_cached_model_without_the_corpus_says_which_is_missing(reproduced, tmp_path):
    _, _, home = reproduced
    code, said, error = run(
        NOWHERE, home, "reproduce", "bert-base-uncased", "--out", tmp_path / "out"
    )
    assert (code, said) == (1, "")
    assert "BookCorpus" in error
    assert "the Hub cannot be reached" in error


def test_the_hub_is_asked_before_anything_is_loaded(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("loaded too early")

    monkeypatch.setattr(reproduction, "load_corpus", fail)
    monkeypatch.setattr(reproduction, "load_model", fail)

    def unreachable(*names):
        raise ek.ModelError(f"{names} cannot be reached")

    monkeypatch.setattr(reproduction, "check_available", unreachable)
    with pytest.raises(ek.ModelError, match=r"openai-community/gpt2.*cannot be reached"):
        ek.reproduce("gpt2")


@pytest.mark.parametrize("name", ["bert", "minilm", "gpt2-large", "", "google-bert/bert-base"])
def test_other_models_are_refused_and_the_six_listed(name):
    with pytest.raises(ek.ModelError, match="is not a model of the paper") as refusal:
        ek.reproduce(name)
    for short in PAPER_MODELS:
        assert short in str(refusal.value)


def test_both_names_of_each_model_are_known():
    assert len(PAPER_MODELS) == 6
    for short, full in PAPER_MODELS.items():
        assert short_name(short) == short_name(full) == short
        assert full.endswith(f"/{short}")


def test_other_levels_are_refused():
    assert LEVELS == ("token", "word")
    with pytest.raises(ek.ExtractionError, match="by='id' is not in the release"):
        ek.reproduce("gpt2", by="id")


def test_a_corpus_at_hand_is_measured_in_the_same_way(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction, "check_available", lambda *_: str(tiny("gpt2")))
    corpus = ek.Corpus.of(SENTENCES * 2, name="my own/lines")
    stats = ek.reproduce("gpt2", tmp_path, corpus=corpus, limit=9, device="cpu", progress=False)
    assert stats.info["counts"]["sentences"] == 9
    name = f"my-own-lines_{stats.info['corpora'][0]['fingerprint']}"
    assert (tmp_path / "token_stats" / name / "gpt2.pkl").is_file()


def test_bare_words_are_those_of_gensim():
    corpus = ek.Corpus.of([*SENTENCES, "İstanbul, naïve co-op _x 3rd a", "42 !"])
    expected = [" ".join(simple_preprocess(line, min_len=2)) for line in corpus]
    found = bare_words(corpus)
    assert list(found) == expected
    assert found.settings == {"then": [{"words": "bare"}]}
    assert list(bare_words(found)) == expected


def test_words_are_measured_as_in_the_authors_scripts(tiny, loaded, tmp_path, monkeypatch):
    """The model reads ``[CLS]``, each word's tokens by themselves, and ``[SEP]``."""
    monkeypatch.setattr(reproduction, "check_available", lambda *_: str(tiny("bert")))
    corpus = ek.Corpus.of([*SENTENCES, "42 !"], name="lines")
    stats = ek.reproduce(
        "bert-base-uncased", tmp_path, corpus=corpus, by="word", device="cpu", progress=False
    )
    model = loaded("bert")
    tokenizer, found = model.tokenizer, {}
    for line in corpus:
        words = simple_preprocess(line, min_len=2)
        pieces = [tokenizer.tokenize(word) for word in words]
        ids = [token for own in pieces for token in tokenizer.convert_tokens_to_ids(own)]
        given = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
        with torch.no_grad():
            states = model.module(torch.tensor([given]), output_hidden_states=True).hidden_states
        at = 1
        for word, own in zip(words, pieces, strict=True):
            found.setdefault(word, []).append([x[0, at : at + len(own)].mean(0) for x in states])
            at += len(own)
    assert sorted(stats.tokens) == sorted(found)
    for at, word in enumerate(stats.tokens):
        x = np.array(found[word], dtype=np.float64)  # occurrences × layers × features
        assert stats.n[at] == len(x)
        V = ((x - x.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0)
        assert stats.V[:, at] == pytest.approx(V, rel=1e-4, abs=1e-6)
        assert stats.Q[:, at] == pytest.approx((x**2).sum(axis=2).mean(axis=0), rel=1e-4)
        assert stats.subwords[at] == len(tokenizer.tokenize(word))
    sample = next((tmp_path / "word_stats").iterdir()).name
    assert list(release.read_sentences(tmp_path / "datasets" / f"{sample}.pkl")) == list(corpus)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, SAMPLE),
        ({"limit": 7}, f"{SAMPLE}_first7"),
        ({"sample": 0.02, "seed": 3}, "bookcorpus_train_lt64_pct002_seed3"),
        ({"sample": 0.025}, "bookcorpus_train_lt64_share0.025_seed0"),
        ({"sample": 500, "max_words": 9}, "bookcorpus_train_lt10_n500_seed0"),
    ],
)
def test_the_name_of_a_sample_tells_how_it_was_drawn(options, name, books):
    assert sample_name(ek.load_corpus(f"bookcorpus:{books}", **options)) == name


def test_a_part_of_a_sample_has_another_name(books):
    corpus = ek.load_corpus(f"bookcorpus:{books}")
    assert sample_name(corpus[:5]) == f"bookcorpus_{corpus[:5].fingerprint}"
