"""Widgets of the explorers that are JavaScript: frame, mouse, files, lecture, plot."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import anywidget
import ipywidgets as widgets
import traitlets

from embvar_kit.errors import EmbvarError


def _script(name: str) -> str:
    """The text of a file of this folder, without comments: it goes out with each explorer."""
    text = importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    if name.endswith(".css"):
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


class Tooltip(anywidget.AnyWidget):
    """Shows the text of the area of an explorer's picture that the mouse is over.

    Args:
        on_click: called with the index of the area that is clicked.
        values: values of the traits.
    """

    _esm = _script("tooltip.js")
    picture = traitlets.Unicode("embvar-picture", help="CSS class of the picture").tag(sync=True)
    areas = traitlets.List(
        help="(left, upper, right, lower, text), edges as fractions of the picture's size"
    ).tag(sync=True)
    hint = traitlets.Unicode(help="what the reader is told of it").tag(sync=True)
    clickable = traitlets.Bool(False, help="whether a click does something").tag(sync=True)

    def __init__(self, *, on_click: Callable[[int], None] | None = None, **values: object) -> None:
        super().__init__(clickable=on_click is not None, **values)
        self.add_class("embvar-hint")
        if on_click is not None:
            self.on_msg(lambda _, told, __: on_click(int(told["clicked"])))


class Drag(anywidget.AnyWidget):
    """Says that a part of an explorer's picture can be dragged on, and where the reader does so."""

    _esm = _script("drag.js")
    hint = traitlets.Unicode(help="what the reader is told").tag(sync=True)
    frame = traitlets.Tuple(
        help="left, upper, right and lower edge of the part, as fractions of the picture's size"
    ).tag(sync=True)
    place = traitlets.List(
        help="where the reader drags: fractions of the part's width and height, from lower left"
    ).tag(sync=True)

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self.add_class("embvar-hint")


class Frame(anywidget.AnyWidget):
    """Keeps JupyterLab's shortcuts from an explorer's controls, and names what has no name.

    It also brings the style sheet of the explorers.
    """

    _esm = _script("frame.js")
    _css = _script("explorers.css")
    pictures = traitlets.Dict(help="alternative texts of pictures, by CSS class").tag(sync=True)


class Downloads(anywidget.AnyWidget):
    """Buttons that give out files, code or links.

    Args:
        buttons: by its text, a button's tooltip, and what makes a :class:`File`, a line of code,
            or a :class:`Link`. What raises an :class:`embvar_kit.EmbvarError` tells its message.
    """

    _esm = _script("downloads.js")
    buttons = traitlets.List().tag(sync=True)

    def __init__(self, buttons: Mapping[str, tuple[str, Callable[[], File | Link | str]]]) -> None:
        super().__init__(buttons=[(text, tooltip) for text, (tooltip, _) in buttons.items()])
        self.add_class("embvar-downloads")
        self._make = {text: make for text, (_, make) in buttons.items()}
        self.on_msg(self._answer)

    def _answer(self, _: object, asked: dict, __: object) -> None:
        buffers, answer = [], {"view": asked["view"], "told": ""}
        try:
            made = self._make[asked["wanted"]]()
        except EmbvarError as error:
            answer["told"] = str(error)
        else:
            if isinstance(made, File):
                answer |= {"told": f"Saved: {made.name}", "name": made.name, "type": made.type}
                buffers = [made.content]
            elif isinstance(made, Link):
                answer["query"] = made.query
            else:
                answer["code"] = made
        self.send(answer, buffers)


class File(NamedTuple):
    """A file to save: its name, its media type and its bytes."""

    name: str
    type: str
    content: bytes


class Link(NamedTuple):
    """The address of the page, with another query."""

    query: str


class LectureButton(anywidget.AnyWidget):
    """Shows its explorer on the full screen, in large type."""

    _esm = _script("lecture.js")
    on = traitlets.Bool(False, help="whether it does so now").tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.add_class("embvar-lecture-button")


class Room(anywidget.AnyWidget):
    """Knows how much room its explorer has for a picture; it shows nothing."""

    _esm = _script("room.js")
    room = traitlets.List(
        [0, 0], help="width of the explorer, and the height that is left to a picture, in pixels"
    ).tag(sync=True)


class PlotGuard(anywidget.AnyWidget):
    """Stands below a scatter plot, and says what the wheel does there.

    The wheel scrolls the page until the reader clicks into the plot or holds Ctrl; then it zooms,
    within bounds. One click on the plot's reset button shows the whole plot again.

    Args:
        plot: the ``jscatter`` widget, in the same explorer.
    """

    _esm = _script("plot_guard.js")
    plot = traitlets.Instance(widgets.DOMWidget).tag(sync=True, **widgets.widget_serialization)

    def __init__(self, plot: widgets.DOMWidget) -> None:
        super().__init__(plot=plot)
        self.add_class("embvar-hint")


class PlotAxes(anywidget.AnyWidget):
    """Axes, legend and some names of a scatter plot, which it keeps as wide as its column.

    It stands beside the plot in a box of the class ``embvar-plot``.

    Args:
        plot: the ``jscatter`` widget, without axes of its own.
        height: height of the plot in pixels; 0 lets it follow the width.
    """

    _esm = _script("plot_axes.js")
    plot = traitlets.Instance(widgets.DOMWidget).tag(sync=True, **widgets.widget_serialization)
    height = traitlets.Int(0).tag(sync=True)
    titles = traitlets.List(["", ""], help="HTML of the two axes' titles").tag(sync=True)
    names = traitlets.List(help="(M, V, name) of the points that are named").tag(sync=True)
    outermost = traitlets.List(
        help="the same of points that are named in light type where there is room"
    ).tag(sync=True)
    legend = traitlets.Dict(
        help="title, colours from left to right with marks: (fraction of the width, HTML), and "
        "swatches: (name, colour)"
    ).tag(sync=True)
    behind = traitlets.Bytes(
        b"", help="a PNG of what is drawn behind the points, as large as the axes; or nothing"
    ).tag(sync=True)

    def __init__(self, plot: widgets.DOMWidget, height: int, **values: object) -> None:
        super().__init__(plot=plot, height=height, **values)
        self.add_class("embvar-axes")


class HoverLink(anywidget.AnyWidget):
    """Hovers over the points of the same token in both panels of a linked explorer.

    The panels have the classes ``embvar-left`` and ``embvar-right``. jupyter-scatter's own
    ``compose`` would do it in the kernel, and would search its table at every point.

    Args:
        left, right: the ``jscatter`` widgets.
    """

    _esm = _script("linked.js")
    left = traitlets.Instance(widgets.DOMWidget).tag(sync=True, **widgets.widget_serialization)
    right = traitlets.Instance(widgets.DOMWidget).tag(sync=True, **widgets.widget_serialization)
    left_partners = traitlets.Bytes(
        help="int32 for each point at the left: its point at the right, or -1; empty if all have "
        "the same index there"
    ).tag(sync=True)
    right_partners = traitlets.Bytes(help="the same for each point at the right").tag(sync=True)
