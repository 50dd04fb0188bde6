"""The page that ``make app`` serves: both explorers work, and only this machine reaches it."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from . import servers, view
from .conftest import screenshot
from .notebook_page import Traffic, poll

WAIT = 120_000


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
    page.wait_for_selector(".embvar-layers img.widget-image", state="attached")
    yield page
    context.close()


def test_both_explorers_follow_the_keyboard(page: Page):
    for css in ("tradeoff", "layers"):
        explorer = page.locator(f".embvar-{css}")
        explorer.scroll_into_view_if_needed()
        picture = view.watch(explorer)
        first = picture.rest()
        view.slider(explorer).focus()
        assert picture.press("ArrowRight")["hash"] != first["hash"]
        assert picture.press("ArrowLeft")["hash"] == first["hash"]
        picture.stop()
        assert view.cut_off(explorer) == []
    tradeoff = page.locator(".embvar-tradeoff")
    wanted = view.Fit.computed(tradeoff)
    assert poll(lambda: view.Fit.shown(tradeoff), lambda fit: fit == wanted) == wanted
    page.screenshot(path=screenshot("app"), full_page=True)


def test_it_requests_nothing_from_another_machine(page: Page, app: servers.Server):
    here = (f"http://127.0.0.1:{app.port}/", "data:", "blob:")
    others = {url: how for url, how in page.elsewhere.items() if not url.startswith(here)}
    assert {url: how for url, how in others.items() if how != "csp"} == {}


def test_it_shows_no_code_and_no_error(page: Page):
    assert "cached_statistics" not in page.content()
    assert page.locator(".jp-RenderedText[data-mime-type*=stderr]").count() == 0


def test_a_link_shows_the_same_again(page: Page, app: servers.Server):
    explorer = page.locator(".embvar-tradeoff")
    explorer.locator(".embvar-search input").fill("state")
    assert "state" in poll(lambda: view.text_of(explorer, "marked"), lambda text: "state" in text)
    view.slider(explorer).focus()
    page.keyboard.press("End")
    poll(lambda: view.readout(explorer), lambda layer: layer == 6)
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
        assert view.Fit.shown(again) == wanted and wanted.layer == 5
        assert "state" in view.text_of(again, "marked")
        assert view.text_of(again, "card-head").startswith("state ")
        assert view.text_of(again, "message") == ""
        other.screenshot(path=screenshot("app-link"))
    finally:
        other.close()


def test_it_needs_the_token_and_this_machine(app: servers.Server):
    here = f"http://127.0.0.1:{app.port}/"
    for path in ("", "?token=guessed"):
        with urllib.request.urlopen(here + path, timeout=30) as response:
            assert urlsplit(response.url).path == "/login"
            assert b"kernelId" not in response.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{here}api/kernels/{uuid.uuid4()}", timeout=30)
    assert refused.value.code == 403
    others = {
        address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    } - {"127.0.0.1"}
    for address in others:
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex((address, app.port)) != 0
