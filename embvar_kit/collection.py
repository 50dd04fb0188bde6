"""The embeddings themselves, of a few chosen tokens: for figures and for looking closely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from embvar_kit.corpora import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.extraction import forward
from embvar_kit.models import EmbeddingModel
from embvar_kit.planning import plan


@dataclass(frozen=True)
class Occurrences:
    """All occurrences of one token, in the order of the corpus: the set ``X_t``.

    Attributes:
        token: the token.
        layers: ``(L,)`` hidden states taken.
        x: ``(L, n, d)`` float32 embeddings.
        sentence: ``(n,)`` index of the sentence in the corpus.
        position: ``(n,)`` position in the model's sequence; 0 is the begin token's.
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
    by: str = "token",
    batch_tokens: int | None = None,
    long: str = "split",
) -> dict[str, Occurrences]:
    """Collect every embedding of a few tokens; only sentences that hold one of them are run.

    Args:
        model, corpus, layers, by, batch_tokens, long: as in :func:`embvar_kit.extract`.
        tokens: the tokens, as they are called in the statistics.

    Returns:
        Per token, its occurrences.

    Raises:
        ExtractionError: if a token does not occur.
    """
    tokens = [tokens] if isinstance(tokens, str) else list(tokens)
    work = plan(model, corpus, by=by, layers=layers, batch_tokens=batch_tokens, long=long)
    group_of = {str(work.grouping.labels[group]): group for group in work.groups}
    if absent := [token for token in tokens if token not in group_of]:
        raise ExtractionError(
            f"{', '.join(map(repr, absent))} does not occur in corpus {corpus.name!r}."
        )
    wanted = np.array([group_of[token] for token in tokens])
    group = work.grouping.group_of[work.text.ids]
    of_sequence = np.repeat(np.arange(len(work.text.lengths)), work.text.lengths)
    needed = np.zeros(len(work.text.lengths), dtype=bool)
    needed[of_sequence[np.isin(group, wanted)]] = True
    batches = [kept for batch in work.batches if len(kept := batch[needed[batch]])]

    parts, places = [], []
    for batch in forward(model, work.text, batches):
        here = np.isin(work.grouping.group_of[batch.token_ids], wanted)
        rows = batch.rows[here]
        longest = batch.states[0].shape[1]
        flat = [batch.states[layer].reshape(-1, work.width)[rows] for layer in work.layers]
        parts.append(np.stack([x.float().cpu().numpy() for x in flat]))
        sequence, position = batch.sequences[rows // longest], rows % longest
        groups = work.grouping.group_of[batch.token_ids[here]]
        places.append(np.stack([sequence, position, groups]))
    x, (sequence, position, groups) = np.concatenate(parts, axis=1), np.concatenate(places, axis=1)
    found = {}
    for token in tokens:
        own = np.flatnonzero(groups == group_of[token])
        own = own[np.lexsort((position[own], sequence[own]))]
        found[token] = Occurrences(
            token=token,
            layers=np.array(work.layers),
            x=x[:, own],
            sentence=work.text.sentence[sequence[own]],
            position=position[own],
        )
    return found
