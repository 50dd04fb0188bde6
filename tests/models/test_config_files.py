"""A model's JSON files that hold something else, or ask for what the kit does not run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import SENTENCES, VOCABULARY

import embvar_kit as ek

NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny("bert"), tmp_path / "bert")


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'"x"', b'{"a": 1', b"\xff{", b"[" * 10**6]
)
def test_a_file_that_holds_something_else_is_named(folder, content, name):
    (folder / name).write_bytes(content)
    with pytest.raises(ek.ModelError, match=rf"^{name} of 'bert' is no JSON.*Copy or download"):
        ek.load_model(folder, device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_object_is_refused_where_something_is_needed(folder, name):
    (folder / name).write_text("{}")
    if name in ("config.json", "tokenizer.json"):
        with pytest.raises(ek.ModelError, match=rf"^{name} of 'bert' is .*Copy or download"):
            ek.load_model(folder, device="cpu")
    else:
        assert ek.load_model(folder, device="cpu").n_states


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', "[]", '{"weight_map": {"a": "b"}}'])
def test_an_index_of_nothing_is_named(folder, text):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ek.ModelError, match=r"^model\.safetensors\.index\.json of 'bert' is"):
        ek.load_model(folder, device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "nope"},
        {"pad_token_id": 10**6},
        {"num_attention_heads": 5},
        {"hidden_size": "32x"},
        {"model_type": 3},
        {"model_type": "none"},
    ],
)
def test_what_cannot_be_built_points_to_the_configuration(folder, changes):
    change(folder, **changes)
    with pytest.raises(ek.ModelError, match=r"'bert'.*config\.json"):
        ek.load_model(folder, device="cpu")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "of-its-own"])
def test_quantised_weights_are_refused(folder, method):
    config = json.loads((folder / "config.json").read_text())
    asked = {"quant_method": method, "bits": 4, "load_in_4bit": True, "group_size": 8}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": asked}))
    with pytest.raises(ek.ModelError, match=f"'bert' are quantised .{method}: .*float32"):
        ek.load_model(folder, device="cpu")


def test_weights_that_transformers_dequantises_on_the_cpu_alone_are_refused(tiny, tmp_path):
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "vocab_size": VOCABULARY}
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    transformers.LlamaModel(transformers.LlamaConfig(**sizes)).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "proj" in name]:
        weights[name] = (weights[name] * 448).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = torch.full((1, 1), 1 / 448)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    asked = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    change(folder, quantization_config=asked)
    with pytest.raises(ek.ModelError, match=r"'llama' are quantised.*float32"):
        ek.load_model(folder, device="cpu")


@pytest.mark.parametrize("where", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("asked", ["flash_attention_2", {"": "flash_attention_2"}])
def test_flash_attention_is_not_needed_where_a_configuration_asks_for_it(
    folder, asked, where, loaded
):
    change(folder, **{where: asked})
    model, corpus = ek.load_model(folder, device="cpu"), ek.Corpus.of(SENTENCES)
    note = "attention: sdpa, not flash_attention_2 as its configuration asks for"
    assert model.notes == (note,)
    assert f"note       {note}" in str(ek.plan(model, corpus))
    stats = ek.extract(model, corpus, progress=False)
    assert stats.info["model"]["notes"] == [note]
    plain = ek.extract(loaded("bert"), corpus, progress=False)
    assert "notes" not in plain.info["model"] and (stats.V == plain.V).all()


@pytest.mark.parametrize("asked", ["flex_attention", "kernels-community/flash-attn"])
def test_other_attention_is_not_needed_either(asked, tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "llama")
    change(folder, attn_implementation=asked)
    note = f"attention: sdpa, not {asked} as its configuration asks for"
    assert ek.load_model(folder, device="cpu").notes == (note,)
