"""What explorers share: the base class, and the binding of state to controls.

An explorer keeps its values in ``state``, which knows no widget, and shows them in ``view``.
Callbacks only change the state: anything that takes more than a few milliseconds is computed in the
background (see :mod:`embvar_kit.explorers.rendering`).
"""

from __future__ import annotations

import abc
import asyncio
import base64
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ipywidgets as widgets
import traitlets

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.controls import with_class
from embvar_kit.explorers.scripted import Frame

PATIENCE = 0.5
"""Seconds after which a slider returns from a range that has no tokens."""

TYPING = 0.3
"""Seconds without a key after which what was typed is looked for."""

WIDGET = "application/vnd.jupyter.widget-view+json"
"""What a notebook calls a widget in the output of a cell."""


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
        bundle["text/plain"] = f"{type(self).__name__}: its controls need a running notebook"
        try:
            bundle["image/png"] = base64.b64encode(self.still()).decode()
        except StatisticsError as error:  # of two tokens, say: the controls work all the same
            bundle["text/plain"] += f"; there is no picture: {error}"
            return bundle, metadata
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


def explorer_frame(*parts: widgets.Widget, kind: str = "formula") -> widgets.VBox:
    """An explorer's view: its parts in a column, with keyboard shortcuts suppressed inside it."""
    view = widgets.VBox([*parts, Frame()])
    return with_class(with_class(view, "embvar-explorer"), f"embvar-{kind}")
