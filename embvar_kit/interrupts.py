"""The stop button: a pass ends between two batches, with what it has."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopButton:
    """Whether somebody has asked to stop."""

    pressed = False


@contextmanager
def held() -> Iterator[StopButton]:
    """Note an interrupt instead of raising it, so that a batch is counted at all layers or none.

    A second one is raised at once. Outside the main thread, and where interrupts are ignored,
    nothing changes.
    """
    button = StopButton()
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not (main and callable(before)):
        yield button
        return

    def press(number: int, frame: FrameType | None) -> None:
        if button.pressed:
            before(number, frame)
        button.pressed = True

    signal.signal(signal.SIGINT, press)
    try:
        yield button
    finally:
        signal.signal(signal.SIGINT, before)
