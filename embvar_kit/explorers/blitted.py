"""Explorers whose picture is a fixed background and a few artists that follow the state."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from embvar_kit.explorers.base import bind, explorer_frame
from embvar_kit.explorers.controls import with_class, wrapping_row
from embvar_kit.explorers.pictured import Form, PicturedExplorer
from embvar_kit.explorers.rendering import DPI, BlittedFigure
from embvar_kit.explorers.traits import Independent

_KEPT = 4  # sizes of the picture whose backgrounds are kept


@dataclass
class _Stage:
    """A figure whose background is drawn, its Axes, and the artists that are on them now."""

    blitted: BlittedFigure
    axes: Any
    artists: list[Artist]


class BlittedExplorer(PicturedExplorer):
    """Controls above a picture of which only the artists given by a subclass are redrawn.

    Pictures are drawn in the background, so that a dragged slider need not wait for the pictures
    of values that it has already left.

    Args:
        state: the explorer's state.
        controls: by the name of the state's value that each is bound to.
        table: what the table of numbers holds, for its button's tooltip.
        before: widgets placed before the controls.
        below: widgets placed below the picture.
    """

    size: tuple[float, float]
    """Width and height of the picture in inches."""

    drawn: tuple[str, ...]
    """Names of the state's values that the picture depends on."""

    shows: str
    """What the picture shows, for its alternative text."""

    def __init__(
        self,
        state: Independent,
        controls: Mapping[str, widgets.Widget],
        table: str,
        *,
        before: tuple[widgets.Widget, ...] = (),
        below: tuple[widgets.Widget, ...] = (),
    ) -> None:
        super().__init__(560)
        self.state = state
        self._stages: dict[tuple[float, float], _Stage] = {}
        for name, control in controls.items():
            css = f"embvar-{name.replace('_', '-')}"
            bind(state, name, with_class(control, css), self._show_message)
        # Registered after the state's own observers, so that its moments are up to date. Observing
        # the moments would not do: they may stay the same while the cloud moves.
        state.observe(lambda _: self._update(), list(self.drawn))
        above = wrapping_row(*before, *controls.values(), self._lecture)
        parts = (above, self._shown, *below, self._downloads(table), self._numbers, self._message)
        self.view = explorer_frame(*parts, self._tooltip, self._room)
        self._update()
        self.wait()

    def still(self) -> bytes:
        """The current picture as a PNG with a palette."""
        self.wait()
        return self._draw((self._values(), self._still_form()), small=True)

    def figure(self, dpi: float = DPI) -> Figure:
        """What is shown now, as a figure."""
        figure = Figure(figsize=self.size, dpi=dpi, layout="constrained")
        self._artists_of(self.frame(figure), self._values())
        return figure

    @abc.abstractmethod
    def frame(self, figure: Figure) -> Any:
        """Draw on a figure what stays as it is; return the Axes for :meth:`artists`."""

    @abc.abstractmethod
    def artists(self, axes: Any, values: Mapping[str, float]) -> list[Artist]:
        """Draw what depends on these values of the state; return its artists."""

    def _size(self) -> tuple[float, float]:
        return self.size

    def _values(self) -> tuple[float, ...]:
        return tuple(getattr(self.state, name) for name in self.drawn)

    def _artists_of(self, axes: Any, values: tuple[float, ...]) -> list[Artist]:
        return self.artists(axes, dict(zip(self.drawn, values, strict=True)))

    def _stage(self, form: Form) -> _Stage:
        """The figure of a size. To be called by whoever draws, and by no other at that time."""
        if form.size not in self._stages:
            blitted = BlittedFigure(*form.size)
            axes = self.frame(blitted.figure)
            # The artists must exist when the background is laid out, to be given space, but must
            # not be drawn on it.
            artists = self._artists_of(axes, self._values())
            for artist in artists:
                artist.set_animated(True)
            blitted.draw_background()
            made = form.size, _Stage(blitted, axes, artists)
            self._stages = dict([*self._stages.items(), made][-_KEPT:])
        return self._stages[form.size]

    def _draw(self, key: tuple[tuple[float, ...], Form], *, small: bool = False) -> bytes:
        values, form = key
        with self._drawing:
            stage = self._stage(form)
            for artist in stage.artists:
                if artist is not artist.axes.title:  # a title is kept and given a new text
                    artist.remove()
            stage.artists = []
            stage.blitted.enlarge(form.scale)
            stage.artists = self._artists_of(stage.axes, values)
            return stage.blitted.png(stage.artists, small=small)

    def _update(self) -> None:
        self.pictures.request((self._values(), self._form()))
        numbers = [f"{name} = {value:.3f}" for name, value in self.state.moments.items()]
        self._numbers.value = " &emsp; ".join([*numbers, *self._remarks()])
        told = ", ".join([*numbers, *self._remarks()])
        self._describe("embvar-picture", f"{self.shows} {told}.")

    def _remarks(self) -> list[str]:
        """What is said beside Q, M and V."""
        return []
