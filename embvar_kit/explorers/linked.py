"""The linked explorer: two scatter plots of V against M side by side, whose tokens go together."""

from __future__ import annotations

import html
from collections.abc import Mapping
from functools import partial
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers import links
from embvar_kit.explorers.base import PATIENCE, TYPING, bind, explorer_frame, handle_of
from embvar_kit.explorers.controls import (
    CountsSlider,
    checkbox,
    dropdown,
    layer_slider,
    paragraph,
    scales_dropdown,
    search_text,
    with_class,
    wrapping_row,
)
from embvar_kit.explorers.linked_panel import PanelState
from embvar_kit.explorers.linked_state import SIDES, LinkedState, in_both_text
from embvar_kit.explorers.offered import offer_layers, offer_sites
from embvar_kit.explorers.outputs import WithOutputs
from embvar_kit.explorers.points import Statistics
from embvar_kit.explorers.rendering import DPI, png_of
from embvar_kit.explorers.scripted import HoverLink, LectureButton, PlotGuard
from embvar_kit.explorers.tables import (
    MOST_LISTED,
    MOST_NAMED,
    decimal,
    explained,
    fit_text,
    number,
    table,
)
from embvar_kit.explorers.thin_scatter import ScatterScript, sharing
from embvar_kit.explorers.tradeoff_plot import MARK, TradeoffPlot
from embvar_kit.figures.lettering import as_label, label_points, symbol
from embvar_kit.figures.style import count_range
from embvar_kit.figures.tradeoff import scatter_V_on_M


class LinkedExplorer(WithOutputs):
    """V against M in two panels: two layers, sites or models, and the same tokens in both.

    A token that is pointed at, searched for or lassoed in one panel is shown in the other.

    Args:
        stats: one model's statistics; several by name, ``{name: statistics}``; or several sites,
            ``{name: {site: statistics}}``.
        left, right: ``model``, ``site`` and ``layer`` of a panel, for example ``{"layer": 2}``. By
            default, of several models the first two at their middle layers, of one its middle and
            its last layer.
        height: height of the plots in pixels, by default in proportion to their width.
        values: initial values of the state, for example ``together=False``.

    Attributes:
        state: see :class:`embvar_kit.explorers.linked_state.LinkedState`.
        plots: the two scatter plots.

    Raises:
        StatisticsError: if the statistics are something else, or no token is in range.
        traitlets.TraitError: if a value is invalid.
    """

    link_name = "linked"

    def __init__(
        self,
        stats: Statistics,
        *,
        left: Mapping[str, Any] | None = None,
        right: Mapping[str, Any] | None = None,
        height: int | None = None,
        **values: Any,
    ) -> None:
        self.state = LinkedState(stats, left=left, right=right, **values)
        self._script = ScatterScript()
        with sharing(self._script):
            self.plots = tuple(TradeoffPlot(panel, height) for panel in self.state.panels)
        self._hover = HoverLink(left=self.plots[0].widget, right=self.plots[1].widget)
        self._linked: tuple[object, object] | None = None  # the points that the hover link knows
        self.view = self._layout()
        for panel in self.state.panels:
            panel.observe(lambda _, panel=panel: self._show_fit(panel), "drawn")
            self._show_fit(panel)
        self.state.observe(lambda _: self._show_both(), "drawn")
        self.state.observe(lambda _: self._show_found(), "search")
        self.state.observe(lambda _: self._show_marked(), "marked")
        self._show_both()
        self._show_found()

    def still(self) -> bytes:
        """The picture of :meth:`figure` as a PNG."""
        return png_of(self.figure(), small=True)

    @property
    def marked(self) -> pd.DataFrame:
        """The marked tokens, one a row: ``model, site, layer, token, n, Q, M, V`` of each panel.

        The names of the columns end in ``_left`` and ``_right``. A token that a panel lacks, or
        that is outside its range, has no values there.
        """
        return self.state.table()

    def figure(self, dpi: float = DPI) -> Figure:
        """Both panels as :func:`embvar_kit.figures.V_on_M` draws them, the marked tokens named."""
        state = self.state
        figure = Figure(figsize=(11.0, 4.6), dpi=dpi, layout="constrained")
        axes = figure.subplots(1, 2)
        tables = []
        limits = count_range(np.concatenate([panel.points.n for panel in state.panels]))
        log = state.scales == "log"
        for ax, panel in zip(axes, state.panels, strict=True):
            shown = panel.table().assign(shown=panel.points.shown)[::-1]
            tables.append(shown)
            points, _ = scatter_V_on_M(ax, shown, limits, size=7, log=log)
            points.set_rasterized(True)  # in an SVG, thousands of points would take megabytes
            if not log:
                x, y = panel.limits()
                ax.set(xlim=x, ylim=y)
            ax.set(
                xlabel=symbol("M", "t", unbiased=state.unbiased),
                ylabel=symbol("V", "t", unbiased=state.unbiased),
            )
            title = f"{_name(panel)}, layer {panel.layer}\n{fit_text(panel.fit)}"
            ax.set_title(title.replace("$", r"\$"), fontsize=9)
        figure.colorbar(points, ax=axes, label=r"occurrences: $\log_{10} n_t$")
        if not state.marked:
            return figure
        png_of(figure)  # labels are placed after the layout is known
        for ax, panel, shown in zip(axes, state.panels, tables, strict=True):
            rows = shown[shown["token"].isin(panel.marked[:MOST_NAMED])]
            if len(rows):
                M, V = rows["M"].to_numpy(), rows["V"].to_numpy()
                ax.scatter(M, V, s=40, facecolors="none", edgecolors=MARK, zorder=5)
                label_points(ax, M, V, [as_label(name) for name in rows["shown"]])
        return figure

    def _table(self) -> pd.DataFrame:
        if self.marked.empty:
            raise StatisticsError("No token is marked: search for some, or draw a lasso.")
        return self.marked

    def _shows(self) -> str:
        return "-".join(f"{panel.model}-layer{panel.layer}" for panel in self.state.panels)

    # Controls

    def _layout(self) -> widgets.Widget:
        state = self.state
        self._message = paragraph("embvar-message")
        self._both = paragraph("embvar-both", self._message)
        counts = CountsSlider(state.least_count(), state.counts)
        unbiased = checkbox(
            "unbiased", "embvar-unbiased", "correct M and V for few occurrences (notebook 2)"
        )
        special = checkbox("special tokens", "embvar-special", "show [CLS], </s> and the like")
        together = checkbox(
            "only tokens in both", "embvar-together", "show only the tokens that both panels have"
        )
        same_depth = checkbox(
            "same relative depth",
            "embvar-same-depth",
            "moving one layer slider moves the other to the nearest relative depth",
        )
        scales = scales_dropdown("how the axes of both panels are scaled")
        for name, control in (
            ("unbiased", unbiased),
            ("special", special),
            ("together", together),
            ("same_depth", same_depth),
            ("scales", scales),
        ):
            bind(state, name, control, self._show_message)
        # A panel's model is the panel's own; with another one, both are drawn.
        offered = {
            "to_control": lambda value: counts.admit(value, state.least_count()),
            "follows": ["drawn"],
        }
        bind(state, "counts", counts, self._show_message, patience=PATIENCE, **offered)
        self._numbers, panels = [], []
        for side, panel, plot in zip(SIDES, state.panels, self.plots, strict=True):
            numbers = paragraph("embvar-numbers", self._message)
            self._numbers.append(numbers)
            parts = [self._panel_controls(side, panel), numbers, plot.view, PlotGuard(plot.widget)]
            box = with_class(widgets.VBox(parts), "embvar-panel")
            panels.append(with_class(box, f"embvar-{side}"))
        self._marked = with_class(paragraph("embvar-marked", self._message), "embvar-scroll")
        search = wrapping_row(*self._search_box())
        return explorer_frame(
            wrapping_row(counts, unbiased, special, together, same_depth, scales, LectureButton()),
            self._both,
            self._message,
            with_class(widgets.GridBox(panels), "embvar-panels"),
            self._downloads("the marked tokens in both panels", ending="-marked"),
            search,
            self._found,
            self._marked,
            self._hover,
            kind="linked",
        )

    def _panel_controls(self, side: str, panel: PanelState) -> widgets.Widget:
        sources = self.state.sources
        layers = panel.stats.layers
        play, layer = layer_slider(int(layers[0]), int(layers[-1]), panel.layer)
        layer.description, layer.layout.width = f"{side}, layer", "auto"
        layer.layout.flex, layer.layout.max_width = "1 1 170px", "340px"
        play.tooltip = f"play through the layers, {side}"
        offered = {"to_control": partial(offer_layers, panel, layer), "follows": ["model", "site"]}
        bind(panel, "layer", layer, self._show_message, **offered)
        # Their names are in their tooltips: half a window has no room for them in one row.
        model = dropdown("", "embvar-model", list(sources), f"the model shown, {side}", "auto")
        model.layout.flex, model.layout.max_width = "1 1 104px", "220px"
        site = dropdown(
            "",
            "embvar-site",
            list(sources[panel.model]),
            f"where in the model embeddings are measured, {side}",
            like=model,
        )
        bind(panel, "model", model, self._show_message)
        offered = {"to_control": partial(offer_sites, panel, site), "follows": ["model"]}
        bind(panel, "site", site, self._show_message, **offered)
        row = [play, layer]
        if len(sources) > 1:
            row.append(model)
        if any(len(sites) > 1 for sites in sources.values()):
            row.append(site)
        return wrapping_row(*row)

    def _search_box(self) -> list[widgets.Widget]:
        self._search = search_text("in both panels", "360px")
        bind(self.state, "search", self._search, self._show_message, pause=TYPING)
        clear = widgets.Button(description="clear marks", tooltip="remove all marks")
        with_class(clear, "embvar-clear").on_click(lambda _: self._clear())
        self._found = paragraph("embvar-found", self._message)
        return [self._search, clear]

    def _clear(self) -> None:
        self._search.value = ""  # what was typed a moment ago is dropped, too
        self.state.clear()

    # Updates

    def _show_fit(self, panel: PanelState) -> None:
        side = SIDES[panel.side]
        name = f"{_name(panel)}, layer {panel.layer}"
        note = f"<br>{html.escape(panel.axes_note())}" if panel.axes_note() else ""
        text = f"{html.escape(name)}: {fit_text(panel.fit, explained)}"
        self._numbers[panel.side].value = f"<span role='status'><b>{text}</b>{note}</span>"
        words = f"{name}: {fit_text(panel.fit)}. {panel.axes_note()}"
        self._describe(
            f"embvar-{side} .embvar-scatter",
            f"Scatter plot of V against M, {side} panel, a dot a token. {words}",
        )

    def _show_both(self) -> None:
        """What the panels have in common; and the marked tokens, whose values may have changed."""
        state = self.state
        left, right = (panel.points for panel in state.panels)
        if self._linked is None or self._linked[0] is not left or self._linked[1] is not right:
            self._linked = left, right
            partners = state.partners()
            same = all(np.array_equal(one, np.arange(len(one))) for one in partners)
            same = same and len(partners[0]) == len(partners[1])
            self._hover.left_partners, self._hover.right_partners = (
                b"" if same else one.astype("<i4").tobytes() for one in partners
            )
        ranks = ", ".join(
            f"{explained(name)} {decimal(value)}"
            for name, value in state.rank_correlations().items()
        )
        told = html.escape(in_both_text(state))
        why = (
            "Spearman's correlation over the tokens in both panels, of a token's rank at the left "
            "with its rank at the right"
        )
        self._both.value = (
            f"<span role='status'>{told} <span class='embvar-term' title='{html.escape(why)}'>"
            f"Correlation of ranks</span> between the panels: {ranks}.</span>"
        )
        self._show_marked()

    def _show_found(self) -> None:
        report = html.escape(self.state.search_report()) if self.state.search else ""
        self._found.value = f"<span role='status'>{report}</span>" if report else ""

    def _show_marked(self) -> None:
        state = self.state
        if not state.marked:
            self._marked.value = ""
            return
        handle = None if links.in_app() else handle_of(self)  # there are no cells
        expression = handle and f"{handle}.marked"
        self._marked.value = pairs_table(state, expression)

    def _show_message(self, text: str) -> None:
        self._message.value = html.escape(text)


def _name(panel: PanelState) -> str:
    """The model, and the site if there are several."""
    several = len(panel.sources[panel.model]) > 1
    return f"{panel.model}, {panel.site}" if several else panel.model


def pairs_table(state: LinkedState, expression: str | None = None) -> str:
    """HTML: n, Q, M and V of the marked tokens in both panels.

    Args:
        state: the explorer's state.
        expression: the Python expression that gives them as a DataFrame.
    """
    shown = state.table()
    most = shown[["n_left", "n_right"]].max(axis=1)
    shown = shown.loc[most.sort_values(ascending=False, kind="stable").index]
    titles = ["token"]
    for symbol_of in ("n<sub>t</sub>", *map(explained, "QMV")):
        titles += [f"{symbol_of} {side}" for side in SIDES]
    rows = []
    for row in shown.head(MOST_LISTED).to_dict("records"):
        names = [row[f"token_{side}"] for side in SIDES]
        cells = [" / ".join(html.escape(str(name)) for name in dict.fromkeys(names) if name)]
        for name in "nQMV":
            for side in SIDES:
                value = row[f"{name}_{side}"]
                there = not pd.isna(value)
                cells.append((f"{value:,}" if name == "n" else number(value)) if there else "–")
        rows.append(cells)
    more = f"<p>and {len(shown) - MOST_LISTED:,} more</p>" if len(shown) > MOST_LISTED else ""
    absent = shown[["n_left", "n_right"]].isna().any(axis=1).sum()
    lacks = f"<p>–: this panel does not show the token ({absent:,} of the marked)</p>"
    how = f"; as a table in a cell: <code>{html.escape(expression)}</code>" if expression else ""
    layers = ", ".join(
        f"{side} {_name(panel)} layer {panel.layer}"
        for side, panel in zip(SIDES, state.panels, strict=True)
    )
    head = f"<b>Marked: {html.escape(layers)}</b>{how}"
    return f"{head}{table(titles, rows)}{more}{lacks if absent else ''}"
