"""The trade-off explorer: V against M for every token, to move through, search and look into."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.explorers.base import (
    CountsSlider,
    Explorer,
    TokenList,
    box,
    choice,
    framed,
    layer_slider,
    named,
    rows,
    tie,
)
from embvar_kit.explorers.rendering import png_of
from embvar_kit.explorers.tables import MOST_NAMED, marked_table, number, signed
from embvar_kit.explorers.token_card import TokenCard
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.figures.style import FREQUENCY_MAP, as_label, count_range, label_points
from embvar_kit.figures.tradeoff import scatter_V_on_M
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:
    from embvar_kit.models.loading import EmbeddingModel

_NONE = -1  # a dropdown takes a value of None for no choice at all
_MARGIN = 70  # pixels beside the plot, for its vertical axis


class TradeoffExplorer(Explorer):
    """V against M of every token of a layer; search, mark, compare layers, open a token's card.

    Args:
        stats: one model's statistics; several by name, ``{name: statistics}``; or several sites,
            ``{name: {site: statistics}}``.
        model, corpus: for the cards: a model that the statistics are of, or several, and the text
            whose occurrences are to be shown. Nothing is run before a card is opened, and then
            only sentences that hold its token.
        recall: where no model was given, load that of the statistics and its text again by their
            names when a card is first opened. Without either, a card shows the moments only.
        height: of the plot, in pixels.
        values: of the state at the start, ``layer=2`` for one.

    Attributes:
        state: see :class:`embvar_kit.explorers.tradeoff_state.TradeoffState`.
        card: the token card.
        plot: the scatter plot.
    """

    def __init__(
        self,
        stats: TokenStatistics | Mapping[str, Any],
        model: EmbeddingModel | Sequence[EmbeddingModel] | None = None,
        corpus: Corpus | None = None,
        *,
        recall: bool = False,
        height: int = 400,
        **values: Any,
    ) -> None:
        self.state = TradeoffState(stats, **values)
        found = []
        if model is not None or corpus is not None:
            from embvar_kit.explorers.concordance import concordances

            given = [one for sites in self.state.sources.values() for one in sites.values()]
            found = concordances(given, model, corpus)
        self.card = TokenCard(found, recall=recall)
        self.plot = TradeoffPlot(self.state, height)
        self.view = self._layout()
        for names, follow in (
            (["drawn"], self._say_fit),
            (["drawn", "marked"], self._show_marked),
            (["drawn", "compare", "distance"], self._show_moved),
            (["drawn", "search"], self._show_matches),
            (["drawn", "token"], self._show_card),
        ):
            self.state.observe(lambda _, follow=follow: follow(), names)
        self._say_fit()
        for follow in (self._show_marked, self._show_moved, self._show_matches, self._show_card):
            follow()

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait for the card's parts; whether they were made in time."""
        return self.card.wait(seconds)

    def still(self) -> bytes:
        """The figure of :func:`embvar_kit.figures.V_on_M`, the marked tokens named."""
        state = self.state
        figure = Figure(figsize=(7.4, 5.0), dpi=96, layout="constrained")
        ax = figure.subplots()
        table = state.table()[::-1]
        limits = count_range(table["n"])
        log = state.scales == "log"
        points, _ = scatter_V_on_M(ax, table, limits, size=9, log=log)
        if not log:
            x, y = state.limits()
            ax.set(xlim=x, ylim=y)
        ax.set(xlabel=_axis("M", state.unbiased), ylabel=_axis("V", state.unbiased))
        ax.set_title(_plain(f"{state.model}, layer {state.layer}: {self._fit_text()}"), fontsize=10)
        figure.colorbar(points, ax=ax, label=r"$\log_{10} n_t$")
        named_here = table[table["token"].isin(state.marked[:MOST_NAMED])]
        if len(named_here):
            M, V = named_here["M"].to_numpy(), named_here["V"].to_numpy()
            ax.scatter(M, V, s=40, facecolors="none", edgecolors=MARK, zorder=5)
            png_of(figure)  # the labels' places depend on the layout
            label_points(ax, M, V, [as_label(token) for token in named_here["token"]])
        return png_of(figure, small=True)

    # Controls and what stands beside the plot

    def _layout(self) -> widgets.Widget:
        state, sources = self.state, self.state.sources
        self._message = named(widgets.HTML(), "embvar-message")
        self._numbers = named(widgets.HTML(), "embvar-numbers")
        layers = state.stats.layers
        play, layer = layer_slider(int(layers[0]), int(layers[-1]), state.layer)
        self._layer = layer
        tie(state, "layer", layer, self._say)
        model = choice("model", "embvar-model", list(sources), "the model shown")
        site = choice("site", "embvar-site", list(sources[state.model]), "where it is measured")
        self._site = site
        counts = CountsSlider(1, state.counts)
        unbiased = box("unbiased", "embvar-unbiased", "corrected for few occurrences (notebook 2)")
        special = box("special tokens", "embvar-special", "show begin, end and the like")
        scales = choice(
            "axes",
            "embvar-scales",
            [
                ("the same for all layers", "same"),
                ("each layer's own", "own"),
                ("logarithmic", "log"),
            ],
            "how the axes are scaled",
            "250px",
        )
        for name, control in (
            ("model", model),
            ("site", site),
            ("unbiased", unbiased),
            ("special", special),
            ("scales", scales),
        ):
            tie(state, name, control, self._say)
        tie(state, "counts", counts, self._say, shown=counts.admit)
        state.observe(lambda _: self._other_statistics(), ["model", "site"])
        above = [play, layer]
        if len(sources) > 1:
            above.append(model)
        if any(len(sites) > 1 for sites in sources.values()):
            above.append(site)
        self.plot.widget.layout.min_width = f"{self.plot.widget.height + _MARGIN}px"
        plot = widgets.VBox(
            [self._numbers, self.plot.widget],
            # Its width is never less than its height: the plot would cut points off at the sides.
            layout={"flex": "3 1 480px", "max_width": "760px", "overflow": "auto"},
        )
        beside = widgets.VBox(
            [*self._search_box(), *self._compare_box()],
            layout={"flex": "1 1 300px", "min_width": "280px"},
        )
        columns = widgets.HBox(
            [plot, beside], layout={"flex_flow": "row wrap", "grid_gap": "4px 18px"}
        )
        self._marked = named(widgets.HTML(), "embvar-marked")
        return framed(
            rows(*above),
            rows(counts, unbiased, special, scales),
            self._message,
            columns,
            self._marked,
            self.card.view,
            kind="tradeoff",
        )

    def _search_box(self) -> list[widgets.Widget]:
        self._search = widgets.Text(
            placeholder="a token, or how it begins",
            description="search",
            continuous_update=True,
            tooltip="marks the token, or all that begin so (or with *), at every layer",
            style={"description_width": "initial"},
            layout={"width": "auto"},
        )
        named(self._search, "embvar-search")
        tie(self.state, "search", self._search, self._say)
        self._matches = TokenList(
            "embvar-matches", "tokens found; choosing one opens its card", 5, self._chosen
        )
        clear = widgets.Button(
            description="clear marks", tooltip="take all marks off and close the card"
        )
        named(clear, "embvar-clear").on_click(lambda _: self.state.clear())
        return [_heading("Find a token"), self._search, self._matches, clear]

    def _compare_box(self) -> list[widgets.Widget]:
        state = self.state
        self._compare = choice(
            "compare with",
            "embvar-compare",
            self._compare_options(),
            "another layer: lists the tokens that moved most between the two",
        )
        tie(
            state,
            "compare",
            self._compare,
            self._say,
            shown=lambda layer: _NONE if layer is None else layer,
            meant=lambda layer: None if layer == _NONE else layer,
        )
        distance = choice(
            "distance",
            "embvar-distance",
            [("in the plot", "units"), ("over each layer's mean Q", "share")],
            "how far a token moved in the plane of M and V",
        )
        tie(state, "distance", distance, self._say)
        self._moved_title = named(widgets.HTML(), "embvar-moved-title")
        self._moved = TokenList(
            "embvar-moved", "choosing one marks it and opens its card", 10, self._chosen
        )
        heading = _heading("Which token moved most between two layers?")
        return [heading, self._compare, distance, self._moved_title, self._moved]

    def _compare_options(self) -> list[tuple[str, int]]:
        layers = [int(layer) for layer in self.state.stats.layers]
        return [("no other layer", _NONE), *((f"layer {layer}", layer) for layer in layers)]

    def _other_statistics(self) -> None:
        """Another model has other layers and sites: the controls offer these."""
        state = self.state
        layers = [int(layer) for layer in state.stats.layers]
        if (self._layer.min, self._layer.max) != (layers[0], layers[-1]):
            value = state.layer
            with self._layer.hold_trait_notifications():
                self._layer.min, self._layer.max = min(layers[0], value), layers[-1]
                self._layer.value = value
        if self._compare.options != tuple(self._compare_options()):
            chosen = _NONE if state.compare is None else state.compare
            self._compare.options = self._compare_options()
            self._compare.value = chosen
        if self._site.options != tuple(state.sources[state.model]):
            self._site.options = list(state.sources[state.model])
        self._site.value = state.site

    def _chosen(self, token: str) -> None:
        if token not in self.state.marked:
            self.state.marked = [token]
        self.state.token = token

    def _show_matches(self) -> None:
        found = self.state.matches()
        self._matches.fill(
            (f"{token}   n = {n:,}", token) for token, n in found.itertuples(index=False)
        )
        if self.state.search and found.empty:
            self._say(f"No token shown begins with {self.state.search!r}.")

    def _show_moved(self) -> None:
        state = self.state
        found = state.moved()
        if state.compare is None:
            text = "Choose a layer to compare with the one shown."
        elif state.compare == state.layer:
            text = "That is the layer shown: nothing moved."
            found = found[:0]
        else:
            text = f"From layer {state.compare} to layer {state.layer}, the farthest first:"
        self._moved_title.value = text
        self._moved.layout.display = None if len(found) else "none"
        lines = []
        for row in found.itertuples(index=False):
            lines.append(
                f"{row.token}   {number(row.distance)}   M {signed(row.M)}   V {signed(row.V)}"
            )
        self._moved.fill(zip(lines, found["token"].astype(str), strict=True))

    def _show_marked(self) -> None:
        state = self.state
        if not state.marked:
            self._marked.value = ""
            return
        here = state.table().iloc[state.points.rows(state.marked)]
        self._marked.value = marked_table(here, state.layer, len(state.marked) - len(here))

    def _show_card(self) -> None:
        state = self.state
        self.card.show(state.stats, state.token, state.layer, state.unbiased)

    def _fit_text(self) -> str:
        fit = self.state.fit
        tokens = f"{fit['n_tokens']:,} tokens"
        if "why" in fit:
            return f"{tokens}; no line: {fit['why']}"
        r2 = "undefined" if np.isnan(fit["r2"]) else f"{fit['r2']:.3f}"
        return f"{tokens}, slope {fit['slope']:.3f}, R² {r2}, CV of Q {fit['cv_Q']:.3f}"

    def _say_fit(self) -> None:
        state = self.state
        name = (
            state.model if len(state.sources[state.model]) < 2 else f"{state.model}, {state.site}"
        )
        text = f"{name}, layer {state.layer}: {self._fit_text()}"
        self._numbers.value = f"<span role='status'><b>{html.escape(text)}</b></span>"

    def _say(self, text: str) -> None:
        self._message.value = html.escape(text)


def _axis(name: str, unbiased: bool) -> str:
    return rf"$\tilde{{{name}}}(X_t)$" if unbiased else f"${name}(X_t)$"


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _heading(text: str) -> widgets.HTML:
    return widgets.HTML(f"<b>{text}</b>")


# The plot


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
        low, high = count_range(self.state.points.n)
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


def _four_digits(x: np.ndarray) -> np.ndarray:
    """Rounded to four digits, as a tooltip shows them."""
    scale = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(x), 1e-12))))
    return np.round(x * scale) / scale
