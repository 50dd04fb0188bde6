"""Explorer of notebook 5: V on M before, in and after a normalization, γ and β under the hand."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.base import Explorer, choice, framed, named, picture, rows, tie
from embvar_kit.explorers.rendering import Ahead, Sheet
from embvar_kit.figures import style
from embvar_kit.figures.style import FREQUENCY_MAP
from embvar_kit.figures.tradeoff import fit_text
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from embvar_kit.extraction.affine import AffineMoments

SITES = ("norm_input", "standardized", "norm_output")
_TITLES = ("the norm's input", "standardized", r"$\gamma$ and $\beta$ mixed in")
_SHOWN = 0.99  # share of the tokens that the axes hold


class NormalizationState(traitlets.HasTraits):
    """A layer, and how much of its γ and β is mixed in; values out of range are refused.

    Args:
        parts: by layer, from :func:`embvar_kit.affine_moments`.
        inputs: statistics at site ``"norm_input"`` of the same layers and tokens.
    """

    layer = traitlets.Int(help="hidden state")
    gamma = traitlets.Float(1.0, min=0.0, max=1.0, help="0: every γ is 1; 1: the trained ones")
    beta = traitlets.Float(1.0, min=0.0, max=1.0, help="0: every β is 0; 1: the trained ones")
    lines = traitlets.Dict(read_only=True, help="the regression at each of the three sites")

    def __init__(
        self, parts: Mapping[int, AffineMoments], inputs: TokenStatistics, **values: float
    ) -> None:
        if not parts:
            raise StatisticsError("There is no layer to show: affine_moments() makes some.")
        self.parts = dict(parts)
        self.inputs = {layer: _same_tokens(part, inputs) for layer, part in self.parts.items()}
        super().__init__(**{"layer": next(iter(self.parts)), **values})

    @traitlets.validate("layer")
    def _there(self, proposal: Mapping) -> int:
        if proposal["value"] not in self.parts:
            there = ", ".join(map(str, self.parts))
            raise traitlets.TraitError(f"layer={proposal['value']}: there are {there}.")
        return proposal["value"]

    @traitlets.default("lines")
    def _first(self) -> dict[str, analysis.Tradeoff]:
        return self._fits()

    @traitlets.observe("layer", "gamma", "beta")
    def _follow(self, _: object) -> None:
        self.set_trait("lines", self._fits())

    def _fits(self) -> dict[str, analysis.Tradeoff]:
        part, table = self.parts[self.layer], self.inputs[self.layer]
        before = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
        mixed = part.tradeoff(self.gamma, self.beta)
        return dict(zip(SITES, (before, part.tradeoff(0, 0), mixed), strict=True))


class NormalizationBench(Explorer):
    """Three plots of V on M: at the norm's input, standardized, and with γ and β mixed in.

    Args:
        parts: by layer, from :func:`embvar_kit.affine_moments`.
        inputs: statistics at site ``"norm_input"`` of the same model, corpus and layers.

    Raises:
        StatisticsError: if there is no layer, or the inputs lack tokens of the parts.
    """

    def __init__(self, parts: Mapping[int, AffineMoments], inputs: TokenStatistics) -> None:
        self.state = NormalizationState(parts, inputs)
        self._drawing = threading.RLock()
        self._sheets: dict[int, tuple[Sheet, list[Axes]]] = {}
        self._picture, shown = picture("embvar-picture", 860)
        self._numbers = named(widgets.HTML(), "embvar-numbers")
        self._message = named(widgets.HTML(), "embvar-message")
        self.pictures = Ahead(self._make, lambda _, png: setattr(self._picture, "value", png))
        layers = [(f"layer {layer}", layer) for layer in self.state.parts]
        layer = choice("", "embvar-layer", layers, "the hidden state shown", width="120px")
        controls = {"layer": layer}
        for name, what in (("gamma", "γ"), ("beta", "β")):
            controls[name] = widgets.FloatSlider(
                min=0,
                max=1,
                step=0.05,
                description=f"{what} mixed in",
                tooltip=f"0: none of {what}; 1: as trained; arrow keys move it",
                style={"description_width": "initial"},
                layout={"width": "300px"},
            )
        for name, control in controls.items():
            tie(self.state, name, named(control, f"embvar-{name}"), self._say)
        self.state.observe(lambda _: self._show(), ["layer", "gamma", "beta"])
        above = rows(*controls.values())
        self.view = framed(above, shown, self._numbers, self._message, kind="normalization")
        self._show()
        self.wait()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for the picture of the present state; whether it was drawn in time."""
        return self.pictures.wait(seconds)

    def still(self) -> bytes:
        """The present picture, in a palette."""
        return self._make(self._key(), small=True)

    def _show(self) -> None:
        self.pictures.ask(self._key())
        self._numbers.value = " &emsp; ".join(
            f"<b>{site}</b>: slope {line.slope:.3f}, R² {line.r2:.3f}, CV of Q {line.cv_Q:.3f}"
            for site, line in self.state.lines.items()
        )

    def _key(self) -> tuple[int, float, float]:
        return self.state.layer, self.state.gamma, self.state.beta

    def _make(self, key: tuple[int, float, float], *, small: bool = False) -> bytes:
        layer, gamma, beta = key
        part = self.state.parts[layer]
        with self._drawing:
            if layer not in self._sheets:
                self._sheets[layer] = self._frame(layer)
            sheet, axes = self._sheets[layer]
            line = part.tradeoff(gamma, beta)
            moving = _points(axes[2], part.mixed(gamma, beta), line)
            try:
                return sheet.png([*moving, _title(axes[2], _TITLES[2], line)], small=small)
            finally:
                for artist in moving:
                    artist.remove()

    def _frame(self, layer: int) -> tuple[Sheet, list[Axes]]:
        """What does not move at a layer: the first two plots, and the third's axes."""
        part, table = self.state.parts[layer], self.state.inputs[layer]
        sheet = Sheet(11.5, 4)
        axes = list(sheet.figure.subplots(1, 3))
        before = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
        mixtures = [part.mixed(*shares) for shares in ((0, 0), (1, 1), (1, 0), (0, 1))]
        shown = (
            (table, before, [table]),
            (mixtures[0], part.tradeoff(0, 0), mixtures[:1]),
            (None, None, mixtures),
        )
        for ax, name, (points, line, held) in zip(axes, _TITLES, shown, strict=True):
            for axis, column in (("x", "M"), ("y", "V")):
                most = max(float(one[column].quantile(_SHOWN)) for one in held)
                ax.set(**{f"{axis}lim": (0, 1.08 * most), f"{axis}label": f"${column}(X_t)$"})
            style.few_ticks(ax)
            if points is None:
                _title(ax, name, part.tradeoff()).set_animated(True)
                continue
            _points(ax, points, line)
            _title(ax, name, line)
            outside = (points["M"] > ax.get_xlim()[1]) | (points["V"] > ax.get_ylim()[1])
            if number := int(outside.sum()):
                text = f"{number} token{'s' * (number > 1)} outside"
                ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=8)
        colours = ScalarMappable(Normalize(*style.count_range(part.n)), FREQUENCY_MAP)
        sheet.figure.colorbar(colours, ax=axes, label=r"$\log_{10} n_t$")
        sheet.freeze()
        return sheet, axes

    def _say(self, text: str) -> None:
        self._message.value = html.escape(text)


def _same_tokens(part: AffineMoments, inputs: TokenStatistics) -> pd.DataFrame:
    table = inputs.table(part.layer).set_index("token")
    absent = [token for token in part.tokens if token not in table.index]
    if absent:
        raise StatisticsError(
            f"The inputs lack {len(absent)} of the tokens, {absent[0]!r} for one: both must come "
            "from the same corpus."
        )
    return table.loc[list(part.tokens)].reset_index()


def _points(ax: Axes, table: pd.DataFrame, line: analysis.Tradeoff) -> list[Artist]:
    table = table[::-1]  # the few frequent tokens on top of the many rare ones
    points = ax.scatter(
        table["M"],
        table["V"],
        s=4,
        c=np.log10(table["n"]),
        cmap=FREQUENCY_MAP,
        norm=Normalize(*style.count_range(table["n"])),
        linewidths=0,
    )
    ends = np.array([table["M"].min(), table["M"].max()])
    (fit,) = ax.plot(ends, line.intercept + line.slope * ends, color="black", linewidth=1.5)
    fit.set_zorder(style.line_order(line.r2))
    return sorted([points, fit], key=Artist.get_zorder)


def _title(ax: Axes, name: str, line: analysis.Tradeoff) -> Artist:
    style.panel_title(ax, f"{name}\n{fit_text(line)}")
    return ax.title
