"""The trade-off explorer: a scatter plot of V against M for every token, with search and cards."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.errors import StatisticsError
from embvar_kit.explorers import links
from embvar_kit.explorers.base import PATIENCE, TYPING, bind, explorer_frame, handle_of
from embvar_kit.explorers.columns import COUNT, RESIDUAL
from embvar_kit.explorers.controls import (
    CountsSlider,
    TokenList,
    checkbox,
    dropdown,
    heading,
    layer_slider,
    paragraph,
    scales_dropdown,
    search_text,
    with_class,
    wrapping_row,
)
from embvar_kit.explorers.nearest import nearest_means
from embvar_kit.explorers.offered import offer_counts, offer_layers, offer_sites
from embvar_kit.explorers.outputs import WithOutputs
from embvar_kit.explorers.points import Points, Statistics, by_name
from embvar_kit.explorers.rendering import DPI, png_of
from embvar_kit.explorers.scripted import LectureButton, PlotGuard
from embvar_kit.explorers.shading import Shading
from embvar_kit.explorers.tables import MOST_NAMED, explained, fit_text, line_text, marked_table
from embvar_kit.explorers.thin_scatter import ScatterScript, sharing
from embvar_kit.explorers.token_card import TokenCard
from embvar_kit.explorers.tradeoff_lists import TokenLists
from embvar_kit.explorers.tradeoff_options import Options
from embvar_kit.explorers.tradeoff_plot import MARK, TradeoffPlot
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.explorers.vocabularies import Vocabularies
from embvar_kit.figures.given import Scatter
from embvar_kit.figures.lettering import as_label, label_points, symbol
from embvar_kit.figures.style import count_range
from embvar_kit.figures.tradeoff import scatter_V_on_M

if TYPE_CHECKING:
    from embvar_kit.models.loading import EmbeddingModel


class TradeoffExplorer(WithOutputs):
    """V against M of every token of a layer; search, mark, compare layers, open a token's card.

    Args:
        stats: one model's statistics; several by name, ``{name: statistics}``; or several sites,
            ``{name: {site: statistics}}``.
        model: for the cards, the model of the statistics, or one for each of several. It runs only
            when a card is opened, and only on sentences that contain the card's token.
        corpus: for the cards, the text whose occurrences are shown.
        recall: if no model is given, load the statistics' own model and text by name when a card
            is first opened. With neither, a card shows the moments only.
        height: height of the plot in pixels, by default in proportion to its width.
        columns: columns of your own to colour and filter by: a table or a series, numbers or
            categories, indexed by token. A token without a value is grey.
        values: initial values of the state, for example ``layer=2``.

    Attributes:
        state: see :class:`embvar_kit.explorers.tradeoff_state.TradeoffState`.
        card: the token card.
        plot: the scatter plot.

    Raises:
        StatisticsError: if the statistics are something else, or model and corpus or ``columns`` do
            not fit them.
    """

    link_name = "tradeoff"

    def __init__(
        self,
        stats: Statistics,
        model: EmbeddingModel | Sequence[EmbeddingModel] | None = None,
        corpus: Corpus | None = None,
        *,
        recall: bool = False,
        height: int | None = None,
        columns: pd.DataFrame | pd.Series | None = None,
        **values: object,
    ) -> None:
        found, sources = [], by_name(stats)
        if model is not None or corpus is not None:
            from embvar_kit.explorers.concordance import concordances

            given = [one for sites in sources.values() for one in sites.values()]
            found = concordances(given, model, corpus)
        known = {(one.model.name, one.model.revision): one.model.tokenizer for one in found}
        vocabularies = Vocabularies(known, recall=recall)
        self.state = TradeoffState(stats, columns, vocabularies, **values)
        self.card = TokenCard(found, recall=recall, describe=self._describe)
        with sharing(ScatterScript()):
            self.plot = TradeoffPlot(self.state, height)
        self.view = self._layout()
        for names, update in (
            (["drawn"], self._show_fit),
            (["drawn", "marked"], self._show_marked),
            (["drawn", "compare", "distance"], self._lists.show_moved),
            (["drawn"], self._lists.show_residuals),
            (["drawn", "search"], self._show_matches),
            (["drawn", "token"], self._show_card),
            (["drawn", "token"], self._lists.show_nearest),
        ):
            self.state.observe(lambda _, update=update: self._if_settled(update), names)
            update()

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait until the card and the nearest means are there; return whether they were in time."""
        return self.card.wait(seconds) and self._lists.near.wait(seconds)

    def still(self) -> bytes:
        """The picture of :meth:`figure` as a PNG."""
        return png_of(self.figure(), small=True)

    @property
    def marked(self) -> pd.DataFrame:
        """The marked tokens in the range shown: ``model, site, layer, token, n, Q, M, V``."""
        state = self.state
        table = state.table().iloc[state.points.indices_of(state.marked)].reset_index(drop=True)
        for at, name in enumerate(("model", "site", "layer")):
            table.insert(at, name, getattr(state, name))
        return table

    def nearest(self, *, by: str = "cosine", most: int = 10) -> pd.DataFrame:
        """The tokens shown whose means are nearest to that of the token whose card is open.

        Args:
            by: ``"cosine"`` or ``"distance"``.
            most: how many tokens to return at most.

        Returns:
            ``token, n, cosine, distance``, see
            :func:`embvar_kit.explorers.nearest.nearest_means`.

        Raises:
            StatisticsError: if no card is open, or the statistics have no means.
        """
        state = self.state
        if state.token is None:
            raise StatisticsError("No card is open: set explorer.state.token to a token first.")
        rows = state.points.rows
        return nearest_means(state.stats, state.layer, state.token, rows, by=by, most=most)

    def _told(self) -> dict[str, Any]:
        state, values = self.state, self.state.values()
        if len(state.sources) == 1:
            del values["model"]
        if len(state.sources[state.model]) == 1:
            del values["site"]
        return values

    def _table(self) -> pd.DataFrame:
        if self.marked.empty:
            raise StatisticsError("No token is marked: search for some, or draw a lasso.")
        return self.marked

    def _shows(self) -> str:
        return f"{self.state.model}-layer{self.state.layer}"

    def figure(self, dpi: float = DPI) -> Figure:
        """The figure of :func:`embvar_kit.figures.V_on_M`, the marked tokens labelled."""
        state = self.state
        figure = Figure(figsize=(7.4, 5.0), dpi=dpi, layout="constrained")
        ax = figure.subplots()
        shading = Shading(state.column())
        table = state.table().assign(shown=state.points.shown, colour=shading.column.values)[::-1]
        limits = count_range(table["n"])
        log = state.scales == "log"
        look = {} if state.colour_by == COUNT else {"cmap": shading.map, "norm": shading.norm}
        null = None
        if state.null:
            null = Scatter(*[state.table(null=True)] * 2)
        points, _ = scatter_V_on_M(ax, table, limits, size=9, log=log, null=null, look=look)
        points.set_rasterized(True)  # in an SVG, thousands of points would take megabytes
        if not log:
            x, y = state.limits()
            ax.set(xlim=x, ylim=y)
        ax.set(
            xlabel=symbol("M", "t", unbiased=state.unbiased),
            ylabel=symbol("V", "t", unbiased=state.unbiased),
        )
        ax.set_title(_plain(f"{state.model}, layer {state.layer}: {self._fit_text()}"), fontsize=10)
        beyond = "both" if state.colour_by == RESIDUAL else "neither"
        bar = figure.colorbar(points, ax=ax, label=shading.label, extend=beyond)
        if named := shading.column.categories:
            bar.set_ticks(range(len(named)), labels=list(map(_plain, named)))
        marked = table[table["token"].isin(state.marked[:MOST_NAMED])]
        if len(marked):
            M, V = marked["M"].to_numpy(), marked["V"].to_numpy()
            ax.scatter(M, V, s=40, facecolors="none", edgecolors=MARK, zorder=5)
            png_of(figure)  # labels are placed after the layout is known
            label_points(ax, M, V, [as_label(name) for name in marked["shown"]])
        return figure

    # Controls

    def _layout(self) -> widgets.Widget:
        state, sources = self.state, self.state.sources
        self._numbers = paragraph("embvar-numbers")
        self._message = paragraph("embvar-message", self._numbers)
        layers = state.stats.layers
        play, layer = layer_slider(int(layers[0]), int(layers[-1]), state.layer)
        offered = {"to_control": partial(offer_layers, state, layer), "follows": ["model", "site"]}
        bind(state, "layer", layer, self._show_message, **offered)
        model = dropdown("model", "embvar-model", list(sources), "the model shown")
        site = dropdown(
            "site",
            "embvar-site",
            list(sources[state.model]),
            "where in the model embeddings are measured: hidden, the hidden states; unit, these "
            "scaled to norm 1; norm_input, standardized and norm_output, around a normalization",
            like=model,
        )
        offered = {"to_control": partial(offer_sites, state, site), "follows": ["model"]}
        bind(state, "site", site, self._show_message, **offered)
        counts = CountsSlider(state.stats.least_count, state.counts)
        unbiased = checkbox(
            "unbiased", "embvar-unbiased", "correct M and V for few occurrences (notebook 2)"
        )
        special = checkbox("special tokens", "embvar-special", "show [CLS], </s> and the like")
        sinks = checkbox(
            "high-norm tokens",
            "embvar-sinks",
            "show those whose Q is ten times the median or more at some layer (notebook 4)",
        )
        scales = scales_dropdown("how the axes are scaled")
        for name, control in (
            ("model", model),
            ("unbiased", unbiased),
            ("special", special),
            ("sinks", sinks),
            ("scales", scales),
        ):
            bind(state, name, control, self._show_message)
        offered = {"to_control": partial(offer_counts, state, counts), "follows": ["model", "site"]}
        bind(state, "counts", counts, self._show_message, patience=PATIENCE, **offered)
        above = [play, layer]
        if len(sources) > 1:
            above.append(model)
        if any(len(sites) > 1 for sites in sources.values()):
            above.append(site)
        self._marked = with_class(widgets.HTML(), "embvar-marked")
        with_class(self._marked, "embvar-scroll")
        self._lists = TokenLists(state, self._mark, self._show_message, (self._numbers, model))
        areas = {
            "plot": [
                self._numbers,
                self.plot.view,
                PlotGuard(self.plot.widget),
                self._downloads("the marked tokens", ending="-marked"),
            ],
            "search": self._search_box(),
            "compare": [self._lists.view],
            "marked": [self._marked],
            "card": [self.card.view],
        }
        boxes = [part[0] if len(part) == 1 else widgets.VBox(part) for part in areas.values()]
        for name, box in zip(areas, boxes, strict=True):
            box.layout.grid_area = name
        choices = wrapping_row(counts, unbiased, special, sinks, scales)
        self._options = Options(state, choices, self._show_message, self._clear_button)
        return explorer_frame(
            wrapping_row(*above, LectureButton()),
            choices,
            self._message,
            with_class(widgets.GridBox(boxes), "embvar-columns"),
            kind="tradeoff",
        )

    def _search_box(self) -> list[widgets.Widget]:
        self._search = search_text("at every layer", "auto")
        bind(self.state, "search", self._search, self._show_message, pause=TYPING)
        self._found = with_class(widgets.HTML(), "embvar-found")
        self._looked_for: tuple[str, Points | None] = "", None  # what the list was made from
        self._matches = TokenList(
            "embvar-matches",
            "tokens found; choosing one opens its card",
            ("token", "occurrences"),
            5,
            self._mark,
            self._numbers,
        )
        self._clear_button = clear = widgets.Button(
            description="clear marks", tooltip="remove all marks and close the card"
        )
        with_class(clear, "embvar-clear").on_click(lambda _: self._clear())
        found = [self._found, self._matches.head, self._matches]
        return [heading("Find a token", self._numbers), self._search, *found, clear]

    def _clear(self) -> None:
        self._search.value = ""  # what was typed a moment ago is dropped, too
        self.state.clear()

    def _mark(self, token: str) -> None:
        """Mark a token and open its card."""
        if token not in self.state.marked:
            self.state.marked = [token]
        self.state.token = token

    # Updates

    def _if_settled(self, update: Callable[[], None]) -> None:
        """Update a part, unless the values still change to those of another model: it draws."""
        if self.state.settled:
            update()

    def _show_matches(self) -> None:
        points = self.state.points
        searched, among = self._looked_for
        if among is points and searched == self.state.search:
            return  # another layer: the same tokens
        self._looked_for = self.state.search, points
        found = self.state.matches()
        names = points.shown[points.indices_of(found["token"])]
        cells = ((name, f"{n:,}") for name, n in zip(names, found["n"], strict=True))
        self._matches.fill(zip(found["token"], cells, strict=True))
        report = html.escape(self.state.search_report())
        self._found.value = f"<span role='status'>{report}</span>" if report else ""
        self._found.layout.display = None if report else "none"

    def _show_marked(self) -> None:
        state = self.state
        if not state.marked:
            self._marked.value = ""
            return
        shown = state.table().assign(token=state.points.shown)
        shown = shown.iloc[state.points.indices_of(state.marked)]
        hidden = len(state.marked) - len(shown)
        why = "outside the range or the filter" + ("" if state.sinks else ", or of high norm")
        handle = None if links.in_app() else handle_of(self)  # there are no cells
        expression = handle and f"{handle}.marked"
        self._marked.value = marked_table(shown, state.layer, hidden, expression, why)

    def _show_card(self) -> None:
        state = self.state
        self.card.show(state.stats, state.token, state.layer, state.unbiased)

    def _null_text(self) -> str:
        """The null's regression in words; empty if it is not drawn."""
        fit = self.state.null_fit
        if "slope" not in fit:
            return f"Labels permuted, in grey: no line: {fit['why']}" if fit else ""
        return f"Labels permuted, in grey: {line_text(fit['slope'], fit['r2'])}."

    def _fit_text(self, name: Callable[[str], str] = str) -> str:
        """The regression in words, its measures named by ``name``."""
        only = self.state.filter_text()
        return fit_text(self.state.fit, name, only if name is str else html.escape(only))

    def _show_fit(self) -> None:
        state = self.state
        several_sites = len(state.sources[state.model]) > 1
        name = f"{state.model}, {state.site}" if several_sites else state.model
        text = f"{html.escape(name)}, layer {state.layer}: {self._fit_text(explained)}"
        # One message for both: the note may change with the layer, too.
        notes = " ".join(filter(None, (self._null_text(), state.axes_note())))
        note = f"<br>{html.escape(notes)}" if notes else ""
        self._numbers.value = f"<span role='status'><b>{text}</b>{note}</span>"
        words = f"{name}, layer {state.layer}: {self._fit_text()}. {notes}"
        self._describe("embvar-scatter", f"Scatter plot of V against M, a dot a token. {words}")

    def _show_message(self, text: str) -> None:
        self._message.value = html.escape(text)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
