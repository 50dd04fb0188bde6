"""How much a suite tries: little in ``make test``, all of it in ``make test-long``.

Suites that try inputs or kill processes count what they tried, and the end of the run prints it.
"""

from __future__ import annotations

import os
from collections import Counter

LONG = os.environ.get("EMBVAR_LONG") == "1"
"""Whether this is the long form."""

TRIED: Counter[str] = Counter()
"""By kind, how many inputs or faults were tried."""


def effort(short: int, long: int) -> int:
    """A number of tries: ``short``, or ``long`` in the long form."""
    return long if LONG else short


def tried(kind: str, number: int = 1) -> None:
    """Count what was tried, for the summary at the end."""
    TRIED[kind] += number
