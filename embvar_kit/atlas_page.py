"""The page that shows an atlas: plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from embvar_kit._version import __version__

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
        *map(_figure, drawn),
    ]
    if missing:
        parts.append('<h2 id="not-drawn">Not drawn, and why</h2><ul>')
        for entry in missing:
            what = f"{entry.paper}: {entry.title}" if entry.paper else entry.title
            parts.append(f"<li><b>{escape(what)}.</b> {escape(str(entry.reason))}</li>")
        parts.append("</ul>")
    parts.append(f"<p>Written by embvar-kit {escape(__version__)}.</p></body></html>")
    return "\n".join(parts) + "\n"


def _figure(entry: Entry) -> str:
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
