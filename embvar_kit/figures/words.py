"""Words instead of tokens (paper, Appendix J)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import given, lettering, style
from embvar_kit.figures.given import Drawn, Statistics
from embvar_kit.figures.tradeoff import fit_text
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

_CLASSES = ("1", "2", "3", "4+")
_MARKERS = "o^sD"


def word_moments(
    stats: Statistics,
    *,
    layer: int | str = "middle",
    layers: Sequence[int] | Literal["five"] | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    drawn: Drawn = None,
    unbiased: bool = False,
) -> Figure:
    """Q, M and V of words against log10 n_w, and V on M (paper, Fig. 22).

    Points are coloured by the number of sub-words that the tokenizer cuts the word into (the mean
    over its occurrences, rounded). Lines and titles are those of all words together. Each model
    has a row of panels for each layer.

    Args:
        stats: statistics by word, of one model or of several.
        layer: the layer's number, or ``"middle"``.
        layers: several layers to draw in place of one; ``"five"`` for those of the paper.
        min_count, max_count: fit lines to the words with ``min_count <= n_w <= max_count``.
        drawn: the words to draw, by default these; ``"all"`` as in the paper, which draws no
            lines, or a pair ``(least, most)``. Lines are dotted where they are not fitted.
        unbiased: draw the finite-sample corrected M and V.

    Raises:
        StatisticsError: if the statistics are not by word.
    """
    statistics = given.several(stats)
    for one in statistics:
        if one.subwords is None:
            raise StatisticsError(
                f"These statistics of {one.info['model']['name']!r} are not by word: extract with "
                "by='word'."
            )
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    named = zip(statistics, lettering.labels(statistics), strict=True)
    shown = [(one, name, at) for one, name in named for at in _layers(one, layer, layers)]
    figure, axes = style.panels(4 * len(shown), 4, 2.75, 3.0)
    symbols = {moment: lettering.symbol(moment, "w", unbiased=unbiased) for moment in "QMV"}
    rows = zip(*[iter(axes)] * 4, strict=True)
    for (one, name, at), row in zip(shown, rows, strict=True):
        words = given.scatter(one, at, drawn, **choice)
        table = words.drawn
        pieces = np.clip(np.rint(table["subwords"].to_numpy()), 1, len(_CLASSES)).astype(int)
        pairs = [(_frequency, m, r"$\log_{10} n_w$") for m in "QMV"]
        pairs.append((lambda of: of["M"].to_numpy(), "V", symbols["M"]))
        for ax, (horizontal, moment, below) in zip(row, pairs, strict=True):
            x, y = horizontal(table), table[moment].to_numpy()
            fitted = horizontal(words.fitted)
            fit = analysis.regress(
                fitted,
                words.fitted[moment].to_numpy(),
                scale_y=style.size_of_Q(words.fitted),
                names=("n_w or M", moment),
            )
            _by_sub_words(ax, x, y, pieces)
            style.fit_line(ax, fit, fitted, x, look={"zorder": 9})
            ax.set(xlabel=below, ylabel=symbols[moment])
            style.panel_title(ax, fit_text(fit), 9)
            style.hide_rounding(ax, "y", y, style.size_of_Q(table))
            style.few_ticks(ax)
        style.corner_note(row[0], words.note)
        row[0].annotate(
            f"{name}, layer {at}",
            (0, 1.16),
            xycoords="axes fraction",
            fontweight="bold",
            annotation_clip=False,
        )
        style.high_norm_note(row[3], words.fitted["Q"].to_numpy())
    _name_classes(figure, axes)
    return figure


def _by_sub_words(ax: Axes, x: np.ndarray, y: np.ndarray, pieces: np.ndarray) -> None:
    """Draw words with a colour and a marker for each number of sub-words."""
    colours = colormaps["viridis"]([0.0, 0.4, 0.72, 0.93])
    for number, text in enumerate(_CLASSES, start=1):
        own = pieces == number
        if own.any():
            ax.scatter(
                x[own],
                y[own],
                s=9 if number == 1 else 16,
                color=[colours[number - 1]],
                marker=_MARKERS[number - 1],
                alpha=0.7,
                linewidths=0,
                zorder=number,
                rasterized=own.sum() > style.MANY,
                label=text,
            )


def _name_classes(figure: Figure, axes: Sequence[Axes]) -> None:
    """Name the numbers of sub-words that any panel shows in a legend below all panels."""
    found = {}
    for ax in axes:
        found |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    shown = [text for text in _CLASSES if text in found]
    figure.legend(
        [found[text] for text in shown],
        [f"{text} sub-word{'s' * (text != '1')}" for text in shown],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        markerscale=1.6,
    )


def _frequency(table: pd.DataFrame) -> np.ndarray:
    return np.log10(table["n"].to_numpy())


def _layers(
    one: TokenStatistics, layer: int | str, layers: Sequence[int] | Literal["five"] | None
) -> list[int]:
    """The layers to draw of one model."""
    if layers is None:
        return [given.layer_of(one, layer)]
    if isinstance(layers, str) and layers != "five":
        raise StatisticsError(f"layers={layers!r} is unknown: it is 'five' or a list of numbers.")
    return given.five_layers(one) if isinstance(layers, str) else list(layers)
