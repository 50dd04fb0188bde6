"""Words are gensim's, and their tokens are found by the tokenizer's offsets."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from brute_force import two_pass
from gensim.utils import simple_preprocess
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES
from tokenizers import AddedToken

import embvar_kit as ek
from embvar_kit.corpora.words import words_of
from embvar_kit.explorers.concordance import concordances

SENTENCES = [
    "Don't panic: the DNA of 42 cafés isn't naïve!",
    "An unbelievably long word, antidisestablishmentarianism, is left out.",
    "İstanbul, Straße and ﬁsh: unusual letters.",
    "Its snake_case, too.",
    "The cat sat on the mat. The mat was red.",
]


@given(st.text(max_size=40) | st.text(alphabet="aBİß_9 é'\u0301.", max_size=20))
def test_the_words_are_gensims(sentence):
    assert [word for word, _, _ in words_of(sentence)] == simple_preprocess(sentence, min_len=2)


@given(st.text(alphabet="aBİß_9 é'.", max_size=20))
def test_a_word_spans_its_own_characters(sentence):
    for word, start, end in words_of(sentence):
        assert word in sentence[start:end].lower()
        assert 0 <= start < end <= len(sentence)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_words_embedding_is_the_mean_of_its_tokens(family, tiny):
    """Against a computation written from the definition, by characters, for each tokenizer."""
    model = ek.load_model(tiny(family), device="cpu")
    sentences = SENTENCES
    if family == "llama":  # drops what its vocabulary lacks, and is then refused
        known = {*" ", *model.tokenizer.get_vocab()}
        sentences = ["".join(c for c in sentence if c in known) for sentence in SENTENCES]
    corpus = ek.Corpus.of(sentences)
    stats = ek.extract(model, corpus, by="word", layers=[-1], progress=False)
    assert stats.info["counts"]["split"] == 0
    found, parts = {}, {}
    for sentence in sentences:
        encoded = model.tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True)
        around = model.begin
        ids = [*around, *encoded["input_ids"], *model.end]
        states = model.hidden_states(torch.tensor([ids]))[-1][0].numpy()
        for word, first, last in words_of(sentence):
            own = [
                at + len(around)
                for at, (start, stop) in enumerate(encoded["offset_mapping"])
                if max(start, first) < min(stop, last)
            ]
            if own:
                found.setdefault(word, []).append(states[own].mean(axis=0))
                parts.setdefault(word, []).append(len(own))
    assert set(stats.tokens) == set(found)
    for at, word in enumerate(stats.tokens):
        Q, M, V = two_pass(np.stack(found[word]))
        assert stats.n[at] == len(found[word])
        assert (stats.Q[0, at], stats.M[0, at]) == pytest.approx((Q, M), rel=1e-3)
        assert stats.V[0, at] == pytest.approx(V, rel=1e-3, abs=1e-4 * Q)
        assert stats.subwords[at] == pytest.approx(np.mean(parts[word]))


def test_counts_on_real_text_are_gensims(minilm):
    corpus = ek.load_corpus("wikipedia", limit=2000)
    work = ek.plan(minilm, corpus, by="word")
    expected = Counter(word for s in corpus for word in simple_preprocess(s, min_len=2))
    assert dict(zip(work.labels, work.n.tolist(), strict=True)) == expected
    assert work.subwords[work.labels == "the"] == 1
    assert work.subwords.max() >= 4
    assert str(work).count("words") == 1


@pytest.fixture
def crossing(tiny, tmp_path):
    """A model whose tokenizer has pieces that cross a blank."""
    folder = shutil.copytree(tiny("gpt2"), tmp_path / "crossing")
    stored = json.loads((folder / "tokenizer.json").read_text())
    characters = sorted(set("the cats mat on".replace(" ", "Ġ")))
    pairs = [("c", "a"), ("h", "e"), ("t", "he"), ("Ġ", "ca"), ("the", "Ġca")]
    pieces = [*characters, *(left + right for left, right in pairs)]
    stored["model"] |= {
        "vocab": {piece: at for at, piece in enumerate(pieces)},
        "merges": [list(pair) for pair in pairs],
    }
    stored["pre_tokenizer"] |= {"use_regex": False}
    stored["added_tokens"] = []
    stored["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    # The class of GPT-2 would put its own way of cutting text in place of the stored one.
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(plain))
    return ek.load_model(folder, device="cpu")


def test_words_that_share_a_token_are_left_out_and_counted(crossing):
    assert crossing.tokenizer.tokenize("the cats") == ["theĠca", "t", "s"]
    corpus = ek.Corpus.of(["the cats on the mat", "cats", "the mat"])
    work = ek.plan(crossing, corpus, by="word")
    found = dict(zip(work.labels, work.n.tolist(), strict=True))
    assert found == {"the": 2, "mat": 2, "cats": 1, "on": 1}
    assert work.n_spanned == 2 and "left out   2 words that share tokens with another" in str(work)
    stats = ek.extract(crossing, corpus, by="word", layers=[-1], progress=False)
    parts = [corpus[1:], ek.Corpus.of(["on the mat"])]
    alone = ek.extract(crossing, parts[0], by="word", layers=[-1], progress=False)
    assert stats.Q[0, list(stats.tokens).index("cats")] == pytest.approx(
        alone.Q[0, list(alone.tokens).index("cats")], rel=1e-5
    )
    with pytest.raises(ek.ExtractionError, match=r"All 2 words .* share tokens.*by='token'"):
        ek.plan(crossing, ek.Corpus.of(["the cats"]), by="word")


def test_an_unknown_token_over_several_words_is_in_none(minilm):
    """Gensim cuts this word at its marks; the model reads it as one unknown token."""
    sentence = "the word เบียร์ is a word"
    assert [word for word, *_ in words_of(sentence)] == ["the", "word", "เบ", "ยร", "is", "word"]
    work = ek.plan(minilm, ek.Corpus.of([sentence]), by="word")
    assert sorted(work.labels) == ["is", "the", "word"]
    assert work.n_spanned == 2


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_no_word_of_real_text_is_left_out(name):
    corpus = ek.load_corpus("wikipedia", limit=400)
    work = ek.plan(ek.load_model(name, device="cpu"), corpus, by="word")
    expected = Counter(word for s in corpus for word in simple_preprocess(s, min_len=2))
    assert dict(zip(work.labels, work.n.tolist(), strict=True)) == expected
    assert work.n_spanned == 0 and "left out" not in str(work)


def test_words_cut_by_the_models_limit_are_left_out(tiny):
    model = ek.load_model(tiny("bert"), device="cpu")
    word = "unbelievable"
    pieces = len(model.tokenizer(word, add_special_tokens=False)["input_ids"])
    assert pieces > 1
    room, words = model.max_tokens - 2, model.max_tokens // pieces + 5
    corpus = ek.Corpus.of([" ".join([word] * words)])
    whole = [at * pieces // room == ((at + 1) * pieces - 1) // room for at in range(words)]
    assert not all(whole)
    for long, expected in (("split", sum(whole)), ("cut", room // pieces)):
        work = ek.plan(model, corpus, by="word", long=long)
        assert work.n.sum() == expected
        assert work.subwords.tolist() == [pieces]


def test_a_word_without_tokens_is_left_out(tiny):
    """This tokenizer's vocabulary lacks J, and it drops unknown characters."""
    model = ek.load_model(tiny("llama"), device="cpu")
    assert model.tokenizer.tokenize("0JJ") == ["▁", "0"]
    found = ek.extract(model, ek.Corpus.of(["0JJ", "The cat", "JJ"]), by="word", progress=False)
    assert sorted(found.tokens) == ["cat", "the"]
    with pytest.raises(ek.ExtractionError, match="has no word"):
        ek.extract(model, ek.Corpus.of(["0JJ"]), by="word", progress=False)


def test_offsets_that_a_dropped_character_shifts_are_refused(tiny):
    """The library's offsets would give each word behind it the tokens of another."""
    model = ek.load_model(tiny("llama"), device="cpu")
    corpus = ek.Corpus.of(["The cat.", "the 水 cat sat on the mat"])
    with pytest.raises(ek.ExtractionError, match=r"drops characters.*sentence 2.*by='token'"):
        ek.plan(model, corpus, by="word")
    stats = ek.extract(model, corpus, progress=False)  # by token, no offset is needed
    (found,) = concordances([stats], model, corpus)
    assert [one.keyword for one in found.contexts(found.find("cat"))] == ["cat", "cat"]


def test_a_tokenizer_that_falls_back_on_bytes_keeps_its_offsets(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "bytes")
    stored = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    module = transformers.AutoModel.from_pretrained(folder)
    module.resize_token_embeddings(len(vocabulary) + 300)
    module.save_pretrained(folder)
    work = ek.plan(
        ek.load_model(folder, device="cpu"), ek.Corpus.of(["the 水 cat é sat"]), by="word"
    )
    assert sorted(work.labels) == ["cat", "sat", "the"]


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "gemma2"])
@pytest.mark.parametrize("meant", [False, True], ids=["added words", "control tokens"])
def test_added_tokens_that_take_the_blanks_beside_them(family, meant, tiny, tmp_path):
    """``lstrip`` and ``rstrip``: a token's characters then reach over blanks, not over words."""
    folder = shutil.copytree(tiny(family), tmp_path / family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    added = [
        AddedToken("zyzzyva", lstrip=True, normalized=False),
        AddedToken("qyzzyva", rstrip=True, normalized=False),
        AddedToken("xyzzyva", lstrip=True, rstrip=True, normalized=False),
    ]
    tokenizer.add_tokens(added, special_tokens=meant)
    tokenizer.save_pretrained(folder)
    module = transformers.AutoModel.from_pretrained(folder)
    module.resize_token_embeddings(len(tokenizer))
    module.save_pretrained(folder)
    model = ek.load_model(folder, device="cpu")
    names = ["zyzzyva", "qyzzyva", "xyzzyva"]
    sentence = "the  zyzzyva  cat qyzzyva  mat  xyzzyva  sat"
    corpus = ek.Corpus.of([sentence])
    ids = model.tokenizer.convert_tokens_to_ids(names)
    words = ek.plan(model, corpus, by="word", parse_special=meant)
    found = dict(zip(words.labels, words.n, strict=True))
    assert found == dict.fromkeys(["the", "cat", "mat", "sat", *([] if meant else names)], 1)
    # No word but the added ones has a token of theirs.
    for at, label in zip(words.word[words.word >= 0], words.text.ids[words.word >= 0], strict=True):
        assert (words.labels[words.group[at]] in names) == (label in ids)
    tokens = ek.plan(model, corpus, parse_special=meant)
    counted = dict(zip(tokens.labels, tokens.n, strict=True))
    assert [counted[name] for name in names] == [1, 1, 1]
    assert tokens.text.n_spelled_out == (3 if meant else 0)


@pytest.mark.slow
def test_the_device_form_and_batching_give_the_same(minilm, monkeypatch):
    corpus = ek.load_corpus("wikipedia", limit=30)
    plain = ek.extract(minilm, corpus, by="word", progress=False)
    small = ek.extract(minilm, corpus, by="word", batch_tokens=64, progress=False)
    np.testing.assert_allclose(small.V, plain.V, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    device = ek.extract(minilm, corpus, by="word", progress=False)
    np.testing.assert_allclose(device.V, plain.V, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_word_statistics_are_saved_merged_and_collected(minilm, tmp_path):
    corpus = ek.load_corpus("wikipedia", limit=60)
    whole = ek.extract(minilm, corpus, by="word", layers=[6], progress=False)
    halves = [
        ek.extract(minilm, part, by="word", layers=[6], progress=False)
        for part in (corpus[:30], corpus[30:])
    ]
    merged = halves[0].merge(halves[1])
    assert merged.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_allclose(merged.subwords, whole.subwords)
    loaded = ek.TokenStatistics.load(whole.save(tmp_path))
    np.testing.assert_array_equal(loaded.subwords, whole.subwords)
    assert list(loaded.table(6).columns) == ["token", "n", "Q", "M", "V", "subwords"]
    word = whole.tokens[whole.subwords > 1][0]
    found = ek.collect_embeddings(minilm, corpus, [word], layers=[6], by="word")[word]
    row = whole.table(6).set_index("token").loc[word]
    assert (row.Q, row.M, row.V) == pytest.approx(two_pass(found.at(6)), rel=1e-4)
    for sentence in found.sentence:
        assert word in corpus[int(sentence)].lower()


def test_what_has_no_words_or_no_offsets_is_refused(minilm, monkeypatch):
    with pytest.raises(ek.ExtractionError, match="has no word of 2 to 15 letters"):
        ek.extract(minilm, ek.Corpus.of(["1 2 3", "a b"]), by="word", progress=False)
    mixed = ek.Corpus.of(["1 2 3 " * 40, "the cat"])
    stats = ek.extract(minilm, mixed, by="word", batch_tokens=8, progress=False)
    assert stats.n.sum() == 2
    monkeypatch.setattr(type(minilm.tokenizer), "is_fast", False)
    with pytest.raises(ek.ExtractionError, match="fast tokenizer"):
        ek.extract(minilm, mixed, by="word", progress=False)


def test_nan_is_found_though_the_last_batch_has_no_word(minilm, monkeypatch):
    """The device form checks for NaN only at times, so it must check at the end, too."""
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    run = type(minilm.module).forward

    def forward(*given, **options):
        found = run(*given, **options)
        found.hidden_states = tuple(x * np.nan for x in found.hidden_states or ())
        return found

    monkeypatch.setattr(type(minilm.module), "forward", forward)
    corpus = ek.Corpus.of(["the cat sat on the mat", "12"])
    with pytest.raises(ek.ExtractionError, match="NaN or infinity in layer 0"):
        ek.extract(minilm, corpus, by="word", batch_tokens=4, progress=False)
