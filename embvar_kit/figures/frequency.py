"""Q, M and V against the frequency of tokens, and the distributions of all four."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import style
from embvar_kit.figures.style import COLOURS, Statistics, written
from embvar_kit.figures.tradeoff import fit_text, scatter_V_on_M
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics


def moments_on_frequency(
    stats: Statistics,
    *,
    layer: int | str = "middle",
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
) -> Figure:
    """Q, M and V against log10 n_t, with regression lines (paper, Fig. 7).

    Each model has a row of panels, whose titles give slope and R².

    Args:
        stats: one model's statistics or those of several.
        layer: the layer's number, or ``"middle"``.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw the finite-sample corrected M and V; uncorrected, those of rare tokens are
            biased.
    """
    statistics = style.several(stats)
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    figure, axes = style.panels(3 * len(statistics), 3, 3.5, 3.2)
    rows = zip(*[iter(axes)] * 3, strict=True)
    names = style.labels(statistics)
    for one, name, row in zip(statistics, names, rows, strict=True):
        at = style.layer_of(one, layer)
        table = style.chosen(one, at, **choice)
        of = style.letter(one)
        for ax, moment in zip(row, "QMV", strict=True):
            _on_frequency(ax, table, table[moment].to_numpy(), COLOURS[moment], of)
            ax.set_ylabel(style.symbol(moment, of, unbiased=unbiased))
        style.high_norm_note(row[0], table["Q"].to_numpy())
        style.panel_title(row[0], f"{name}, layer {at}\n{row[0].get_title()}")
    return figure


def statistics_grid(
    stats: TokenStatistics,
    *,
    layers: Sequence[int] | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
) -> Figure:
    """Five layers of one model: log10(1+Q), log10(1+M), log10(1+V) against log10 n_t, and V on M.

    These are the paper's Figs. 11-13. Each layer has a row of panels, whose titles give slope and
    R².

    Args:
        stats: one model's statistics.
        layers: the layers to draw; by default the first, the last and the quarters between.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
    """
    one = style.only(stats, "statistics_grid")
    chosen = style.five_layers(one) if layers is None else list(layers)
    tables = [
        style.chosen(one, layer, min_count=min_count, max_count=max_count) for layer in chosen
    ]
    figure, axes = style.panels(4 * len(chosen), 4, 2.7, 2.4)
    limits, of = style.count_range(*(table["n"] for table in tables)), style.letter(one)
    rows = list(zip(*[iter(axes)] * 4, strict=True))
    for layer, table, row in zip(chosen, tables, rows, strict=True):
        for ax, moment in zip(row, "QMV", strict=False):
            value = np.log10(1 + table[moment].to_numpy())
            _on_frequency(ax, table, value, COLOURS[moment], of)
            ax.set_ylabel(rf"$\log_{{10}}(1 + {moment}(X_{of}))$")
            ax.title.set_fontsize(9)
        points, fit = scatter_V_on_M(row[3], table, limits, size=4)
        style.panel_title(row[3], fit_text(fit), 9)
        row[3].set(xlabel=f"$M(X_{of})$", ylabel=f"$V(X_{of})$")
        row[0].set_ylabel(f"layer {layer}\n{row[0].get_ylabel()}")
    figure.colorbar(
        points,
        ax=[row[3] for row in rows],
        label=rf"$\log_{{10}} n_{of}$",
        location="right",
        aspect=50,
    )
    figure.suptitle(style.labels([one])[0])
    return figure


def _on_frequency(
    ax: Axes, table: pd.DataFrame, y: np.ndarray, colour: str, of: str
) -> analysis.Line:
    """Draw points and regression line of y on log10 n_t, titled with slope and R²."""
    x = np.log10(table["n"].to_numpy())
    fit = analysis.regress(x, y, names=("n_t", "Q, M or V"))
    many = len(table) > style.MANY
    points = {"s": 7, "alpha": 0.45, "linewidths": 0, "rasterized": many}
    line = {"color": "black", "linewidth": 1.5}
    sns.regplot(x=x, y=y, ax=ax, ci=None, color=colour, scatter_kws=points, line_kws=line)
    ax.set_xlabel(rf"$\log_{{10}} n_{of}$")
    style.panel_title(ax, fit_text(fit))
    style.few_ticks(ax)
    return fit


def moment_histograms(
    stats: TokenStatistics,
    *,
    layers: Sequence[int] | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
    trim: float = 0.01,
) -> Figure:
    """Five layers of one model: histograms of Q, M and V over tokens (paper, Figs. 14-16).

    Each layer has a row of panels. The largest values are trimmed, as in the paper; a panel's
    title says how many they are and how far they reach.

    Args:
        stats: one model's statistics.
        layers: the layers to draw; by default the first, the last and the quarters between.
        min_count, max_count: count the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw the finite-sample corrected M and V.
        trim: the share of tokens, those with the largest values, to leave out of each panel.
    """
    one = style.only(stats, "moment_histograms")
    if not 0 <= trim < 1:
        raise StatisticsError(f"trim={trim} must be a share, at least 0 and less than 1.")
    chosen = style.five_layers(one) if layers is None else list(layers)
    figure, axes = style.panels(3 * len(chosen), 3, 3.3, 2.0)
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    of = style.letter(one)
    for layer, row in zip(chosen, zip(*[iter(axes)] * 3, strict=True), strict=True):
        table = style.chosen(one, layer, **choice)
        for ax, moment in zip(row, "QMV", strict=True):
            value = table[moment].to_numpy()
            kept = value[value <= np.quantile(value, 1 - trim)]
            sns.histplot(x=kept, bins=40, ax=ax, color=COLOURS[moment], linewidth=0, alpha=1)
            name = style.symbol(moment, of, unbiased=unbiased)
            ax.set(xlabel=name, ylabel="tokens" if of == "t" else "words")
            style.few_ticks(ax)
            if number := len(value) - len(kept):
                style.panel_title(ax, f"trimmed: {number}, up to {value.max():,.4g}", 9)
        row[0].set_ylabel(f"layer {layer}\n{row[0].get_ylabel()}")
    figure.suptitle(f"{style.labels([one])[0]}, the top {100 * trim:g} % trimmed", fontsize=11)
    return figure


def frequency_slopes(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
) -> Figure:
    """Slopes of log10(1+Q), log10(1+M), log10(1+V) on log10 n_t by layer (paper, Fig. 17).

    Below 0, frequent tokens have smaller values than rare ones. Each model has a line.

    Args:
        stats: one model's statistics or those of several.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count, max_count: use the tokens with ``min_count <= n_t <= max_count``.
    """
    statistics = style.several(stats)
    x, axis = style.depths(statistics, depth)
    figure, axes = style.panels(3, 3, 3.5, 3.3)
    for ax, moment in zip(axes, "QMV", strict=True):
        slopes = [
            [_slope(one, int(layer), moment, min_count, max_count) for layer in one.layers]
            for one in statistics
        ]
        style.lines(ax, statistics, x, slopes, COLOURS[moment])
        of = style.letter(statistics[0])
        title = rf"$\log_{{10}}(1 + {moment}(X_{of}))$ on $\log_{{10}} n_{of}$"
        ax.set_title(f"slope of {title}", fontsize=10)
        ax.axhline(0, color="black", linestyle=":", linewidth=1)
        style.depth_axis(ax, axis)
    style.name_models(figure, axes[0], statistics)
    return figure


def _slope(
    one: TokenStatistics, layer: int, moment: str, min_count: int, max_count: int | None
) -> float:
    table = style.chosen(one, layer, min_count=min_count, max_count=max_count)
    y = np.log10(1 + table[moment].to_numpy())
    return analysis.regress(np.log10(table["n"].to_numpy()), y, names=("n_t", moment)).slope


def token_frequencies(
    stats: Statistics, *, min_count: int | None = None, ax: Axes | None = None
) -> Axes:
    """How often tokens occur: a histogram of log10 n_t (paper, Fig. 10).

    Dotted lines mark the paper's range, ``1 <= log10 n_t <= 5``.

    Args:
        stats: one model's statistics or those of several.
        min_count: count only the tokens that occur at least this often; by default all.
        ax: the Axes to draw on; by default new ones.
    """
    statistics = style.several(stats)
    ax = style.new_axes(ax)
    counts = []
    for one in statistics:
        kept = one.n if min_count is None else one.n[one.n >= min_count]
        if not len(kept):
            raise StatisticsError(f"No token occurs {min_count} times or more: lower min_count.")
        counts.append(np.log10(kept))
    step = 0.2
    edges = np.arange(0, max(x.max() for x in counts) + step + 1e-9, step)
    single = len(statistics) == 1
    of, styles = style.letter(statistics[0]), style.looks(len(statistics), COLOURS["Q"])
    names = style.labels(statistics)
    for at, one in enumerate(statistics):
        least = max(min_count or 1, one.info.get("compact", {}).get("min_count", 1))
        if least > 1:  # rarer tokens are missing
            names[at] += f", $n_{of}$ ≥ {least}"
    for x, name, look in zip(counts, names, styles, strict=True):
        sns.histplot(
            x=x,
            bins=edges,
            element="bars" if single else "step",
            fill=single,
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=0.5 if single else 1.8,
            label=name,
            ax=ax,
        )
    for bound in (1, 5):
        if bound <= edges[-1]:
            ax.axvline(bound, color="black", linestyle=":", linewidth=1)
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)  # so that a bar of height 1 can be seen
    ax.set(xlabel=rf"$\log_{{10}} n_{of}$", ylabel="tokens" if of == "t" else "words")
    ax.set_title(names[0]) if single else ax.legend()
    return ax


def sentence_lengths(stats: Statistics, *, ax: Axes | None = None) -> Axes:
    """How many words, separated by white space, the sentences have (paper, Fig. 9).

    Each corpus has a histogram: models that ran on the same sentences share one.

    Args:
        stats: one model's statistics or those of several.
        ax: the Axes to draw on; by default new ones.

    Raises:
        StatisticsError: if the statistics do not hold the sentences' lengths.
    """
    statistics = style.several(stats)
    found: dict[tuple[int, ...], str] = {}
    for one in statistics:
        if "sentences_by_words" not in one.info:
            raise StatisticsError(
                f"These statistics of {one.info['model']['name']!r} do not hold the lengths of the "
                "sentences, which Q, M and V do not tell: extract from the corpus again."
            )
        found[tuple(one.info["sentences_by_words"])] = written(one.info["corpora"][0]["name"])
    ax = style.new_axes(ax)
    styles = style.looks(len(found), COLOURS["Q"])
    for (lengths, corpus), look in zip(found.items(), styles, strict=True):
        title = f"{corpus}: {sum(lengths):,} sentences"
        sns.histplot(
            x=np.arange(len(lengths)),
            weights=np.array(lengths),
            discrete=True,
            element="bars" if len(found) == 1 else "step",
            fill=len(found) == 1,
            linewidth=0 if len(found) == 1 else 1.6,
            color=look["color"],
            linestyle=look["linestyle"],
            alpha=1,
            label=title,
            ax=ax,
        )
    ax.set(xlabel="words in the sentence", ylabel="sentences")
    if len(found) == 1:
        ax.set_title(title)
    else:
        ax.legend()
    return ax
