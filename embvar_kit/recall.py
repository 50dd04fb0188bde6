"""Embeddings behind given statistics: the same model and sentences, loaded and run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embvar_kit.bundled import BUNDLED
from embvar_kit.corpora import Corpus, load_corpus
from embvar_kit.errors import StatisticsError
from embvar_kit.statistics import TokenStatistics

if TYPE_CHECKING:  # the modules take seconds to import, which a figure without embeddings spares
    from embvar_kit.collection import Occurrences
    from embvar_kit.models import EmbeddingModel


def collect_again(
    one: TokenStatistics, tokens: Sequence[str], layer: int, *, most: int | None = None
) -> dict[str, Occurrences]:
    """Embeddings of a few tokens from the model and the corpus that statistics are of.

    Raises:
        StatisticsError: if these cannot be loaded again by their names, or are not the same.
    """
    from embvar_kit.collection import collect_embeddings

    model, corpus = load_again(one)
    convention = one.info["convention"]
    how = {"by": convention["by"], "long": convention["long"]}
    return collect_embeddings(model, corpus, tokens, [layer], most=most, **how)


def load_again(one: TokenStatistics) -> tuple[EmbeddingModel, Corpus]:
    """The model and the corpus that statistics are of, by their names.

    Raises:
        StatisticsError: if they cannot be loaded by their names, or are not the same.
    """
    name, revision = (one.info["model"].get(key) for key in ("name", "revision"))
    if not _at_hand(name, revision):
        raise StatisticsError(
            f"Embeddings need the model {name!r}, which is not at hand under this name: neither a "
            "bundled one that was fetched nor one in the Hub's cache. Call figures.token_clouds."
        )
    corpora = one.info["corpora"]
    settings = corpora[0].get("settings") or {}
    if len(corpora) > 1 or corpora[0]["name"] != "wikipedia" or {"then", "slice"} & set(settings):
        raise StatisticsError(
            f"Embeddings need the corpus {corpora[0]['name']!r} again, and only 'wikipedia' with a "
            "limit or sample can be had by name. Call figures.token_clouds."
        )
    if one.info.get("convention", {}).get("site") != "hidden":
        raise StatisticsError("Embeddings are collected at site 'hidden', which these are not of.")
    corpus = load_corpus("wikipedia", **settings)
    if corpus.fingerprint != corpora[0]["fingerprint"]:
        raise StatisticsError("The corpus 'wikipedia' here is another than the one of these.")
    from embvar_kit.models import load_model

    model = load_model(name, revision=None if name in BUNDLED else revision)
    if model.revision != revision:
        raise StatisticsError(f"The weights of {name!r} here are others than those of these.")
    return model, corpus


def _at_hand(name: str, revision: str | None) -> bool:
    if name in BUNDLED:
        return BUNDLED[name].present
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError:
        return False
