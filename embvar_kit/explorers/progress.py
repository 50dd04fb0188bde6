"""A line that tells how far some work in the background is, with a button that cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from embvar_kit.explorers.controls import with_class, wrapping_row


class CancelledError(Exception):
    """The reader no longer waits for the work."""


class Progress:
    """Tells which step of some work is under way; it is hidden until the work begins.

    Args:
        css: beginning of the CSS classes of its parts.
        steps: what each step does.
        resume: begins the cancelled work again.

    Attributes:
        view: the widget.
    """

    def __init__(self, css: str, steps: Sequence[str], resume: Callable[[], None]) -> None:
        self._steps, self._resume = steps, resume
        self._stop = threading.Event()
        self._step = with_class(widgets.HTML(), f"{css}-progress")
        self._cancel = widgets.Button(tooltip="stops after the step under way")
        with_class(self._cancel, f"{css}-cancel").on_click(lambda _: self._stop_or_resume())
        self.view = with_class(wrapping_row(self._step, self._cancel), f"{css}-waiting")
        self.hide()

    def show(self) -> None:
        """Show the first step."""
        self._step.value = self._told(0)
        self._show(True)

    def hide(self) -> None:
        """Show nothing."""
        self._show(False)

    def restart(self) -> None:
        """The work is wanted again: it is another one than what may have been cancelled."""
        self._stop = threading.Event()

    def stepper(self) -> Callable[[int], None]:
        """What the work calls with the index of each step that it begins.

        It raises :class:`CancelledError` once the reader has cancelled the work. A work that was
        cancelled stays so when another one begins.
        """
        stop = self._stop

        def begin(step: int) -> None:
            if stop.is_set():
                raise CancelledError
            self._step.value = self._told(step)

        return begin

    def _show(self, on: bool) -> None:
        self.view.layout.display = None if on else "none"
        self._cancel.description = "cancel"

    def _stop_or_resume(self) -> None:
        if self._stop.is_set():
            self._resume()
        else:
            self._stop.set()
            self._step.value, self._cancel.description = "Cancelled.", "look again"

    def _told(self, step: int) -> str:
        """HTML: how far the work is."""
        most = len(self._steps)
        bar = f"<progress value='{step}' max='{most}' aria-label='progress'></progress>"
        return f"<span role='status'>{bar} {self._steps[step]} …</span>"
