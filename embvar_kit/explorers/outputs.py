"""What comes out of an explorer by buttons: its figure, a table, and its state as code or link."""

from __future__ import annotations

import abc
import re
from typing import Any, Protocol

import pandas as pd
import traitlets
from matplotlib.figure import Figure

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers import links
from embvar_kit.explorers.base import Explorer, handle_of
from embvar_kit.explorers.rendering import DPI, png_of, svg_of
from embvar_kit.explorers.scripted import Downloads, File, Link

_PRINT = 200  # dots per inch of a figure that is saved


class Restorable(Protocol):
    """A state whose values can be told and set again."""

    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""
        ...

    def restore(self, **values: Any) -> None:
        """Set several values at once."""
        ...


class WithOutputs(Explorer):
    """An explorer with buttons for its figure, a table, and its state as code or as a link.

    Attributes:
        state: values that can be restored.
        link_name: the explorer's name in a link and in the names of files.
    """

    state: Restorable
    link_name: str

    @abc.abstractmethod
    def figure(self, dpi: float = DPI) -> Figure:
        """What is shown now, as a figure."""

    @abc.abstractmethod
    def _table(self) -> pd.DataFrame:
        """The table to save; what it lacks is told by a :class:`StatisticsError`."""

    @abc.abstractmethod
    def _shows(self) -> str:
        """What is shown now, in a few words, for the names of files."""

    @abc.abstractmethod
    def _show_message(self, text: str) -> None:
        """Tell the reader something."""

    def _told(self) -> dict[str, Any]:
        """The values that the line of code sets."""
        return self.state.values()

    @property
    def code(self) -> str:
        """A line of Python that sets what is shown now again."""
        told = ", ".join(f"{name}={value!r}" for name, value in self._told().items())
        return f"{handle_of(self) or 'explorer'}.state.restore({told})"

    def follow_link(self, query: str | None = None) -> None:
        """Show what a link shows; if that is not there, say so and leave all as it is.

        Args:
            query: the query of the link; by default that of the app's address.
        """
        before = self.state.values()
        try:
            if values := links.values_in(self.link_name, query):
                self.state.restore(**values)
                self._show_message("")
        # A link can hold anything: a number in place of a list, say.
        except (ValueError, TypeError, AttributeError, traitlets.TraitError, StatisticsError) as e:
            self.state.restore(**before)
            self._show_message(f"The link cannot be followed. {e}")

    def _downloads(self, table: str, *, ending: str = "") -> Downloads:
        """The buttons.

        Args:
            table: what the table holds, for the button's tooltip.
            ending: ends the name of the table's file.
        """

        def file(suffix: str, kind: str, content: bytes) -> File:
            name = re.sub(r"[^\w.-]+", "-", self._shows())
            return File(f"{self.link_name}-{name}{suffix}", kind, content)

        def csv() -> File:
            content = self._table().to_csv(index=False).encode()
            return file(f"{ending}.csv", "text/csv", content)

        buttons = {
            "PNG": (
                "the figure with its axes and names, as an image",
                lambda: file(".png", "image/png", png_of(self.figure(_PRINT))),
            ),
            "SVG": (
                "the figure with its axes and names, as a drawing",
                lambda: file(".svg", "image/svg+xml", svg_of(self.figure(_PRINT))),
            ),
            "CSV": (f"{table} as a table", csv),
            "code": ("a line of Python that shows all this again", lambda: self.code),
        }
        if links.in_app():
            told = "an address of this page that shows all this again"
            buttons["link"] = told, lambda: Link(self._link())
        return Downloads(buttons)

    def _link(self) -> str:
        """The query of a link to what is shown.

        Raises:
            StatisticsError: if so many tokens are marked that no server takes the address.
        """
        query = links.query_of(self.link_name, self.state.values())
        if len(query) > links.LONGEST:
            raise StatisticsError("What is marked is too long for a link: mark fewer tokens.")
        return query
