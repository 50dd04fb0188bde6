"""Architectures of many kinds, each held against the plain model run one sentence at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers as T
from tiny_models import SENTENCES, VOCABULARY

import embvar_kit as ek

BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
DECODER = {**BERT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
EXPERTS = {"num_experts_per_tok": 2, "sliding_window": 8}
TRANSLATOR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.2,
}
IMAGES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 28,
    "patch_size": 14,
}
TWO_TOWERS = {"text_config": BERT, "vision_config": IMAGES, "projection_dim": 16}
MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}


def encoder(model):
    return model.get_encoder()


def text(model):
    return model.text_model


def whole(model):
    return model


ODD = {
    # A pooler that forward() calls in any case; a table of a class of its own.
    "squeezebert": (
        lambda: T.SqueezeBertModel(T.SqueezeBertConfig(**BERT, embedding_size=32)),
        whole,
    ),
    "ibert": (lambda: T.IBertModel(T.IBertConfig(**BERT, pad_token_id=0)), whole),
    # An encoder without a configuration; states of two lengths, the last one of two things.
    "fsmt": (
        lambda: T.FSMTModel(
            T.FSMTConfig(
                langs=["en", "de"],
                src_vocab_size=VOCABULARY,
                tgt_vocab_size=VOCABULARY,
                max_position_embeddings=64,
                **TRANSLATOR,
            )
        ),
        encoder,
    ),
    "pegasus_x": (
        lambda: T.PegasusXModel(
            T.PegasusXConfig(
                vocab_size=VOCABULARY,
                **TRANSLATOR,
                block_size=8,
                num_global_tokens=4,
                max_position_embeddings=64,
            )
        ),
        encoder,
    ),
    # An image with every text.
    "clip": (lambda: T.CLIPModel(T.CLIPConfig(**TWO_TOWERS)), text),
    "siglip": (lambda: T.SiglipModel(T.SiglipConfig(text_config=BERT, vision_config=IMAGES)), text),
    # Windows shorter than the input.
    "mistral": (lambda: T.MistralModel(T.MistralConfig(**DECODER, sliding_window=4)), whole),
    "gemma3": (lambda: T.Gemma3TextModel(T.Gemma3TextConfig(**DECODER, sliding_window=4)), whole),
    "longformer": (
        lambda: T.LongformerModel(
            T.LongformerConfig(**{**BERT, "max_position_embeddings": 70}, attention_window=4)
        ),
        whole,
    ),
}

SLOW = {
    "mamba": (lambda: T.MambaModel(T.MambaConfig(**MAMBA)), whole),
    "mamba2": (
        lambda: T.Mamba2Model(
            T.Mamba2Config(**MAMBA, num_heads=8, head_dim=8, n_groups=1, chunk_size=8)
        ),
        whole,
    ),
    "rwkv": (
        lambda: T.RwkvModel(
            T.RwkvConfig(
                vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=64
            )
        ),
        whole,
    ),
    "jamba": (
        lambda: T.JambaModel(
            T.JambaConfig(
                **{**DECODER, "num_hidden_layers": 2},
                attn_layer_period=2,
                attn_layer_offset=1,
                num_experts=2,
                use_mamba_kernels=False,
                mamba_d_state=8,
                mamba_dt_rank=4,
            )
        ),
        whole,
    ),
    "recurrent_gemma": (
        lambda: T.RecurrentGemmaModel(
            T.RecurrentGemmaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=3,
                num_attention_heads=4,
                intermediate_size=64,
                lru_width=32,
                attention_window_size=8,
            )
        ),
        whole,
    ),
    "mixtral": (
        lambda: T.MixtralModel(T.MixtralConfig(**DECODER, **EXPERTS, num_local_experts=4)),
        whole,
    ),
    "qwen3_moe": (
        lambda: T.Qwen3MoeModel(
            T.Qwen3MoeConfig(
                **DECODER, num_experts_per_tok=2, num_experts=4, moe_intermediate_size=16
            )
        ),
        whole,
    ),
    "gpt_oss": (
        lambda: T.GptOssModel(T.GptOssConfig(**DECODER, **EXPERTS, num_local_experts=4)),
        whole,
    ),
    "deepseek_v3": (
        lambda: T.DeepseekV3Model(
            T.DeepseekV3Config(
                **{
                    k: v for k, v in DECODER.items() if k not in ("head_dim", "num_key_value_heads")
                },
                num_key_value_heads=4,
                num_experts_per_tok=2,
                n_routed_experts=4,
                n_shared_experts=1,
                n_group=1,
                topk_group=1,
                first_k_dense_replace=1,
                moe_intermediate_size=16,
                kv_lora_rank=8,
                q_lora_rank=8,
                qk_rope_head_dim=4,
                qk_nope_head_dim=4,
                v_head_dim=8,
            )
        ),
        whole,
    ),
}


@pytest.fixture
def saved(tiny, tmp_path):
    """``saved(name)``: the folder of a tiny model of that architecture, with a tokenizer."""

    def save(make, folder=tmp_path / "model"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make()
            with torch.no_grad():  # trained rows of padding are not zero
                for part in model.modules():
                    if isinstance(part, torch.nn.Embedding):
                        part.weight.normal_(0, 0.3)
        model.save_pretrained(folder)
        T.AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder)
        return folder

    return save


def held(model: ek.EmbeddingModel, plain: torch.nn.Module) -> None:
    """Compare a pass with the plain model, a sentence at a time, in float64, at all layers."""
    stats = ek.extract(model, ek.Corpus.of(SENTENCES), progress=False)
    seen: dict[str, list] = {}
    for sentence in SENTENCES:
        ids = model.tokenizer(sentence)["input_ids"]
        with torch.no_grad():
            states = plain(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        states = [state[0] if isinstance(state, tuple) else state for state in states]
        vectors = np.stack([state[0, : len(ids)].double().numpy() for state in states], axis=1)
        for token, x in zip(model.tokenizer.convert_ids_to_tokens(ids), vectors, strict=True):
            seen.setdefault(token.removeprefix("##"), []).append(x)
    assert set(stats.tokens) == set(seen)
    for at, token in enumerate(stats.tokens):
        x = np.stack(seen[token])  # (n, layers, d)
        Q = np.square(x).sum(2).mean(0)
        assert stats.Q[:, at] == pytest.approx(Q, rel=1e-4), token
        M = np.square(x.mean(0)).sum(1)
        assert (np.abs(stats.M[:, at] - M) <= 1e-4 * Q).all(), token


@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_measured_as_they_run_alone(name, saved):
    make, part = ODD[name]
    folder = saved(make)
    held(ek.load_model(folder, device="cpu"), part(T.AutoModel.from_pretrained(folder).eval()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_recurrent_models_and_mixtures_are_measured_as_they_run_alone(name, saved):
    make, part = SLOW[name]
    folder = saved(make)
    held(ek.load_model(folder, device="cpu"), part(T.AutoModel.from_pretrained(folder).eval()))


def test_a_pooler_that_the_model_calls_stays_and_needs_no_weights(saved):
    from safetensors.torch import load_file, save_file

    folder = saved(ODD["squeezebert"][0])
    kept = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in kept.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    model = ek.load_model(folder, device="cpu")
    assert model.module.pooler is not None
    held(model, T.AutoModel.from_pretrained(folder).eval())
    assert ek.untrained(model).module.pooler is not None


def test_the_part_for_text_is_taken_and_said_so(saved):
    model = ek.load_model(saved(ODD["clip"][0]), device="cpu")
    assert type(model.module).__name__ == "CLIPTextModel"
    assert (model.max_tokens, model.n_states, model.width) == (64, 3, 32)
    assert model.notes == ("the part for text of CLIPModel was taken",)
    assert "the part for text" in str(ek.plan(model, ek.Corpus.of(SENTENCES)))
    assert type(ek.untrained(model).module) is type(model.module)


def test_missing_weights_of_the_part_for_images_do_not_matter(saved):
    from safetensors.torch import load_file, save_file

    folder = saved(ODD["clip"][0])
    every = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in every.items() if name.startswith("text_model")}
    assert 0 < len(kept) < len(every)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    held(ek.load_model(folder, device="cpu"), T.CLIPTextModel.from_pretrained(folder).eval())
    kept.pop(next(name for name in kept if "k_proj.weight" in name))
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ek.ModelError, match=r"lack weights.*k_proj"):
        ek.load_model(folder, device="cpu")


def test_the_rows_of_the_vocabulary_are_known_of_parts_without_an_own_way_to_tell(saved):
    vit = T.OwlViTConfig(text_config=BERT, vision_config=IMAGES)
    for make in (lambda: T.OwlViTModel(vit), ODD["fsmt"][0], ODD["ibert"][0], ODD["clip"][0]):
        assert ek.load_model(saved(make), device="cpu").vocabulary_rows == VOCABULARY


def test_a_model_that_no_part_of_runs_on_text_is_named(saved):
    folder = saved(lambda: T.ViTModel(T.ViTConfig(**IMAGES)))
    with pytest.raises(ek.ModelError, match=r"'model' \(ViTModel\) cannot run on plain text"):
        ek.load_model(folder, device="cpu")


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(saved, tiny):
    folder = saved(lambda: T.BertModel(T.BertConfig(**BERT)))
    T.AutoTokenizer.from_pretrained(tiny("bert"), padding_side="left").save_pretrained(folder)
    model = ek.load_model(folder, device="cpu")
    assert model.tokenizer.padding_side == "left"
    held(model, T.AutoModel.from_pretrained(folder).eval())


def test_a_pad_that_is_the_end_changes_nothing(saved):
    folder = saved(lambda: T.LlamaModel(T.LlamaConfig(**DECODER)))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told |= {"pad_token": "[SEP]", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    model = ek.load_model(folder, device="cpu")
    assert model.padding == model.tokenizer.eos_token_id == model.end[0]
    assert model.ignores_padding
    held(model, T.AutoModel.from_pretrained(folder).eval())


def test_nan_in_padded_rows_only_is_not_measured(saved, monkeypatch):
    """Attention over nothing but masked positions gives NaN, where nothing is read."""
    folder = saved(lambda: T.BertModel(T.BertConfig(**BERT)))
    plain = T.AutoModel.from_pretrained(folder).eval()
    run, padded = T.BertModel.forward, []

    def forward(self, input_ids, attention_mask=None, **options):
        found = run(self, input_ids=input_ids, attention_mask=attention_mask, **options)
        if attention_mask is not None:
            padded.append(int((attention_mask == 0).sum()))
            for state in found.hidden_states:
                state[attention_mask == 0] = torch.nan
        return found

    monkeypatch.setattr(T.BertModel, "forward", forward)
    model = ek.load_model(folder, device="cpu")
    assert model.ignores_padding
    monkeypatch.setattr("embvar_kit.extraction.plan.MAX_PADDING", 0.9)
    padded.clear()
    held(model, plain)
    assert sum(padded)
