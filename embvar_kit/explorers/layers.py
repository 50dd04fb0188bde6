"""The layer explorer: what Q(X) and V(X) consist of, from layer to layer, for several models."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.base import (
    CountsSlider,
    Explorer,
    Hover,
    box,
    choice,
    framed,
    layer_slider,
    named,
    picture,
    rows,
    tie,
)
from embvar_kit.explorers.rendering import Ahead, Sheet, outwards
from embvar_kit.explorers.tables import cell, number
from embvar_kit.figures import style
from embvar_kit.figures.layers import PARTS_OF, stack_parts
from embvar_kit.figures.style import written
from embvar_kit.statistics.token_statistics import CHOICES, TokenStatistics

_COLUMNS = 3
_SYMBOLS = {"M": "M(X)", "V": "V(X)", "Q": "Q(X)", "V_W": "V<sub>W</sub>(X)"}
_SYMBOLS["V_B"] = "V<sub>B</sub>(X)"


class LayerExplorer(Explorer):
    """Stacked parts of Q(X) or V(X) by layer; a slider goes through the layers.

    Its pictures are drawn ahead in the background, the one shown first. When a choice changes, the
    old picture stays until the new one is there.

    Args:
        stats: one model's statistics, or those of several by name. Of compact ones
            (:meth:`embvar_kit.TokenStatistics.compact`) only the choices of tokens that
            they hold can be had; others are refused.
        values: of the state at the start, ``sinks=False`` for one.

    Attributes:
        state: see :class:`embvar_kit.explorers.layers.LayerState`.
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
                style.panel_title(ax, written(name), None)
            relative = "relative depth (layer / last layer)"
            style.depth_axis(ax, relative if state.relative(setting.shown) else "layer")
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
        width = style.bar_width(at)
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
            half = style.bar_width(at) / 2
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


# State


class Setting(NamedTuple):
    """All that a picture depends on but the layer."""

    shown: tuple[str, ...]
    of: str
    absolute: bool
    counts: tuple[int, int | None]
    special: bool
    sinks: bool
    unbiased: bool


class LayerState(traitlets.HasTraits):
    """What the layer explorer shows. Values that make no sense are refused.

    Args:
        stats: one model's statistics, or those of several by name.
        values: of the traits.
    """

    shown = traitlets.List(traitlets.Unicode(), minlen=1, help="the models shown")
    of = traitlets.Enum(("Q", "V"), default_value="Q", help="what is split: Q(X) or V(X)")
    absolute = traitlets.Bool(False, help="the parts themselves, not their shares")
    counts = traitlets.Tuple(
        traitlets.Int(min=1),
        traitlets.Int(min=1, allow_none=True),
        default_value=(10, 100_000),
        help="least and most occurrences; None is no limit",
    )
    special = traitlets.Bool(True, help="whether special tokens are in")
    sinks = traitlets.Bool(True, help="whether attention sinks are in")
    unbiased = traitlets.Bool(False, help="without what finite samples add to M and V_B")
    step = traitlets.Int(0, min=0, help="the layer looked at, of the deepest model shown")
    setting = traitlets.Any(read_only=True, help="all that a picture depends on but the step")

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: Any
    ) -> None:
        if isinstance(stats, TokenStatistics):
            stats = {str(stats.info["model"]["name"]): stats}
        if not isinstance(stats, Mapping) or not stats:
            raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
        self.sources = {str(name): one for name, one in stats.items()}
        if not all(isinstance(one, TokenStatistics) for one in self.sources.values()):
            raise StatisticsError("Give TokenStatistics by name: {name: statistics}.")
        self._lock = threading.RLock()
        self._without: dict[str, TokenStatistics] = {}
        self._parts: dict[tuple, pd.DataFrame] = {}
        self._ready = False
        super().__init__(shown=list(self.sources))
        self._ready = True
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"There is no {name!r} to set.")
            setattr(self, name, value)
        self._follow()

    def ranges(self) -> list[tuple[int, int | None]] | None:
        """The ranges of frequency that can be had; ``None`` if any can.

        Compact statistics know a few: see :data:`embvar_kit.statistics.token_statistics.CHOICES`.
        """
        if all(one.decompositions is None for one in self.sources.values()):
            return None
        pairs = [(choice["min_count"], choice["max_count"]) for choice in CHOICES]
        return list(dict.fromkeys(pairs))

    def relative(self, shown: Sequence[str] | None = None) -> bool:
        """Whether layers stand at their relative depth: where the models shown differ in depth."""
        shown = self.shown if shown is None else shown
        return len({int(self.sources[name].layers[-1]) for name in shown}) > 1

    def depth(self, name: str, shown: Sequence[str] | None = None) -> np.ndarray:
        """``(L,)`` where a model's layers stand, by number or :meth:`relative`."""
        layers = self.sources[name].layers
        if self.relative(shown):
            return layers / max(1, int(layers[-1]))
        return layers.astype(float)

    def steps(self, shown: Sequence[str] | None = None) -> int:
        """How many layers the deepest of the models shown has."""
        shown = self.shown if shown is None else shown
        return max(len(self.sources[name].layers) for name in shown)

    def row(self, name: str, step: int, shown: Sequence[str] | None = None) -> int:
        """The row of the layer of a model that a step stands for: the nearest in depth."""
        number = len(self.sources[name].layers)
        return round(step / max(1, self.steps(shown) - 1) * (number - 1))

    def parts(self, name: str, setting: Setting | None = None) -> pd.DataFrame:
        """The decomposition of a model: ``layer, Q, M, V, V_W, V_B``, a row a layer.

        Computed once for each choice of tokens.
        """
        setting = self.setting if setting is None else setting
        key = (name, setting.counts, setting.special, setting.sinks, setting.unbiased)
        with self._lock:
            if key not in self._parts:
                one = self.sources[name] if setting.sinks else self.without_sinks(name)
                self._parts[key] = one.decomposition(
                    min_count=setting.counts[0],
                    max_count=setting.counts[1],
                    special=setting.special,
                    unbiased=setting.unbiased,
                )
            return self._parts[key]

    def without_sinks(self, name: str) -> TokenStatistics:
        """A model's statistics without its attention sinks, if it has any."""
        with self._lock:
            if name not in self._without:
                one = self.sources[name]
                sinks = one.sinks()["token"]
                self._without[name] = one.without(sinks) if len(sinks) else one
            return self._without[name]

    def numbers(self, step: int | None = None, setting: Setting | None = None) -> pd.DataFrame:
        """A row a model shown: ``layer``, Q, M, V, V_W and V_B, and the shares of what is split.

        Shares are named ``M/Q`` and so on.
        """
        setting = self.setting if setting is None else setting
        step = self.step if step is None else step
        lines = []
        for name in setting.shown:
            row = self.parts(name, setting).iloc[self.row(name, step, setting.shown)]
            shares = {
                f"{part}/{setting.of}": row[part] / row[setting.of] for part in PARTS_OF[setting.of]
            }
            lines.append({"model": name, **row.to_dict(), "layer": int(row["layer"]), **shares})
        return pd.DataFrame(lines).set_index("model")

    @traitlets.validate("shown")
    def _known(self, proposal: Mapping) -> list[str]:
        value = proposal["value"]
        if absent := [name for name in value if name not in self.sources]:
            raise traitlets.TraitError(
                f"There is no model {absent[0]!r} here, only {', '.join(self.sources)}."
            )
        value = [name for name in self.sources if name in value]
        if self._ready:
            self._check(shown=value)
        return value

    @traitlets.validate("counts", "special", "sinks", "unbiased")
    def _possible(self, proposal: Mapping) -> Any:
        if self._ready:
            self._check(**{proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @traitlets.validate("step")
    def _in_range(self, proposal: Mapping) -> int:
        if self._ready and proposal["value"] >= self.steps():
            raise traitlets.TraitError(
                f"step={proposal['value']}: the models shown have {self.steps()} layers at most."
            )
        return proposal["value"]

    def _check(self, **changed: Any) -> None:
        """Refuse what cannot be computed, before it is computed."""
        now = {name: getattr(self, name) for name in Setting._fields if name != "of"}
        setting = {**now, **changed}
        least, most = setting["counts"]
        try:
            if setting["unbiased"] and least < 2:
                raise StatisticsError(
                    "The correction needs two occurrences of a token: raise the range to 2."
                )
            for name in setting["shown"]:
                one = self.sources[name] if setting["sinks"] else self.without_sinks(name)
                choice = {"min_count": least, "max_count": most, "special": setting["special"]}
                if one.decompositions is not None:
                    try:
                        one.decomposition(**choice, unbiased=setting["unbiased"])
                    except StatisticsError as error:
                        raise StatisticsError(
                            f"The statistics of {name} are compact: they hold the decompositions "
                            "of a few choices of tokens, and this is none of them."
                        ) from error
                elif one.table(int(one.layers[0]), **choice).empty:
                    raise StatisticsError(f"No token of {name} is in this range: widen it.")
        except StatisticsError as error:
            raise traitlets.TraitError(str(error)) from error

    @traitlets.observe(*Setting._fields)
    def _changed(self, _: object) -> None:
        if self._ready:
            self._follow()

    def _follow(self) -> None:
        if self.step >= self.steps():
            self.step = self.steps() - 1
        values = {name: getattr(self, name) for name in Setting._fields}
        self.set_trait("setting", Setting(**{**values, "shown": tuple(self.shown)}))
