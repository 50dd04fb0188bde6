"""What a figure is given: how many statistics, and which of their tokens and layers it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from embvar_kit.errors import StatisticsError
from embvar_kit.figures.lettering import counted, formula, letter
from embvar_kit.statistics.token_statistics import TokenStatistics

Statistics = TokenStatistics | Sequence[TokenStatistics]
"""One model's statistics, or those of several models to be drawn side by side."""

Drawn = Literal["all"] | tuple[int, int | None] | None
"""Which tokens a scatter plot shows: ``None`` for those that its line is fitted to, ``"all"`` for
all that the statistics hold, or the least and the largest n_t (``None`` for no largest)."""


def several(stats: Statistics) -> list[TokenStatistics]:
    """The statistics as a list, whether one or several are given.

    Raises:
        StatisticsError: if the list is empty or holds anything else, or if there are no layers.
    """
    if isinstance(stats, TokenStatistics):
        return [stats]
    found = list(stats)
    if not found or not all(isinstance(one, TokenStatistics) for one in found):
        raise StatisticsError("A figure draws TokenStatistics: pass one, or a list of them.")
    for one in found:
        if not len(one.layers):
            raise StatisticsError("There is no layer to draw.")
    return found


def only(stats: Statistics, what: str) -> TokenStatistics:
    """The statistics of a figure that draws a single model; ``what`` is the function's name.

    Raises:
        StatisticsError: if there are several.
    """
    found = several(stats)
    if len(found) > 1:
        raise StatisticsError(f"{what} draws one model: call it once for each of the {len(found)}.")
    return found[0]


def chosen(
    one: TokenStatistics,
    layer: int,
    *,
    min_count: int,
    max_count: int | None,
    special: bool = True,
    unbiased: bool = False,
) -> pd.DataFrame:
    """The table of a layer's tokens with ``min_count <= n_t <= max_count``.

    Raises:
        StatisticsError: if there is no such token.
    """
    counts = {"min_count": min_count, "max_count": max_count}
    table = one.table(layer, **counts, special=special, unbiased=unbiased)
    if not table.empty:
        return table
    if not special and len(one.table(layer, **counts)):
        raise StatisticsError("All tokens in this range are special ones: special=True keeps them.")
    raise StatisticsError(
        f"No token of {one.info['model']['name']} has {counted(min_count, max_count)}: lower "
        "min_count, raise max_count, or take a larger corpus."
    )


class Scatter(NamedTuple):
    """The tokens of a scatter plot.

    Attributes:
        drawn: the table of the tokens to draw.
        fitted: the table of those that the line is fitted to.
        note: what the plot has to say about the two, or ``""`` if they are the same.
    """

    drawn: pd.DataFrame
    fitted: pd.DataFrame
    note: str = ""


def scatter(
    one: TokenStatistics,
    layer: int,
    drawn: Drawn,
    *,
    min_count: int,
    max_count: int | None,
    special: bool = True,
    unbiased: bool = False,
) -> Scatter:
    """The tokens of a layer that a scatter plot draws, and those that its line is fitted to.

    The paper draws all tokens in Figs. 2, 7 and 11-13 and fits the lines to those with
    ``10 <= n_t <= 100,000``, since M and V of rarer tokens are biased. Compact statistics and
    those of a pass with ``min_count`` hold no rarer tokens, and a single occurrence has no
    unbiased form: ``drawn="all"`` then draws what there is, and the note says so.

    Args:
        one: the statistics.
        layer: the layer's number.
        drawn: which tokens are drawn.
        min_count, max_count: the line is fitted to ``min_count <= n_t <= max_count``.
        special, unbiased: as in :meth:`embvar_kit.TokenStatistics.table`.

    Raises:
        StatisticsError: if no token is left, ``drawn`` is of another kind, or it names tokens that
            were not measured or have no unbiased form.
    """
    choice = {"special": special, "unbiased": unbiased}
    fitted = chosen(one, layer, min_count=min_count, max_count=max_count, **choice)
    if drawn is None:
        return Scatter(fitted, fitted)
    least = max(one.least_count, 2 if unbiased else 1)
    if isinstance(drawn, str) and drawn == "all":
        first, last = least, None
    elif isinstance(drawn, tuple) and len(drawn) == 2:
        first, last = drawn
        if unbiased and first < 2:
            raise StatisticsError(
                f"drawn={drawn}: a single occurrence has no unbiased M and V. Draw from 2 on."
            )
    else:
        raise StatisticsError(f"drawn={drawn!r} is unknown: it is 'all', (least, most) or None.")
    table = chosen(one, layer, min_count=first, max_count=last, **choice)
    everything = (first, last) == (1, None)
    what = "all" if everything else formula(counted(first, last, letter(one)))
    return Scatter(
        table,
        fitted,
        f"drawn: {what}\nline: {formula(counted(min_count, max_count, letter(one)))}",
    )


# Layers


def n_states(one: TokenStatistics, remedy: str) -> int:
    """The number of the model's hidden states.

    Raises:
        StatisticsError: if the statistics do not hold it; the message says to do ``remedy``.
    """
    number = one.info["model"].get("n_states")
    if number is None:
        raise StatisticsError(
            f"These statistics of {one.info['model']['name']!r} do not say how many layers the "
            f"model has: {remedy}."
        )
    return int(number)


def layer_of(one: TokenStatistics, layer: int | str) -> int:
    """The number of a layer given by its number (-1 is the last one extracted) or as ``"middle"``.

    The middle is number ``N // 2`` of ``N`` hidden states, counted from 0, as in the authors'
    scripts: layer 6 of a model with 12 blocks. If it was not extracted, the nearest one is taken.
    """
    if layer == "middle":
        return _nearest(one, _n_states(one) // 2)
    if isinstance(layer, str):
        raise StatisticsError(f"layer={layer!r} is unknown: give a number or 'middle'.")
    return int(one.layers[layer]) if layer < 0 else int(layer)


def five_layers(one: TokenStatistics) -> list[int]:
    """The first layer, the last, the middle and the quarters between (paper, Figs. 11-16, 22).

    As in the authors' scripts, with ``h = N // 2`` for ``N`` hidden states these are ``0``,
    ``h // 2``, ``h``, ``h + h // 2`` and ``N - 1``: 0, 3, 6, 9 and 12 of 13. They are fewer where
    they coincide, and the nearest ones where not all were extracted.
    """
    number = _n_states(one)
    half = number // 2
    wanted = (0, half // 2, half, half + half // 2, number - 1)
    return sorted({_nearest(one, layer) for layer in wanted})


def _n_states(one: TokenStatistics) -> int:
    return n_states(one, "name the layer by its number")


def _nearest(one: TokenStatistics, layer: int) -> int:
    return int(one.layers[np.abs(one.layers - layer).argmin()])


def depths(
    statistics: Sequence[TokenStatistics], depth: str | None
) -> tuple[list[np.ndarray], str]:
    """Each model's layers as positions on the axis, and the axis' label.

    Args:
        statistics: of one model or of several.
        depth: ``"index"``, or ``"relative"``: 0 for the embedding layer's output, 1 for the last
            hidden state. By default relative if models differ in depth, else the index.
    """
    if depth not in (None, "relative", "index"):
        raise StatisticsError(f"depth={depth!r} is unknown: it is 'relative' or 'index'.")
    if depth is None:
        numbers = {one.info["model"].get("n_states") for one in statistics}
        depth = "relative" if len(numbers - {None}) > 1 else "index"
    if depth == "index":
        return [np.asarray(one.layers, dtype=float) for one in statistics], "layer"
    lasts = [n_states(one, "pass depth='index'") - 1 for one in statistics]
    return (
        [one.layers / max(1, last) for one, last in zip(statistics, lasts, strict=True)],
        "relative depth (layer / last layer)",
    )
