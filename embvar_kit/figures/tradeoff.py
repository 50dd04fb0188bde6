"""The norm-variance trade-off: V against M over tokens, and how well it holds in each layer."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import style
from embvar_kit.figures.style import FREQUENCY_MAP, Statistics, as_label, label_points
from embvar_kit.statistics import analysis

ZERO = 1e-6
"""Tokens with V/Q or M/Q below this are not drawn on logarithmic axes."""


def V_on_M(
    stats: Statistics,
    *,
    layer: int | str = "middle",
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
    log: bool = False,
    label: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes | Figure:
    """V against M for every token of a layer, with the regression line (paper, Figs. 2 and 8).

    Points are coloured by the logarithm of the token's frequency; the title gives slope and R².

    Args:
        stats: one model's statistics, or those of several, which share one range of colours.
        layer: the layer's number, or ``"middle"``.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw the finite-sample corrected M and V.
        log: draw logarithmic axes, for models whose tokens differ by orders of magnitude. The
            line is the same, but curved on them. Tokens whose V or M is less than a millionth of
            Q are not drawn; a note in the plot counts them.
        label: tokens to name in the plot (Fig. 8).
        ax: the Axes to draw on, for one model only; by default new ones.

    Returns:
        The Axes for one model, the Figure for several.

    Raises:
        StatisticsError: if no line can be fitted to the tokens in the range, or no model has a
            token of ``label``.
    """
    statistics = style.several(stats)
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    layers = [style.layer_of(one, layer) for one in statistics]
    tables = [style.chosen(one, at, **choice) for one, at in zip(statistics, layers, strict=True)]
    absent = set(label) - {token for table in tables for token in table["token"]}
    if absent:
        raise StatisticsError(
            f"{', '.join(map(repr, sorted(absent)))}: no such token among those drawn. Check "
            "stats.table(layer), min_count and max_count."
        )
    single = len(statistics) == 1
    size = (6.2, 4.6) if single else (3.4, 3.3)
    if label:
        size = (7.6, 5.6) if single else (5.2, 4.6)
    figure, axes = style.one_or_panels(len(statistics), ax, 2 if label else 3, *size)
    limits = style.count_range(*(table["n"] for table in tables))
    names = style.labels(statistics)
    for one, at, table, name, axis in zip(statistics, layers, tables, names, axes, strict=True):
        points, fit = scatter_V_on_M(axis, table, limits, size=9 if single else 5, log=log)
        of = style.letter(one)
        axis.set_xlabel(style.symbol("M", of, unbiased=unbiased))
        axis.set_ylabel(style.symbol("V", of, unbiased=unbiased))
        what = f"{name}, layer {at}"
        # A narrow panel has room for 40 letters.
        title = f"{what if single else fill(what, 40)}{': ' if single else chr(10)}{fit_text(fit)}"
        style.panel_title(axis, title, None if single else 10)
    of = style.letter(statistics[0])
    figure.colorbar(points, ax=axes if not single else axes[0], label=rf"$\log_{{10}} n_{of}$")
    for table, axis in zip(tables, axes, strict=True):
        named = table[table["token"].isin(list(label))]
        if len(named):
            axis.scatter(
                named["M"], named["V"], s=26, facecolors="none", edgecolors="black", zorder=5
            )
            texts = [as_label(token) for token in named["token"]]
            label_points(axis, named["M"].to_numpy(), named["V"].to_numpy(), texts)
    return axes[0] if single else figure


def V_on_M_by_layer(
    stats: Statistics,
    *,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
    log: bool = False,
) -> Figure:
    """The plot of :func:`V_on_M` for each layer of one model, with one range of colours.

    The arguments are those of :func:`V_on_M`; see also the paper's Figs. 2 and 11.
    """
    one = style.only(stats, "V_on_M_by_layer")
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    tables = [style.chosen(one, int(layer), **choice) for layer in one.layers]
    figure, axes = style.panels(len(tables), 4, 2.9, 2.9)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    limits, of = style.count_range(*(table["n"] for table in tables)), style.letter(one)
    M, V = (style.symbol(name, of, unbiased=unbiased) for name in "MV")
    for ax, layer, table in zip(axes, one.layers, tables, strict=True):
        points, fit = scatter_V_on_M(ax, table, limits, size=4, log=log)
        style.panel_title(ax, f"layer {layer}: {fit_text(fit)}", 9)
        ax.set(xlabel=M, ylabel=V)
    tall = figure.get_figheight() / 6  # keeps the colour bar as narrow in a tall figure
    label = rf"$\log_{{10}} n_{of}$"
    figure.colorbar(points, ax=axes, label=label, shrink=0.8, aspect=20 * max(1.0, tall))
    return figure


def tradeoff_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
) -> Figure:
    """How constant Q is, and how closely V follows M, layer by layer (paper, Fig. 4).

    The three panels show the coefficient of variation of Q(X_t); the slope of V on M, with a
    dotted line at -1, which a constant Q gives; and R² of that regression. Each model has a line.

    Args:
        stats: one model's statistics or those of several.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count, max_count, unbiased: as in :func:`V_on_M`.
    """
    statistics = style.several(stats)
    x, name = style.depths(statistics, depth)
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    found = [one.tradeoff(**choice) for one in statistics]
    figure, axes = style.panels(3, 3, 3.5, 3.3)
    titles = (
        ("cv_Q", "coefficient of variation of $Q(X_t)$"),
        ("slope", "slope of $V(X_t)$ on $M(X_t)$"),
        ("r2", "$R^2$ of $V(X_t)$ on $M(X_t)$"),
    )
    for ax, (column, title) in zip(axes, titles, strict=True):
        style.lines(ax, statistics, x, [table[column] for table in found])
        ax.set_title(title, fontsize=10)
        style.depth_axis(ax, name)
    axes[0].set_ylim(bottom=0)
    axes[1].axhline(-1, color="black", linestyle=":", linewidth=1)
    axes[2].set_ylim(-0.02, 1.02)
    style.name_models(figure, axes[0], statistics)
    return figure


def scatter_V_on_M(
    ax: Axes,
    table: pd.DataFrame,
    limits: tuple[float, float],
    size: float,
    *,
    log: bool = False,
) -> tuple[PathCollection, analysis.Tradeoff]:
    """Draw the tokens of a table coloured by log10 n_t, with the regression line of V on M.

    Args:
        ax: the Axes to draw on.
        table: the tokens, from :meth:`TokenStatistics.table`.
        limits: the range of log10 n_t that the colours span.
        size: size of the points.
        log: draw logarithmic axes, as in :func:`V_on_M`.

    Returns:
        The points, for a colour bar, and the trade-off's measures over all tokens of the table.

    Raises:
        StatisticsError: if no line can be fitted, or no token can be drawn on logarithmic axes.
    """
    fit = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
    ends = np.array([table["M"].min(), table["M"].max()])
    if log:
        placed = (table[["M", "V"]] > ZERO * table[["Q"]].to_numpy()).all(axis=1)
        if lost := int((~placed).sum()):
            text = f"{lost} not shown:\n$M$ or $V$ < $10^{{-6}}\\,Q$"
            halo = [withStroke(linewidth=2.5, foreground="white")]
            where = {"transform": ax.transAxes, "zorder": 5, "path_effects": halo}
            ax.text(0.03, 0.03, text, fontsize=8, style="italic", **where)
        table = table[placed]
        if table.empty:
            raise StatisticsError(
                "M or V of every token is 0, which has no logarithm: pass log=False."
            )
        style.log_axes(ax, table["M"].to_numpy(), table["V"].to_numpy())
        ends = np.geomspace(table["M"].min(), table["M"].max(), 200)
    else:
        style.high_norm_note(ax, table["Q"].to_numpy(), short=size < 9)
        style.few_ticks(ax)
    table = table[::-1]  # draws the few frequent tokens over the many rare ones
    points = ax.scatter(
        table["M"],
        table["V"],
        s=size,
        c=np.log10(table["n"].to_numpy()),
        cmap=FREQUENCY_MAP,
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
        rasterized=len(table) > style.MANY,
    )
    line = fit.intercept + fit.slope * ends
    if log:  # below the points, the line would only stretch the axis
        seen = line >= table["V"].min()
        ends, line = ends[seen], line[seen]
    ax.plot(ends, line, color="black", linewidth=1.5, zorder=style.line_order(fit.r2))
    return points, fit


def fit_text(fit: analysis.Tradeoff | analysis.Line) -> str:
    """Slope and R² of a line, as text for a title."""
    plain = fit.slope == 0 or 0.005 <= abs(fit.slope) < 1000
    slope = f"{fit.slope:.2f}" if plain else f"{fit.slope:.1e}"
    r2 = "undefined" if np.isnan(fit.r2) else f"{fit.r2:.2f}"
    return f"slope {slope}, $R^2$ {r2}"
