"""What is written in figures: models' names, formulas, tokens, and labels beside points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath

from embvar_kit.figures.placing import place
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import number_of

_LONGEST_LABEL = 24  # characters of a token in a picture or a list


def labels(statistics: Sequence[TokenStatistics]) -> list[str]:
    """A distinct name for each: the model's, and the corpus, site and so on where models repeat.

    A name always says how many tokens were left out.
    """
    names = [written(one.info["model"]["name"]) for one in statistics]
    distinctions = (
        lambda one: "on " + one.info["corpora"][0]["name"],
        lambda one: "site " + str(one.info.get("convention", {}).get("site")),
        lambda one: "by " + str(one.info.get("convention", {}).get("by")),
        lambda one: str(one.info["corpora"][0].get("settings") or "all sentences"),
    )
    for distinction in distinctions:
        for name in {name for name in names if names.count(name) > 1}:
            alike = [at for at, other in enumerate(names) if other == name]
            if len({distinction(statistics[at]) for at in alike}) > 1:
                for at in alike:
                    names[at] = f"{name}, {written(distinction(statistics[at]))}"
    for at, one in enumerate(statistics):
        if left_out := one.info.get("left_out"):
            names[at] += f" ({number_of(len(left_out), 'token')} left out)"
    repeated = {name for name in names if names.count(name) > 1}
    return [
        f"{name} [{names[: at + 1].count(name)}]" if name in repeated else name
        for at, name in enumerate(names)
    ]


def letter(one: TokenStatistics) -> str:
    """The index of a group in formulas: ``t`` for tokens, ``w`` for words."""
    return "w" if one.info.get("convention", {}).get("by") == "word" else "t"


def symbol(moment: str, group: str | None = None, *, unbiased: bool = False) -> str:
    """Q, M or V as a formula; the unbiased M and V have a tilde. ``group`` is from :func:`letter`.

    >>> symbol("Q", "t", unbiased=True), symbol("M", "t", unbiased=True), symbol("V")
    ('$Q(X_t)$', '$\\\\tilde{M}(X_t)$', '$V$')
    """
    corrected = unbiased and moment != "Q"
    of = "" if group is None else f"(X_{group})"
    return rf"$\tilde{{{moment}}}{of}$" if corrected else f"${moment}{of}$"


def counted(least: int, most: int | None, of: str = "t") -> str:
    """A range of counts as text.

    >>> counted(10, 100_000), counted(2, None, "w")
    ('10 <= n_t <= 100,000', '2 <= n_w')
    """
    return f"{least:,} <= n_{of}" + ("" if most is None else f" <= {most:,}")


def with_minus(number: str) -> str:
    """A number in digits with the minus sign of typography, as matplotlib writes it at axes.

    >>> with_minus("-0.93"), with_minus("2e-05")
    ('−0.93', '2e−05')
    """
    return number.replace("-", "\N{MINUS SIGN}")


def formula(counts: str) -> str:
    """A range of counts as a formula."""
    return f"${counts.replace('<=', chr(92) + 'leq').replace(',', '{,}')}$"


@lru_cache
def _font():
    return get_font(findfont(FontProperties()))


def written(text: str) -> str:
    """A token as matplotlib can write it: ``$`` escaped, and codes for what the font lacks.

    >>> written("$x$")
    '\\\\$x\\\\$'
    >>> written("\\u6c34")
    '\\\\u6c34'
    """
    shown = (
        char if char.isprintable() and _font().get_char_index(ord(char)) else f"\\u{ord(char):04x}"
        for char in str(text)
    )
    return "".join(shown).replace("$", r"\$")


def as_label(token: str) -> str:
    """A token as the label of a point, in quotation marks if it has no letter or digit.

    A long one, such as a rule of dashes, is cut: it would leave no room for the plot.

    >>> as_label("the"), as_label(","), as_label("-" * 80)
    ('the', '‘,’', '‘-----------------------…’')
    """
    text = written(shortened(token))
    return text if any(char.isalnum() for char in text) else f"‘{text}’"


def shortened(token: str) -> str:
    """A token for a place of limited width: its beginning, if it is long.

    >>> shortened("the"), shortened("x" * 30)
    ('the', 'xxxxxxxxxxxxxxxxxxxxxxx…')
    """
    return token if len(token) <= _LONGEST_LABEL else f"{token[: _LONGEST_LABEL - 1]}…"


def label_points(ax: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write a label beside each point so that it covers no other label and no labelled point.

    Where points crowd, labels are moved away, and lines join them to their points. Positions are
    chosen for the present size of the Axes: resize it before, not after.
    """
    texts = list(texts)
    ax.figure.draw_without_rendering()
    points = 72 / ax.figure.dpi
    spots = ax.transData.transform(np.column_stack([x, y])) * points
    size, height = 8.5, 11.0
    widths = [TextPath((0, 0), text, size=size).get_extents().width + 2 for text in texts]
    inside = ax.get_window_extent().extents * points
    placed = place(spots, np.array(widths), height, inside)
    line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
    for at, spot, centre, far, text in zip(
        np.column_stack([x, y]), spots, placed.centres, placed.far, texts, strict=True
    ):
        ax.annotate(
            text,
            xy=tuple(at),
            xytext=tuple(centre - spot),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops=line if far else None,
            zorder=6,
        )
