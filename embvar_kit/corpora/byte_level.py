"""Labels of byte-level tokenizers as text: ``Ã©`` stands for ``é``, and ``Ġ`` for a blank.

Byte-level BPE (GPT-2 and most decoders since) writes each byte of UTF-8 as one printable character.
The paper's tokens are these strings, and they stay the labels; here is what they say.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np


@cache
def alphabet() -> dict[str, int]:
    """The byte that each of the 256 characters of byte-level BPE stands for.

    >>> alphabet()["a"], alphabet()["Ġ"] == ord(" ")
    (97, True)
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(own))
    return {chr(byte): byte for byte in own} | {chr(256 + i): b for i, b in enumerate(others)}


def decoded(label: str) -> str:
    r"""The text of a byte-level label; bytes that are no whole characters become ``\x`` escapes.

    A label with other characters is no byte-level one, and stays as it is.

    >>> decoded("Ã©"), decoded("Ġcaf"), decoded("Ã"), decoded("水")
    ('é', ' caf', '\\xc3', '水')
    """
    bytes_of = alphabet()
    if not all(char in bytes_of for char in label):
        return label
    return bytes(bytes_of[char] for char in label).decode("utf-8", errors="backslashreplace")


def texts(labels: Iterable[str], verbatim: Iterable[str] = ()) -> np.ndarray:
    """``(T,)`` the text of each label.

    Args:
        labels: ``(T,)`` byte-level labels.
        verbatim: those among them that are text already, because they were added to the vocabulary.
    """
    kept = set(verbatim)
    return np.array([x if x in kept else decoded(x) for x in map(str, labels)], dtype=object)


def verbatim(tokenizer: Any) -> list[str] | None:
    """The added tokens that would decode to something else; ``None`` if no token is byte-level.

    Args:
        tokenizer: a transformers tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [getattr(backend, part, None) for part in ("normalizer", "pre_tokenizer", "decoder")]
    fast = any(part is not None and b'"ByteLevel"' in part.__getstate__() for part in parts)
    if not fast and not hasattr(tokenizer, "byte_decoder"):
        return None
    return sorted(token for token in tokenizer.get_added_vocab() if decoded(token) != token)


def visible(text: str) -> str:
    r"""Text for a label: what would not be seen is escaped, and blanks at the ends are quoted.

    >>> visible("é"), visible("\n"), visible(" the")
    ('é', '\\n', "' the'")
    """
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return repr(shown) if shown != shown.strip() else shown


def named(label: str, text: str) -> str:
    """A label with its text beside it, where the two differ.

    >>> named("Ã©", "é"), named("the", "the")
    ('Ã© (é)', 'the')
    """
    return label if label == text else f"{label} ({visible(text)})"
