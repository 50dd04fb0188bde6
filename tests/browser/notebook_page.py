"""A notebook in a browser: run it, find its explorers, press keys, watch pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, ElementHandle, Locator, Page, Playwright, TimeoutError

from . import servers

FLAGS = (
    "--no-sandbox",  # containers do not allow the sandbox
    "--disable-gpu",  # software WebGL gives the same pixels everywhere
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WINDOW = {"width": 1280, "height": 900}
PICTURE = "canvas, img.widget-image"

# Keeps a hash of the picture's pixels and the time of the last animation frame that changed them.
# Pixels are read in animation frames, when whatever a frame draws has been drawn.
WATCH = """
window.embvarWatch = (element) => {
  const sheet = document.createElement("canvas");
  const ink = sheet.getContext("2d", { willReadFrequently: true });
  const watch = { hash: 0, blank: true, changes: 0, changed: performance.now(), pressed: 0 };
  const look = () => {
    if (watch.stopped) return;
    const image = element.tagName === "IMG";
    const width = image ? element.naturalWidth : element.width;
    const height = image ? element.naturalHeight : element.height;
    if (width && height && (!image || element.complete)) {
      if (sheet.width !== width || sheet.height !== height) {
        sheet.width = width; sheet.height = height;
      }
      ink.clearRect(0, 0, width, height);
      ink.drawImage(element, 0, 0);
      const pixels = new Uint32Array(ink.getImageData(0, 0, width, height).data.buffer);
      let hash = 17 + width;
      for (let i = 0; i < pixels.length; i++) hash = (Math.imul(hash, 31) + pixels[i]) | 0;
      if (hash !== watch.hash) {
        watch.hash = hash; watch.changes += 1; watch.changed = performance.now();
        watch.blank = pixels.every((pixel) => pixel === pixels[0]);
      }
    }
    requestAnimationFrame(look);
  };
  document.addEventListener("keydown", () => { watch.pressed = performance.now(); }, true);
  requestAnimationFrame(look);
  return watch;
};
"""

# The prompt of a cell that is running or queued shows a star.
_BUSY = """
  [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].some(
    (prompt) => prompt.textContent.includes("*")) ||
  document.querySelector(".jp-Notebook-ExecutionIndicator").dataset.status !== "idle"
"""


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The installed Chromium, headless."""
    browser = playwright.chromium.launch(executable_path=servers.browser(), args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()


class Watch:
    """Watches the pixels of a picture: whether they changed, and when they became stable.

    Args:
        picture: a canvas or an image.
        quiet: seconds without a change after which the pixels count as stable.
    """

    def __init__(self, picture: ElementHandle, quiet: float = 0.5) -> None:
        self.picture, self.quiet = picture, quiet
        page = picture.owner_frame().page
        self._page = page
        page.evaluate(WATCH)
        self._watch = picture.evaluate_handle("element => window.embvarWatch(element)")

    @property
    def hash(self) -> int:
        """A hash of the current pixels."""
        return self._watch.evaluate("watch => watch.hash")

    def rest(self, seconds: float = 30.0, *, changes: int = 0) -> dict[str, Any]:
        """Wait until the pixels are stable, not blank, and changed more than ``changes`` times.

        Returns:
            ``hash``, ``changes`` so far, and ``pressed`` and ``changed``: the times in milliseconds
            at which a key was last pressed and the pixels last changed.
        """
        self._page.wait_for_function(
            "([watch, changes, quiet]) => watch.changes > changes && !watch.blank &&"
            " performance.now() - Math.max(watch.changed, watch.pressed) > quiet",
            arg=[self._watch, changes, 1000 * self.quiet],
            timeout=1000 * seconds,
        )
        return self._watch.evaluate("watch => ({ ...watch })")

    def press(self, key: str, seconds: float = 30.0) -> dict[str, Any]:
        """Press a key and wait until the pixels have changed and are stable."""
        changes = self._watch.evaluate("watch => watch.changes")
        self._page.keyboard.press(key)
        return self.rest(seconds, changes=changes)

    def stop(self) -> None:
        """Stop watching."""
        self._watch.evaluate("watch => { watch.stopped = true; }")


@dataclass
class Traffic:
    """Bytes transferred over websockets, by direction."""

    sent: int = 0
    received: int = 0

    def listen(self, page: Page) -> None:
        """Count what a page sends and receives from now on."""
        page.on("websocket", self._count)

    def _count(self, socket: Any) -> None:
        socket.on("framesent", lambda payload: self._add("sent", payload))
        socket.on("framereceived", lambda payload: self._add("received", payload))

    def _add(self, direction: str, payload: str | bytes) -> None:
        size = len(payload.encode() if isinstance(payload, str) else payload)
        setattr(self, direction, getattr(self, direction) + size)


class Notebook:
    """A notebook open in JupyterLab.

    Attributes:
        page: the browser's page.
        traffic: bytes over its websockets.
        elsewhere: addresses of other machines that the page requested.
    """

    def __init__(self, browser: Browser, server: servers.Server, name: str) -> None:
        self.server, self.name = server, name
        self.context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.traffic = Traffic()
        self.traffic.listen(self.page)
        self.elsewhere: list[str] = []
        self.page.on("request", lambda request: self._record(request.url))
        # A new workspace has no tabs of earlier notebooks.
        workspace = f"{Path(name).stem}-{time.monotonic_ns()}"
        self.page.goto(f"{server.url(f'lab/workspaces/{workspace}/tree/{name}')}&reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=240_000)
        # Until a kernel is on its way, "Run" opens a dialog that asks for one.
        self.page.locator(".jp-Toolbar-kernelName", has_text="Python").wait_for(timeout=240_000)
        self.idle()
        # The file browser takes a third of a narrow window.
        self.page.keyboard.press("Control+b")

    def _record(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            self.elsewhere.append(url)

    def idle(self, seconds: float = 120.0) -> None:
        """Wait until the kernel is idle."""
        self.page.wait_for_selector(
            '.jp-Notebook-ExecutionIndicator[data-status="idle"]',
            state="attached",
            timeout=1000 * seconds,
        )

    def run_all(self, seconds: float = 1400.0) -> None:
        """Run all cells from the menu and wait until the last has run."""
        self.page.locator(".jp-Cell").first.click()
        self.run("run-all", seconds)

    def run(self, command: str, seconds: float = 1400.0) -> None:
        """Choose a command from the menu "Run", and wait until its cells have run."""
        self.begin(command)
        self.page.wait_for_function(f"() => !({_BUSY})", timeout=1000 * seconds, polling=200)
        self.idle(seconds)

    def begin(self, command: str) -> float:
        """Choose a command from the menu "Run"; return when, in the page's milliseconds."""
        page, chosen = self.page, 0.0
        for _ in range(5):  # JupyterLab drops a command given while a kernel connects
            page.locator(".lm-MenuBar-item", has_text="Run").first.click()
            item = page.locator(f'.lm-Menu-item[data-command="runmenu:{command}"]')
            item.wait_for()
            chosen = page.evaluate("performance.now()")
            item.click()
            try:
                page.wait_for_function(f"() => {_BUSY}", timeout=5000, polling=20)
            except TimeoutError:
                continue
            break
        return chosen

    def errors(self) -> list[str]:
        """Texts of error outputs, of standard error, and of widgets that could not be shown."""
        found = self.page.locator(
            '[data-mime-type="application/vnd.jupyter.stderr"], .jupyter-widgets-error,'
            '[data-mime-type="application/vnd.jupyter.error"], .jp-mod-error'
        )
        return [text for text in found.all_inner_texts() if text.strip()]

    def saved(self) -> list[nbformat.NotebookNode]:
        """Save the notebook and return its code cells, including those that are not rendered."""
        file = self.server.folder / self.name
        before = file.stat().st_mtime_ns
        self.page.locator(".lm-MenuBar-item", has_text="File").first.click()
        self.page.locator('.lm-Menu-item[data-command="docmanager:save"]').click()
        assert poll(lambda: file.stat().st_mtime_ns, lambda now: now != before) != before
        time.sleep(0.5)  # the file may be written in two steps
        cells = nbformat.read(file, as_version=4).cells
        return [cell for cell in cells if cell.cell_type == "code"]

    def explorers(self, number: int) -> list[Locator]:
        """The notebook's explorers, once ``number`` of them are shown."""
        found = self.page.locator(".embvar-explorer")
        found.nth(number - 1).wait_for(state="attached")
        assert found.count() == number
        return [found.nth(i) for i in range(number)]

    def choose_theme(self, theme: str) -> None:
        """Choose "JupyterLab Light" or "JupyterLab Dark", and wait until its colours are there."""
        page = self.page
        page.locator(".lm-MenuBar-item", has_text="Settings").first.click()
        page.locator(".lm-Menu-item", has_text="Theme").first.hover()
        page.locator(".lm-Menu-item", has_text=theme).first.click()
        light = "true" if theme.endswith("Light") else "false"
        page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        page.keyboard.press("Escape")
        page.wait_for_timeout(1500)  # colours fade from one theme to the other

    def close(self) -> None:
        """Close the page and end its kernel."""
        self.page.evaluate(
            """async (token) => {
              const headers = { Authorization: `token ${token}` };
              const all = await (await fetch("/api/sessions", { headers })).json();
              await Promise.all(all.map((one) =>
                fetch(`/api/sessions/${one.id}`, { method: "DELETE", headers })));
            }""",
            self.server.token,
        )
        self.context.close()


def poll(get: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 30.0) -> Any:
    """Call ``get`` until ``wanted`` accepts its answer or time is up; return the last answer."""
    until = time.monotonic() + seconds
    while not wanted(answer := get()) and time.monotonic() < until:
        time.sleep(0.05)
    return answer
