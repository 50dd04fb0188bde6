"""What messages share: numbers of things, arguments, and names that come near an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def number_of(count: int, noun: str) -> str:
    """A number with its noun, which takes an s unless there is one of it.

    >>> number_of(1, "document"), number_of(2000, "token"), number_of(0, "row")
    ('1 document', '2,000 tokens', '0 rows')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def named(arguments: Mapping[str, object]) -> str:
    """Arguments as they were given, for a message that asks to change them.

    >>> named({"sample": 5, "split": "test"})
    "sample=5 and split='test'"
    """
    return " and ".join(f"{name}={value!r}" for name, value in arguments.items())


def did_you_mean(name: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """A question that names the nearest known name, with a blank before it, or ``""``.

    Args:
        name: what was written.
        known: what might have been meant.
        alike: how near a name has to be, from 0 to 1, as :mod:`difflib` measures it.

    >>> did_you_mean("minilmm", ["minilm", "smollm2"]), did_you_mean("gpt2", ["minilm"])
    (" Did you mean 'minilm'?", '')
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=alike)
    return f" Did you mean {near[0]!r}?" if near else ""
