"""Silence while a model loads or runs: no bars, and no warnings meant for other programs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_switches = threading.Lock()
_inside = 0
_restore = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and huggingface_hub from drawing bars and logging warnings.

    Only their own switches are used. Those are process-wide, so the first thread to enter flips
    them and the last one to leave restores them. Standard streams and IPython's display publisher
    are never replaced: doing so from one thread loses the messages of all the others.
    """
    global _inside, _restore
    with _switches:
        if not _inside:
            _restore = _switch_off()
        _inside += 1
    try:
        yield
    finally:
        with _switches:
            _inside -= 1
            if not _inside:
                _restore.close()


def _switch_off() -> ExitStack:
    """Switch off bars and warnings; closing the result restores what the user had set."""
    from huggingface_hub import constants
    from huggingface_hub import utils as hub_utils
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    restore = ExitStack()
    for library in (transformers_logging, hub_utils.logging):
        restore.callback(library.set_verbosity, library.get_verbosity())
        library.set_verbosity(logging.ERROR)
    # GGUF conversion imports tqdm itself and obeys no switch. Give it transformers' bar for good.
    modeling_gguf_pytorch_utils.tqdm = transformers_logging.tqdm
    # The environment variable has priority, and switching against it makes the Hub warn.
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        # transformers' switch flips the Hub's, too, so the Hub's is restored after it.
        hub_hidden = hub_utils.are_progress_bars_disabled()
        switch = hub_utils.disable_progress_bars if hub_hidden else hub_utils.enable_progress_bars
        restore.callback(switch)
        if transformers_logging.is_progress_bar_enabled():
            restore.callback(transformers_logging.enable_progress_bar)
        transformers_logging.disable_progress_bar()
    return restore
