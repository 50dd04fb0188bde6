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
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ElementHandle,
    Locator,
    Page,
    Playwright,
    TimeoutError,
)

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
PATIENCE = 120.0
"""Seconds within which must come what a test waits for: a deadline for the slowest machine, and no
bar of performance."""

# Keeps a hash of the picture's pixels and the time of the last animation frame that changed them.
# Pixels are read in animation frames, when whatever a frame draws has been drawn. Where frames are
# slow, half a second holds only one or two: the frames without a change are counted, too.
WATCH = """
window.embvarWatch = (element) => {
  const sheet = document.createElement("canvas");
  const ink = sheet.getContext("2d", { willReadFrequently: true });
  const watch = {
    hash: 0, blank: true, changes: 0, changed: performance.now(), pressed: 0, asked: 0, frames: 0 };
  const look = () => {
    if (watch.stopped) return;
    watch.frames += 1;
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
        watch.hash = hash; watch.changes += 1; watch.changed = performance.now(); watch.frames = 0;
        watch.blank = pixels.every((pixel) => pixel === pixels[0]);
      }
    }
    requestAnimationFrame(look);
  };
  document.addEventListener("keydown", () => {
    watch.pressed = performance.now(); watch.frames = 0;
  }, true);
  requestAnimationFrame(look);
  return watch;
};
"""

# Changes as long as the colours of a page fade from one theme to another.
COLOURS = """
() => {
  const parts = ["body", ".jp-Notebook", ".embvar-explorer", ".embvar-explorer button",
    ".embvar-explorer select", ".embvar-explorer .widget-label"];
  const fades = document.getAnimations().some((one) =>
    one instanceof CSSTransition && one.playState === "running");
  const colours = parts.map((part) => {
    const one = document.querySelector(part);
    return one && [getComputedStyle(one).color, getComputedStyle(one).backgroundColor];
  });
  return [fades && performance.now(), colours];
}
"""

# The prompt of a cell that is running or queued shows a star.
_BUSY = """
  [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].some(
    (prompt) => prompt.textContent.includes("*")) ||
  document.querySelector(".jp-Notebook-ExecutionIndicator").dataset.status !== "idle"
"""


def still(look: str) -> str:
    """A function in JavaScript that returns what another one finds, once that stays the same.

    Half a second holds many frames, or two where they are slow: both are waited for.
    """
    return f"""async (given) => {{
      const look = {look.strip()};
      let last = "", since = performance.now(), frames = 0;
      while (frames < 10 || performance.now() - since < 500) {{
        await new Promise(requestAnimationFrame);
        const now = JSON.stringify(look(given));
        if (now !== last) [last, since, frames] = [now, performance.now(), 0];
        frames += 1;
      }}
      return look(given);
    }}"""


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The installed Chromium, headless."""
    browser = playwright.chromium.launch(executable_path=servers.browser(), args=list(FLAGS))
    try:
        yield browser
    finally:
        browser.close()


def slow_down(browser: Browser, factor: float) -> None:
    """Let the pages that a browser opens from now on compute so many times slower."""
    if factor <= 1:
        return
    new_context = browser.new_context

    def throttle(page: Page) -> None:
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": factor})

    def slow_context(**options: Any) -> BrowserContext:
        context = new_context(**options)
        context.on("page", throttle)
        return context

    browser.new_context = slow_context


class Watch:
    """Watches the pixels of a picture: whether they changed, and when they became stable.

    Args:
        picture: a canvas or an image.
        quiet: seconds without a change, and ten frames, after which the pixels count as stable.
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

    def rest(
        self, seconds: float = PATIENCE, *, changes: int | None = None, blank: bool = False
    ) -> dict[str, Any]:
        """Wait until the pixels are stable from now on, or since more than so many ``changes``.

        Unless ``blank`` is set, they must have more than one colour.

        Returns:
            ``hash``, ``changes`` so far, and ``pressed`` and ``changed``: the times in milliseconds
            at which a key was last pressed and the pixels last changed.
        """
        if changes is None:
            self._watch.evaluate("watch => { watch.asked = performance.now(); watch.frames = 0; }")
        self._page.wait_for_function(
            """([watch, changes, quiet, blank]) =>
              watch.changes > changes && (blank || !watch.blank) && watch.frames > 10 &&
              performance.now() - Math.max(watch.changed, watch.pressed, watch.asked) > quiet""",
            arg=[self._watch, changes or 0, 1000 * self.quiet, blank],
            timeout=1000 * seconds,
        )
        return self._watch.evaluate("watch => ({ ...watch })")

    def press(self, key: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Press a key and wait until the pixels have changed and are stable."""
        changes = self._watch.evaluate("watch => watch.changes")
        self._page.keyboard.press(key)
        return self.rest(seconds, changes=changes)

    def come_to(self, wanted: int, seconds: float = PATIENCE, *, blank: bool = False) -> int:
        """Wait until the pixels rest as they once were; return the hash that they rest with.

        Where the kernel answers in several messages, the pixels may rest between two of them.
        """
        return poll(
            lambda: self.rest(seconds, blank=blank)["hash"], lambda now: now == wanted, seconds
        )

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
        self.page.set_default_timeout(1000 * PATIENCE)
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

    def idle(self, seconds: float = 240.0) -> None:
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
        prompts = "[...document.querySelectorAll('.jp-InputPrompt')].map((o) => o.textContent)"
        before = page.evaluate(f"() => {prompts}")
        # Or it has run already.
        ran = f"{prompts}.some((text, at) => /\\d/.test(text) && text !== before[at])"
        begun = f"(before) => {_BUSY} || {ran}"
        for _ in range(5):  # JupyterLab drops a command given while a kernel connects
            page.locator(".lm-MenuBar-item", has_text="Run").first.click()
            item = page.locator(f'.lm-Menu-item[data-command="runmenu:{command}"]')
            item.wait_for()
            chosen = page.evaluate("performance.now()")
            item.click()
            try:
                page.wait_for_function(begun, arg=before, timeout=20_000, polling=20)
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
        cells = poll(lambda: _cells_in(file), bool)  # while it is being written, it has none
        return [cell for cell in cells if cell.cell_type == "code"]

    def explorers(self, number: int) -> list[Locator]:
        """The notebook's explorers, once ``number`` of them are shown."""
        found = self.page.locator(".embvar-explorer")
        assert poll(found.count, lambda count: count == number) == number
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
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.evaluate(still(COLOURS))

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


def _cells_in(file: Path) -> list[nbformat.NotebookNode]:
    """The cells of a saved notebook; none if it is not yet written to its end."""
    try:
        return nbformat.read(file, as_version=4).cells
    except (ValueError, nbformat.reader.NotJSONError):
        return []


def poll(get: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = PATIENCE) -> Any:
    """Call ``get`` until ``wanted`` accepts its answer or time is up; return the last answer."""
    until = time.monotonic() + seconds
    while not wanted(answer := get()) and time.monotonic() < until:
        time.sleep(0.05)
    return answer
