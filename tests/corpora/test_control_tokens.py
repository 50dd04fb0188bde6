"""Control tokens that a text spells out are text, unless they are meant."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import transformers
from tiny_models import FAMILIES, SENTENCES
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import embvar_kit as ek
from embvar_kit.corpora.control_tokens import ControlTokens, _reader_of_text
from embvar_kit.corpora.tokens import tokenize

WORD = "zyzzyva"
"""An ordinary token that is added to the vocabularies, and stays one token."""


@pytest.fixture
def tokenizer_of(tiny):
    """``tokenizer_of("bert")``: that family's tokenizer with an added word."""

    def load(family: str):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny(family))
        tokenizer.add_tokens([WORD])
        return tokenizer

    return load


def control_strings(family: str) -> list[str]:
    return list(dict.fromkeys(FAMILIES[family].special.values()))


def read(tokenizer, sentences, **options):
    corpus = ek.Corpus.of([sentences] if isinstance(sentences, str) else sentences)
    return tokenize(tokenizer, corpus, begin=(), end=(), **options)


def control_ids(tokenizer, family: str) -> list[int]:
    return tokenizer.convert_tokens_to_ids(control_strings(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_in_a_text_are_text(family, tokenizer_of):
    tokenizer, strings = tokenizer_of(family), control_strings(family)
    sentence = f"the {' and '.join(strings)} cat {WORD} sat."
    # The tiny Llama drops "<", which its vocabulary lacks, and then gives wrong spans.
    text = read(tokenizer, sentence, spans=family != "llama")
    unknown = tokenizer.unk_token_id if len(set(FAMILIES[family].special.values())) > 2 else None
    assert not {*control_ids(tokenizer, family)} - {unknown} & {*text.ids.tolist()}
    assert text.spelled_out == dict.fromkeys(strings, 1)
    assert not len(text.control)
    # Everything around them is as it was, the added word in one piece.
    assert tokenizer.convert_tokens_to_ids(WORD) in text.ids
    assert read(tokenizer, sentence).ids.tolist() == text.ids.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corpus_that_means_them_gets_control_tokens(family, tokenizer_of):
    tokenizer, strings = tokenizer_of(family), control_strings(family)
    sentence = f"the {' and '.join(strings)} cat {WORD} sat."
    text = read(tokenizer, ["the cat", sentence], parse_special=True, spans=True)
    own = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in ("the cat", sentence)]
    assert text.ids.tolist() == own[0] + own[1]
    assert text.ids[text.control].tolist() == control_ids(tokenizer, family)
    assert text.spelled_out == dict.fromkeys(strings, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_without_any_is_read_as_ever(family, tokenizer_of):
    tokenizer = tokenizer_of(family)
    sentences = [*SENTENCES, f"A {WORD} [and] <so> on, | 水 é"]
    own = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in sentences]
    for meant in (False, True):
        text = read(tokenizer, sentences, parse_special=meant)
        assert text.ids.tolist() == [i for ids in own for i in ids]
        assert text.spelled_out == {} and not len(text.control)


@pytest.mark.parametrize("family", ["albert", "t5", "bert", "roberta", "llama"])
def test_the_reader_of_text_reads_other_text_as_the_tokenizer_does(family, tokenizer_of):
    tokenizer = tokenizer_of(family)
    reader = _reader_of_text(tokenizer, tokenizer.all_special_ids)
    options = {"add_special_tokens": False, "return_offsets_mapping": True}
    for sentence in [*SENTENCES, f"A {WORD}, and 水."]:
        one, other = (each([sentence], **options) for each in (tokenizer, reader))
        assert one["input_ids"] == other["input_ids"]
        assert one["offset_mapping"] == other["offset_mapping"]
    assert not tokenizer.split_special_tokens  # the model's own is not changed


def test_an_unknown_character_is_no_control_token_spelled_out(tokenizer_of):
    tokenizer = tokenizer_of("bert")
    text = read(tokenizer, ["水 水", "水 [UNK] 水"], spans=True, parse_special=True)
    assert text.spelled_out == {"[UNK]": 1}
    assert text.control.tolist() == [3]


def test_a_tokenizer_saved_to_split_them_still_gets_them_when_meant(tokenizer_of):
    tokenizer = tokenizer_of("bert")
    tokenizer.split_special_tokens = True
    assert read(tokenizer, "a [SEP] b").spelled_out == {"[SEP]": 1}
    meant = read(tokenizer, "a [SEP] b", parse_special=True)
    assert tokenizer.sep_token_id in meant.ids


def test_a_reserved_token_counts_as_control_though_it_has_no_role(tokenizer_of):
    tokenizer = tokenizer_of("gpt2")
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|reserved|>", special=True)])
    reserved = tokenizer.convert_tokens_to_ids("<|reserved|>")
    assert reserved not in tokenizer.all_special_ids
    assert reserved not in read(tokenizer, "a <|reserved|> b").ids
    assert reserved in read(tokenizer, "a <|reserved|> b", parse_special=True).ids


@pytest.fixture
def words_only(tmp_path):
    """A tokenizer of whole words between blanks, which has ``[SEP]`` among its words."""
    words = {"[UNK]": 0, "[SEP]": 1, "the": 2, "cat": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]"
    )


def test_a_tokenizer_that_cannot_read_them_as_text_is_refused(words_only):
    sentences = ["the cat", "the [SEP] cat"]
    with pytest.raises(
        ek.ExtractionError,
        match=r"sentence 2: '\[SEP\]'\).*cannot read them as text.*parse_special=True",
    ):
        read(words_only, sentences)
    assert read(words_only, sentences, parse_special=True).ids.tolist() == [2, 3, 2, 1, 3]
    assert read(words_only, "the dog").ids.tolist() == [2, 0]


def test_a_tokenizer_written_in_python_reads_them_as_text(bertweet):
    assert not bertweet.is_fast
    text = read(bertweet, "the cat <s> mat")
    assert bertweet.bos_token_id not in text.ids and text.spelled_out == {"<s>": 1}
    assert bertweet.bos_token_id in read(bertweet, "the cat <s> mat", parse_special=True).ids


def test_added_words_that_would_be_split_as_well_are_refused(bertweet):
    bertweet.add_tokens([WORD])
    assert bertweet.convert_tokens_to_ids(WORD) in read(bertweet, f"the {WORD}").ids
    with pytest.raises(ek.ExtractionError, match="would split added tokens as well"):
        read(bertweet, f"the <s> {WORD}")


def test_a_tokenizer_that_fails_is_named_with_the_place(bertweet):
    bertweet.tokenize = None  # as code that a repository brings may do
    with pytest.raises(ek.ExtractionError, match="BertweetTokenizer fails at one of the sentences"):
        read(bertweet, "the cat")


# In a pass


def test_plan_and_statistics_tell_the_number_and_the_setting(tiny):
    model = ek.load_model(tiny("bert"), device="cpu")
    corpus = ek.Corpus.of(["The cat [SEP] sat.", "The [CLS] mat [SEP] was red.", "A cat."])
    as_text, meant = ek.plan(model, corpus), ek.plan(model, corpus, parse_special=True)
    assert (
        "note       3 control tokens spelled out in the text ([SEP], [CLS]), read as text; "
        "parse_special=True reads them as control tokens"
    ) in str(as_text)
    assert "read as control tokens; parse_special=False" in str(meant)
    assert "spelled out" not in str(ek.plan(model, corpus[2:]))
    found = {
        kind: ek.extract(model, corpus, parse_special=kind, progress=False)
        for kind in (False, True)
    }
    for kind, stats in found.items():
        assert stats.info["counts"]["control_tokens_in_text"] == 3
        assert stats.info["convention"].get("parse_special", False) is kind
        counts = dict(zip(stats.tokens, stats.n, strict=True))
        assert counts["[SEP]"] == 3 + 2 * kind and counts["[CLS]"] == 3 + kind
    with pytest.raises(ek.StatisticsError, match="differ in convention parse_special"):
        found[True].merge(ek.extract(model, corpus[2:], progress=False))
    one = ek.collect_embeddings(model, corpus, ["[SEP]"], [1], parse_special=True)["[SEP]"]
    assert len(one) == 5
    assert len(ek.sample_embeddings(model, corpus, 10**6, [1], parse_special=True)) == meant.n.sum()


def test_a_checkpoint_of_the_other_reading_is_refused(tiny, tmp_path):
    model, corpus = ek.load_model(tiny("bert"), device="cpu"), ek.Corpus.of(["a [SEP] b"] * 3)
    options = {"checkpoint": tmp_path / "kept", "progress": False}
    ek.extract(model, corpus, parse_special=True, **options)
    with pytest.raises(ek.CheckpointError, match="parse_special"):
        ek.extract(model, corpus, **options)


def test_a_long_sentence_keeps_the_places_of_its_control_tokens(tokenizer_of):
    tokenizer = tokenizer_of("bert")
    sentence = "the cat " * 5 + "[SEP] " + "the " * 8 + "[CLS] [SEP]"
    options = {"begin": [2], "end": [3], "max_tokens": 8, "parse_special": True}
    corpus = ek.Corpus.of(["a cat", sentence])
    text = tokenize(tokenizer, corpus, **options)
    names = tokenizer.convert_ids_to_tokens(text.ids[text.control].tolist())
    assert names == ["[SEP]", "[CLS]", "[SEP]"]
    cut = tokenize(tokenizer, corpus, **options, long="cut")
    assert not len(cut.control) and cut.n_spelled_out == 3


def test_a_control_token_is_part_of_no_word(tiny):
    model = ek.load_model(tiny("bert"), device="cpu")
    corpus = ek.Corpus.of(["the cat [SEP] the mat"])
    as_text = ek.plan(model, corpus, by="word")
    assert sorted(as_text.labels) == ["cat", "mat", "sep", "the"]
    meant = ek.plan(model, corpus, by="word", parse_special=True)
    assert sorted(meant.labels) == ["cat", "mat", "the"]


def test_cards_show_the_occurrences_that_the_statistics_counted(tiny):
    from embvar_kit.explorers.concordance import concordances

    model = ek.load_model(tiny("bert"), device="cpu")
    corpus = ek.Corpus.of(["The cat [SEP] sat.", "A mat."])
    stats = ek.extract(model, corpus, parse_special=True, progress=False)
    (found,) = concordances([stats], model, corpus)
    assert found.count("[SEP]") == stats.n[stats.tokens == "[SEP]"][0] == 3
    contexts = found.contexts(found.find("[SEP]"))
    assert [context.keyword for context in contexts] == ["[SEP]"] * 3
    assert contexts[0].left == "The cat "


# Settings that are stored with a tokenizer


def test_limits_stored_with_a_tokenizer_are_ignored(tiny, tmp_path):
    """A sentence is cut by the model's limit, never by a tokenizer's."""
    folder = shutil.copytree(tiny("bert"), tmp_path / "limited")
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {
        "direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 8}))
    model, plain = (ek.load_model(where, device="cpu") for where in (folder, tiny("bert")))
    assert model.tokenizer.model_max_length == 8
    corpus = ek.Corpus.of([*SENTENCES, f"The cat [SEP] {SENTENCES[0]}"])
    for by in ("token", "word"):
        one, other = (ek.plan(each, corpus, by=by) for each in (model, plain))
        np.testing.assert_array_equal(one.text.ids, other.text.ids)
        assert one.text.n_split == one.text.n_cut == 0


def test_the_control_tokens_of_a_tokenizer_without_any_are_none():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert not ControlTokens(bare).spelled_out([0, 1], "a b")
