"""Tiny configurations: every number that says how large something is, made small.

The numbers are known by what their names have in common, since transformers has some 800
configurations; the architectures that need more are in :data:`SPECIAL`.
"""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedConfig

VOCABULARY = 512
"""Rows of every table of embeddings: more than any of the tokenizers has entries."""

CONTROL = VOCABULARY - 64
"""Ids from here on stand for images and the like: no text has them."""

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
TEXT_ROLES = [f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep", "mask", "unk")]
"""Settings that are the ids of a tokenizer's special tokens."""

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
        elif _TOKEN.match(name) and name not in TEXT_ROLES and isinstance(value, int):
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


def set_ids(config: PreTrainedConfig, ids: dict[str, int | None]) -> None:
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
            set_ids(inner, ids)
