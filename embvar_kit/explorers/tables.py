"""Numbers and small tables as HTML, for the explorers. Text from a corpus is escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from embvar_kit.figures.lettering import with_minus

if TYPE_CHECKING:  # this imports torch, which takes seconds
    from embvar_kit.explorers.concordance import Context

MOST_LISTED = 200
"""Largest number of marked tokens that a table lists."""

MOST_NAMED = 12
"""Largest number of tokens named in a picture, or of occurrences that a table lists."""

MEANINGS = {
    "Q": "mean squared norm of the token's embeddings; Q = M + V",
    "M": "squared norm of the token's mean embedding",
    "V": "variance of the token's embeddings: their mean squared distance from their mean",
    "CV of Q": "coefficient of variation of Q: its standard deviation over the tokens, divided by "
    "its mean; near 0 where all tokens have the same Q",
    "slope": "slope of the regression line of V on M; -1 where all tokens have the same Q",
    "R²": "coefficient of determination: the share of the variance of V that the line explains",
}
"""What the names in the explorers mean, for their tooltips."""


def explained(name: str, written: str | None = None) -> str:
    """HTML: a name, as it is or as ``written``, with its meaning as a tooltip.

    >>> explained("M")
    "<span class='embvar-term' title='squared norm of the token&#x27;s mean embedding'>M</span>"
    """
    return (
        f"<span class='embvar-term' title='{html.escape(MEANINGS[name])}'>{written or name}</span>"
    )


def fit_text(fit: Mapping[str, Any], name: Callable[[str], str] = str, only: str = "") -> str:
    """A regression in words, its measures named by ``name``.

    Args:
        fit: ``n_tokens``; and ``slope``, ``r2`` and ``cv_Q``, or ``why`` there is no line.
        name: writes the name of a measure.
        only: a filter of the tokens, in words.

    >>> fit_text({"n_tokens": 1200, "slope": -0.9, "r2": 0.5, "cv_Q": 0.1})
    '1,200 tokens, slope −0.900, R² 0.500, CV of Q 0.100'
    """
    tokens = f"{fit['n_tokens']:,} tokens" + (f" ({only})" if only else "")
    if "why" in fit:
        return f"{tokens}; no line: {fit['why']}"
    return f"{tokens}, {line_text(fit['slope'], fit['r2'], fit['cv_Q'], name)}"


def line_text(
    slope: float, r2: float, cv_Q: float | None = None, name: Callable[[str], str] = str
) -> str:
    """The measures of a line in words, each named by ``name``.

    >>> line_text(-0.9, float("nan"))
    'slope −0.900, R² undefined'
    """
    measures = {"slope": slope, "R²": r2} | ({} if cv_Q is None else {"CV of Q": cv_Q})
    return ", ".join(f"{name(one)} {decimal(value)}" for one, value in measures.items())


def times(counts: tuple[int, int | None]) -> str:
    """A range of frequencies in words.

    >>> times((10, 2000)), times((10, None))
    ('10 to 2,000 times', '10 times or more')
    """
    least, most = counts
    return f"{least:,} times or more" if most is None else f"{least:,} to {most:,} times"


def signed(value: float) -> str:
    """A difference with its sign, as :func:`number` formats it.

    >>> signed(1.5), signed(-1.5)
    ('+1.5', '−1.5')
    """
    return f"{'+' if value >= 0 else ''}{number(value + 0.0)}"  # without the sign of a negative 0


def marked_table(
    shown: pd.DataFrame,
    layer: int,
    hidden: int,
    expression: str | None = None,
    why: str = "outside the range or the filter",
) -> str:
    """HTML: Q, M and V of the marked tokens at the layer shown.

    Args:
        shown: rows ``token, n, Q, M, V`` of the marked tokens that are in the range shown.
        layer: the layer shown.
        hidden: how many other tokens are marked, but not shown.
        expression: the Python expression that gives them as a DataFrame.
        why: why those are not shown.
    """
    titles = ["token", "occurrences n<sub>t</sub>", *map(explained, "QMV")]
    rows = []
    if len(shown) > 1:
        means = [number(shown[name].mean()) for name in "QMV"]
        rows.append([f"<i>mean of {len(shown):,}</i>", "", *means])
    for row in shown.nlargest(MOST_LISTED, "n").itertuples(index=False):
        values = [number(value) for value in (row.Q, row.M, row.V)]
        rows.append([html.escape(str(row.token)), f"{row.n:,}", *values])
    more = f"<p>and {len(shown) - MOST_LISTED:,} more</p>" if len(shown) > MOST_LISTED else ""
    tokens = "1 marked token" if hidden == 1 else f"{hidden:,} marked tokens"
    out = f"<p>Not shown: {tokens} ({why})</p>" if hidden else ""
    how = f"; as a table in a cell: <code>{html.escape(expression)}</code>" if expression else ""
    return f"<b>Marked at layer {layer}</b>{how}{table(titles, rows)}{more}{out}"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """HTML: a table of numbers, the first column of names."""
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
    return f"<table class='embvar-table'><tr>{head}</tr>{lines}</table>"


def contexts_table(contexts: Sequence[Context], count: int, corpus: str) -> str:
    """HTML: some of a token's occurrences, the keyword in the middle, each with its source.

    Args:
        contexts: the occurrences in the plot; those listed are spread evenly over them. A line
            tells which of them it is, for the dot that the plot rings.
        count: how often the token occurs.
        corpus: name of the corpus.
    """
    lines = []
    spread = np.unique(np.linspace(0, len(contexts) - 1, MOST_NAMED).astype(int))
    for at in spread:
        context = contexts[at]
        left, keyword, right, where = map(
            html.escape, (context.left, context.keyword, context.right, context.where)
        )
        source = where
        if context.link:
            link = html.escape(context.link, quote=True)
            source = f"<a href='{link}' target='_blank' rel='noopener'>{where}</a>"
        lines.append(
            f"<tr data-area='{at}'><td class='embvar-before'><div><span>{left}</span></div></td>"
            f"<td><b>{keyword}</b></td><td class='embvar-after'>{right}</td>"
            f"<td class='embvar-source' title='{html.escape(context.where)}'>{source}</td></tr>"
        )
    shown = len(lines)
    head = "".join(
        f"<th scope='col'>{name}</th>" for name in ("before", "token", "after", "source")
    )
    return (
        f"<p>{count:,} occurrences in {html.escape(corpus)}; {len(contexts)} are plotted above, "
        f"{shown} listed here:</p>"
        f"<table class='embvar-kwic'><tr>{head}</tr>{''.join(lines)}</table>"
    )


def number(value: float) -> str:
    """A squared norm with three or four significant digits and commas between thousands.

    >>> number(93.4567), number(123456.7), number(-0.00123)
    ('93.46', '123,457', '−0.00123')
    """
    if abs(value) >= 1000:
        return with_minus(f"{value:,.0f}")
    return with_minus(f"{value:.4g}" if abs(value) >= 1 or value == 0 else f"{value:.3g}")


def decimal(value: float) -> str:
    """A share, a slope or a correlation with three decimal places; NaN is undefined.

    >>> decimal(-0.9354), decimal(float("nan"))
    ('−0.935', 'undefined')
    """
    return "undefined" if np.isnan(value) else with_minus(f"{value:.3f}")
