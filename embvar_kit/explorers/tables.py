"""Numbers and small tables as HTML, for the explorers. Text from a corpus is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # this imports torch, which takes seconds
    from embvar_kit.explorers.concordance import Context

MOST_NAMED = 12
"""Largest number of tokens, or of occurrences, that a table lists."""


def signed(value: float) -> str:
    """A difference with its sign, as :func:`number` formats it.

    >>> signed(1.5), signed(-1.5)
    ('+1.5', '−1.5')
    """
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def marked_table(shown: pd.DataFrame, layer: int, hidden: int) -> str:
    """HTML: Q, M and V of the marked tokens at the layer shown.

    Args:
        shown: rows ``token, n, Q, M, V`` of the marked tokens that are in the range shown.
        layer: the layer shown.
        hidden: how many other tokens are marked, but outside the range shown.
    """
    lines = "".join(
        f"<tr>{cell(html.escape(str(row.token)), 'left')}{cell(f'{row.n:,}')}"
        + "".join(cell(number(getattr(row, name))) for name in "QMV")
        + "</tr>"
        for row in shown.nlargest(MOST_NAMED, "n").itertuples(index=False)
    )
    more = f"<p>and {len(shown) - MOST_NAMED:,} more</p>" if len(shown) > MOST_NAMED else ""
    out = f"<p>{hidden:,} of the marked tokens are outside the range shown</p>" if hidden else ""
    titles = ("token", "n<sub>t</sub>", "Q", "M", "V")
    head = "".join(
        cell(f"<b>{name}</b>", "left" if name == "token" else "right") for name in titles
    )
    mean = ""
    if len(shown) > 1:
        values = "".join(cell(number(shown[name].mean())) for name in "QMV")
        mean = f"<tr>{cell(f'<i>mean of {len(shown):,}</i>', 'left')}{cell('')}{values}</tr>"
    return (
        f"<b>Marked at layer {layer}</b><table class='embvar-table'>"
        f"<tr>{head}</tr>{lines}{mean}</table>{more}{out}"
    )


def contexts_table(contexts: Sequence[Context], count: int, corpus: str) -> str:
    """HTML: some of a token's occurrences, the keyword in the middle, each with its source.

    Args:
        contexts: the occurrences in the plot; those listed are spread evenly over them.
        count: how often the token occurs.
        corpus: name of the corpus.
    """
    lines = []
    spread = np.unique(np.linspace(0, len(contexts) - 1, MOST_NAMED).astype(int))
    for context in [contexts[at] for at in spread]:
        left, keyword, right, where = map(
            html.escape, (context.left, context.keyword, context.right, context.where)
        )
        source = where
        if context.link:
            link = html.escape(context.link, quote=True)
            source = f"<a href='{link}' target='_blank' rel='noopener'>{where}</a>"
        lines.append(
            f"<tr>{cell(left, wrap=True)}{cell(f'<b>{keyword}</b>', 'center')}"
            f"{cell(right, 'left', wrap=True)}{cell(source, 'left', wrap=True)}</tr>"
        )
    shown = len(lines)
    return (
        f"<p>{count:,} occurrences in {html.escape(corpus)}; {len(contexts)} are plotted above, "
        f"{shown} listed here:</p><div style='overflow-x:auto'>"
        f"<table style='line-height:1.35'>{''.join(lines)}</table></div>"
    )


def number(value: float) -> str:
    """A squared norm with three or four significant digits and commas between thousands.

    >>> number(93.4567), number(123456.7), number(0.00123)
    ('93.46', '123,457', '0.00123')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def cell(text: str, align: str = "right", *, wrap: bool = False) -> str:
    """A table cell, styled inline because JupyterLab's own styles for tables would differ."""
    style = f"text-align:{align};padding:1px 8px;vertical-align:top"
    return f"<td style='{style}{'' if wrap else ';white-space:nowrap'}'>{text}</td>"
