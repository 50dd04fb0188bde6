"""Explorers whose picture is a fixed background and a few artists that follow the state."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import ipywidgets as widgets
import traitlets
from matplotlib.artist import Artist

from embvar_kit.explorers.base import bind, explorer_frame
from embvar_kit.explorers.controls import with_class, wrapping_row
from embvar_kit.explorers.pictured import PicturedExplorer
from embvar_kit.explorers.rendering import BlittedFigure


class BlittedExplorer(PicturedExplorer):
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
        with self._drawing:
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
