"""All figures of given statistics as PNG and SVG files, with an HTML page that shows them.

:data:`DRAWINGS` lists the figures, :func:`write` draws them, and the template ``atlas.html``
beside this module makes the page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from importlib import resources
from pathlib import Path

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit import figures
from embvar_kit._version import __version__
from embvar_kit.errors import EmbvarError, NoLineError, StatisticsError, StatisticsFileError
from embvar_kit.figures import lettering
from embvar_kit.figures.given import Statistics, layer_of, several
from embvar_kit.statistics.token_statistics import TokenStatistics


@dataclass(frozen=True)
class Entry:
    """A figure on the page, drawn or not.

    Attributes:
        name: name of its files, without their endings.
        paper: its number in the paper, or ``""`` if the paper does not have it.
        title: its title.
        see: what to see in it.
        alt: a description for readers who cannot see it.
        files: the files written, ``.png`` and ``.svg``.
        size: width and height on the page, in CSS pixels.
        reason: why it could not be drawn; ``None`` if it was.
        numbers: the tables behind it, with their headings.
    """

    name: str
    paper: str
    title: str
    see: str
    alt: str
    files: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    reason: str | None = None
    numbers: tuple[tuple[str, pd.DataFrame], ...] = ()


def write(
    statistics: Statistics,
    out: str | Path,
    *,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
    without_high_norm: bool = False,
    without_sinks: bool = False,
    embeddings: bool = True,
) -> list[Entry]:
    """Draw every figure that the statistics allow into a folder with an ``index.html``.

    Several models stand side by side, or have a figure each if it draws a single model.
    Statistics by word are used for Fig. 22 and those of site ``"unit"`` for the anisotropy, unless
    there are no others.

    Args:
        statistics: one model's statistics, or those of several.
        out: the folder to write to; files of the same names are replaced.
        min_count, max_count: use the tokens with ``min_count <= n_t <= max_count``. Scatter plots
            and histograms of the paper draw all tokens that the statistics hold, as the paper does
            (:attr:`embvar_kit.figures.PaperFigure.options`); lines are fitted to these.
        unbiased: draw finite-sample corrected forms in the figures that have them.
        without_high_norm: leave out the tokens that :meth:`TokenStatistics.high_norm` finds.
        without_sinks: the same, by its older name.
        embeddings: also draw embeddings themselves (Fig. 1), which runs the model again on the
            sentences of a few tokens and needs model and corpus.

    Returns:
        The figures, drawn or not, in the order of the page.

    Raises:
        StatisticsError: if no statistics are given.
        StatisticsFileError: if the folder cannot be written.
    """
    given = several(statistics)
    if without_high_norm or without_sinks:
        # Unit vectors have no norms of their own: leave out tokens by the hidden states, if given.
        found = {
            _pass_of(one): one.high_norm()["token"]
            for one in sorted(given, key=lambda one: _site(one) == "hidden")
        }
        given = [one.without(found[_pass_of(one)]) for one in given]
    choice = {
        "min_count": min_count,
        "max_count": max_count,
        "unbiased": unbiased,
        "embeddings": embeddings,
    }
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = [
            _drawn(drawing, entry, shown, choice, folder)
            for drawing, entry, shown in _planned(given)
        ]
        (folder / "index.html").write_text(page(given, choice, entries), encoding="utf-8")
    except OSError as error:
        raise StatisticsFileError(
            f"Figures cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from error
    return entries


def _site(statistics: TokenStatistics) -> str | None:
    return statistics.info.get("convention", {}).get("site")


def _pass_of(statistics: TokenStatistics) -> str:
    """A key that statistics of several sites share if they come from one pass over a corpus."""
    info = statistics.info
    convention = {k: v for k, v in info.get("convention", {}).items() if k != "site"}
    return repr((info["model"], info["corpora"], convention))


def _planned(
    given: Sequence[TokenStatistics],
) -> Iterator[tuple[Drawing, Entry, list[TokenStatistics]]]:
    """Each figure to draw, its entry so far, and the statistics that it shows."""
    words = [one for one in given if one.subwords is not None]
    unit = [one for one in given if _site(one) == "unit"]
    models = [one for one in given if one.subwords is None and _site(one) != "unit"]
    models = models or words or unit
    together = {"all": models, "words": words or models, "unit": unit or models, "none": []}
    for drawing in DRAWINGS:
        if not drawing.when(models):
            continue
        if drawing.of == "each":
            shown, labels = [[one] for one in models], lettering.labels(models)
        else:
            shown = [together[drawing.of]]
            labels = [", ".join(lettering.labels(shown[0]))]
        what = drawing.shows or figures.PAPER[drawing.paper].shows
        for of, label in zip(shown, labels, strict=True):
            alt = f"{what[:1].upper()}{what[1:]}." + (f" Models: {label}." if label else "")
            see = f"{drawing.see}{_held(drawing, of)}"
            entry = Entry(drawing.name, drawing.paper, drawing.title, see, alt)
            if len(shown) > 1:
                own = re.sub(r"[^\w.-]+", "-", label).strip("-")
                title = f"{drawing.title}: {label}"
                entry = replace(entry, name=f"{drawing.name}-{own}", title=title)
            yield drawing, entry, of


def _options(paper: str, shown: Sequence[TokenStatistics], unbiased: bool) -> dict[str, object]:
    """The arguments that draw a figure as the paper does, with the tokens that there are."""
    options = dict(figures.PAPER[paper].options) if paper else {}
    if "min_count" in options:
        held = max(one.least_count for one in shown)
        options["min_count"] = max(options["min_count"], held, 2 if unbiased else 1)
    return options


def _held(drawing: Drawing, shown: Sequence[TokenStatistics]) -> str:
    """A sentence for the caption of a figure of all tokens, if statistics lack the rare ones."""
    options = _options(drawing.paper, shown, unbiased=False)
    least = max((one.least_count for one in shown), default=1)
    if least == 1 or not {"drawn", "min_count"} & options.keys():
        return ""
    return f" The paper draws all tokens; these statistics hold those with n_t ≥ {least:,}."


_PIXELS = 96  # CSS pixels in an inch; the PNG has twice as many, for sharp screens


def _drawn(
    drawing: Drawing,
    entry: Entry,
    shown: list[TokenStatistics],
    choice: Mapping[str, object],
    folder: Path,
) -> Entry:
    """Draw and save a figure: the same statistics give the same SVG, with text as text."""
    with plt.ioff(), mpl.rc_context({"svg.hashsalt": "embvar-kit", "svg.fonttype": "none"}):
        before = set(plt.get_fignums())
        try:
            if drawing.draw is None:
                options = _options(entry.paper, shown, bool(choice["unbiased"]))
                drawn = _call(figures.PAPER[entry.paper].function, shown, {**choice, **options})
            else:
                drawn = _call(drawing.draw, shown, choice)
            figure = drawn if isinstance(drawn, Figure) else drawn.figure
            files = (f"{entry.name}.png", f"{entry.name}.svg")
            figure.set_dpi(110)  # the layout depends on it, and takes as long as a drawing
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            figure.savefig(folder / files[0], dpi=2 * _PIXELS)
            figure.savefig(folder / files[1], dpi=200, metadata={"Date": None})
            width, height = (round(_PIXELS * inches) for inches in figure.get_size_inches())
            see = [entry.see]
            if drawing.found is not None:
                see += [_call(drawing.found, one, choice) for one in shown]
            numbers = tuple(
                (f"{drawing.heading}: {label}", _call(drawing.numbers, one, choice))
                for one, label in zip(shown, lettering.labels(shown), strict=True)
                if drawing.numbers is not None
            )
        except EmbvarError as error:
            return replace(entry, reason=str(error))
        finally:  # even a function that fails may leave a figure open
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    see = " ".join(see)
    return replace(entry, see=see, files=files, size=(width, height), numbers=numbers)


def _call(function: Callable, given: object, choice: Mapping[str, object]) -> object:
    """Call a function with those of the choices that it takes."""
    taken = choice.keys() & inspect.signature(function).parameters.keys()
    return function(given, **{name: choice[name] for name in taken})


def page(
    given: Sequence[TokenStatistics], choice: Mapping[str, object], entries: Sequence[Entry]
) -> str:
    """The HTML page of these figures; ``choice`` holds the arguments of :func:`write`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["subscripts"] = _subscripts
    template = resources.files("embvar_kit.figures").joinpath("atlas.html").read_text("utf-8")
    return environment.from_string(template).render(
        names=dict.fromkeys(one.info["model"]["name"] for one in given),
        models=list(zip(lettering.labels(given), given, strict=True)),
        choice=choice,
        drawn=[entry for entry in entries if entry.reason is None],
        missing=[entry for entry in entries if entry.reason is not None],
        version=__version__,
    )


def _subscripts(text: str) -> str:
    """A text as HTML, with subscripts in n_t, V_W and V_B."""
    return re.sub(r"\b([nV])_([twWB])\b", r"\1<sub>\2</sub>", escape(text))


# The figures


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: its texts, and how to draw it.

    ``draw``, ``found`` and ``numbers`` are called with those arguments of :func:`write` that they
    take.

    Attributes:
        name, paper, title, see: as in :class:`Entry`.
        shows: the alternative text, if not that of :data:`embvar_kit.figures.PAPER`.
        draw: the function that draws it from a list of statistics, if not that of ``PAPER``.
        of: what that list holds: ``"all"`` models, ``"each"`` model for a figure of its own,
            statistics by ``"words"``, those of site ``"unit"``, or ``"none"``.
        found: the function that says what was found, for one model: the end of the caption.
        numbers: the function that gives the table behind it, for one model.
        heading: heading of that table.
        when: whether these models need the figure.
    """

    name: str
    paper: str
    title: str
    see: str
    shows: str = ""
    draw: Callable[..., Figure | Axes] | None = None
    of: str = "all"
    found: Callable[..., str] | None = None
    numbers: Callable[..., pd.DataFrame] | None = None
    heading: str = "The numbers"
    when: Callable[[list[TokenStatistics]], bool] = lambda models: True


_WIDE = 7  # less than what makes a high norm, so that nearly high ones count, too
_MOST = 100  # occurrences of a token whose embeddings are drawn


def _wide(models: list[TokenStatistics]) -> bool:
    """Whether tokens differ so much that linear axes show only the few largest."""
    return any(not one.high_norm(factor=_WIDE).empty for one in models)


def _clouds(
    models: list[TokenStatistics], min_count: int, max_count: int | None, embeddings: bool
) -> Axes:
    if not embeddings:
        raise StatisticsError("Embeddings were not requested (--no-embeddings).")
    (one,) = models
    layer = layer_of(one, "middle")
    counts = {"min_count": min_count, "max_count": max_count}
    tokens = figures.pick_tokens(one, paper=True, **counts)["token"].tolist()
    from embvar_kit.extraction.embeddings import collect_again  # importing torch takes seconds

    found = collect_again(one, tokens, layer, most=_MOST)
    return figures.token_clouds(found, layer=layer, stats=one)


def _in_every_layer(
    models: list[TokenStatistics], min_count: int, max_count: int | None, unbiased: bool
) -> Figure:
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    return figures.V_on_M_by_layer(models, log=_wide(models), drawn="all", **choice)


def _with_names(
    models: list[TokenStatistics], min_count: int, max_count: int | None, unbiased: bool
) -> Axes:
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    tokens = figures.pick_tokens(models, paper=True, **choice)["token"].tolist()
    choice |= _options("Fig. 8", models, unbiased)
    return figures.V_on_M(models, label=tokens, log=_wide(models), **choice)


def _tradeoff(
    one: TokenStatistics, min_count: int, max_count: int | None, unbiased: bool
) -> tuple[pd.DataFrame, str]:
    """The regression at each layer, with what the statistics say of its slope beyond itself.

    Returns:
        The table of :meth:`TokenStatistics.tradeoff`, with the interval of the slope and the slope
        of the null, as far as there are any; and why there is no interval, or ``""``.
    """
    choice = {"min_count": min_count, "max_count": max_count, "unbiased": unbiased}
    fits, why = one.tradeoff(**choice), ""
    added = {}
    if one.null is not None:
        with suppress(StatisticsError):  # embeddings whose mean is 0 leave no spread of M
            added["null_slope"] = one.null.tradeoff(**choice)["slope"]
    if one.has_folds:
        try:
            ends = one.tradeoff(**choice, intervals=True)
            added |= {name: ends[name] for name in ("slope_high", "slope_low")}
        except StatisticsError as error:
            why = str(error)
    else:
        why = "these statistics have no folds (embvar extract --folds 20)."
    for name, column in added.items():
        fits.insert(fits.columns.get_loc("slope") + 1, name, column)
    return fits, why


def _by_layer(
    one: TokenStatistics, min_count: int, max_count: int | None, unbiased: bool
) -> pd.DataFrame:
    return _tradeoff(one, min_count, max_count, unbiased)[0]


def _slope(one: TokenStatistics, min_count: int, max_count: int | None, unbiased: bool) -> str:
    """What is known of the slope in the middle layer, in a sentence or two."""
    try:
        table, why = _tradeoff(one, min_count, max_count, unbiased)
    except NoLineError as error:  # of another layer: that of the middle one is drawn
        return f"No interval: {error}"
    layer = layer_of(one, "middle")
    fit = {name: f"{value:.2f}" for name, value in table.set_index("layer").loc[layer].items()}
    said = f"{lettering.labels([one])[0]}, layer {layer}: slope {fit['slope']}"
    if not why:
        said += f", 95 % interval {fit['slope_low']} to {fit['slope_high']}"
    if "null_slope" in fit:
        said += f"; with labels permuted, {fit['null_slope']}"
    return f"{said}." + (f" No interval: {why}" if why else "")


def _example_lengths(_: list[TokenStatistics]) -> Figure:
    random = np.random.default_rng(3)
    groups = np.repeat([0, 1, 2], [8, 14, 5])
    centres = np.array([[2.6, 0.6], [4.2, 3.0], [0.9, 3.1]])
    x = centres[groups] + random.normal(scale=0.6, size=(len(groups), 2))
    return figures.decomposition_lengths(x, groups)


DRAWINGS = (
    Drawing(
        "fig-01-embeddings",
        "Fig. 1",
        "Embeddings of a few tokens",
        f"Each token's embeddings (at most {_MOST} of them) form a cloud around its mean. The "
        "lighter the colour, the more frequent the token. Do means near the origin belong to wide "
        "clouds, and means far from it to narrow ones? Where the trade-off holds, they do.",
        draw=_clouds,
        of="each",
    ),
    Drawing(
        "fig-02-tradeoff",
        "Fig. 2",
        "V on M in the middle layer",
        "Each point is a token, coloured by its frequency; the line is the regression of V on M "
        "over the tokens that occur often enough, dotted where it is not fitted. "
        "If Q were the same for all tokens, every point would lie on a line of slope -1.",
        found=_slope,
    ),
    Drawing(
        "fig-02-tradeoff-logarithmic",
        "Fig. 2",
        "The same on logarithmic axes",
        "A few tokens are far from all others, and these axes show both. The line is the same as "
        "above, but curved here.",
        shows="scatter plot of V against M over tokens on logarithmic axes, with a line",
        draw=partial(figures.V_on_M, log=True, drawn="all"),
        when=_wide,
    ),
    Drawing(
        "fig-02-tradeoff-all-layers",
        "Fig. 2",
        "V on M in every layer",
        "In which layers do the points lie along the line?",
        shows="scatter plots of V against M over tokens in each layer, with lines",
        draw=_in_every_layer,
        of="each",
    ),
    Drawing(
        "fig-03-lengths",
        "Fig. 3",
        "M, V_B and V_W as lengths",
        "An illustration with three made-up clouds, not these statistics. The squared length to "
        "the overall mean is M. The mean squared length from there to the token means is V_B, and "
        "that from the token means to the embeddings is V_W. They add up to Q.",
        draw=_example_lengths,
        of="none",
    ),
    Drawing(
        "fig-04-tradeoff-by-layer",
        "Fig. 4",
        "V on M, layer by layer",
        "Left, the coefficient of variation of Q over tokens; middle, the slope of V on M (dotted: "
        "-1); right, R². If Q varies little beside M, the slope comes near -1 and R² is high. A "
        "small coefficient of variation is not enough for that: M has to vary more.",
        numbers=_by_layer,
    ),
    Drawing(
        "fig-05-shares",
        "Fig. 5",
        "What the mean squared norm consists of",
        "Blue grows where embeddings move away from the origin together, orange where a token's "
        "embeddings differ between contexts, green where tokens differ from each other.",
        numbers=TokenStatistics.decomposition,
    ),
    Drawing(
        "fig-06-within",
        "Fig. 6",
        "The share of the variance that lies within tokens",
        "The higher the share, the more an embedding says about its context rather than its token.",
    ),
    Drawing(
        "fig-07-frequency",
        "Fig. 7",
        "Q, M and V against frequency, middle layer",
        "Do frequent tokens lie nearer to the origin, and do they spread wider? Rare tokens are "
        "biased: few occurrences make M too large and V too small, which the unbiased forms "
        "correct. Lines are dotted where they are not fitted.",
    ),
    Drawing(
        "fig-08-named",
        "Fig. 8",
        "V on M, with a few tokens named",
        "The tokens of Fig. 1 and Table 2 (below), drawn at random from ten bins of frequency. As "
        "in the paper, this line is fitted to all tokens.",
        draw=_with_names,
        of="each",
        numbers=partial(figures.pick_tokens, paper=True),
        heading="Table 2, these tokens",
    ),
    Drawing(
        "fig-09-sentences",
        "Fig. 9",
        "Lengths of the sentences",
        "How many words the sentences have, in 30 bins and on a logarithmic axis, as in the paper. "
        "Where a bin holds three lengths beside bins of two, it stands out.",
    ),
    Drawing(
        "fig-10-frequencies",
        "Fig. 10",
        "How often tokens occur",
        "Few tokens are frequent, most are rare. The paper's figures use those from 10 to "
        "100,000 occurrences, between 1 and 5 on this axis (dotted lines).",
        draw=lambda models: figures.token_frequencies(models, paper=True),
    ),
    Drawing(
        "fig-11-layers",
        "Figs. 11-13",
        "Five layers",
        "From the first layer (top) to the last: how Q, M and V depend on frequency, and V on M.",
        of="each",
    ),
    Drawing(
        "fig-14-histograms",
        "Figs. 14-16",
        "Histograms of Q, M and V",
        "If Q varies little beside M, V falls as M rises. Of a hundred tokens or more, the "
        "largest hundredth of the values is trimmed; the dashed line is the mean, the trimmed "
        "values included.",
        of="each",
    ),
    Drawing(
        "fig-17-frequency-slopes",
        "Fig. 17",
        "Dependence on frequency, layer by layer",
        "Below 0, frequent tokens have smaller values than rare ones; above 0, larger ones.",
    ),
    Drawing(
        "fig-18-parts",
        "Fig. 18",
        "Parts of Q, layer by layer",
        "The shares of Fig. 5 in one panel each, to compare models.",
    ),
    Drawing(
        "fig-19-moments",
        "Fig. 19",
        "Q, M and V of all embeddings",
        "Values grow with depth where the residual stream is never normalized (Pre-LN); a "
        "normalization after every block (Post-LN) keeps them in a narrow range.",
    ),
    Drawing(
        "fig-20-variance",
        "Fig. 20",
        "Variance within and between tokens",
        "Absolute values of both, and the share that lies between tokens.",
    ),
    Drawing(
        "fig-22-words",
        "Fig. 22",
        "Words, by their number of sub-words",
        "Words that the tokenizer cuts into more pieces are rarer. Does V fall as M rises, "
        "over all words and within each colour?",
        of="words",
    ),
    Drawing(
        "anisotropy",
        "",
        "Anisotropy",
        "Mean cosine similarities. Between two embeddings drawn from all (solid): the farther from "
        "0, the more all embeddings point in one direction. Between two of the same token "
        "(dashed): the part above the solid line belongs to the token.",
        shows="lines by layer: two mean cosine similarities",
        draw=lambda unit, min_count: figures.anisotropy_by_layer(unit, min_count=max(2, min_count)),
        of="unit",
    ),
)
"""The figures in the paper's order, then those that the paper does not have."""
