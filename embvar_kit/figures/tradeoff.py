"""The norm-variance trade-off: V against M over tokens, and its measures by layer."""

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
"""V/Q or M/Q below which a token has no place on logarithmic axes."""


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

    Points are coloured by the logarithm of the token's frequency; the title says slope and R².

    Args:
        stats: one model's statistics, or those of several, which share one range of colours.
        layer: a number, or ``"middle"``.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw the finite-sample corrected M and V.
        log: logarithmic axes, for models whose tokens differ by orders of magnitude; the line is
            the same, and bends there. Tokens with V or M of less than a millionth of Q have no
            place on them, and are counted in the plot.
        label: tokens to name in the plot (Fig. 8).
        ax: draw here; for one model only.

    Returns:
        The Axes of one model, the Figure of several.

    Raises:
        StatisticsError: if no line can be fitted to the tokens in the range, or a token of
            ``label`` is in no model's.
    """
    statistics = style.several(stats)
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    layers = [style.layer_of(one, layer) for one in statistics]
    tables = [style.chosen(one, at, **choice) for one, at in zip(statistics, layers, strict=True)]
    absent = set(label) - {token for table in tables for token in table["token"]}
    if absent:
        raise StatisticsError(
            f"{', '.join(map(repr, sorted(absent)))}: no such token among those drawn; look at "
            "stats.table(layer), and at min_count and max_count."
        )
    single = len(statistics) == 1
    size = (6.2, 4.6) if single else (3.4, 3.3)
    if label:
        size = (7.6, 5.6) if single else (5.2, 4.6)
    figure, axes = style.one_or_panels(len(statistics), ax, 2 if label else 3, *size)
    limits = style.count_range(tables)
    names = style.labels(statistics)
    for one, at, table, name, axis in zip(statistics, layers, tables, names, axes, strict=True):
        points, fit = scatter_V_on_M(axis, table, limits, size=9 if single else 5, log=log)
        of, tilde = style.letter(one), r"\tilde{%s}" if unbiased else "%s"
        axis.set_xlabel(f"${tilde % 'M'}(X_{of})$")
        axis.set_ylabel(f"${tilde % 'V'}(X_{of})$")
        what = f"{name}, layer {at}"
        # A narrow panel has room for so many letters.
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
    """The plot of :func:`V_on_M` for each layer of one model, on one range of colours.

    The arguments are those of :func:`V_on_M`; see also the paper's Figs. 2 and 11.
    """
    one = style.only(stats, "V_on_M_by_layer")
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    tables = [style.chosen(one, int(layer), **choice) for layer in one.layers]
    figure, axes = style.panels(len(tables), 4, 2.9, 2.9)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    limits, of = style.count_range(tables), style.letter(one)
    tilde = r"\tilde{%s}" if unbiased else "%s"
    for ax, layer, table in zip(axes, one.layers, tables, strict=True):
        points, fit = scatter_V_on_M(ax, table, limits, size=4, log=log)
        style.panel_title(ax, f"layer {layer}: {fit_text(fit)}", 9)
        ax.set(xlabel=f"${tilde % 'M'}(X_{of})$", ylabel=f"${tilde % 'V'}(X_{of})$")
    tall = figure.get_figheight() / 6  # the bar keeps its width
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
    """How constant Q is, and how V follows M, layer by layer (paper, Fig. 4).

    Three panels: the coefficient of variation of Q(X_t); the slope of V on M, with a dotted line
    at -1, the slope that a constant Q gives; R² of that regression. One line a model.

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
    """Points of a table from :meth:`TokenStatistics.table`, coloured by log10 n_t, and the line."""
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
            raise StatisticsError("All M or all V are 0: these have no logarithm. Pass log=False.")
        style.log_axes(ax, table["M"].to_numpy(), table["V"].to_numpy())
        ends = np.geomspace(table["M"].min(), table["M"].max(), 200)
    else:
        style.sink_note(ax, table["Q"].to_numpy(), short=size < 9)
        style.few_ticks(ax)
    table = table[::-1]  # the few frequent tokens on top of the many rare ones
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
    if log:  # below the points the line has no more to say, and would stretch the axis
        seen = line >= table["V"].min()
        ends, line = ends[seen], line[seen]
    ax.plot(ends, line, color="black", linewidth=1.5, zorder=style.line_order(fit.r2))
    return points, fit


def fit_text(fit: analysis.Tradeoff | analysis.Line) -> str:
    """Slope and R² of a line, for a title."""
    plain = fit.slope == 0 or 0.005 <= abs(fit.slope) < 1000
    slope = f"{fit.slope:.2f}" if plain else f"{fit.slope:.1e}"
    r2 = "undefined" if np.isnan(fit.r2) else f"{fit.r2:.2f}"
    return f"slope {slope}, $R^2$ {r2}"
