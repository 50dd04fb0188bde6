"""Control tokens that a text spells out, such as ``[SEP]``: read as text, unless they are meant.

Left to itself, a tokenizer takes the characters ``[SEP]`` or ``<s>`` in a sentence for its control
token. In a corpus of prose they are characters like any others. A text spells out a control token
exactly if the tokenizer's own reading of it has one inside, so only such sentences are read again.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from embvar_kit.errors import ExtractionError, first_line


class ControlTokens:
    """A tokenizer's control tokens, found in its readings of sentences.

    Args:
        tokenizer: a transformers tokenizer; it is not changed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._plain = tokenizer, None
        added = getattr(tokenizer, "added_tokens_decoder", {})
        marked = {i for i, token in added.items() if getattr(token, "special", False)}
        self._ids = frozenset({*tokenizer.all_special_ids, *marked})
        self._ordinary = frozenset(added) - self._ids
        # The unknown token also stands for characters that the tokenizer does not know.
        self._unknown, self._unknown_string = tokenizer.unk_token_id, tokenizer.unk_token
        roles = ("bos", "eos", "cls", "sep", "pad", "mask")
        others = {getattr(tokenizer, f"{role}_token_id", None) for role in roles}
        self._tolerated = {self._unknown} - others

    def spelled_out(self, ids: Sequence[int], sentence: str) -> Counter[int]:
        """How often a sentence spells out each control token, by id.

        Args:
            ids: the tokenizer's own reading of the sentence, without begin and end tokens.
            sentence: the sentence.
        """
        if self._ids.isdisjoint(ids):
            return Counter()
        found = Counter(i for i in ids if i in self._ids)
        if self._unknown in found:
            found[self._unknown] = min(found[self._unknown], sentence.count(self._unknown_string))
        return +found

    def places(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], sentence: str
    ) -> list[int]:
        """Where the control tokens that a sentence spells out stand in ``ids``.

        Args:
            ids, sentence: as in :meth:`spelled_out`.
            spans: the characters of each token; may be empty, and an unknown token then counts as
                one that the text does not spell out.
        """
        return [
            at
            for at, i in enumerate(ids)
            if i in self._ids
            and (
                i != self._unknown
                or (spans and sentence[slice(*spans[at])].strip() == self._unknown_string)
            )
        ]

    def as_text(
        self, ids: Sequence[int], sentence: str, where: str, **options: Any
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Read a sentence that spells out control tokens as ordinary text.

        Args:
            ids: the tokenizer's own reading of the sentence.
            sentence: the sentence.
            where: its place in the corpus, for a message.
            options: passed to the tokenizer.

        Returns:
            The ids, and their spans if ``options`` ask for them.

        Raises:
            ExtractionError: if the tokenizer cannot read these strings as text.
        """
        try:
            if self._plain is None:
                self._plain = _reader_of_text(self._tokenizer, self._ids)
            encoded = self._plain([sentence], **options)
            again = list(encoded["input_ids"][0])
            spans = encoded["offset_mapping"][0] if options.get("return_offsets_mapping") else []
        except Exception as error:  # what a tokenizer with code of its own raises
            raise self._refusal(ids, sentence, where, first_line(error)) from error
        left = self.spelled_out(again, sentence)
        if any(i not in self._tolerated for i in left):
            raise self._refusal(left, sentence, where, "it takes them for its own")
        # Tokenizers written in Python then split the ordinary added tokens as well.
        if _count(again, self._ordinary) < _count(ids, self._ordinary):
            raise self._refusal(ids, sentence, where, "it would split added tokens as well")
        return again, spans

    def _refusal(
        self, ids: Sequence[int] | Counter[int], sentence: str, where: str, why: str
    ) -> ExtractionError:
        found = self.spelled_out(list(ids), sentence)
        names = ", ".join(map(repr, self._tokenizer.convert_ids_to_tokens(sorted(found))))
        return ExtractionError(
            f"A sentence spells out control tokens ({where}: {names}), and "
            f"{type(self._tokenizer).__name__} cannot read them as text: {why}. Take them out of "
            "the text, or pass parse_special=True to read them as control tokens."
        )


def _reader_of_text(tokenizer: Any, control: Iterable[int]) -> Any:
    """A copy of a tokenizer that does not look for control tokens in a text.

    It is a copy because other threads may be using the tokenizer, and the setting would reach them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if hasattr(backend, "to_str") else {}
    if state.get("model", {}).get("type") != "Unigram":
        reader = copy.deepcopy(tokenizer)
        reader.split_special_tokens = True
        return reader
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    # A unigram model has its control tokens among the pieces that it cuts a text into. Under names
    # that no text has, they keep their ids and are never found.
    vocabulary = state["model"]["vocab"]
    hidden = {i for i in control if i < len(vocabulary)}
    names = {vocabulary[i][0]: f"\ue000{vocabulary[i][0]}\ue000" for i in hidden}
    state["model"]["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    for added in state["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    # What surrounds a sentence refers to the old names, and is not asked for.
    state |= {"post_processor": None, "truncation": None, "padding": None}
    renamed = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=renamed, split_special_tokens=True)


def _count(ids: Sequence[int], among: frozenset[int]) -> int:
    return sum(i in among for i in ids)
