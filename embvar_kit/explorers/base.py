"""What explorers share: the base class, controls, and the binding of state to controls.

An explorer keeps its values in ``state``, which knows no widget, and shows them in ``view``.
Callbacks only change the state: anything that takes more than a few milliseconds is computed in the
background (see :mod:`embvar_kit.explorers.rendering`).
"""

from __future__ import annotations

import abc
import asyncio
import base64
import html
import importlib.resources
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import anywidget
import ipywidgets as widgets
import traitlets

from embvar_kit.errors import EmbvarError
from embvar_kit.explorers.rendering import DPI, blank

PATIENCE = 0.5
"""Seconds after which a slider returns from a range that has no tokens."""

COUNTS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))
"""Round numbers at which a range of frequencies may begin and end."""

WIDGET = "application/vnd.jupyter.widget-view+json"
"""What a notebook calls a widget in the output of a cell."""

DOMWidget = TypeVar("DOMWidget", bound=widgets.DOMWidget)


class Explorer(abc.ABC):
    """A figure with controls: ``state`` holds values and no widget, ``view`` shows them."""

    state: traitlets.HasTraits
    view: widgets.DOMWidget

    @abc.abstractmethod
    def still(self) -> bytes:
        """A PNG of the current state, shown where a saved page has no kernel."""

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for background drawing; return whether it finished in time."""
        return True

    def _repr_mimebundle_(self, **options: object) -> tuple[dict[str, Any], dict[str, Any]]:
        # As anywidget writes it, not as ipywidgets does: its metadata have the address of Colab's
        # widget manager where there is one, and release 7 of ipywidgets, Colab's, has no bundle.
        bundle, metadata = self._frame._repr_mimebundle_(**options)
        bundle[WIDGET] = {**bundle[WIDGET], "model_id": self.view.model_id}
        bundle["image/png"] = base64.b64encode(self.still()).decode()
        bundle["text/plain"] = f"{type(self).__name__}: its controls need a running notebook"
        shows = (inspect.getdoc(type(self)) or "").partition("\n")[0].replace("`", "")
        alternative = {"alt": f"A still picture of an explorer. {shows}"}
        return bundle, {**metadata, "image/png": alternative}

    @property
    def _frame(self) -> Frame:
        """The view's part in JavaScript that every explorer has, see :func:`explorer_frame`."""
        return next(part for part in self.view.children if isinstance(part, Frame))

    def _describe(self, css: str, text: str) -> None:
        """Set the alternative text of the pictures of a CSS class."""
        self._frame.pictures = {**self._frame.pictures, css: text}


def handle_of(thing: object) -> str | None:
    """How a cell of the notebook reaches an object: by its name, or as the output of a cell.

    To be called in the main thread, whose namespace it reads. ``None`` if there is no way.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None:
        return None
    names = dict(shell.user_ns)
    for name, value in names.items():
        if value is thing and not name.startswith("_"):
            return name
    outputs = names.get("Out", {})
    return next((f"Out[{at}]" for at, value in outputs.items() if value is thing), None)


def bind(
    state: traitlets.HasTraits,
    name: str,
    control: widgets.Widget,
    show_message: Callable[[str], None],
    *,
    to_control: Callable[[Any], Any] = lambda value: value,
    to_state: Callable[[Any], Any] = lambda value: value,
    follows: Sequence[str] = (),
    pause: float = 0.0,
    patience: float = 0.0,
) -> None:
    """Bind a trait of a state to a control, both ways.

    If the state rejects the control's value, the control returns to the state's value.

    Args:
        state: the explorer's state.
        name: name of the trait.
        control: widget with a ``value``.
        show_message: called with the reason for a rejection, and with ``""`` after a valid value.
        to_control: converts the state's value to the control's.
        to_state: converts the control's value to the state's.
        follows: other traits of the state at whose changes the control is updated, too.
        pause: the state follows the control once it has not changed for so many seconds. Without an
            event loop, as in a script, it follows at once.
        patience: a control whose value was rejected returns once it has not changed for so many
            seconds: returning between two quick keys, it would begin anew from there.
    """
    updating = False
    waiting: asyncio.TimerHandle | None = None

    def update_control(_: object = None) -> None:
        nonlocal updating
        stop_waiting()
        updating = True
        try:
            value = to_control(getattr(state, name))
            if control.value != value:
                control.value = value
        finally:
            updating = False

    def stop_waiting() -> None:
        nonlocal waiting
        if waiting is not None:
            waiting.cancel()
            waiting = None

    def after(seconds: float, call: Callable[..., None], *values: Any) -> None:
        nonlocal waiting
        if seconds:
            with suppress(RuntimeError):  # there is no loop
                waiting = asyncio.get_running_loop().call_later(seconds, call, *values)
                return
        call(*values)

    def control_changed(change: dict) -> None:
        if updating:
            return
        stop_waiting()
        after(pause, update_state, change["new"])

    def update_state(value: Any) -> None:
        if to_control(getattr(state, name)) == value:
            return
        try:
            setattr(state, name, to_state(value))
        except traitlets.TraitError as error:
            show_message(str(error))
            after(patience, update_control)
        else:
            show_message("")

    update_control()
    state.observe(update_control, [name, *follows])
    control.observe(control_changed, "value")


# Layout


def explorer_frame(*parts: widgets.Widget, kind: str = "formula") -> widgets.VBox:
    """An explorer's view: its parts in a column, with keyboard shortcuts suppressed inside it."""
    view = widgets.VBox([*parts, Frame()])
    return with_class(with_class(view, "embvar-explorer"), f"embvar-{kind}")


def wrapping_row(*controls: widgets.Widget) -> widgets.HBox:
    """Controls in a row that wraps in a narrow window."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    return widgets.HBox(list(controls), layout=layout)


class Picture(widgets.Image):
    """A PNG that is a blank of its final size until it is there.

    Args:
        css: its CSS class.
        size: width and height in inches.
        layout: as for other widgets.
    """

    def __init__(self, css: str, size: tuple[float, float], layout: dict[str, str]) -> None:
        self._blank = blank(round(size[0] * DPI), round(size[1] * DPI))
        super().__init__(format="png", value=self._blank, layout=layout)
        self.add_class(css).add_class("embvar-waiting")

    def wait(self) -> None:
        """Show the blank, until :meth:`show` is called."""
        self.add_class("embvar-waiting")
        self.value = self._blank

    def show(self, png: bytes) -> None:
        """Show a PNG."""
        self.value = png
        self.remove_class("embvar-waiting")


def scrolling_image(
    css: str, min_width: int, size: tuple[float, float]
) -> tuple[Picture, widgets.Box]:
    """An image, and the box to show it in.

    The image is never enlarged, which would blur it. In a narrow window it shrinks to at least
    ``min_width`` pixels, so that its text stays legible; below that, the box scrolls.
    """
    layout = {
        "max_width": "calc(100% - 8px)",
        "min_width": f"{min_width}px",
        "align_self": "flex-start",
    }
    image = Picture(css, size, layout)
    return image, widgets.VBox([image], layout={"overflow": "auto", "max_width": "100%"})


def with_class(control: DOMWidget, css: str) -> DOMWidget:
    """Add the CSS class, ``embvar-...``, by which styles and tests find a control."""
    control.add_class(css)
    return control


# Controls


def layer_slider(first: int, last: int, value: int) -> tuple[widgets.Play, widgets.IntSlider]:
    """A slider over layers, and the buttons that play through them."""
    slider = widgets.IntSlider(
        value=value,
        min=first,
        max=last,
        description="layer",
        tooltip="the layer shown; arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": "300px"},
    )
    play = _play(first, last, value)
    for trait in ("min", "max", "value"):
        traitlets.link((slider, trait), (play, trait))
    return play, with_class(slider, "embvar-layer")


def depth_slider(depths: Sequence[str], value: int) -> tuple[widgets.Play, widgets.SelectionSlider]:
    """A slider over layers named by their positions on an axis; its values are their indices."""
    slider = widgets.SelectionSlider(
        options=[(text, at) for at, text in enumerate(depths)],
        value=value,
        description="layer",
        tooltip="the layer shown; arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": "300px"},
    )
    play = _play(0, len(depths) - 1, value)
    traitlets.link((slider, "index"), (play, "value"))
    return play, with_class(slider, "embvar-layer")


def _play(first: int, last: int, value: int) -> widgets.Play:
    play = widgets.Play(
        value=value,
        min=first,
        max=last,
        interval=900,
        show_repeat=False,
        tooltip="play through the layers",
    )
    return with_class(play, "embvar-play")


def dropdown(
    description: str, css: str, options: list, tooltip: str, width: str = "220px"
) -> widgets.Dropdown:
    """A dropdown with its description, tooltip and CSS class."""
    control = widgets.Dropdown(
        options=options,
        description=description,
        tooltip=tooltip,
        style={"description_width": "initial"},
        layout={"width": width, "max_width": "100%"},
    )
    return with_class(control, css)


def checkbox(description: str, css: str, tooltip: str) -> widgets.Checkbox:
    """A checkbox with its description, tooltip and CSS class."""
    control = widgets.Checkbox(
        description=description, tooltip=tooltip, indent=False, layout={"width": "auto"}
    )
    return with_class(control, css)


class CountsSlider(widgets.SelectionRangeSlider):
    """A range of frequencies ``(least, most)`` in round numbers; ``most=None`` means no limit.

    Args:
        least: smallest number offered.
        value: range at the start; numbers that are not round are added to the options.
    """

    def __init__(self, least: int, value: tuple[int, int | None]) -> None:
        super().__init__(
            options=self._options({*(n for n in COUNTS if n >= least), *value}),
            value=value,
            description="occurrences",
            tooltip="show only tokens whose number of occurrences lies in this range",
            style={"description_width": "initial"},
            layout={"width": "340px"},
        )
        self.add_class("embvar-counts")

    def admit(self, value: tuple[int, int | None]) -> tuple[int, int | None]:
        """Add a range's ends to the options if they are missing; return the range."""
        offered = {n for _, n in self.options}
        if not set(value) <= offered:
            self.options = self._options(offered | set(value))
            self.value = value
        return value

    @staticmethod
    def _options(counts: Iterable[int | None]) -> list[tuple[str, int | None]]:
        ordered = sorted(n for n in counts if n is not None)
        return [*((f"{n:,}", n) for n in ordered), ("no limit", None)]


class TokenList(widgets.Select):
    """A list of tokens to choose from, in columns.

    Args:
        css: its CSS class.
        tooltip: its tooltip.
        columns: the columns' heads; the first is of the tokens' names.
        lines: how many lines are visible.
        on_choice: called with the token that the reader chooses.

    Attributes:
        head: the line of heads, to be shown above the list.
    """

    def __init__(
        self,
        css: str,
        tooltip: str,
        columns: Sequence[str],
        lines: int,
        on_choice: Callable[[str], None],
    ) -> None:
        super().__init__(options=(), rows=lines, tooltip=tooltip, layout={"width": "auto"})
        with_class(with_class(self, css), "embvar-list")
        self.head = with_class(widgets.HTML(), "embvar-list-head")
        self._columns = tuple(columns)
        self._filling = False
        self._on_choice = on_choice
        self.observe(self._choose, "value")

    def fill(self, rows: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Replace the rows ``(token, cells)``; none is chosen and ``on_choice`` is not called."""
        rows = list(rows)
        texts = [self._columns, *(cells for _, cells in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        # The browser draws options in one font of equal widths; a second blank would be dropped.
        head, *lines = (
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).replace(" ", "\N{NO-BREAK SPACE}")
            for cells in texts
        )
        self.head.value = f"<b>{html.escape(head)}</b>" if rows else ""
        options = tuple(zip(lines, (token for token, _ in rows), strict=True))
        self._filling = True
        try:
            if self.options != options:
                self.options = options
            self.value = None
        finally:
            self._filling = False

    def _choose(self, change: dict) -> None:
        if change["new"] is not None and not self._filling:
            self._on_choice(change["new"])


# Widgets in JavaScript


def _script(name: str) -> str:
    """The text of a file of this folder."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


class Tooltip(anywidget.AnyWidget):
    """Shows the text of the area of an explorer's picture that the mouse is over."""

    _esm = _script("tooltip.js")
    areas = traitlets.List(
        help="(left, upper, right, lower, text), edges as fractions of the picture's size"
    ).tag(sync=True)


class Frame(anywidget.AnyWidget):
    """Keeps JupyterLab's shortcuts from an explorer's controls, and names what has no name.

    It also brings the style sheet of the explorers.
    """

    _esm = _script("frame.js")
    _css = _script("explorers.css")
    pictures = traitlets.Dict(help="alternative texts of pictures, by CSS class").tag(sync=True)


class Downloads(anywidget.AnyWidget):
    """Buttons that give out files or code.

    Args:
        buttons: by its text, a button's tooltip, and what makes a :class:`File` or a line of code.
            What raises an :class:`embvar_kit.EmbvarError` tells its message.
    """

    _esm = _script("downloads.js")
    buttons = traitlets.List().tag(sync=True)

    def __init__(self, buttons: Mapping[str, tuple[str, Callable[[], File | str]]]) -> None:
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
            else:
                answer["code"] = made
        self.send(answer, buffers)


class File(NamedTuple):
    """A file to save: its name, its media type and its bytes."""

    name: str
    type: str
    content: bytes


class LectureButton(anywidget.AnyWidget):
    """Shows its explorer on the full screen, in large type."""

    _esm = _script("lecture.js")

    def __init__(self) -> None:
        super().__init__()
        self.add_class("embvar-lecture-button")


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
    """Axes and legend around a scatter plot, which it keeps as wide as its column.

    It stands beside the plot in a box of the class ``embvar-plot``.

    Args:
        plot: the ``jscatter`` widget, without axes of its own.
        height: height of the plot in pixels; 0 lets it follow the width.
    """

    _esm = _script("plot_axes.js")
    plot = traitlets.Instance(widgets.DOMWidget).tag(sync=True, **widgets.widget_serialization)
    height = traitlets.Int(0).tag(sync=True)
    titles = traitlets.List(["", ""], help="HTML of the two axes' titles").tag(sync=True)
    legend = traitlets.Dict(
        help="title, colours from left to right, and marks: (fraction of the width, HTML)"
    ).tag(sync=True)

    def __init__(self, plot: widgets.DOMWidget, height: int, **values: object) -> None:
        super().__init__(plot=plot, height=height, **values)
        self.add_class("embvar-axes")
