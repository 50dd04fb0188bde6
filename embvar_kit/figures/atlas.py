"""An atlas: every figure of given statistics, as PNG and SVG, with a page that shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from embvar_kit import figures
from embvar_kit._version import __version__
from embvar_kit.errors import EmbvarError, StatisticsError, StatisticsFileError
from embvar_kit.figures import style
from embvar_kit.statistics.token_statistics import TokenStatistics


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

    Several models stand side by side, or each in figures of its own where one draws one model.
    Statistics by word are used for Fig. 22, those of site ``"unit"`` for the anisotropy, unless
    there are no others.

    Args:
        statistics: one model's statistics, or those of several.
        out: the folder; files of the same names are replaced.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw finite-sample corrected forms where a figure has them.
        without_sinks: leave out the tokens that :meth:`TokenStatistics.sinks` finds.
        embeddings: also draw embeddings themselves (Fig. 1), which runs the model again on the
            sentences of a few tokens, where model and corpus are at hand.

    Returns:
        The figures, drawn or not, in the order of the page.

    Raises:
        StatisticsError: if no statistics are given.
        StatisticsFileError: if the folder cannot be written.
    """
    given = style.several(statistics)
    if without_sinks:
        # Unit vectors have no sinks of their own: those of the same pass' hidden states count.
        found = {
            _pass_of(one): one.sinks()["token"]
            for one in sorted(given, key=lambda one: _site(one) == "hidden")
        }
        given = [one.without(found[_pass_of(one)]) for one in given]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for plate in plates(given, min_count, max_count, unbiased, embeddings):
            entry = Entry(plate.name, plate.paper, plate.title, plate.see, plate.alt)
            try:
                entries.append(_written(entry, plate, folder))
            except EmbvarError as error:
                entries.append(replace(entry, reason=str(error)))
        lines = _described(given, min_count, max_count, unbiased)
        names = ", ".join(dict.fromkeys(one.info["model"]["name"] for one in given))
        (folder / "index.html").write_text(
            page(f"Norm and variance: {names}", lines, entries), encoding="utf-8"
        )
    except OSError as error:
        raise StatisticsFileError(
            f"Figures cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from error
    return entries


def _site(statistics: TokenStatistics) -> str | None:
    return statistics.info.get("convention", {}).get("site")


def _pass_of(statistics: TokenStatistics) -> str:
    """What statistics of several sites of one pass have in common."""
    info = statistics.info
    convention = {k: v for k, v in info.get("convention", {}).items() if k != "site"}
    return repr((info["model"], info["corpora"], convention))


def _written(entry: Entry, plate: Plate, folder: Path) -> Entry:
    """Draw and save: the same statistics give the same SVG, byte for byte, with text as text."""
    with plt.ioff(), mpl.rc_context({"svg.hashsalt": "embvar-kit", "svg.fonttype": "none"}):
        before = set(plt.get_fignums())
        try:
            figure = plate.draw()
            files = (f"{entry.name}.png", f"{entry.name}.svg")
            figure.savefig(folder / files[0], dpi=110)
            figure.set_layout_engine("none")  # laid out; doing it again takes as long
            figure.savefig(folder / files[1], dpi=200, metadata={"Date": None})
        finally:  # a figure function that fails may leave a figure behind
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return replace(entry, files=files, numbers=plate.numbers())


def _described(
    given: Sequence[TokenStatistics], min_count: int, max_count: int | None, unbiased: bool
) -> list[str]:
    """What was drawn and how, for the head of the page."""
    lines = []
    for one, label in zip(given, style.labels(given), strict=True):
        corpora = ", ".join(corpus["name"] for corpus in one.info["corpora"])
        text = f"{label}: {int(one.n.sum()):,} occurrences of {len(one):,} tokens in {corpora}."
        if left_out := one.info.get("left_out"):
            names = ", ".join(map(repr, left_out[:8])) + (", ..." if len(left_out) > 8 else "")
            text += f" {len(left_out)} left out: {names}."
        lines.append(text)
    most = "" if max_count is None else f" ≤ {max_count:,}"
    forms = "finite-sample corrected where a figure has them" if unbiased else "as measured"
    lines.append(f"Tokens with {min_count:,} ≤ n_t{most}; M, V and V_B {forms}.")
    return lines


# Which figures there are


_WIDE = 7  # less than what makes a sink: tokens that are one now and then are left
_MOST = 100  # occurrences of a token whose embeddings are drawn


@dataclass(frozen=True)
class Plate:
    """One figure of the atlas: what it is called, what there is to see, and how to draw it."""

    name: str
    paper: str
    title: str
    see: str
    alt: str
    draw: Callable[[], Figure]
    numbers: Callable[[], tuple] = tuple


def plates(
    given: Sequence[TokenStatistics],
    min_count: int,
    max_count: int | None,
    unbiased: bool,
    embeddings: bool,
) -> Iterator[Plate]:
    """The figures, in the paper's order, then those beyond it."""
    words = [one for one in given if one.subwords is not None]
    unit = [one for one in given if one.info.get("convention", {}).get("site") == "unit"]
    main = [one for one in given if one not in words and one not in unit] or words or unit
    of = style.letter(main[0])
    names = style.labels(main)
    counts = {"min_count": min_count, "max_count": max_count}
    choice = {**counts, "unbiased": unbiased}
    side = f"Models: {', '.join(names)}."

    def plate(name, paper, title, see, alt, draw, numbers=tuple):
        return Plate(name, paper, title, see, alt, lambda: _figure(draw()), numbers)

    def each(name, paper, title, see, alt, draw, numbers=lambda one: ()):
        """A figure of its own for each model."""
        for one, label in zip(main, names, strict=True):
            own = name if len(main) == 1 else f"{name}-{_file_name(label)}"
            yield plate(
                own,
                paper,
                f"{title}: {label}",
                see,
                f"{alt} Model: {label}.",
                lambda one=one: draw(one),
                lambda one=one: numbers(one),
            )

    def table(method: str) -> Callable[[], tuple]:
        return lambda: tuple(
            (f"The numbers: {label}", getattr(one, method)(**choice))
            for one, label in zip(main, names, strict=True)
        )

    yield from each(
        "fig-01-embeddings",
        "Fig. 1",
        "Embeddings of a few tokens",
        f"Each token's embeddings (at most {_MOST} of them) form a cloud around its mean. The "
        "lighter the colour, the more frequent the token. Do means near the origin belong to wide "
        "clouds, and means far from it to narrow ones? Where the trade-off holds, they do.",
        "Scatter plot of two principal axes with embeddings, means and the origin.",
        lambda one: _clouds(one, counts, embeddings),
    )
    yield plate(
        "fig-02-tradeoff",
        "Fig. 2",
        "The norm-variance trade-off in the middle layer",
        "One point a token, coloured by frequency, and the regression line. If Q were the same "
        "for all tokens, the line would have slope -1 and hold every point.",
        f"Scatter plot of V against M over tokens, with a line. {side}",
        lambda: figures.V_on_M(main, layer="middle", **choice),
    )
    if any(_wide(one) for one in main):
        yield plate(
            "fig-02-tradeoff-logarithmic",
            "Fig. 2",
            "The same on logarithmic axes",
            "Where a few tokens are far from all others, these axes show both. The line is the "
            "same as above, and bends here.",
            f"Scatter plot of V against M over tokens on logarithmic axes, with a line. {side}",
            lambda: figures.V_on_M(main, layer="middle", log=True, **choice),
        )
    yield from each(
        "fig-02-tradeoff-all-layers",
        "Fig. 2",
        "The trade-off in every layer",
        "In which layers do the points lie along the line?",
        "Scatter plots of V against M over tokens, one a layer.",
        lambda one: figures.V_on_M_by_layer(one, log=_wide(one), **choice),
    )
    yield plate(
        "fig-03-lengths",
        "Fig. 3",
        "M, V_B and V_W as lengths",
        "A drawing of three made-up clouds, not of these statistics: the squared length to the "
        "overall mean is M, the mean squared length from there to the token means V_B, that from "
        "these to the embeddings V_W. They add up to Q.",
        "Three clouds of points with arrows to their means, and a stacked bar.",
        lambda: figures.decomposition_lengths(*_example_clouds()),
    )
    yield plate(
        "fig-04-tradeoff-by-layer",
        "Fig. 4",
        "The trade-off, layer by layer",
        "Where Q varies least over tokens (left), the slope comes near -1 (middle, dotted) and R² "
        "is high (right).",
        f"Three line plots against the layer. {side}",
        lambda: figures.tradeoff_by_layer(main, **choice),
        table("tradeoff"),
    )
    yield plate(
        "fig-05-shares",
        "Fig. 5",
        "What the mean squared norm consists of",
        "Blue grows where embeddings move away from the origin together, orange where a token's "
        "embeddings differ between contexts, green where tokens differ from each other.",
        f"Stacked bars of the shares of Q, one a layer. {side}",
        lambda: _figure(figures.shares_by_layer(main, **choice)),
        table("decomposition"),
    )
    yield plate(
        "fig-06-within",
        "Fig. 6",
        "The share of the variance that lies within tokens",
        "The higher, the more an embedding says of its context rather than of its token.",
        f"Line plot of V_W over V against the layer. {side}",
        lambda: figures.within_share_by_layer(main, **choice),
    )
    yield plate(
        "fig-07-frequency",
        "Fig. 7",
        "Q, M and V against frequency, middle layer",
        "Do frequent tokens lie nearer to the origin, and do they spread wider? Rare tokens lean: "
        "few occurrences make M too large and V too small, which the unbiased forms undo.",
        f"Three scatter plots against log10 n_{of}, with lines, for each model. {side}",
        lambda: figures.moments_on_frequency(main, **choice),
    )
    yield from each(
        "fig-08-named",
        "Fig. 8",
        "The trade-off, with a few tokens named",
        "The tokens of Fig. 1 and Table 2 (below), drawn from ten bins of frequency.",
        "Scatter plot of V against M with a few tokens labelled.",
        lambda one: figures.V_on_M(
            one, label=_few(one, counts)["token"].tolist(), log=_wide(one), **choice
        ),
        lambda one: (("Table 2: these tokens", _few(one, choice)),),
    )
    yield plate(
        "fig-09-sentences",
        "Fig. 9",
        "Lengths of the sentences",
        "How many words the sentences have.",
        "Histogram of sentences over their number of words.",
        lambda: figures.sentence_lengths(main),
    )
    yield plate(
        "fig-10-frequencies",
        "Fig. 10",
        "How often tokens occur",
        "Few tokens are frequent, most are rare. The paper's figures take those between the dotted "
        "lines.",
        f"Histogram of log10 n_{of}. {side}",
        lambda: figures.token_frequencies(main),
    )
    yield from each(
        "fig-11-layers",
        "Figs. 11-13",
        "Five layers",
        "From the first layer (top) to the last: how Q, M and V depend on frequency, and V on M.",
        "Four scatter plots with lines for each of five layers.",
        lambda one: figures.statistics_grid(one, **counts),
    )
    yield from each(
        "fig-14-histograms",
        "Figs. 14-16",
        "Histograms of Q, M and V",
        "A narrow Q is what makes a trade-off. The largest hundredth of the values is trimmed.",
        "Three histograms for each of five layers.",
        lambda one: figures.moment_histograms(one, **choice),
    )
    yield plate(
        "fig-17-frequency-slopes",
        "Fig. 17",
        "Dependence on frequency, layer by layer",
        "Below 0, frequent tokens have smaller values; above, larger ones.",
        f"Line plots of three regression slopes against the layer. {side}",
        lambda: figures.frequency_slopes(main, **counts),
    )
    for name, paper, title, see, function in (
        (
            "fig-18-parts",
            "Fig. 18",
            "Parts of Q, layer by layer",
            "The shares of Fig. 5, one panel each, to compare models.",
            figures.parts_over_Q_by_layer,
        ),
        (
            "fig-19-moments",
            "Fig. 19",
            "Q, M and V of all embeddings",
            "Absolute values: models without a normalization on the residual stream grow with "
            "depth.",
            figures.moments_of_all_by_layer,
        ),
        (
            "fig-20-variance",
            "Fig. 20",
            "Variance within and between tokens",
            "Absolute values, and the share between tokens.",
            figures.variance_parts_by_layer,
        ),
    ):
        yield plate(
            name,
            paper,
            title,
            see,
            f"Line plots against the layer. {side}",
            lambda function=function: function(main, **choice),
        )
    yield plate(
        "fig-22-words",
        "Fig. 22",
        "Words, by their number of sub-words",
        "Words that the tokenizer cuts into more pieces are rarer. Does the trade-off hold for "
        "words as it does for tokens?",
        "Four scatter plots of words: Q, M and V against frequency, V against M.",
        lambda: figures.word_moments(words or main, **choice),
    )
    yield plate(
        "anisotropy",
        "",
        "Anisotropy",
        "Mean cosine similarities. Between two embeddings drawn from all (solid): the farther from "
        "0, the more all point into one direction. Between two of the same token (dashed): what "
        "is above the solid line is the token's own.",
        "Line plot of two mean cosine similarities against the layer.",
        lambda: figures.anisotropy_by_layer(unit or main, min_count=max(2, min_count)),
    )


def _figure(drawn: object) -> Figure:
    return drawn if isinstance(drawn, Figure) else drawn.figure


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "-", label).strip("-")


def _wide(one: TokenStatistics) -> bool:
    """Whether tokens differ so much that linear axes show a few of them and nothing else."""
    return not one.sinks(factor=_WIDE).empty


def _example_clouds() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    groups = np.repeat([0, 1, 2], [8, 14, 5])
    centres = np.array([[2.6, 0.6], [4.2, 3.0], [0.9, 3.1]])
    return centres[groups] + random.normal(scale=0.6, size=(len(groups), 2)), groups


def _few(one: TokenStatistics, choice: dict) -> object:
    return figures.pick_tokens(one, **choice)


def _clouds(one: TokenStatistics, counts: dict, embeddings: bool) -> object:
    if not embeddings:
        raise StatisticsError("Embeddings were not asked for (--no-embeddings).")
    layer = style.layer_of(one, "middle")
    tokens = _few(one, counts)["token"].tolist()
    from embvar_kit.extraction.embeddings import collect_again  # imports torch: takes seconds

    found = collect_again(one, tokens, layer, most=_MOST)
    return figures.token_clouds(found, layer=layer, stats=one)


# The page


_STYLE = """
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
figure { margin: 2.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { max-width: 48rem; } h2 { font-size: 1.1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .1rem .7rem; }
td, th { text-align: right; border-bottom: 1px solid #ddd; }
code { background: #f4f4f4; padding: 0 .2rem; }
"""


@dataclass(frozen=True)
class Entry:
    """A figure of an atlas, drawn or not.

    Attributes:
        name: of its files, without their endings.
        paper: the paper's number, or ``""`` for one that goes beyond it.
        title: what it is.
        see: what to see in it.
        alt: what is drawn, for those who do not see it.
        files: those written, ``.png`` and ``.svg``.
        reason: why it could not be drawn; ``None`` if it was.
        numbers: tables behind it, by their titles.
    """

    name: str
    paper: str
    title: str
    see: str
    alt: str
    files: tuple[str, ...] = ()
    reason: str | None = None
    numbers: tuple[tuple[str, pd.DataFrame], ...] = ()


def page(heading: str, lines: Sequence[str], entries: Sequence[Entry]) -> str:
    """The HTML of an atlas.

    Args:
        heading: its title.
        lines: what was drawn and how, a paragraph each.
        entries: the figures, in order.
    """
    drawn = [entry for entry in entries if entry.reason is None]
    missing = [entry for entry in entries if entry.reason is not None]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(heading)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in lines),
        *map(_figure_html, drawn),
    ]
    if missing:
        parts.append('<h2 id="not-drawn">Not drawn, and why</h2><ul>')
        for entry in missing:
            what = f"{entry.paper}: {entry.title}" if entry.paper else entry.title
            parts.append(f"<li><b>{escape(what)}.</b> {escape(str(entry.reason))}</li>")
        parts.append("</ul>")
    parts.append(f"<p>Written by embvar-kit {escape(__version__)}.</p></body></html>")
    return "\n".join(parts) + "\n"


def _figure_html(entry: Entry) -> str:
    what = f"{entry.paper} · {entry.title}" if entry.paper else entry.title
    parts = [f'<figure id="{escape(entry.name)}">', f"<h2>{escape(what)}</h2>"]
    picture = next((name for name in entry.files if name.endswith(".png")), None)
    if picture:
        parts.append(f'<img src="{escape(picture)}" alt="{escape(entry.alt)}">')
    links = " · ".join(
        f'<a href="{escape(name)}">{name.rpartition(".")[2].upper()}</a>' for name in entry.files
    )
    parts.append(f"<figcaption>{escape(entry.see)} {links}</figcaption>")
    for title, table in entry.numbers:
        shown = table.to_html(index=False, border=0, float_format="{:.3f}".format)
        parts.append(f"<details><summary>{escape(title)}</summary>{shown}</details>")
    return "\n".join([*parts, "</figure>"])
