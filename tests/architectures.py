"""Tiny random models of every architecture that the installed transformers release has for text.

A model is built from the default configuration of its architecture, with every number that says
how large something is made small. Those numbers are known by what their names have in common, since
the release has some 800 configurations; the few that need more are in :data:`SPECIAL`.
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
from typing import Any

import torch
from tiny_models import FAMILIES, Family, save_tokenizer
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

VOCABULARY = 512
"""Rows of every table of embeddings: more than any of the tokenizers has entries."""

CONTROL = VOCABULARY - 64
"""Ids from here on stand for images and the like: no text has them."""

MOST_WEIGHTS = 30_000_000
"""A model with more weights was not made tiny."""

LEVELS = (
    {"hidden": 32, "heads": 4, "kv_heads": 2, "head": 8, "layers": 2},
    {"hidden": 64, "heads": 4, "kv_heads": 4, "head": 16, "layers": 4},
    {"hidden": 128, "heads": 8, "kv_heads": 8, "head": 16, "layers": 8},
)
"""Sizes to try, one after another: some architectures have parts that ask for a multiple."""

# What a name ends with or is, in this order, and the size it is given. A number stands for itself;
# a name is looked up in the level.
_SIZES: tuple[tuple[str, str | int], ...] = (
    (r"chunk_size_feed_forward|pretraining_tp|vocab_offset|separable_channels", "keep"),
    (r"num_channels|in_channels|audio_channels|^channels$", "keep"),
    (r"(num|n)_nextn_predict_layers|num_kv_shared_layers|max_window_layers", 0),
    (r"(^|_)(vocab_size|vocab_size_per_layer_input|byte_group_vocab)$", VOCABULARY),
    (r"num_embeddings|codebook_size", VOCABULARY),
    (r"type_vocab_size", "keep"),
    (r"(kv|key_value|num_key)_heads$|^n_head_kv$", "kv_heads"),
    (r"linear_num_value_heads|mamba_n(um)?_heads|n_mamba_heads", 4),
    (r"(heads?|n_head)$(?<!per_head)(?<!dim_head)(?<!d_head)", "heads"),
    (r"(head_dim|d_kv|dim_head|d_head|head_size|kv_channels|headdim)$", "head"),
    (r"lora_rank$|_rank$", 16),
    (r"^(num_hidden_layers|num_layers|n_layers?|depth|layers|.*_layers|num_blocks)$", "layers"),
    (r"(intermediate_size(_mlp)?|ffn_dim|d_ff|mlp_dim|n_inner|d_inner|ffn_hidden_size)$", 64),
    (r"(feed_forward_size|dim_feedforward|feedforward_dim|expert_dim|ffn_size|_ffn)$", 64),
    (r"shared_experts$", 1),
    (r"^(num|n).*experts$|^num_experts$|(^|_)experts$", 4),
    (r"index_topk$", 16),
    (r"experts_per_tok(en)?$|topk$|top_k$|top_k_experts$|moe_k$|num_selects$", 2),
    (r"^(n_group|topk_group|num_expert_group)$", 1),
    (r"expert_capacity", 8),
    (r"^(sliding_window|sliding_window_size|attention_window|local_attention)$", 16),
    (r"^(max_position_embeddings|n_positions|max_seq_len|seq_len|context_length)$", 256),
    (r"^(max_source_positions|max_target_positions|max_length|max_sequence_length)$", 256),
    (r"^image_size$", 56),
    (r"(hidden_size|d_model|n_embd|embed_dim|emb_dim|embedding_dim|embedding_size)$", "hidden"),
    (r"(hidden_dim|^dim|output_dim|projection_dim|_hidden|proj_dim|_channels)$", "hidden"),
    (r"(d_state|state_size|_dim|_rank|hidden_size_.*)$", 16),
    (r"chunk_size$|block_size$", 8),
)

_TOKEN = re.compile(r".*(_token_id|_token_index|_token_ids|_index)$")
_TEXT_ROLES = [f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep", "mask", "unk")]

_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_MOE_OF_DEEPSEEK = {
    "mlp_layer_types": ["dense", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
}
_NEMOTRON_H = {"n_groups": 2, "mamba_num_heads": 4, "mamba_head_dim": 16}
_SOUNDS = {"num_filters": 2, "depths": [1] * 7}
_ERNIE = {"rope_parameters": {**_ROTARY, "mrope_section": [1, 1, 2]}}
_COMPASS = {"rope_parameters": {"full_attention": _ROTARY, "sliding_attention": _ROTARY}}
_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "output_gate_type": "sigmoid",
}
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "blt": {part: {"hidden_size_global": 32} for part in ("encoder_config", "decoder_config")},
    "chameleon": {"vocabulary_map": {"<image>": CONTROL}},
    "cohere_compass": {"text_config": _COMPASS},
    "cohere_compass_text": _COMPASS,
    "csm": {"codec_config": {"upsample_groups": 32}},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": _MOE_OF_DEEPSEEK},
    "deepseek_ocr2_text": _MOE_OF_DEEPSEEK,
    "dots3_note": {"text_config": {"num_key_value_heads": 4}},
    "dots3_note_text": {"num_key_value_heads": 4},
    "emu3": {"vocabulary_map": {"<image>": CONTROL}},
    "ernie4_5_vl_moe": {"text_config": _ERNIE},
    "ernie4_5_vl_moe_text": _ERNIE,
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "initializer_std": 1.0},
    "glm5_next": {"text_config": {"num_key_value_heads": 4, "index_kpool": 4}},
    "glm5_next_text": {"num_key_value_heads": 4, "index_kpool": 4},
    "gradium_phonon_tts": {"flow_head_config": {"condition_dim": 32}},
    "granitemoehybrid": _MAMBA,
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lilt": {"hidden_size": 48},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "mistral4": {"head_dim": 16, "num_key_value_heads": 4},
    "mobilebert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "nemo_speechlm": {"text_config": _NEMOTRON_H},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_omni": {
        "text_config": _NEMOTRON_H,
        "vision_config": {"video_temporal_patch_size": 2},
    },
    "pix2struct_text_model": {"initializer_range": 0.02},
    "pocket_tts": {"flow_head_config": {"condition_dim": 32}},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 64},
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "t5gemma2_encoder": {"text_config": {"dropout_rate": 0.0}},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "vibevoice": {"audio_config": _SOUNDS, "semantic_model_config": _SOUNDS},
    "vibevoice_asr": {
        "acoustic_tokenizer_chunk_size": 3200,
        "acoustic_tokenizer_encoder_config": _SOUNDS,
        "semantic_tokenizer_encoder_config": _SOUNDS,
    },
    "vits": {"speaking_rate": 1000.0},  # or sounds are hours long
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_dt_rank": 2,
        "n_mamba_heads": 2,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16, "mamba_headdim": 16},
    "zaya": {"num_experts_per_tok": 1},
}
"""Settings of architectures whose sizes depend on one another, by name; nested for their parts."""


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


# Configurations


def _size(name: str, value: Any, level: dict[str, int]) -> Any:
    """The small value of a setting; its own where it says no size."""
    for pattern, size in _SIZES:
        if re.search(pattern, name):
            small = value if size == "keep" else level.get(size, size)
            if isinstance(value, (list, tuple)):
                return type(value)(small for _ in value) if value and size != "keep" else value
            return small if isinstance(value, int) and value > 0 else value
    return value


def settings(
    config: type[PreTrainedConfig], level: dict[str, int], special: dict[str, Any], mode: int
) -> dict[str, Any]:
    """Arguments of a configuration class that make its models tiny, those of its parts nested.

    Args:
        config: the configuration class.
        level: one of :data:`LEVELS`.
        special: settings that are known to be needed, see :data:`SPECIAL`.
        mode: 1 if sizes without a default are set, too; 2 if sections of rotary positions are.
    """
    default = config()
    number = next((getattr(default, name, None) for name in _NUMBERS_OF_LAYERS), None)
    level = _with_all_kinds_of_layers(default, level, number)
    control = iter(range(CONTROL, VOCABULARY))
    found: dict[str, Any] = {}
    for name, value in vars(default).items():
        if name.startswith("_") or isinstance(value, bool) or name in _COMPUTED:
            continue
        if isinstance(value, PreTrainedConfig):
            found[name] = settings(type(value), level, special.get(name, {}), mode)
            if name in default.sub_configs:
                found[name]["model_type"] = value.model_type
        elif value is None:
            if mode and name in _WITHOUT_DEFAULT:
                found[name] = _size(name, 1, level)
        elif isinstance(value, dict) and name in ("rope_parameters", "rope_scaling"):
            found[name] = _rotary(value, level, sections=mode == 2)
        elif isinstance(value, (list, tuple)) and len(value) == number and len(value) > 1:
            found[name] = _by_layer(value, level["layers"])
        elif _TOKEN.match(name) and name not in _TEXT_ROLES and isinstance(value, int):
            if value > 0:
                found[name] = next(control)
        elif isinstance(value, int) or (
            isinstance(value, (list, tuple)) and value and isinstance(value[0], int)
        ):
            found[name] = _size(name, value, level)
        if name in found and not isinstance(found[name], dict) and found[name] == value:
            del found[name]
    return found | {name: value for name, value in special.items() if not _is_part(default, name)}


_COMPUTED = ("qk_head_dim",)
_NUMBERS_OF_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_WITHOUT_DEFAULT = (
    *("vocab_size", "head_dim", "intermediate_size", "sliding_window", "moe_intermediate_size"),
    *("n_routed_experts", "num_experts", "num_experts_per_tok", "n_group", "topk_group"),
    *("n_shared_experts", "top_k_experts"),
)


def _is_part(default: PreTrainedConfig, name: str) -> bool:
    return isinstance(vars(default).get(name), PreTrainedConfig)


def _with_all_kinds_of_layers(
    default: PreTrainedConfig, level: dict[str, int], number: int | None
) -> dict[str, int]:
    kinds = getattr(default, "layer_types", None)
    if kinds and len(kinds) == number:
        return level | {"layers": max(level["layers"], len(set(kinds)))}
    return level


def _by_layer(values: Any, number: int) -> Any:
    """A setting of each layer, for fewer layers: of every kind, if they are named."""
    cut = values[:number]
    if isinstance(values[0], str) and set(cut) != set(values):
        kinds = list(dict.fromkeys(values))
        cut = type(values)((kinds * number)[:number])
    return cut


def _rotary(value: dict[str, Any], level: dict[str, int], *, sections: bool) -> dict[str, Any]:
    """Settings of rotary positions whose sections add up to half of a head."""
    if not (sections or "mrope_section" in value) or "rope_type" not in value:
        return value
    half = int(level["head"] * value.get("partial_rotary_factor", 1)) // 2
    rest = half // 3
    return value | {"mrope_section": [half - 2 * rest, rest, rest]}


def _with_ids(config: PreTrainedConfig, ids: dict[str, int | None]) -> None:
    """Tell a configuration and its parts the ids of the tokenizer's special tokens."""
    for role, i in ids.items():
        known = getattr(config, role, None)
        if i is not None and hasattr(config, role):
            setattr(config, role, i)
        elif isinstance(known, int) and known >= CONTROL:
            setattr(config, role, ids["eos_token_id"])
    for part in config.sub_configs:
        inner = getattr(config, part, None)
        if isinstance(inner, PreTrainedConfig):
            _with_ids(inner, ids)


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
    ids = {role: getattr(tokenizer, role, None) for role in _TEXT_ROLES}
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
        model.save_pretrained(folder)
    except Exception as error:
        raise NotBuiltError(f"not saved: {type(error).__name__}: {error}") from error
    return model, kind


def _built(
    name: str, level: dict[str, int], ids: dict[str, int | None], mode: int
) -> PreTrainedModel:
    kind = CONFIG_MAPPING[name]
    config = kind(**settings(kind, level, SPECIAL.get(name, {}), mode))
    _with_ids(config, ids)
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
