"""What tests share: tiny models, made once a session, and settings of hypothesis."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from effort import LONG, TRIED
from hypothesis import settings

# The same examples on every run, and no deadline: a busy machine is no failure. The long form
# looks for new ones, and for more of them.
settings.register_profile("kit", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile("long" if LONG else "kit")

# The user's own cache of models and datasets is neither read nor written. Set before anything
# imports the libraries that read it.
_HUB_HOME = tempfile.mkdtemp(prefix="embvar-tests-")
os.environ["HF_HOME"] = _HUB_HOME
for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
    os.environ.pop(name, None)


# A shell has what it starts in the background ignore the stop button, which tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(_HUB_HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        terminalreporter.section("faults and inputs survived")
        for kind, number in sorted(TRIED.items()):
            terminalreporter.line(f"{number:>8,}  {kind}")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny("bert")``: the folder of that family's tiny model. Copy it before changing it."""
    import tiny_models  # takes seconds: it imports transformers

    built: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in built:
            built[family] = tiny_models.build(family, tmp_path_factory.mktemp(f"tiny-{family}"))
        return built[family]

    return folder


@pytest.fixture(scope="session")
def minilm():
    """The bundled encoder, loaded once; a test that changes it puts it back."""
    import embvar_kit as ek

    return ek.load_model("minilm", device="cpu")
