"""Where no widget can be shown, an explorer's saved output is a picture with an alternative text.

A live one is tried in JupyterLab without its widget manager, in tests/browser.
"""

from __future__ import annotations

import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from paths import ROOT

from embvar_kit import explorers

sys.path.insert(0, str(ROOT / "notebooks" / "site"))

import alternatives

WIDGET = "application/vnd.jupyter.widget-view+json"


def explorers_in(cell: NotebookNode) -> list[str]:
    """The explorers that a cell calls."""
    if cell.cell_type != "code":
        return []
    return [name for name, _ in alternatives.calls(cell.source) if name in explorers.__all__]


SAVED = [
    (path.stem, cell)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    for cell in nbformat.read(path, as_version=4).cells
    if explorers_in(cell)
]
"""Every cell that shows an explorer, with its notebook's name."""


def test_every_explorer_is_shown_in_a_notebook():
    assert {name for _, cell in SAVED for name in explorers_in(cell)} == set(explorers.__all__)


@pytest.mark.parametrize(("stem", "cell"), SAVED, ids=[stem for stem, _ in SAVED])
def test_a_saved_explorer_has_its_picture_beside_its_widget(stem, cell):
    """A front end takes the richest of them that it can show."""
    (name,) = explorers_in(cell)
    (output,) = cell.outputs
    assert {*output.data} == {WIDGET, "image/png", "text/plain"}
    assert output.metadata["image/png"]["alt"] == alternatives.description(name)


@pytest.mark.parametrize("template", ["lab", "classic"])
@pytest.mark.parametrize(("stem", "cell"), SAVED, ids=[stem for stem, _ in SAVED])
def test_a_page_without_widgets_shows_the_picture(stem, cell, template):
    """As `make run` writes it: the notebook is saved without the state of its widgets."""
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page, _ = HTMLExporter(template_name=template).from_notebook_node(notebook)
    assert "widget-view" not in page
    (picture,) = BeautifulSoup(page, "html.parser").find_all("img")
    assert picture["src"].startswith("data:image/png;base64,") and len(picture["src"]) > 5000
    if template == "classic":  # nbconvert's other template drops alternative texts
        assert picture["alt"] == alternatives.description(*explorers_in(cell))
