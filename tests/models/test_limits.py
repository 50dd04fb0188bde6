"""The longest input: what the files say is tried, and what does not run is said by the pass."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
import transformers
from tiny_models import FAMILIES, POSITIONS

import embvar_kit as ek
from embvar_kit.models import limits

LONG = ek.Corpus.of(["the cat sat on the mat and " * 20])


@pytest.fixture
def short(tiny, tmp_path, monkeypatch):
    """A model whose positions end at 40, 24 before its configuration says."""
    folder = shutil.copytree(tiny("llama"), tmp_path / "short")
    whole = transformers.LlamaModel.forward

    def forward(self, input_ids, **options):
        torch.zeros(40)[torch.arange(input_ids.shape[1])]
        return whole(self, input_ids=input_ids, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
    return folder


def test_a_limit_that_does_not_run_is_replaced_by_the_one_that_does(short):
    model = ek.load_model(short, device="cpu")
    assert model.max_tokens == 40
    note = "inputs of more than 40 tokens fail, whatever its files say (64)"
    assert model.notes == (note,)
    assert note in str(ek.plan(model, LONG))
    stats = ek.extract(model, LONG, progress=False)
    assert stats.info["counts"]["split"] == 1 and stats.info["convention"]["max_tokens"] == 40


@pytest.mark.parametrize("family", FAMILIES)
def test_the_limits_of_all_families_run(family, loaded):
    assert loaded(family).max_tokens == limits.max_tokens(loaded(family).module)
    assert not loaded(family).notes


def test_a_long_limit_is_not_tried_and_the_pass_says_what_to_do(short, monkeypatch):
    monkeypatch.setattr(limits, "TRIED_UP_TO", POSITIONS - 1)
    model = ek.load_model(short, device="cpu")
    assert (model.max_tokens, model.notes) == (POSITIONS, ())
    remedy = r"failed on a sequence of 64 tokens.*allows 64.*max_tokens=32\)"
    with pytest.raises(ek.ExtractionError, match=remedy):
        ek.extract(model, LONG, progress=False)
    shorter = dataclasses.replace(model, max_tokens=32)
    assert ek.extract(shorter, LONG, progress=False).info["counts"]["split"] == 1


def test_a_model_without_a_limit_says_so_where_it_fails(short):
    config = json.loads((short / "config.json").read_text())
    model = ek.load_model(short, device="cpu")
    assert config["max_position_embeddings"] == POSITIONS
    model = dataclasses.replace(model, max_tokens=None)
    with pytest.raises(ek.ExtractionError, match=r"failed on .*It sets no limit"):
        ek.extract(model, LONG, progress=False)


def test_want_of_memory_says_nothing_of_positions(short, monkeypatch):
    whole = transformers.LlamaModel.forward

    def forward(self, input_ids, **options):
        if input_ids.shape[1] > 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(self, input_ids=input_ids, **options)

    monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
    assert ek.load_model(short, device="cpu").max_tokens == POSITIONS
