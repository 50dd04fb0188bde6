"""All figures: one function for each figure of the paper in :data:`PAPER`, and some that teach.

A function takes the statistics of one model or of several. It draws on the Axes it is given, or
on new ones, and returns them; a figure of several panels is returned as a Figure. :data:`PAPER`
says which function draws which figure of the paper. No function changes matplotlib's global
settings or shows a figure: the caller's style and backend apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from embvar_kit.figures.embeddings import pick_tokens, token_clouds
from embvar_kit.figures.formula import (
    decomposition_lengths,
    moments_by_layer,
    moments_of,
    running_moments,
    sample_size_bias,
    subtraction_error,
    variance_between_parts,
    variance_formula,
)
from embvar_kit.figures.frequency import (
    frequency_slopes,
    moment_histograms,
    moments_on_frequency,
    sentence_lengths,
    statistics_grid,
    token_frequencies,
)
from embvar_kit.figures.layers import (
    anisotropy_by_layer,
    dimension_shares,
    moments_of_all_by_layer,
    parts_over_Q_by_layer,
    shares_by_layer,
    variance_parts_by_layer,
    within_share_by_layer,
)
from embvar_kit.figures.normalization import (
    affine_mixture,
    bends,
    layer_norm_geometry,
    training_curves,
    twins_by_layer,
)
from embvar_kit.figures.style import COLOURS
from embvar_kit.figures.symbols import SYMBOLS, blocks, symbol_sheet
from embvar_kit.figures.tradeoff import V_on_M, V_on_M_by_layer, tradeoff_by_layer
from embvar_kit.figures.words import word_moments


class PaperFigure(NamedTuple):
    """A figure or table of the paper.

    Attributes:
        function: the function that draws the figure, or makes the table.
        shows: what it shows, in one line.
        options: the arguments with which the function draws what the authors' script draws, where
            its defaults differ. Colours, markers and the limits of axes are the kit's own.
    """

    function: Callable
    shows: str
    options: Mapping[str, object] = MappingProxyType({})


_ALL = {"min_count": 1, "max_count": None}


PAPER = {
    "Fig. 1": PaperFigure(
        token_clouds, "scatter plot of a few tokens' embeddings, their means and the origin, by PCA"
    ),
    "Fig. 2": PaperFigure(
        V_on_M,
        "scatter plot of V against M over tokens, with the regression line",
        {"drawn": "all"},
    ),
    "Fig. 3": PaperFigure(
        decomposition_lengths, "drawing of M, V_W and V_B as lengths, and bars of their squares"
    ),
    "Fig. 4": PaperFigure(
        tradeoff_by_layer, "lines by layer: coefficient of variation of Q, slope and R² of V on M"
    ),
    "Fig. 5": PaperFigure(shares_by_layer, "stacked bars by layer: M, V_B and V_W as shares of Q"),
    "Fig. 6": PaperFigure(within_share_by_layer, "line by layer: V_W as a share of V"),
    "Fig. 7": PaperFigure(
        moments_on_frequency,
        "scatter plots of Q, M and V against log10 n_t, with lines",
        {"drawn": "all"},
    ),
    "Fig. 8": PaperFigure(
        V_on_M,
        "scatter plot of V against M over tokens, a few of them named",
        {"drawn": "all", **_ALL},
    ),
    "Fig. 9": PaperFigure(
        sentence_lengths, "histogram of sentences over their number of words", {"paper": True}
    ),
    "Fig. 10": PaperFigure(
        token_frequencies, "histogram of tokens over log10 n_t", {"paper": True}
    ),
    "Figs. 11-13": PaperFigure(
        statistics_grid,
        "five layers: scatter plots of Q, M and V against log10 n_t, and of V against M",
        {"drawn": "all"},
    ),
    "Figs. 14-16": PaperFigure(moment_histograms, "five layers: histograms of Q, M and V", _ALL),
    "Fig. 17": PaperFigure(frequency_slopes, "lines by layer: slopes of log Q, M and V on log n_t"),
    "Fig. 18": PaperFigure(parts_over_Q_by_layer, "lines by layer: M, V, V_W and V_B over Q"),
    "Fig. 19": PaperFigure(moments_of_all_by_layer, "lines by layer: Q, M and V of all embeddings"),
    "Fig. 20": PaperFigure(variance_parts_by_layer, "lines by layer: V_W, V_B and V_B over V"),
    "Fig. 22": PaperFigure(
        word_moments,
        "scatter plots of words: Q, M and V against log10 n_w, and V against M",
        {"drawn": "all", "layers": "five"},
    ),
    "Table 2": PaperFigure(
        pick_tokens, "a few tokens of every frequency: n_t, Q, M and V", {"paper": True}
    ),
}
"""The paper's figures and table that are made from statistics, in its order."""

__all__ = [
    "COLOURS",
    "PAPER",
    "SYMBOLS",
    "PaperFigure",
    "V_on_M",
    "V_on_M_by_layer",
    "affine_mixture",
    "anisotropy_by_layer",
    "bends",
    "blocks",
    "decomposition_lengths",
    "dimension_shares",
    "frequency_slopes",
    "layer_norm_geometry",
    "moment_histograms",
    "moments_by_layer",
    "moments_of",
    "moments_of_all_by_layer",
    "moments_on_frequency",
    "parts_over_Q_by_layer",
    "pick_tokens",
    "running_moments",
    "sample_size_bias",
    "sentence_lengths",
    "shares_by_layer",
    "statistics_grid",
    "subtraction_error",
    "symbol_sheet",
    "token_clouds",
    "token_frequencies",
    "tradeoff_by_layer",
    "training_curves",
    "twins_by_layer",
    "variance_between_parts",
    "variance_formula",
    "variance_parts_by_layer",
    "within_share_by_layer",
    "word_moments",
]
