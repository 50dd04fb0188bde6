"""A notebook in a browser: run it, find its explorers, press their keys, watch their pixels."""

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

from . import serving

FLAGS = (
    "--no-sandbox",  # in a container it cannot be had
    "--disable-gpu",  # WebGL by software: the same pixels everywhere
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WINDOW = {"width": 1280, "height": 900}
PICTURE = "canvas, img.widget-image"

# The picture's pixels as a number, and the time of the last animation frame that changed them.
# Read in animation frames: what is drawn in a frame is then drawn.
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

# A cell that runs or is to run has a star for its number.
_AT_WORK = """
  [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].some(
    (prompt) => prompt.textContent.includes("*")) ||
  document.querySelector(".jp-Notebook-ExecutionIndicator").dataset.status !== "idle"
"""


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The browser that is installed here."""
    browser = playwright.chromium.launch(executable_path=serving.browser(), args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()


class Watch:
    """The pixels of a picture: whether they changed, and when they came to rest.

    Args:
        picture: a canvas or an image.
        quiet: seconds without a change that count as rest.
    """

    def __init__(self, picture: ElementHandle, quiet: float = 0.5) -> None:
        self.picture, self.quiet = picture, quiet
        page = picture.owner_frame().page
        self._page = page
        page.evaluate(WATCH)
        self._watch = picture.evaluate_handle("element => window.embvarWatch(element)")

    @property
    def hash(self) -> int:
        """A number for the pixels as they are now."""
        return self._watch.evaluate("watch => watch.hash")

    def rest(self, seconds: float = 30.0, *, changes: int = 0) -> dict[str, Any]:
        """Wait until the pixels have changed so often and then came to rest, and are not blank.

        Returns:
            ``hash``, ``changes`` so far, and ``pressed`` and ``changed``, the milliseconds at which
            a key was last pressed and the pixels last changed.
        """
        self._page.wait_for_function(
            "([watch, changes, quiet]) => watch.changes > changes && !watch.blank &&"
            " performance.now() - Math.max(watch.changed, watch.pressed) > quiet",
            arg=[self._watch, changes, 1000 * self.quiet],
            timeout=1000 * seconds,
        )
        return self._watch.evaluate("watch => ({ ...watch })")

    def press(self, key: str, seconds: float = 30.0) -> dict[str, Any]:
        """Press a key and wait until the pixels have changed and come to rest."""
        changes = self._watch.evaluate("watch => watch.changes")
        self._page.keyboard.press(key)
        return self.rest(seconds, changes=changes)

    def stop(self) -> None:
        """Look no more."""
        self._watch.evaluate("watch => { watch.stopped = true; }")


@dataclass
class Traffic:
    """Bytes that went over websockets, by direction."""

    sent: int = 0
    received: int = 0

    def listen(self, page: Page) -> None:
        """Count what a page sends and receives from now on."""
        page.on("websocket", self._count)

    def _count(self, socket: Any) -> None:
        socket.on("framesent", lambda payload: self._add("sent", payload))
        socket.on("framereceived", lambda payload: self._add("received", payload))

    def _add(self, way: str, payload: str | bytes) -> None:
        size = len(payload.encode() if isinstance(payload, str) else payload)
        setattr(self, way, getattr(self, way) + size)


class Notebook:
    """A notebook open in JupyterLab.

    Attributes:
        page: the browser's page. traffic: what went over its websockets.
        elsewhere: addresses that the page asked for outside this machine.
    """

    def __init__(self, browser: Browser, server: serving.Server, name: str) -> None:
        self.server, self.name = server, name
        self.context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.traffic = Traffic()
        self.traffic.listen(self.page)
        self.elsewhere: list[str] = []
        self.page.on("request", lambda request: self._note(request.url))
        workspace = f"{Path(name).stem}-{time.monotonic_ns()}"  # no tab of an earlier one
        self.page.goto(f"{server.url(f'lab/workspaces/{workspace}/tree/{name}')}&reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=240_000)
        self.idle()
        # The file browser takes a third of a narrow window.
        self.page.keyboard.press("Control+b")

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            self.elsewhere.append(url)

    def idle(self, seconds: float = 120.0) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_selector(
            '.jp-Notebook-ExecutionIndicator[data-status="idle"]',
            state="attached",
            timeout=1000 * seconds,
        )

    def run_all(self, seconds: float = 400.0) -> None:
        """Run all cells by the menu and wait until the last has run."""
        self.page.locator(".jp-Cell").first.click()
        self.run("run-all", seconds)

    def run(self, command: str, seconds: float = 400.0) -> None:
        """Choose a command from the menu "Run", and wait until its cells have run."""
        self.begin(command)
        self.page.wait_for_function(f"() => !({_AT_WORK})", timeout=1000 * seconds, polling=200)
        self.idle(seconds)

    def begin(self, command: str) -> float:
        """Choose a command from the menu "Run"; the milliseconds at which it was chosen."""
        page, chosen = self.page, 0.0
        for _ in range(5):  # JupyterLab drops a command that comes while a kernel connects
            page.locator(".lm-MenuBar-item", has_text="Run").first.click()
            item = page.locator(f'.lm-Menu-item[data-command="runmenu:{command}"]')
            item.wait_for()
            chosen = page.evaluate("performance.now()")
            item.click()
            try:
                page.wait_for_function(f"() => {_AT_WORK}", timeout=5000, polling=20)
            except TimeoutError:
                continue
            break
        return chosen

    def errors(self) -> list[str]:
        """What cells wrote as errors, and widgets that could not be shown."""
        found = self.page.locator(
            '[data-mime-type="application/vnd.jupyter.stderr"], .jupyter-widgets-error,'
            '[data-mime-type="application/vnd.jupyter.error"], .jp-mod-error'
        )
        return [text for text in found.all_inner_texts() if text.strip()]

    def saved(self) -> list[nbformat.NotebookNode]:
        """The code cells as JupyterLab saves them: all of them, also those out of sight."""
        file = self.server.folder / self.name
        before = file.stat().st_mtime_ns
        self.page.locator(".lm-MenuBar-item", has_text="File").first.click()
        self.page.locator('.lm-Menu-item[data-command="docmanager:save"]').click()
        assert poll(lambda: file.stat().st_mtime_ns, lambda now: now != before) != before
        time.sleep(0.5)  # the file may be written in two goes
        cells = nbformat.read(file, as_version=4).cells
        return [cell for cell in cells if cell.cell_type == "code"]

    def explorers(self, number: int) -> list[Locator]:
        """The explorers that are shown: so many, once they are there."""
        found = self.page.locator(".embvar-explorer")
        found.nth(number - 1).wait_for(state="attached")
        assert found.count() == number
        return [found.nth(i) for i in range(number)]

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
    """Ask until the answer is the wanted one; the last answer, wanted or not."""
    until = time.monotonic() + seconds
    while not wanted(answer := get()) and time.monotonic() < until:
        time.sleep(0.05)
    return answer
