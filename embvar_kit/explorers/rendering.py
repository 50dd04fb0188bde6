"""Drawing for explorers: fast, without pyplot, and in a background thread.

pyplot's figures belong to the notebook. A :class:`BlittedFigure` draws its background once and the
parts that change over it; a :class:`Prefetcher` computes results in the background and caches them.
"""

from __future__ import annotations

import atexit
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from PIL import Image

DPI = 96
"""Resolution of the pictures: one pixel of theirs is one CSS pixel."""

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")

_DRAWING = threading.RLock()
_STOPPING = threading.Event()
atexit.register(_STOPPING.set)  # at shutdown no thread begins another picture


class _MathTextParser(MathTextParser):
    """A formula parser used by this module only.

    matplotlib's parser is shared by all threads and keeps state while it parses: a figure drawn by
    a cell at the same time would get symbols of the explorer's formulas, or the reverse.
    """

    _parser = None


class _Canvas(FigureCanvasAgg):
    def get_renderer(self) -> RendererAgg:
        renderer = super().get_renderer()
        # The attribute belongs to the renderer, but its parser to the class of the attribute, which
        # differs between releases of matplotlib.
        renderer.mathtext_parser.__class__ = _MathTextParser
        return renderer


class BlittedFigure:
    """A figure whose background is drawn once; animated artists are drawn over a copy of it.

    This is about ten times as fast as drawing everything again. It may be used from any thread.

    Args:
        width: in inches.
        height: in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        self._canvas = _Canvas(self.figure)
        self._background: Any = None  # matplotlib's buffer region has no public type
        self._scale = 1

    def draw_background(self) -> None:
        """Draw everything now on the figure that is not animated: the background of all pictures.

        The layout is fixed from then on.
        """
        with _DRAWING:
            self._canvas.draw()
            self.figure.set_layout_engine("none")
            self._background = self._canvas.copy_from_bbox(self.figure.bbox)

    def enlarge(self, scale: int) -> None:
        """Draw the same in so many times the pixels from now on.

        To be called while no artist is on the figure that changes from picture to picture: the
        background is drawn anew.
        """
        if scale == self._scale:
            return
        self._scale = scale
        with _DRAWING:
            self.figure.set_dpi(DPI * scale)
            self.draw_background()

    def png(self, animated: Iterable[Artist] = (), *, small: bool = False) -> bytes:
        """The background with these artists over it, as a PNG.

        Args:
            animated: the artists that change from picture to picture.
            small: reduce the colours to a palette, for a saved page.
        """
        with _DRAWING:
            if self._background is None:
                self.draw_background()
            self._canvas.restore_region(self._background)
            for artist in animated:
                artist.axes.draw_artist(artist)
            return _encode(self._canvas, small)


def png_of(figure: Figure, *, small: bool = False) -> bytes:
    """A PNG of a figure made without pyplot; ``small`` reduces its colours to a palette."""
    with _DRAWING:
        canvas = _Canvas(figure)
        canvas.draw()
        return _encode(canvas, small)


def svg_of(figure: Figure) -> bytes:
    """An SVG of a figure made without pyplot. To be called in the main thread.

    matplotlib writes the formulas of an SVG by a parser that all threads share.
    """
    data = io.BytesIO()
    with _DRAWING:
        FigureCanvasSVG(figure).print_svg(data)
    return data.getvalue()


def blank(width: int, height: int) -> bytes:
    """A transparent PNG of so many pixels."""
    data = io.BytesIO()
    Image.new("LA", (width, height)).save(data, "png", optimize=True)
    return data.getvalue()


def _encode(canvas: FigureCanvasAgg, small: bool) -> bytes:
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    data = io.BytesIO()
    if small:
        image = image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        image.save(data, "png", optimize=True)
    else:
        image.save(data, "png", compress_level=3)
    return data.getvalue()


class Prefetcher(Generic[Key, Result]):
    """Results computed in one background thread and cached; the one requested comes first.

    Args:
        compute: computes the result of a key; called in the background thread.
        show: called with a key and its result once it is available, if it is still the key
            requested.
        on_error: called with the exception if ``compute`` raises one for the key requested, or
            ``show`` does in the background thread.
        keep: how many results are cached; those unused for longest are dropped first.

    Attributes:
        computed: how many results were computed so far; cached ones are not counted again.
    """

    def __init__(
        self,
        compute: Callable[[Key], Result],
        show: Callable[[Key, Result], None],
        on_error: Callable[[Exception], None] | None = None,
        keep: int = 200,
    ) -> None:
        self._compute, self._show, self._on_error, self._keep = compute, show, on_error, keep
        self._lock = threading.RLock()
        self._cache: OrderedDict[Key, Result] = OrderedDict()
        self._requested: Key | None = None
        self._queue: list[Key] = []
        self._thread: threading.Thread | None = None
        self.computed = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._cache

    def __getitem__(self, key: Key) -> Result:
        return self._cache[key]

    def request(self, key: Key, then: Iterable[Key] = ()) -> bool:
        """Show a key's result at once if it is cached, otherwise as soon as it is computed.

        Earlier requests that have not started are cancelled.

        Args:
            key: the key whose result is to be shown.
            then: keys to compute afterwards, in this order.

        Returns:
            Whether the result was cached.
        """
        with self._lock:
            self._requested = key
            cached = key in self._cache
            if cached:
                self._cache.move_to_end(key)
                self._show(key, self._cache[key])
            self._queue = [k for k in (key, *then) if k not in self._cache][: self._keep]
            if self._queue and self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        return cached

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is left to compute; return whether that was so in time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return self._thread is None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue or _STOPPING.is_set():
                    self._thread = None
                    return
                key = self._queue.pop(0)
            try:
                result, error = self._compute(key), None
            except Exception as raised:  # a thread has no caller to raise to
                result, error = None, raised
            with self._lock:
                if error is None:
                    self.computed += 1
                    self._cache[key] = result
                    while len(self._cache) > self._keep:
                        self._cache.popitem(last=False)
                if key == self._requested:
                    if error is None:
                        try:
                            self._show(key, result)
                        except Exception as raised:  # the thread goes on to the next result
                            error = raised
                    if error is not None and self._on_error is not None:
                        self._on_error(error)


def nearest_first(items: Sequence[Item], at: int) -> list[Item]:
    """All items but the one at an index, its neighbours first: the order to prefetch them in.

    >>> nearest_first("abcde", 1)
    ['c', 'a', 'd', 'e']
    """
    return [items[i] for i in sorted(range(len(items)), key=lambda i: (abs(i - at), -i)) if i != at]
