"""The state of an explorer in the address of the app's page.

Voila gives the kernel of a page the query of its address, in an environment variable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

_VOILA, _QUERY = "VOILA_REQUEST_URL", "QUERY_STRING"

LONGEST = 8_000
"""Characters of a query that servers and browsers take; some close the connection at more."""


def in_app() -> bool:
    """Whether this is the kernel of a page that Voila serves."""
    return _VOILA in os.environ


def query_of(name: str, values: Mapping[str, Any]) -> str:
    """The values of a state as the query of an address, under the explorer's name.

    >>> query_of("tradeoff", {"layer": 2})
    'tradeoff=%7B%22layer%22%3A2%7D'
    """
    return urlencode({name: json.dumps(values, separators=(",", ":"), ensure_ascii=False)})


def names() -> set[str]:
    """The names in the query of the app's address, those of explorers among them."""
    return set(parse_qs(_own_query()))


def _own_query() -> str:
    return os.environ.get(_QUERY, "") if in_app() else ""


def values_in(name: str, query: str | None = None) -> dict[str, Any]:
    """The values that a query holds for an explorer; none if it holds no such thing.

    Args:
        name: the explorer's name.
        query: the query; by default that of the app's address.

    Raises:
        ValueError: if what it holds are no values.

    >>> values_in("tradeoff", "token=1&tradeoff=%7B%22layer%22%3A2%7D"), values_in("tradeoff", "")
    ({'layer': 2}, {})
    """
    if query is None:
        query = _own_query()
    found = parse_qs(query).get(name)
    if not found:
        return {}
    try:
        values = json.loads(found[0])
    except RecursionError as error:
        raise ValueError("The values are nested too deeply.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{found[0]!r} are no values by name.")
    if isinstance(counts := values.get("counts"), list):
        values["counts"] = tuple(counts)
    return values
