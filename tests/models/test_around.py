"""What is put around a sentence: the tokenizer's own template, and what is added to it."""

from __future__ import annotations

import dataclasses

import pytest
import transformers
from tiny_models import FAMILIES, SENTENCES, byte_level, sentencepiece_unigram, wordpiece
from tokenizers import processors

import embvar_kit as ek
from embvar_kit.models.around import begin_and_end, template

_BOTH = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "<sep>",
    "cls_token": "<cls>",
    "pad_token": "<pad>",
}


def tokenizer_with(single: str, special: dict[str, str] = _BOTH, train=byte_level, extra=()):
    """A tokenizer with that template, for example ``"<s> $A </s>"``."""
    trained = train(special)
    trained.add_special_tokens(list(extra))
    parts = [part for part in single.split() if part != "$A"]
    trained.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(part, trained.token_to_id(part)) for part in parts]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained, **special)


@pytest.mark.parametrize(
    ("single", "begin", "end"),
    [
        # XLNet's: the class token stands at the end, so that it is not put before the sentence.
        ("$A <sep> <cls>", "", "<sep> <cls>"),
        # A decoder with both kinds: its template has bos and eos, though cls and sep exist.
        ("<s> $A </s>", "<s>", "</s>"),
        ("<s> $A", "<s>", "<sep>"),
        ("$A </s>", "<cls>", "</s>"),
        # NLLB's and mBART's: a language's code before, or behind.
        ("eng_Latn $A </s>", "eng_Latn", "</s>"),
        ("$A </s> eng_Latn", "<cls>", "</s> eng_Latn"),
        ("<s> eng_Latn $A </s>", "<s> eng_Latn", "</s>"),
        # No template: the paper's rule alone.
        ("$A", "<cls>", "<sep>"),
    ],
)
def test_the_tokenizers_own_template_comes_first(single, begin, end):
    tokenizer = tokenizer_with(single, extra=["eng_Latn"])
    found = begin_and_end(tokenizer)
    assert [" ".join(tokenizer.convert_ids_to_tokens(list(ids))) for ids in found] == [begin, end]


@pytest.mark.parametrize("train", [wordpiece, sentencepiece_unigram])
def test_a_template_is_found_whatever_the_kind_of_pieces(train):
    tokenizer = tokenizer_with("<s> $A </s>", train=train)
    told = tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    assert template(tokenizer) == ((told[0],), (told[1],))


def test_a_stored_truncation_does_not_hide_the_template():
    tokenizer = tokenizer_with("<s> $A </s>")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=40)
    assert [len(part) for part in template(tokenizer)] == [1, 1]


class Slow(transformers.PreTrainedTokenizer):
    """A tokenizer in Python, with a template of its own in the old way."""

    def __init__(self, **options):
        self.words = {"<s>": 0, "<lang>": 1, "<unk>": 2, "A": 3, "short": 4, "sentence.": 5}
        super().__init__(bos_token="<s>", unk_token="<unk>", **options)

    vocab_size = property(lambda self: len(self.words))

    def get_vocab(self):
        return {**self.words, **self.added_tokens_encoder}

    def _tokenize(self, text):
        return text.split()

    def _convert_token_to_id(self, token):
        return self.words.get(token, 2)

    def _convert_id_to_token(self, index):
        return list(self.words)[index]

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return [0, 1, *token_ids_0, 1]


def test_the_template_of_a_slow_tokenizer_is_found():
    assert template(Slow()) == ((0, 1), (1,))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_template_where_it_has_one(family, loaded):
    model, made = loaded(family), FAMILIES[family]
    before, after = template(model.tokenizer)
    assert model.begin == before if made.template in ("begin", "both") else not before
    assert model.end == after if made.template in ("end", "both") else not after


def test_several_tokens_are_put_around_every_piece_and_recorded(loaded):
    model = loaded("bert")
    ends = model.end + model.begin
    model = dataclasses.replace(model, begin=(), end=ends, max_tokens=12)
    stats = ek.extract(model, ek.Corpus.of(SENTENCES), progress=False)
    convention = stats.info["convention"]
    assert (convention["begin"], convention["end"]) == (None, ["[SEP]", "[CLS]"])
    n = dict(zip(stats.tokens, stats.n, strict=True))
    assert n["[SEP]"] == n["[CLS]"] == stats.info["counts"]["sequences"] > len(SENTENCES)


def test_ids_beyond_the_table_are_named_when_the_model_is_loaded(tiny, tmp_path):
    folder = tmp_path / "gpt"
    model = transformers.AutoModel.from_pretrained(tiny("gpt2"))
    model.resize_token_embeddings(len(transformers.AutoTokenizer.from_pretrained(tiny("gpt2"))))
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("gpt2"))
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<my pad>"})
    tokenizer.save_pretrained(folder)
    # A row of padding is masked in any case: that it is missing changes nothing.
    padded = ek.load_model(folder, device="cpu")
    assert (padded.tokenizer.pad_token_id, padded.padding, padded.vocabulary_rows) == (
        rows,
        0,
        rows,
    )
    assert padded.ignores_padding
    whole = ek.extract(ek.load_model(tiny("gpt2")), ek.Corpus.of(SENTENCES), progress=False)
    own = ek.extract(padded, ek.Corpus.of(SENTENCES), progress=False)
    assert own.Q == pytest.approx(whole.Q, rel=1e-5)
    for role, token in (("eos_token", "<my end>"), ("cls_token", "<my begin>")):
        tokenizer.add_special_tokens({role: token})
        tokenizer.save_pretrained(folder)
        with pytest.raises(
            ek.ModelError, match=rf"id {len(tokenizer) - 1} \('{token}'\).*do not belong together"
        ):
            ek.load_model(folder, device="cpu")
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("gpt2"))
        tokenizer.add_special_tokens({"pad_token": "<my pad>"})
