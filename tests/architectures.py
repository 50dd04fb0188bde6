"""Tiny random models of every architecture that the installed transformers release has for text.

A model is built from the default configuration of its architecture, made small by
:mod:`tiny_sizes`, and saved with a tokenizer of the kind that it is used with.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tiny_models import FAMILIES, Family, save_tokenizer
from tiny_sizes import LEVELS, SPECIAL, TEXT_ROLES, set_ids, settings
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

MOST_WEIGHTS = 30_000_000
"""A model with more weights was not made tiny."""

# Tokenizers

_SENTENCEPIECE = replace(
    FAMILIES["llama"],
    special={"pad_token": "<pad>", **FAMILIES["llama"].special},
    template="both",
)
KINDS: dict[str, Family] = {
    "word-piece": FAMILIES["bert"],
    "byte-level": FAMILIES["roberta"],
    "SentencePiece": _SENTENCEPIECE,
}
"""The tokenizers, each of which puts begin and end tokens around a sentence by itself."""


def kind_of_tokenizer(name: str) -> str:
    """Which kind of tokenizer an architecture is used with; any where its repositories differ."""
    declared = str(TOKENIZER_MAPPING_NAMES.get(name))
    if re.match(r"Llama|CodeLlama|Gemma|T5|XLM|Albert|Camembert|Pegasus|Nllb|M2M|MBart", declared):
        return "SentencePiece"
    if re.match(r".*Bert|DPR|Electra|Funnel|Lxmert|MPNet|Splinter|Tapas|RoFormer", declared):
        return "word-piece"
    if re.match(r"GPT|Roberta|Qwen|Bart|CLIP|LED|Longformer|Deberta$|Cohere", declared):
        return "byte-level"
    return tuple(KINDS)[zlib.crc32(name.encode()) % len(KINDS)]


# Architectures


class NotBuiltError(Exception):
    """No tiny model of the architecture could be made; says why."""


def names() -> list[str]:
    """The names (``model_type``) of all configurations whose model reads token ids."""
    return [name for name in sorted(CONFIG_MAPPING_NAMES) if model_class(name) is not None]


def model_class(name: str) -> type[PreTrainedModel] | None:
    """The bare model of an architecture, if it reads token ids; else ``None``.

    It is what AutoModel gives, or else (the text part of a model of several) the class that its
    module has for the configuration.
    """
    try:
        config = CONFIG_MAPPING[name]
    except Exception:
        return None
    try:
        found = MODEL_MAPPING[config]
        found = found[0] if isinstance(found, tuple) else found
    except KeyError:
        found = _class_for(config)
    except Exception:
        return None
    return found if found is not None and _reads_ids(found) else None


def has_auto_model(name: str) -> bool:
    """Whether AutoModel gives a model for the configuration."""
    return CONFIG_MAPPING[name] in MODEL_MAPPING


def _class_for(config: type[PreTrainedConfig]) -> type[PreTrainedModel] | None:
    where = config.__module__.replace(".configuration_", ".modeling_")
    try:
        module = importlib.import_module(where)
    except ImportError:
        return None
    found = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, PreTrainedModel)
        and kind.__module__ == where
        and getattr(kind, "config_class", None) is config
        and _reads_ids(kind)
    ]
    found.sort(key=lambda kind: (not kind.__name__.endswith("Model"), len(kind.__name__)))
    return found[0] if found else None


def _reads_ids(model: type[PreTrainedModel]) -> bool:
    try:
        return "input_ids" in inspect.signature(model.forward).parameters
    except ImportError:  # a stand-in for a class that needs a package that is not installed
        return False


# Weights


def fill(model: nn.Module) -> None:
    """Draw weights so large that contexts matter, rows of padding included, in place."""
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.is_floating_point() or weight.numel() == 0:
                continue
            centred = bool(weight.mean().abs() <= 0.5 * weight.std(correction=0) + 1e-6)
            noise = torch.randn_like(weight)
            if weight.ndim < 2 or not centred:  # a gain, a bias, a decay
                weight.add_(0.1 * noise)
            else:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
        for part in model.modules():
            if isinstance(part, nn.Embedding):
                part.weight.normal_()


# Building


def build(name: str, folder: Path) -> tuple[PreTrainedModel, str]:
    """Build the tiny model of an architecture and save it with a tokenizer.

    Returns:
        The model as it is in memory, and the kind of its tokenizer.

    Raises:
        NotBuiltError: if no sizes give a model that can be saved.
    """
    kind = kind_of_tokenizer(name)
    tokenizer = save_tokenizer(KINDS[kind], folder)
    ids = {role: getattr(tokenizer, role, None) for role in TEXT_ROLES}
    for role, other in (("bos", "cls"), ("eos", "sep")):
        if ids[f"{role}_token_id"] is None:
            ids[f"{role}_token_id"] = ids[f"{other}_token_id"]
    problems: list[str] = []
    unable = None
    for level, mode in itertools.product(LEVELS, range(3)):
        try:
            model = _built(name, level, ids, mode)
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
            continue
        if problem := _unable(model):
            problems.append(problem)
            unable = unable or model
            continue
        break
    else:
        if unable is None:
            raise NotBuiltError("\n".join(dict.fromkeys(problems)))
        model = unable
    try:
        # transformers marks a class for good once remote code that names it was loaded.
        type(model)._auto_class = type(model.config)._auto_class = None
        model.save_pretrained(folder)
    except Exception as error:
        raise NotBuiltError(f"not saved: {type(error).__name__}: {error}") from error
    return model, kind


def _built(
    name: str, level: dict[str, int], ids: dict[str, int | None], mode: int
) -> PreTrainedModel:
    kind = CONFIG_MAPPING[name]
    config = kind(**settings(kind, level, SPECIAL.get(name, {}), mode))
    set_ids(config, ids)
    made = model_class(name)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in made(config).parameters())
    if size > MOST_WEIGHTS:
        raise NotBuiltError(f"{size:,} weights are left")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = made(config)
        fill(model)
    return model.eval()


def _unable(model: PreTrainedModel) -> str:
    """What the parts of a model that may read text raise, if none of them runs; else nothing."""
    ids = torch.arange(5, 25)[None]
    problem = ""
    for part in readers(model):
        try:
            with torch.no_grad():
                part(input_ids=ids)
            return ""
        except Exception as error:
            problem = problem or f"{type(error).__name__}: {error}"
    return problem


def readers(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The parts of a model that may run on token ids alone: itself, its encoder, its text part."""
    yield model
    if hasattr(model, "get_encoder"):
        encoder = model.get_encoder()
        if isinstance(encoder, nn.Module) and encoder is not model:
            yield encoder
    for name in ("text_model", "language_model", "text_encoder", "encoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            yield part
