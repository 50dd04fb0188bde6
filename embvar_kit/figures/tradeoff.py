"""The norm-variance trade-off: V against M over tokens, and how well it holds in each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import given, lettering, style
from embvar_kit.figures.given import Drawn, Statistics
from embvar_kit.figures.lettering import as_label, label_points, with_minus
from embvar_kit.figures.style import FREQUENCY_MAP
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

ZERO = 1e-6
"""Tokens with V/Q or M/Q below this are not drawn on logarithmic axes."""

NULL_COLOUR, NULL_LINE = "#bdbdbd", "#737373"
"""The colours of the points and of the line that permuted labels give."""


def V_on_M(
    stats: Statistics,
    *,
    layer: int | str = "middle",
    min_count: int = 10,
    max_count: int | None = 100_000,
    drawn: Drawn = None,
    special: bool = True,
    unbiased: bool = False,
    null: Statistics | bool | None = None,
    log: bool = False,
    label: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes | Figure:
    """V against M for every token of a layer, with the regression line (paper, Figs. 2 and 8).

    Points are coloured by the logarithm of the token's frequency; the title gives slope and R².

    Args:
        stats: one model's statistics, or those of several, which share one range of colours.
        layer: the layer's number, or ``"middle"``.
        min_count, max_count: fit the line to the tokens with ``min_count <= n_t <= max_count``.
        drawn: the tokens to draw, by default these; ``"all"`` as in the paper, or a pair
            ``(least, most)``. The line is dotted where it is not fitted.
        special: also take special tokens.
        unbiased: draw the finite-sample corrected M and V.
        null: ``True``, or the statistics with the labels of the occurrences permuted, one for each
            of ``stats``. They are drawn in grey behind the tokens, with a line of their own, and
            show what slope and spread of M chance gives.
        log: draw logarithmic axes, for models whose tokens differ by orders of magnitude. The
            line is the same, but curved on them. Tokens whose V or M is less than a millionth of
            Q are not drawn; a note in the plot counts them.
        label: tokens to name in the plot (Fig. 8).
        ax: the Axes to draw on, for one model only; by default new ones.

    Returns:
        The Axes for one model, the Figure for several.

    Raises:
        StatisticsError: if no line can be fitted to the tokens in the range, no model has a token
            of ``label``, or ``null`` is of another model.
    """
    statistics = given.several(stats)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"drawn": drawn, "unbiased": unbiased}
    layers = [given.layer_of(one, layer) for one in statistics]
    found = [given.scatter(one, at, **choice) for one, at in zip(statistics, layers, strict=True)]
    chance = [
        None if other is None else given.scatter(other, at, **choice)
        for other, at in zip(_nulls(null, statistics), layers, strict=True)
    ]
    absent = set(label) - {token for tokens in found for token in tokens.drawn["token"]}
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
    limits = style.count_range(*(tokens.drawn["n"] for tokens in found))
    names = lettering.labels(statistics)
    rows = zip(statistics, layers, found, chance, names, axes, strict=True)
    for one, at, tokens, other, name, axis in rows:
        points, fit = scatter_V_on_M(
            axis, tokens, limits, size=9 if single else 5, log=log, null=other
        )
        of = lettering.letter(one)
        axis.set_xlabel(lettering.symbol("M", of, unbiased=unbiased))
        axis.set_ylabel(lettering.symbol("V", of, unbiased=unbiased))
        what = f"{name}, layer {at}"
        # A narrow panel has room for 40 letters.
        title = f"{what if single else fill(what, 40)}{': ' if single else chr(10)}{fit_text(fit)}"
        style.panel_title(axis, title, None if single else 10)
    of = lettering.letter(statistics[0])
    figure.colorbar(points, ax=axes if not single else axes[0], label=rf"$\log_{{10}} n_{of}$")
    for tokens, axis in zip(found, axes, strict=True):
        named = tokens.drawn[tokens.drawn["token"].isin(list(label))]
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
    drawn: Drawn = None,
    special: bool = True,
    unbiased: bool = False,
    null: TokenStatistics | bool | None = None,
    log: bool = False,
) -> Figure:
    """The plot of :func:`V_on_M` for each layer of one model, with one range of colours.

    The arguments are those of :func:`V_on_M`; see also the paper's Figs. 2 and 11.
    """
    one = given.only(stats, "V_on_M_by_layer")
    (other,) = _nulls(null, [one])
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"drawn": drawn, "unbiased": unbiased}
    found = [given.scatter(one, int(layer), **choice) for layer in one.layers]
    figure, axes = style.panels(len(found), 4, 2.9, 2.9)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    limits = style.count_range(*(tokens.drawn["n"] for tokens in found))
    of = lettering.letter(one)
    M, V = (lettering.symbol(name, of, unbiased=unbiased) for name in "MV")
    found[1:] = [tokens._replace(note="") for tokens in found[1:]]  # the same for all layers
    for ax, layer, tokens in zip(axes, one.layers, found, strict=True):
        chance = None if other is None else given.scatter(other, int(layer), **choice)
        points, fit = scatter_V_on_M(ax, tokens, limits, size=4, log=log, null=chance)
        style.panel_title(ax, f"layer {layer}: {fit_text(fit)}", 9)
        ax.set(xlabel=M, ylabel=V)
    tall = figure.get_figheight() / 6  # keeps the colour bar as narrow in a tall figure
    label = rf"$\log_{{10}} n_{of}$"
    figure.colorbar(points, ax=axes, label=label, shrink=0.8, aspect=20 * max(1.0, tall))
    return figure


def _nulls(
    null: Statistics | bool | None, statistics: Sequence[TokenStatistics]
) -> list[TokenStatistics | None]:
    """The permuted statistics of each model, or ``None`` for each if none are asked for.

    Raises:
        StatisticsError: if they are not the nulls of these statistics.
    """
    if null is None or null is False:
        return [None] * len(statistics)
    nulls = [one.null for one in statistics] if null is True else given.several(null)
    if None in nulls:
        raise StatisticsError("These statistics have no null: extract with null=True.")
    told = [[_measured(one) for one in group] for group in (statistics, nulls)]
    if told[0] != told[1] or not all(one.info.get("permuted") for one in nulls):
        raise StatisticsError(
            "null= takes the null of each, in the same order: stats.null, or True."
        )
    return nulls


def _measured(one: TokenStatistics) -> tuple[str, str | None]:
    return one.info["model"]["name"], one.info.get("convention", {}).get("site")


def tradeoff_by_layer(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
) -> Figure:
    """How constant Q is, and how closely V follows M, layer by layer (paper, Fig. 4).

    The three panels show the coefficient of variation of Q(X_t); the slope of V on M, with a
    dotted line at -1, which a constant Q gives; and R² of that regression. Each model has a line.

    Args:
        stats: one model's statistics or those of several.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count, max_count, special, unbiased: as in :func:`V_on_M`.
    """
    statistics = given.several(stats)
    x, name = given.depths(statistics, depth)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
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
    style.hide_rounding(axes[1], "y", np.concatenate([[-1], *(table["slope"] for table in found)]))
    axes[2].set_ylim(-0.02, 1.02)
    style.name_models(figure, axes[0], statistics)
    return figure


def scatter_V_on_M(
    ax: Axes,
    tokens: pd.DataFrame | given.Scatter,
    limits: tuple[float, float],
    size: float,
    *,
    log: bool = False,
    null: given.Scatter | None = None,
    look: Mapping[str, Any] | None = None,
) -> tuple[PathCollection, analysis.Tradeoff]:
    """Draw tokens coloured by log10 n_t, with the regression line of V on M.

    Args:
        ax: the Axes to draw on.
        tokens: the tokens, from :func:`given.scatter`; or a table from
            :meth:`TokenStatistics.table`, to fit the line to all that are drawn.
        limits: the range of log10 n_t that the colours span.
        size: size of the points.
        log, null: as in :func:`V_on_M`.
        look: ``cmap`` and ``norm``, to colour the points by the column ``colour`` of a table.

    Returns:
        The points, for a colour bar, and the trade-off's measures over the tokens fitted.

    Raises:
        StatisticsError: if no line can be fitted, or no token can be drawn on logarithmic axes.
    """
    if isinstance(tokens, pd.DataFrame):
        tokens = given.Scatter(tokens, tokens)
    fit, table, note = _tradeoff(tokens.fitted), tokens.drawn, tokens.note
    behind = None if null is None else null.drawn
    if log:
        placed = _has_logarithm(table)
        if lost := int((~placed).sum()):
            note += f"\n{lost:,} not shown:\n$M$ or $V$ < $10^{{-6}}\\,Q$"
        table = table[placed]
        if table.empty:
            raise StatisticsError(
                "M or V of every token is 0, which has no logarithm: pass log=False."
            )
        seen = [table] if behind is None else [table, behind := behind[_has_logarithm(behind)]]
        together = pd.concat(seen)
        style.log_axes(ax, together["M"].to_numpy(), together["V"].to_numpy())
        lowest = together["V"].min()
    else:
        lowest = -np.inf
        style.high_norm_note(ax, tokens.fitted["Q"].to_numpy(), short=size < 9)
        seen = [table] if behind is None else [table, behind]
        style.hide_rounding(ax, "y", pd.concat(seen)["V"].to_numpy(), style.size_of_Q(table))
        style.few_ticks(ax)
    style.corner_note(ax, note.strip(), size=8 if size >= 9 else 7)
    table = table[::-1]  # draws the few frequent tokens over the many rare ones
    if look:
        colours = {"c": table["colour"], "plotnonfinite": True, **look}
    else:
        colours = {"c": np.log10(table["n"].to_numpy()), "cmap": FREQUENCY_MAP}
        colours |= {"vmin": limits[0], "vmax": limits[1]}
    points = ax.scatter(
        table["M"],
        table["V"],
        s=size,
        linewidths=0,
        rasterized=len(table) > style.MANY,
        **colours,
    )
    if null is not None:
        ax.scatter(
            behind["M"],
            behind["V"],
            s=size,
            color=NULL_COLOUR,
            linewidths=0,
            zorder=0.5,
            rasterized=len(behind) > style.MANY,
        )
        line = _tradeoff(null.fitted)
        look = {"color": NULL_LINE, "linestyle": "--", "zorder": 1.9}
        look |= {"label": f"labels permuted: {fit_text(line)}"}
        spans = (_span(null.fitted, log), _span(behind, log))
        style.fit_line(ax, line, *spans, lowest=lowest, look=look)
    look = {} if null is None else {"label": "labels as they are"}
    spans = (_span(tokens.fitted, log), _span(table, log))
    style.fit_line(ax, fit, *spans, lowest=lowest, look=look)
    if null is not None:
        where = "center left" if log else "upper right"  # away from a falling line
        ax.legend(loc=where, fontsize=8 if size >= 9 else 6.5, framealpha=0.85)
    return points, fit


def _tradeoff(table: pd.DataFrame) -> analysis.Tradeoff:
    return analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))


def _has_logarithm(table: pd.DataFrame) -> pd.Series:
    """Whether M and V of each token are large enough for logarithmic axes."""
    return (table[["M", "V"]] > ZERO * table[["Q"]].to_numpy()).all(axis=1)


def _span(table: pd.DataFrame, log: bool) -> np.ndarray:
    """M of the tokens that can be drawn."""
    return table.loc[_has_logarithm(table) if log else slice(None), "M"].to_numpy()


def fit_text(fit: analysis.Tradeoff | analysis.Line) -> str:
    """Slope and R² of a line, as text for a title."""
    plain = fit.slope == 0 or 0.005 <= abs(fit.slope) < 1000
    slope = f"{fit.slope:.2f}" if plain else f"{fit.slope:.1e}"
    r2 = "undefined" if np.isnan(fit.r2) else f"{fit.r2:.2f}"
    return f"slope {with_minus(slope)}, $R^2$ {r2}"
