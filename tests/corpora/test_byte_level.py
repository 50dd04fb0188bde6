"""Labels of byte-level tokenizers: what they say, in statistics, explorers and the command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES
from tiny_models import byte_level as byte_level_tokenizer

import embvar_kit as ek
from embvar_kit.corpora import byte_level
from embvar_kit.explorers.tradeoff_state import TradeoffState

SENTENCES = ["é é é the café", "É là", "水 the the", "the\tcat é"] * 3


@pytest.mark.slow
@given(st.text(max_size=8))
def test_a_label_says_the_text_it_was_made_of(text):
    pre = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    label = "".join(part for part, _ in pre.pre_tokenize_str(text))
    assert byte_level.decoded(label) == text


def test_the_alphabet_is_the_librarys():
    assert set(byte_level.alphabet()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_level.alphabet().values()) == list(range(256))


@pytest.mark.parametrize("family", FAMILIES)
def test_byte_level_tokenizers_are_told_from_others(family, tiny):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny(family))
    expected = [] if FAMILIES[family].train is byte_level_tokenizer else None
    assert byte_level.verbatim(tokenizer) == expected


def test_added_tokens_are_text_already(tiny):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("gpt2"))
    tokenizer.add_tokens(["é", "plain", "水"])
    assert byte_level.verbatim(tokenizer) == ["é"]
    assert byte_level.texts(["Ã©", "é", "plain"], ["é"]).tolist() == ["é", "é", "plain"]


@pytest.fixture(scope="module")
def model(tiny):
    return ek.load_model(tiny("gpt2"), device="cpu")


@pytest.fixture(scope="module")
def stats(model):
    return ek.extract(model, ek.Corpus.of(SENTENCES), progress=False)


def with_tokens(stats, names):
    """The same statistics under other names: the tiny vocabulary has ``é`` as two tokens only."""
    tokens = stats.tokens.copy()
    tokens[: len(names)] = names
    return replace(stats, tokens=tokens)


def test_statistics_keep_the_papers_label_and_know_the_text(stats, tmp_path):
    assert stats.info["byte_level"] == {"verbatim": []}
    named = dict(zip(stats.tokens, stats.texts, strict=True))
    assert (named["Ã"], named["©"], named["the"], named["Ġ"]) == ("\\xc3", "\\xa9", "the", " ")
    loaded = ek.TokenStatistics.load(with_tokens(stats, ["Ã©", "æ°´", "é"]).save(tmp_path))
    assert loaded.texts[:3].tolist() == ["é", "水", "\\xe9"]
    assert loaded.find("é") == ["é", "Ã©"] and loaded.find("水") == ["æ°´"]
    assert loaded.find("nothing of the kind") == []
    assert list(loaded.table(1)) == ["token", "n", "Q", "M", "V"]


def test_statistics_of_an_older_kit_are_known_by_their_marker(stats):
    info = {name: value for name, value in stats.info.items() if name != "byte_level"}
    assert replace(stats, info=info).texts.tolist() == stats.texts.tolist()
    other = {**info, "convention": {**info["convention"], "markers": ["##"]}}
    assert replace(stats, info=other).texts.tolist() == stats.tokens.tolist()


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_other_tokenizers_have_their_labels_as_text(family, tiny):
    stats = ek.extract(
        ek.load_model(tiny(family), device="cpu"), ek.Corpus.of(SENTENCES), progress=False
    )
    assert "byte_level" not in stats.info
    assert stats.texts.tolist() == stats.tokens.tolist()


def test_words_are_text_already(model):
    words = ek.extract(model, ek.Corpus.of(SENTENCES), by="word", progress=False)
    assert "byte_level" not in words.info
    assert words.find("café") == ["café"] == words.texts[words.tokens == "café"].tolist()


def test_an_explorer_finds_a_token_by_its_text(stats):
    named = with_tokens(stats, ["Ã©", "Ã©t", "æ°´"])
    explorer = ek.TradeoffExplorer(named, counts=(1, None))
    state = explorer.state
    state.search = "é"
    assert (state.marked, state.token) == (["Ã©"], "Ã©")
    assert [" ".join(name.split()) for name, _ in explorer._matches.options] == [
        f"Ã© (é) {named.n[0]:,}",
        f"Ã©t (ét) {named.n[1]:,}",
    ]
    assert "Ã© (é)" in explorer._marked.value and "Ã© (é)" in explorer.card._head.value
    assert "Ã© (é)" in explorer.plot._data["token"].tolist()
    state.search = "Ã©"
    assert (state.marked, state.token) == (["Ã©"], "Ã©")
    state.search = "é*"
    assert state.marked == ["Ã©", "Ã©t"]
    state.search = "水"
    assert state.token == "æ°´"


def test_a_label_goes_before_a_text(stats):
    state = TradeoffState(with_tokens(stats, ["Ã©", "é"]), counts=(1, None))
    state.search = "é"
    assert (state.marked, state.token) == (["é"], "é")
    assert np.array_equal(state.matches()["token"], ["é", "Ã©"])
