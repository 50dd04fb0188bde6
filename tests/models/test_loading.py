"""Loading: every family as transformers itself runs it, and refusals."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from paths import TESTS
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, LAYERS, SENTENCES, WIDTH, build_gguf

import embvar_kit as ek
from embvar_kit.files import sha256_of
from embvar_kit.models import around, silence
from embvar_kit.models.bundled import BUNDLED

LEARNED = [name for name, family in FAMILIES.items() if family.learned]


def plain_model(folder: Path) -> torch.nn.Module:
    """The model as transformers loads it, without the kit."""
    kind = transformers.AutoConfig.from_pretrained(folder).model_type
    auto = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
    return auto.from_pretrained(folder).eval()


def ids_of(model: ek.EmbeddingModel, sentence: str) -> list[int]:
    inner = model.tokenizer(sentence, add_special_tokens=False)["input_ids"]
    return [*model.begin, *inner, *model.end]


@pytest.fixture
def copied(tiny, tmp_path):
    """``copied("bert")``: a copy of the family's folder that a test may damage."""

    def copy(family: str) -> Path:
        return shutil.copytree(tiny(family), tmp_path / family)

    return copy


# What a family's model is like


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_and_is_described(family, loaded):
    model, expected = loaded(family), FAMILIES[family]
    assert (model.n_states, model.width) == (LAYERS + 1, WIDTH)
    assert model.max_tokens == expected.max_tokens
    assert model.final_norm == expected.final_norm
    tokens = model.tokenizer.convert_ids_to_tokens
    assert tokens(list(model.begin)) == ([] if expected.begin is None else [expected.begin])
    assert tokens(list(model.end)) == [expected.end]
    assert model.dtype == "float32"
    assert not model.module.training
    assert not any(weight.requires_grad for weight in model.module.parameters())
    assert "3 hidden states of width 32" in repr(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_the_plain_transformers_model(family, tiny, loaded):
    model, plain = loaded(family), plain_model(tiny(family))
    for sentence in SENTENCES[:3]:
        ids = torch.tensor([ids_of(model, sentence)])
        with torch.no_grad():
            expected = plain(input_ids=ids, output_hidden_states=True).hidden_states
        got = model.hidden_states(ids)
        assert len(got) == len(expected) == model.n_states
        for ours, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_lie_around_the_layers_as_the_method_says(family, loaded):
    """State 0 enters the first layer, state 1 leaves it."""
    model, seen = loaded(family), {}
    layers = next(m for m in model.module.modules() if isinstance(m, torch.nn.ModuleList))

    def keep(_, arguments, options, output):
        # ALBERT runs one layer twice.
        seen.setdefault("in", arguments[0] if arguments else options["hidden_states"])
        seen.setdefault("out", output[0] if isinstance(output, tuple) else output)

    hook = layers[0].register_forward_hook(keep, with_kwargs=True)
    try:
        states = model.hidden_states(torch.tensor([ids_of(model, SENTENCES[0])]))
    finally:
        hook.remove()
    torch.testing.assert_close(states[0], seen["in"], rtol=0, atol=0)
    torch.testing.assert_close(states[1], seen["out"].reshape(states[1].shape), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(family, loaded):
    model = loaded(family)
    sequences = [ids_of(model, sentence) for sentence in (SENTENCES[0], SENTENCES[1], "A")]
    longest = max(map(len, sequences))
    assert min(map(len, sequences)) < longest
    pad = model.tokenizer.pad_token_id or 0
    ids = torch.tensor([s + [pad] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences])
    together = model.hidden_states(ids, mask)
    for row, sequence in enumerate(sequences):
        alone = model.hidden_states(torch.tensor([sequence]))
        for batched, single in zip(together, alone, strict=True):
            ours = batched[row, : len(sequence)]
            torch.testing.assert_close(ours, single[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", LEARNED)
def test_the_sequence_limit_is_tight_where_positions_are_learned(family, tiny, loaded):
    model, plain = loaded(family), plain_model(tiny(family))
    token = ids_of(model, "the")[-2]
    longest = torch.full((1, model.max_tokens), token)
    assert torch.isfinite(model.hidden_states(longest)[-1]).all()
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
        plain(input_ids=torch.full((1, model.max_tokens + 1), token))


@pytest.mark.parametrize("family", FAMILIES)
def test_pooler_head_and_decoder_are_gone(family, tiny, loaded):
    names = [name for name, _ in loaded(family).module.named_parameters()]
    assert names
    for part in ("pooler", "lm_head", "predictions", "cls.", "decoder.block"):
        assert not any(part in name for name in names), part
    if family == "t5":
        whole = transformers.AutoModel.from_pretrained(tiny(family))
        assert any(name.startswith("decoder.block") for name, _ in whole.named_parameters())


def test_a_trained_pooler_is_dropped_too(tiny, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny("bert"))
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    assert any("pooler" in name for name in load_file(tmp_path / "model.safetensors"))
    assert ek.load_model(tmp_path).module.pooler is None


def test_a_last_state_that_no_normalization_gave_is_said_so(tiny, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny("opt"))
    config._remove_final_layer_norm = True
    transformers.OPTModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny("opt")).save_pretrained(tmp_path)
    assert ek.load_model(tmp_path).final_norm is None


def test_states_of_different_widths_are_refused(tiny, tmp_path):
    """OPT-350m is like this: its embeddings are narrower, and so is its last state."""
    config = transformers.AutoConfig.from_pretrained(tiny("opt"))
    config.word_embed_proj_dim = 16
    transformers.OPTModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny("opt")).save_pretrained(tmp_path)
    with pytest.raises(ek.ModelError, match="differ in shape"):
        ek.load_model(tmp_path)


def test_an_encoder_saved_alone_needs_no_decoder(tiny, tmp_path, loaded):
    encoder = transformers.T5EncoderModel.from_pretrained(tiny("t5"))
    encoder.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny("t5")).save_pretrained(tmp_path)
    ids = torch.tensor([ids_of(loaded("t5"), SENTENCES[0])])
    alone, whole = ek.load_model(tmp_path, device="cpu"), loaded("t5")
    for ours, theirs in zip(alone.hidden_states(ids), whole.hidden_states(ids), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("row", "family"),
    [
        ("BERT, DistilBERT, ELECTRA, ALBERT", "bert"),
        ("BERT, DistilBERT, ELECTRA, ALBERT", "distilbert"),
        ("BERT, DistilBERT, ELECTRA, ALBERT", "electra"),
        ("BERT, DistilBERT, ELECTRA, ALBERT", "albert"),
        ("ModernBERT", "modernbert"),
        ("RoBERTa", "roberta"),
        ("GPT-2, GPT-NeoX", "gpt2"),
        ("GPT-2, GPT-NeoX", "gpt_neox"),
        ("OPT", "opt"),
        ("Llama, Mistral, Gemma", "llama"),
        ("Llama, Mistral, Gemma", "gemma2"),
        ("Qwen (has no begin token)", "qwen2"),
        ("T5 (has no begin token)", "t5"),
    ],
)
def test_the_documented_begin_and_end_tokens_are_the_ones_taken(row, family, loaded):
    line = next(line for line in around.__doc__.splitlines() if line.startswith(row))
    begin, end = line.removeprefix(row).split(maxsplit=1)
    model = loaded(family)
    tokens = model.tokenizer.convert_ids_to_tokens
    assert tokens(model.begin[0]) in begin if model.begin else "none" in begin
    assert tokens(model.end[0]) in end or "its end token" in end


def test_cls_and_sep_come_before_bos_and_eos(copied):
    folder = copied("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "[BOS]", "eos_token": "[EOS]"})
    tokenizer.save_pretrained(folder)
    model = ek.load_model(folder)
    assert model.begin == (model.tokenizer.cls_token_id,) != (model.tokenizer.bos_token_id,)
    assert model.end == (model.tokenizer.sep_token_id,) != (model.tokenizer.eos_token_id,)


POST = {"bert", "roberta", "distilbert", "albert", "electra"}


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_blocks_normalize_is_found_by_looking(family, tiny):
    expected = "post" if family in POST else "pre"
    assert ek.load_model(tiny(family), device="cpu").normalization == expected


def test_a_model_that_normalizes_nothing_is_found_to(tiny):
    from embvar_kit.models.around import sample_ids
    from embvar_kit.models.normalization import placement
    from embvar_kit.models.probe import probe

    model = ek.load_model(tiny("bert"), device="cpu")
    for part in list(model.module.modules()):
        for name, child in part.named_children():
            if isinstance(child, torch.nn.LayerNorm):
                setattr(part, name, torch.nn.Identity())
    ids = sample_ids(model.tokenizer, model.begin, model.end)
    found = probe(model.module, ids, model.padding, "bare")
    assert placement(found.norms) == "none"
    assert {state.placement for state in found.norms} == {"none"}


# Bundled models


def test_minilm_is_what_the_alias_promises(monkeypatch):
    hashed = []

    def counted(path):
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("embvar_kit.models.bundled.sha256_of", counted)
    monkeypatch.setattr("embvar_kit.models.loading.sha256_of", counted)
    model = ek.load_model("minilm", device="cpu")
    assert (model.n_states, model.width, model.max_tokens) == (7, 384, 512)
    assert (model.begin, model.end, model.final_norm) == ((101,), (102,), "LayerNorm")
    assert sorted(hashed) == sorted(BUNDLED["minilm"].files)  # each once
    pinned = BUNDLED["minilm"].weights_sha256
    assert pinned == BUNDLED["minilm"].files["model.safetensors"]
    assert model.revision == f"sha256:{pinned[:12]}"


@pytest.mark.slow
def test_smollm2_loads_from_its_gguf(smollm2):
    assert (smollm2.n_states, smollm2.width, smollm2.max_tokens) == (31, 576, 8192)
    assert smollm2.final_norm == "LlamaRMSNorm"
    assert smollm2.revision == f"sha256:{BUNDLED['smollm2'].weights_sha256[:12]}"
    assert smollm2.tokenizer.tokenize("the sea") == ["the", "Ġsea"]


@pytest.mark.parametrize(
    ("name", "where"),
    [("model.safetensors", place) for place in (0, -1, 50_000_000)]
    + [(name, 100) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")],
)
def test_one_flipped_byte_of_a_bundled_model_is_noticed(name, where, tmp_path, monkeypatch):
    source = BUNDLED["minilm"].path
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path))
    copy = tmp_path / "models" / "minilm"
    copy.mkdir(parents=True)
    for file_name in BUNDLED["minilm"].files:
        shutil.copy(source / file_name, copy / file_name)
    with (copy / name).open("r+b") as file:
        file.seek(where, os.SEEK_SET if where >= 0 else os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ek.ModelError, match=rf"{name} .*was replaced.*embvar fetch --again"):
        ek.load_model("minilm")


def test_a_bundled_model_that_was_not_fetched_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path))
    with pytest.raises(ek.ModelError, match="embvar fetch"):
        ek.load_model("minilm")


# GGUF


@pytest.fixture(scope="module")
def gguf_file(tiny, tmp_path_factory):
    return build_gguf(tiny("llama"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gguf_file_gives_the_states_of_the_weights_inside(gguf_file, loaded):
    whole = loaded("llama")
    ids = torch.tensor([[3, 1, 4, 15, 92, 65]])
    for name in (gguf_file, gguf_file.parent):
        model = ek.load_model(name, device="cpu")
        assert (model.n_states, model.width, model.max_tokens) == (LAYERS + 1, WIDTH, 64)
        for ours, theirs in zip(model.hidden_states(ids), whole.hidden_states(ids), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert model.revision == f"sha256:{sha256_of(gguf_file)[:12]}"
    assert ek.load_model(gguf_file).name == "tiny"


def test_a_folder_with_two_ggufs_or_a_missing_one_is_refused(gguf_file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(gguf_file, tmp_path / name)
    with pytest.raises(ek.ModelError, match=r"2 \.gguf files"):
        ek.load_model(tmp_path)
    with pytest.raises(ek.ModelError, match=r"no file .*c\.gguf"):
        ek.load_model(tmp_path / "c.gguf")
    (tmp_path / "cut.gguf").write_bytes(gguf_file.read_bytes()[:1000])
    with pytest.raises(ek.ModelError, match="'cut'"):
        ek.load_model(tmp_path / "cut.gguf")


# Folders that lack something


def test_missing_weights_are_named_not_made_up(copied):
    folder = copied("bert")
    weights = load_file(folder / "model.safetensors")
    absent = "bert.encoder.layer.1.output.dense.weight"
    del weights[absent]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ek.ModelError, match=absent.removeprefix("bert.")):
        ek.load_model(folder)


@pytest.mark.parametrize("family", ["t5", "gpt2", "albert"])
def test_missing_weights_are_noticed_in_other_families(family, copied):
    folder = copied(family)
    weights = load_file(folder / "model.safetensors")
    inside = [name for name in weights if "decoder." not in name and "norm" in name.lower()]
    absent = next(iter(inside), "transformer.ln_f.weight")
    del weights[absent]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ek.ModelError, match=r"lack weights.*1, among them"):
        ek.load_model(folder)


class _Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code has run")


def test_pickled_weights_are_refused_and_not_opened(copied, tmp_path):
    folder = copied("bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "trap")))
    with pytest.raises(ek.ModelError, match="only safetensors and GGUF"):
        ek.load_model(folder)
    assert not (tmp_path / "trap").exists()


@pytest.fixture
def with_code(copied, tmp_path, monkeypatch):
    """``with_code(kind)``: a folder whose code writes the file ``ran``; nobody can be asked."""

    def asked(*_):
        raise AssertionError("asked on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    # transformers marks the classes that code brings; later tests save models of these.
    for marked in (transformers.BertModel, transformers.BertConfig):
        monkeypatch.setattr(marked, "_auto_class", None)

    def make(kind: str) -> Path:
        folder = copied("bert")
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "brought.C", "AutoModel": "brought.M"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        (folder / "brought.py").write_text(
            f"from transformers import BertConfig as C, BertModel as M\n"
            f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        )
        return folder

    return make


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": False}, {"trust_remote_code": None}])
def test_code_that_a_folder_brings_is_not_run_and_nobody_is_asked(trust, with_code, tmp_path):
    with pytest.raises(ek.ModelError, match=r"custom code.*load_model\(.*trust_remote_code=True"):
        ek.load_model(with_code("of-its-own"), **trust)
    assert not (tmp_path / "ran").exists()


def test_transformers_own_class_comes_before_the_code_that_a_folder_brings(with_code, tmp_path):
    assert ek.load_model(with_code("bert")).n_states == LAYERS + 1
    assert not (tmp_path / "ran").exists()


def test_code_is_run_when_it_is_asked_for(with_code, tmp_path):
    assert ek.load_model(with_code("bert"), trust_remote_code=True).n_states == LAYERS + 1
    assert (tmp_path / "ran").exists()


def test_truncated_weights_are_refused(copied):
    folder = copied("bert")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ek.ModelError, match="Could not load the model 'bert'"):
        ek.load_model(folder)


def test_a_folder_without_configuration_is_refused(copied):
    folder = copied("bert")
    (folder / "config.json").unlink()
    with pytest.raises(ek.ModelError, match=r"no config\.json"):
        ek.load_model(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_vocabulary_is_refused(family, copied):
    """transformers would go on with a tokenizer that knows its special tokens only."""
    folder = copied(family)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ek.ModelError, match="tokenizer"):
        ek.load_model(folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ek.ModelError, match="tokenizer"):
        ek.load_model(folder)


def test_a_model_for_something_else_than_text_is_refused(tiny, tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(**small, intermediate_size=32, image_size=32)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(tmp_path)
    with pytest.raises(ek.ModelError, match="cannot run on plain text"):
        ek.load_model(tmp_path)


# Arguments


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "", "meta", None])
def test_a_device_that_cannot_be_used_is_named(device, tiny):
    with pytest.raises(ek.ModelError, match=f"Device {device!r}"):
        ek.load_model(tiny("bert"), device=device)


@pytest.mark.parametrize("dtype", ["float99", "nn", "int8", "", None, torch.int32, np.float32])
def test_a_dtype_that_weights_cannot_have_is_named(dtype, tiny):
    with pytest.raises(ek.ModelError, match=r"Unknown dtype.*float32, bfloat16 or float16"):
        ek.load_model(tiny("bert"), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_dtype_asked_for_is_the_one_that_runs(dtype, family, tiny):
    model = ek.load_model(tiny(family), device="cpu", dtype=dtype)
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {weight.dtype for weight in model.module.parameters()} == {expected}
    assert model.dtype == str(expected).removeprefix("torch.")
    assert model.hidden_states(torch.tensor([[1, 2, 3]]))[-1].dtype == expected


@pytest.mark.parametrize("name", ["a/b/c", "./nowhere", "~/nowhere-at-all", "/nowhere/at/all"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ek.ModelError, match="no folder"):
        ek.load_model(name)


def test_a_file_that_is_no_gguf_is_not_looked_for_on_the_hub(tiny):
    with pytest.raises(ek.ModelError, match="folder"):
        ek.load_model(tiny("bert") / "model.safetensors")


# Silence

IN_A_THREAD = """
import sys, threading
from IPython.core.interactiveshell import InteractiveShell
import embvar_kit as ek

shell, failed = InteractiveShell.instance(), []

def load():
    try:
        for name in sys.argv[1:]:
            ek.load_model(name, device="cpu")
    except BaseException as error:
        failed.append(error)

def seen():
    return shell.display_pub, sys.stdout, sys.stderr, sys.displayhook

thread, before, looks = threading.Thread(target=load), seen(), 0
thread.start()
while thread.is_alive():
    assert all(now is then for now, then in zip(seen(), before)), seen()
    looks += 1
    thread.join(0.001)
assert not failed, failed
assert looks > 100, looks
"""


def test_loading_in_a_thread_prints_nothing_and_replaces_no_display_or_stream(tiny, gguf_file):
    """ipykernel drops the messages of every widget while its display publisher is replaced.

    Of the three, ``bert`` has weights left over, on which transformers has a report to log.
    """
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", IN_A_THREAD, "minilm", tiny("bert"), gguf_file],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_loading_prints_nothing(tiny, gguf_file, capfd):
    for source in ("minilm", tiny("gpt2"), gguf_file):
        ek.untrained(ek.load_model(source, device="cpu"))
    assert capfd.readouterr() == ("", "")


def switches() -> tuple[int, int, bool, bool]:
    """Verbosity of transformers and of the Hub's client, and whether each draws bars."""
    theirs, hub = transformers.utils.logging, huggingface_hub.utils
    verbosity = theirs.get_verbosity(), hub.logging.get_verbosity()
    return *verbosity, theirs.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()


OFF = (logging.ERROR, logging.ERROR, False, False)


@pytest.fixture
def set_switches():
    """``set_switches(bars, hub_bars)``: as a user would have set them; undone after the test."""
    theirs, hub = transformers.utils.logging, huggingface_hub.utils
    before = switches()

    def set_all(verbosity: int, hub_verbosity: int, bars: bool, hub_bars: bool) -> None:
        theirs.set_verbosity(verbosity)
        hub.logging.set_verbosity(hub_verbosity)
        (theirs.enable_progress_bar if bars else theirs.disable_progress_bar)()
        (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()

    yield set_all
    set_all(*before)


@pytest.mark.parametrize("hub_bars", [True, False])
@pytest.mark.parametrize("bars", [True, False])
def test_the_users_switches_are_restored(bars, hub_bars, set_switches, tiny, copied):
    chosen = (logging.INFO, logging.DEBUG, bars, hub_bars)
    set_switches(*chosen)
    with silence.quiet():
        assert switches() == OFF
    assert switches() == chosen
    broken = copied("bert")
    (broken / "config.json").write_text("{}")
    with pytest.raises(ek.ModelError):
        ek.load_model(broken)
    assert switches() == chosen


def test_switches_are_restored_by_the_last_of_several_loads(set_switches):
    chosen = (logging.INFO, logging.INFO, True, True)
    set_switches(*chosen)
    first, second = silence.quiet(), silence.quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert switches() == OFF
    second.__exit__(None, None, None)
    assert switches() == chosen


@pytest.mark.parametrize("disabled", [True, False])
def test_bars_set_by_the_environment_are_left_alone(disabled, monkeypatch):
    """Switching against the environment variable would make the Hub's client warn."""
    for module in ("huggingface_hub.constants", "huggingface_hub.utils.tqdm"):
        monkeypatch.setattr(sys.modules[module], "HF_HUB_DISABLE_PROGRESS_BARS", disabled)
    before = switches()
    with warnings.catch_warnings(), silence.quiet():
        warnings.simplefilter("error")
        assert switches() == (*OFF[:2], *before[2:])
    assert switches() == before
