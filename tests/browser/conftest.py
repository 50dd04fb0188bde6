"""Server, browser and notebooks of the browser tests, which ``make test-browser`` runs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from . import excerpts, servers

if TYPE_CHECKING:  # this imports playwright: if that is missing, the first hook says so
    from playwright.sync_api import Browser

    from .notebook_page import Notebook

SCREENSHOTS = servers.ROOT / "screenshots"


def pytest_sessionstart() -> None:
    if problem := servers.missing():
        pytest.exit(problem, returncode=1)
    SCREENSHOTS.mkdir(exist_ok=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests by notebook, so that each notebook is opened and run once."""

    def notebook(item: pytest.Item) -> str:
        call = getattr(item, "callspec", None)
        return str(call.params.get("opened", "")) if call else ""

    items.sort(key=notebook)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, as slow as ``EMBVAR_SLOW_BROWSER`` says."""
    from playwright.sync_api import expect, sync_playwright

    from . import notebook_page

    expect.set_options(timeout=1000 * notebook_page.PATIENCE)
    with sync_playwright() as playwright, notebook_page.chromium(playwright) as browser:
        notebook_page.slow_down(browser, float(os.environ.get("EMBVAR_SLOW_BROWSER", 1)))
        yield browser


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """Fill the cache with the statistics that the explorers show, outside the tests' timeouts."""
    import embvar_kit as ek

    ek.cached_statistics("minilm")
    ek.cached_statistics("smollm2")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """JupyterLab on copies of the notebooks; of those with explorers, what these need."""
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(
        servers.ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for path in folder.glob("*.ipynb"):
        if excerpts.calls(path):
            excerpts.keep_what_explorers_need(path)
    with servers.jupyterlab(folder) as server:
        yield server


class Desk:
    """Opens one notebook at a time, since each holds models in memory."""

    def __init__(self, browser: Browser, server: servers.Server) -> None:
        self._browser, self._server = browser, server
        self.notebook: Notebook | None = None

    def open(self, name: str, *, run: bool = True) -> Notebook:
        """Return a notebook, run from top to bottom; another one that is open is closed first."""
        from .notebook_page import Notebook

        if self.notebook is None or self.notebook.name != name:
            self.close()
            self.notebook = Notebook(self._browser, self._server, name)
            if run:
                self.notebook.run_all()
        return self.notebook

    def write(self, name: str, *sources: str, below: str = "") -> Notebook:
        """Write a notebook of some cells of code, and of a text below them; return it, run."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells += [nbformat.v4.new_markdown_cell(below)] if below else []
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(made, self._server.folder / name)
        return self.open(name)

    def close(self) -> None:
        """Close the open notebook, if any."""
        if self.notebook is not None:
            notebook, self.notebook = self.notebook, None
            notebook.close()


@pytest.fixture(scope="session")
def desk(browser: Browser, lab: servers.Server) -> Iterator[Desk]:
    """The opener of notebooks, shared by all tests."""
    desk = Desk(browser, lab)
    yield desk
    desk.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest, desk: Desk) -> Notebook:
    """The notebook that a test names, open and run."""
    return desk.open(request.param)


@pytest.fixture(autouse=True)
def screenshot_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take a screenshot of each open page when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed and "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        for number, page in enumerate(p for c in browser.contexts for p in c.pages):
            name = re.sub(r"\W+", "-", request.node.name).strip("-")
            page.screenshot(path=screenshot(f"failed-{name}-{number}"))


def screenshot(name: str) -> Path:
    """The path of a screenshot."""
    return SCREENSHOTS / f"{name}.png"
