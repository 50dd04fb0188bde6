"""Explorers of one picture that is drawn in the background, and sharper in a lecture."""

from __future__ import annotations

import abc
import html
import threading
from typing import Any

import ipywidgets as widgets

from embvar_kit.explorers.base import Explorer
from embvar_kit.explorers.controls import scrolling_image, with_class
from embvar_kit.explorers.rendering import Prefetcher
from embvar_kit.explorers.scripted import LectureButton, Tooltip

LARGE = 2
"""In a lecture a picture has so many times its pixels on each side."""


class PicturedExplorer(Explorer):
    """An explorer that is a picture below its controls, with numbers below the picture.

    A subclass lays out ``view`` from the parts made here, and then calls :meth:`_update`. It draws
    a picture for each *key*, a tuple that ends with the scale to draw in.

    Args:
        size: width and height of the picture in inches.
        min_width: least width of the picture in CSS pixels; in a narrower window it scrolls.
        keep: how many pictures are cached.
        on_click: called with the index of the tooltip's area that was clicked.

    Attributes:
        pictures: the pictures drawn so far, by key.
    """

    def __init__(
        self, size: tuple[float, float], min_width: int, *, keep: int = 200, **tooltip: Any
    ) -> None:
        self._drawing = threading.RLock()  # the reader's thread draws too: a still picture
        self._picture, self._shown = scrolling_image("embvar-picture", min_width, size)
        scrolling = {"max_width": "100%", "overflow": "auto"}
        self._numbers = with_class(widgets.HTML(layout=scrolling), "embvar-numbers")
        self._message = with_class(widgets.HTML(), "embvar-message")
        self._tooltip = Tooltip(**tooltip)
        self._lecture = LectureButton()
        self._lecture.observe(lambda _: self._update(), "on")
        self.pictures = Prefetcher(self._draw, self._show_picture, self._show_error, keep=keep)

    @property
    def _scale(self) -> int:
        """How many times its pixels a picture has on each side."""
        return LARGE if self._lecture.on else 1

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
