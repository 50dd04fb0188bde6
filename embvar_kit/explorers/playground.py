"""The playground: a cloud whose mean and spread are set or dragged, and its Q, M and V."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform

from embvar_kit import figures
from embvar_kit.explorers.blitted import BlittedExplorer
from embvar_kit.explorers.scripted import Drag
from embvar_kit.explorers.traits import Independent, Number, Whole
from embvar_kit.figures.formula import formula_artists, formula_frame

_FARTHEST, _WIDEST = 3.0, 1.5  # largest mean and largest spread of a feature of the cloud
_CUT = 2.2  # length of normal vectors beyond which they are drawn again
_FAR = 2.6  # largest distance from the mean in a feature, in standard deviations
_LIMIT = 7.0  # end of both axes of the cloud, which no cloud reaches
_TOP = 1.1 * 2 * (_FARTHEST**2 + _WIDEST**2)  # end of the axis of squared norms
_STEP = 0.1  # of the sliders
_MEANINGS = {
    "Q": "mean squared length of the vectors",
    "M": "squared length of their mean",
    "V": "mean squared distance from their mean",
}


class CloudState(Independent):
    """A 2-D cloud: its mean, its spread and its number of vectors; :attr:`moments` follow.

    Values out of range are rejected. Within them no vector leaves the plot.
    """

    mean_1 = Number(2.0, min=-_FARTHEST, max=_FARTHEST, help="mean of feature 1")
    mean_2 = Number(1.0, min=-_FARTHEST, max=_FARTHEST, help="mean of feature 2")
    spread_1 = Number(0.8, min=0, max=_WIDEST, help="standard deviation of feature 1")
    spread_2 = Number(0.4, min=0, max=_WIDEST, help="standard deviation of feature 2")
    n = Whole(300, min=2, max=2000, help="number of vectors")
    seed = Whole(0, min=0, help="seed of the random draw")
    moments = traitlets.Dict(read_only=True, help="Q, M and V of the cloud")

    @traitlets.default("moments")
    def _initial_moments(self) -> dict[str, float]:
        return figures.moments_of(self.cloud())

    @traitlets.observe("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    def _update_moments(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.cloud()))

    def cloud(self) -> np.ndarray:
        """``(n, 2)`` normal vectors, rescaled to have exactly the mean and spread set.

        Before that, vectors farther than 2.2 from the origin, one in eleven, are drawn again: the
        cloud is of a truncated normal distribution.
        """
        rng = np.random.default_rng(self.seed)
        noise = np.full((self.n, 2), np.inf)
        while np.abs(noise).max() > _FAR:  # rescaling a handful of vectors may enlarge them
            noise = rng.normal(size=(self.n, 2))
            while (far := np.hypot(*noise.T) > _CUT).any():
                noise[far] = rng.normal(size=(far.sum(), 2))
            noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
        return np.array([self.mean_1, self.mean_2]) + noise * [self.spread_1, self.spread_2]


class VariancePlayground(BlittedExplorer):
    """Set the mean and the spread of a cloud, or drag it, and see that ``Q = M + V`` holds.

    >>> playground = VariancePlayground()
    >>> playground.state.mean_1, playground.state.mean_2 = 3.0, 0.0
    >>> {name: round(value, 2) for name, value in playground.state.moments.items()}
    {'Q': 9.8, 'M': 9.0, 'V': 0.8}
    """

    link_name = "playground"
    size = 11.0, 4.125
    drawn = ("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    shows = "A cloud of vectors in the plane, and its moments as bars."

    def __init__(self) -> None:
        controls = {}
        for name, what, least, most in (
            ("mean", "mean", -_FARTHEST, _FARTHEST),
            ("spread", "standard deviation", 0, _WIDEST),
        ):
            for feature in (1, 2):
                controls[f"{name}_{feature}"] = widgets.FloatSlider(
                    min=least,
                    max=most,
                    step=_STEP,
                    description=f"{name} {feature}",
                    tooltip=f"{what} of feature {feature}; arrow keys move it",
                )
        self._drag = Drag(
            hint="Drag the cloud, or move its sliders; point at a bar for its number."
        )
        super().__init__(CloudState(), controls, "Q, M and V of the cloud", below=(self._drag,))
        self._drag.observe(lambda change: self._move(*change["new"]), "place")

    def frame(self, figure: Figure) -> tuple[Axes, ...]:
        """The Axes of :func:`embvar_kit.figures.variance_formula`, as large as any cloud needs."""
        return formula_frame(figure, _LIMIT, _TOP)

    def artists(self, axes: tuple[Axes, ...], values: Mapping[str, float]) -> list[Artist]:
        """Cloud, triangle and bars of :func:`embvar_kit.figures.variance_formula`."""
        state = CloudState(**values)
        return formula_artists(axes, state.cloud(), state.moments)

    def _table(self) -> pd.DataFrame:
        return pd.DataFrame([{**self.state.values(), **self.state.moments}])

    def _shows(self) -> str:
        return f"n{self.state.n}-seed{self.state.seed}"

    def _move(self, across: float, up: float) -> None:
        """Put the mean where the reader drags it, as far as the sliders go."""
        with self.state.hold_trait_notifications():
            for name, at in (("mean_1", across), ("mean_2", up)):
                mean = round((2 * at - 1) * _LIMIT / _STEP) * _STEP
                setattr(self.state, name, float(np.clip(round(mean, 1), -_FARTHEST, _FARTHEST)))

    def _show_picture(self, key: tuple, png: bytes) -> None:
        super()._show_picture(key, png)
        values, form = key
        moments, areas = CloudState(**dict(zip(self.drawn, values, strict=True))).moments, []
        with self._drawing:
            cloud, _, bars = self._stage(form).axes
            self._drag.frame = _edges(cloud, (0, 0), (1, 1), cloud.transAxes)
        for name, at, bottom in (("Q", 0, 0.0), ("M", 1, 0.0), ("V", 1, moments["M"])):
            ends = (at - 0.3, bottom), (at + 0.3, bottom + moments[name])
            text = f"{name} = {moments[name]:.3f}\n{_MEANINGS[name]}"
            areas.append([*_edges(bars, *ends), text])
        self._tooltip.areas = areas


def _edges(
    ax: Axes,
    lower_left: tuple[float, float],
    upper_right: tuple[float, float],
    of: Transform | None = None,
) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of a part of Axes, as fractions of the picture's size."""
    corners = (of or ax.transData).transform([lower_left, upper_right])
    (left, lower), (right, upper) = ax.figure.transFigure.inverted().transform(corners)
    return float(left), float(1 - upper), float(right), float(1 - lower)
