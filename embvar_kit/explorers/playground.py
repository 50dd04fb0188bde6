"""Explorers of notebooks 1 and 2: a cloud to move about, a sequence to step through."""

from __future__ import annotations

import abc
import html
from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.artist import Artist

from embvar_kit import figures
from embvar_kit.explorers.base import Explorer, framed, named, picture, rows, tie
from embvar_kit.explorers.rendering import Ahead, Sheet
from embvar_kit.figures.formula import formula_artists, formula_frame, running_marks, running_path

_LIMIT = 5.0


class CloudState(traitlets.HasTraits):
    """A 2-D cloud: where its mean is, how far it spreads, how many vectors it has.

    Its :attr:`moments` follow whatever is set. Values out of range are refused.
    """

    mean_1 = traitlets.Float(2.0, min=-3.0, max=3.0, help="mean of feature 1")
    mean_2 = traitlets.Float(1.0, min=-3.0, max=3.0, help="mean of feature 2")
    spread_1 = traitlets.Float(0.8, min=0.0, max=2.0, help="standard deviation of feature 1")
    spread_2 = traitlets.Float(0.4, min=0.0, max=2.0, help="standard deviation of feature 2")
    n = traitlets.Int(300, min=2, max=2000, help="number of vectors")
    seed = traitlets.Int(0, min=0, help="of the draw")
    moments = traitlets.Dict(read_only=True, help="Q, M and V of the cloud")

    @traitlets.default("moments")
    def _first_moments(self) -> dict[str, float]:
        return figures.moments_of(self.cloud())

    @traitlets.observe("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    def _follow(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.cloud()))

    def cloud(self) -> np.ndarray:
        """``(n, 2)`` vectors: normal, standardized so that mean and spread are those set."""
        noise = np.random.default_rng(self.seed).normal(size=(self.n, 2))
        noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
        return np.array([self.mean_1, self.mean_2]) + noise * [self.spread_1, self.spread_2]


class SequenceState(traitlets.HasTraits):
    """A sequence of vectors and how many of them have been seen."""

    k = traitlets.Int(1, min=1, help="vectors seen")
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
    def _first_moments(self) -> dict[str, float]:
        return figures.moments_of(self.x[: self.k])

    @traitlets.observe("k")
    def _follow(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.x[: self.k]))


class _Live(Explorer):
    """Controls above a picture whose frame is drawn once; what moves is drawn at each change.

    In the background, so that a slider that is dragged does not wait for pictures that it has left
    behind. Subclasses say what moves.
    """

    drawn: tuple[str, ...]
    """The state's values that the picture depends on."""

    def __init__(
        self,
        state: traitlets.HasTraits,
        controls: Mapping[str, widgets.Widget],
        sheet: Sheet,
        before: tuple[widgets.Widget, ...] = (),
    ) -> None:
        self.state, self._sheet = state, sheet
        self._artists: list[Artist] = []
        self._picture, shown = picture("embvar-picture", 560)
        self._numbers = named(widgets.HTML(), "embvar-numbers")
        self._message = named(widgets.HTML(), "embvar-message")
        # What moves is there when the frame is laid out, to have its room, and is not drawn on it.
        for artist in self._move(self._values()):
            artist.set_animated(True)
        sheet.freeze()
        self.pictures = Ahead(self._make, lambda _, png: setattr(self._picture, "value", png))
        for name, control in controls.items():
            tie(state, name, named(control, f"embvar-{name.replace('_', '-')}"), self._say)
        # After the state's own observers, so that its moments are up to date; not on the moments
        # themselves, which may stay the same while the cloud moves.
        state.observe(lambda _: self._show(), list(self.drawn))
        above = rows(*before, *controls.values())
        self.view = framed(above, shown, self._numbers, self._message)
        self._show()
        self.wait()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for the picture of the present state; whether it was drawn in time."""
        return self.pictures.wait(seconds)

    def still(self) -> bytes:
        """The present picture, in a palette."""
        self.wait()
        return self._sheet.png(self._artists, small=True)

    @abc.abstractmethod
    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """What moves, drawn for these values of the state."""

    def _values(self) -> tuple[float, ...]:
        return tuple(getattr(self.state, name) for name in self.drawn)

    def _move(self, values: tuple[float, ...]) -> list[Artist]:
        for artist in self._artists:
            if artist is not artist.axes.title:  # a title stays, and takes another text
                artist.remove()
        self._artists = self.artists(dict(zip(self.drawn, values, strict=True)))
        return self._artists

    def _make(self, values: tuple[float, ...]) -> bytes:
        return self._sheet.png(self._move(values))

    def _show(self) -> None:
        self.pictures.ask(self._values())
        self._numbers.value = " &emsp; ".join(
            f"{name} = {value:.3f}" for name, value in self.state.moments.items()
        )

    def _say(self, text: str) -> None:
        self._message.value = html.escape(text)


class VariancePlayground(_Live):
    """Move the mean and the spread of a cloud, and watch ``Q = M + V`` hold.

    >>> playground = VariancePlayground()
    >>> playground.state.mean_1, playground.state.mean_2 = 3.0, 0.0
    >>> {name: round(value, 2) for name, value in playground.state.moments.items()}
    {'Q': 9.8, 'M': 9.0, 'V': 0.8}
    """

    drawn = ("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")

    def __init__(self) -> None:
        sheet = Sheet(11, 3.9)
        self._axes = formula_frame(sheet.figure, _LIMIT)
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
        super().__init__(CloudState(), controls, sheet)

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """Cloud, triangle and bars of :func:`embvar_kit.figures.variance_formula`."""
        of = CloudState(**values)
        return formula_artists(self._axes, of.cloud(), of.moments)


class SequencePlayer(_Live):
    """Step through the occurrences of a token, and watch Q, M and V settle.

    Args:
        x: ``(N, d)`` embeddings in the order in which they arrive.
    """

    drawn = ("k",)

    def __init__(self, x: np.ndarray) -> None:
        state = SequenceState(x)
        sheet = Sheet(7.5, 3.8)
        self._ax = figures.running_moments(state.x, ax=sheet.figure.subplots())
        self._path = running_path(state.x)
        slider = widgets.IntSlider(
            min=1,
            max=len(state.x),
            description="seen, k",
            tooltip="how many occurrences have been seen; arrow keys move it",
        )
        player = widgets.Play(
            min=1, max=len(state.x), interval=200, show_repeat=False, tooltip="let them arrive"
        )
        traitlets.link((player, "value"), (slider, "value"))
        super().__init__(state, {"k": slider}, sheet, before=(named(player, "embvar-play"),))

    def artists(self, values: Mapping[str, float]) -> list[Artist]:
        """The marks of :func:`embvar_kit.figures.running_moments`."""
        return running_marks(self._ax, self._path, int(values["k"]))
