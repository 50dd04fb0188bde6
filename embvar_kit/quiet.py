"""Keeping transformers quiet about what the kit says itself."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and repeating what the kit reports itself."""
    from transformers.utils import logging as their_logging

    bars, level = their_logging.is_progress_bar_enabled(), their_logging.get_verbosity()
    their_logging.disable_progress_bar()
    their_logging.set_verbosity(logging.ERROR)
    try:
        with _unseen():  # GGUF's own bar asks nobody
            yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()


def _unseen() -> Any:
    """Swallow a progress bar: text on a terminal, a widget in a notebook."""
    if "IPython" in sys.modules:
        from IPython.utils.capture import capture_output

        return capture_output(stdout=False)
    return redirect_stderr(io.StringIO())
