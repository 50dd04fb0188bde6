"""Explorers of the definitions: a cloud whose mean and spread are set, and a running sequence."""

from __future__ import annotations

import abc
import html
from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.artist import Artist

from embvar_kit import figures
from embvar_kit.explorers.base import Explorer, bind, explorer_frame
from embvar_kit.explorers.controls import scrolling_image, with_class, wrapping_row
from embvar_kit.explorers.rendering import BlittedFigure, Prefetcher
from embvar_kit.figures.formula import formula_artists, formula_frame, running_marks, running_path

_LIMIT = 5.0  # end of both axes of the cloud


class CloudState(traitlets.HasTraits):
    """A 2-D cloud: its mean, its spread and its number of vectors; :attr:`moments` follow.

    Values out of range are rejected.
    """

    mean_1 = traitlets.Float(2.0, min=-3.0, max=3.0, help="mean of feature 1")
    mean_2 = traitlets.Float(1.0, min=-3.0, max=3.0, help="mean of feature 2")
    spread_1 = traitlets.Float(0.8, min=0.0, max=2.0, help="standard deviation of feature 1")
    spread_2 = traitlets.Float(0.4, min=0.0, max=2.0, help="standard deviation of feature 2")
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
        """``(n, 2)`` normal vectors, rescaled to have exactly the mean and spread set."""
        noise = np.random.default_rng(self.seed).normal(size=(self.n, 2))
        noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
        return np.array([self.mean_1, self.mean_2]) + noise * [self.spread_1, self.spread_2]


class SequenceState(traitlets.HasTraits):
    """A sequence of vectors, and how many of them have been seen.

    Args:
        x: ``(N, d)`` vectors.
        values: initial values of the traits.
    """

    k = traitlets.Int(1, min=1, help="number of vectors seen")
    moments = traitlets.Dict(read_only=True, help="Q, M and V after k vectors")

    def __init__(self, x: np.ndarray, **values: int) -> None:
        self.x = np.asarray(x)
        super().__init__(**values)

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


class _BlittedExplorer(Explorer):
    """Controls above a picture of which only the artists given by a subclass are redrawn.

    Pictures are drawn in the background, so that a dragged slider need not wait for the pictures
    of values that it has already left.

    Args:
        state: the explorer's state.
        controls: by the name of the state's value that each is bound to.
        blitted: figure whose background is ready to be drawn.
        before: widgets placed before the controls.
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
        before: tuple[widgets.Widget, ...] = (),
    ) -> None:
        self.state, self._figure = state, blitted
        self._artists: list[Artist] = []
        size = tuple(blitted.figure.get_size_inches())
        self._picture, shown = scrolling_image("embvar-picture", 560, size)
        self._numbers = with_class(widgets.HTML(), "embvar-numbers")
        self._message = with_class(widgets.HTML(), "embvar-message")
        # The artists must exist when the background is laid out, to be given space, but must not
        # be drawn on it.
        for artist in self._replace_artists(self._values()):
            artist.set_animated(True)
        blitted.draw_background()
        self.pictures = Prefetcher(self._draw, lambda _, png: self._picture.show(png))
        for name, control in controls.items():
            bind(
                state,
                name,
                with_class(control, f"embvar-{name.replace('_', '-')}"),
                self._show_message,
            )
        # Registered after the state's own observers, so that its moments are up to date. Observing
        # the moments would not do: they may stay the same while the cloud moves.
        state.observe(lambda _: self._update(), list(self.drawn))
        above = wrapping_row(*before, *controls.values())
        self.view = explorer_frame(above, shown, self._numbers, self._message)
        self._update()
        self.wait()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for the picture of the current state; return whether it was drawn in time."""
        return self.pictures.wait(seconds)

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        self.wait()
        return self._figure.png(self._artists, small=True)

    @abc.abstractmethod
    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """Draw what depends on these values of the state; return its artists."""

    def _values(self) -> tuple[float, ...]:
        return tuple(getattr(self.state, name) for name in self.drawn)

    def _replace_artists(self, values: tuple[float, ...]) -> list[Artist]:
        for artist in self._artists:
            if artist is not artist.axes.title:  # a title is kept and given a new text
                artist.remove()
        self._artists = self.artists(dict(zip(self.drawn, values, strict=True)))
        return self._artists

    def _draw(self, values: tuple[float, ...]) -> bytes:
        return self._figure.png(self._replace_artists(values))

    def _update(self) -> None:
        self.pictures.request(self._values())
        self._numbers.value = " &emsp; ".join(
            f"{name} = {value:.3f}" for name, value in self.state.moments.items()
        )
        numbers = ", ".join(f"{name} = {value:.3f}" for name, value in self.state.moments.items())
        self._describe("embvar-picture", f"{self.shows} {numbers}.")

    def _show_message(self, text: str) -> None:
        self._message.value = html.escape(text)


class VariancePlayground(_BlittedExplorer):
    """Set the mean and the spread of a cloud, and see that ``Q = M + V`` holds.

    >>> playground = VariancePlayground()
    >>> playground.state.mean_1, playground.state.mean_2 = 3.0, 0.0
    >>> {name: round(value, 2) for name, value in playground.state.moments.items()}
    {'Q': 9.8, 'M': 9.0, 'V': 0.8}
    """

    drawn = ("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    shows = "A cloud of vectors in the plane, and its moments as bars."

    def __init__(self) -> None:
        blitted = BlittedFigure(11, 3.9)
        self._axes = formula_frame(blitted.figure, _LIMIT)
        controls = {}
        for name, what, least, most in (
            ("mean", "mean", -3, 3),
            ("spread", "standard deviation", 0, 2),
        ):
            for feature in (1, 2):
                controls[f"{name}_{feature}"] = widgets.FloatSlider(
                    min=least,
                    max=most,
                    step=0.1,
                    description=f"{name} {feature}",
                    tooltip=f"{what} of feature {feature}; arrow keys move it",
                )
        super().__init__(CloudState(), controls, blitted)

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """Cloud, triangle and bars of :func:`embvar_kit.figures.variance_formula`."""
        state = CloudState(**values)
        return formula_artists(self._axes, state.cloud(), state.moments)


class SequencePlayer(_BlittedExplorer):
    """Step through the occurrences of a token, and see Q, M and V converge.

    Args:
        x: ``(N, d)`` embeddings in the order in which they arrive.
    """

    drawn = ("k",)
    shows = "Q, M and V of the first k vectors, against k."

    def __init__(self, x: np.ndarray) -> None:
        state = SequenceState(x)
        blitted = BlittedFigure(7.5, 3.8)
        self._ax = figures.running_moments(state.x, ax=blitted.figure.subplots())
        self._path = running_path(state.x)
        slider = widgets.IntSlider(
            min=1,
            max=len(state.x),
            description="seen, k",
            tooltip="number of occurrences seen; arrow keys move it",
        )
        player = widgets.Play(
            min=1, max=len(state.x), interval=200, show_repeat=False, tooltip="play the sequence"
        )
        traitlets.link((player, "value"), (slider, "value"))
        super().__init__(state, {"k": slider}, blitted, before=(with_class(player, "embvar-play"),))

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """The marks of :func:`embvar_kit.figures.running_moments`."""
        return running_marks(self._ax, self._path, int(values["k"]))
