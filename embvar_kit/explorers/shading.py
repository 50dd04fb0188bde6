"""The colours of the points: a colour map for numbers, distinct colours for categories, a legend.

All are safe for colour-blind readers: viridis for numbers, blue to wine red for what lies on both
sides of 0, Paul Tol's *muted* colours for categories. None is the vermilion of the marks.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import (
    BoundaryNorm,
    Colormap,
    LinearSegmentedColormap,
    ListedColormap,
    LogNorm,
    Normalize,
    to_hex,
)

from embvar_kit.explorers.columns import COUNT, RESIDUAL, Column
from embvar_kit.explorers.tables import number
from embvar_kit.figures.style import FREQUENCY_MAP, count_range

SHADES = 64
"""Colours that the points can have. A colour takes a hundred bytes, in several lists that the
browser gets, and 64 look the same as 256."""

CATEGORIES = (
    *("#332288", "#cc6677", "#44aa99", "#ddcc77", "#882255", "#88ccee", "#aa4499", "#117733"),
)
NO_VALUE = "#c0c0c0"

# Grey in the middle, not white: a token on the line must be seen on the white plot.
_DIVERGING = LinearSegmentedColormap.from_list(
    "both sides", ["#08306b", "#3f8fd2", "#cdcdc4", "#c6536a", "#67001f"]
)
_CELLS = 80  # cells of a side of the plot, in which points are counted
_FILL = 1.0  # points in a cell up to which each keeps its opacity
_LEAST = 0.05  # opacity below which a browser's eight bits no longer add up

_MOST_SEEN = 0.99  # of residuals; the few that are farther out have the colour of the end


@dataclass(frozen=True)
class Shading:
    """The colours of some tokens by a column.

    Attributes:
        column: the column, of the tokens that are drawn.
    """

    column: Column

    @cached_property
    def map(self) -> Colormap:
        """The colour map, for a figure."""
        if self.column.categories:
            return ListedColormap(CATEGORIES[: len(self.column.categories)]).with_extremes(
                bad=NO_VALUE
            )
        diverging = self.column.name == RESIDUAL
        return (_DIVERGING if diverging else colormaps[FREQUENCY_MAP]).with_extremes(bad=NO_VALUE)

    @cached_property
    def norm(self) -> Normalize:
        """From values to places in the map; values beyond its ends have the ends' colours."""
        column, seen = self.column, self.column.values[~np.isnan(self.column.values)]
        if column.categories:
            return BoundaryNorm(np.arange(len(column.categories) + 1) - 0.5, self.map.N)
        if not len(seen):
            return Normalize(0, 1, clip=True)
        if column.name == COUNT:  # round numbers in the legend
            low, high = count_range(seen)
            return LogNorm(10 ** np.floor(low), 10 ** np.ceil(high), clip=True)
        if column.name == RESIDUAL:
            most = float(np.quantile(np.abs(seen), _MOST_SEEN)) or 1.0
            return Normalize(-most, most, clip=True)
        low, high = float(seen.min()), float(seen.max())
        if low == high:
            low, high = low - 0.5, high + 0.5
        return (LogNorm if column.log else Normalize)(low, high, clip=True)

    @property
    def label(self) -> str:
        """What a figure's colour bar says."""
        if self.column.name == COUNT:
            return r"occurrences: $\log_{10} n_t$"
        own = self.column.title == self.column.name
        title = self.column.title if own else re.sub("<.*?>", "", self.column.title)
        return title.replace("$", r"\$")

    @property
    def shades(self) -> list[list[float]]:
        """The colours of the points, red, green, blue and opacity; the last is of no value."""
        numbers = np.linspace(0, 1, SHADES)
        at = np.arange(SHADES) % self.map.N if self.column.categories else numbers
        found = np.round(self.map(at), 3).tolist()
        if np.isnan(self.column.values).any():
            found[-1] = np.round(self.map(np.nan), 3).tolist()
        return found

    def places(self) -> np.ndarray:
        """``(T,)`` the place of each token's colour among :attr:`shades`, as a share of them."""
        values = self.column.values
        none = np.isnan(values)
        if self.column.categories:
            at = np.where(none, SHADES - 1, values)
        else:
            share = np.ma.filled(self.norm(np.where(none, self.norm.vmin, values)), 0.0)
            at = np.where(none, SHADES - 1, np.floor(share * (SHADES - 1 - none.any())))
        # A quarter above the number: the browser rounds downwards, with seven digits.
        return np.minimum(1.0, (at + 0.25) / (SHADES - 1))

    def legend(self) -> dict[str, Any]:
        """What the plot's legend shows: a title, and either a scale with marks or swatches."""
        column, none = self.column, np.isnan(self.column.values).any()
        swatches = [("no value", NO_VALUE)] if none else []
        title = column.title if column.name != column.title else html.escape(column.title)
        if column.categories:
            present = set(column.values[~np.isnan(column.values)].astype(int))
            named = zip(column.categories, CATEGORIES, strict=False)
            named = [pair for at, pair in enumerate(named) if at in present]
            return {"title": title, "swatches": [*named, *swatches]}
        colours = [to_hex(self.map(at)) for at in np.linspace(0, 1, 12)]
        legend = {"title": title, "colours": colours, "marks": self._marks()}
        return legend | ({"swatches": swatches} if swatches else {})

    def _marks(self) -> list[tuple[float, str]]:
        """Places on the scale, and the numbers there."""
        norm, column = self.norm, self.column
        if column.name == COUNT:
            low, high = (int(np.round(np.log10(end))) for end in (norm.vmin, norm.vmax))
            powers = {power: f"10<sup>{power}</sup>" for power in range(low, high + 1)}
            powers |= {0: "1", 1: "10"}
            return [(float(norm(10.0**x)), powers[x]) for x in range(low, high + 1)]
        if column.name == RESIDUAL:
            ends = f"≤ {_written(norm.vmin)}", f"≥ {_written(norm.vmax)}"
            return [(0.0, ends[0]), (0.5, "0"), (1.0, ends[1])]
        middle = np.sqrt(norm.vmin * norm.vmax) if column.log else (norm.vmin + norm.vmax) / 2
        return [(at, _written(x)) for at, x in ((0, norm.vmin), (0.5, middle), (1, norm.vmax))]


def opacities(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``(T,)`` an opacity for each point, the less the more points are near it.

    It falls with the root of their number: a place where more of them lie on one another is darker,
    and a point that is alone stays as it is.

    Args:
        x, y: ``(T,)`` places of the points, as shares of the axes from 0 to 1.
    """
    cells = np.clip((np.stack([x, y]) * _CELLS).astype(int), 0, _CELLS - 1)
    at = np.ravel_multi_index(cells, (_CELLS, _CELLS))
    near = np.bincount(at, minlength=_CELLS**2).reshape(_CELLS, _CELLS)
    # A cell and those around it, so that the edges of cells do not show.
    padded = np.pad(near, 1)
    around = sum(
        padded[i : i + _CELLS, j : j + _CELLS] * weight
        for i, row in enumerate(((1, 2, 1), (2, 4, 2), (1, 2, 1)))
        for j, weight in enumerate(row)
    )
    return np.clip(np.sqrt(_FILL / np.maximum(around.ravel()[at] / 16, _FILL)), _LEAST, 1.0)


def _written(value: float) -> str:
    return number(float(f"{value:.3g}"))
