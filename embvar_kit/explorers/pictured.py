"""Explorers of one picture that is drawn in the background, as wide as there is room for it."""

from __future__ import annotations

import abc
import html
import threading
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd

from embvar_kit.explorers.controls import scrolling_image, with_class
from embvar_kit.explorers.outputs import WithOutputs
from embvar_kit.explorers.rendering import DPI, Prefetcher
from embvar_kit.explorers.scripted import LectureButton, Room, Tooltip

LARGE = 2
"""In a lecture a picture has so many times its pixels on each side."""


class Form(NamedTuple):
    """In which form a picture is drawn: width and height in inches, and its pixels' multiple."""

    width: float
    height: float
    scale: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return self.width, self.height


class PicturedExplorer(WithOutputs):
    """An explorer that is a picture below its controls, with buttons and numbers below the picture.

    A subclass lays out ``view`` from the parts made here, and then calls :meth:`_update`. It draws
    a picture for each *key*, a tuple that ends with the :class:`Form` to draw it in.

    Args:
        min_width: least width of the picture in CSS pixels; in a narrower window it scrolls.
        keep: how many pictures are cached.
        on_click: called with the index of the tooltip's area that was clicked.

    Attributes:
        pictures: the pictures drawn so far, by key.
    """

    def __init__(self, min_width: int, *, keep: int = 200, **tooltip: Any) -> None:
        self._drawing = threading.RLock()  # the reader's thread draws too: a still picture
        self._picture, self._shown = scrolling_image("embvar-picture", min_width, self._size())
        scrolling = {"max_width": "100%", "overflow": "auto"}
        self._numbers = with_class(widgets.HTML(layout=scrolling), "embvar-numbers")
        self._message = with_class(widgets.HTML(), "embvar-message")
        self._tooltip = Tooltip(**tooltip)
        self._lecture, self._room = LectureButton(), Room()
        self._lecture.observe(lambda _: self._update(), "on")
        self._room.observe(lambda _: self._update(), "room")
        self.pictures = Prefetcher(self._draw, self._show_picture, self._show_error, keep=keep)

    @property
    def numbers(self) -> pd.DataFrame:
        """The numbers of what is shown, as the button *CSV* saves them."""
        return self._table()

    @abc.abstractmethod
    def _size(self) -> tuple[float, float]:
        """Width and height of the picture in inches, where nobody has told of more room."""

    def _still_form(self) -> Form:
        """The form of a picture in a saved page: there, nobody tells how much room there is."""
        return Form(*self._size())

    def _form(self) -> Form:
        """The form of the picture shown: it fills the room, but is never smaller than it is still.

        In a lecture the page enlarges the picture, so that its type grows with it.
        """
        width, height = self._size()
        if self._lecture.on:
            return Form(width, height, LARGE)
        wide, high = (side / DPI for side in self._room.room)
        larger = max(1.0, wide / width)
        return Form(larger * width, max(height, min(larger * height, high)))

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until all pictures asked for are drawn; return whether they were in time."""
        return self.pictures.wait(seconds)

    @abc.abstractmethod
    def _draw(self, key: tuple, *, small: bool = False) -> bytes:
        """A PNG, ``small`` with a palette; called in the background thread."""

    @abc.abstractmethod
    def _update(self) -> None:
        """Ask for the picture of what the state is now, and show its numbers."""

    def _show_picture(self, key: tuple, png: bytes) -> None:
        self._picture.show(png)

    def _show_message(self, text: str) -> None:
        self._message.value = html.escape(text)

    def _show_error(self, error: Exception) -> None:
        self._show_message(f"This could not be drawn: {error}")
