"""Tiny Transformers of the families that the kit supports, built on the spot and saved to disk.

Each has 2 layers, is 32 wide and holds seeded random weights. Its tokenizer, of its family's kind
and with its family's special tokens, is trained on a few sentences with the ``tokenizers`` library.
A saved model has the files of a user's folder or a download from the Hub: ``config.json``,
``model.safetensors``, ``tokenizer.json`` and ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WIDTH, LAYERS, POSITIONS = 32, 2, 64
"""Width and layers of every tiny model, and its positions where its configuration has any."""

SENTENCES = [
    "The cat sat on the mat, and the dog was barking at the singing bird.",
    "A short sentence.",
    "Reading, writing and running are things that she was doing this morning.",
    "The river runs through the valley and the valley runs to the sea.",
    "He thinks that walking is better than driving, and swimming better than both.",
    "Every token has a norm; its mean has one, too.",
    "What varies less lies further from the origin, as the variance formula says.",
    "In 1905 there were 26 papers about light, heat and motion.",
]
"""The text that the tokenizers are trained on."""

VOCABULARY = 400
"""Rows of the embedding table: often more than the tokenizer has entries, as in real models."""


def wordpiece(special: dict[str, str]) -> Tokenizer:
    """BERT's kind: lower-cased words, and pieces that begin with ``##``."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _train(tokenizer, trainers.WordPieceTrainer, special)


def byte_level(special: dict[str, str]) -> Tokenizer:
    """GPT-2's kind: byte pairs, and ``Ġ`` where a word starts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(tokenizer, trainers.BpeTrainer, special, initial_alphabet=alphabet)


def sentencepiece_bpe(special: dict[str, str]) -> Tokenizer:
    """Llama's kind: pairs of characters, and ``▁`` where a word starts."""
    tokenizer = Tokenizer(models.BPE(unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _train(tokenizer, trainers.BpeTrainer, special)


def sentencepiece_unigram(special: dict[str, str]) -> Tokenizer:
    """T5's kind: a unigram language model over pieces, and ``▁`` where a word starts."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return _train(tokenizer, trainers.UnigramTrainer, special, unk_token=special["unk_token"])


def _train(
    tokenizer: Tokenizer, trainer: Callable[..., Any], special: dict[str, str], **options: Any
) -> Tokenizer:
    options |= {"vocab_size": VOCABULARY, "show_progress": False}
    tokenizer.train_from_iterator(
        SENTENCES, trainer(special_tokens=list(dict.fromkeys(special.values())), **options)
    )
    return tokenizer


@dataclass(frozen=True)
class Family:
    """How a family's tiny model is built, and what the kit must find out about it.

    Attributes:
        model: name of the transformers class that is saved.
        settings: arguments of its configuration class.
        tokenizer_class: name of the tokenizer class that the family's repositories declare.
        train: makes the tokenizer from the special tokens.
        special: special tokens by role, in the order of their ids.
        begin, end: tokens that the kit must put around a sentence.
        marker: prefix that the paper strips from this tokenizer's tokens.
        max_tokens: limit that the kit must find, or ``None``.
        learned: whether positions are learned, so that one token too many breaks the model.
        final_norm: class name of the normalization that gives the last hidden state.
        template: special tokens that the tokenizer itself adds to a sentence: ``"begin"``,
            ``"end"``, ``"both"`` or none, ``""``.
    """

    model: str
    settings: dict[str, Any]
    tokenizer_class: str
    train: Callable[[dict[str, str]], Tokenizer]
    special: dict[str, str]
    begin: str | None
    end: str
    marker: str
    max_tokens: int | None
    learned: bool
    final_norm: str
    template: str = ""


_BERT = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
_BERT |= {"intermediate_size": 64, "max_position_embeddings": POSITIONS}
_LLAMA = {**_BERT, "num_key_value_heads": 2}
_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "cls_token": "<s>",
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_ALBERT_TOKENS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "[CLS]",
    "bos_token": "[CLS]",
    "sep_token": "[SEP]",
    "eos_token": "[SEP]",
    "mask_token": "[MASK]",
}
_GPT_TOKENS = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_OPT_TOKENS = {
    "bos_token": "</s>",
    "eos_token": "</s>",
    "unk_token": "</s>",
    "pad_token": "<pad>",
}
_QWEN_TOKENS = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
_LLAMA_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_GEMMA_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
}
_T5_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}

_BERT_LIKE = Family(
    model="BertForMaskedLM",
    settings=_BERT,
    tokenizer_class="BertTokenizer",
    train=wordpiece,
    special=_BERT_TOKENS,
    begin="[CLS]",
    end="[SEP]",
    marker="##",
    max_tokens=POSITIONS,
    learned=True,
    final_norm="LayerNorm",
    template="both",
)
_GPT_LIKE = Family(
    model="GPT2LMHeadModel",
    settings={"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": POSITIONS},
    tokenizer_class="GPT2Tokenizer",
    train=byte_level,
    special=_GPT_TOKENS,
    begin="<|endoftext|>",
    end="<|endoftext|>",
    marker="Ġ",
    max_tokens=POSITIONS,
    learned=True,
    final_norm="LayerNorm",
)
_LLAMA_LIKE = Family(
    model="LlamaForCausalLM",
    settings=_LLAMA,
    tokenizer_class="LlamaTokenizer",
    train=sentencepiece_bpe,
    special=_LLAMA_TOKENS,
    begin="<s>",
    end="</s>",
    marker="▁",
    max_tokens=POSITIONS,
    learned=False,
    final_norm="LlamaRMSNorm",
    template="begin",
)

FAMILIES = {
    "bert": _BERT_LIKE,
    "roberta": replace(
        _BERT_LIKE,
        model="RobertaForMaskedLM",
        # Its positions count from behind the padding id.
        settings={**_BERT, "max_position_embeddings": POSITIONS + 2},
        tokenizer_class="RobertaTokenizer",
        train=byte_level,
        special=_ROBERTA_TOKENS,
        begin="<s>",
        end="</s>",
        marker="Ġ",
    ),
    "distilbert": replace(
        _BERT_LIKE,
        model="DistilBertForMaskedLM",
        settings={
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": POSITIONS,
        },
        tokenizer_class="DistilBertTokenizer",
    ),
    "albert": replace(
        _BERT_LIKE,
        model="AlbertForMaskedLM",
        settings={**_BERT, "embedding_size": 16},
        tokenizer_class="AlbertTokenizer",
        train=sentencepiece_unigram,
        special=_ALBERT_TOKENS,
        marker="▁",
    ),
    "electra": replace(
        _BERT_LIKE,
        model="ElectraForPreTraining",
        settings={**_BERT, "embedding_size": 16},
        tokenizer_class="ElectraTokenizer",
    ),
    "modernbert": replace(
        _BERT_LIKE,
        model="ModernBertForMaskedLM",
        tokenizer_class="PreTrainedTokenizerFast",
        train=byte_level,
        marker="Ġ",
        learned=False,
    ),
    "gpt2": _GPT_LIKE,
    "gpt_neox": replace(
        _GPT_LIKE,
        model="GPTNeoXForCausalLM",
        settings=_BERT,
        tokenizer_class="GPTNeoXTokenizer",
        special={**_GPT_TOKENS, "pad_token": "<|padding|>"},
        learned=False,
    ),
    "opt": replace(
        _GPT_LIKE,
        model="OPTForCausalLM",
        # Its table has two rows more, which no token can reach.
        settings={
            "hidden_size": WIDTH,
            "word_embed_proj_dim": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": POSITIONS,
        },
        special=_OPT_TOKENS,
        begin="</s>",
        end="</s>",
        template="begin",
    ),
    "llama": _LLAMA_LIKE,
    "qwen2": replace(
        _LLAMA_LIKE,
        model="Qwen2ForCausalLM",
        tokenizer_class="Qwen2Tokenizer",
        train=byte_level,
        special=_QWEN_TOKENS,
        begin=None,
        end="<|im_end|>",
        marker="Ġ",
        final_norm="Qwen2RMSNorm",
        template="",
    ),
    "gemma2": replace(
        _LLAMA_LIKE,
        model="Gemma2ForCausalLM",
        settings={**_LLAMA, "head_dim": 8, "sliding_window": 16},
        tokenizer_class="GemmaTokenizer",
        special=_GEMMA_TOKENS,
        begin="<bos>",
        end="<eos>",
        final_norm="Gemma2RMSNorm",
    ),
    "t5": Family(
        model="T5ForConditionalGeneration",
        settings={"d_model": WIDTH, "num_layers": LAYERS, "num_heads": 4, "d_kv": 8, "d_ff": 64},
        tokenizer_class="T5Tokenizer",
        train=sentencepiece_unigram,
        special=_T5_TOKENS,
        begin=None,
        end="</s>",
        marker="▁",
        max_tokens=None,
        learned=False,
        final_norm="T5LayerNorm",
        template="end",
    ),
}
"""The families, each with what the kit must find out about it."""


def build(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Build and save the tiny model of a family with its head, as repositories have it."""
    made = FAMILIES[family]
    tokenizer = save_tokenizer(made, folder)
    kind = getattr(transformers, made.model)
    ids = {f"{role}_id": tokenizer.convert_tokens_to_ids(t) for role, t in made.special.items()}
    default = kind.config_class()
    ids = {role: ids.get(role) for role in _ROLES if hasattr(default, role)}
    size = max(len(tokenizer), VOCABULARY)
    config = kind.config_class(**made.settings, vocab_size=size, **ids)
    torch.manual_seed(seed)
    with _no_bars():
        kind(config).save_pretrained(folder)
    return folder


_ROLES = [f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep", "mask")]


@contextmanager
def _no_bars() -> Iterator[None]:
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def save_tokenizer(family: Family, folder: Path) -> Any:
    """Save a family's tokenizer as its repositories have it; return what transformers loads."""
    trained = family.train(family.special)
    around = [
        family.begin if family.template in ("both", "begin") else None,
        "$A",
        family.end if family.template in ("both", "end") else None,
    ]
    around = [part for part in around if part is not None]
    trained.post_processor = processors.TemplateProcessing(
        single=" ".join(f"{part}:0" for part in around),
        special_tokens=[(token, trained.token_to_id(token)) for token in around if token != "$A"],
    )
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, **family.special)
    plain.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    declared = {"tokenizer_class": family.tokenizer_class}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **declared}, indent=1))
    return getattr(transformers, family.tokenizer_class).from_pretrained(folder)


def build_gguf(llama: Path, file: Path) -> Path:
    """Write the weights of the tiny Llama to a GGUF file with a byte-level tokenizer."""
    with _no_bars():
        model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    config, weights = model.config, model.state_dict()
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    tokenizer = byte_level(_GPT_TOKENS)
    tokens = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads["q"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in weights.items():
        parts = name.removeprefix("model.").removesuffix(".weight").split(".")
        if parts[0] == "layers":
            renamed = f"blk.{parts[1]}.{_IN_GGUF['.'.join(parts[2:])]}"
        else:
            renamed = _IN_GGUF[parts[0]]
        array = tensor.float().numpy()
        if count := heads.get(parts[-1].removesuffix("_proj")):
            # llama.cpp keeps the two halves of each head's rotary pairs side by side.
            array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{renamed}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


_IN_GGUF = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
