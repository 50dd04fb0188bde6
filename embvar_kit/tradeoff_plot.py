"""The scatter plot of the trade-off explorer: jupyter-scatter, tied to the explorer's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize, to_rgba

from embvar_kit.drawing import FREQUENCY_MAP
from embvar_kit.exploring import named
from embvar_kit.tradeoff_state import TradeoffState

MARK = "#d55e00"
"""Vermilion: no colour of viridis, and told from them by colour-blind readers."""

_MOST_TRAILS = 30  # lines from where marked tokens were
_X, _Y, _COLOUR = "across", "up", "log10 n_t"  # columns of what the plot is given


class TradeoffPlot:
    """V against M: the points, the line, the marks and the selection of a state.

    Attributes:
        scatter: the ``jscatter.Scatter``.
        widget: its widget.
    """

    def __init__(self, state: TradeoffState, height: int) -> None:
        from jscatter import Scatter  # takes a second to import

        self.state = state
        self._echo = False
        self._shown = state.points
        self._data = self._columns()
        x, y = self._scales()
        self.scatter = scatter = Scatter(data=self._data, x=_X, y=_Y, x_scale=x, y_scale=y)
        scatter.options(
            transition_points=False,
            regl_scatterplot_options={
                "pointSizeSelected": 5,
                "pointOutlineWidth": 2,
                "opacityInactiveMax": 1,
            },
        )
        label = {"variable": _COLOUR}
        scatter.color(by=_COLOUR, map=FREQUENCY_MAP, norm=self._norm(), labeling=label)
        scatter.size(default=4)
        scatter.axes(True, grid=True, labels=self._titles())
        scatter.legend(True, position="top-right", size="small")
        properties = ["token", "n_t", "Q", "M", "V"]
        scatter.tooltip(True, properties=properties, histograms=False, size="small")
        scatter.height(height)
        scatter.annotations(self._lines())
        self.widget = named(scatter.widget, "embvar-scatter")
        # One colour for all marked points, and one for the point hovered over, needs as many
        # entries as the map has: a single one is taken for points that no column colours.
        self.widget.color_selected = [to_rgba(MARK)] * len(self.widget.color)
        self.widget.color_hover = [to_rgba("black")] * len(self.widget.color)
        self._steady()
        self._mark()
        state.observe(lambda _: self._draw(), "drawn")
        state.observe(lambda _: self._mark(), "marked")
        state.observe(lambda _: scatter.annotations(self._lines()), ["marked", "compare"])
        self.widget.observe(self._selected, "selection")

    # Points

    def _columns(self) -> pd.DataFrame:
        """The points as jscatter takes them; Q, M and V as its tooltip shows them."""
        points = self.state.points
        at = points.at(self.state.layer)
        M, V = points.M[at], points.V[at]
        if self.state.scales == "log":  # what has no logarithm is shown at the edge
            (low_M, _), (low_V, _) = self.state.limits()
            M, V = np.maximum(M, low_M), np.maximum(V, low_V)
        columns = {_X: M, _Y: V}
        columns |= {name: _four_digits(getattr(points, name)[at]) for name in "QMV"}
        if self._shown is points and hasattr(self, "_data"):
            return self._data.assign(**columns)
        columns |= {_COLOUR: np.log10(points.n), "token": points.tokens, "n_t": points.n}
        return pd.DataFrame(columns)

    def _draw(self) -> None:
        """New points, and with them the line: in one message, so that they change together."""
        before, same = len(self._data), self._shown is self.state.points
        self._data = self._columns()
        self._shown = self.state.points
        scatter, (x, y) = self.scatter, self._scales()
        with self.widget.hold_sync():
            if same:  # another layer: the same tokens elsewhere
                self.widget.data = self._data
                scatter.xy(self._data[_X], self._data[_Y], x_scale=x, y_scale=y, animate=False)
            else:
                if len(self._data) != before:
                    # The plot takes its selection back when the number of points changes.
                    selection = self.widget.selection
                    self._echo = selection is not None and len(selection) > 0
                scatter.xy(_X, _Y)  # of the old data, which the new replace
                scatter.color(norm=self._norm())
                scatter.data(self._data)
                self._steady()
                scatter.xy(_X, _Y, x_scale=x, y_scale=y, animate=False)
                self._mark(again=True)
            scatter.axes(labels=self._titles())
            scatter.annotations(self._lines())

    def _steady(self) -> None:
        """The same opacity everywhere: by density, jscatter's own choice, rare tokens vanish."""
        self.widget.opacity_by = None
        self.widget.opacity = 0.9
        self.widget.opacity_unselected = 0.45

    def _scales(self) -> tuple[Normalize, Normalize]:
        kind = LogNorm if self.state.scales == "log" else Normalize
        x, y = self.state.limits()
        return kind(*x), kind(*y)

    def _norm(self) -> Normalize:
        low, high = colour_range(self.state.points.n)
        return Normalize(np.floor(low), np.ceil(high))  # round numbers in the legend

    def _titles(self) -> list[str]:
        form = "unbiased " if self.state.unbiased else ""
        return [f"{form}M(X_t), squared norm of the mean", f"{form}V(X_t), variance"]

    # Lines

    def _lines(self) -> list[Any]:
        """The regression line; and from where marked tokens were in the layer to compare with."""
        from jscatter import Line

        state, points = self.state, self.state.points
        at = points.at(state.layer)
        drawn = []
        if "slope" in state.fit:
            M = points.M[at]
            along = np.geomspace if state.scales == "log" else np.linspace
            (left, right), _ = state.limits()
            ends = along(max(M.min(), left), min(M.max(), right), 200)
            V = state.fit["intercept"] + state.fit["slope"] * ends
            drawn.append((self._inside(ends, V), "#000000"))
        if state.compare is not None:
            then = points.at(state.compare)
            for row in points.rows(state.marked[:_MOST_TRAILS]):
                M, V = (np.linspace(x[then, row], x[at, row], 200) for x in (points.M, points.V))
                drawn.append((self._inside(M, V), MARK))
        return [Line(line, line_color=colour, line_width=2) for line, colour in drawn if line]

    def _inside(self, M: np.ndarray, V: np.ndarray) -> list[tuple[float, float]]:
        """The part of a line that lies inside the axes: straight axes need its ends only."""
        (x0, x1), (y0, y1) = self.state.limits()
        seen = (M >= x0) & (M <= x1) & (V >= y0) & (V <= y1)
        if seen.sum() < 2:
            return []
        M, V = M[seen], V[seen]
        if self.state.scales != "log":
            M, V = M[[0, -1]], V[[0, -1]]
        return list(zip(M.tolist(), V.tolist(), strict=True))

    # Marks and selection

    def _mark(self, again: bool = False) -> None:
        rows = self.state.points.rows(self.state.marked)
        there = self.widget.selection
        if again or there is None or not np.array_equal(rows, there):
            self.scatter.selection(rows)

    def _selected(self, change: Mapping) -> None:
        """Points clicked or lassoed: mark their tokens; a single one opens its card."""
        state = self.state
        chosen = [] if change["new"] is None else np.asarray(change["new"]).astype(int)
        marked = state.points.rows(state.marked)
        if self._echo and not len(chosen):
            self._echo = False
            self.scatter.selection(marked)
            return
        if np.array_equal(np.sort(chosen), np.sort(marked)):
            return
        tokens = [str(token) for token in state.points.tokens[chosen]]
        state.marked = tokens
        if len(tokens) == 1:
            state.token = tokens[0]


def colour_range(n: np.ndarray) -> tuple[float, float]:
    """The range of log10 n_t: 1 to 2, or more where there is more."""
    return min(1.0, float(np.log10(n.min()))), max(2.0, float(np.log10(n.max())))


def _four_digits(x: np.ndarray) -> np.ndarray:
    """Rounded to four digits, as a tooltip shows them."""
    scale = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(x), 1e-12))))
    return np.round(x * scale) / scale
