"""The layer explorer: what Q(X) and V(X) consist of, from layer to layer, for several models."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from embvar_kit.explorers.base import PATIENCE, bind, explorer_frame
from embvar_kit.explorers.controls import (
    CountsSlider,
    checkbox,
    depth_slider,
    dropdown,
    wrapping_row,
)
from embvar_kit.explorers.layers_state import LayerState, Setting
from embvar_kit.explorers.pictured import Form, PicturedExplorer
from embvar_kit.explorers.rendering import DPI, BlittedFigure, nearest_first
from embvar_kit.explorers.tables import decimal, number, table
from embvar_kit.figures import style
from embvar_kit.figures.layers import PARTS_OF, stack_parts
from embvar_kit.figures.lettering import written
from embvar_kit.statistics.token_statistics import TokenStatistics

_COLUMNS = 3  # panels side by side
_SYMBOLS = {"M": "M(X)", "V": "V(X)", "Q": "Q(X)", "V_W": "V<sub>W</sub>(X)"}
_SYMBOLS["V_B"] = "V<sub>B</sub>(X)"


class LayerExplorer(PicturedExplorer):
    """Stacked parts of Q(X) or V(X) by layer; a slider selects a layer.

    The pictures of all layers are drawn in the background, starting with the selected one. When a
    choice changes, the old picture stays until the new one is ready.

    Args:
        stats: one model's statistics, or those of several models by name. Compact statistics
            (:meth:`embvar_kit.TokenStatistics.compact`) offer only the choices of tokens that
            they hold; others are rejected.
        values: initial values of the state, for example ``sinks=False``.

    Attributes:
        state: see :class:`embvar_kit.explorers.layers_state.LayerState`.
        pictures: the pictures drawn so far, by setting, step and form.
    """

    link_name = "layers"

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: object
    ) -> None:
        self.state = LayerState(stats, **values)
        self._figures: dict[tuple[Setting, tuple], tuple[BlittedFigure, dict[str, Axes]]] = {}
        self._areas_of: tuple[Setting, tuple] | None = None
        super().__init__(480, keep=400, on_click=self._select_bar)
        self.view = self._layout()
        self.state.observe(lambda _: self._update(), ["setting", "step"])
        self._update()

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        return self._draw((self.state.setting, self.state.step, self._still_form()), small=True)

    def _draw(self, key: tuple[Setting, int, Form], *, small: bool = False) -> bytes:
        setting, step, form = key
        with self._drawing:
            blitted, axes = self._figure(setting, form.size)
            blitted.enlarge(form.scale)
            marks = [self._mark(ax, name, setting, step) for name, ax in axes.items()]
            try:
                return blitted.png(marks, small=small)
            finally:
                for mark in marks:
                    mark.remove()

    def figure(self, dpi: float = DPI) -> Figure:
        """What is shown now, the selected layer framed."""
        setting = self.state.setting
        figure = Figure(figsize=self._size(), dpi=dpi, layout="constrained")
        with self._drawing:
            for name, ax in self._draw_bars(figure, setting).items():
                self._mark(ax, name, setting, self.state.step)
        return figure

    def _table(self) -> pd.DataFrame:
        """The numbers of all layers: ``model, layer, Q, M, V, V_W, V_B``, then the shares."""
        return self.state.table()

    def _shows(self) -> str:
        setting = self.state.setting
        return "-".join([*setting.shown, setting.of, *["absolute"] * setting.absolute])

    def _size(self) -> tuple[float, float]:
        models = len(self.state.shown)
        columns = min(models, _COLUMNS)
        return 7.6 if models == 1 else 4.4 * columns, 3.7 * -(-models // columns)

    def _figure(
        self, setting: Setting, size: tuple[float, float]
    ) -> tuple[BlittedFigure, dict[str, Axes]]:
        """A setting's figure: bars of all layers, none marked."""
        if (setting, size) in self._figures:
            return self._figures[setting, size]
        blitted = BlittedFigure(*size)
        axes = self._draw_bars(blitted.figure, setting)
        blitted.draw_background()
        made = (setting, size), (blitted, axes)
        self._figures = dict([*self._figures.items(), made][-4:])
        return blitted, axes

    def _draw_bars(self, figure: Figure, setting: Setting) -> dict[str, Axes]:
        """Draw the bars of all layers, a panel a model; return the panels by model."""
        state, models = self.state, len(setting.shown)
        columns = min(models, _COLUMNS)
        lines = -(-models // columns)
        panels = figure.subplots(lines, columns, squeeze=False).flat
        axes = {}
        for name, ax in zip(setting.shown, panels, strict=False):
            at = state.depth(name, setting.shown)
            parts = state.parts(name, setting)
            top = stack_parts(ax, at, parts, of=setting.of, absolute=setting.absolute)
            total = f"${setting.of}(X)$"
            label = f"squared norm: parts of {total}" if setting.absolute else f"share of {total}"
            ax.set(ylim=(0, 1.04 * top if setting.absolute else 1), title=written(name))
            ax.set_ylabel(label)
            if setting.absolute:
                ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
                style.panel_title(ax, written(name), None)
            relative = "relative depth (layer / last layer)"
            style.depth_axis(ax, relative if state.relative(setting.shown) else "layer")
            axes[name] = ax
        for ax in list(panels)[models:]:
            ax.remove()
        handles, names = next(iter(axes.values())).get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        return axes

    def _mark(self, ax: Axes, name: str, setting: Setting, step: int) -> Artist:
        """A frame around the bar of the selected layer."""
        state, shown = self.state, setting.shown
        at, row = state.depth(name, shown), state.row(name, step, shown)
        width = style.bar_width(at)
        height = state.parts(name, setting)[setting.of].iloc[row] if setting.absolute else 1.0
        frame = Rectangle((at[row] - width / 2, 0), width, height, fill=False)
        frame.set(edgecolor="black", linewidth=2.2, clip_on=False)
        return ax.add_patch(frame)

    def _areas(self, setting: Setting, size: tuple[float, float]) -> list[list[float | str]]:
        """The tooltip's areas: where each layer's bar is in the picture, and its numbers."""
        state = self.state
        with self._drawing:
            blitted, axes = self._figure(setting, size)
        found = []
        for name, ax in axes.items():
            at, parts = state.depth(name, setting.shown), state.parts(name, setting)
            half = style.bar_width(at) / 2
            lower, upper = ax.get_position().intervaly
            for x, row in zip(at, parts.itertuples(index=False), strict=True):
                left, right = (
                    blitted.figure.transFigure.inverted().transform(
                        ax.transData.transform((edge, 0))
                    )[0]
                    for edge in (x - half, x + half)
                )
                area = [left, 1 - upper, right, 1 - lower]
                found.append([*map(float, area), tooltip_text(name, row, setting.of)])
        return found

    def _layout(self) -> widgets.Widget:
        state = self.state
        play, layer = depth_slider(self._depths(), state.step)
        self._layer, self._play = layer, play
        follow = {"to_control": self._offer_depths, "follows": ["setting"]}
        bind(state, "step", layer, self._show_message, **follow)
        totals = [("Q(X)", "Q"), ("V(X)", "V")]
        of = dropdown("split", "embvar-of", totals, "the total that is split", "130px")
        absolute = dropdown(
            "show",
            "embvar-absolute",
            [("shares", False), ("absolute values", True)],
            "shares of the total, or squared norms",
            "190px",
        )
        special = checkbox("special tokens", "embvar-special", "include [CLS], </s> and the like")
        sinks = checkbox(
            "high-norm tokens",
            "embvar-sinks",
            "include tokens whose Q at any layer is ten times the median or more (notebook 4)",
        )
        unbiased = checkbox(
            "unbiased", "embvar-unbiased", "correct M and V_B for few occurrences (notebook 2)"
        )
        for name, control in (
            ("of", of),
            ("absolute", absolute),
            ("special", special),
            ("sinks", sinks),
            ("unbiased", unbiased),
        ):
            bind(state, name, control, self._show_message)
        controls = [
            wrapping_row(play, layer, of, absolute, self._lecture),
            wrapping_row(self._counts_control(), special, sinks, unbiased),
        ]
        if len(state.sources) > 1:
            controls.append(self._model_checkboxes())
        downloads = self._downloads("the numbers of all layers")
        below = (self._message, self._shown, downloads, self._numbers, self._tooltip, self._room)
        return explorer_frame(*controls, *below, kind="layers")

    def _select_bar(self, area: int) -> None:
        """Select the layer of a bar that was clicked, by the number of its area."""
        state = self.state
        for name in self._areas_of[0].shown:  # of the picture that was clicked
            layers = len(state.sources[name].layers)
            if area < layers:
                state.step = round(area / max(1, layers - 1) * (state.steps() - 1))
                return
            area -= layers

    def _depths(self) -> list[str]:
        """The positions of the deepest model's layers on the axis, as its slider names them."""
        state = self.state
        deepest = max(state.shown, key=lambda name: len(state.sources[name].layers))
        form = "{:.2f}" if state.relative() else "{:.0f}"
        return [form.format(at) for at in state.depth(deepest)]

    def _offer_depths(self, step: int) -> int:
        """Offer the layers of the models shown; return the step."""
        depths, slider = self._depths(), self._layer
        if [text for text, _ in slider.options] != depths:
            slider.options = [(text, at) for at, text in enumerate(depths)]
            self._play.max = len(depths) - 1
        slider.description = "depth" if self.state.relative() else "layer"
        return step

    def _counts_control(self) -> widgets.Widget:
        state, ranges = self.state, self.state.ranges()
        if ranges is None:
            counts = CountsSlider(state.least_count(), state.counts)
            offered = {
                "to_control": lambda value: counts.admit(value, state.least_count()),
                "follows": ["shown"],
            }
            bind(state, "counts", counts, self._show_message, patience=PATIENCE, **offered)
            return counts
        texts = [f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
                 for least, most in ranges]  # fmt: skip
        counts = dropdown(
            "occurrences",
            "embvar-counts",
            list(zip(texts, ranges, strict=True)),
            "show only tokens with so many occurrences; compact statistics hold these ranges only",
        )
        bind(state, "counts", counts, self._show_message)
        return counts

    def _model_checkboxes(self) -> widgets.Widget:
        """A checkbox for each model; the last one checked cannot be cleared."""
        state = self.state
        boxes = {name: checkbox(name, "embvar-shown", f"show {name}") for name in state.sources}
        updating = False  # each box that is set calls `update_state`, before the others are set

        def update_boxes(_: object = None) -> None:
            nonlocal updating
            updating = True
            try:
                for name, box in boxes.items():
                    box.value = name in state.shown
            finally:
                updating = False

        def update_state(_: object) -> None:
            if updating:
                return
            checked = [name for name, box in boxes.items() if box.value]
            if checked == state.shown:
                return
            if not checked:
                self._show_message("At least one model must be shown.")
                update_boxes()
                return
            try:
                state.shown = checked
            except traitlets.TraitError as error:
                self._show_message(str(error))
                update_boxes()

        update_boxes()
        state.observe(update_boxes, "shown")
        for box in boxes.values():
            box.observe(update_state, "value")
        return wrapping_row(widgets.HTML("models"), *boxes.values())

    def _update(self) -> None:
        state, form = self.state, self._form()
        others = nearest_first(range(state.steps()), state.step)
        self.pictures.request(
            (state.setting, state.step, form), ((state.setting, other, form) for other in others)
        )

    def _show_picture(self, key: tuple[Setting, int, Form], png: bytes) -> None:
        setting, step, form = key
        super()._show_picture(key, png)
        if self._areas_of != (of := (setting, form.size)):
            self._tooltip.areas, self._areas_of = self._areas(*of), of
        numbers = self.state.numbers(step, setting)
        self._numbers.value = numbers_table(numbers, setting)
        self._describe("embvar-picture", description(numbers, setting))


def description(numbers: pd.DataFrame, setting: Setting) -> str:
    """The picture in words, with the numbers of the selected layer."""
    parts = PARTS_OF[setting.of]
    lines = (
        f"{name}, layer {row.layer:.0f}: "
        + ", ".join(f"{part}/{setting.of} {decimal(row[f'{part}/{setting.of}'])}" for part in parts)
        for name, row in numbers.iterrows()
    )
    return f"Stacked bars: parts of {setting.of}(X) by layer. {'; '.join(lines)}."


def tooltip_text(name: str, row: NamedTuple, of: str) -> str:
    """The numbers of one layer of one model, as text."""
    whole = getattr(row, of) or np.nan
    shares = [f"{part}/{of} = {decimal(getattr(row, part) / whole)}" for part in PARTS_OF[of]]
    values = [f"{part} = {number(getattr(row, part))}" for part in (of, *PARTS_OF[of])]
    return f"{name}, layer {row.layer}\n{'   '.join(values)}\n{'   '.join(shares)}"


def numbers_table(numbers: pd.DataFrame, setting: Setting) -> str:
    """HTML: the numbers of the selected layer, one row per model."""
    values = ["Q", "M", "V", "V_B", "V_W"]
    shares = [name for name in numbers if "/" in name]
    head = ["model", "layer", *(_SYMBOLS[name] for name in values)]
    head += [f"{_SYMBOLS[name.split('/')[0]]} / {setting.of}(X)" for name in shares]
    rows = [
        [
            html.escape(str(name)),
            str(int(row.layer)),
            *(number(row[value]) for value in values),
            *(f"<b>{decimal(row[share])}</b>" for share in shares),
        ]
        for name, row in numbers.iterrows()
    ]
    return table(head, rows)
