"""What the figures share: colours, names of models, layers by depth, panels.

Colours are Okabe and Ito's, safe for colour-blind readers, and mean the same everywhere: M is
blue, V is vermilion, Q is dark grey. Models have colours of their own (Paul Tol's muted ones),
which are none of a statistic's. Nothing global is set and nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

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
from embvar_kit.statistics.token_statistics import SINK_FACTOR, TokenStatistics

COLOURS = {"Q": "#4d4d4d", "M": "#0072b2", "V": "#d55e00", "V_W": "#e69f00", "V_B": "#009e73"}
"""The colour of each statistic."""

FREQUENCY_MAP = "viridis"
"""The colour map of log10 n_t."""

_MODEL_COLOURS = ("#332288", "#cc6677", "#44aa99", "#882255", "#999933", "#88ccee", "#aa4499")
_MARKERS = "os^Dv<>"
_LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

MANY = 1000
"""Points beyond which a vector file holds them as a picture: ten thousand shapes open slowly."""

Statistics = TokenStatistics | Sequence[TokenStatistics]
"""One model's statistics, or those of several models to be drawn side by side."""


# Which statistics, what they are called, where their layers lie


def several(stats: Statistics) -> list[TokenStatistics]:
    """The statistics as a list, whether one or several are given.

    Raises:
        StatisticsError: if there are none, or something else is given.
    """
    if isinstance(stats, TokenStatistics):
        return [stats]
    found = list(stats)
    if not found or not all(isinstance(one, TokenStatistics) for one in found):
        raise StatisticsError("A figure draws TokenStatistics: give one, or a list of some.")
    for one in found:
        if not len(one.layers):
            raise StatisticsError("There is no layer to draw.")
    return found


def only(stats: Statistics, what: str) -> TokenStatistics:
    """The one statistics that a figure of a single model draws.

    Raises:
        StatisticsError: if there are several.
    """
    found = several(stats)
    if len(found) > 1:
        raise StatisticsError(f"{what} draws one model: call it for each of the {len(found)}.")
    return found[0]


def labels(statistics: Sequence[TokenStatistics]) -> list[str]:
    """A name for each: the model's; where these are equal, also the corpus, the site or the like.

    Tokens that were left out are always mentioned.
    """
    names = [written(one.info["model"]["name"]) for one in statistics]
    ways = (
        lambda one: "on " + one.info["corpora"][0]["name"],
        lambda one: "site " + str(one.info.get("convention", {}).get("site")),
        lambda one: "by " + str(one.info.get("convention", {}).get("by")),
        lambda one: str(one.info["corpora"][0].get("settings") or "all sentences"),
    )
    for told in ways:
        for name in {name for name in names if names.count(name) > 1}:
            alike = [at for at, other in enumerate(names) if other == name]
            if len({told(statistics[at]) for at in alike}) > 1:
                for at in alike:
                    names[at] = f"{name}, {written(told(statistics[at]))}"
    for at, one in enumerate(statistics):
        if left_out := one.info.get("left_out"):
            names[at] += f" ({len(left_out)} token{'s' * (len(left_out) > 1)} left out)"
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} [{names[: at + 1].count(name)}]" if name in repeated else name
        for at, name in enumerate(names)
    ]


def looks(statistics: Sequence, colour: str | None = None) -> list[dict]:
    """Colour, marker and line style of each model; ``colour`` is used where there is only one."""
    if len(statistics) == 1:
        colour = colour or model_colour(0)
        return [{"color": colour, "marker": "o", "linestyle": "-", "markersize": 4}]
    return [
        {
            "color": model_colour(at),
            "marker": _MARKERS[at % len(_MARKERS)],
            "linestyle": _LINES[at % len(_LINES)],
            "markersize": 4,
        }
        for at in range(len(statistics))
    ]


def model_colour(at: int) -> str:
    """The colour of the model drawn as number ``at``, or of another thing that is no statistic."""
    return _MODEL_COLOURS[at % len(_MODEL_COLOURS)]


def n_states(one: TokenStatistics, remedy: str) -> int:
    """How many hidden states the model has.

    Raises:
        StatisticsError: if the statistics do not say; the message gives ``remedy``.
    """
    number = one.info["model"].get("n_states")
    if number is None:
        raise StatisticsError(
            f"These statistics of {one.info['model']['name']!r} do not say how many layers the "
            f"model has: {remedy}."
        )
    return int(number)


def layer_of(one: TokenStatistics, layer: int | str) -> int:
    """A layer by number (-1 is the last one extracted), or ``"middle"``.

    The middle is half way from the first hidden state to the last, or what was extracted nearest
    to it: layer 6 of 12, as in the paper.
    """
    if layer == "middle":
        return _nearest(one, 0.5)
    if isinstance(layer, str):
        raise StatisticsError(f"layer={layer!r} is unknown: give a number or 'middle'.")
    return int(one.layers[layer]) if layer < 0 else int(layer)


def five_layers(one: TokenStatistics) -> list[int]:
    """The first layer, the last and the quarters between (Figs. 11-16); fewer if they coincide."""
    return sorted({_nearest(one, share) for share in (0, 0.25, 0.5, 0.75, 1)})


def _nearest(one: TokenStatistics, share: float) -> int:
    last = n_states(one, "name the layer by its number") - 1
    return int(one.layers[np.abs(one.layers - round(share * last)).argmin()])


def depths(
    statistics: Sequence[TokenStatistics], depth: str | None
) -> tuple[list[np.ndarray], str]:
    """Where the layers of each stand on the axis, and what the axis is called.

    Args:
        depth: ``"index"``, or ``"relative"``: 0 for the embedding layer's output, 1 for the last
            hidden state. By default relative where models differ in depth, else the index.
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


def letter(one: TokenStatistics) -> str:
    """The index of a group: ``t`` for tokens, ``w`` for words."""
    return "w" if one.info.get("convention", {}).get("by") == "word" else "t"


# What is drawn of them


def chosen(
    one: TokenStatistics,
    layer: int,
    *,
    min_count: int,
    max_count: int | None,
    unbiased: bool = False,
) -> pd.DataFrame:
    """The table of a layer's tokens in a range of counts.

    Raises:
        StatisticsError: if there is no such token.
    """
    table = one.table(layer, min_count=min_count, max_count=max_count, unbiased=unbiased)
    if table.empty:
        most = "" if max_count is None else f" <= {max_count:,}"
        raise StatisticsError(
            f"No token of {one.info['model']['name']} has {min_count:,} <= n_t{most}: lower "
            "min_count, raise max_count, or take a larger corpus."
        )
    return table


def count_range(tables: Iterable[pd.DataFrame]) -> tuple[float, float]:
    """Limits of the colours of log10 n_t over all panels: 1 to 2, or more where there is more."""
    counts = [np.log10(table["n"].to_numpy()) for table in tables]
    least, most = (float(f([f(n) for n in counts])) for f in (min, max))
    return min(1.0, least), max(2.0, most)


def sink_note(ax: Axes, Q: np.ndarray, *, short: bool = True) -> None:
    """Say in a panel that a few tokens are out of all proportion, where they are.

    The rest of the panel is empty then. ``short`` leaves out what to do about it.
    """
    ratio = Q / np.median(Q)
    number = int((ratio >= SINK_FACTOR).sum())
    if number:
        text = f"{number} sink{'s' * (number > 1)}:\n$Q$ up to {ratio.max():,.0f} ×\nthe median"
        if not short:
            text += "\n\nstats.without(stats.sinks().token)\nleaves them out, log=True shows all"
        placed = {"transform": ax.transAxes, "ha": "center", "va": "center"}
        ax.text(0.5, 0.55, text, fontsize=8, style="italic", **placed).set_in_layout(False)


# Figures and panels


def new_axes(ax: Axes | None, width: float = 7, height: float = 3.8) -> Axes:
    """The Axes given, or those of a new figure of this size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def panels(number: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``number`` panels, each of this size in inches, in at most so many columns."""
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
    """Axes for each of several models, ``ax`` for a single one.

    Raises:
        StatisticsError: if ``ax`` is given for several.
    """
    if ax is None:
        return panels(number, columns, width, height)
    if number > 1:
        raise StatisticsError("Several models make a figure of several panels: leave ax out.")
    return ax.figure, [ax]


def line_order(r2: float) -> float:
    """Where a regression line is drawn: over the points, but under those that all lie on it.

    >>> line_order(0.9) > 1 > line_order(1.0)  # points are drawn at 1
    True
    """
    return 0.9 if r2 > 0.999 else 2.0


def few_ticks(ax: Axes) -> None:
    """Few ticks, and powers of ten for large and small numbers: for a small panel."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.ticklabel_format(scilimits=(-3, 4), useMathText=True)
    ax.yaxis.get_offset_text().set_horizontalalignment("right")  # beside the title, not under it


def log_axes(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Logarithmic axes for these positive values, with ticks that leave one another room."""
    ax.set(xscale="log", yscale="log")
    for axis, values in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_major_locator(FixedLocator(_log_ticks(values.min(), values.max())))
        axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(99, 99)))
        axis.set_minor_formatter(NullFormatter())


def _log_ticks(low: float, high: float) -> list[float]:
    """Two or three round numbers in the range, as far as it holds so many."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [power * step for power in powers for step in steps if low <= power * step <= high]
        if len(ticks) > 1:
            break
    return ticks[:: -(-len(ticks) // 3)] or [low]


def panel_title(ax: Axes, text: str, size: float | None = 10) -> None:
    """A title that stays where it is: one that gives way to a power of ten leaves the figure."""
    ax.set_title(text, y=1.0)
    if size is not None:
        ax.title.set_fontsize(size)


def bar_width(at: np.ndarray) -> float:
    """Of bars at these layers: with gaps between them while there are few."""
    apart = float(np.diff(at).min()) if len(at) > 1 else 1.0
    return apart * (0.92 if len(at) <= 15 else 1.0)


def lines(
    ax: Axes,
    statistics: Sequence[TokenStatistics],
    x: Sequence[np.ndarray],
    values: Iterable[Sequence[float]],
    colour: str | None = None,
) -> None:
    """A line a model, of a value at each of its layers; ``colour`` as in :func:`looks`."""
    models = zip(x, values, labels(statistics), looks(statistics, colour), strict=True)
    for at, value, name, look in models:
        ax.plot(at, value, label=name, **look)


def depth_axis(ax: Axes, name: str) -> None:
    """Call the horizontal axis by its name; layers by number get whole numbers."""
    ax.set_xlabel(name)
    if name == "layer":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def name_models(figure: Figure, ax: Axes, statistics: Sequence[TokenStatistics]) -> None:
    """Say which models are drawn: a legend below all panels, or one model's name above them."""
    if len(statistics) == 1:
        figure.suptitle(labels(statistics)[0], fontsize=11)
        return
    handles, names = ax.get_legend_handles_labels()
    columns = min(4, len(names))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


# Labels


@lru_cache
def _font():
    return get_font(findfont(FontProperties()))


def written(text: str) -> str:
    """A token as matplotlib can write it: no mathematics, and codes for what its font lacks.

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
    """A token as a label of a point: in quotation marks where it has no letter or digit.

    >>> as_label("the"), as_label(",")
    ('the', '‘,’')
    """
    text = written(token)
    return text if any(char.isalnum() for char in text) else f"‘{text}’"


def label_points(ax: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write a label beside each point, where it covers no other label nor labelled point.

    The places are found for the Axes' present size.
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
            arrowprops=line if best >= 8 else None,
            zorder=6,
        )
