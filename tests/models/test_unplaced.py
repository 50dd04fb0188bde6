"""Weights in the files that the model lacks a place for, and buffers that the files lack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, LAYERS, VOCABULARY, WIDTH, build_gguf
from transformers.models.auto import modeling_auto

import embvar_kit as ek

HEADS = {
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    "pretraining": modeling_auto.MODEL_FOR_PRETRAINING_MAPPING,
    "classes": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "two texts": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
}
LLAMA = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture
def saved(tiny, tmp_path):
    """``saved(model, family)``: a folder with the model and the family's tokenizer."""

    def save(model: transformers.PreTrainedModel, family: str = "llama") -> Path:
        folder = shutil.copytree(tiny(family), tmp_path / "model")
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
        return folder

    return save


def config_class(family: str) -> type[transformers.PreTrainedConfig]:
    return getattr(transformers, FAMILIES[family].model).config_class


@pytest.mark.parametrize(
    ("family", "head"),
    [
        (family, head)
        for family in FAMILIES
        for head in HEADS
        if config_class(family) in HEADS[head]
    ],
)
def test_a_model_saved_with_a_head_loads(family, head, tiny, tmp_path):
    folder = shutil.copytree(tiny(family), tmp_path / "model")
    config = config_class(family).from_pretrained(folder)
    HEADS[head][type(config)](config).save_pretrained(folder)
    assert ek.load_model(folder, device="cpu").n_states == LAYERS + 1


def test_constants_that_older_releases_stored_are_left_out(tiny, tmp_path):
    bert = shutil.copytree(tiny("bert"), tmp_path / "bert")
    neox = shutil.copytree(tiny("gpt_neox"), tmp_path / "gpt_neox")
    gpt2 = shutil.copytree(tiny("gpt2"), tmp_path / "gpt2")

    def older_bert(weights: dict) -> None:
        weights["embeddings.position_ids"] = torch.arange(64)[None]
        for name in [name for name in weights if "LayerNorm" in name]:
            end = {"weight": "gamma", "bias": "beta"}[name.rpartition(".")[2]]
            weights[f"{name.rpartition('.')[0]}.{end}"] = weights.pop(name)

    def with_masks(layer: str, *names: str) -> object:
        def change(weights: dict) -> None:
            for name in names:
                weights[f"{layer}.0.{name}"] = torch.ones(1, 1, 64, 64)

        return change

    change_weights(bert, older_bert)
    attention = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")
    change_weights(neox, with_masks("layers", *attention))
    change_weights(gpt2, with_masks("h", "attn.bias", "attn.masked_bias"))
    for folder in (bert, neox, gpt2):
        assert ek.load_model(folder, device="cpu").n_states == LAYERS + 1


@pytest.mark.parametrize("kind", ["LlamaModel", "LlamaForCausalLM"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention_bias": False}, r"layers\.0\.self_attn\.k_proj\.bias"),
        ({"num_hidden_layers": 1}, r"layers\.1\.input_layernorm\.weight"),
    ],
)
def test_weights_that_the_configuration_leaves_out_are_named(changes, named, kind, saved):
    config = transformers.LlamaConfig(**LLAMA, attention_bias=True)
    folder = saved(getattr(transformers, kind)(config))
    change_config(folder, **changes)
    with pytest.raises(ek.ModelError, match=rf"no place for.*{named}.*config\.json describes"):
        ek.load_model(folder, device="cpu")


def test_modules_inside_a_layer_that_the_model_lacks_are_named(saved):
    folder = saved(transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)))
    change_weights(
        folder, lambda weights: weights.update({"layers.0.self_attn.q_norm.weight": torch.ones(8)})
    )
    with pytest.raises(ek.ModelError, match=r"no place for.*q_norm\.weight"):
        ek.load_model(folder, device="cpu")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float32])
@pytest.mark.parametrize("scaled", [True, False])
def test_quantised_weights_without_a_configuration_are_refused(scaled, dtype, saved):
    folder = saved(transformers.LlamaModel(transformers.LlamaConfig(**LLAMA)))

    def quantise(weights: dict) -> None:
        for name in [name for name in weights if "proj" in name]:
            scale = weights[name].abs().amax(1, keepdim=True) / 100
            weights[name] = (weights[name] / scale).to(dtype)
            weights |= {f"{name}_scale": scale} if scaled else {}

    change_weights(folder, quantise)
    if dtype == torch.float32 and not scaled:  # nothing tells them from others
        assert ek.load_model(folder, device="cpu").n_states
        return
    with pytest.raises(ek.ModelError, match=r"quantised.*(weight_scale|stored as).*float32"):
        ek.load_model(folder, device="cpu")


def deepseek() -> transformers.PreTrainedModel:
    sizes = {**LLAMA, "num_key_value_heads": 4, "num_experts_per_tok": 2, "n_routed_experts": 4}
    sizes |= {"n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
    sizes |= {"moe_intermediate_size": 64, "kv_lora_rank": 8, "q_lora_rank": 8}
    sizes |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    return transformers.DeepseekV3Model(transformers.DeepseekV3Config(**sizes))


BIAS = "layers.1.mlp.gate.e_score_correction_bias"


def test_a_stored_buffer_that_is_missing_is_named(saved):
    folder = saved(deepseek())
    assert ek.load_model(folder, device="cpu").n_states == LAYERS + 1
    change_weights(folder, lambda weights: weights.pop(BIAS))
    with pytest.raises(ek.ModelError, match=r"lack weights.*e_score_correction_bias"):
        ek.load_model(folder, device="cpu")


def test_a_stored_buffer_of_another_shape_is_named(saved):
    folder = saved(deepseek())
    change_weights(folder, lambda weights: weights.update({BIAS: torch.zeros(3)}))
    with pytest.raises(ek.ModelError, match=r"other shapes.*e_score_correction_bias.*\(3,\)"):
        ek.load_model(folder, device="cpu")


# GGUF


def test_weights_of_a_gguf_that_transformers_leaves_out_are_named(tiny, tmp_path, monkeypatch):
    add = gguf.GGUFWriter.add_tensor

    def with_bias(self, name, array, *rest, **options):
        if name == "blk.0.attn_q.weight":
            add(self, "blk.0.attn_q.bias", np.ones(WIDTH, dtype=np.float32))
        add(self, name, array, *rest, **options)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", with_bias)
    file = build_gguf(tiny("llama"), tmp_path / "bias.gguf")
    with pytest.raises(ek.ModelError, match=r"bias\.gguf.*blk\.0\.attn_q\.bias.*safetensors"):
        ek.load_model(file, device="cpu")


def test_positions_that_a_gguf_says_are_not_scaled_are_no_problem(tiny, tmp_path, monkeypatch):
    base = gguf.GGUFWriter.add_head_count

    def with_none(self, count):
        self.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        base(self, count)

    monkeypatch.setattr(gguf.GGUFWriter, "add_head_count", with_none)
    file = build_gguf(tiny("llama"), tmp_path / "plain.gguf")
    assert ek.load_model(file, device="cpu").n_states == LAYERS + 1


@pytest.mark.parametrize("where", ["header", "older header", "tensor"])
def test_scaled_positions_of_a_gguf_are_refused(where, tiny, tmp_path, monkeypatch):
    add, base = gguf.GGUFWriter.add_tensor, gguf.GGUFWriter.add_head_count

    def with_frequencies(self, name, array, *rest, **options):
        if name == "output_norm.weight":
            add(self, "rope_freqs.weight", np.ones(4, dtype=np.float32))
        add(self, name, array, *rest, **options)

    def with_scaling(self, count):
        if where == "header":
            self.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            self.add_rope_scaling_factor(4.0)
        else:
            self.add_float32("llama.rope.scale_linear", 4.0)
        base(self, count)

    if where != "tensor":
        monkeypatch.setattr(gguf.GGUFWriter, "add_head_count", with_scaling)
    else:
        monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", with_frequencies)
    file = build_gguf(tiny("llama"), tmp_path / "scaled.gguf")
    with pytest.raises(ek.ModelError, match=r"scaled\.gguf.*rotary positions.*from safetensors"):
        ek.load_model(file, device="cpu")
