"""Blocks that no requested hidden state needs are not run, and the model is restored afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn as nn
from tiny_models import FAMILIES, LAYERS, SENTENCES

import embvar_kit as ek
from embvar_kit.extraction.forward import norms_for, shortened

SITES = ["norm_input", "standardized", "norm_output"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("deepest", range(LAYERS + 1))
def test_states_and_norms_are_those_of_the_whole_model(family, deepest, loaded):
    model = loaded(family)
    corpus = ek.Corpus.of(SENTENCES)
    before = [name for name, _ in model.module.named_modules()]
    whole = ek.extract(model, corpus, progress=False)
    some = ek.extract(model, corpus, layers=range(deepest + 1), progress=False)
    np.testing.assert_array_equal(some.V, whole.V[: deepest + 1])
    np.testing.assert_array_equal(some.mean, whole.mean[: deepest + 1])
    having = [state.layer for state in model.norms if state.norm]
    if deepest in having:
        everywhere = ek.extract(model, corpus, site=SITES, layers=having, progress=False)
        here = ek.extract(model, corpus, site=SITES, layers=[deepest], progress=False)
        at = having.index(deepest)
        for site in SITES:
            np.testing.assert_array_equal(here[site].V[0], everywhere[site].V[at])
    assert [name for name, _ in model.module.named_modules()] == before


def run_with(model, layers: list[int], site: str = "hidden") -> int:
    """How many blocks are run for these layers."""
    ids = torch.tensor([[3, 4, 5]])
    with shortened(model, layers, norms_for(model, [site], layers), ids) as number:
        return number


def test_deeper_blocks_are_not_run(minilm):
    assert [run_with(minilm, [layer]) for layer in range(7)] == [1, 1, 2, 3, 4, 5, 6]
    assert run_with(minilm, [0, 2]) == 2


@pytest.mark.slow
def test_smollm2_with_a_final_norm_runs_one_block_more_for_any_but_the_last_state(smollm2):
    # Its last state goes through a final norm, so that one block more is needed for any other.
    assert [run_with(smollm2, [layer]) for layer in (1, 15, 29, 30)] == [2, 16, 30, 30]


def test_one_block_run_over_and_over_is_left_alone(loaded):
    assert run_with(loaded("albert"), [0]) == LAYERS


def test_the_model_is_whole_again_after_an_error(minilm):
    def blocks() -> int:
        return sum(isinstance(part, nn.Linear) for part in minilm.module.modules())

    before = blocks()
    with pytest.raises(ZeroDivisionError), shortened(minilm, [1], {}, torch.tensor([[3, 4]])):
        assert blocks() < before
        raise ZeroDivisionError
    assert blocks() == before


def test_passes_of_two_threads_over_one_model_take_turns(loaded):
    """Hooks, and the layers that are cut off, are the model's: a pass holds it to its end."""
    model, corpus = loaded("bert"), ek.Corpus.of(SENTENCES * 40)
    asked = [[0], list(range(LAYERS + 1))] * 2

    def run(layers: list[int]) -> ek.TokenStatistics:
        return ek.extract(model, corpus, layers=layers, batch_tokens=64, progress=False)

    wanted = [run(layers) for layers in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(run, asked))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.V, other.V)
        np.testing.assert_array_equal(one.mean, other.mean)
