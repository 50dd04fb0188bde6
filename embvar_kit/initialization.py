"""The same architecture before training: what a model owes to its form rather than its weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from embvar_kit.models import EmbeddingModel, bare
from embvar_kit.probing import probe
from embvar_kit.quiet import quiet


def untrained(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """A model's architecture and tokenizer with fresh random weights; its norms have γ = 1, β = 0.

    Args:
        model: the one to take after; it is left as it is.
        seed: of the weights, which are drawn as transformers initializes the architecture.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        fresh = AutoModel.from_config(model.module.config, dtype=model.module.dtype)
    module = bare(fresh).to(model.device)
    name = f"{model.name}, untrained"
    found = probe(module, model.tokenizer, model.begin, model.end, model.device, name)
    return replace(model, name=name, revision=f"seed:{seed}", module=module, norms=found.norms)
