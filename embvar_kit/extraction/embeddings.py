"""The embeddings of a few chosen tokens or of a random draw, for figures and close inspection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from embvar_kit import hub
from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.load import load_corpus
from embvar_kit.errors import ExtractionError, StatisticsError
from embvar_kit.extraction.forward import forward
from embvar_kit.extraction.plan import Plan, plan
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.models.loading import EmbeddingModel, load_model
from embvar_kit.moments.device import send
from embvar_kit.statistics.merging import control_tokens_read
from embvar_kit.statistics.token_statistics import TokenStatistics


@dataclass(frozen=True)
class Occurrences:
    """Occurrences of one token, in the order of the corpus: the set ``X_t``, or a draw from it.

    Attributes:
        token: the token, or ``"*"`` if the occurrences are of any token.
        layers: ``(L,)`` the hidden states taken.
        x: ``(L, n, d)`` their float32 embeddings.
        sentence: ``(n,)`` index of the sentence in the corpus.
        position: ``(n,)`` position in the model's sequence, 0 for the begin token; for a word, the
            position of its first token.
    """

    token: str
    layers: np.ndarray
    x: np.ndarray
    sentence: np.ndarray
    position: np.ndarray

    def __len__(self) -> int:
        return len(self.sentence)

    def at(self, layer: int) -> np.ndarray:
        """``(n, d)`` embeddings at one layer."""
        found = np.flatnonzero(self.layers == layer)
        if not len(found):
            raise ExtractionError(
                f"Layer {layer} was not collected; there are {', '.join(map(str, self.layers))}."
            )
        return self.x[found[0]]


def collect_embeddings(
    model: EmbeddingModel,
    corpus: Corpus,
    tokens: Sequence[str],
    layers: Iterable[int] | None = None,
    *,
    most: int | None = None,
    seed: int = 0,
    by: str = "token",
    site: str = "hidden",
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> dict[str, Occurrences]:
    """Collect the embeddings of a few tokens; only sentences that hold one of them are run.

    Args:
        model, corpus, layers, by, site, batch_tokens, long, parse_special: as in
            :func:`embvar_kit.extract`.
        tokens: the tokens (or words), named as in the statistics.
        most: draw this many occurrences of a token that occurs more often.
        seed: seed of the random draw.

    Returns:
        The occurrences of each token, by token.

    Raises:
        ExtractionError: if a token does not occur, or a layer lacks the site.
    """
    tokens = [tokens] if isinstance(tokens, str) else list(dict.fromkeys(tokens))
    how = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    work = plan(model, corpus, **how, parse_special=parse_special)
    random = np.random.default_rng(seed)
    wanted = {}
    for token, group in zip(tokens, work.groups_of(tokens), strict=True):
        own = np.flatnonzero(work.group == group)
        if most is not None and len(own) > most:
            own = np.sort(random.choice(own, most, replace=False))
        wanted[token] = own
    return _collect(model, work, wanted, site)


def sample_embeddings(
    model: EmbeddingModel,
    corpus: Corpus,
    n: int,
    layers: Iterable[int] | None = None,
    *,
    seed: int = 0,
    by: str = "token",
    site: str = "hidden",
    batch_tokens: int | None = None,
    long: str = "split",
    parse_special: bool = False,
) -> Occurrences:
    """Draw ``n`` of all occurrences, whatever their token, and collect their embeddings.

    Args:
        model, corpus, layers, by, site, batch_tokens, long, parse_special: as in
            :func:`embvar_kit.extract`.
        n: number of occurrences; all of them if the corpus has no more.
        seed: seed of the random draw.

    Raises:
        ExtractionError: if ``n`` is less than 1, or a layer lacks the site.
    """
    if n < 1:
        raise ExtractionError(f"n={n}: draw at least one embedding.")
    how = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    work = plan(model, corpus, **how, parse_special=parse_special)
    drawn = np.random.default_rng(seed).permutation(len(work.group))[:n]
    return _collect(model, work, {"*": np.sort(drawn)}, site)["*"]


def _collect(
    model: EmbeddingModel, work: Plan, wanted: Mapping[str, np.ndarray], site: str
) -> dict[str, Occurrences]:
    """Run the sequences that hold wanted occurrences (indices in ``work.group``, ascending)."""
    text = work.text
    chosen = np.zeros(len(work.group), dtype=bool)
    chosen[np.concatenate(list(wanted.values()))] = True
    parts, occurrences = [], []
    with closing(forward(model, work, [site], work.batches_with(chosen))) as batches:
        for batch in batches:
            here = chosen[batch.occurrences]
            rows = send(batch.rows[here], model.device)
            states = (batch.embeddings(site, layer).to(model.device) for layer in work.layers)
            parts.append(torch.stack([state[rows].float() for state in states]).cpu().numpy())
            occurrences.append(batch.occurrences[here])
    x, occurrence = np.concatenate(parts, axis=1), np.concatenate(occurrences)
    order = np.argsort(occurrence)
    collected = {}
    for token, own in wanted.items():
        sequence = work.sequence[own]
        collected[token] = Occurrences(
            token=token,
            layers=np.array(work.layers),
            x=x[:, order[np.searchsorted(occurrence, own, sorter=order)]],
            sentence=text.sentence[sequence],
            position=work.first_token[own] - text.starts[sequence],
        )
    return collected


def collect_again(
    one: TokenStatistics, tokens: Sequence[str], layer: int, *, most: int | None = None
) -> dict[str, Occurrences]:
    """Embeddings of a few tokens, from the model and the corpus behind given statistics.

    Raises:
        StatisticsError: if these cannot be loaded again by name, or have changed.
    """
    model, corpus = load_again(one)
    convention = one.info["convention"]
    how = {"by": convention["by"], "long": convention["long"]}
    how["parse_special"] = control_tokens_read(one.info)
    return collect_embeddings(model, corpus, tokens, [layer], most=most, **how)


def require_all_occurrences(one: TokenStatistics) -> None:
    """Refuse to show the occurrences of statistics that were measured without some of them.

    Raises:
        StatisticsError: if some were left out.
    """
    if one.info.get("convention", {}).get("leave_out"):
        raise StatisticsError(
            "Some occurrences were left out of these statistics (leave_out=), and all of them "
            "would be shown: extract without leave_out to look at occurrences, or leave model and "
            "corpus out."
        )


def load_again(one: TokenStatistics) -> tuple[EmbeddingModel, Corpus]:
    """Load the model and the corpus behind given statistics again, by name.

    Raises:
        StatisticsError: if they cannot be loaded by name, or have changed.
    """
    name, revision = (one.info["model"].get(key) for key in ("name", "revision"))
    if not _at_hand(name, revision):
        raise StatisticsError(
            f"Embeddings need the model {name!r}, which is not at hand under this name: neither a "
            "bundled one that was fetched nor one in the Hub's cache. Pass model and corpus along."
        )
    corpora = one.info["corpora"]
    settings = corpora[0].get("settings") or {}
    if len(corpora) > 1 or corpora[0]["name"] != "wikipedia" or {"then", "slice"} & set(settings):
        raise StatisticsError(
            f"Embeddings need the corpus {corpora[0]['name']!r} again, and only 'wikipedia' with a "
            "limit or sample can be had by name. Pass the model and the corpus yourself."
        )
    if one.info.get("convention", {}).get("site") != "hidden":
        raise StatisticsError(
            "Embeddings are collected at site 'hidden'; these statistics are of another site."
        )
    require_all_occurrences(one)
    corpus = load_corpus("wikipedia", **settings)
    if corpus.fingerprint != corpora[0]["fingerprint"]:
        raise StatisticsError(
            "The corpus 'wikipedia' has changed since these statistics were made."
        )
    model = load_model(name, revision=None if name in BUNDLED else revision)
    if model.revision != revision:
        raise StatisticsError(
            f"The weights of {name!r} have changed since these statistics were made."
        )
    for what, digest in model.digests.items():
        if one.info["model"].get(what, digest) != digest:  # an older kit kept none
            raise StatisticsError(
                f"The {what} of {name!r} has changed since these statistics were made."
            )
    return model, corpus


def _at_hand(name: str, revision: str | None) -> bool:
    if name in BUNDLED:
        return BUNDLED[name].present
    return hub.cached_snapshot(name, revision) is not None
