"""The trade-off explorer in a notebook of its own: what a lecture would trip over."""

from __future__ import annotations

import re

import nbformat
import pytest
from playwright.sync_api import Locator

from . import servers, view
from .conftest import Desk
from .notebook_page import Notebook, poll

NAME = "tradeoff.ipynb"
CELLS = (
    "import embvar_kit as ek\n"
    'stats = ek.cached_statistics("minilm", progress=False)\n'
    "explorer = ek.TradeoffExplorer(stats, recall=True)\n"
    "explorer",
    'print(f"layer {explorer.state.layer}")',
)


@pytest.fixture(scope="module")
def notebook(lab: servers.Server, desk: Desk) -> Notebook:
    """A notebook with the explorer, and a cell that tells the layer that the kernel knows."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(made, lab.folder / NAME)
    return desk.open(NAME)


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer, scrolled into view."""
    (explorer,) = notebook.explorers(1)
    explorer.scroll_into_view_if_needed()
    return explorer


def told_by_a_cell(notebook: Notebook) -> str:
    """Run the second cell and return what it prints."""
    cell = notebook.page.locator(".jp-CodeCell").nth(1)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    ran = poll(prompt.inner_text, lambda text: text != before and re.search(r"\d", text))
    assert re.search(r"\d", ran) and ran != before, f"the cell stays at {ran}"
    return cell.locator(".jp-OutputArea-output").inner_text().strip()


def test_slider_and_cells_are_followed_while_the_first_card_loads(
    notebook: Notebook, explorer: Locator
):
    """The card's thread loads torch, the model and the text; messages that come then count."""
    picture = view.watch(explorer)
    picture.rest()
    explorer.locator(".embvar-search input").fill("state")

    def loading() -> bool:
        return view.text_of(explorer, "card-contexts").startswith("Looking for occurrences")

    assert poll(loading, bool)
    steps = 0
    while loading():
        view.slider(explorer).focus()
        picture.press("ArrowRight" if steps % 2 == 0 else "ArrowLeft")
        wanted = view.Fit.computed(explorer)
        assert poll(lambda: view.Fit.shown(explorer), lambda fit, w=wanted: fit == w) == wanted
        assert told_by_a_cell(notebook) == f"layer {wanted.layer}"
        steps += 1
    assert steps > 0
    explorer.locator(".embvar-card-contexts tr").first.wait_for(timeout=180_000)
    explorer.locator(".embvar-search input").fill("the")
    head = poll(lambda: view.text_of(explorer, "card-head"), lambda text: text.startswith("the "))
    assert head.startswith("the ")
    picture.stop()
