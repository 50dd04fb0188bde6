"""The browser tests' server, browser and notebooks. ``make test-browser`` runs them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import serving

if TYPE_CHECKING:  # it imports playwright, which may be missing: then the first hook says so
    from playwright.sync_api import Browser

    from .driving import Notebook

SCREENSHOTS = serving.ROOT / "screenshots"


def pytest_sessionstart() -> None:
    if problem := serving.missing():
        pytest.exit(problem, returncode=1)
    SCREENSHOTS.mkdir(exist_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a notebook after another, so that it is opened and run once."""

    def notebook(item: pytest.Item) -> str:
        call = getattr(item, "callspec", None)
        return str(call.params.get("opened", "")) if call else ""

    items.sort(key=notebook)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    from . import driving

    with sync_playwright() as playwright, driving.chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """Those that the explorers show: a first pass is no part of what is tested here."""
    import embvar_kit as ek

    ek.cached_statistics("minilm")
    ek.cached_statistics("smollm2")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Server]:
    """JupyterLab on copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(
        serving.ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    with serving.jupyterlab(folder) as server:
        yield server


class Desk:
    """One notebook open at a time, run from top to bottom: each has models in its memory."""

    def __init__(self, browser: Browser, server: serving.Server) -> None:
        self._browser, self._server = browser, server
        self.notebook: Notebook | None = None

    def open(self, name: str, *, run: bool = True) -> Notebook:
        """A notebook: the one that is open, or another in its place."""
        from .driving import Notebook

        if self.notebook is None or self.notebook.name != name:
            self.clear()
            self.notebook = Notebook(self._browser, self._server, name)
            if run:
                self.notebook.run_all()
        return self.notebook

    def clear(self) -> None:
        """Close what is open."""
        if self.notebook is not None:
            notebook, self.notebook = self.notebook, None
            notebook.close()


@pytest.fixture(scope="session")
def desk(browser: Browser, lab: serving.Server) -> Iterator[Desk]:
    """Where notebooks are opened."""
    desk = Desk(browser, lab)
    yield desk
    desk.clear()


@pytest.fixture
def opened(request: pytest.FixtureRequest, desk: Desk) -> Notebook:
    """The notebook that a test is about, open and run."""
    return desk.open(request.param)


@pytest.fixture(autouse=True)
def picture_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """A screenshot of each page that is open when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed and "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        for number, page in enumerate(p for c in browser.contexts for p in c.pages):
            name = re.sub(r"\W+", "-", request.node.name).strip("-")
            page.screenshot(path=screenshot(f"failed-{name}-{number}"))


def screenshot(name: str) -> Path:
    """Where a screenshot goes."""
    return SCREENSHOTS / f"{name}.png"
