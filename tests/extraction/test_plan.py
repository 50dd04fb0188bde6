"""A plan says before the pass what will run, in which batches, and how much memory it takes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES, SENTENCES
from tokenizers import processors

import embvar_kit as ek
from embvar_kit.extraction.plan import BATCH_PRICE, BATCH_TOKENS, MAX_PADDING, _batches


@pytest.fixture(scope="module")
def corpus():
    return ek.load_corpus("wikipedia", limit=2000)


@pytest.fixture(scope="module")
def work(minilm, corpus):
    return ek.plan(minilm, corpus)


@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=80), budget=st.integers(1, 2000))
def test_batches_are_a_partition_in_budget_and_the_longest_come_first(lengths, budget):
    lengths = np.array(lengths)
    batches = list(_batches(lengths, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= budget for b in batches)
    longest = [lengths[b].max() for b in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, following in pairwise(batches):
        # Adding the next batch's first sequence would exceed the budget or the allowed padding.
        more = np.append(lengths[batch], lengths[following[0]])
        slots = len(more) * more.max()
        assert slots > budget or slots - more.sum() > max(MAX_PADDING * slots, BATCH_PRICE)


@pytest.mark.parametrize("device", BATCH_TOKENS)
def test_padding_is_small_with_the_budget_of_every_device(work, device):
    lengths = work.text.lengths
    slots = sum(
        len(batch) * lengths[batch].max() for batch in _batches(lengths, BATCH_TOKENS[device])
    )
    assert lengths.sum() > 0.96 * slots


def test_a_small_text_is_not_cut_into_many_batches(minilm):
    """A fold of a hundred sentences of all lengths: eight batches, where 3 % alone gives twenty."""
    few = ek.plan(minilm, ek.load_corpus("wikipedia", sample=100, seed=0))
    assert len(few.batches) <= 8


def test_padding_is_under_three_percent_on_real_text(work):
    assert work.batch_tokens == BATCH_TOKENS["cpu"] == 1024
    lengths = work.text.lengths
    slots = sum(len(b) * lengths[b].max() for b in work.batches)
    assert work.padding == pytest.approx((slots - lengths.sum()) / slots)
    assert 0 < work.padding < 0.03
    assert all(len(b) * lengths[b].max() <= 1024 for b in work.batches)


def test_every_occurrence_is_counted_once(work, minilm, corpus):
    counted = Counter()
    for sentence in corpus:
        for token in minilm.tokenizer(sentence)["input_ids"]:
            counted[minilm.tokenizer.convert_ids_to_tokens(token).removeprefix("##")] += 1
    labels = work.labels
    assert dict(zip(labels, work.n.tolist(), strict=True)) == counted
    assert work.n.sum() == work.n_tokens == sum(counted.values())
    assert counted["[CLS]"] == counted["[SEP]"] == len(corpus)
    order = [(-n, token) for n, token in zip(work.n.tolist(), labels, strict=True)]
    assert order == sorted(order)


def test_a_plan_by_id_counts_entries(minilm, corpus, work):
    by_id = ek.plan(minilm, corpus[:200], by="id")
    counted = Counter(by_id.text.ids.tolist())
    tokens = minilm.tokenizer.convert_ids_to_tokens
    assert {tokens(i): n for i, n in counted.items()} == dict(
        zip(by_id.labels, by_id.n.tolist(), strict=True)
    )
    assert len(by_id.labels) > len(ek.plan(minilm, corpus[:200]).labels)


def test_a_plan_says_what_will_happen(work, corpus):
    lines = dict(line.split(maxsplit=1) for line in str(work).splitlines())
    assert lines["pass"] == "minilm over wikipedia, by token"
    assert lines["sentences"] == "2,000, 2,000 sequences"
    assert lines["tokens"] == f"{work.n_tokens:,}, {len(work.labels):,} different"
    assert lines["layers"] == "0, 1, 2, 3, 4, 5, 6, each 384 wide"
    assert lines["padding"] == f"{work.padding:.2%}"
    assert "note" not in lines
    largest = max(len(b) * work.text.lengths[b].max() for b in work.batches)
    assert lines["batches"] == f"{len(work.batches):,} of at most {largest:,} tokens"
    assert lines["memory"] == f"{work.memory / 1e6:,.0f} MB for the means"
    floats = 4 * len(work.labels) * 7 * 384
    assert floats <= work.memory <= 1.3 * floats


def test_what_is_split_cut_or_left_out_is_noted(model):
    corpus = ek.Corpus.of(["the cat sat " * 40, "", "The dog.", "", "on the mat " * 50])
    split = str(ek.plan(model, corpus))
    assert "note       2 sentences split: longer than the model takes" in split
    assert "note       2 sentences left out: the tokenizer leaves nothing of them" in split
    assert "sentences  3, 6 sequences" in split
    cut = str(ek.plan(model, corpus[1:], long="cut"))
    assert "note       1 sentence cut: longer than the model takes" in cut
    with pytest.raises(ek.ExtractionError, match="Pass long='split' or long='cut'"):
        ek.plan(model, corpus, long="error")


def test_one_sequence_longer_than_the_budget_runs_alone_and_is_admitted(model):
    work = ek.plan(model, ek.Corpus.of(SENTENCES), batch_tokens=1)
    assert [len(batch) for batch in work.batches] == [1] * len(SENTENCES)
    assert work.padding == 0
    assert f"of at most {work.text.lengths.max()} tokens" in str(work)


@pytest.mark.parametrize(
    ("layers", "taken"),
    [(None, (0, 1, 2)), ([2, 0], (0, 2)), ([-1, 2], (2,)), (range(2), (0, 1)), (iter([1]), (1,))],
)
def test_layers_are_taken_by_index_from_either_end(layers, taken, model):
    work = ek.plan(model, ek.Corpus.of(SENTENCES), layers=layers)
    assert work.layers == taken


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": [3]}, r"hidden states 0 to 2; there is no 3"),
        ({"layers": [-4]}, r"there is no -4"),
        ({"layers": []}, r"layers is empty"),
        ({"layers": 1}, r"layers=1 is not a list of whole numbers"),
        ({"layers": [0.5]}, r"not a list of whole numbers"),
        ({"layers": "12"}, r"not a list of whole numbers"),
        ({"batch_tokens": 0}, r"batch_tokens must be a whole number from 1, got 0"),
        ({"batch_tokens": -5}, r"batch_tokens must be a whole number from 1, got -5"),
        ({"by": "letter"}, r"choose 'token' or 'id' or 'word'"),
        ({"long": "drop"}, r"choose 'split', 'cut' or 'error'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, words, model):
    with pytest.raises(ek.ExtractionError, match=words):
        ek.plan(model, ek.Corpus.of(SENTENCES), **options)


@pytest.mark.parametrize(("kind", "budget"), [*BATCH_TOKENS.items(), ("xpu", 32768)])
def test_the_budget_suits_the_device(kind, budget, model):
    elsewhere = replace(model, device=torch.device(kind))
    assert ek.plan(elsewhere, ek.Corpus.of(SENTENCES)).batch_tokens == budget


def test_a_tokenizer_of_another_model_is_noticed_before_the_pass(tiny, tmp_path, model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    rows = model.vocabulary_rows
    tokenizer.add_tokens([f"zebra{n}" for n in range(rows)])
    tokenizer.save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny("bert") / name).read_bytes())
    model = ek.load_model(tmp_path)
    assert ek.plan(model, ek.Corpus.of(SENTENCES)).n_tokens
    with pytest.raises(ek.ExtractionError, match=r"do not belong together"):
        ek.plan(model, ek.Corpus.of([f"A zebra{rows - 1}."]))


def test_names_are_no_model_and_no_corpus(minilm, corpus):
    for model, text in (("minilm", corpus), (minilm, "wikipedia")):
        with pytest.raises(ek.ExtractionError, match=r"not their names: load_model\('minilm'\)"):
            ek.plan(model, text)


@pytest.mark.parametrize(
    ("template", "row"),
    [
        (
            "eng_Latn $A [SEP]",
            "around     eng_Latn before each sentence, [SEP] behind it, whatever",
        ),
        ("[CLS] $A [SEP] eng_Latn", "around     [CLS] before each sentence, [SEP] eng_Latn behind"),
        ("[CLS] $A [SEP]", None),
    ],
)
def test_what_stands_around_a_sentence_is_told_if_it_is_unusual(template, row, tiny, tmp_path):
    """NLLB's and mBART's tokenizers put the code of a language there, English by default."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    tokenizer.add_tokens(["eng_Latn", "fra_Latn"], special_tokens=True)
    parts = [part for part in template.split() if part != "$A"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        special_tokens=[(part, tokenizer.convert_tokens_to_ids(part)) for part in parts],
    )
    folder = tmp_path / "model"
    transformers.AutoModel.from_pretrained(tiny("bert")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    stored = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(stored))
    model, corpus = ek.load_model(folder, device="cpu"), ek.Corpus.of(SENTENCES)
    said = str(ek.plan(model, corpus))
    assert ("around" not in said) if row is None else (row in said and "replace(model" in said)
    french = replace(model, begin=(tokenizer.convert_tokens_to_ids("fra_Latn"),))
    work = ek.plan(french, corpus)
    assert "fra_Latn before each sentence" in str(work)
    assert work.n[work.labels == "fra_Latn"] == len(SENTENCES)


@pytest.mark.parametrize("family", [*FAMILIES, "minilm", "smollm2"])
def test_nothing_is_told_of_usual_begin_and_end_tokens(family, tiny):
    name = tiny(family) if family in FAMILIES else family
    work = ek.plan(ek.load_model(name, device="cpu"), ek.Corpus.of(SENTENCES[1:2]))
    assert work.around == "" and "around" not in str(work)
