"""The site in a browser: it needs no other machine, shows formulas, and everybody can use it."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from . import servers
from .conftest import screenshot
from .notebook_page import poll, still

PAGES = (
    "index.html",
    "notebooks/01_variance_formula.html",
    "api/moments.html",
    "gallery/index.html",
    "gallery/layers.html",
    "notebooks/course/README.html",
)
WITH_TABLES = (
    "README.html",
    "gallery/index.html",
    "notebooks/course/homework.html",
    "notebooks/course/routes.html",
    "notebooks/05_layer_normalization.html",
    "notebooks/07_anisotropy.html",
    "notebooks/reference/reliability.html",
)
WITH_PICTURES = (
    "index.html",
    "notebooks/04_norm_variance_tradeoff.html",
    "notebooks/06_across_layers.html",
    "gallery/index.html",
)
DESKTOP, PHONE = 1280, 375
WIDTH = "() => document.documentElement.scrollWidth"
ELSEWHERE = "This copy was executed elsewhere."
WITH_FORMULAS = ("index.html", "notebooks/01_variance_formula.html")


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """Not computed for these tests, which show no explorer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, with notebooks that were executed elsewhere, as ``make run`` does."""
    out, executed = (tmp_path_factory.mktemp("site") / name for name in ("html", "executed"))
    executed.mkdir()
    for path in (servers.ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(nbformat.v4.new_markdown_cell(ELSEWHERE))
        nbformat.write(notebook, executed / path.name)
    script = servers.ROOT / "notebooks" / "site" / "build.py"
    command = [sys.executable, str(script), str(out), "--notebooks", str(executed)]
    subprocess.run(command, check=True)
    return out


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of a server of the site."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of a desktop; ``requests`` lists all that its pages ask for, and what failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # a machine may be busy
    context.requests, context.failed = [], []
    context.on("request", lambda request: context.requests.append(request.url))
    context.on("requestfailed", lambda request: context.failed.append(request.url))
    yield context
    context.close()


def opened(context: BrowserContext, address: str, name: str) -> Page:
    """A page of the site, once all that it loads is there and formulas are set."""
    page = context.new_page()
    answer = page.goto(address + name, wait_until="networkidle")
    assert answer.ok
    # Where a page is slow, MathJax may be loaded, and not yet have begun.
    page.wait_for_function(
        """() => !document.querySelector("script[src*=mathjax i]") ||
          window.MathJax?.startup?.promise"""
    )
    page.evaluate("() => window.MathJax?.startup?.promise")
    return page


@pytest.mark.parametrize("name", PAGES)
def test_no_request_leaves_the_machine(name: str, context: BrowserContext, address: str):
    page = opened(context, address, name)
    # Pictures that are loaded when they come into view are, too.
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=screenshot(f"site-{name.replace('/', '-').removesuffix('.html')}"))
    assert len(context.requests) > 3
    assert [url for url in context.requests if not url.startswith((address, "data:"))] == []
    assert context.failed == []


def test_executed_notebooks_lead_to_one_another(context: BrowserContext, address: str):
    page = opened(context, address, "notebooks/index.html")
    page.get_by_role("article").get_by_role("link", name="The variance formula").first.click()
    expect(page.get_by_text(ELSEWHERE)).to_be_visible()
    page.get_by_role("article").get_by_role("link", name="2 · Sequential computation").last.click()
    page.wait_for_url("**/02_sequential_computation.html")
    expect(page.get_by_text(ELSEWHERE)).to_be_visible()


@pytest.mark.parametrize("name", WITH_FORMULAS)
def test_formulas_are_rendered(name: str, context: BrowserContext, address: str):
    page = opened(context, address, name)
    formulas = page.locator("article .math")
    assert formulas.count() > 3
    assert page.locator("article .math mjx-container").count() == formulas.count()
    assert page.locator("mjx-merror").count() == 0

    def has_fonts() -> bool:
        """Whether the fonts that come with the site were asked for."""
        page.evaluate("() => document.fonts.ready.then(() => null)")
        return any("/mathjax/" in url and url.endswith(".woff") for url in context.requests)

    assert poll(has_fonts, bool)


def test_it_opens_from_the_disk(folder: Path, context: BrowserContext):
    """Without a server: formulas and the slider work, and other pages are found."""
    page = context.new_page()
    page.goto((folder / "index.html").as_uri(), wait_until="networkidle")
    page.wait_for_selector("mjx-container")
    page.get_by_role("link", name="a slider through the layers").click()
    expect(page.get_by_role("slider")).to_be_visible()
    assert [url for url in context.requests if not url.startswith(("file:", "data:"))] == []


def test_the_slider_moves_by_keyboard(context: BrowserContext, address: str):
    page = opened(context, address, "gallery/layers.html")
    slider = page.get_by_role("slider", name="Layer")
    shown = page.locator(".layer-slider figure:visible")
    last = page.locator(".layer-slider figure").count() - 1
    assert last > 10

    def check(layer: int) -> None:
        expect(shown).to_have_count(1)
        caption = shown.locator(".caption-text")
        expect(caption).to_contain_text(f"Layer {layer}: slope")
        expect(slider).to_have_attribute("aria-valuetext", caption.inner_text())
        there = "one => one.complete && one.naturalWidth > 300"
        assert poll(lambda: shown.locator("img").evaluate(there), bool)
        expect(page.locator(".layer-slider output")).to_have_text(str(layer))

    check((last + 1) // 2)
    for _ in range(60):  # it is reached with Tab
        page.keyboard.press("Tab")
        if slider.evaluate("one => one === document.activeElement"):
            break
    expect(slider).to_be_focused()
    for key, layer in (
        ("ArrowRight", (last + 1) // 2 + 1),
        ("ArrowLeft", (last + 1) // 2),
        ("Home", 0),
        ("ArrowRight", 1),
        ("End", last),
        ("ArrowRight", last),
    ):
        page.keyboard.press(key)
        check(layer)


def test_all_layers_are_there_without_scripts(browser: Browser, address: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}gallery/layers.html")
    figures = page.locator(".layer-slider figure")
    assert figures.count() > 10
    for figure in figures.all():
        expect(figure).to_be_visible()
    context.close()


def test_the_search_finds_a_word_of_a_notebook(context: BrowserContext, address: str):
    page = opened(context, address, "search.html?q=jackknife")
    found = page.locator("#search-results li a")
    expect(found.first).to_be_visible()
    places = "all => all.map((link) => link.getAttribute('href'))"  # they come one by one
    assert poll(
        lambda: [to for to in found.evaluate_all(places) if "notebooks/" in to], lambda to: to
    )


# What is wider than the window and does not scroll by itself.
WIDE = """
() => [...document.querySelectorAll("article :is(table, pre, img)")].filter((one) => {
  if (one.getBoundingClientRect().right <= innerWidth) return false;
  for (let up = one; up; up = up.parentElement) {
    if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return false;
  }
  return true;
}).map((one) => one.outerHTML.slice(0, 100))
"""


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_window_does_not_scroll_sideways(name: str, context: BrowserContext, address: str):
    page = opened(context, address, name)
    page.set_viewport_size({"width": 400, "height": 800})
    page.screenshot(path=screenshot(f"site-{name.replace('/', '-').removesuffix('.html')}-narrow"))
    width = poll(lambda: page.evaluate(WIDTH), lambda width: width <= 400)
    assert width <= 400
    assert page.evaluate(still(WIDE)) == []


# The boxes of the tables of a page: how far each scrolls, and what stands in the way of reading it.
BOXES = """
() => [...document.querySelectorAll("article table")].map((table) => {
  let box = table;
  while (box && getComputedStyle(box).overflowX !== "auto") box = box.parentElement;
  return {
    said: table.innerText.slice(0, 60),
    found: Boolean(box),
    beyond: box ? box.scrollWidth - box.clientWidth : table.scrollWidth - innerWidth,
    outside: box && box.getBoundingClientRect().right > innerWidth,
    tab: box?.tabIndex, role: box?.getAttribute("role"), name: box?.getAttribute("aria-label"),
    font: parseFloat(getComputedStyle(table).fontSize),
    tallest: Math.max(...[...table.rows].map((row) => row.offsetHeight)),
  };
})
"""


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", WITH_TABLES)
def test_a_wide_table_scrolls_in_a_box_with_a_name(
    name: str, width: int, context: BrowserContext, address: str
):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address + name, wait_until="networkidle")
    boxes = page.evaluate(still(BOXES))
    wide = [box for box in boxes if box["beyond"] > 0]
    assert boxes and (wide or width == DESKTOP)
    for box in boxes:
        assert box["found"] and not box["outside"], box
        assert box["font"] >= 12, box
        assert (box["role"] == "region") == (box["beyond"] > 0), box
    for box in wide:
        assert box["tab"] == 0 and box["name"], box
    names = [box["name"] for box in wide]
    assert len(set(names)) == len(names)
    assert page.evaluate(WIDTH) <= width


def test_a_wide_table_scrolls_by_keyboard(context: BrowserContext, address: str):
    page = opened(context, address, "notebooks/course/routes.html")
    page.set_viewport_size({"width": PHONE, "height": 800})
    table = page.get_by_role("region", name="Table 1 of “The lecture of 90 minutes”")
    last = table.get_by_role("columnheader", name="run, and ask")
    table.focus()
    # Its first rows below the header of the page, which stays where it is.
    table.evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 200)")
    expect(last).not_to_be_in_viewport(ratio=0.9)
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(last).to_be_in_viewport(ratio=0.9)
    page.set_viewport_size({"width": DESKTOP, "height": 800})
    expect(table).to_have_count(0)  # it fits now, so it is no place to stop at


# Large pictures: how they are shown, and the boxes that they scroll in.
PICTURES = """
() => [...document.querySelectorAll("article img")].filter((one) => one.naturalWidth > 600)
  .map((one) => {
    const box = one.closest(".picture");
    return {
      said: one.alt.slice(0, 60), width: one.getBoundingClientRect().width,
      beyond: box ? box.scrollWidth - box.clientWidth : null,
      tab: box?.tabIndex, role: box?.getAttribute("role"), name: box?.getAttribute("aria-label"),
    };
  })
"""


def with_pictures(page: Page) -> list[dict]:
    """The large pictures of a page, once all are loaded."""
    page.evaluate(
        """() => Promise.all([...document.querySelectorAll("article img")].map((one) => {
          one.loading = "eager";
          return one.decode();
        }))"""
    )
    page.wait_for_function(
        "() => [...document.querySelectorAll('article img')]"
        ".every((one) => one.naturalWidth <= 600 || one.closest('.picture'))"
    )
    return page.evaluate(still(PICTURES))  # sizes are told later


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_a_large_picture_can_be_read_on_a_phone(name: str, context: BrowserContext, address: str):
    page = opened(context, address, name)
    page.set_viewport_size({"width": PHONE, "height": 800})
    pictures = with_pictures(page)
    page.screenshot(path=screenshot(f"site-{name.replace('/', '-').removesuffix('.html')}-phone"))
    assert pictures
    for picture in pictures:
        assert picture["width"] > 600 and picture["beyond"] > 0, picture
        assert picture["tab"] == 0 and picture["role"] == "region" and picture["name"], picture
    names = [picture["name"] for picture in pictures]
    assert len(set(names)) == len(names)
    assert page.evaluate(WIDTH) <= PHONE
    page.set_viewport_size({"width": DESKTOP, "height": 800})
    page.wait_for_function("() => !document.querySelector('.picture[role]')")
    for picture in page.evaluate(still(PICTURES)):
        assert picture["beyond"] == 0 and picture["tab"] == -1, picture


# All that scrolls sideways on a page: what it is, and what the line above it says.
SCROLLING = """
() => [...document.querySelectorAll("article *")].filter((one) =>
  one.scrollWidth > one.clientWidth && ["auto", "scroll"].includes(getComputedStyle(one).overflowX)
).map((one) => {
  const place = one.closest(".wide");
  return {
    what: one.tagName, html: one.outerHTML.slice(0, 80),
    said: place && getComputedStyle(place, "::before").content,
    // The line stands above what scrolls, and not beside it.
    above: place && place.getBoundingClientRect().height > 12
      && (place === one || one.getBoundingClientRect().top - place.getBoundingClientRect().top > 8),
  };
})
"""


def test_a_hint_stands_above_all_that_scrolls(context: BrowserContext, address: str):
    page = opened(context, address, "notebooks/06_across_layers.html")
    page.set_viewport_size({"width": PHONE, "height": 800})
    with_pictures(page)
    found = page.evaluate(still(SCROLLING))
    for one in found:
        assert one["said"] and "Scroll sideways for the rest of this" in one["said"], one
        assert one["above"], one
    said = " ".join(one["said"] for one in found)
    for what in ("table", "picture", "formula", "code"):
        assert f'of this " "{what}"' in said or f"of this {what}" in said, what
    page.set_viewport_size({"width": 2 * DESKTOP, "height": 800})
    page.wait_for_function("() => !document.querySelector('article :is(.math, .picture).wide')")


CARDS = """
() => [...document.querySelectorAll("article .sd-card")].map((card) => {
  const { x, y, width, height } = card.getBoundingClientRect();
  return { x, y, width, height };
})
"""


@pytest.mark.parametrize("width", [800, DESKTOP])
def test_no_card_of_the_front_page_stands_alone(width: int, context: BrowserContext, address: str):
    """The cards of each row fill it."""
    page = opened(context, address, "index.html")
    page.set_viewport_size({"width": width, "height": 900})
    places = page.evaluate(still(CARDS))
    rows: dict[int, list[dict]] = {}
    for place in places:
        rows.setdefault(round(place["y"]), []).append(place)
    right = [max(place["x"] + place["width"] for place in row) for row in rows.values()]
    assert len(places) > len(rows) > 1
    assert max(right) - min(right) < 2, rows


def test_the_numbers_below_the_slider_are_not_thin(context: BrowserContext, address: str):
    page = opened(context, address, "gallery/layers.html")
    caption = page.locator(".layer-slider figure:visible .caption-text")
    weight, colour, own = caption.evaluate(
        """(one) => [getComputedStyle(one).fontWeight, getComputedStyle(one).color,
          getComputedStyle(document.querySelector("article p")).color]"""
    )
    assert int(weight) >= 400 and colour == own


def test_the_routes_can_be_read_on_a_phone(context: BrowserContext, address: str):
    page = context.new_page()
    page.set_viewport_size({"width": PHONE, "height": 800})
    page.goto(f"{address}notebooks/course/routes.html", wait_until="networkidle")
    page.screenshot(path=screenshot("site-routes-phone"))
    routes, *others = page.evaluate(still(BOXES))
    assert routes["said"].startswith("route") and routes["beyond"] <= 0
    for table in (routes, *others):
        assert table["font"] >= 14 and table["tallest"] < 250, table


def test_it_prints_the_text_and_not_the_navigation(context: BrowserContext, address: str):
    page = opened(context, address, "notebooks/01_variance_formula.html")
    page.emulate_media(media="print")
    for part in ("header", ".bd-sidebar-primary", ".bd-sidebar-secondary", "footer"):
        for one in page.locator(part).all():
            expect(one).not_to_be_visible()
    article = page.locator("article")
    expect(article.locator("h1")).to_be_visible()
    expect(article.locator(".cell_output img").first).to_be_visible()
    assert page.pdf(format="A4")[:5] == b"%PDF-"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_violation(
    name: str, scheme: str, context: BrowserContext, address: str
):
    page = opened(context, address, name)
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "scheme => document.documentElement.dataset.theme === scheme", arg=scheme
    )
    # Colours fade from one scheme to the other, and axe would see those in between.
    page.evaluate("document.getAnimations().forEach(fading => fading.finish())")
    found = Axe().run(page).response
    assert found["passes"]
    serious = {
        violation["id"]: [node["html"][:200] for node in violation["nodes"]]
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    }
    assert serious == {}
