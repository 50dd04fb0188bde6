"""All explorers on one page, behind tabs; each is made when it is first opened."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import anywidget
import ipywidgets as widgets
import traitlets

from embvar_kit.errors import EmbvarError, StatisticsError
from embvar_kit.explorers import links
from embvar_kit.explorers.base import WIDGET, Explorer
from embvar_kit.explorers.controls import with_class
from embvar_kit.explorers.scripted import _script
from embvar_kit.explorers.traits import Whole


class Page(NamedTuple):
    """One explorer of a gallery.

    Attributes:
        title: its heading.
        sentence: one sentence on what to do there.
        make: makes the explorer, from what ``prepare`` returns if there is one.
        prepare: computes what takes long, in a thread: the kernel answers other tabs meanwhile. It
            makes no widget and prints nothing.
    """

    title: str
    sentence: str
    make: Callable[..., Explorer]
    prepare: Callable[[], Any] | None = None


_SOON = "Opening; this takes a few seconds …"
_LATER = (
    "Opening: a model runs over the text for this, which takes a minute or more. The other tabs "
    "work meanwhile, and this explorer appears here by itself."
)


class Tabs(anywidget.AnyWidget):
    """The tabs of a gallery, in its box of the class ``embvar-gallery``."""

    _esm = _script("gallery.js")
    titles = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = Whole(0).tag(sync=True)

    @traitlets.validate("chosen")
    def _is_a_tab(self, proposal: Mapping) -> int:
        if not 0 <= proposal["value"] < len(self.titles):
            raise traitlets.TraitError(
                f"chosen={proposal['value']}: there are the tabs 0 to {len(self.titles) - 1}."
            )
        return proposal["value"]


class Gallery:
    """Explorers behind tabs, as in ``make app``.

    An explorer is made when its tab is first chosen; at the start that is the first one, or the
    one that the link shows by which the app was opened.

    Args:
        pages: by the explorer's name in a link, ``"tradeoff"`` for one.

    Attributes:
        explorers: those made so far, by name.
        view: the widget.

    Raises:
        StatisticsError: if there is no page.
    """

    def __init__(self, pages: Mapping[str, Page]) -> None:
        if not pages:
            raise StatisticsError("There is no page to show: give one by name, {name: Page(...)}.")
        self._pages = dict(pages)
        self.explorers: dict[str, Explorer] = {}
        self._preparing: set[str] = set()
        self._one_by_one = threading.Lock()  # two passes at a time would take twice as long
        self.tabs = Tabs(titles=[page.title for page in pages.values()])
        self._boxes = {
            name: with_class(widgets.VBox([self._heading(name)]), "embvar-page") for name in pages
        }
        self.view = with_class(widgets.VBox([self.tabs, *self._boxes.values()]), "embvar-gallery")
        linked = [at for at, name in enumerate(pages) if name in links.names()]
        self.tabs.chosen = linked[0] if linked else 0
        self.tabs.observe(lambda _: self._open(), "chosen")
        self._open()

    def _repr_mimebundle_(self, **options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, metadata = self.tabs._repr_mimebundle_(**options)
        bundle[WIDGET] = {**bundle[WIDGET], "model_id": self.view.model_id}
        bundle["text/plain"] = "Gallery: its explorers need a running notebook"
        return bundle, metadata

    def _open(self) -> None:
        """Show the chosen page; make its explorer if it is not there yet."""
        name = list(self._pages)[self.tabs.chosen]
        for other, box in self._boxes.items():
            box.layout.display = None if other == name else "none"
        if name in self.explorers or name in self._preparing:
            return
        page = self._pages[name]
        self._tell(name, _SOON if page.prepare is None else _LATER)
        if page.prepare is None:
            self._make(name, page.make)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # as in a script: nobody could be told later
            self._make(name, lambda: page.make(page.prepare()))
            return
        self._preparing.add(name)
        threading.Thread(target=self._prepare, args=(name, loop), daemon=True).start()

    def _prepare(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare a page in a thread of its own, and have it made in the kernel's main thread."""
        page = self._pages[name]

        def made_from(prepared: Any) -> Callable[[], Explorer]:
            return lambda: page.make(prepared)

        def failing_with(error: Exception) -> Callable[[], Explorer]:
            def fail() -> Explorer:
                raise error

            return fail

        with self._one_by_one:
            try:
                make = made_from(page.prepare())
            except Exception as error:  # a thread has no caller to raise to
                make = failing_with(error)
        with suppress(RuntimeError):  # the loop was closed: the kernel stops
            loop.call_soon_threadsafe(self._make, name, make)

    def _make(self, name: str, make: Callable[[], Explorer]) -> None:
        """Make a page's explorer and show it, or say why that cannot be."""
        self._preparing.discard(name)
        try:
            explorer = make()
            if hasattr(explorer, "follow_link"):
                explorer.follow_link()
        except Exception as error:  # whatever it is, the reader waits; chosen again, it is retried
            known = isinstance(error, EmbvarError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            self._tell(name, f"This explorer could not be opened: {reason}")
            return
        self.explorers[name] = explorer
        self._boxes[name].children = [self._heading(name), explorer.view]

    def _tell(self, name: str, text: str) -> None:
        """Show a sentence in the place of a page's explorer."""
        self._boxes[name].children = [self._heading(name), self._told(text)]

    def _heading(self, name: str) -> widgets.HTML:
        page = self._pages[name]
        return widgets.HTML(
            f"<h2>{html.escape(page.title)}</h2><p>{html.escape(page.sentence)}</p>"
        )

    @staticmethod
    def _told(text: str) -> widgets.HTML:
        return widgets.HTML(f"<p role='status'>{html.escape(text)}</p>")
