"""Tokens written into figures: no character is lost, no label covers another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox


@lru_cache
def _font():
    return get_font(findfont(FontProperties()))


def written(text: str) -> str:
    """A token as matplotlib can write it: no mathematics, and codes for what its font lacks.

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
    """A token as a label of a point: in quotation marks where it has no letter or digit.

    >>> as_label("the"), as_label(",")
    ('the', '‘,’')
    """
    text = written(token)
    return text if any(char.isalnum() for char in text) else f"‘{text}’"


def label_points(ax: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write a label beside each point, where it covers no other label nor labelled point.

    The places are found for the Axes' present size.
    """
    ax.figure.draw_without_rendering()
    at = ax.transData.transform(np.column_stack([x, y]))
    points = 72 / ax.figure.dpi
    size, height = 8.5, 11.0
    taken = [Bbox.from_bounds(*(p * points - 3), 6, 6) for p in at]
    around = [(np.cos(a), np.sin(a)) for a in np.radians([0, 180, 90, 270, 45, 135, 225, 315])]
    frame = ax.get_window_extent()
    inside = Bbox.from_extents(*(frame.extents * points))
    for spot, text in zip(at * points, texts, strict=True):
        width = TextPath((0, 0), text, size=size).get_extents().width + 2
        places = [
            (
                spot[0] + dx * (far + width / 2) - width / 2,
                spot[1] + dy * (far + height / 2) - height / 2,
            )
            for far in (6, 14, 26, 40)
            for dx, dy in around
        ]
        boxes = [Bbox.from_bounds(*place, width, height) for place in places]
        crowded = [
            box.count_overlaps(taken)
            + 3 * (box.x0 < inside.x0 or box.x1 > inside.x1)
            + 3 * (box.y0 < inside.y0 or box.y1 > inside.y1)
            for box in boxes
        ]
        best = int(np.argmin(crowded))
        taken.append(boxes[best])
        centre = (boxes[best].x0 + width / 2, boxes[best].y0 + height / 2)
        line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        ax.annotate(
            text,
            xy=ax.transData.inverted().transform(spot / points),
            xytext=tuple(np.subtract(centre, spot)),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops=line if best >= 8 else None,
            zorder=6,
        )
