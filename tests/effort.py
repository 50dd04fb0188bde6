"""How many inputs and faults a suite tries: few in ``make test``, many in ``make test-long``.

The suites count what they tried; conftest prints the counts of all workers when the run ends.
"""

from __future__ import annotations

import os
from collections import Counter

LONG = os.environ.get("EMBVAR_LONG") == "1"
"""Whether the long form runs."""

TRIED: Counter[str] = Counter()
"""Number of inputs or faults tried, by kind."""


def effort(short: int, long: int) -> int:
    """The number of tries: ``short``, or ``long`` in the long form."""
    return long if LONG else short


def tried(kind: str, number: int = 1) -> None:
    """Add to the summary printed at the end."""
    TRIED[kind] += number
