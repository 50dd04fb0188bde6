"""What the figures share: colours and markers, panels and axes, and what is drawn in them.

The colours are Okabe and Ito's, which colour-blind readers can tell apart, and mean the same in
every figure: M is blue, V is vermilion, Q is dark grey. Models have other colours, Paul Tol's
muted ones. Nothing here changes matplotlib's global settings or shows a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullFormatter

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import lettering
from embvar_kit.statistics.analysis import Line, Tradeoff, is_constant
from embvar_kit.statistics.token_statistics import HIGH_NORM_FACTOR, TokenStatistics
from embvar_kit.wording import number_of

# Colours and markers

COLOURS = {"Q": "#4d4d4d", "M": "#0072b2", "V": "#d55e00", "V_W": "#e69f00", "V_B": "#009e73"}
"""The colour of each statistic."""

FREQUENCY_MAP = "viridis"
"""The colour map of log10 n_t."""

GROUP_MARKERS = "os^Dv*"
"""Markers of a few groups of points in one panel."""

_MODEL_COLOURS = ("#332288", "#cc6677", "#44aa99", "#882255", "#999933", "#88ccee", "#aa4499")
_MODEL_MARKERS = "os^Dv<>"
_MODEL_LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

MANY = 1000
"""More points than this are stored as an image in a vector file, which opens faster."""


def model_colour(at: int) -> str:
    """The colour of model number ``at``, or of anything else that is not a statistic."""
    return _MODEL_COLOURS[at % len(_MODEL_COLOURS)]


def looks(number: int, colour: str | None = None) -> list[dict]:
    """Colour, marker and line style of so many models; a single one takes ``colour``, if given."""
    if number == 1:
        colour = colour or model_colour(0)
        return [{"color": colour, "marker": "o", "linestyle": "-", "markersize": 4}]
    return [
        {
            "color": model_colour(at),
            "marker": _MODEL_MARKERS[at % len(_MODEL_MARKERS)],
            "linestyle": _MODEL_LINES[at % len(_MODEL_LINES)],
            "markersize": 4,
        }
        for at in range(number)
    ]


def count_range(*counts: np.ndarray | pd.Series) -> tuple[float, float]:
    """The range of log10 n_t that colours span in all panels: 1 to 2, extended to what occurs.

    Args:
        counts: n_t of the tokens of each panel.

    >>> count_range(np.array([10, 50])), count_range(np.array([1, 1000]))
    ((1.0, 2.0), (0.0, 3.0))
    """
    least, most = min(n.min() for n in counts), max(n.max() for n in counts)
    return min(1.0, float(np.log10(least))), max(2.0, float(np.log10(most)))


# Figures, panels and axes


def new_axes(ax: Axes | None, width: float = 7, height: float = 3.8) -> Axes:
    """``ax``, or the Axes of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def panels(number: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``number`` panels in at most ``columns`` columns; a panel's size is in inches."""
    columns = min(columns, number)
    rows = -(-number // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat[number:]:
        ax.remove()
    return figure, list(axes.flat[:number])


def one_or_panels(
    number: int, ax: Axes | None, columns: int, width: float, height: float
) -> tuple[Figure, list[Axes]]:
    """``ax`` for a single model, or new panels for ``number`` models.

    Raises:
        StatisticsError: if ``ax`` is given for several models.
    """
    if ax is None:
        return panels(number, columns, width, height)
    if number > 1:
        raise StatisticsError("Several models make a figure of several panels: leave ax out.")
    return ax.figure, [ax]


def panel_title(ax: Axes, text: str, size: float | None = 10) -> None:
    """Set a title that does not move up, and out of the figure, for an axis' power of ten."""
    ax.set_title(text, y=1.0)
    if size is not None:
        ax.title.set_fontsize(size)


_MARGIN = 0.05  # of a constant value, on either side of it


def around_constant(
    values: np.ndarray, scale: float | None = None, size: float | None = None
) -> tuple[float, float] | None:
    """The limits of an axis for values that are one value up to rounding; ``None`` for others.

    matplotlib stretches its axes to whatever differs, and writes an offset beside them: rounding
    would look like a finding.

    Args:
        values: what the axis shows; what is not finite is not drawn and does not count.
        scale: what the rounding of the values is proportional to; by default the largest of them.
        size: what the limits are a share of; by default the scale.

    >>> around_constant(np.array([1.0, 1.0, 1 + 1e-8])), around_constant(np.array([1.0, 1.1]))
    ((0.95, 1.05), None)
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if not len(found) or not is_constant(found, scale):
        return None
    value = float(np.median(found))
    margin = _MARGIN * (size or scale or abs(value) or 1.0)
    return value - margin, value + margin


def hide_rounding(
    ax: Axes,
    axis: str,
    values: np.ndarray,
    scale: float | None = None,
    size: float | None = None,
) -> None:
    """Set the limits of an axis, ``"x"`` or ``"y"``, by :func:`around_constant` if it has any."""
    if (limits := around_constant(values, scale, size)) is not None:
        ax.set(**{f"{axis}lim": limits})


def size_of_Q(table: pd.DataFrame) -> float:
    """What the rounding of M and V of the tokens of a table is proportional to: their median Q."""
    return float(table["Q"].median())


def few_ticks(ax: Axes) -> None:
    """Set few ticks on a small panel, with powers of ten for large and small numbers."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.ticklabel_format(scilimits=(-3, 4), useMathText=True)
    ax.yaxis.get_offset_text().set_horizontalalignment("right")  # beside the title, not under it


def log_axes(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Make the axes logarithmic for these positive values, with ticks far enough apart to read."""
    ax.set(xscale="log", yscale="log")
    for axis, values in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_major_locator(FixedLocator(_log_ticks(values.min(), values.max())))
        axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(99, 99)))
        axis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float) -> list[float]:
    """Two or three round numbers between ``low`` and ``high``, or fewer if there are none."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [power * step for power in powers for step in steps if low <= power * step <= high]
        if len(ticks) > 1:
            break
    return ticks[:: -(-len(ticks) // 3)] or [low]


def depth_axis(ax: Axes, name: str) -> None:
    """Label the horizontal axis of layers; layers by number get ticks at whole numbers."""
    ax.set_xlabel(name)
    if name == "layer":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


# What is drawn in a panel


def lines(
    ax: Axes,
    statistics: Sequence[TokenStatistics],
    x: Sequence[np.ndarray],
    values: Iterable[Sequence[float]],
    colour: str | None = None,
) -> None:
    """Draw one line per model through its value at each layer; ``colour`` as in :func:`looks`."""
    styles = looks(len(statistics), colour)
    for at, value, name, look in zip(x, values, lettering.labels(statistics), styles, strict=True):
        ax.plot(at, value, label=name, **look)


def fit_line(
    ax: Axes,
    fit: Line | Tradeoff,
    fitted: np.ndarray,
    drawn: np.ndarray,
    *,
    lowest: float = -np.inf,
    look: Mapping | None = None,
) -> None:
    """Draw a regression line over the values it is fitted to, and dotted over others drawn.

    Args:
        ax: the Axes; where they are logarithmic, the line is curved.
        fit: the line.
        fitted: the horizontal values that the line is fitted to.
        drawn: those that are drawn.
        lowest: the line is left out below this, where it would only stretch logarithmic axes.
        look: arguments of matplotlib's lines, by default a black one over the points.
    """
    look = {"color": "black", "linewidth": 1.5, "zorder": line_order(fit.r2), **(look or {})}

    def draw(first: float, last: float, **other) -> None:
        log = ax.get_xscale() == "log"
        x = np.geomspace(first, last, 200) if log else np.array([first, last])
        y = fit.intercept + fit.slope * x
        ax.plot(x[y >= lowest], y[y >= lowest], **look | other)

    whole = np.concatenate([fitted, drawn])
    if len(whole) and (not len(fitted) or np.ptp(whole) > np.ptp(fitted)):
        draw(whole.min(), whole.max(), linestyle=":", linewidth=1.2, label=None)
    if len(fitted):  # none of them may have a place on logarithmic axes
        draw(fitted.min(), fitted.max())


def line_order(r2: float) -> float:
    """The zorder of a regression line: above the points, but below points that all lie on it.

    >>> line_order(0.9) > 1 > line_order(1.0)  # points are drawn at 1
    True
    """
    return 0.9 if r2 > 0.999 else 2.0


def bar_width(at: np.ndarray) -> float:
    """The width of bars at these layers, which leaves gaps between a few and none between many."""
    apart = float(np.diff(at).min()) if len(at) > 1 else 1.0
    return apart * (0.92 if len(at) <= 15 else 1.0)


def name_models(figure: Figure, ax: Axes, statistics: Sequence[TokenStatistics]) -> None:
    """Name the models: one above all panels, several in a legend below them."""
    if len(statistics) == 1:
        figure.suptitle(lettering.labels(statistics)[0], fontsize=11)
        return
    handles, names = ax.get_legend_handles_labels()
    columns = min(4, len(names))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def corner_note(ax: Axes, text: str, *, size: float = 7) -> None:
    """Write what a plot has to say about its points into its lower left corner, if anything."""
    if text:
        halo = [withStroke(linewidth=2.5, foreground="white")]
        where = {"transform": ax.transAxes, "zorder": 5, "path_effects": halo}
        ax.text(0.03, 0.03, text, fontsize=size, style="italic", **where)


def high_norm_note(ax: Axes, Q: np.ndarray, *, short: bool = True) -> None:
    """Note in a panel that it is nearly empty because a few tokens have a huge Q, if any have.

    ``short`` leaves out what the reader can do about it.
    """
    ratio = Q / np.median(Q)
    number = int((ratio >= HIGH_NORM_FACTOR).sum())
    if number:
        text = (
            f"{number_of(number, 'high-norm token')}:\n$Q$ up to {ratio.max():,.0f} ×\nthe median"
        )
        if not short:
            text += "\n\nstats.without(stats.high_norm().token)"
            text += "\nleaves them out, log=True shows all"
        placed = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.55, text, fontsize=8, style="italic", **placed).set_in_layout(False)
