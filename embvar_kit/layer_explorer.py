"""The layer explorer: what Q(X) and V(X) consist of, from layer to layer, for several models."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from embvar_kit import drawing
from embvar_kit.exploring import (
    CountsSlider,
    Explorer,
    box,
    choice,
    framed,
    layer_slider,
    named,
    picture,
    rows,
    tie,
)
from embvar_kit.figures_layers import stack_parts
from embvar_kit.hovering import Hover
from embvar_kit.labelling import written
from embvar_kit.layer_state import PARTS_OF, LayerState, Setting
from embvar_kit.pictures import Ahead, Sheet, outwards
from embvar_kit.statistics import TokenStatistics
from embvar_kit.tables import cell, number

_COLUMNS = 3
_SYMBOLS = {"M": "M(X)", "V": "V(X)", "Q": "Q(X)", "V_W": "V<sub>W</sub>(X)"}
_SYMBOLS["V_B"] = "V<sub>B</sub>(X)"


class LayerExplorer(Explorer):
    """Stacked parts of Q(X) or V(X) by layer; a slider goes through the layers.

    Its pictures are drawn ahead in the background, the one shown first. When a choice changes, the
    old picture stays until the new one is there.

    Args:
        stats: one model's statistics, or those of several by name. Of compact ones
            (:meth:`embvar_kit.statistics.TokenStatistics.compact`) only the choices of tokens that
            they hold can be had; others are refused.
        values: of the state at the start, ``sinks=False`` for one.

    Attributes:
        state: see :class:`embvar_kit.layer_state.LayerState`.
        pictures: those drawn, by setting and step.
    """

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: Any
    ) -> None:
        self.state = LayerState(stats, **values)
        self._drawing = threading.RLock()
        self._sheets: dict[Setting, tuple[Sheet, dict[str, Axes]]] = {}
        self._picture, self._shown = picture("embvar-picture", 480)
        # The table scrolls where the window is narrower.
        wide = {"max_width": "100%", "overflow": "auto"}
        self._numbers = named(widgets.HTML(layout=wide), "embvar-numbers")
        self._message = named(widgets.HTML(), "embvar-message")
        self._hover, self._hovered = Hover(), None
        self.pictures = Ahead(self._make, self._put, self._say_error, keep=400)
        self.view = self._layout()
        self.state.observe(lambda _: self._show(), ["setting", "step"])
        self._show()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until all layers' pictures are drawn; whether they were in time."""
        return self.pictures.wait(seconds)

    def still(self) -> bytes:
        """The present picture, in a palette."""
        with self._drawing:
            return self._drawn(self.state.setting, self.state.step, small=True)

    def _make(self, key: tuple[Setting, int]) -> bytes:
        with self._drawing:
            return self._drawn(*key)

    def _drawn(self, setting: Setting, step: int, *, small: bool = False) -> bytes:
        sheet, axes = self._sheet(setting)
        marks = [mark for name, ax in axes.items() for mark in self._marks(ax, name, setting, step)]
        try:
            return sheet.png(marks, small=small)
        finally:
            for mark in marks:
                mark.remove()

    def _sheet(self, setting: Setting) -> tuple[Sheet, dict[str, Axes]]:
        """The frame of a setting: bars of all layers, nothing marked."""
        if setting in self._sheets:
            return self._sheets[setting]
        state, number = self.state, len(setting.shown)
        columns = min(number, _COLUMNS)
        lines = -(-number // columns)
        sheet = Sheet(7.6 if number == 1 else 4.4 * columns, 3.7 * lines)
        panels = sheet.figure.subplots(lines, columns, squeeze=False).flat
        axes = {}
        for name, ax in zip(setting.shown, panels, strict=False):
            at = state.depth(name, setting.shown)
            parts = state.parts(name, setting)
            top = stack_parts(ax, at, parts, of=setting.of, absolute=setting.absolute)
            whole = f"${setting.of}(X)$"
            label = f"squared norm: parts of {whole}" if setting.absolute else f"share of {whole}"
            ax.set(ylim=(0, 1.04 * top if setting.absolute else 1), title=written(name))
            ax.set_ylabel(label)
            if setting.absolute:
                ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
                drawing.panel_title(ax, written(name), None)
            relative = "relative depth (layer / last layer)"
            drawing.depth_axis(ax, relative if state.relative(setting.shown) else "layer")
            axes[name] = ax
        for ax in list(panels)[number:]:
            ax.remove()
        handles, names = next(iter(axes.values())).get_legend_handles_labels()
        sheet.figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        sheet.freeze()
        self._sheets = dict([*self._sheets.items(), (setting, (sheet, axes))][-4:])
        return sheet, axes

    def _marks(self, ax: Axes, name: str, setting: Setting, step: int) -> list[Artist]:
        """A frame around the bar of the layer looked at."""
        state, shown = self.state, setting.shown
        at, row = state.depth(name, shown), state.row(name, step, shown)
        width = drawing.bar_width(at)
        height = state.parts(name, setting)[setting.of].iloc[row] if setting.absolute else 1.0
        frame = Rectangle((at[row] - width / 2, 0), width, height, fill=False)
        frame.set(edgecolor="black", linewidth=2.2, clip_on=False)
        return [ax.add_patch(frame)]

    def _areas(self, setting: Setting) -> list[list]:
        """Where each layer's bar stands in the picture, and its numbers, for the mouse."""
        state, (sheet, axes) = self.state, self._sheet(setting)
        found = []
        for name, ax in axes.items():
            at, parts = state.depth(name, setting.shown), state.parts(name, setting)
            half = drawing.bar_width(at) / 2
            lower, upper = ax.get_position().intervaly
            for x, row in zip(at, parts.itertuples(index=False), strict=True):
                left, right = (
                    sheet.figure.transFigure.inverted().transform(
                        ax.transData.transform((edge, 0))
                    )[0]
                    for edge in (x - half, x + half)
                )
                area = [left, 1 - upper, right, 1 - lower]
                found.append([*map(float, area), hover_text(name, row, setting.of)])
        return found

    # The view

    def _layout(self) -> widgets.Widget:
        state = self.state
        play, layer = layer_slider(0, state.steps() - 1, state.step)
        self._layer = layer
        tie(state, "step", layer, self._say)
        of = choice("split", "embvar-of", [("Q(X)", "Q"), ("V(X)", "V")], "what is split", "130px")
        absolute = choice(
            "show",
            "embvar-absolute",
            [("shares", False), ("absolute values", True)],
            "shares of the whole, or squared norms",
            "190px",
        )
        special = box("special tokens", "embvar-special", "count begin, end and the like")
        sinks = box(
            "attention sinks",
            "embvar-sinks",
            "count tokens whose Q is at some layer ten times the median or more (notebook 4)",
        )
        unbiased = box("corrected", "embvar-unbiased", "without what few occurrences add to V_B")
        for name, control in (
            ("of", of),
            ("absolute", absolute),
            ("special", special),
            ("sinks", sinks),
            ("unbiased", unbiased),
        ):
            tie(state, name, control, self._say)
        controls = [rows(play, layer, of, absolute), rows(self._range(), special, sinks, unbiased)]
        if len(state.sources) > 1:
            controls.append(self._models())
        below = (self._message, self._shown, self._numbers, self._hover)
        return framed(*controls, *below, kind="layers")

    def _range(self) -> widgets.Widget:
        state, ranges = self.state, self.state.ranges()
        if ranges is None:
            counts = CountsSlider(1, state.counts)
            tie(state, "counts", counts, self._say, shown=counts.admit)
            return counts
        texts = [f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
                 for least, most in ranges]  # fmt: skip
        counts = choice(
            "occurrences",
            "embvar-counts",
            list(zip(texts, ranges, strict=True)),
            "keep the tokens that occur so often; compact statistics hold these ranges only",
        )
        tie(state, "counts", counts, self._say)
        return counts

    def _models(self) -> widgets.Widget:
        """A box for each model; the last one shown stays."""
        state = self.state
        boxes = {name: box(name, "embvar-shown", f"show {name}") for name in state.sources}

        def follow(_: object = None) -> None:
            for name, one in boxes.items():
                one.value = name in state.shown

        def take(_: object) -> None:
            wanted = [name for name, one in boxes.items() if one.value]
            if wanted == state.shown:
                return
            if not wanted:
                self._say("One model at least is shown.")
                follow()
                return
            try:
                state.shown = wanted
            except Exception as error:
                self._say(str(error))
                follow()

        follow()
        state.observe(follow, "shown")
        for one in boxes.values():
            one.observe(take, "value")
        return rows(widgets.HTML("models"), *boxes.values())

    def _show(self) -> None:
        state = self.state
        if self._layer.max != state.steps() - 1:
            self._layer.max = state.steps() - 1
        self._layer.description = "depth" if state.relative() else "layer"
        others = outwards(range(state.steps()), state.step)
        self.pictures.ask((state.setting, state.step), ((state.setting, other) for other in others))

    def _put(self, key: tuple[Setting, int], png: bytes) -> None:
        setting, step = key
        self._picture.value = png
        if setting != self._hovered:
            self._hover.areas, self._hovered = self._areas(setting), setting
        self._numbers.value = numbers_table(self.state.numbers(step, setting), setting)

    def _say(self, text: str) -> None:
        self._message.value = html.escape(text)

    def _say_error(self, error: Exception) -> None:
        self._say(f"This could not be drawn: {error}")


def hover_text(name: str, row: NamedTuple, of: str) -> str:
    """The numbers of one layer of one model, for the mouse."""
    whole = getattr(row, of)
    shares = [f"{part}/{of} = {getattr(row, part) / whole:.3f}" for part in PARTS_OF[of]]
    values = [f"{part} = {number(getattr(row, part))}" for part in (of, *PARTS_OF[of])]
    return f"{name}, layer {row.layer}\n{'   '.join(values)}\n{'   '.join(shares)}"


def numbers_table(numbers: pd.DataFrame, setting: Setting) -> str:
    """HTML: the numbers of the layer looked at, a row a model."""
    values = ["Q", "M", "V", "V_B", "V_W"]
    shares = [name for name in numbers if "/" in name]
    head = ["model", "layer", *(_SYMBOLS[name] for name in values)]
    head += [f"{_SYMBOLS[name.split('/')[0]]} / {setting.of}(X)" for name in shares]
    lines = "".join(
        f"<tr>{cell(html.escape(str(name)), 'left')}{cell(str(int(row.layer)))}"
        + "".join(cell(number(row[value])) for value in values)
        + "".join(cell(f"<b>{row[share]:.3f}</b>") for share in shares)
        + "</tr>"
        for name, row in numbers.iterrows()
    )
    cells = "".join(cell(f"<b>{text}</b>") for text in head)
    return f"<table class='embvar-table'><tr>{cells}</tr>{lines}</table>"
