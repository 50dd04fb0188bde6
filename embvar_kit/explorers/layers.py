"""The layer explorer: what Q(X) and V(X) consist of, from layer to layer, for several models."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.base import PATIENCE, bind, explorer_frame
from embvar_kit.explorers.controls import (
    CountsSlider,
    checkbox,
    depth_slider,
    dropdown,
    wrapping_row,
)
from embvar_kit.explorers.pictured import PicturedExplorer
from embvar_kit.explorers.rendering import BlittedFigure, nearest_first
from embvar_kit.explorers.tables import number, table, times
from embvar_kit.figures import style
from embvar_kit.figures.layers import PARTS_OF, stack_parts
from embvar_kit.figures.style import written
from embvar_kit.statistics.compaction import CHOICES
from embvar_kit.statistics.token_statistics import TokenStatistics

_COLUMNS = 3  # panels side by side
_SYMBOLS = {"M": "M(X)", "V": "V(X)", "Q": "Q(X)", "V_W": "V<sub>W</sub>(X)"}
_SYMBOLS["V_B"] = "V<sub>B</sub>(X)"


class Setting(NamedTuple):
    """Everything that a picture depends on except the layer."""

    shown: tuple[str, ...]
    of: str
    absolute: bool
    counts: tuple[int, int | None]
    special: bool
    sinks: bool
    unbiased: bool


class LayerState(traitlets.HasTraits):
    """What the layer explorer shows. Invalid values are rejected.

    Args:
        stats: one model's statistics, or those of several models by name.
        values: initial values of the traits.

    Raises:
        StatisticsError: if ``stats`` is something else, or empty.
        traitlets.TraitError: if a value is invalid, at the start or later.
    """

    shown = traitlets.List(traitlets.Unicode(), minlen=1, help="the models shown")
    of = traitlets.Enum(("Q", "V"), default_value="Q", help="what is split: Q(X) or V(X)")
    absolute = traitlets.Bool(False, help="show the parts themselves, not their shares")
    counts = traitlets.Tuple(
        traitlets.Int(min=1),
        traitlets.Int(min=1, allow_none=True),
        default_value=(10, 100_000),
        help="least and most occurrences; None means no limit",
    )
    special = traitlets.Bool(True, help="whether special tokens are included")
    sinks = traitlets.Bool(True, help="whether high-norm tokens are included")
    unbiased = traitlets.Bool(False, help="subtract the finite-sample bias of M and V_B")
    step = traitlets.Int(0, min=0, help="index of the selected layer in the deepest model shown")
    setting = traitlets.Instance(
        Setting, read_only=True, help="everything that a picture depends on except the step"
    )

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: object
    ) -> None:
        if isinstance(stats, TokenStatistics):
            stats = {str(stats.info["model"]["name"]): stats}
        if not isinstance(stats, Mapping) or not stats:
            raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
        self.sources = {str(name): one for name, one in stats.items()}
        if not all(isinstance(one, TokenStatistics) for one in self.sources.values()):
            raise StatisticsError("Give TokenStatistics by name: {name: statistics}.")
        self._lock = threading.RLock()  # pictures are drawn in a thread
        self._without: dict[str, TokenStatistics] = {}
        self._parts: dict[tuple, pd.DataFrame] = {}
        self._ready = False
        super().__init__(shown=list(self.sources))
        self._ready = True
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"The layer explorer has no value {name!r}.")
            setattr(self, name, value)
        self._update_setting()

    def ranges(self) -> list[tuple[int, int | None]] | None:
        """The ranges of frequency on offer; ``None`` if any range can be computed.

        Compact statistics hold a few: see :data:`embvar_kit.statistics.compaction.CHOICES`.
        """
        if all(one.decompositions is None for one in self.sources.values()):
            return None
        pairs = [(choice["min_count"], choice["max_count"]) for choice in CHOICES]
        return list(dict.fromkeys(pairs))

    def relative(self, shown: Sequence[str] | None = None) -> bool:
        """Whether layers are drawn at their relative depth: if the models shown differ in depth."""
        shown = self.shown if shown is None else shown
        return len({int(self.sources[name].layers[-1]) for name in shown}) > 1

    def depth(self, name: str, shown: Sequence[str] | None = None) -> np.ndarray:
        """``(L,)`` positions of a model's layers: their numbers, or relative depths in 0 to 1."""
        layers = self.sources[name].layers
        if self.relative(shown):
            return layers / max(1, int(layers[-1]))
        return layers.astype(float)

    def steps(self, shown: Sequence[str] | None = None) -> int:
        """How many layers the deepest of the models shown has."""
        shown = self.shown if shown is None else shown
        return max(len(self.sources[name].layers) for name in shown)

    def row(self, name: str, step: int, shown: Sequence[str] | None = None) -> int:
        """The row of a model's layer that is nearest in relative depth to a step."""
        number = len(self.sources[name].layers)
        return round(step / max(1, self.steps(shown) - 1) * (number - 1))

    def parts(self, name: str, setting: Setting | None = None) -> pd.DataFrame:
        """The decomposition of a model: ``layer, Q, M, V, V_W, V_B``, one row per layer.

        It is computed once for each choice of tokens.
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
        """A model's statistics without its high-norm tokens, if it has any."""
        with self._lock:
            if name not in self._without:
                one = self.sources[name]
                high = one.high_norm()["token"]
                self._without[name] = one.without(high) if len(high) else one
            return self._without[name]

    def numbers(self, step: int | None = None, setting: Setting | None = None) -> pd.DataFrame:
        """The numbers of the selected layer, one row per model shown.

        Columns ``layer, Q, M, V, V_W, V_B``, then the shares of the total, such as ``M/Q``.
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
    def _computable(self, proposal: Mapping) -> tuple[int, int | None] | bool:
        if self._ready:
            self._check(**{proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @traitlets.validate("step")
    def _in_range(self, proposal: Mapping) -> int:
        if self._ready and proposal["value"] >= self.steps():
            raise traitlets.TraitError(
                f"step={proposal['value']}: the models shown have at most {self.steps()} layers."
            )
        return proposal["value"]

    def _check(self, **changed: object) -> None:
        """Reject a setting that cannot be computed, before it is drawn."""
        current = {name: getattr(self, name) for name in Setting._fields if name != "of"}
        setting = {**current, **changed}
        least, most = setting["counts"]
        try:
            if setting["unbiased"] and least < 2:
                raise StatisticsError(
                    "The unbiased forms need two occurrences of each token: start the range at 2."
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
                            "of a few choices of tokens only, and this one is not among them."
                        ) from error
                elif one.table(int(one.layers[0]), **choice).empty:
                    raise StatisticsError(f"No token of {name} occurs {times((least, most))}.")
        except StatisticsError as error:
            kept = f" The range stays: {times(self.counts)}." if "counts" in changed else ""
            raise traitlets.TraitError(f"{error}{kept}") from error

    @traitlets.observe(*Setting._fields)
    def _change(self, _: object) -> None:
        if self._ready:
            self._update_setting()

    def _update_setting(self) -> None:
        if self.step >= self.steps():
            self.step = self.steps() - 1
        values = {name: getattr(self, name) for name in Setting._fields}
        self.set_trait("setting", Setting(**{**values, "shown": tuple(self.shown)}))


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
        state: see :class:`embvar_kit.explorers.layers.LayerState`.
        pictures: the pictures drawn so far, by setting and step.
    """

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: object
    ) -> None:
        self.state = LayerState(stats, **values)
        self._drawing = threading.RLock()
        self._figures: dict[Setting, tuple[BlittedFigure, dict[str, Axes]]] = {}
        self._areas_of: Setting | None = None
        super().__init__(_size(len(self.state.shown)), 480, keep=400, on_click=self._select_bar)
        self.view = self._layout()
        self.state.observe(lambda _: self._update(), ["setting", "step"])
        self._update()

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        return self._draw((self.state.setting, self.state.step, 1), small=True)

    def _draw(self, key: tuple[Setting, int, int], *, small: bool = False) -> bytes:
        setting, step, scale = key
        with self._drawing:
            blitted, axes = self._figure(setting)
            blitted.enlarge(scale)
            marks = [self._mark(ax, name, setting, step) for name, ax in axes.items()]
            try:
                return blitted.png(marks, small=small)
            finally:
                for mark in marks:
                    mark.remove()

    def _figure(self, setting: Setting) -> tuple[BlittedFigure, dict[str, Axes]]:
        """A setting's figure: bars of all layers, none marked."""
        if setting in self._figures:
            return self._figures[setting]
        state, models = self.state, len(setting.shown)
        columns = min(models, _COLUMNS)
        lines = -(-models // columns)
        blitted = BlittedFigure(*_size(models))
        panels = blitted.figure.subplots(lines, columns, squeeze=False).flat
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
        blitted.figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
        blitted.draw_background()
        self._figures = dict([*self._figures.items(), (setting, (blitted, axes))][-4:])
        return blitted, axes

    def _mark(self, ax: Axes, name: str, setting: Setting, step: int) -> Artist:
        """A frame around the bar of the selected layer."""
        state, shown = self.state, setting.shown
        at, row = state.depth(name, shown), state.row(name, step, shown)
        width = style.bar_width(at)
        height = state.parts(name, setting)[setting.of].iloc[row] if setting.absolute else 1.0
        frame = Rectangle((at[row] - width / 2, 0), width, height, fill=False)
        frame.set(edgecolor="black", linewidth=2.2, clip_on=False)
        return ax.add_patch(frame)

    def _areas(self, setting: Setting) -> list[list[float | str]]:
        """The tooltip's areas: where each layer's bar is in the picture, and its numbers."""
        state = self.state
        with self._drawing:
            blitted, axes = self._figure(setting)
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
        below = (self._message, self._shown, self._numbers, self._tooltip)
        return explorer_frame(*controls, *below, kind="layers")

    def _select_bar(self, area: int) -> None:
        """Select the layer of a bar that was clicked, by the number of its area."""
        state = self.state
        for name in state.shown:
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
            counts = CountsSlider(1, state.counts)
            admit = {"to_control": counts.admit, "patience": PATIENCE}
            bind(state, "counts", counts, self._show_message, **admit)
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

        def update_boxes(_: object = None) -> None:
            for name, box in boxes.items():
                box.value = name in state.shown

        def update_state(_: object) -> None:
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
        state, scale = self.state, self._scale
        others = nearest_first(range(state.steps()), state.step)
        self.pictures.request(
            (state.setting, state.step, scale), ((state.setting, other, scale) for other in others)
        )

    def _show_picture(self, key: tuple[Setting, int, int], png: bytes) -> None:
        setting, step, _ = key
        super()._show_picture(key, png)
        if setting != self._areas_of:
            self._tooltip.areas, self._areas_of = self._areas(setting), setting
        numbers = self.state.numbers(step, setting)
        self._numbers.value = numbers_table(numbers, setting)
        self._describe("embvar-picture", description(numbers, setting))


def _size(models: int) -> tuple[float, float]:
    """Width and height in inches of the picture of so many models."""
    columns = min(models, _COLUMNS)
    return 7.6 if models == 1 else 4.4 * columns, 3.7 * -(-models // columns)


def description(numbers: pd.DataFrame, setting: Setting) -> str:
    """The picture in words, with the numbers of the selected layer."""
    parts = PARTS_OF[setting.of]
    lines = (
        f"{name}, layer {row.layer:.0f}: "
        + ", ".join(f"{part}/{setting.of} {row[f'{part}/{setting.of}']:.3f}" for part in parts)
        for name, row in numbers.iterrows()
    )
    return f"Stacked bars: parts of {setting.of}(X) by layer. {'; '.join(lines)}."


def tooltip_text(name: str, row: NamedTuple, of: str) -> str:
    """The numbers of one layer of one model, as text."""
    whole = getattr(row, of)
    shares = [f"{part}/{of} = {getattr(row, part) / whole:.3f}" for part in PARTS_OF[of]]
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
            *(f"<b>{row[share]:.3f}</b>" for share in shares),
        ]
        for name, row in numbers.iterrows()
    ]
    return table(head, rows)
