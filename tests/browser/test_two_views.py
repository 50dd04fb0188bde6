"""One explorer shown twice, in columns of different width."""

from __future__ import annotations

from typing import Any

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Watch, poll

CELLS = (
    "from IPython.display import display\n"
    "from ipywidgets import Box, Layout\n\n"
    "import embvar_kit as ek\n\n"
    "playground = ek.VariancePlayground()\n"
    'display(playground.view, Box([playground.view], layout=Layout(width="640px")))',
)
LONG = 2.0
"""Seconds in which two views that answer one another would draw the picture several times."""


def alike(rests: list[dict[str, Any]]) -> bool:
    """Whether two pictures that are at rest have the same pixels."""
    return rests[0]["hash"] == rests[1]["hash"]


def test_two_views_do_not_take_turns_at_the_width_of_their_picture(desk: Desk):
    notebook = desk.write("two_views.ipynb", *CELLS)
    page, pictures = notebook.page, []
    for explorer in notebook.explorers(2):
        image = explorer.locator("img.embvar-picture")
        view.in_the_middle(image)
        pictures.append(Watch(image.element_handle(), quiet=LONG))
    first = poll(lambda: [picture.rest() for picture in pictures], alike)
    assert alike(first), "they show one picture"
    # Only the wide one gets other room, which both show then.
    page.set_viewport_size({"width": 1800, "height": 900})
    for picture, before in zip(pictures, first, strict=True):
        picture.rest(changes=before["changes"])
    wider = poll(lambda: [picture.rest() for picture in pictures], alike)
    assert alike(wider) and wider[0]["hash"] != first[0]["hash"]
    page.screenshot(path=screenshot("two-views"))
    page.set_viewport_size(WINDOW)
    for picture, before in zip(pictures, wider, strict=True):
        picture.rest(changes=before["changes"])
        picture.stop()
    assert notebook.errors() == []
