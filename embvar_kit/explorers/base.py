"""What explorers share: the base class, controls, and the binding of state to controls.

An explorer keeps its values in ``state``, which knows no widget, and shows them in ``view``.
Callbacks only change the state: anything that takes more than a few milliseconds is computed in the
background (see :mod:`embvar_kit.explorers.rendering`).
"""

from __future__ import annotations

import abc
import asyncio
import base64
import importlib.resources
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import anywidget
import ipywidgets as widgets
import traitlets

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
        bundle, metadata = self._guard._repr_mimebundle_(**options)
        bundle[WIDGET] = {**bundle[WIDGET], "model_id": self.view.model_id}
        bundle["image/png"] = base64.b64encode(self.still()).decode()
        bundle["text/plain"] = f"{type(self).__name__}: its controls need a running notebook"
        shows = (inspect.getdoc(type(self)) or "").partition("\n")[0].replace("`", "")
        alternative = {"alt": f"A still picture of an explorer. {shows}"}
        return bundle, {**metadata, "image/png": alternative}

    @property
    def _guard(self) -> ShortcutGuard:
        """The view's part in JavaScript that every explorer has, see :func:`explorer_frame`."""
        return next(part for part in self.view.children if isinstance(part, ShortcutGuard))


def bind(
    state: traitlets.HasTraits,
    name: str,
    control: widgets.Widget,
    show_message: Callable[[str], None],
    *,
    to_control: Callable[[Any], Any] = lambda value: value,
    to_state: Callable[[Any], Any] = lambda value: value,
    pause: float = 0.0,
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
        pause: the state follows the control once it has not changed for so many seconds. Without an
            event loop, as in a script, it follows at once.
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

    def control_changed(change: dict) -> None:
        nonlocal waiting
        if updating:
            return
        stop_waiting()
        if pause:
            with suppress(RuntimeError):  # there is no loop
                loop = asyncio.get_running_loop()
                waiting = loop.call_later(pause, update_state, change["new"])
                return
        update_state(change["new"])

    def update_state(value: Any) -> None:
        if to_control(getattr(state, name)) == value:
            return
        try:
            setattr(state, name, to_state(value))
        except traitlets.TraitError as error:
            show_message(str(error))
            update_control()
        else:
            show_message("")

    update_control()
    state.observe(update_control, name)
    control.observe(control_changed, "value")


# Layout


def explorer_frame(*parts: widgets.Widget, kind: str = "formula") -> widgets.VBox:
    """An explorer's view: its parts in a column, with keyboard shortcuts suppressed inside it."""
    view = widgets.VBox([*parts, ShortcutGuard()])
    return with_class(with_class(view, "embvar-explorer"), f"embvar-{kind}")


def wrapping_row(*controls: widgets.Widget) -> widgets.HBox:
    """Controls in a row that wraps in a narrow window."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    return widgets.HBox(list(controls), layout=layout)


def scrolling_image(css: str, min_width: int) -> tuple[widgets.Image, widgets.Box]:
    """An image, and the box to show it in.

    The image is never enlarged, which would blur it. In a narrow window it shrinks to at least
    ``min_width`` pixels, so that its text stays legible; below that, the box scrolls.
    """
    layout = {
        "max_width": "calc(100% - 8px)",
        "min_width": f"{min_width}px",
        "align_self": "flex-start",
    }
    image = widgets.Image(format="png", layout=layout)
    box = widgets.VBox([image], layout={"overflow": "auto", "max_width": "100%"})
    return with_class(image, css), box


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
    play = widgets.Play(
        value=value,
        min=first,
        max=last,
        interval=900,
        show_repeat=False,
        tooltip="play through the layers",
    )
    for trait in ("min", "max", "value"):
        traitlets.link((slider, trait), (play, trait))
    return with_class(play, "embvar-play"), with_class(slider, "embvar-layer")


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
    """A list of tokens to choose from.

    Args:
        css: its CSS class.
        tooltip: its tooltip.
        lines: how many lines are visible.
        on_choice: called with the token that the reader chooses.
    """

    def __init__(
        self, css: str, tooltip: str, lines: int, on_choice: Callable[[str], None]
    ) -> None:
        super().__init__(options=(), rows=lines, tooltip=tooltip, layout={"width": "auto"})
        self.add_class(css)
        self._filling = False
        self._on_choice = on_choice
        self.observe(self._choose, "value")

    def fill(self, options: Iterable[tuple[str, str]]) -> None:
        """Replace the options ``(text, token)``; none is chosen and ``on_choice`` is not called."""
        options = tuple(options)
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


class ShortcutGuard(anywidget.AnyWidget):
    """Keeps JupyterLab's shortcuts from taking the keys pressed in an explorer's controls.

    It also brings the style sheet of the explorers.
    """

    _esm = _script("shortcut_guard.js")
    _css = _script("explorers.css")


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
