"""The tokenizers of the models in an explorer: those given, or loaded by name when asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from embvar_kit.errors import ModelError, StatisticsError
from embvar_kit.statistics.token_statistics import TokenStatistics

Key = tuple[str, str | None]
"""Name and revision of a model."""


class Vocabularies:
    """Tokenizers by model.

    Args:
        given: tokenizers at hand, by the model's name and revision.
        recall: whether others are loaded by name.
    """

    def __init__(self, given: Mapping[Key, Any] | None = None, *, recall: bool = False) -> None:
        self._given = dict(given or {})
        self._loaded: dict[Key, tuple[Any, str]] = {}  # with its digest
        self._recall = recall
        self._loading = threading.Lock()

    def at_hand(self, stats: TokenStatistics) -> bool:
        """Whether the vocabulary tells of these statistics, and can be had without a network."""
        if stats.info.get("convention", {}).get("by") not in ("token", "id"):
            return False
        if _key(stats) in self._given:
            return True
        return self._recall and _by_name(*_key(stats))

    def of(self, stats: TokenStatistics) -> Any:
        """The tokenizer of the statistics' model; loading it takes seconds.

        Raises:
            StatisticsError: if it cannot be loaded, or is not the one that they were made with.
        """
        key = _key(stats)
        if key in self._given:
            return self._given[key]
        with self._loading:
            if key not in self._loaded:
                self._loaded[key] = _load(*key)
            tokenizer, digest = self._loaded[key]
        # An older kit kept no digest.
        if stats.info["model"].get("tokenizer", digest) != digest:
            raise StatisticsError(
                f"The tokenizer of {key[0]!r} has changed since these statistics were made."
            )
        return tokenizer


def _key(stats: TokenStatistics) -> Key:
    model = stats.info["model"]
    return model["name"], model.get("revision")


def _by_name(name: str, revision: str | None) -> bool:
    from embvar_kit.models.bundled import BUNDLED

    if name in BUNDLED:
        return BUNDLED[name].present
    from embvar_kit import hub

    return hub.cached_snapshot(name, revision) is not None


def _load(name: str, revision: str | None) -> tuple[Any, str]:
    """A model's tokenizer and its digest."""
    from embvar_kit.models.identity import digest_of_tokenizer
    from embvar_kit.models.loading import load_tokenizer

    try:
        tokenizer, begin, end = load_tokenizer(name, revision)
    except (ModelError, OSError) as error:
        raise StatisticsError(f"The vocabulary of {name!r} cannot be loaded: {error}") from error
    return tokenizer, digest_of_tokenizer(tokenizer, begin, end)
