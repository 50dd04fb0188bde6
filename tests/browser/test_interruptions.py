"""What ends in the middle: a lecture, and a kernel that is busy, stopped or dead."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, poll

NAME = "interruptions.ipynb"
CELLS = (
    "import os\n\nimport embvar_kit as ek\n\nprint(os.getpid())",
    'stats = ek.cached_statistics("minilm", progress=False)\n'
    "explorer = ek.TradeoffExplorer(stats, recall=True)\n"
    "explorer",
    "ek.VariancePlayground()",
)
SILENT = "The kernel does not answer."


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    return desk.write(NAME, *CELLS)


def kernel_of(notebook: Notebook) -> int:
    """The process of the notebook's kernel, which its first cell prints."""
    return int(notebook.page.locator(".jp-OutputArea-output").first.inner_text())


@pytest.fixture
def bar(notebook: Notebook) -> Iterator[Locator]:
    """The tooltips that are shown, in a lecture, with the mouse on a bar of the playground."""
    page, (_, explorer) = notebook.page, notebook.explorers(2)
    view.resize(page, explorer, 1920, 1080)
    image = explorer.locator("img.embvar-picture")
    view.in_the_middle(image)
    explorer.locator(".embvar-lecture-button button").click()
    page.wait_for_function("() => document.fullscreenElement")
    poll(lambda: image.evaluate("i => i.naturalWidth"), lambda width: width > 2000)  # its pixels
    view.laid_out(explorer)
    box = image.bounding_box()
    shown = page.locator(".embvar-tip:visible")
    for share in (0.75, 0.7, 0.65, 0.6):  # of the picture's height: in one of them, a bar stands
        page.mouse.move(box["x"] + 0.83 * box["width"], box["y"] + share * box["height"])
        if poll(shown.count, bool, 2):
            break
    expect(shown).to_have_count(1)
    yield shown
    page.evaluate("() => document.fullscreenElement && document.exitFullscreen()")
    page.set_viewport_size(WINDOW)
    page.mouse.move(3, 300)


def test_a_tooltip_ends_with_the_lecture(notebook: Notebook, bar: Locator):
    notebook.page.evaluate("() => document.exitFullscreen()")  # as Escape does
    notebook.page.wait_for_function("() => !document.fullscreenElement")
    expect(bar).to_have_count(0)


def test_a_tooltip_follows_what_changes_under_the_mouse(notebook: Notebook, bar: Locator):
    told = bar.inner_text()
    notebook.explorers(2)[1].locator(".embvar-mean-1 .noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")
    expect(bar).not_to_have_text(told)


def click(explorer: Locator, button: str) -> Locator:
    """Click a button below the plot; return what is told beside the buttons."""
    explorer.locator(".embvar-downloads button", has_text=button).click()
    return explorer.locator(".embvar-downloads [role=status]")


def test_buttons_say_that_the_kernel_is_silent_and_answer_when_it_is_back(notebook: Notebook):
    page, (explorer, _) = notebook.page, notebook.explorers(2)
    view.in_the_middle(explorer.locator(".embvar-downloads"))
    expect(click(explorer, "CSV")).to_contain_text("No token is marked")
    kernel = kernel_of(notebook)
    os.kill(kernel, signal.SIGSTOP)
    try:
        told = click(explorer, "code")
        expect(told).to_have_text("…")
        expect(told).to_contain_text(SILENT)
        page.screenshot(path=screenshot("downloads-silent"))
        told = click(explorer, "CSV")  # what was asked for before is not given on top of this
        expect(told).to_have_text("…")
    finally:
        os.kill(kernel, signal.SIGCONT)
    expect(told).to_contain_text("No token is marked")
    page.wait_for_timeout(1000)
    expect(told).to_contain_text("No token is marked")
    expect(click(explorer, "code")).to_contain_text("explorer.state.restore(")


def test_buttons_say_that_the_kernel_is_dead_and_work_in_the_next_one(notebook: Notebook):
    (explorer, _) = notebook.explorers(2)
    before = kernel_of(notebook)
    os.kill(before, signal.SIGKILL)
    expect(click(explorer, "code")).to_contain_text(SILENT)
    dialog = notebook.page.locator(".jp-Dialog button", has_text="Ok")
    dialog.wait_for()  # JupyterLab tells of the restart
    dialog.click()
    expect(click(explorer, "code")).to_contain_text(SILENT)
    notebook.run_all()
    assert kernel_of(notebook) != before
    (explorer, _) = notebook.explorers(2)
    expect(click(explorer, "code")).to_contain_text("explorer.state.restore(")


def test_an_explorer_says_that_its_kernel_was_restarted_while_a_card_loads(notebook: Notebook):
    page, (explorer, _) = notebook.page, notebook.explorers(2)
    ends = "one => getComputedStyle(one, '::after').content"
    assert explorer.evaluate(ends) == "none"
    explorer.locator(".embvar-search input").fill("state")
    bar = explorer.locator(".embvar-card progress")
    bar.wait_for()
    page.locator(".lm-MenuBar-item", has_text="Kernel").first.click()
    page.locator('.lm-Menu-item[data-command="kernelmenu:restart"]').click()
    page.locator(".jp-Dialog button", has_text="Restart").click()
    told = poll(lambda: explorer.evaluate(ends), lambda text: "restarted" in text)
    assert "run the cell again" in told
    expect(bar).to_be_hidden()
    view.in_the_middle(explorer.locator(".embvar-layer"))
    page.screenshot(path=screenshot("explorer-disconnected"))
    notebook.run_all()
    (explorer, _) = notebook.explorers(2)
    assert poll(lambda: explorer.evaluate(ends), lambda text: text == "none") == "none"
    expect(click(explorer, "code")).to_contain_text("explorer.state.restore(")
