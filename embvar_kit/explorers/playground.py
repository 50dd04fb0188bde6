"""Explorers of the definitions: a cloud whose mean and spread are set, and a running sequence."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.transforms import Transform

from embvar_kit import figures
from embvar_kit.explorers.base import bind, explorer_frame
from embvar_kit.explorers.controls import checkbox, dropdown, with_class, wrapping_row
from embvar_kit.explorers.pictured import PicturedExplorer
from embvar_kit.explorers.rendering import BlittedFigure
from embvar_kit.explorers.scripted import Drag
from embvar_kit.figures.formula import (
    NEAR,
    formula_artists,
    formula_frame,
    near_from,
    running_artists,
    running_frame,
    running_path,
)

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
_SPEEDS = {"slow": 500, "normal": 200, "fast": 40}  # milliseconds a vector


class CloudState(traitlets.HasTraits):
    """A 2-D cloud: its mean, its spread and its number of vectors; :attr:`moments` follow.

    Values out of range are rejected. Within them no vector leaves the plot.
    """

    mean_1 = traitlets.Float(2.0, min=-_FARTHEST, max=_FARTHEST, help="mean of feature 1")
    mean_2 = traitlets.Float(1.0, min=-_FARTHEST, max=_FARTHEST, help="mean of feature 2")
    spread_1 = traitlets.Float(0.8, min=0, max=_WIDEST, help="standard deviation of feature 1")
    spread_2 = traitlets.Float(0.4, min=0, max=_WIDEST, help="standard deviation of feature 2")
    n = traitlets.Int(300, min=2, max=2000, help="number of vectors")
    seed = traitlets.Int(0, min=0, help="seed of the random draw")
    moments = traitlets.Dict(read_only=True, help="Q, M and V of the cloud")

    @traitlets.default("moments")
    def _initial_moments(self) -> dict[str, float]:
        return figures.moments_of(self.cloud())

    @traitlets.observe("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    def _update_moments(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.cloud()))

    def cloud(self) -> np.ndarray:
        """``(n, 2)`` normal vectors, rescaled to have exactly the mean and spread set.

        The few that lie far out are drawn again.
        """
        rng = np.random.default_rng(self.seed)
        noise = np.full((self.n, 2), np.inf)
        while np.abs(noise).max() > _FAR:  # rescaling a handful of vectors may enlarge them
            noise = rng.normal(size=(self.n, 2))
            while (far := np.hypot(*noise.T) > _CUT).any():
                noise[far] = rng.normal(size=(far.sum(), 2))
            noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
        return np.array([self.mean_1, self.mean_2]) + noise * [self.spread_1, self.spread_2]


class SequenceState(traitlets.HasTraits):
    """A sequence of vectors, how many of them have been seen, and whether the end is shown.

    Args:
        x: ``(N, d)`` vectors.
        values: initial values of the traits.
    """

    k = traitlets.Int(1, min=1, help="number of vectors seen")
    answer = traitlets.Bool(False, help="whether the values after all vectors are shown")
    moments = traitlets.Dict(read_only=True, help="Q, M and V after k vectors")

    def __init__(self, x: np.ndarray, **values: int) -> None:
        self.x = np.asarray(x)
        self.path = running_path(self.x)
        super().__init__(**values)

    def near_from(self) -> dict[str, int]:
        """From which k on Q, M and V stay within a tenth of their values after all vectors."""
        return {name: near_from(values) for name, values in self.path.items()}

    @traitlets.validate("k")
    def _in_range(self, proposal: Mapping) -> int:
        if proposal["value"] > len(self.x):
            raise traitlets.TraitError(f"k={proposal['value']}: there are {len(self.x)} vectors.")
        return proposal["value"]

    @traitlets.default("moments")
    def _initial_moments(self) -> dict[str, float]:
        return figures.moments_of(self.x[: self.k])

    @traitlets.observe("k")
    def _update_moments(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.x[: self.k]))


class _BlittedExplorer(PicturedExplorer):
    """Controls above a picture of which only the artists given by a subclass are redrawn.

    Pictures are drawn in the background, so that a dragged slider need not wait for the pictures
    of values that it has already left.

    Args:
        state: the explorer's state.
        controls: by the name of the state's value that each is bound to.
        blitted: figure whose background is ready to be drawn.
        before: widgets placed before the controls.
        below: widgets placed below the picture.
    """

    drawn: tuple[str, ...]
    """Names of the state's values that the picture depends on."""

    shows: str
    """What the picture shows, for its alternative text."""

    def __init__(
        self,
        state: traitlets.HasTraits,
        controls: Mapping[str, widgets.Widget],
        blitted: BlittedFigure,
        *,
        before: tuple[widgets.Widget, ...] = (),
        below: tuple[widgets.Widget, ...] = (),
    ) -> None:
        super().__init__(tuple(blitted.figure.get_size_inches()), 560)
        self.state, self._figure = state, blitted
        # The artists must exist when the background is laid out, to be given space, but must not
        # be drawn on it.
        self._artists = self._artists_of(self._values())
        for artist in self._artists:
            artist.set_animated(True)
        blitted.draw_background()
        for name, control in controls.items():
            css = f"embvar-{name.replace('_', '-')}"
            bind(state, name, with_class(control, css), self._show_message)
        # Registered after the state's own observers, so that its moments are up to date. Observing
        # the moments would not do: they may stay the same while the cloud moves.
        state.observe(lambda _: self._update(), list(self.drawn))
        above = wrapping_row(*before, *controls.values(), self._lecture)
        parts = (above, self._shown, *below, self._numbers, self._message, self._tooltip)
        self.view = explorer_frame(*parts)
        self._update()
        self.wait()

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        self.wait()
        return self._draw((self._values(), 1), small=True)

    @abc.abstractmethod
    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """Draw what depends on these values of the state; return its artists."""

    def _values(self) -> tuple[float, ...]:
        return tuple(getattr(self.state, name) for name in self.drawn)

    def _artists_of(self, values: tuple[float, ...]) -> list[Artist]:
        return self.artists(dict(zip(self.drawn, values, strict=True)))

    def _draw(self, key: tuple[tuple[float, ...], int], *, small: bool = False) -> bytes:
        values, scale = key
        for artist in self._artists:
            if artist is not artist.axes.title:  # a title is kept and given a new text
                artist.remove()
        self._artists = []
        self._figure.enlarge(scale)
        self._artists = self._artists_of(values)
        return self._figure.png(self._artists, small=small)

    def _update(self) -> None:
        self.pictures.request((self._values(), self._scale))
        numbers = [f"{name} = {value:.3f}" for name, value in self.state.moments.items()]
        self._numbers.value = " &emsp; ".join([*numbers, *self._remarks()])
        told = ", ".join([*numbers, *self._remarks()])
        self._describe("embvar-picture", f"{self.shows} {told}.")

    def _remarks(self) -> list[str]:
        """What is said beside Q, M and V."""
        return []


class VariancePlayground(_BlittedExplorer):
    """Set the mean and the spread of a cloud, or drag it, and see that ``Q = M + V`` holds.

    >>> playground = VariancePlayground()
    >>> playground.state.mean_1, playground.state.mean_2 = 3.0, 0.0
    >>> {name: round(value, 2) for name, value in playground.state.moments.items()}
    {'Q': 9.8, 'M': 9.0, 'V': 0.8}
    """

    drawn = ("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    shows = "A cloud of vectors in the plane, and its moments as bars."

    def __init__(self) -> None:
        blitted = BlittedFigure(11, 4.125)
        self._axes = formula_frame(blitted.figure, _LIMIT, _TOP)
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
        super().__init__(CloudState(), controls, blitted, below=(self._drag,))
        self._drag.frame = _edges(self._axes[0], (0, 0), (1, 1), self._axes[0].transAxes)
        self._drag.observe(lambda change: self._move(*change["new"]), "place")

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """Cloud, triangle and bars of :func:`embvar_kit.figures.variance_formula`."""
        state = CloudState(**values)
        return formula_artists(self._axes, state.cloud(), state.moments)

    def _move(self, across: float, up: float) -> None:
        """Put the mean where the reader drags it, as far as the sliders go."""
        with self.state.hold_trait_notifications():
            for name, at in (("mean_1", across), ("mean_2", up)):
                mean = round((2 * at - 1) * _LIMIT / _STEP) * _STEP
                setattr(self.state, name, float(np.clip(round(mean, 1), -_FARTHEST, _FARTHEST)))

    def _show_picture(self, key: tuple, png: bytes) -> None:
        super()._show_picture(key, png)
        moments, areas = CloudState(**dict(zip(self.drawn, key[0], strict=True))).moments, []
        for name, at, bottom in (("Q", 0, 0.0), ("M", 1, 0.0), ("V", 1, moments["M"])):
            ends = (at - 0.3, bottom), (at + 0.3, bottom + moments[name])
            text = f"{name} = {moments[name]:.3f}\n{_MEANINGS[name]}"
            areas.append([*_edges(self._axes[2], *ends), text])
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


class SequencePlayer(_BlittedExplorer):
    """Step through the occurrences of a token, and see Q, M and V grow; the end is hidden at first.

    Args:
        x: ``(N, d)`` embeddings in the order in which they arrive.
    """

    drawn = ("k", "answer")
    shows = "Q, M and V of the first k vectors, against k."

    def __init__(self, x: np.ndarray) -> None:
        state = SequenceState(x)
        blitted = BlittedFigure(7.5, 3.8)
        self._ax = running_frame(state.path, ax=blitted.figure.subplots())
        slider = widgets.IntSlider(
            min=1,
            max=len(state.x),
            description="seen, k",
            tooltip="number of occurrences seen; arrow keys move it",
        )
        player = widgets.Play(
            min=1,
            max=len(state.x),
            interval=_SPEEDS["normal"],
            tooltip="play the sequence",
        )
        traitlets.link((player, "value"), (slider, "value"))
        speed = dropdown(
            "speed", "embvar-speed", list(_SPEEDS.items()), "how fast it plays", "150px"
        )
        speed.value = _SPEEDS["normal"]
        traitlets.link((speed, "value"), (player, "interval"))
        answer = checkbox(
            "show the end",
            "embvar-answer",
            f"the values after all vectors, each in a band of ±{NEAR:.0%}",
        )
        controls = {"k": slider, "answer": answer}
        super().__init__(
            state, controls, blitted, before=(with_class(player, "embvar-play"), speed)
        )

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """The curves up to k, and the values that they end at if these are shown."""
        return running_artists(
            self._ax, self.state.path, int(values["k"]), answer=bool(values["answer"])
        )

    def _remarks(self) -> list[str]:
        if not self.state.answer:
            return []
        first = ", ".join(f"{name} from k = {k}" for name, k in self.state.near_from().items())
        return [f"within {NEAR:.0%} of the end: {first}"]
