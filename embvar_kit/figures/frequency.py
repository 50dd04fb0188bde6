"""Q, M and V against the frequency of tokens, and the distributions of all four."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import given, lettering, style
from embvar_kit.figures.given import Drawn, Statistics
from embvar_kit.figures.lettering import written
from embvar_kit.figures.style import COLOURS
from embvar_kit.figures.tradeoff import fit_text, scatter_V_on_M
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import number_of

_COUNTS = {
    "n": r"$\log_{{10}} n_{of}$",
    "documents": r"$\log_{{10}}$ documents of ${of}$",
    "effective_documents": r"$\log_{{10}}$ effective documents of ${of}$",
}
"""What Q, M and V can be drawn against, an attribute of statistics, and its label."""


def moments_on_frequency(
    stats: Statistics,
    *,
    x: str = "n",
    layer: int | str = "middle",
    min_count: int = 10,
    max_count: int | None = 100_000,
    drawn: Drawn = None,
    special: bool = True,
    unbiased: bool = False,
) -> Figure:
    """Q, M and V against log10 n_t, with regression lines (paper, Fig. 7).

    Each model has a row of panels, whose titles give slope and R².

    Args:
        stats: one model's statistics or those of several.
        x: ``"n"``; ``"documents"``, the number of documents that a token stands in; or
            ``"effective_documents"``, which counts those with few of its occurrences for less (see
            :attr:`TokenStatistics.effective_documents`). Frequency and dispersion go together:
            :meth:`TokenStatistics.dispersion` tells them apart.
        layer: the layer's number, or ``"middle"``.
        min_count, max_count: fit the lines to the tokens with ``min_count <= n_t <= max_count``.
        drawn: the tokens to draw, by default these; ``"all"`` as in the paper, or a pair
            ``(least, most)``. Lines are dotted where they are not fitted.
        special: also take special tokens.
        unbiased: draw the finite-sample corrected M and V; uncorrected, those of rare tokens are
            biased.

    Raises:
        StatisticsError: if ``x`` is another name, or the statistics do not know the documents.
    """
    if x not in _COUNTS:
        raise StatisticsError(f"x={x!r} is unknown; choose {', '.join(map(repr, _COUNTS))}.")
    statistics = given.several(stats)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"drawn": drawn, "unbiased": unbiased}
    counts = [pd.Series(getattr(one, x), index=one.tokens) for one in statistics]
    figure, axes = style.panels(3 * len(statistics), 3, 3.5, 3.2)
    rows = zip(*[iter(axes)] * 3, strict=True)
    names = lettering.labels(statistics)
    for one, count, name, row in zip(statistics, counts, names, rows, strict=True):
        at = given.layer_of(one, layer)
        tokens = given.scatter(one, at, **choice)
        of = lettering.letter(one)
        for ax, moment in zip(row, "QMV", strict=True):
            moments = partial(_moment, moment=moment)
            _on_frequency(ax, tokens, moments, COLOURS[moment], of, count)
            ax.set_xlabel(_COUNTS[x].format(of=of))
            ax.set_ylabel(lettering.symbol(moment, of, unbiased=unbiased))
        style.high_norm_note(row[0], tokens.fitted["Q"].to_numpy())
        style.corner_note(row[0], tokens.note)
        style.panel_title(row[0], f"{name}, layer {at}\n{row[0].get_title()}")
    return figure


def statistics_grid(
    stats: TokenStatistics,
    *,
    layers: Sequence[int] | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    drawn: Drawn = None,
    special: bool = True,
    offset: float = 1.0,
) -> Figure:
    """Five layers of one model: log10(1+Q), log10(1+M), log10(1+V) against log10 n_t, and V on M.

    These are the paper's Figs. 11-13. Each layer has a row of panels, whose titles give slope and
    R².

    Args:
        stats: one model's statistics.
        layers: the layers to draw; by default the first, the last and the quarters between.
        min_count, max_count, drawn, special: as in :func:`moments_on_frequency`.
        offset: what is added before the logarithm is taken, as in :func:`frequency_slopes`.
    """
    one = given.only(stats, "statistics_grid")
    chosen = given.five_layers(one) if layers is None else list(layers)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    found = [given.scatter(one, layer, drawn, **choice) for layer in chosen]
    figure, axes = style.panels(4 * len(chosen), 4, 2.4, 1.95)
    limits = style.count_range(*(tokens.drawn["n"] for tokens in found))
    of = lettering.letter(one)
    rows = list(zip(*[iter(axes)] * 4, strict=True))
    for layer, tokens, row in zip(chosen, found, rows, strict=True):
        for ax, moment in zip(row, "QMV", strict=False):
            logarithm = partial(_logarithm, moment=moment, offset=offset)
            _on_frequency(ax, tokens, logarithm, COLOURS[moment], of)
            ax.set_ylabel(_log_symbol(moment, of, offset))
            ax.title.set_fontsize(9)
        points, fit = scatter_V_on_M(row[3], tokens._replace(note=""), limits, size=4)
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
    note = found[0].note.replace("\n", ", ")
    figure.suptitle(lettering.labels([one])[0] + (f" ({note})" if note else ""), fontsize=11)
    return figure


def _on_frequency(
    ax: Axes,
    tokens: given.Scatter,
    value: Callable[[pd.DataFrame], _Values],
    colour: str,
    of: str,
    count: pd.Series | None = None,
) -> None:
    """Draw points and regression line of values on log10 n_t, titled with slope and R².

    Another count of the tokens, by token, may stand in place of n_t.
    """

    def logs(table: pd.DataFrame) -> np.ndarray:
        return np.log10(table["n"] if count is None else count[table["token"]]).to_numpy()

    x, at = logs(tokens.drawn), logs(tokens.fitted)
    y, fitted = value(tokens.drawn), value(tokens.fitted)
    names = ("the count", "Q, M or V")
    fit = analysis.regress(at, fitted.values, scale_y=fitted.scale, names=names)
    points = {"s": 7, "alpha": 0.45, "linewidths": 0, "rasterized": len(x) > style.MANY}
    ax.scatter(x, y.values, color=colour, **points)
    style.fit_line(ax, fit, at, x, look={"zorder": 2.0})
    ax.set_xlabel(rf"$\log_{{10}} n_{of}$")
    style.panel_title(ax, fit_text(fit))
    style.hide_rounding(ax, "y", *y)
    style.few_ticks(ax)


class _Values(NamedTuple):
    """One value for each of the tokens, and what its rounding is proportional to."""

    values: np.ndarray
    scale: float
    size: float | None = None  # of the axis around a constant, if it is not the scale


def _moment(table: pd.DataFrame, moment: str) -> _Values:
    """Q, M or V of the tokens of a table."""
    return _Values(table[moment].to_numpy(), style.size_of_Q(table))


def _logarithm(table: pd.DataFrame, moment: str, offset: float) -> _Values:
    """``log10(offset + x)`` of Q, M or V of the tokens of a table.

    Raises:
        StatisticsError: if a value has no logarithm.
    """
    shifted = table[moment] + offset
    without = table["token"][~(shifted > 0)]
    if len(without):
        raise StatisticsError(
            f"{moment} + {offset:g} of {len(without):,} tokens ({without.iloc[0]!r} first) has no "
            "logarithm: leave them out (special=False, stats.without, a larger min_count), or pass "
            "offset=1 as in the paper."
        )
    # The logarithm's derivative carries the rounding over.
    scale = style.size_of_Q(table) / float(shifted.median()) / np.log(10)
    return _Values(np.log10(shifted).to_numpy(), scale, size=1.0)


def _log_symbol(moment: str, of: str, offset: float) -> str:
    inside = f"{moment}(X_{of})" if not offset else f"{offset:g} + {moment}(X_{of})"
    return rf"$\log_{{10}}({inside})$" if offset else rf"$\log_{{10}} {inside}$"


def _histogram(**options: Any) -> None:
    """Seaborn's histogram."""
    import seaborn as sns  # takes half a second to import

    sns.histplot(**options)


def moment_histograms(
    stats: TokenStatistics,
    *,
    layers: Sequence[int] | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    unbiased: bool = False,
    trim: float = 0.01,
    bins: int = 50,
) -> Figure:
    """Five layers of one model: histograms of Q, M and V over tokens (paper, Figs. 14-16).

    Each layer has a row of panels. The largest values are trimmed, as in the paper; a panel's
    title says how many they are, how far they reach, and the mean. Where ``trim`` of the tokens is
    less than one token, as 1 % of fewer than 100 is, none is trimmed, and the figure's title says
    so: the paper's rule would take the largest of a handful. Nor is anything trimmed from values
    that are the same up to rounding. A dashed line marks the mean over all tokens counted, the
    trimmed ones included.

    Args:
        stats: one model's statistics.
        layers: the layers to draw; by default the first, the last and the quarters between.
        min_count, max_count: count the tokens with ``min_count <= n_t <= max_count``; the paper
            counts all.
        special: also count special tokens.
        unbiased: draw the finite-sample corrected M and V.
        trim: the share of tokens, those with the largest values, to leave out of each panel.
        bins: number of bins of equal width.
    """
    one = given.only(stats, "moment_histograms")
    if not 0 <= trim < 1:
        raise StatisticsError(f"trim={trim} must be a share, at least 0 and less than 1.")
    if bins < 1:
        raise StatisticsError(f"bins={bins} must be at least 1.")
    chosen = given.five_layers(one) if layers is None else list(layers)
    figure, axes = style.panels(3 * len(chosen), 3, 3.3, 2.1)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    choice |= {"unbiased": unbiased}
    of = lettering.letter(one)
    for layer, row in zip(chosen, zip(*[iter(axes)] * 3, strict=True), strict=True):
        table = given.chosen(one, layer, **choice)
        for ax, moment in zip(row, "QMV", strict=True):
            value, scale, _ = _moment(table, moment)
            limits = style.around_constant(value, scale)
            # Rounding would deal values that are the same out to the bins on either side.
            kept = np.full(len(value), np.median(value)) if limits else _trimmed(value, trim)
            look = {"color": COLOURS[moment], "linewidth": 0, "alpha": 1}
            _histogram(x=kept, bins=bins, binrange=limits, ax=ax, **look)
            name = lettering.symbol(moment, of, unbiased=unbiased)
            ax.set(xlabel=name, ylabel="tokens" if of == "t" else "words")
            style.few_ticks(ax)
            mean = value.mean()
            ax.axvline(mean, color="black", linestyle="--", linewidth=1)
            # In the title, because a legend covers bars: no corner is free in every histogram.
            title = f"mean (dashed): {mean:,.4g}"
            if number := len(value) - len(kept):
                title += f"\ntrimmed: {number}, up to {value.max():,.4g}"
            style.panel_title(ax, title, 9)
        row[0].set_ylabel(f"layer {layer}\n{row[0].get_ylabel()}")
    note = f"the top {100 * trim:g} % trimmed" if trim else "nothing trimmed"
    if trim and _too_few(len(table), trim):  # of tokens, which are the same at every layer
        number = number_of(len(table), "token" if of == "t" else "word")
        note = f"{number}, too few to trim {100 * trim:g} %"
    figure.suptitle(f"{lettering.labels([one])[0]}, {note}", fontsize=11)
    return figure


def _too_few(number: int, trim: float) -> bool:
    """Whether a share of so many tokens is less than one token."""
    return number * trim < 1


def _trimmed(value: np.ndarray, trim: float) -> np.ndarray:
    """The values below the quantile ``1 - trim``; all if the share is less than one of them."""
    if _too_few(len(value), trim):
        return value
    kept = value[value < np.quantile(value, 1 - trim)]
    return kept if len(kept) else value  # the same value of every token is its own quantile


def frequency_slopes(
    stats: Statistics,
    *,
    depth: str | None = None,
    min_count: int = 10,
    max_count: int | None = 100_000,
    special: bool = True,
    offset: float = 1.0,
) -> Figure:
    """Slopes of log10(1+Q), log10(1+M), log10(1+V) on log10 n_t by layer (paper, Fig. 17).

    Below 0, frequent tokens have smaller values than rare ones. Each model has a line.

    Args:
        stats: one model's statistics or those of several.
        depth: ``"relative"`` or ``"index"``; by default relative if models differ in depth.
        min_count, max_count: use the tokens with ``min_count <= n_t <= max_count``.
        special: also use special tokens.
        offset: what is added before the logarithm is taken. With the paper's 1 a slope depends on
            the scale of the embeddings: it shrinks where they are small. With 0 it is the exponent
            of a power law, which no scale changes.

    Raises:
        StatisticsError: if a value has no logarithm, as V = 0 with ``offset=0``.
    """
    statistics = given.several(stats)
    x, axis = given.depths(statistics, depth)
    choice = {"min_count": min_count, "max_count": max_count, "special": special}
    figure, axes = style.panels(3, 3, 3.5, 3.3)
    for ax, moment in zip(axes, "QMV", strict=True):
        slopes = [
            [
                _slope(given.chosen(one, int(layer), **choice), moment, offset)
                for layer in one.layers
            ]
            for one in statistics
        ]
        style.lines(ax, statistics, x, slopes, COLOURS[moment])
        of = lettering.letter(statistics[0])
        title = rf"{_log_symbol(moment, of, offset)} on $\log_{{10}} n_{of}$"
        ax.set_title(f"slope of {title}", fontsize=10)
        ax.axhline(0, color="black", linestyle=":", linewidth=1)
        style.depth_axis(ax, axis)
    style.name_models(figure, axes[0], statistics)
    return figure


def _slope(table: pd.DataFrame, moment: str, offset: float) -> float:
    y, scale, _ = _logarithm(table, moment, offset)
    counts = np.log10(table["n"].to_numpy())
    return analysis.regress(counts, y, scale_y=scale, names=("n_t", moment)).slope


def token_frequencies(
    stats: Statistics,
    *,
    min_count: int | None = None,
    special: bool = True,
    paper: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How often tokens occur: a histogram of log10 n_t (paper, Fig. 10).

    Dotted lines mark the paper's range, ``1 <= log10 n_t <= 5``.

    Args:
        stats: one model's statistics or those of several.
        min_count: count only the tokens that occur at least this often; by default all.
        special: also count special tokens.
        paper: draw the authors' bins, 29 from 0 to 6.5, on a linear axis, where the few frequent
            tokens cannot be seen. By default bins are 0.2 wide, and the axis is logarithmic.
        ax: the Axes to draw on; by default new ones.
    """
    statistics = given.several(stats)
    ax = style.new_axes(ax)
    counts = []
    for one in statistics:
        kept = one.n[(one.n >= (min_count or 1)) & (special | ~one.special)]
        if not len(kept):
            raise StatisticsError(
                f"No token occurs {min_count or 1:,} times or more: lower min_count, or count "
                "special tokens, too."
            )
        counts.append(np.log10(kept))
    step = 6.5 / 29 if paper else 0.2
    last = max(x.max() for x in counts)
    edges = step * np.arange(max(30 if paper else 0, int(last / step) + 2))
    single = len(statistics) == 1
    of, styles = lettering.letter(statistics[0]), style.looks(len(statistics), COLOURS["Q"])
    names = lettering.labels(statistics)
    for at, one in enumerate(statistics):
        least = max(min_count or 1, one.least_count)
        if least > 1:  # rarer tokens are missing
            names[at] += f", $n_{of}$ ≥ {least}"
    for x, name, look in zip(counts, names, styles, strict=True):
        _histogram(
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
    if not paper:
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)  # so that a bar of height 1 can be seen
    ax.set(xlabel=rf"$\log_{{10}} n_{of}$", ylabel="tokens" if of == "t" else "words")
    ax.set_title(names[0]) if single else ax.legend()
    return ax


def sentence_lengths(stats: Statistics, *, paper: bool = False, ax: Axes | None = None) -> Axes:
    """How many words the sentences have (paper, Fig. 9).

    Each corpus has a histogram: models that ran on the same sentences share one.

    Args:
        stats: one model's statistics or those of several; those read from the authors' files hold
            the lengths if they were read with ``corpus=read_sentences(...)``.
        paper: draw the authors' 30 bins of equal width on a logarithmic axis, with words separated
            by single blanks where the statistics hold those lengths. By default each length has a
            bar, the axes are linear, white space separates words, and the axis ends before the
            longest sentence in a thousand; a note counts those beyond.
        ax: the Axes to draw on; by default new ones.

    Raises:
        StatisticsError: if the statistics do not hold the sentences' lengths.
    """
    statistics = given.several(stats)
    blanks = paper and all("sentences_by_blanks" in one.info for one in statistics)
    key = "sentences_by_blanks" if blanks else "sentences_by_words"
    found: dict[tuple[int, ...], str] = {}
    for one in statistics:
        if key not in one.info:
            raise StatisticsError(
                f"These statistics of {one.info['model']['name']!r} do not hold the lengths of the "
                "sentences, which Q, M and V do not tell: extract from the corpus again, or read "
                "the authors' file with corpus=read_sentences(...)."
            )
        found[tuple(one.info[key])] = written(one.info["corpora"][0]["name"])
    ax = style.new_axes(ax)
    styles = style.looks(len(found), COLOURS["Q"])
    single = len(found) == 1
    for (lengths, corpus), look in zip(found.items(), styles, strict=True):
        title = f"{corpus}: {number_of(sum(lengths), 'sentence')}"
        occurring = np.flatnonzero(lengths)
        edges = {"bins": 30, "binrange": (occurring[0], occurring[-1])}
        _histogram(
            x=np.arange(len(lengths)),
            weights=np.array(lengths),
            **edges if paper and len(occurring) > 1 else {"discrete": True},
            element="bars" if single else "step",
            fill=single,
            linewidth=0 if single else 1.6,
            color=look["color"],
            linestyle=look["linestyle"],
            alpha=1,
            label=title,
            ax=ax,
        )
    if paper:
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)
    else:
        _without_tail(ax, list(found))
    separated = "single blanks" if blanks else "white space"
    ax.set(xlabel=f"words in the sentence, separated by {separated}", ylabel="sentences")
    if single:
        ax.set_title(title)
    else:
        ax.legend()
    return ax


def _without_tail(ax: Axes, lengths: Sequence[Sequence[int]]) -> None:
    """End the axis where hardly a sentence is left, and say how many lie beyond."""
    total = np.array([sum(of_length) for of_length in zip_longest(*lengths, fillvalue=0)])
    longest = len(total) - 1
    end = int(np.searchsorted(np.cumsum(total), 0.999 * total.sum()))
    if beyond := int(total[end + 1 :].sum()):
        ax.set_xlim(0, end + 0.5)
        note = f"{beyond:,} longer, up to {longest}"
        ax.text(0.98, 0.6, note, transform=ax.transAxes, ha="right", fontsize=9)
