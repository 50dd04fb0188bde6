"""A front end without a widget manager shows explorers as still pictures, live ones and saved ones.

JupyterLab without its manager stands in for any such front end: it has nothing that opens a comm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser
from test_still_pictures import SAVED

from . import servers
from .conftest import screenshot
from .notebook_page import Notebook, poll

LIVE = (
    "import numpy as np\n\nimport embvar_kit as ek\n\nek.VariancePlayground()",
    "ek.SequencePlayer(np.eye(4, dtype=np.float32))",
)
"""Two explorers that need no model."""

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write_live(path: Path) -> None:
    """Write a notebook of the two explorers, not yet run."""
    write(path, [nbformat.v4.new_code_cell(code) for code in LIVE])


def write(path: Path, cells: list[nbformat.NotebookNode]) -> None:
    """Write a notebook of some cells."""
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, path)


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """Not computed for these tests, which show none."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """JupyterLab without its widget manager, on the explorers' cells."""
    folder = tmp_path_factory.mktemp("bare") / "notebooks"
    folder.mkdir()
    write_live(folder / "live.ipynb")
    write(folder / "saved.ipynb", [cell for _, cell in SAVED])
    with servers.jupyterlab(folder, without=["@jupyter-widgets/jupyterlab-manager"]) as server:
        yield server


@pytest.mark.parametrize(("name", "number"), [("live", len(LIVE)), ("saved", len(SAVED))])
def test_explorers_are_still_pictures(
    name: str, number: int, browser: Browser, lab: servers.Server
) -> None:
    notebook = Notebook(browser, lab, f"{name}.ipynb")
    try:
        prompts = notebook.page.locator(".jp-InputPrompt")
        # A command is lost while a kernel starts; where it was given twice, cells count on.
        for _ in range(5 * (name == "live")):
            if not re.search(r"\[\d+\]", "".join(prompts.all_inner_texts())):
                notebook.run_all()
        pictures = notebook.page.locator(".jp-OutputArea-output img")
        pictures.nth(number - 1).wait_for()
        widths = "all => all.map((one) => one.complete && one.naturalWidth)"
        sizes = poll(lambda: pictures.evaluate_all(widths), lambda sizes: min(sizes) > 200)
        assert len(sizes) == number and min(sizes) > 200
        assert notebook.page.locator(".embvar-explorer, .jupyter-widgets").count() == 0
        assert notebook.errors() == []
        notebook.page.screenshot(path=screenshot(f"without-widgets-{name}"))
    finally:
        notebook.close()
