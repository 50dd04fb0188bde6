"""All figures of given statistics as PNG and SVG files, with an HTML page that shows them.

:data:`DRAWINGS` lists the figures, :func:`write` draws them, and the template ``atlas.html``
beside this module makes the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from embvar_kit.errors import EmbvarError, StatisticsError, StatisticsFileError
from embvar_kit.figures import style
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


@dataclass(frozen=True)
class Choice:
    """Which tokens all figures draw, and how: the arguments of :func:`write`."""

    min_count: int
    max_count: int | None
    unbiased: bool
    embeddings: bool

    @property
    def counts(self) -> dict:
        """Arguments for figures that have no unbiased form."""
        return {"min_count": self.min_count, "max_count": self.max_count}

    @property
    def moments(self) -> dict:
        """Arguments for figures that have an unbiased form."""
        return {**self.counts, "unbiased": self.unbiased}


def write(
    statistics: style.Statistics,
    out: str | Path,
    *,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
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
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw finite-sample corrected forms in the figures that have them.
        without_sinks: leave out the tokens that :meth:`TokenStatistics.sinks` finds.
        embeddings: also draw embeddings themselves (Fig. 1), which runs the model again on the
            sentences of a few tokens and needs model and corpus.

    Returns:
        The figures, drawn or not, in the order of the page.

    Raises:
        StatisticsError: if no statistics are given.
        StatisticsFileError: if the folder cannot be written.
    """
    given = style.several(statistics)
    if without_sinks:
        # Unit vectors have no sinks of their own: leave out those of the hidden states, if given.
        found = {
            _pass_of(one): one.sinks()["token"]
            for one in sorted(given, key=lambda one: _site(one) == "hidden")
        }
        given = [one.without(found[_pass_of(one)]) for one in given]
    choice = Choice(min_count, max_count, unbiased, embeddings)
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
    shown = {"all": models, "words": words or models, "unit": unit or models, "none": []}
    for drawing in DRAWINGS:
        if not drawing.when(models):
            continue
        texts = (drawing.paper, drawing.title, drawing.see)
        if drawing.of == "each" and len(models) > 1:
            for one, label in zip(models, style.labels(models), strict=True):
                own = re.sub(r"[^\w.-]+", "-", label).strip("-")
                entry = Entry(f"{drawing.name}-{own}", *texts, f"{drawing.alt} Model: {label}.")
                yield drawing, replace(entry, title=f"{drawing.title}: {label}"), [one]
        else:
            together = shown["all" if drawing.of == "each" else drawing.of]
            alt = drawing.alt
            if together:
                alt += f" Model{'s' * (len(together) > 1)}: {', '.join(style.labels(together))}."
            yield drawing, Entry(drawing.name, *texts, alt), together


_PIXELS = 96  # CSS pixels in an inch; the PNG has twice as many, for sharp screens


def _drawn(
    drawing: Drawing,
    entry: Entry,
    shown: list[TokenStatistics],
    choice: Choice,
    folder: Path,
) -> Entry:
    """Draw and save a figure: the same statistics give the same SVG, with text as text."""
    with plt.ioff(), mpl.rc_context({"svg.hashsalt": "embvar-kit", "svg.fonttype": "none"}):
        before = set(plt.get_fignums())
        try:
            drawn = drawing.draw(shown, choice)
            figure = drawn if isinstance(drawn, Figure) else drawn.figure
            files = (f"{entry.name}.png", f"{entry.name}.svg")
            figure.set_dpi(110)  # the layout depends on it, and takes as long as a drawing
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            figure.savefig(folder / files[0], dpi=2 * _PIXELS)
            figure.savefig(folder / files[1], dpi=200, metadata={"Date": None})
            width, height = (round(_PIXELS * inches) for inches in figure.get_size_inches())
            numbers = tuple(
                (f"{drawing.heading}: {label}", drawing.numbers(one, choice))
                for one, label in zip(shown, style.labels(shown), strict=True)
                if drawing.numbers is not None
            )
        except EmbvarError as error:
            return replace(entry, reason=str(error))
        finally:  # even a function that fails may leave a figure open
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return replace(entry, files=files, size=(width, height), numbers=numbers)


def page(given: Sequence[TokenStatistics], choice: Choice, entries: Sequence[Entry]) -> str:
    """The HTML page of these figures."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["subscripts"] = _subscripts
    template = resources.files("embvar_kit.figures").joinpath("atlas.html").read_text("utf-8")
    names = ", ".join(dict.fromkeys(one.info["model"]["name"] for one in given))
    most = "" if choice.max_count is None else f" ≤ {choice.max_count:,}"
    forms = "finite-sample corrected where a figure has them" if choice.unbiased else "as measured"
    return environment.from_string(template).render(
        title=f"Norm and variance: {names}",
        models=[
            _described(one, label) for one, label in zip(given, style.labels(given), strict=True)
        ],
        choice=f"Tokens with {choice.min_count:,} ≤ n_t{most}; M, V and V_B {forms}.",
        drawn=[entry for entry in entries if entry.reason is None],
        missing=[entry for entry in entries if entry.reason is not None],
        version=__version__,
    )


def _described(one: TokenStatistics, label: str) -> dict:
    """What the head of the page says of one model's statistics."""
    groups = "words" if style.letter(one) == "w" else "tokens"
    left_out = one.info.get("left_out") or ()
    names = ", ".join(map(repr, left_out[:8])) + (", ..." if len(left_out) > 8 else "")
    return {
        "label": label,
        "corpora": ", ".join(corpus["name"] for corpus in one.info["corpora"]),
        "occurrences": f"{int(one.n.sum()):,} of {len(one):,} {groups}",
        "left_out": names,
    }


def _subscripts(text: str) -> str:
    """A text as HTML, with subscripts in n_t, V_W and V_B."""
    return re.sub(r"\b([nV])_([twWB])\b", r"\1<sub>\2</sub>", escape(text))


# The figures


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: its texts, and how to draw it.

    Attributes:
        name, paper, title, see, alt: as in :class:`Entry`.
        draw: the function that draws it from a list of statistics.
        of: what that list holds: ``"all"`` models, ``"each"`` model for a figure of its own,
            statistics by ``"words"``, those of site ``"unit"``, or ``"none"``.
        numbers: the function that gives the table behind it, for one model.
        heading: heading of that table.
        when: whether the figure is of use for these models.
    """

    name: str
    paper: str
    title: str
    see: str
    alt: str
    draw: Callable[[list[TokenStatistics], Choice], Figure | Axes]
    of: str = "all"
    numbers: Callable[[TokenStatistics, Choice], pd.DataFrame] | None = None
    heading: str = "The numbers"
    when: Callable[[list[TokenStatistics]], bool] = lambda models: True


_WIDE = 7  # less than what makes a sink: tokens that are sinks in some layers only remain
_MOST = 100  # occurrences of a token whose embeddings are drawn


def _wide(models: list[TokenStatistics]) -> bool:
    """Whether tokens differ so much that linear axes show only the few largest."""
    return any(not one.sinks(factor=_WIDE).empty for one in models)


def _clouds(models: list[TokenStatistics], choice: Choice) -> Axes:
    if not choice.embeddings:
        raise StatisticsError("Embeddings were not requested (--no-embeddings).")
    (one,) = models
    layer = style.layer_of(one, "middle")
    tokens = figures.pick_tokens(one, **choice.counts)["token"].tolist()
    from embvar_kit.extraction.embeddings import collect_again  # importing torch takes seconds

    found = collect_again(one, tokens, layer, most=_MOST)
    return figures.token_clouds(found, layer=layer, stats=one)


def _with_names(models: list[TokenStatistics], choice: Choice) -> Axes:
    (one,) = models
    tokens = figures.pick_tokens(one, **choice.counts)["token"].tolist()
    return figures.V_on_M(one, label=tokens, log=_wide(models), **choice.moments)


def _example_lengths(models: list[TokenStatistics], choice: Choice) -> Figure:
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
        "Scatter plot on two principal axes with embeddings, means and the origin.",
        _clouds,
        of="each",
    ),
    Drawing(
        "fig-02-tradeoff",
        "Fig. 2",
        "The norm-variance trade-off in the middle layer",
        "Each point is a token, coloured by its frequency; the line is the regression of V on M. "
        "If Q were the same for all tokens, every point would lie on a line of slope -1.",
        "Scatter plot of V against M over tokens, with a line.",
        lambda models, choice: figures.V_on_M(models, layer="middle", **choice.moments),
    ),
    Drawing(
        "fig-02-tradeoff-logarithmic",
        "Fig. 2",
        "The same on logarithmic axes",
        "A few tokens are far from all others, and these axes show both. The line is the same as "
        "above, but curved here.",
        "Scatter plot of V against M over tokens on logarithmic axes, with a line.",
        lambda models, choice: figures.V_on_M(models, layer="middle", log=True, **choice.moments),
        when=_wide,
    ),
    Drawing(
        "fig-02-tradeoff-all-layers",
        "Fig. 2",
        "The trade-off in every layer",
        "In which layers do the points lie along the line?",
        "Scatter plots of V against M over tokens, one for each layer.",
        lambda models, choice: figures.V_on_M_by_layer(models, log=_wide(models), **choice.moments),
        of="each",
    ),
    Drawing(
        "fig-03-lengths",
        "Fig. 3",
        "M, V_B and V_W as lengths",
        "An illustration with three made-up clouds, not these statistics. The squared length to "
        "the overall mean is M. The mean squared length from there to the token means is V_B, and "
        "that from the token means to the embeddings is V_W. They add up to Q.",
        "Three clouds of points with arrows to their means, and a stacked bar.",
        _example_lengths,
        of="none",
    ),
    Drawing(
        "fig-04-tradeoff-by-layer",
        "Fig. 4",
        "The trade-off, layer by layer",
        "Where Q varies least over tokens (left), the slope comes near -1 (middle, dotted) and R² "
        "is high (right).",
        "Three line plots against the layer.",
        lambda models, choice: figures.tradeoff_by_layer(models, **choice.moments),
        numbers=lambda one, choice: one.tradeoff(**choice.moments),
    ),
    Drawing(
        "fig-05-shares",
        "Fig. 5",
        "What the mean squared norm consists of",
        "Blue grows where embeddings move away from the origin together, orange where a token's "
        "embeddings differ between contexts, green where tokens differ from each other.",
        "Stacked bars of the shares of Q, one for each layer.",
        lambda models, choice: figures.shares_by_layer(models, **choice.moments),
        numbers=lambda one, choice: one.decomposition(**choice.moments),
    ),
    Drawing(
        "fig-06-within",
        "Fig. 6",
        "The share of the variance that lies within tokens",
        "The higher the share, the more an embedding says about its context rather than its token.",
        "Line plot of V_W over V against the layer.",
        lambda models, choice: figures.within_share_by_layer(models, **choice.moments),
    ),
    Drawing(
        "fig-07-frequency",
        "Fig. 7",
        "Q, M and V against frequency, middle layer",
        "Do frequent tokens lie nearer to the origin, and do they spread wider? Rare tokens are "
        "biased: few occurrences make M too large and V too small, which the unbiased forms "
        "correct.",
        "Three scatter plots against the logarithm of frequency, with lines, for each model.",
        lambda models, choice: figures.moments_on_frequency(models, **choice.moments),
    ),
    Drawing(
        "fig-08-named",
        "Fig. 8",
        "The trade-off, with a few tokens named",
        "The tokens of Fig. 1 and Table 2 (below), drawn at random from ten bins of frequency.",
        "Scatter plot of V against M with a few tokens labelled.",
        _with_names,
        of="each",
        numbers=lambda one, choice: figures.pick_tokens(one, **choice.moments),
        heading="Table 2, these tokens",
    ),
    Drawing(
        "fig-09-sentences",
        "Fig. 9",
        "Lengths of the sentences",
        "How many words the sentences have.",
        "Histogram of sentences over their number of words.",
        lambda models, choice: figures.sentence_lengths(models),
    ),
    Drawing(
        "fig-10-frequencies",
        "Fig. 10",
        "How often tokens occur",
        "Few tokens are frequent, most are rare. The paper's figures use those between the dotted "
        "lines.",
        "Histogram of the logarithm of frequency.",
        lambda models, choice: figures.token_frequencies(models),
    ),
    Drawing(
        "fig-11-layers",
        "Figs. 11-13",
        "Five layers",
        "From the first layer (top) to the last: how Q, M and V depend on frequency, and V on M.",
        "Four scatter plots with lines for each of five layers.",
        lambda models, choice: figures.statistics_grid(models, **choice.counts),
        of="each",
    ),
    Drawing(
        "fig-14-histograms",
        "Figs. 14-16",
        "Histograms of Q, M and V",
        "A narrow Q makes a trade-off. The largest hundredth of the values is trimmed.",
        "Three histograms for each of five layers.",
        lambda models, choice: figures.moment_histograms(models, **choice.moments),
        of="each",
    ),
    Drawing(
        "fig-17-frequency-slopes",
        "Fig. 17",
        "Dependence on frequency, layer by layer",
        "Below 0, frequent tokens have smaller values than rare ones; above 0, larger ones.",
        "Line plots of three regression slopes against the layer.",
        lambda models, choice: figures.frequency_slopes(models, **choice.counts),
    ),
    Drawing(
        "fig-18-parts",
        "Fig. 18",
        "Parts of Q, layer by layer",
        "The shares of Fig. 5 in one panel each, to compare models.",
        "Line plots of four shares of Q against the layer.",
        lambda models, choice: figures.parts_over_Q_by_layer(models, **choice.moments),
    ),
    Drawing(
        "fig-19-moments",
        "Fig. 19",
        "Q, M and V of all embeddings",
        "Absolute values grow with depth in models without a normalization on the residual stream.",
        "Line plots of Q, M and V against the layer.",
        lambda models, choice: figures.moments_of_all_by_layer(models, **choice.moments),
    ),
    Drawing(
        "fig-20-variance",
        "Fig. 20",
        "Variance within and between tokens",
        "Absolute values of both, and the share that lies between tokens.",
        "Line plots of V_W, V_B and V_B over V against the layer.",
        lambda models, choice: figures.variance_parts_by_layer(models, **choice.moments),
    ),
    Drawing(
        "fig-22-words",
        "Fig. 22",
        "Words, by their number of sub-words",
        "Words that the tokenizer cuts into more pieces are rarer. Does the trade-off hold for "
        "words as it does for tokens?",
        "Four scatter plots of words: Q, M and V against frequency, V against M.",
        lambda words, choice: figures.word_moments(words, **choice.moments),
        of="words",
    ),
    Drawing(
        "anisotropy",
        "",
        "Anisotropy",
        "Mean cosine similarities. Between two embeddings drawn from all (solid): the farther from "
        "0, the more all embeddings point in one direction. Between two of the same token "
        "(dashed): the part above the solid line belongs to the token.",
        "Line plot of two mean cosine similarities against the layer.",
        lambda unit, choice: figures.anisotropy_by_layer(unit, min_count=max(2, choice.min_count)),
        of="unit",
    ),
)
"""The figures in the paper's order, then those that the paper does not have."""
