"""Models that pad, chunk or change by themselves are measured right, or refused."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
import transformers

import embvar_kit as ek
from embvar_kit.models.running import alike, running, states_in, states_of, unchanged

SIZES = {
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
NO_HEADS = {name: value for name, value in SIZES.items() if name != "num_attention_heads"}
UNEQUAL = ["the cat sat on the mat and " + "so " * n for n in (30, 29, 28, 7)]
LONG = ["the river runs through the valley and the dog was barking at the bird " * 7]


@pytest.fixture
def saved(minilm, tmp_path, monkeypatch):
    """``saved(model)``: its folder, with the tokenizer of minilm."""

    def save(model):
        with torch.no_grad():  # rows of padding are zero at first, and are not after training
            model.get_input_embeddings().weight.normal_(0, 0.3)
        # transformers marks a class for good once remote code that names it was loaded, by other
        # tests for one, and would then save the code, too.
        for marked in (type(model), type(model.config)):
            monkeypatch.setattr(marked, "_auto_class", None)
        model.save_pretrained(tmp_path / "model")
        minilm.tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield save


def one_by_one(folder, sentences, layer):
    """``{token: (Q, M, V)}`` of the plain model, a sentence at a time, in float64.

    Each sentence is run by a model that has run nothing before.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    seen = {}
    for sentence in sentences:
        model = transformers.AutoModel.from_pretrained(folder).eval()
        ids = tokenizer(sentence)["input_ids"]
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        states = found.hidden_states[layer][0, : len(ids)].double().numpy()
        for token, x in zip(tokenizer.convert_ids_to_tokens(ids), states, strict=True):
            seen.setdefault(token.removeprefix("##"), []).append(x)
    return {
        token: (np.square(x).sum(1).mean(), np.square(np.mean(x, 0)).sum(), np.var(x, 0).sum())
        for token, x in seen.items()
    }


MODELS = {
    "mobilebert": lambda: transformers.MobileBertModel(
        transformers.MobileBertConfig(
            **SIZES, embedding_size=16, true_hidden_size=32, intra_bottleneck_size=32
        )
    ),
    "fnet": lambda: transformers.FNetModel(transformers.FNetConfig(**NO_HEADS, pad_token_id=0)),
    "reformer": lambda: transformers.ReformerModel(
        transformers.ReformerConfig(
            vocab_size=30522,
            hidden_size=32,
            num_attention_heads=4,
            attention_head_size=8,
            feed_forward_size=64,
            axial_pos_embds=False,
            max_position_embeddings=128,
            attn_layers=["local"] * 2,
            local_attn_chunk_length=8,
        )
    ),
    "bigbird": lambda: transformers.BigBirdModel(
        transformers.BigBirdConfig(
            **SIZES, attention_type="block_sparse", block_size=4, num_random_blocks=1
        )
    ),
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
}


@pytest.mark.parametrize("name", MODELS)
def test_statistics_are_those_of_sentences_run_alone(saved, name):
    """MobileBERT and FNet mix padding in, Reformer pads inside, BigBird changes by a short run."""
    folder = saved(MODELS[name]())
    sentences = LONG if name == "bigbird" else UNEQUAL
    model = ek.load_model(folder, device="cpu")
    for _ in range(2):  # the second pass is by a model that has run before
        table = ek.extract(model, ek.Corpus.of(sentences), progress=False).table(layer=1)
        wanted = one_by_one(folder, sentences, layer=1)
        for row in table.itertuples():
            Q, M, V = wanted[row.token]
            assert (row.Q, row.M, row.V) == pytest.approx((Q, M, V), rel=1e-4, abs=1e-5 * Q)


def test_the_plan_says_where_padding_is_not_ignored(saved):
    corpus = ek.Corpus.of(UNEQUAL)
    model = ek.load_model(saved(MODELS["fnet"]()), device="cpu")
    work = ek.plan(model, corpus)
    assert not model.ignores_padding and len(work.batches) == len(UNEQUAL)
    assert "padding    none: padding would change this model's states" in str(work)
    plain = ek.load_model(saved(MODELS["bert"]()), device="cpu")
    assert plain.ignores_padding and len(ek.plan(plain, corpus).batches) < len(UNEQUAL)


def test_what_a_run_changes_of_a_model_is_undone(saved):
    model = ek.load_model(saved(MODELS["bigbird"]()), device="cpu")
    assert model.module.attention_type == "block_sparse"
    ids = torch.tensor([[101, 2023, 102]])
    model.hidden_states(ids)
    assert model.module.attention_type == "block_sparse"
    before = [type(part) for part in model.module.modules()]
    with unchanged(model.module):
        model.module(input_ids=ids)
        assert model.module.attention_type == "original_full"
    assert [type(part) for part in model.module.modules()] == before
    assert model.module.attention_type == "block_sparse"


def test_each_of_several_runs_is_undone():
    module = MODELS["bigbird"]().eval()
    before = [type(part) for part in module.modules()]
    with running(module) as run_once:
        for _ in range(2):
            run_once(torch.tensor([[101, 2023, 102]]))
            assert module.attention_type == "block_sparse"
            assert [type(part) for part in module.modules()] == before


def test_weights_that_a_run_changes_stay_so_and_what_tells_it_too():
    """RWKV rescales its weights at its first run, and undoes that where it is trained."""
    config = transformers.RwkvConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, rescale_every=1
    )
    module, ids = transformers.RwkvModel(config).eval(), torch.tensor([[11, 12, 13]])
    with running(module) as run_once:
        states = [states_in(run_once(ids, states=True)) for _ in range(3)]
    assert module.layers_are_rescaled
    for again in (*states[1:], states_of(module, ids)):
        assert all(torch.equal(one, two) for one, two in zip(again, states[0], strict=True))


def test_a_pass_is_quiet_about_what_transformers_warns_of(saved):
    """BigBird warns at a short input, which is measured right all the same."""
    said = []
    listener = logging.Handler()
    listener.emit = said.append
    transformers.utils.logging.add_handler(listener)
    try:
        folder = saved(MODELS["bigbird"]())
        model = ek.load_model(folder, device="cpu")
        model.hidden_states(torch.tensor([[101, 2023, 102]]))
        assert not said
        transformers.AutoModel.from_pretrained(folder)(input_ids=torch.tensor([[101, 2023, 102]]))
        assert said
    finally:
        transformers.utils.logging.remove_handler(listener)


def test_a_model_that_answers_by_chance_is_refused(saved, monkeypatch):
    noisy = transformers.BertModel.forward

    def forward(self, *arguments, **options):
        found = noisy(self, *arguments, **options)
        found.hidden_states = tuple(x + torch.randn_like(x) for x in found.hidden_states)
        return found

    folder = saved(MODELS["bert"]())
    monkeypatch.setattr(transformers.BertModel, "forward", forward)
    with pytest.raises(ek.ModelError, match="two answers to the same input"):
        ek.load_model(folder, device="cpu")


def test_the_longest_input_is_that_of_the_text_part(saved):
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**SIZES),
        vision_config=transformers.CLIPVisionConfig(**vision),
        image_token_index=1000,
    )
    folder = saved(transformers.LlavaModel(config))
    assert ek.load_model(folder, device="cpu").max_tokens == 128


def test_a_limit_by_another_name_splits_sentences(saved):
    config = transformers.MptConfig(
        vocab_size=30522, d_model=32, n_heads=4, n_layers=2, max_seq_len=64
    )
    model = ek.load_model(saved(transformers.MptModel(config)), device="cpu")
    assert model.max_tokens == 64
    stats = ek.extract(model, ek.Corpus.of(["the cat " * 50]), progress=False)
    assert stats.info["counts"]["split"] == 1 and stats.n.sum() == 104


def test_an_adapter_beside_its_model_is_refused(saved):
    folder = saved(MODELS["bert"]())
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ek.ModelError, match=r"adapter.*merge_and_unload"):
        ek.load_model(folder, device="cpu")


def test_a_model_without_a_mask_is_run_without_padding(saved, monkeypatch):
    whole = transformers.BertModel.forward

    def forward(self, input_ids, output_hidden_states=True):
        return whole(self, input_ids=input_ids, output_hidden_states=output_hidden_states)

    folder = saved(MODELS["bert"]())
    wanted = one_by_one(folder, UNEQUAL, layer=2)
    monkeypatch.setattr(transformers.BertModel, "forward", forward)
    stats = ek.extract(ek.load_model(folder, device="cpu"), ek.Corpus.of(UNEQUAL), progress=False)
    for row in stats.table(layer=2).itertuples():
        assert row.M == pytest.approx(wanted[row.token][1], rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "rounding", "leak"),
    [(torch.float32, 1e-5, 3e-4), (torch.float16, 1e-3, 4e-3), (torch.bfloat16, 8e-3, 3e-2)],
)
def test_states_are_alike_up_to_the_rounding_of_their_precision(dtype, rounding, leak):
    """One vector of one state that is off tells, however many are the same."""
    one = torch.ones((1, 5, 4), dtype=dtype)
    for share, expected in ((0, True), (rounding, True), (leak, False)):
        other = one.clone()
        other[0, 3] *= 1 + share
        assert alike((one, other), (one, one)) is expected
    # What rounding is known to do is no difference; NaN in one of them is.
    assert alike((one, other), (one, one), rounding=leak)
    other[0, 3] *= 4
    assert not alike((one, other), (one, one), rounding=3.0)
    nan = torch.where(torch.arange(5)[:, None] == 2, torch.nan, one)
    assert alike((one, nan), (one, nan)) and not alike((one, nan), (one, one))
    assert not alike((one, one), (one, nan))
