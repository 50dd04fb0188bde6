"""The page that ``make app`` serves: all explorers work, and only this machine reaches it."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from . import servers, view
from .conftest import screenshot
from .notebook_page import Traffic, poll

WAIT = 300_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """The running server of ``make app``."""
    folder = tmp_path_factory.mktemp("app") / "state"
    with servers.app(folder) as server:
        yield server


@pytest.fixture(scope="module")
def page(browser: Browser, app: servers.Server) -> Iterator[Page]:
    """Its page, once the explorers are shown."""
    context = browser.new_context(viewport={"width": 1280, "height": 2000})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    Traffic().listen(page)
    page.elsewhere = {}
    page.on("request", lambda request: page.elsewhere.setdefault(request.url, "sent"))
    # Requests that the page's security policy forbids never leave the browser.
    page.on("requestfailed", lambda one: page.elsewhere.update({one.url: one.failure}))
    page.goto(app.url(""))
    page.wait_for_selector(".embvar-tradeoff canvas", state="attached")
    yield page
    context.close()


# The picture of each explorer, and what is moved in it.
TABS = {
    "Trade-off": (".embvar-tradeoff", "layer"),
    "Linked": (".embvar-linked .embvar-left", "layer"),
    "Layers": (".embvar-layers", "layer"),
    "Normalization": (".embvar-normalization", "gamma"),
    "Playground": (".embvar-formula:has(.embvar-mean-1)", "mean-1"),
    "Player": (".embvar-formula:has(.embvar-k)", "k"),
}


def tab(page: Page, title: str) -> Locator:
    return page.get_by_role("tab", name=title, exact=True)


def test_at_the_start_only_the_first_explorer_is_made(page: Page):
    assert page.get_by_role("tab").all_inner_texts() == list(TABS)
    assert page.locator(".embvar-explorer").count() == 1
    assert tab(page, "Trade-off").get_attribute("aria-selected") == "true"
    assert page.locator("h1").count() == 1


def test_while_a_slow_page_is_prepared_the_others_work(page: Page):
    tab(page, "Normalization").click()
    panel = page.get_by_role("tabpanel")
    expect(panel).to_contain_text("The other tabs work meanwhile")
    tab(page, "Playground").click()
    explorer = page.locator(TABS["Playground"][0])
    handle = view.slider(explorer, "mean-1")
    handle.wait_for(state="attached")
    bars = view.text_of(explorer, "numbers")
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert poll(lambda: view.text_of(explorer, "numbers"), lambda text: text != bars) != bars
    assert page.locator(".embvar-normalization").count() == 0, "it is still being prepared"
    page.screenshot(path=screenshot("app-preparing"))


@pytest.mark.parametrize("title", list(TABS))
def test_an_explorer_is_made_when_its_tab_is_opened_and_follows_the_keyboard(
    page: Page, title: str
):
    css, control = TABS[title]
    tab(page, title).click()
    explorer = page.locator(css)
    # On a busy machine, the pass for the slowest takes minutes.
    view.slider(explorer, control).wait_for(state="attached", timeout=2 * WAIT)
    panel = page.get_by_role("tabpanel")
    # The panel of the tab before is shown until the page has answered.
    expect(panel.get_by_role("heading", level=2)).to_have_text(title, timeout=WAIT)
    expect(panel).to_have_count(1)  # the others are hidden
    assert len(panel.locator("h2 + p").inner_text()) > 40
    view.laid_out(explorer)
    picture = view.watch(explorer)
    first = picture.rest()
    view.slider(explorer, control).focus()
    least = view.slider(explorer, control).get_attribute("aria-valuemin")
    start = view.slider(explorer, control).get_attribute("aria-valuenow")
    there, back = ("ArrowRight", "ArrowLeft") if start == least else ("ArrowLeft", "ArrowRight")
    assert picture.press(there)["hash"] != first["hash"]
    picture.press(back)
    assert picture.come_to(first["hash"]) == first["hash"]
    picture.stop()
    assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []
    page.screenshot(path=screenshot(f"app-{title.lower()}"), full_page=True)


def test_the_arrow_keys_move_between_tabs_and_an_explorer_stays_as_it_was(page: Page):
    tab(page, "Trade-off").click()
    explorer = page.locator(".embvar-tradeoff")
    explorer.wait_for()
    view.slider(explorer).focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert poll(lambda: view.Fit.shown(explorer).layer, lambda layer: layer == 1) == 1
    tab(page, "Trade-off").focus()
    page.keyboard.press("ArrowRight")
    expect(tab(page, "Linked")).to_be_focused()
    assert tab(page, "Trade-off").get_attribute("aria-selected") == "true"
    assert explorer.is_visible(), "the arrows open nothing"
    page.keyboard.press("Enter")
    assert poll(lambda: tab(page, "Linked").get_attribute("aria-selected"), lambda x: x == "true")
    page.locator(".embvar-linked").wait_for(timeout=2 * WAIT)
    expect(explorer).to_be_hidden()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    explorer.wait_for()
    wanted = poll(lambda: view.Fit.shown(explorer), lambda fit: fit.layer == 1)
    assert wanted == view.Fit.computed(explorer) and wanted.layer == 1
    ticks = poll(lambda: view.Axes(explorer).ticks, lambda ticks: min(map(len, ticks)) > 2)
    assert min(map(len, ticks)) > 2, "the plot is drawn again"


def test_axe_finds_landmarks_headings_and_names_on_the_whole_page(page: Page):
    for title in TABS:
        tab(page, title).click()
        panel = page.get_by_role("tabpanel")
        expect(panel.get_by_role("heading", level=2)).to_have_text(title)
        panel.locator(".embvar-explorer").wait_for(timeout=2 * WAIT)
        view.laid_out(panel.locator(".embvar-explorer"))
        found = Axe().run(page).response["violations"]
        assert {one["id"]: [node["html"][:150] for node in one["nodes"]] for one in found} == {}


def test_it_requests_nothing_from_another_machine(page: Page, app: servers.Server):
    here = (f"http://127.0.0.1:{app.port}/", "data:", "blob:")
    others = {url: how for url, how in page.elsewhere.items() if not url.startswith(here)}
    assert {url: how for url, how in others.items() if how != "csp"} == {}


def test_it_shows_no_code_and_no_error(page: Page):
    assert "cached_statistics" not in page.content()
    assert page.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0


def test_a_link_shows_the_same_again(page: Page, app: servers.Server):
    tab(page, "Trade-off").click()
    explorer = page.locator(".embvar-tradeoff")
    explorer.locator(".embvar-search input").fill("state")
    assert "state" in poll(lambda: view.text_of(explorer, "marked"), lambda text: "state" in text)
    view.slider(explorer).focus()
    page.keyboard.press("End")
    assert poll(lambda: view.Fit.shown(explorer).layer, lambda layer: layer == 6) == 6
    page.keyboard.press("ArrowLeft")
    wanted = poll(lambda: view.Fit.shown(explorer), lambda fit: fit.layer == 5)
    explorer.locator(".embvar-downloads button", has_text="link").click()
    link = explorer.locator(".embvar-downloads code").inner_text()
    assert link.startswith(f"http://127.0.0.1:{app.port}/") and app.token not in link
    other = page.context.new_page()
    other.set_default_timeout(WAIT)
    try:
        other.goto(link)
        other.wait_for_selector(".embvar-tradeoff canvas", state="attached")
        again = other.locator(".embvar-tradeoff")
        shown = poll(lambda: view.Fit.shown(again), lambda fit: fit == wanted)
        assert shown == wanted and wanted.layer == 5
        expect(again.locator(".embvar-marked")).to_contain_text("state")
        expect(again.locator(".embvar-card-head")).to_contain_text(re.compile(r"^\s*state\s"))
        assert view.text_of(again, "message") == ""
        other.screenshot(path=screenshot("app-link"))
    finally:
        other.close()


def test_a_link_opens_the_tab_of_its_explorer(page: Page):
    tab(page, "Layers").click()
    explorer = page.locator(".embvar-layers")
    explorer.wait_for()
    explorer.locator(".embvar-of select").select_option("V(X)")
    explorer.locator(".embvar-downloads button", has_text="link").click()
    link = explorer.locator(".embvar-downloads code").inner_text()
    table = poll(lambda: view.text_of(explorer, "numbers"), lambda text: "/ V(X)" in text)
    assert "/ V(X)" in table
    other = page.context.new_page()
    other.set_default_timeout(WAIT)
    try:
        other.goto(link)
        again = other.locator(".embvar-layers")
        again.wait_for()
        expect(tab(other, "Layers")).to_have_attribute("aria-selected", "true")
        assert poll(lambda: view.chosen(again, "of"), lambda of: of == "V(X)") == "V(X)"
        shown = poll(lambda: view.text_of(again, "numbers"), lambda text: text == table)
        assert shown == table
        assert other.locator(".embvar-explorer").count() == 1, "no other one is made"
    finally:
        other.close()


def test_it_needs_the_token_and_this_machine(app: servers.Server):
    here = f"http://127.0.0.1:{app.port}/"
    for path in ("", "?token=guessed"):
        with urllib.request.urlopen(here + path, timeout=120) as response:
            assert urlsplit(response.url).path == "/login"
            assert b"kernelId" not in response.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{here}api/kernels/{uuid.uuid4()}", timeout=120)
    assert refused.value.code == 403
    others = {
        address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    } - {"127.0.0.1"}
    for address in others:
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex((address, app.port)) != 0


def kernels_of(app: servers.Server) -> list[psutil.Process]:
    """The server's kernels: they have its settings in their environment."""
    own, found = str(app.folder.parent / f"jupyter-{app.port}"), []
    for process in psutil.process_iter(["cmdline"]):
        if any("ipykernel_launcher" in part for part in process.info["cmdline"] or ()):
            with suppress(psutil.Error):  # another user's, or gone already
                if process.environ().get("JUPYTER_DATA_DIR", "").startswith(own):
                    found.append(process)
    assert found
    return found


def test_without_its_kernel_it_says_to_load_the_page_again(page: Page, app: servers.Server):
    tab(page, "Trade-off").click()
    explorer = page.locator(".embvar-tradeoff")
    explorer.wait_for()
    for kernel in kernels_of(app):
        kernel.kill()
    told = poll(
        lambda: explorer.evaluate("one => getComputedStyle(one, '::after').content"),
        lambda text: "load the page again" in text,
    )
    assert "load the page again" in told and "cell" not in told
    cut = page.locator(".jupyter-widgets-disconnected")
    before = "all => all.map((one) => getComputedStyle(one, '::before').content)"
    icons = poll(lambda: cut.evaluate_all(before), lambda icons: len(icons) > 20)
    assert len(icons) > 20 and set(icons) == {"none"}
    page.screenshot(path=screenshot("app-disconnected"))
