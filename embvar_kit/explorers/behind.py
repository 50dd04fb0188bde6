"""The picture behind the points of the trade-off explorer: the tokens of the null, in grey.

It is a picture, not more points: those would double what each step sends, and could be pointed at,
marked and lassoed as if they were tokens.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from embvar_kit.explorers.points import Points
from embvar_kit.figures.tradeoff import NULL_COLOUR

SIZE = 1200, 744
"""Width and height of the picture in pixels; the plot stretches it over its axes."""

_RADIUS = 3  # of a point, in these pixels


def cloud(
    points: Points,
    layer: int,
    limits: tuple[tuple[float, float], tuple[float, float]],
    *,
    log: bool,
) -> bytes:
    """A PNG of V against M of some tokens at a layer, grey on white.

    Args:
        points: the tokens.
        layer: the layer.
        limits: the ends of the axes of M and of V.
        log: whether the axes are logarithmic; values below their ends are then at the edge.
    """
    at = points.at(layer)
    width, height = SIZE
    across = _share(points.M[at], limits[0], log) * (width - 1)
    down = (1 - _share(points.V[at], limits[1], log)) * (height - 1)
    ink = np.zeros((height + 2 * _RADIUS, width + 2 * _RADIUS), dtype=np.uint8)
    rows, columns = np.rint(down).astype(int), np.rint(across).astype(int)
    for y, x in _disc(_RADIUS):
        ink[rows + y, columns + x] = 1
    image = Image.fromarray(ink[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS], mode="P")
    image.putpalette([255, 255, 255, *(round(255 * part) for part in to_rgb(NULL_COLOUR))])
    file = io.BytesIO()
    image.save(file, "png", bits=1, compress_level=3)
    return file.getvalue()


def _share(values: np.ndarray, ends: tuple[float, float], log: bool) -> np.ndarray:
    """Where values lie between two ends, from 0 to 1."""
    low, high = ends
    if log:
        values, low, high = np.log(np.maximum(values, low)), np.log(low), np.log(high)
    return np.clip((values - low) / (high - low), 0, 1)


def _disc(radius: int) -> list[tuple[int, int]]:
    """The pixels of a disc, from the upper left corner of the square around it."""
    steps = np.arange(-radius, radius + 1)
    y, x = np.nonzero(np.hypot(*np.meshgrid(steps, steps)) <= radius + 0.3)
    return list(zip(y.tolist(), x.tolist(), strict=True))
