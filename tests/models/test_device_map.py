"""Models that are spread over several places: as far as one machine without a GPU can show it.

A layer whose weights are offloaded to the disk is one of several places for accelerate, whose hooks
bring it in when it runs. Two devices are simulated by two names of one: no tensor of the CPU is on
``cpu:0``.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny_models import FAMILIES, LAYERS, SENTENCES

import embvar_kit as ek
from embvar_kit.extraction.accumulator import Accumulator
from embvar_kit.models import probe

SPREAD = {
    "bert": {"embeddings": "cpu", "encoder.layer.0": "disk", "encoder.layer.1": "cpu"},
    "llama": {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "norm": "cpu"},
    "t5": {"": "disk"},
}
SPREAD["bert"]["pooler"] = SPREAD["llama"]["rotary_emb"] = "cpu"
CORPUS = ek.Corpus.of(SENTENCES)
ONE, OTHER = torch.device("cpu"), torch.device("cpu:0")


def same(one: ek.TokenStatistics, other: ek.TokenStatistics) -> None:
    for name in ("n", "Q", "M", "V", "mean"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("family", SPREAD)
def test_a_model_that_is_offloaded_in_parts_gives_the_same(family, tiny, loaded, tmp_path):
    whole = loaded(family)
    model = ek.load_model(tiny(family), device_map=SPREAD[family])
    devices = {weight.device.type for weight in model.module.parameters()}
    assert "meta" in devices and model.device == ONE and model.places is None
    assert [state.norm and state.norm.module for state in model.norms] == [
        state.norm and state.norm.module for state in whole.norms
    ]
    same(ek.extract(model, CORPUS, progress=False), ek.extract(whole, CORPUS, progress=False))
    kept = {"layers": [1], "checkpoint": tmp_path, "progress": False}  # reads the weights' digest
    same(ek.extract(model, CORPUS, **kept), ek.extract(whole, CORPUS, layers=[1], progress=False))


def test_all_on_one_device_is_the_plain_model(tiny):
    model = ek.load_model(tiny("bert"), device_map="auto")
    assert model.places is None
    assert {model.place(layer) for layer in range(model.n_states)} == {model.device}


@pytest.mark.parametrize("wrong", ["nope", {"": 97}, {"": ["cpu"]}])
def test_a_device_map_that_transformers_refuses_is_named(tiny, wrong):
    with pytest.raises(ek.ModelError, match=r"with device_map=.*Give 'auto', or the device of"):
        ek.load_model(tiny("bert"), device_map=wrong)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "device_map=.* gives no device for any part of the model"),
        (
            {"": "cpu", "encoder.layer.2": "disk"},
            r"names 'encoder.layer.2'.*\(BertModel\)",
        ),
        ({**SPREAD["bert"], "embedings": "cpu"}, "names 'embedings', which"),
        ({"bert.embeddings": "cpu"}, "Its parts are embeddings, encoder, pooler"),
        ({"embeddings": "cpu", "encoder.layer.1": "cpu"}, "of .*, among them 'encoder.layer.0"),
    ],
)
def test_a_device_map_that_does_not_fit_the_model_is_refused_by_name(tiny, given, words, trusted):
    with pytest.raises(ek.ModelError, match=words):
        ek.load_model(tiny("bert"), device_map=given, trust_remote_code=trusted)


def test_a_device_map_is_refused_before_weights_are_read(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ek.ModelError, match="names 'nope'"):
        ek.load_model(folder, device_map={"": "cpu", "nope": "cpu"})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_a_device_map_of_its_parts(family, tiny, loaded):
    module = transformers.AutoModel.from_pretrained(tiny(family))
    parts = [*dict(module.named_children()), *dict(module.named_parameters(recurse=False))]
    model = ek.load_model(tiny(family), device_map=dict.fromkeys(parts, "cpu"))
    same(
        ek.extract(model, CORPUS, progress=False),
        ek.extract(loaded(family), CORPUS, progress=False),
    )


def test_device_and_device_map_exclude_each_other(tiny):
    with pytest.raises(ek.ModelError, match="name one of them"):
        ek.load_model(tiny("bert"), device="cpu", device_map="auto")


@pytest.mark.parametrize(
    "options",
    [{}, {"site": ["hidden", "unit"]}, {"by": "word"}, {"covariance": True}, {"layers": [1, 2]}],
    ids=str,
)
def test_moments_are_kept_where_the_states_are_made(loaded, monkeypatch, options):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    whole = loaded("bert")
    spread = replace(whole, places=(ONE, OTHER, OTHER))
    runs = []
    start = Accumulator.__init__

    def started(self, *given, **more) -> None:
        start(self, *given, **more)
        runs.extend((run.place, run.layers) for run in self._runs)

    expected = ek.extract(whole, CORPUS, progress=False, **options)
    monkeypatch.setattr(Accumulator, "__init__", started)
    found = ek.extract(spread, CORPUS, progress=False, **options)
    first = [] if "layers" in options else [(ONE, [0])]
    assert runs == [*first, (OTHER, [1, 2])]
    both = (expected, found) if "site" in options else ({"hidden": expected}, {"hidden": found})
    for one, other in zip(*(sites.values() for sites in both), strict=True):
        same(one, other)
        if "covariance" in options:
            np.testing.assert_array_equal(one.covariance, other.covariance)


def test_a_pass_over_two_devices_that_was_cut_goes_on(loaded, monkeypatch, tmp_path):
    monkeypatch.setattr("embvar_kit.moments.memory.HOST_MOMENTS", ())
    model = replace(loaded("bert"), places=(ONE, OTHER, ONE))
    run = {"batch_tokens": 32, "progress": False}
    add, taken = Accumulator.add, []

    def cut(self, batch):
        taken.append(batch)
        if len(taken) == 3:
            raise RuntimeError("the power is out")
        add(self, batch)

    kept = {"checkpoint": tmp_path, "checkpoint_every": 0}
    with monkeypatch.context() as patched:
        patched.setattr(Accumulator, "add", cut)
        with pytest.raises(RuntimeError, match="the power is out"):
            ek.extract(model, CORPUS, **run, **kept)
    same(ek.extract(model, CORPUS, **run, **kept), ek.extract(model, CORPUS, **run))


@pytest.mark.parametrize("layer", [0, LAYERS])
def test_a_state_of_zeros_is_refused_by_name(tiny, monkeypatch, layer):
    states = probe.whole_states

    def lost(*given):
        return tuple(x * (at != layer) for at, x in enumerate(states(*given)))

    monkeypatch.setattr(probe, "whole_states", lost)
    with pytest.raises(ek.ModelError, match=f"Hidden state {layer} of .* is zero everywhere"):
        ek.load_model(tiny("bert"), device="cpu")
