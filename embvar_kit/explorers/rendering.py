"""Pictures for explorers, made without pyplot and beside the main thread.

pyplot's figures belong to the notebook. A :class:`Sheet` draws a frame once and what moves over it;
:class:`Ahead` makes results in the background and keeps them.
"""

from __future__ import annotations

import atexit
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from PIL import Image

DPI = 96
"""Of the pictures: one to one on a plain screen."""

_DRAWING = threading.RLock()
_STOPPING = threading.Event()
atexit.register(_STOPPING.set)  # at shutdown no thread begins another picture


class _Mathematics(MathTextParser):
    """A parser of formulas that is ours alone.

    matplotlib's is one for all threads and keeps state while it parses: a figure that a cell draws
    at the same time would get symbols of ours, or we of it.
    """

    _parser = None


class _Canvas(FigureCanvasAgg):
    def get_renderer(self) -> RendererAgg:
        renderer = super().get_renderer()
        # The instance is its own, the parser the class's. Of which kind it is, depends on the
        # release of matplotlib.
        renderer.mathtext_parser.__class__ = _Mathematics
        return renderer


class Sheet:
    """A figure whose frame is drawn once; what moves is drawn over it, a picture at a time.

    Ten times as fast as drawing everything again, and safe in a thread.

    Args:
        width, height: in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        self._canvas = _Canvas(self.figure)
        self._frame: Any = None

    def freeze(self) -> None:
        """Draw what is on the figure now: the frame of all pictures."""
        with _DRAWING:
            self._canvas.draw()
            self.figure.set_layout_engine("none")  # the frame must not give way to what moves
            self._frame = self._canvas.copy_from_bbox(self.figure.bbox)

    def png(self, moving: Iterable[Artist] = (), *, small: bool = False) -> bytes:
        """The frame and these artists as a PNG; ``small`` takes a palette, for a saved page."""
        with _DRAWING:
            if self._frame is None:
                self.freeze()
            self._canvas.restore_region(self._frame)
            for artist in moving:
                artist.axes.draw_artist(artist)
            return _encoded(self._canvas, small)


def png_of(figure: Figure, *, small: bool = False) -> bytes:
    """A figure that was made without pyplot, as a PNG."""
    with _DRAWING:
        canvas = _Canvas(figure)
        canvas.draw()
        return _encoded(canvas, small)


def _encoded(canvas: FigureCanvasAgg, small: bool) -> bytes:
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    data = io.BytesIO()
    if small:
        image = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        image.save(data, "png", optimize=True)
    else:
        image.save(data, "png", compress_level=3)
    return data.getvalue()


class Ahead:
    """Results made in the background, one thread at a time, and kept: the one shown comes first.

    Args:
        make: computes the result of a key; called in a thread.
        show: called with a key and its result when it is there and still the one asked for.
        failed: called with the error if ``make`` raises one for the key asked for.
        keep: how many results are kept; the ones longest unused go first.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        show: Callable[[Any, Any], None],
        failed: Callable[[Exception], None] | None = None,
        keep: int = 200,
    ) -> None:
        self._make, self._show, self._failed, self._keep = make, show, failed, keep
        self._lock = threading.RLock()
        self._made: OrderedDict[Hashable, Any] = OrderedDict()
        self._wanted: Hashable = None
        self._waiting: list[Hashable] = []
        self._thread: threading.Thread | None = None
        self.made = 0
        """How many results were made so far: a key that is asked for again adds none."""

    def __contains__(self, key: Hashable) -> bool:
        return key in self._made

    def __getitem__(self, key: Hashable) -> Any:
        return self._made[key]

    def ask(self, key: Hashable, ahead: Iterable[Hashable] = ()) -> bool:
        """Show the result of a key now if it was made, else as soon as it is; then make others.

        What was asked for before and not begun is given up. Returns whether it was there.
        """
        with self._lock:
            self._wanted = key
            there = key in self._made
            if there:
                self._made.move_to_end(key)
                self._show(key, self._made[key])
            self._waiting = [k for k in (key, *ahead) if k not in self._made][: self._keep]
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return there

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is left to make; whether that was so in time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return self._thread is None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or _STOPPING.is_set():
                    self._thread = None
                    return
                key = self._waiting.pop(0)
            try:
                result, error = self._make(key), None
            except Exception as raised:  # a thread has nobody to raise to
                result, error = None, raised
            with self._lock:
                if error is None:
                    self.made += 1
                    self._made[key] = result
                    while len(self._made) > self._keep:
                        self._made.popitem(last=False)
                if key == self._wanted:
                    if error is None:
                        self._show(key, result)
                    elif self._failed is not None:
                        self._failed(error)


def outwards(items: Sequence, at: int) -> list:
    """The items in the order in which they will be asked for: the neighbours of one first.

    >>> outwards("abcde", 1)
    ['c', 'a', 'd', 'e']
    """
    return [items[i] for i in sorted(range(len(items)), key=lambda i: (abs(i - at), -i)) if i != at]
