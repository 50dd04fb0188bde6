"""The trade-off explorer: V against M for every token, to move through, search and look into."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from embvar_kit import figures_tradeoff
from embvar_kit.corpora import Corpus
from embvar_kit.exploring import (
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
from embvar_kit.labelling import as_label, label_points
from embvar_kit.pictures import png_of
from embvar_kit.statistics import TokenStatistics
from embvar_kit.tables import MOST_NAMED, marked_table, number, signed
from embvar_kit.token_card import TokenCard
from embvar_kit.tradeoff_plot import MARK, TradeoffPlot, colour_range
from embvar_kit.tradeoff_state import TradeoffState

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from embvar_kit.models import EmbeddingModel

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
        state: see :class:`embvar_kit.tradeoff_state.TradeoffState`.
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
            from embvar_kit.concordance import concordances

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
        limits = colour_range(table["n"].to_numpy())
        log = state.scales == "log"
        points, _ = figures_tradeoff.scatter_V_on_M(ax, table, limits, size=9, log=log)
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
