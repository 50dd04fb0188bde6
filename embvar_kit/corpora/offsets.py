"""Whether a tokenizer's offsets can be trusted: some lose count where they drop a character.

Byte pairs without an unknown token and without bytes to fall back on leave out a character that the
vocabulary lacks. The ``tokenizers`` library then counts the characters of what is left, and all
offsets up to the next break between words are too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embvar_kit.corpora import byte_level


class OffsetCheck:
    """Compares tokens with the characters that they are said to stand for, where that is needed.

    Args:
        tokenizer: a transformers tokenizer that gives offsets.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.needed = _may_drop(tokenizer)

    def finds_fault(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], sentence: str
    ) -> bool:
        """Whether a token's characters in the sentence are not those of the token.

        Args:
            ids: the tokens of the sentence.
            spans: the characters of each.
            sentence: the sentence.
        """
        if not self.needed:
            return False
        tokens = self._tokenizer.convert_ids_to_tokens(list(ids))
        # A byte has no letters of its own, nor has a blank put before the text, which the library
        # gives the first character.
        return any(
            letters not in ("", self._letters(sentence[start:end]))
            for token, (start, end) in zip(tokens, spans, strict=True)
            if not (token.startswith("<0x") and token.endswith(">"))
            for letters in [self._letters(token)]
        )

    def _letters(self, text: str) -> str:
        """The text as the tokenizer normalizes it, without blanks and what stands for them."""
        backend = self._tokenizer.backend_tokenizer
        text = text.removesuffix(backend.model.end_of_word_suffix or "")
        text = text.removeprefix(backend.model.continuing_subword_prefix or "")
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        return "".join(text.replace("▁", " ").split()).casefold()


def _may_drop(tokenizer: Any) -> bool:
    """Whether a tokenizer drops characters that its vocabulary lacks."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if type(model).__name__ != "BPE" or model.unk_token is not None:
        return False
    if byte_level.verbatim(tokenizer) is not None:
        return False
    vocabulary = tokenizer.get_vocab()
    every_byte = all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    return not (model.byte_fallback and every_byte)
