"""The normalization explorer: V on M before, within and after a norm whose γ and β can be mixed."""

from __future__ import annotations

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
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.base import bind, explorer_frame
from embvar_kit.explorers.controls import dropdown, with_class, wrapping_row
from embvar_kit.explorers.pictured import Form, PicturedExplorer
from embvar_kit.explorers.rendering import DPI, BlittedFigure
from embvar_kit.explorers.tables import line_text
from embvar_kit.explorers.traits import Independent, Number, Whole
from embvar_kit.figures import style
from embvar_kit.figures.style import FREQUENCY_MAP
from embvar_kit.figures.tradeoff import fit_text
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import number_of

if TYPE_CHECKING:  # this imports torch, which takes seconds
    from embvar_kit.extraction.affine import AffineMoments

SITES = ("norm_input", "standardized", "norm_output")
_TITLES = (
    "norm_input: the norm's input",
    "standardized",
    r"norm_output: $\gamma$ and $\beta$ mixed in",
)
_SIZE = 9.4, 4.4  # of the picture, in inches: it fits a window of 1000 pixels
_KEPT = 8  # layers and sizes whose figures are kept
_SHOWN = 0.99  # fraction of the tokens that lies inside the axes


class NormalizationState(Independent):
    """A layer, and the fractions of its γ and β that are applied. Invalid values are rejected.

    Args:
        parts: moments by layer, from :func:`embvar_kit.affine_moments`.
        inputs: statistics at site ``"norm_input"`` of the same layers and tokens.
        values: initial values of the traits.

    Raises:
        StatisticsError: if there is no layer, or the inputs lack tokens of the parts.
    """

    layer = Whole(help="number of the hidden state shown")
    gamma = Number(1.0, min=0.0, max=1.0, help="0: every γ is 1; 1: the trained values")
    beta = Number(1.0, min=0.0, max=1.0, help="0: every β is 0; 1: the trained values")
    lines = traitlets.Dict(read_only=True, help="the regression at each of the three sites")

    def __init__(
        self, parts: Mapping[int, AffineMoments], inputs: TokenStatistics, **values: float
    ) -> None:
        if not parts:
            raise StatisticsError("There is no layer to show: get some from affine_moments().")
        self.parts = dict(parts)
        self.inputs = {layer: _same_tokens(part, inputs) for layer, part in self.parts.items()}
        super().__init__(**{"layer": next(iter(self.parts)), **values})

    @traitlets.validate("layer")
    def _known_layer(self, proposal: Mapping) -> int:
        if proposal["value"] not in self.parts:
            layers = ", ".join(map(str, self.parts))
            raise traitlets.TraitError(f"layer={proposal['value']}: there are {layers}.")
        return proposal["value"]

    @traitlets.default("lines")
    def _initial_lines(self) -> dict[str, analysis.Tradeoff]:
        return self._fits()

    @traitlets.observe("layer", "gamma", "beta")
    def _update_lines(self, _: object) -> None:
        self.set_trait("lines", self._fits())

    def _fits(self) -> dict[str, analysis.Tradeoff]:
        part, table = self.parts[self.layer], self.inputs[self.layer]
        before = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
        mixed = part.tradeoff(self.gamma, self.beta)
        return dict(zip(SITES, (before, part.tradeoff(0, 0), mixed), strict=True))


class NormalizationBench(PicturedExplorer):
    """Three plots of V on M: at the norm's input, standardized, and with γ and β mixed in.

    Args:
        parts: moments by layer, from :func:`embvar_kit.affine_moments`.
        inputs: statistics at site ``"norm_input"`` of the same model, corpus and layers.

    Raises:
        StatisticsError: if there is no layer, or the inputs lack tokens of the parts.
    """

    link_name = "bench"

    def __init__(self, parts: Mapping[int, AffineMoments], inputs: TokenStatistics) -> None:
        super().__init__(680)
        self.state = NormalizationState(parts, inputs)
        self._figures: dict[tuple[int, tuple], tuple[BlittedFigure, list[Axes]]] = {}
        layers = [(f"layer {layer}", layer) for layer in self.state.parts]
        layer = dropdown("", "embvar-layer", layers, "the hidden state shown", width="120px")
        controls = {"layer": layer}
        for name, what in (("gamma", "γ"), ("beta", "β")):
            controls[name] = widgets.FloatSlider(
                min=0,
                max=1,
                step=0.05,
                description=f"{what} mixed in",
                tooltip=f"0: without {what}; 1: {what} as trained; arrow keys move it",
                style={"description_width": "initial"},
                layout={"width": "280px"},
            )
        for name, control in controls.items():
            bind(self.state, name, with_class(control, f"embvar-{name}"), self._show_message)
        self.state.observe(lambda _: self._update(), ["layer", "gamma", "beta"])
        above = wrapping_row(*controls.values(), self._lecture)
        downloads = self._downloads("the regressions before, within and after the norm")
        parts = (above, self._shown, downloads, self._numbers, self._message, self._room)
        self.view = explorer_frame(*parts, kind="normalization")
        self._update()
        self.wait()

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        return self._draw((*self._key()[:-1], self._still_form()), small=True)

    def figure(self, dpi: float = DPI) -> Figure:
        """What is shown now, as a figure."""
        layer, gamma, beta, _ = self._key()
        figure = Figure(figsize=_SIZE, dpi=dpi, layout="constrained")
        axes = self._draw_panels(figure, layer)
        self._draw_mixed(axes[2], layer, gamma, beta)
        for ax in axes:
            for points in ax.collections:
                points.set_rasterized(True)  # in an SVG, thousands of points would take megabytes
        return figure

    def _size(self) -> tuple[float, float]:
        return _SIZE

    def _table(self) -> pd.DataFrame:
        state = self.state
        shown = {"layer": state.layer, "gamma": state.gamma, "beta": state.beta}
        rows = [{**shown, "site": site, **line._asdict()} for site, line in state.lines.items()]
        not_asked_for = ["theil_sen", "spearman"]
        return pd.DataFrame(rows).drop(columns=not_asked_for)

    def _shows(self) -> str:
        state = self.state
        return f"layer{state.layer}-gamma{state.gamma:g}-beta{state.beta:g}"

    def _update(self) -> None:
        self.pictures.request(self._key())
        numbers = (
            f"<b>{site}</b>: {line_text(line.slope, line.r2, line.cv_Q)}"
            for site, line in self.state.lines.items()
        )
        self._numbers.value = " &emsp; ".join([f"<b>layer {self.state.layer}</b>", *numbers])
        lines = "; ".join(
            f"{site}: {line_text(line.slope, line.r2)}" for site, line in self.state.lines.items()
        )
        self._describe(
            "embvar-picture", f"Three plots of V on M at layer {self.state.layer}. {lines}."
        )

    def _key(self) -> tuple[int, float, float, Form]:
        return self.state.layer, self.state.gamma, self.state.beta, self._form()

    def _draw(self, key: tuple[int, float, float, Form], *, small: bool = False) -> bytes:
        layer, gamma, beta, form = key
        with self._drawing:
            blitted, axes = self._figure_of(layer, form)
            blitted.enlarge(form.scale)
            *points, title = self._draw_mixed(axes[2], layer, gamma, beta)
            try:
                return blitted.png([*points, title], small=small)
            finally:
                for artist in points:
                    artist.remove()

    def _draw_mixed(self, ax: Axes, layer: int, gamma: float, beta: float) -> list[Artist]:
        """Draw what γ and β change: the points of the third plot, and last its title."""
        part = self.state.parts[layer]
        line = part.tradeoff(gamma, beta)
        points = _plot_points(ax, part.mixed(gamma, beta), line)
        return [*points, _set_title(ax, _TITLES[2], line)]

    def _figure_of(self, layer: int, form: Form) -> tuple[BlittedFigure, list[Axes]]:
        """A layer's figure without what γ and β change."""
        key = layer, form.size
        if key not in self._figures:
            blitted = BlittedFigure(*form.size)
            axes = self._draw_panels(blitted.figure, layer)
            axes[2].title.set_animated(True)
            blitted.draw_background()
            self._figures = dict([*self._figures.items(), (key, (blitted, axes))][-_KEPT:])
        return self._figures[key]

    def _draw_panels(self, figure: Figure, layer: int) -> list[Axes]:
        """Draw the first two plots, and of the third its axes and the room for its title."""
        part, table = self.state.parts[layer], self.state.inputs[layer]
        axes = list(figure.subplots(1, 3))
        before = analysis.tradeoff(*(table[name].to_numpy() for name in "QMV"))
        mixtures = [part.mixed(*shares) for shares in ((0, 0), (1, 1), (1, 0), (0, 1))]
        # Points, regression line, the tables that must fit on the axes, and how much of them. In
        # the middle M + V is the same for all tokens: none lies far out, and the line ends inside.
        plots = (
            (table, before, [table], _SHOWN),
            (mixtures[0], part.tradeoff(0, 0), mixtures[:1], 1.0),
            (None, None, mixtures, _SHOWN),
        )
        for ax, name, (points, line, fitting, shown) in zip(axes, _TITLES, plots, strict=True):
            for axis, column in (("x", "M"), ("y", "V")):
                most = max(float(one[column].quantile(shown)) for one in fitting)
                ax.set(**{f"{axis}lim": (0, 1.08 * most), f"{axis}label": f"${column}(X_t)$"})
            style.few_ticks(ax)
            if points is None:
                _set_title(ax, name, part.tradeoff())
                continue
            _plot_points(ax, points, line)
            _set_title(ax, name, line)
            outside = (points["M"] > ax.get_xlim()[1]) | (points["V"] > ax.get_ylim()[1])
            if number := int(outside.sum()):
                text = f"{number_of(number, 'token')} outside"
                ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=8)
        figure.suptitle(f"layer {layer}", fontsize=11)
        colours = ScalarMappable(Normalize(*style.count_range(part.n)), FREQUENCY_MAP)
        below = {"location": "bottom", "shrink": 0.5, "aspect": 40}
        figure.colorbar(colours, ax=axes, label=r"occurrences: $\log_{10} n_t$", **below)
        return axes


def _same_tokens(part: AffineMoments, inputs: TokenStatistics) -> pd.DataFrame:
    """``token, n, Q, M, V`` of the inputs, for the tokens of the parts and in their order."""
    table = inputs.table(part.layer).set_index("token")
    absent = [token for token in part.tokens if token not in table.index]
    if absent:
        raise StatisticsError(
            f"The inputs lack {len(absent)} of the tokens, for example {absent[0]!r}: both must "
            "come from the same corpus."
        )
    return table.loc[list(part.tokens)].reset_index()


def _plot_points(ax: Axes, table: pd.DataFrame, line: analysis.Tradeoff) -> list[Artist]:
    """Draw tokens and their regression line; return the artists in drawing order."""
    table = table[::-1]  # draws the few frequent tokens over the many rare ones
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


def _set_title(ax: Axes, name: str, line: analysis.Tradeoff) -> Artist:
    style.panel_title(ax, f"{name}\n{fit_text(line)}")
    return ax.title
