"""What the symbols stand for and where the sites lie: a sheet of symbols, a drawing of two blocks.

Both are drawings for a lecture or for the desk. They show no data.
"""

from __future__ import annotations

import unicodedata
from textwrap import fill
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from embvar_kit.figures.style import COLOURS, looks


class Symbol(NamedTuple):
    """A row of the sheet of symbols.

    Attributes:
        name: the symbol as plain text, or the site as ``extract(site=...)`` takes it.
        written: the same as the sheet writes it.
        formula: what it is, as a formula.
        words: what it is, in words.
        section: the section of a notebook that introduces it.
    """

    name: str
    written: str
    formula: str
    words: str
    section: str


SYMBOLS = {
    "One token $t$ and the set $X_t$ of its embeddings $x$, of $d$ features each, at one layer": (
        Symbol(
            "n_t", "$n_t$", r"$\vert X_t\vert$", "occurrences of the token in the corpus", "1.2"
        ),
        Symbol(
            "Q",
            "$Q$",
            r"$\mathbb{E}\,\Vert x\Vert^2 = M + V$",
            "mean squared norm: how far $x$ is from the origin",
            "1.2",
        ),
        Symbol(
            "M",
            "$M$",
            r"$\Vert\mu\Vert^2,\quad \mu = \mathbb{E}\,x$",
            r"squared norm of the mean: how far $\mu$ is from the origin",
            "1.2",
        ),
        Symbol(
            "V",
            "$V$",
            r"$\mathbb{E}\,\Vert x-\mu\Vert^2$",
            r"variance: how far $x$ is from $\mu$",
            "1.2",
        ),
        Symbol(
            "M̃",
            r"$\tilde{M}$",
            r"$M - V\;/\;(n_t - 1)$",
            "$M$ without the bias of few occurrences; an estimate, which may come out negative",
            "2.4",
        ),
        Symbol(
            "Ṽ",
            r"$\tilde{V}$",
            r"$n_t V\;/\;(n_t - 1)$",
            "$V$ without the bias of few occurrences",
            "2.4",
        ),
    ),
    "All embeddings together: $X$ is the union of the $X_t$": (
        Symbol("n", "$n$", r"$\Sigma_t\;n_t$", "embeddings in $X$, the union of all $X_t$", "6.1"),
        Symbol(
            "V_W",
            "$V_W$",
            r"$\Sigma_t\;(n_t/n)\,V(X_t)$",
            "variance within tokens, over their contexts",
            "6.1",
        ),
        Symbol(
            "V_B",
            "$V_B$",
            r"$\Sigma_t\;(n_t/n)\,\Vert\mu(X_t)-\mu(X)\Vert^2$",
            "variance between tokens: $V(X)=V_W+V_B$",
            "6.1",
        ),
    ),
    "Over tokens, each of them one point; slope and $R^2$ are those of $V$ on $M$, "
    "and the null has its labels permuted": (
        Symbol(
            "cv_Q",
            r"$\mathrm{cv}_Q$",
            r"$\mathrm{sd}(Q)\;/\;\mathrm{mean}(Q)$",
            "coefficient of variation: how far $Q$ is from constant",
            "3.6",
        ),
        Symbol(
            "r",
            "$r$",
            r"$\mathrm{sd}(Q)\;/\;\mathrm{sd}(M)$",
            "spread of $Q$ beside that of $M$: small, if a line is clear",
            "4.4",
        ),
        Symbol(
            "ρ",
            r"$\rho$",
            r"$\mathrm{corr}(Q, M)$",
            r"how far $Q$ goes along with $M$; the slope of $V$ on $M$ is $-1+\rho r$",
            "4.4",
        ),
    ),
    r"Sites: where in the model the embeddings are taken; $\gamma$ and $\beta$ are learned, "
    "one number a feature": (
        Symbol(
            "hidden",
            "hidden",
            r"$x$",
            "hidden state between two blocks, as the model returns it: the paper's choice",
            "3.4",
        ),
        Symbol("unit", "unit", r"$x\;/\;\Vert x\Vert$", "hidden state scaled to norm 1", "3.4"),
        Symbol(
            "norm_input",
            "norm_input",
            r"$h$",
            "a normalization's input; in Pre-LN all states but the last",
            "5.4",
        ),
        Symbol(
            "standardized",
            "standardized",
            r"$z = \sqrt{d}\,c\;/\;\Vert c\Vert,\quad c = h - \mathrm{mean}(h)$",
            r"inside the normalization, scaled to one length, before $\gamma$ and $\beta$ "
            "(RMSNorm: $c=h$)",
            "5.4",
        ),
        Symbol(
            "norm_output",
            "norm_output",
            r"$y = \gamma\odot z+\beta$",
            "what it gives out; in Post-LN, the hidden state",
            "5.4",
        ),
    ),
}
"""The symbols of the kit by what they describe, in the order in which the sheet shows them."""

SITES = ("norm_input", "standardized", "norm_output")
"""The three sites around a normalization, in the order in which a vector passes them."""


def symbol_sheet() -> Figure:
    """All symbols on one page: formula, meaning in words, and the section that introduces each.

    The page is A4 in landscape format. Its rows are those of :data:`SYMBOLS`.
    """
    figure = plt.figure(figsize=(11.69, 8.27))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 100), ylim=(100, 0))
    ax.axis("off")
    ax.text(4, 5, "Symbols", fontsize=19, weight="bold", va="center")
    formula = "for every set of vectors: $Q = M + V$"
    ax.text(96, 5, formula, fontsize=14, ha="right", va="center")
    for name, x in _COLUMNS.items():
        ax.text(x, 9.5, name, fontsize=11, color=COLOURS["Q"], va="center")
    y = 11.5
    for title, rows in SYMBOLS.items():
        ax.add_patch(Rectangle((3, y), 94, 3.6, color="#e8eef4", linewidth=0))
        ax.text(4, y + 1.8, title, fontsize=11.5, weight="bold", va="center")
        for row in rows:
            _row(ax, row, y + 5.8)
            y += 4.2
        y += 4.1
    return figure


_COLUMNS = {"symbol": 4, "what it is": 18, "in words": 45, "section": 90}


def _row(ax: Axes, row: Symbol, y: float) -> None:
    bare = unicodedata.normalize("NFD", row.name)[0]  # of M̃ and Ṽ
    colour = COLOURS.get(row.name) or COLOURS.get(bare, "black")
    look = {"fontsize": 16} if row.written.startswith("$") else {"fontsize": 12}
    family = None if row.written.startswith("$") else "monospace"
    where = dict(zip(("symbol", "formula", "words", "section"), _COLUMNS.values(), strict=True))
    ax.text(where["symbol"], y, row.written, color=colour, family=family, va="center", **look)
    ax.text(where["formula"], y, row.formula, fontsize=13.5, va="center")
    ax.text(where["words"], y, fill(row.words, 62), fontsize=11, linespacing=1.1, va="center")
    ax.text(where["section"], y, row.section, fontsize=11, va="center")


# The blocks

_STREAM, _BRANCH, _TOP = 0.0, 2.3, 10.8
_INK, _GREY = "#4d4d4d", "#eeeeee"


def blocks() -> Figure:
    """A Post-LN and a Pre-LN block side by side, with hidden states and the three sites.

    A vector moves upwards. The normalization at which sites are measured is drawn in two steps,
    centring with scaling and the affine part with γ and β; the block's other one is a single box.
    The sites have the colours and markers that ``tradeoff_by_layer`` gives them.
    """
    figure, (post, pre) = plt.subplots(1, 2, figsize=(11.5, 5.9), layout="constrained")
    for ax, title in ((post, "Post-LN, as in BERT"), (pre, "Pre-LN, as in GPT-2")):
        ax.set(xlim=(-3.5, 5.3), ylim=(-0.5, _TOP + 0.1))
        ax.set_title(title, fontsize=15)
        ax.axis("off")
    _draw_post(post)
    _draw_pre(pre)
    return figure


def _draw_post(ax: Axes) -> None:
    _path(ax, (_STREAM, 0), (_STREAM, _TOP))
    _branch(ax, 0.55, 2.15)
    _box(ax, _BRANCH, 1.35, "self-attention")
    _box(ax, _STREAM, 3.0, "normalization", colour=_GREY)
    _branch(ax, 3.75, 5.3)
    _box(ax, _BRANCH, 4.5, "feed-forward")
    _hidden(ax, 0, r"$\ell - 1$")
    _site(ax, "norm_input", _STREAM, 6.1)
    _steps(ax, _STREAM, 7.0)
    _site(ax, "norm_output", _STREAM, 9.7)
    _hidden(ax, 9.7, r"$\ell$")
    _remark(ax, (-1.5, 3.0), "every sum goes\nthrough a\nnormalization", ha="right")
    _remark(ax, (-1.65, 7.8), "one normalization,\nin its two steps", ha="right")


def _draw_pre(ax: Axes) -> None:
    _path(ax, (_STREAM, 0), (_STREAM, _TOP))
    stream = {"color": "#bbbbbb", "linewidth": 10, "solid_capstyle": "butt", "zorder": 0}
    ax.plot([_STREAM] * 2, [0, _TOP - 0.5], label="residual stream", **stream)
    _branch(ax, 0.55, 5.3)
    _steps(ax, _BRANCH, 1.35)
    _site(ax, "norm_output", _BRANCH, 3.8)
    _box(ax, _BRANCH, 4.55, "self-attention")
    _branch(ax, 5.9, 8.4)
    _box(ax, _BRANCH, 6.6, "normalization", colour=_GREY)
    _box(ax, _BRANCH, 7.6, "feed-forward")
    _site(ax, "norm_input", _STREAM, 0, beside=(0.4, -0.2))
    _hidden(ax, 0, r"$\ell$")
    _hidden(ax, 9.7, r"$\ell + 1$")
    _remark(ax, (-0.5, 4.6), "the residual stream:\nno normalization\non this line", ha="right")
    _remark(
        ax,
        (0.5, 9.85),
        "behind the last block, one more\nnormalization gives the last\nhidden state",
    )


def _path(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A line from ``start`` that ends in an arrow at ``end``."""
    look = {"arrowstyle": "-|>", "color": _INK, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=look, zorder=1)


def _branch(ax: Axes, leaves: float, returns: float) -> None:
    """A way out of the stream and back into it, where a sum is taken."""
    corner = [_STREAM, _BRANCH, _BRANCH], [leaves, leaves, returns]
    ax.plot(*corner, color=_INK, linewidth=1.6, zorder=1)
    _path(ax, (_BRANCH, returns), (_STREAM + 0.24, returns))
    ax.plot(_STREAM, returns, "o", markersize=17, color="white", markeredgecolor=_INK, zorder=3)
    ax.text(_STREAM, returns, "+", fontsize=14, ha="center", va="center_baseline", zorder=4)


def _box(ax: Axes, x: float, y: float, text: str, *, colour: str = "white") -> None:
    look = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": colour, "edgecolor": _INK}
    ax.add_patch(FancyBboxPatch((x - 1.3, y - 0.3), 2.6, 0.6, zorder=2, **look))
    ax.text(x, y, text, fontsize=11, ha="center", va="center", zorder=4)


def _steps(ax: Axes, x: float, y: float) -> None:
    """The normalization that has the sites: its two steps, the first at the height ``y``."""
    look = {"facecolor": "#fff6df", "edgecolor": "#999999", "linestyle": "--", "zorder": 0.5}
    ax.add_patch(Rectangle((x - 1.45, y - 0.45), 2.9, 2.5, **look))
    _box(ax, x, y, "centre, scale")
    _site(ax, "standardized", x, y + 0.8, beside=(1.6, 0))
    _box(ax, x, y + 1.6, r"times $\gamma$, plus $\beta$")


def _site(
    ax: Axes, site: str, x: float, y: float, *, beside: tuple[float, float] = (0.4, 0)
) -> None:
    look = looks(len(SITES))[SITES.index(site)]
    point = {"marker": look["marker"], "color": look["color"], "markersize": 11, "zorder": 5}
    ax.plot(x, y, linestyle="none", label=site, **point)
    name = {"family": "monospace", "fontsize": 12.5, "weight": "bold", "va": "center"}
    ax.text(x + beside[0], y + beside[1], site, **name)


def _hidden(ax: Axes, y: float, layer: str) -> None:
    look = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 2}
    ax.plot(_STREAM, y, "o", markersize=18, zorder=6, label="hidden", **look)
    ax.text(_STREAM - 0.45, y, f"hidden state {layer}", fontsize=13, ha="right", va="center")


def _remark(ax: Axes, at: tuple[float, float], text: str, *, ha: str = "left") -> None:
    ax.text(*at, text, fontsize=11, style="italic", ha=ha, va="center")
