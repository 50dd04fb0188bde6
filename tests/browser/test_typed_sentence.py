"""A sentence typed into a token's card, in a notebook of its own."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

import embvar_kit as ek
from embvar_kit.explorers.tables import number

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, Watch, poll

NAME = "sentence.ipynb"
CELL = (
    "import embvar_kit as ek\n"
    'stats = ek.cached_statistics("minilm", progress=False)\n'
    "ek.TradeoffExplorer(stats, recall=True, layer=3)"
)
SENTENCE = "The state of the art, and the State of Texas."


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    return desk.write(NAME, CELL)


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer, the card of a token open and complete."""
    (explorer,) = notebook.explorers(1)
    view.resize(notebook.page, explorer, **WINDOW)
    explorer.scroll_into_view_if_needed()
    explorer.locator(".embvar-search input").fill("state")
    explorer.locator(".embvar-kwic").wait_for(timeout=600_000)
    expect(explorer.locator("img.embvar-card-plane")).not_to_have_class(re.compile("waiting"))
    return explorer


def type_in(explorer: Locator, sentence: str) -> Locator:
    """Type a sentence and press Enter; return what is told of it."""
    box = explorer.locator(".embvar-sentence input")
    view.in_the_middle(box)
    box.fill(sentence)
    box.press("Enter")
    return explorer.locator(".embvar-sentence-told")


def collected() -> np.ndarray:
    """``(2, d)`` the token's embeddings in the sentence at layer 3, from the kit's own pass."""
    model, corpus = ek.load_model("minilm"), ek.Corpus.of([SENTENCE])
    return ek.collect_embeddings(model, corpus, ["state"], [3])["state"].x[0].astype(float)


def test_a_sentence_is_read_and_its_token_marked(notebook: Notebook, explorer: Locator):
    page, image = notebook.page, explorer.locator("img.embvar-card-plane")
    view.in_the_middle(image)
    picture = Watch(image.element_handle())
    plain = picture.rest()["hash"]
    told = type_in(explorer, SENTENCE)
    expect(told).to_contain_text("Layer 3")
    marked = poll(lambda: picture.hash, lambda now: now != plain)
    assert marked != plain
    x = collected()
    stats = view.statistics("minilm")
    at, row = stats.tokens.tolist().index("state"), stats.layers.tolist().index(3)
    away = ((x - stats.mean[row, at]) ** 2).sum(axis=1)
    rows = told.locator("tr:has(td)").all()
    assert len(rows) == 3
    for line, norm, far in zip(rows, (x**2).sum(axis=1), away, strict=False):
        cells = line.locator("td").all_inner_texts()
        assert re.search("state", cells[0], re.IGNORECASE)
        shown = [view.as_number(cell) for cell in cells[1:]]
        assert shown == pytest.approx([norm, far], rel=1e-3)
    mean = rows[2].locator("td").all_inner_texts()
    assert mean[2] == f"V = {number(stats.V[row, at])}"
    # The mark tells its sentence under the mouse.
    picture.rest()
    box, tips = view.in_the_middle(image), set()
    for x_share in np.linspace(0.1, 0.72, 60):
        for y_share in np.linspace(0.08, 0.8, 30):
            page.mouse.move(box["x"] + x_share * box["width"], box["y"] + y_share * box["height"])
            tip = page.locator(".embvar-tip")
            tips |= {text for text in tip.all_text_contents() if text.startswith("your sentence")}
        if len(tips) == 2:
            break
    assert tips == {
        "your sentence: The [state] of the art, and the State of Texas.",
        "your sentence: The state of the art, and the [State] of Texas.",
    }
    view.in_the_middle(told)
    page.screenshot(path=screenshot("sentence"))
    for width in (1000, 1920):
        view.resize(page, explorer, width, 1000)
        view.in_the_middle(told)
        view.laid_out(explorer)
        assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []
        box, last = told.bounding_box(), told.locator("td").last.bounding_box()
        assert last["x"] + last["width"] <= box["x"] + box["width"], "V is there without scrolling"
        page.screenshot(path=screenshot(f"sentence-{width}"))
    explorer.locator(".embvar-lecture-button button").click()
    page.wait_for_function("() => document.fullscreenElement")
    view.laid_out(explorer)
    view.in_the_middle(told)
    sizes = told.locator("td").evaluate_all(
        "all => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 20
    page.screenshot(path=screenshot("sentence-lecture"))
    page.evaluate("() => document.exitFullscreen()")
    page.wait_for_function("() => !document.fullscreenElement")
    view.resize(page, explorer, **WINDOW)
    told = type_in(explorer, "A river <bank>.")
    expect(told).to_contain_text("state does not occur in your sentence. The model reads: [CLS], a")
    unmarked = poll(lambda: picture.hash, lambda now: now == plain)
    assert unmarked == plain, "the plane of before, without the cross"
    page.screenshot(path=screenshot("sentence-without"))
    picture.stop()


def test_each_part_can_be_reached_by_tab_and_axe_finds_no_fault(
    notebook: Notebook, explorer: Locator
):
    page = notebook.page
    expect(type_in(explorer, SENTENCE)).to_contain_text("Layer 3")
    page.keyboard.press("Tab")
    button = explorer.locator(".embvar-sentence-run")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(explorer.locator(".embvar-sentence-told")).to_contain_text("Layer 3")
    assert view.violations(page) == {}
