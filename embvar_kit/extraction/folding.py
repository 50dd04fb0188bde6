"""What is left of the statistics of a pass without each fold of the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import pandas as pd

from embvar_kit.moments.folds import (
    FoldMoments,
    leave_one_out,
    pool,
    together,
    without_each_fold,
)
from embvar_kit.statistics import analysis
from embvar_kit.statistics.compaction import choices as choices_of
from embvar_kit.statistics.compaction import key_of
from embvar_kit.statistics.folds import LEAST, OF_ALL_LAYERS, Folds
from embvar_kit.statistics.token_statistics import TokenStatistics


def with_folds(
    statistics: TokenStatistics,
    layers: Iterable[Mapping[str, np.ndarray]],
    *,
    starts: np.ndarray,
    fold: np.ndarray,
    n_folds: int,
    rows: np.ndarray,
) -> TokenStatistics:
    """Statistics with what is left of them without each fold, layer by layer.

    Odd folds are one half of the documents.

    Args:
        statistics: the statistics of all folds together.
        layers: for each layer the moments of the entries (see :mod:`embvar_kit.moments.folds`), as
            :meth:`embvar_kit.GroupedMoments.state` gives them.
        starts, fold, n_folds: the entries, as :func:`without_each_fold` takes them.
        rows: ``(T,)`` which group of the entries each token of the statistics is.
    """
    odd = np.arange(n_folds) % 2 == 1
    frequent = statistics.n >= LEAST
    of_layers, decompositions = [], []
    choices = list(choices_of(statistics))
    pieces, of_choices = _pieces([chosen for _, chosen in choices])
    for at, state in enumerate(layers):
        held = {"starts": starts, "fold": fold, **state, "n_folds": n_folds}
        found = without_each_fold(**held, half=odd)
        apart = FoldMoments(*(x[..., rows] for x in found))
        of_layers.append({name: x[..., frequent] for name, x in apart._asdict().items()})
        pooled = [pool(rows[piece], **held) for piece in pieces]
        for (choice, chosen), its_own in zip(choices, of_choices, strict=True):
            union = leave_one_out(*together(compress(pooled, its_own)))
            parts = _decompositions(apart, union, chosen, choice["unbiased"])
            parts = parts[parts["n"] < statistics.n[chosen].sum()]  # see Folds.used
            decompositions.append(parts.assign(at=at, **key_of(statistics, choice)))
    arrays = {
        name: of_layers[0][name]
        if name in OF_ALL_LAYERS
        else np.stack([one[name] for one in of_layers], axis=-2)
        for name in of_layers[0]
    }
    return replace(
        statistics,
        folds=Folds(tokens=statistics.tokens[frequent], **arrays),
        # None where no token is left that is frequent enough for a choice: a bound on the norm can
        # take occurrences of all that were.
        fold_decompositions=pd.concat(decompositions, ignore_index=True)
        if decompositions
        else None,
    )


def _pieces(choices: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Disjoint pieces that choices of tokens consist of, since choices share most of their tokens.

    Returns:
        The indices of the tokens of each piece, and ``(C, P)`` which pieces a choice consists of.
    """
    if not choices:
        return [], np.zeros((0, 0), dtype=bool)
    of_choices, piece = np.unique(np.stack(choices), axis=1, return_inverse=True)
    used = np.flatnonzero(of_choices.any(axis=0))
    return [np.flatnonzero(piece == at) for at in used], of_choices[:, used]


def _decompositions(
    apart: FoldMoments, union: tuple[np.ndarray, ...], chosen: np.ndarray, correct: bool
) -> pd.DataFrame:
    """The decomposition of some tokens' embeddings without each fold: a row for each.

    Args:
        apart: the moments of the tokens without each fold.
        union: ``(K,)`` n, Q, M and V of all their embeddings together, without each fold.
        chosen: ``(T,)`` whether a token is one of them.
        correct: as in :func:`analysis.decompose`; a token that is left once tells no variance.
    """
    n_X, Q_X, M_X, V_X = union
    n, V = apart.n[:, chosen], apart.V[:, chosen]
    V_W = np.einsum("kt,kt->k", n, np.where(n > 0, V, 0)) / np.maximum(1, n.sum(axis=1))
    parts = analysis.parts_of(n, V, Q_X, M_X, V_X - V_W, correct=correct)
    return pd.DataFrame({"fold": np.arange(len(n)), "n": n_X, **parts._asdict()})
