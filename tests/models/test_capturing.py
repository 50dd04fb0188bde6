"""Only the hidden states that are asked for are kept, and they are those of the whole model."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, LAYERS, SENTENCES, WIDTH
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

import embvar_kit as ek

SAMPLE = torch.tensor([[3, 4, 5, 6, 7, 8]])
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("layers", [[0], [1], [2], [0, 2]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_kept_are_those_of_the_whole_model(family, layers, loaded):
    model = loaded(family)
    whole = model.hidden_states(IDS, MASK), model.hidden_states(IDS)
    with model.keeping(layers, SAMPLE) as run:
        kept = run(IDS, MASK), run(IDS)
    for some, states in zip(kept, whole, strict=True):
        assert list(some) == layers
        assert all(torch.equal(some[layer], states[layer]) for layer in layers)


@pytest.mark.parametrize("twin", ["post-ln", "no-norm"])
def test_the_twins_states_are_kept_alone(twin):
    model = ek.load_twin(twin, device="cpu")
    with model.keeping([2], SAMPLE) as run:
        kept = run(IDS, MASK)
    assert list(kept) == [2] and torch.equal(kept[2], model.hidden_states(IDS, MASK)[2])


def test_other_states_are_freed_while_the_model_runs(loaded):
    """When the second block is done, the state that it has read is gone, unless it is wanted."""
    model = loaded("gpt2")
    made, alive = [], []

    def first(_, inputs, output):
        made.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    def last(_, inputs, output):
        alive.append(made[-1]() is not None)

    hooks = [
        model.module.h[0].register_forward_hook(first),
        # Behind the blocks: nothing but hidden states would still hold what the first one gave.
        model.module.ln_f.register_forward_hook(last),
    ]
    try:
        for layers in ([LAYERS], [1], [0]):
            with model.keeping(layers, SAMPLE) as run:
                run(IDS)
        model.hidden_states(IDS)
    finally:
        for hook in hooks:
            hook.remove()
    # Two trials and a run each, of which the first trial keeps all; then a run that keeps all.
    assert alive == [True, False, False, True, True, True, True, False, False, True]


def test_no_hook_is_left_behind(loaded):
    def hooks(module: nn.Module) -> int:
        return sum(len(p._forward_hooks) + len(p._forward_pre_hooks) for p in module.modules())

    model = loaded("llama")
    model.hidden_states(IDS)  # transformers installs hooks of its own, once
    before = hooks(model.module)
    with pytest.raises(ZeroDivisionError), model.keeping([1], SAMPLE):
        assert hooks(model.module) > before
        raise ZeroDivisionError
    assert hooks(model.module) == before


class Made(nn.Module):
    """A model of two blocks, of which a subclass may make the states in its own way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.one, self.two = nn.Embedding(400, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        x = self.table(input_ids)
        y = self.second(self.one(x))
        return BaseModelOutput(y, (x, y) if output_hidden_states else None)

    def second(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(x)


class Inline(Made):
    """No module gives its last state."""

    def second(self, x):
        return self.two(x) + 1


class InPieces(Made):
    """Long inputs go through the second block in pieces."""

    def second(self, x):
        return torch.cat([self.two(part) for part in x.split(8, dim=1)], dim=1)


class ByPosition(Made):
    """The second block runs position by position, and the last state is put together from that."""

    def second(self, x):
        return torch.stack([self.two(x[:, at]) for at in range(x.shape[1])], dim=1)


@pytest.mark.parametrize(
    ("kind", "alone"), [(Made, True), (Inline, False), (InPieces, False), (ByPosition, False)]
)
def test_where_a_state_is_not_found_all_are_there(kind, alone, loaded):
    model = replace(loaded("bert"), module=kind().eval(), n_states=2)
    ids = torch.arange(3, 23)[None]
    with model.keeping([1], SAMPLE) as run:
        kept = run(ids)
    assert (list(kept) == [1]) == alone
    assert torch.equal(kept[1], model.hidden_states(ids)[1])


def test_a_pass_over_one_layer_keeps_one_state(loaded, monkeypatch):
    model = loaded("bert")
    corpus = ek.Corpus.of(SENTENCES)
    whole = ek.extract(model, corpus, progress=False)
    asked = []
    hook = model.module.register_forward_pre_hook(
        lambda _, __, given: asked.append(given["output_hidden_states"]), with_kwargs=True
    )
    try:
        some = ek.extract(model, corpus, layers=[2], batch_tokens=32, progress=False)
    finally:
        hook.remove()
    n_batches = len(ek.plan(model, corpus, batch_tokens=32).batches)
    assert n_batches > 3 and asked[-n_batches:] == [False] * n_batches
    assert (some.V >= 0).all() and some.mean.shape == (1, len(whole), WIDTH)
    np.testing.assert_allclose(some.V[0], whole.V[2], rtol=1e-4, atol=1e-5)
