"""What the figures share: colours, models' names, layers by depth, panels, labels of points.

The colours are Okabe and Ito's, which colour-blind readers can tell apart, and mean the same in
every figure: M is blue, V is vermilion, Q is dark grey. Models have other colours, Paul Tol's
muted ones. Nothing here changes matplotlib's global settings or shows a figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics.analysis import Line, Tradeoff
from embvar_kit.statistics.token_statistics import HIGH_NORM_FACTOR, TokenStatistics

Statistics = TokenStatistics | Sequence[TokenStatistics]
"""One model's statistics, or those of several models to be drawn side by side."""

Drawn = Literal["all"] | tuple[int, int | None] | None
"""Which tokens a scatter plot shows: ``None`` for those that its line is fitted to, ``"all"`` for
all that the statistics hold, or the least and the largest n_t (``None`` for no largest)."""


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


# The statistics given: how many, of which tokens, under which names


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
        f"No token of {one.info['model']['name']} has {_counts(min_count, max_count)}: lower "
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
    what = "all" if everything else _formula(_counts(first, last, letter(one)))
    return Scatter(
        table,
        fitted,
        f"drawn: {what}\nline: {_formula(_counts(min_count, max_count, letter(one)))}",
    )


def _counts(least: int, most: int | None, of: str = "t") -> str:
    """A range of counts as text.

    >>> _counts(10, 100_000), _counts(2, None, "w")
    ('10 <= n_t <= 100,000', '2 <= n_w')
    """
    return f"{least:,} <= n_{of}" + ("" if most is None else f" <= {most:,}")


def _formula(counts: str) -> str:
    return f"${counts.replace('<=', chr(92) + 'leq').replace(',', '{,}')}$"


def labels(statistics: Sequence[TokenStatistics]) -> list[str]:
    """A distinct name for each: the model's, and the corpus, site and so on where models repeat.

    A name always says how many tokens were left out.
    """
    names = [written(one.info["model"]["name"]) for one in statistics]
    distinctions = (
        lambda one: "on " + one.info["corpora"][0]["name"],
        lambda one: "site " + str(one.info.get("convention", {}).get("site")),
        lambda one: "by " + str(one.info.get("convention", {}).get("by")),
        lambda one: str(one.info["corpora"][0].get("settings") or "all sentences"),
    )
    for distinction in distinctions:
        for name in {name for name in names if names.count(name) > 1}:
            alike = [at for at, other in enumerate(names) if other == name]
            if len({distinction(statistics[at]) for at in alike}) > 1:
                for at in alike:
                    names[at] = f"{name}, {written(distinction(statistics[at]))}"
    for at, one in enumerate(statistics):
        if left_out := one.info.get("left_out"):
            names[at] += f" ({len(left_out)} token{'s' * (len(left_out) > 1)} left out)"
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} [{names[: at + 1].count(name)}]" if name in repeated else name
        for at, name in enumerate(names)
    ]


def letter(one: TokenStatistics) -> str:
    """The index of a group in formulas: ``t`` for tokens, ``w`` for words."""
    return "w" if one.info.get("convention", {}).get("by") == "word" else "t"


def symbol(moment: str, group: str | None = None, *, unbiased: bool = False) -> str:
    """Q, M or V as a formula; the unbiased M and V have a tilde. ``group`` is from :func:`letter`.

    >>> symbol("Q", "t", unbiased=True), symbol("M", "t", unbiased=True), symbol("V")
    ('$Q(X_t)$', '$\\\\tilde{M}(X_t)$', '$V$')
    """
    corrected = unbiased and moment != "Q"
    of = "" if group is None else f"(X_{group})"
    return rf"$\tilde{{{moment}}}{of}$" if corrected else f"${moment}{of}$"


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
    for at, value, name, look in zip(x, values, labels(statistics), styles, strict=True):
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
        figure.suptitle(labels(statistics)[0], fontsize=11)
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
        tokens = f"high-norm token{'s' * (number > 1)}"
        text = f"{number} {tokens}:\n$Q$ up to {ratio.max():,.0f} ×\nthe median"
        if not short:
            text += "\n\nstats.without(stats.high_norm().token)"
            text += "\nleaves them out, log=True shows all"
        placed = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.55, text, fontsize=8, style="italic", **placed).set_in_layout(False)


# Text: tokens as matplotlib can write them, labels beside points


@lru_cache
def _font():
    return get_font(findfont(FontProperties()))


def written(text: str) -> str:
    """A token as matplotlib can write it: ``$`` escaped, and codes for what the font lacks.

    >>> written("$x$")
    '\\\\$x\\\\$'
    >>> written("\\u6c34")
    '\\\\u6c34'
    """
    shown = (
        char if char.isprintable() and _font().get_char_index(ord(char)) else f"\\u{ord(char):04x}"
        for char in str(text)
    )
    return "".join(shown).replace("$", r"\$")


def as_label(token: str) -> str:
    """A token as the label of a point, in quotation marks if it has no letter or digit.

    >>> as_label("the"), as_label(",")
    ('the', '‘,’')
    """
    text = written(token)
    return text if any(char.isalnum() for char in text) else f"‘{text}’"


def label_points(ax: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write a label beside each point so that it covers no other label and no labelled point.

    Positions are chosen for the present size of the Axes: resize it before, not after.
    """
    ax.figure.draw_without_rendering()
    at = ax.transData.transform(np.column_stack([x, y]))
    points = 72 / ax.figure.dpi
    size, height = 8.5, 11.0
    taken = [Bbox.from_bounds(*(p * points - 3), 6, 6) for p in at]
    around = [(np.cos(a), np.sin(a)) for a in np.radians([0, 180, 90, 270, 45, 135, 225, 315])]
    frame = ax.get_window_extent()
    inside = Bbox.from_extents(*(frame.extents * points))
    for spot, text in zip(at * points, texts, strict=True):
        width = TextPath((0, 0), text, size=size).get_extents().width + 2
        places = [
            (
                spot[0] + dx * (far + width / 2) - width / 2,
                spot[1] + dy * (far + height / 2) - height / 2,
            )
            for far in (6, 14, 26, 40)
            for dx, dy in around
        ]
        boxes = [Bbox.from_bounds(*place, width, height) for place in places]
        crowded = [
            box.count_overlaps(taken)
            + 3 * (box.x0 < inside.x0 or box.x1 > inside.x1)
            + 3 * (box.y0 < inside.y0 or box.y1 > inside.y1)
            for box in boxes
        ]
        best = int(np.argmin(crowded))
        taken.append(boxes[best])
        centre = (boxes[best].x0 + width / 2, boxes[best].y0 + height / 2)
        line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            text,
            xy=ax.transData.inverted().transform(spot / points),
            xytext=tuple(np.subtract(centre, spot)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops=line if best >= len(around) else None,  # far from its point
            zorder=6,
        )
