"""Batches leave the sentences in them alone; where they would not, sentences are run otherwise."""

from __future__ import annotations

import contextlib
import re
import signal
import warnings
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from tiny_models import VOCABULARY

import embvar_kit as ek
from embvar_kit.corpora.tokens import group_vocabulary
from embvar_kit.extraction import batching, measure
from embvar_kit.extraction.forward import forward as run_batches
from embvar_kit.extraction.shards import ShardedPass
from embvar_kit.models import probe

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def phi3_longrope():
    return transformers.Phi3Model(
        transformers.Phi3Config(
            **SIZES,
            num_key_value_heads=2,
            pad_token_id=0,
            max_position_embeddings=64,
            original_max_position_embeddings=16,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [3.0, 5.0, 7.0, 9.0],
                "original_max_position_embeddings": 16,
            },
        )
    )


def reformer(layers=("local", "local"), **options):
    return transformers.ReformerModel(
        transformers.ReformerConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_attention_heads=4,
            attention_head_size=8,
            feed_forward_size=64,
            axial_pos_embds=False,
            max_position_embeddings=128,
            attn_layers=list(layers),
            local_attn_chunk_length=16,
            lsh_attn_chunk_length=8,
            num_buckets=4,
            is_decoder=False,
            **options,
        )
    )


def big_bird():
    return transformers.BigBirdModel(
        transformers.BigBirdConfig(
            **SIZES,
            max_position_embeddings=128,
            attention_type="block_sparse",
            block_size=4,
            num_random_blocks=1,
        )
    )


def xlm(padding):
    return transformers.XLMModel(
        transformers.XLMConfig(
            vocab_size=VOCABULARY,
            emb_dim=32,
            n_layers=2,
            n_heads=4,
            pad_index=padding,
            pad_token_id=padding,
            max_position_embeddings=64,
        )
    )


def nllb_moe():
    """Its experts take a tenth of the batch's tokens each: which ones depends on all of them."""
    return transformers.NllbMoeModel(
        transformers.NllbMoeConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_experts=4,
            encoder_sparse_step=1,
            decoder_sparse_step=1,
            expert_capacity=8,
            pad_token_id=0,
            max_position_embeddings=256,
            moe_eval_capacity_token_fraction=0.1,
        )
    )


def rwkv():
    """It rescales its weights in place at its first run, and remembers that it did."""
    return transformers.RwkvModel(
        transformers.RwkvConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=8, context_length=128
        )
    )


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """``saved(build)``: the folder of a model with BERT's kind of tokenizer."""

    def save(build, padding=None):
        tiny_models.build("bert", tmp_path / "bert")
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")
        if padding:
            tokenizer.pad_token = padding
            build = lambda: xlm(tokenizer.pad_token_id)  # noqa: E731
        torch.manual_seed(0)
        model = build()
        with torch.no_grad():  # rows of padding are not zero after training
            for part in model.modules():
                if isinstance(part, torch.nn.Embedding):
                    part.weight.normal_(0, 0.3)
                elif isinstance(part, torch.nn.Linear) and not isinstance(model, ODD):
                    part.weight.normal_(0, 0.2)
        for marked in (type(model), type(model.config)):
            monkeypatch.setattr(marked, "_auto_class", None)
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    with torch.random.fork_rng():
        yield save


ODD = (transformers.RwkvModel,)


def sentences(lengths):
    """Sentences of so many tokens, begin and end tokens included, with two words that repeat."""
    return [
        " ".join("the" if (at + k) % 3 else "and" for at in range(length - 2))
        for k, length in enumerate(lengths)
    ]


def alone(folder, texts, layer):
    """``{token: (Q, M, V)}``: each sentence alone, by a fresh model, under a mask of ones."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    grouping, seen = group_vocabulary(tokenizer), {}
    for text in texts:
        model = transformers.AutoModel.from_pretrained(folder).eval()
        if hasattr(model, "encoder") and hasattr(model, "decoder"):
            model = model.get_encoder()
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            found = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            )
        states = found.hidden_states[layer][0, : ids.shape[1]].double().numpy()
        for token, x in zip(ids[0].tolist(), states, strict=True):
            seen.setdefault(grouping.labels[grouping.group_of[token]], []).append(x)
    return {
        token: (np.square(x).sum(1).mean(), np.square(np.mean(x, 0)).sum(), np.var(x, 0).sum())
        for token, x in seen.items()
    }


def worst(stats, wanted):
    """The largest difference of Q, M or V at the deepest layer, as a share of Q."""
    table = stats.table(int(stats.layers[-1])).set_index("token")
    return max(
        abs(table.loc[token, name] - value) / of_token[0]
        for token, of_token in wanted.items()
        for name, value in zip("QMV", of_token, strict=True)
    )


UNEQUAL = (36, 36, 35, 17, 17, 16)
KINDS = {
    "phi3 longrope": (phi3_longrope, UNEQUAL),
    "big_bird": (big_bird, (44, 44, 43, 33, 33, 32)),
    "reformer": (reformer, (36, 36, 35, 33, 33, 32)),
    "nllb_moe": (nllb_moe, (60, 60, 50, 50, 40, 40)),
    "rwkv": (rwkv, UNEQUAL),
}


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_sentences_run_alone(saved, kind):
    build, lengths = KINDS[kind]
    folder, texts = saved(build), sentences(lengths)
    model = ek.load_model(folder, device="cpu")
    wanted = alone(folder, texts, -1)
    for _ in range(2):  # the second pass is by a model that has run before
        assert worst(ek.extract(model, ek.Corpus.of(texts), progress=False), wanted) < 1e-4


def test_a_model_that_makes_a_mask_of_its_own_is_given_one(saved):
    """XLM hides what has the padding's id where it gets no mask; here that is the end token's."""
    folder, texts = saved(None, padding="[SEP]"), sentences(UNEQUAL)
    model = ek.load_model(folder, device="cpu")
    assert model.needs_mask
    stats = ek.extract(model, ek.Corpus.of(texts), progress=False)
    assert worst(stats, alone(folder, texts, -1)) < 1e-4


def test_where_other_sentences_matter_each_is_run_alone(saved):
    folder, texts = saved(nllb_moe), sentences((60, 60, 60, 60))
    model = ek.load_model(folder, device="cpu")
    assert not model.shares_batches
    unseen = replace(model, shares_batches=True)
    with pytest.warns(ek.EmbvarWarning, match="the rest of a batch changes .* each is run alone"):
        stats = ek.extract(unseen, ek.Corpus.of(texts), progress=False)
    assert worst(stats, alone(folder, texts, -1)) < 1e-4
    work = ek.plan(model, ek.Corpus.of(texts))
    assert len(work.batches) == 4 and "padding    none: each sentence is run alone" in str(work)


def test_a_model_that_answers_by_chance_in_long_sentences_is_refused(saved):
    """Reformer hashes with random rotations, which matter from the second chunk on."""
    model = ek.load_model(saved(lambda: reformer(["lsh", "lsh"])), device="cpu")
    with pytest.raises(ek.ExtractionError, match=r"two answers to the same long sequence.*seed"):
        ek.extract(model, ek.Corpus.of(sentences((60, 60, 59))), progress=False)


@pytest.fixture
def unseen(monkeypatch):
    """Models whose configuration does not tell that they work otherwise in long sentences."""
    monkeypatch.setattr(probe, "_BY_LENGTH", re.compile("none"))
    monkeypatch.setattr(probe, "_SCALED_BY_LENGTH", set())


@pytest.mark.parametrize("kind", ["phi3 longrope", "big_bird", "reformer"])
def test_padding_that_matters_in_long_sentences_only_is_seen_in_the_pass(saved, unseen, kind):
    build, lengths = KINDS[kind]
    folder = saved(build)
    model = ek.load_model(folder, device="cpu")
    if kind != "phi3 longrope":
        assert model.ignores_padding, "short sentences do not show it"
    texts = sentences((*lengths, 20, 19))
    work = ek.plan(model, ek.Corpus.of(texts))
    model = replace(model, ignores_padding=True)
    # One batch for all, as a device takes them, crosses every length.
    work = replace(work, batches=[np.arange(len(texts))])
    with pytest.warns(ek.EmbvarWarning, match="only sentences of equal length are run together"):
        stats = ek.run_plan(model, ek.Corpus.of(texts), work, progress=False)
    assert worst(stats, alone(folder, texts, -1)) < 1e-4
    assert "padding changes what" in stats.info["model"]["notes"][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # short sentences are padded without a word
        ek.extract(model, ek.Corpus.of(sentences((8, 7, 6))), progress=False)


def test_a_shard_has_the_same_bits_whichever_its_worker_measured_before(saved, unseen, tmp_path):
    """A shard without padding shows nothing of what padding does in the next one."""
    model = ek.load_model(saved(big_bird), device="cpu")
    assert model.ignores_padding, "short sentences do not show it"
    texts = sentences((61, 61, 61, 60))
    corpus = ek.Corpus("pairs", texts, list("aabb"), np.array([1, 2, 1, 2]))
    found = []
    for order in ((0, 1), (1, 0)):
        job = ShardedPass.plan(tmp_path / str(order), model, corpus, shards=2)
        of_pair = {len(set(map(len, job.text(shard)))): shard for shard in order}
        assert sorted(of_pair) == [1, 2], "one shard has equal lengths, the other has not"
        for kind in (1, 2) if order == (0, 1) else (2, 1):
            with (
                pytest.warns(ek.EmbvarWarning, match="only sentences of equal length")
                if kind == 2
                else contextlib.nullcontext()
            ):
                job.run("shards", of_pair[kind], model)
        found.append(job.merge()["hidden"])
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    assert worst(found[0], alone(tmp_path / "model", texts, -1)) < 1e-4


@pytest.mark.parametrize("flag", ["ignores_padding", "shares_batches"])
def test_batches_kept_apart_by_hand_are_so_in_every_process(model, few, tmp_path, flag):
    careful = replace(model, **{flag: False})
    ek.extract(careful, few[:20], shards=1, store=tmp_path, progress=False)
    job = ShardedPass.open(tmp_path)
    assert getattr(job.load_model(), flag) is False
    with pytest.raises(ek.CheckpointError, match=f"{flag}=False; this run has {flag}=True"):
        ek.extract(model, few[:20], shards=1, store=tmp_path, progress=False)
    # What short sentences show where a worker loads it, and did not show before, is refused.
    job = ShardedPass.plan(tmp_path / "other", model, few[:20], shards=1)
    with pytest.raises(ek.CheckpointError, match=f"{flag}=True; this run has {flag}=False"):
        job.as_planned(careful)


def test_of_each_doubling_of_length_the_most_padded_batch_is_tried(model):
    work = ek.plan(model, ek.Corpus.of(sentences([40, 39, 33, 20, 20, 17, 9, 9, 9, 5, 4])))
    order = np.argsort(-work.text.lengths, kind="stable")
    batches = [order[:2], order[2:3], order[3:6], order[6:9], order[9:]]
    tried = [
        (padding, work.text.lengths[batch].tolist())
        for padding, batch in batching._examples(replace(work, batches=batches)).values()
    ]
    assert tried == [(1, [40, 39]), (3, [20, 20, 17]), (0, [9, 9, 9]), (1, [5, 4])]


def test_a_batch_is_tried_unless_one_padded_as_much_was_left_alone(model, monkeypatch):
    tried = []
    one_batch = batching._try

    def counted(model, work, batch):
        tried.append(work.text.lengths[batch].tolist())
        return one_batch(model, work, batch)

    monkeypatch.setattr(batching, "_try", counted)
    monkeypatch.setattr(batching, "_LEFT_ALONE", WeakKeyDictionary())
    monkeypatch.setattr("embvar_kit.extraction.plan.MAX_PADDING", 0.5)
    for lengths in ([20, 20], [20, 20, 17], [19, 17, 17], [20, 18], [20, 16]):
        batching.sharing(model, ek.plan(model, ek.Corpus.of(sentences(lengths))))
    assert tried == [[20, 20], [20, 20, 17], [20, 16]]


def test_a_pass_that_resumes_pads_as_the_first_one_did(saved, unseen, tmp_path, monkeypatch):
    model = ek.load_model(saved(big_bird), device="cpu")
    corpus = ek.Corpus.of(sentences([44, 44, 43, *[33, 32] * 6, *[18] * 9, *[17] * 9]))
    options = {"batch_tokens": 200, "progress": False}
    monkeypatch.setattr("embvar_kit.extraction.plan.MAX_PADDING", 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = ek.extract(model, corpus, **options)
        ran = []

        def forward(*arguments, **given):
            for batch in run_batches(*arguments, **given):
                ran.append(1)
                if len(ran) == 4:
                    signal.raise_signal(signal.SIGINT)
                yield batch

        monkeypatch.setattr(measure, "forward", forward)
        with pytest.raises(ek.ExtractionInterrupted):
            ek.extract(model, corpus, checkpoint=tmp_path / "kept", **options)
        found = ek.extract(model, corpus, checkpoint=tmp_path / "kept", **options)
    for name in ("n", "Q", "M", "V", "mean", "extra"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_a_leak_is_seen_in_half_precision(saved):
    """MobileBERT mixes padding in: in bfloat16, too, where rounding is coarse."""
    config = transformers.MobileBertConfig(
        **SIZES,
        max_position_embeddings=64,
        embedding_size=16,
        true_hidden_size=32,
        intra_bottleneck_size=32,
    )
    folder = saved(lambda: transformers.MobileBertModel(config))
    assert not ek.load_model(folder, device="cpu", dtype="bfloat16").ignores_padding
    plain = saved(
        lambda: transformers.BertModel(transformers.BertConfig(**SIZES, max_position_embeddings=64))
    )
    assert ek.load_model(plain, device="cpu", dtype="bfloat16").ignores_padding


def test_feed_forward_layers_in_chunks_take_any_length(saved):
    config = transformers.BertConfig(**SIZES, max_position_embeddings=64, chunk_size_feed_forward=3)
    folder, texts = saved(lambda: transformers.BertModel(config)), sentences((30, 15, 9))
    model = ek.load_model(folder, device="cpu")
    assert model.max_tokens == 64
    stats = ek.extract(model, ek.Corpus.of(texts), progress=False)
    assert worst(stats, alone(folder, texts, -1)) < 1e-4


def test_a_configuration_that_asks_for_tuples_is_no_obstacle(saved):
    config = transformers.BertConfig(**SIZES, max_position_embeddings=64, return_dict=False)
    folder = saved(lambda: transformers.BertModel(config))
    assert ek.load_model(folder, device="cpu").n_states == 3


def test_what_a_model_notes_of_a_run_in_private_is_undone(saved, monkeypatch):
    """One that is another model for good after a short input is measured as it was loaded."""
    folder = saved(
        lambda: transformers.BertModel(transformers.BertConfig(**SIZES, max_position_embeddings=64))
    )
    whole = transformers.BertModel.forward

    def forward(self, input_ids, **options):
        if input_ids.shape[1] < 20:
            self._short = True
            self.config.doubled = 2
        found = whole(self, input_ids=input_ids, **options)
        scale = getattr(self.config, "doubled", 1) * (2 if getattr(self, "_short", False) else 1)
        found.hidden_states = tuple(scale * x for x in found.hidden_states)
        return found

    texts = sentences((40, 39, 38))
    wanted = alone(folder, texts, -1)
    monkeypatch.setattr(transformers.BertModel, "forward", forward)
    model = ek.load_model(folder, device="cpu")
    stats = ek.extract(model, ek.Corpus.of(texts), progress=False)
    assert worst(stats, wanted) < 1e-4
