"""The scatter plot of the trade-off explorer: points, line, marks and selection of a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize, to_rgba

from embvar_kit.explorers.behind import cloud
from embvar_kit.explorers.columns import BY_LAYER
from embvar_kit.explorers.controls import with_class
from embvar_kit.explorers.scatter_library import jscatter
from embvar_kit.explorers.scripted import PlotAxes
from embvar_kit.explorers.shading import Shading, opacities
from embvar_kit.explorers.tables import MOST_NAMED, explained
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.figures.tradeoff import NULL_LINE

if TYPE_CHECKING:
    from jscatter import Line

MARK = "#d55e00"
"""Colour of marks: vermilion, not in viridis and distinct from it for colour-blind readers."""

_MOST_TRAILS = 30  # lines from the marked tokens' places in the layer compared with
_OPACITIES = np.linspace(0, 1, 101).tolist()
_PLAIN = 0.9  # opacity of a point where none fades
_BUTTONS = ["pan_zoom", "lasso", "lasso_type", "lasso_brush_size", "divider", "reset"]
_X, _Y, _COLOUR, _OPACITY = "across", "up", "colour", "opacity"  # columns of the plot's data


class TradeoffPlot:
    """The scatter plot of a state: its points, regression line, marks and selection.

    Args:
        state: the explorer's state.
        height: in pixels; ``None`` lets it follow the width.

    Attributes:
        scatter: the ``jscatter.Scatter``.
        widget: its widget.
        view: the widget with axes and legend.
    """

    def __init__(self, state: TradeoffState, height: int | None) -> None:
        self.state = state
        self._expect_deselection = False
        self._shown, self._shading = state.points, Shading(state.column())
        self._data = self._new_data()
        x, y = self._scales()
        self.scatter = scatter = jscatter().Scatter(
            data=self._data, x=_X, y=_Y, x_scale=x, y_scale=y
        )
        scatter.options(
            transition_points=False,
            regl_scatterplot_options={
                "pointSizeSelected": 5,
                "pointOutlineWidth": 2,
                "opacityInactiveMax": 1,
            },
        )
        scatter.color(by=_COLOUR, map=self._shading.shades, norm=Normalize(0, 1))
        scatter.size(default=4)
        scatter.axes(False)
        scatter.legend(False)
        properties = ["token", "occurrences", "Q", "M", "V"]
        scatter.tooltip(True, properties=properties, histograms=False, size="small")
        scatter.annotations(self._lines())
        self.widget = with_class(scatter.widget, "embvar-scatter")
        self.widget.toolbar_buttons = _BUTTONS
        self._axes = PlotAxes(
            self.widget,
            height or 0,
            titles=self._titles(),
            legend=self._shading.legend(),
            names=self._names(),
            outermost=self._outermost(),
            behind=self._behind(),
        )
        self.view = with_class(widgets.VBox([self.widget, self._axes]), "embvar-plot")
        self._fix_colours()
        self._select_marked()
        state.observe(lambda _: self._update(), "drawn")
        state.observe(lambda _: self._update(recoloured=True), ["colour_by", "shaded"])
        state.observe(lambda _: self._show_marked(), "marked")
        state.observe(lambda _: self._draw_lines(), ["marked", "compare"])
        self.widget.observe(self._mark_selected, "selection")

    # Points

    def _new_data(self) -> pd.DataFrame:
        """Positions and colours of the points; Q, M and V as the tooltip shows them."""
        points = self.state.points
        columns = {_COLOUR: self._shading.places(), "token": points.shown, "occurrences": points.n}
        data = pd.DataFrame({**self._layer_columns(), **columns, _OPACITY: _PLAIN})
        if self.state.shaded:
            ends = zip((_X, _Y), self._scales(), strict=True)
            data[_OPACITY] = opacities(*(np.asarray(norm(data[name])) for name, norm in ends))
        return data

    def _layer_columns(self) -> dict[str, np.ndarray]:
        """The columns that depend on the layer."""
        points = self.state.points
        at = points.at(self.state.layer)
        M, V = points.M[at], points.V[at]
        if self.state.scales == "log":  # zeros are shown at the edge
            (low_M, _), (low_V, _) = self.state.limits()
            M, V = np.maximum(M, low_M), np.maximum(V, low_V)
        return {_X: M, _Y: V} | {name: _four_digits(getattr(points, name)[at]) for name in "QMV"}

    def _update(self, *, recoloured: bool = False) -> None:
        """Show the state's points and line; sent in one message, so that they change together."""
        state = self.state
        if not state.settled:  # another model has other columns, and draws anew
            return
        before, same_points = len(self._data), self._shown is state.points
        same_colours = same_points and not recoloured
        same_colours &= state.colour_by not in BY_LAYER and not state.shaded
        self._shown = state.points
        scatter, (x, y) = self.scatter, self._scales()
        with self.widget.hold_sync():
            if same_colours:
                self._data = self._data.assign(**self._layer_columns())
                self.widget.data = self._data
                scatter.xy(self._data[_X], self._data[_Y], x_scale=x, y_scale=y, animate=False)
            else:
                self._shading = Shading(state.column())
                self._data = self._new_data()
                if len(self._data) != before:
                    # jscatter clears its selection when the number of points changes.
                    selection = self.widget.selection
                    self._expect_deselection = selection is not None and len(selection) > 0
                # By column again: the branch above sets arrays. jscatter fits the scale of before
                # to the columns of before, and a logarithmic one fails where they have a zero.
                scatter.xy(_X, _Y, x_scale="linear", y_scale="linear")
                scatter.color(map=self._shading.shades)
                scatter.data(self._data)
                self._fix_colours()
                scatter.xy(_X, _Y, x_scale=x, y_scale=y, animate=False)
                self._select_marked(force=True)
            scatter.annotations(self._lines())
            self._axes.behind = self._behind()
        self._axes.titles = self._titles()
        self._name_tokens()
        if not same_colours:
            self._axes.legend = self._shading.legend()

    def _fix_colours(self) -> None:
        """The colours of marks, and the points' opacities; jscatter sets others with each map."""
        widget = self.widget
        # A single selection or hover colour is applied only to points not coloured by a column:
        # give it one entry for each colour of the map.
        mark = [round(part, 3) for part in to_rgba(MARK)]
        widget.color_selected = [mark] * len(widget.color)
        widget.color_hover = [(0, 0, 0, 1)] * len(widget.color)
        # The default, by density, gives all points one opacity: tokens that are alone vanish, too.
        # By a column even where all have the same: a message has its values in any order, and
        # jscatter fails, and draws no points, where the column's histogram goes before the column.
        self.scatter.opacity(by=_OPACITY, map=_OPACITIES, norm=(0, 1))
        widget.opacity_unselected = 0.45

    def _scales(self) -> tuple[Normalize, Normalize]:
        kind = LogNorm if self.state.scales == "log" else Normalize
        x, y = self.state.limits()
        return kind(*x), kind(*y)

    def _titles(self) -> list[str]:
        tilde, form = ("\N{COMBINING TILDE}", ", unbiased") if self.state.unbiased else ("", "")
        of = "(<i>X<sub>t</sub></i>)"
        what = {"M": "squared norm of the mean", "V": "variance"}
        return [
            f"{explained(name, f'<i>{name}{tilde}</i>{of}')}, {text}{form}"
            for name, text in what.items()
        ]

    def _names(self) -> list[tuple[float, float, str]]:
        """The marked tokens that are named in the plot, and where their points are drawn."""
        points = self.state.points
        rows = points.indices_of(self.state.marked)[:MOST_NAMED]
        places = self._data[[_X, _Y]].to_numpy()[rows].tolist()
        return [(x, y, points.shown[row]) for (x, y), row in zip(places, rows, strict=True)]

    def _outermost(self) -> list[tuple[float, float, str]]:
        """The unmarked tokens with the least and largest M, V and residual, and their places."""
        state, points = self.state, self.state.points
        unmarked = np.full(len(points.n), True)
        unmarked[points.indices_of(state.marked)] = False
        rows = np.flatnonzero(unmarked)
        if not len(rows):
            return []
        at = points.at(state.layer)
        M, V = points.M[at][rows], points.V[at][rows]
        sides = [M, V]
        if "slope" in state.fit:
            sides.append(V - state.fit["slope"] * M)
        ends = (find(side) for side in sides for find in (np.argmin, np.argmax))
        found = rows[list(dict.fromkeys(ends))]
        places = self._data[[_X, _Y]].to_numpy()[found].tolist()
        return [(x, y, points.shown[row]) for (x, y), row in zip(places, found, strict=True)]

    def _name_tokens(self) -> None:
        with self._axes.hold_sync():
            self._axes.names, self._axes.outermost = self._names(), self._outermost()

    def _behind(self) -> bytes:
        """The null's points as a picture, if they are drawn."""
        state = self.state
        if (null := state.null_points) is None:
            return b""
        return cloud(null, state.layer, state.limits(), log=state.scales == "log")

    # Lines

    def _draw_lines(self) -> None:
        if self.state.settled:
            self.scatter.annotations(self._lines())

    def _lines(self) -> list[Line]:
        """The regression line, and a trail from each marked token's place in the other layer."""
        state, points = self.state, self.state.points
        at = points.at(state.layer)
        drawn = []
        if (null := state.null_points) is not None:
            drawn += self._regression(state.null_fit, null.M[at], NULL_LINE)
        drawn += self._regression(state.fit, points.M[at], "#000000")
        if state.compare is not None:
            then = points.at(state.compare)
            for row in points.indices_of(state.marked[:_MOST_TRAILS]):
                M, V = (np.linspace(x[then, row], x[at, row], 200) for x in (points.M, points.V))
                drawn.append((self._clip(M, V), MARK))
        Line = jscatter().Line
        return [Line(line, line_color=colour, line_width=2) for line, colour in drawn if line]

    def _regression(
        self, fit: Mapping, M: np.ndarray, colour: str
    ) -> list[tuple[list[tuple[float, float]], str]]:
        """The vertices of a regression line over the values of M, with its colour."""
        if "slope" not in fit:
            return []
        along = np.geomspace if self.state.scales == "log" else np.linspace
        (left, right), _ = self.state.limits()
        ends = along(max(M.min(), left), min(M.max(), right), 200)
        return [(self._clip(ends, fit["intercept"] + fit["slope"] * ends), colour)]

    def _clip(self, M: np.ndarray, V: np.ndarray) -> list[tuple[float, float]]:
        """The vertices of a line that lie inside the axes; on linear axes, the two ends of it."""
        (x0, x1), (y0, y1) = self.state.limits()
        inside = (M >= x0) & (M <= x1) & (V >= y0) & (V <= y1)
        if inside.sum() < 2:
            return []
        M, V = M[inside], V[inside]
        if self.state.scales != "log":
            M, V = M[[0, -1]], V[[0, -1]]
        return list(zip(M.tolist(), V.tolist(), strict=True))

    # Selection

    def _show_marked(self) -> None:
        if not self.state.settled:
            return
        if self._shown is self.state.points:  # else the points are about to be drawn anew
            self._name_tokens()
        self._select_marked()

    def _select_marked(self, force: bool = False) -> None:
        """Select the marked tokens' points, if they are not selected or ``force`` is set."""
        marked = self.state.points.indices_of(self.state.marked)
        selected = self.widget.selection
        if force or selected is None or not np.array_equal(marked, selected):
            self.scatter.selection(marked)

    def _mark_selected(self, change: Mapping) -> None:
        """Mark the tokens of the points clicked or lassoed; a single one also opens its card."""
        state = self.state
        selected = [] if change["new"] is None else np.asarray(change["new"]).astype(int)
        marked = state.points.indices_of(state.marked)
        if self._expect_deselection and not len(selected):
            self._expect_deselection = False
            self.scatter.selection(marked)
            return
        if np.array_equal(np.sort(selected), np.sort(marked)):
            return
        tokens = [str(token) for token in state.points.tokens[selected]]
        state.marked = tokens
        if len(tokens) == 1:
            state.token = tokens[0]


def _four_digits(x: np.ndarray) -> np.ndarray:
    """Values rounded to four significant digits."""
    scale = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(x), 1e-12))))
    return np.round(x * scale) / scale
