"""Numbers and small tables as HTML, for the explorers. What comes from a text is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from embvar_kit.concordance import Context

MOST_NAMED = 12
"""Tokens whose numbers a table shows."""


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def marked_table(here: pd.DataFrame, layer: int, hidden: int) -> str:
    """HTML: Q, M and V of the marked tokens at the layer shown.

    Args:
        here: their rows, ``token, n, Q, M, V``.
        layer: the layer shown.
        hidden: how many more are marked and outside the range shown.
    """
    lines = "".join(
        f"<tr><td style='text-align:left'>{html.escape(str(row.token))}</td><td>{row.n:,}</td>"
        + "".join(f"<td>{number(getattr(row, name))}</td>" for name in "QMV")
        + "</tr>"
        for row in here[:MOST_NAMED].itertuples(index=False)
    )
    more = f"<p>and {len(here) - MOST_NAMED:,} more</p>" if len(here) > MOST_NAMED else ""
    out = f"<p>{hidden:,} of the marked tokens are outside the range shown</p>" if hidden else ""
    head = "".join(f"<th>{name}</th>" for name in ("token", "n<sub>t</sub>", "Q", "M", "V"))
    mean = ""
    if len(here) > 1:
        values = "".join(f"<td>{number(here[name].mean())}</td>" for name in "QMV")
        mean = f"<tr><td style='text-align:left'><i>mean of {len(here):,}</i></td><td></td>{values}"
    return (
        f"<b>Marked at layer {layer}</b><table class='embvar-table' style='text-align:right;"
        f"border-spacing:10px 0'><tr>{head}</tr>{lines}{mean}</table>{more}{out}"
    )


def contexts_table(contexts: Sequence[Context], count: int, corpus: str) -> str:
    """HTML: a token's first occurrences, the keyword in the middle, each with its source.

    Args:
        contexts: those that were looked at.
        count: how often the token occurs.
        corpus: the name of the text.
    """
    lines = []
    for context in contexts[:MOST_NAMED]:
        left, keyword, right, where = map(
            html.escape, (context.left, context.keyword, context.right, context.where)
        )
        source = where
        if context.link:
            link = html.escape(context.link, quote=True)
            source = f"<a href='{link}' target='_blank' rel='noopener'>{where}</a>"
        lines.append(
            f"<tr><td style='text-align:right;padding:0 6px'>{left}</td>"
            f"<td style='text-align:center;white-space:nowrap'><b>{keyword}</b></td>"
            f"<td style='text-align:left;padding:0 6px'>{right}</td>"
            f"<td style='text-align:left;font-size:90%'>{source}</td></tr>"
        )
    shown = min(MOST_NAMED, len(contexts))
    return (
        f"<p>{count:,} occurrences in {html.escape(corpus)}; {shown} of them, "
        f"{len(contexts)} in the plane above:</p><div style='overflow-x:auto'>"
        f"<table style='line-height:1.35'>{''.join(lines)}</table></div>"
    )


def number(value: float) -> str:
    """A squared norm as it is read: three or four digits, thousands apart.

    >>> number(93.4567), number(123456.7), number(0.00123)
    ('93.46', '123,457', '0.00123')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
