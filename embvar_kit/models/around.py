"""The tokens put around each sentence: the tokenizer's own template first, then its special tokens.

Following the paper, every sentence gets a begin and an end token, if the tokenizer has them:

- What the tokenizer's own template puts before and after a sentence is put there. It may be more
  than one token: a language's code, or XLNet's ``<sep> <cls>`` at the end.
- A template that puts nothing before a sentence, or a tokenizer without a template, gets the
  ``cls`` token or else the ``bos`` token as begin, unless the template already has that token at
  the end, as XLNet's does. If it puts nothing after it, the end is the ``sep`` or else the ``eos``
  token.

====================================  ==================  ==================
family                                begin               end
====================================  ==================  ==================
BERT, DistilBERT, ELECTRA, ALBERT     ``[CLS]``           ``[SEP]``
ModernBERT                            ``[CLS]``           ``[SEP]``
RoBERTa                               ``<s>``             ``</s>``
GPT-2, GPT-NeoX                       ``<|endoftext|>``   ``<|endoftext|>``
OPT                                   ``</s>``            ``</s>``
Llama, Mistral, Gemma                 ``<s>``/``<bos>``   ``</s>``/``<eos>``
Qwen (has no begin token)             none                its end token
T5 (has no begin token)               none                ``</s>``
XLNet                                 none                ``<sep> <cls>``
NLLB                                  the language        ``</s>``
mBART                                 ``<s>``             ``</s>``, the language
====================================  ==================  ==================
"""

from __future__ import annotations

from typing import Any

SENTENCE = "A short sentence."
"""The text that tokenizers and models are tried on."""


def begin_and_end(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Vocabulary ids to put before and after each sentence; both may be empty.

    Args:
        tokenizer: a transformers tokenizer.
    """
    begin, end = template(tokenizer)
    if not begin:
        one = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
        begin = () if one is None or one in end else (one,)
    if not end:
        one = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
        end = () if one is None else (one,)
    return begin, end


def template(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer itself puts before and after a sentence, as vocabulary ids.

    It is read off a sentence tokenized with and without special tokens, since fast and slow
    tokenizers keep their templates in different places.
    """
    how = {"truncation": False, "padding": False, "verbose": False}
    inside = list(tokenizer(SENTENCE, add_special_tokens=False, **how)["input_ids"])
    whole = list(tokenizer(SENTENCE, add_special_tokens=True, **how)["input_ids"])
    for at in range(len(whole) - len(inside) + 1):
        if whole[at : at + len(inside)] == inside:
            return tuple(whole[:at]), tuple(whole[at + len(inside) :])
    return (), ()


def unusual(tokenizer: Any, begin: tuple[int, ...], end: tuple[int, ...]) -> str:
    """What is put around each sentence, in words, or ``""`` if it is a usual begin and end token.

    Args:
        tokenizer: a transformers tokenizer.
        begin, end: vocabulary ids put before and after each sentence; none is usual, too.
    """
    usual = (
        (begin, {tokenizer.cls_token_id, tokenizer.bos_token_id}),
        (end, {tokenizer.sep_token_id, tokenizer.eos_token_id}),
    )
    if all(not ids or (len(ids) == 1 and ids[0] in own) for ids, own in usual):
        return ""
    before, behind = (
        " ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids)))) or "nothing"
        for ids in (begin, end)
    )
    return (
        f"{before} before each sentence, {behind} behind it, whatever its language; "
        "dataclasses.replace(model, begin=..., end=...) puts other ids there"
    )


def sample_ids(tokenizer: Any, begin: tuple[int, ...], end: tuple[int, ...]) -> list[int]:
    """Vocabulary ids of :data:`SENTENCE` with what is put around it."""
    inside = tokenizer(SENTENCE, add_special_tokens=False, verbose=False)["input_ids"]
    return [*begin, *inside, *end]


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)
