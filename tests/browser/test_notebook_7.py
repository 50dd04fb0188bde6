"""Explorers in Notebook 7, which is built of JupyterLab's parts: they are shown, and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from . import servers
from .conftest import screenshot
from .notebook_page import WINDOW
from .test_without_widgets import write_live


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """Not computed for these tests, which show none."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Notebook 7 on two explorers that need no model."""
    folder = tmp_path_factory.mktemp("seven") / "notebooks"
    folder.mkdir()
    write_live(folder / "live.ipynb")
    with servers.jupyterlab(folder, module="notebook") as running:
        yield running


def test_explorers_are_shown_and_answer(browser: Browser, server: servers.Server) -> None:
    context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(120_000)
    try:
        page.goto(server.url("notebooks/live.ipynb"))
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        prompts = page.locator(".jp-InputPrompt")
        for _ in range(30):  # as in JupyterLab, a command is lost while the kernel starts
            if re.search(r"[*\d]", "".join(prompts.all_inner_texts())):
                break
            # Asked to run before a kernel is on its way, the page asks which one to start.
            if page.locator(".jp-Dialog").count():
                page.keyboard.press("Enter")
            page.locator(".jp-Cell").first.click()
            page.locator(".lm-MenuBar-item", has_text="Run").first.click()
            page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
            page.wait_for_timeout(2000)
        explorers = page.locator(".embvar-explorer")
        expect(explorers).to_have_count(2, timeout=120_000)
        # What was run twice is not shown twice: the last run has ended when all prompts have.
        expect(page.locator(".jp-InputPrompt", has_text="*")).to_have_count(0, timeout=120_000)
        for explorer in explorers.all():
            picture = explorer.locator("img").first
            before = picture.get_attribute("src")
            explorer.locator('[role="slider"]').first.press("ArrowRight")
            expect(picture).not_to_have_attribute("src", before, timeout=60_000)
        page.screenshot(path=screenshot("notebook-7"))
    finally:
        context.close()
