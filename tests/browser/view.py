"""What a reader sees of an explorer: its controls, its numbers, the places of its points."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

import embvar_kit as ek

from .notebook_page import PATIENCE, PICTURE, Watch, poll, still

NUMBER = r"[-−]?[\d,]*\.?\d+(?:e[-+]?\d+)?"
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
REACHABLE = 'input, select, textarea, button, [tabindex]:not([tabindex="-1"])'


@cache
def statistics(model: str, site: str = "hidden") -> ek.TokenStatistics:
    """Statistics of a bundled model, the same as in the notebooks."""
    return ek.cached_statistics(model, site=site, progress=False)


def as_number(text: str) -> float:
    """Parse a number shown with commas, a typographic minus sign, or a power of ten as 2·10⁶."""
    text = text.replace(",", "").replace("−", "-")
    found = re.fullmatch(r"(?:(.+)·)?10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", text)
    if found is None:
        return float(text)
    return float(found[1] or 1) * 10.0 ** int(found[2].translate(_RAISED))


_MIDDLE = """
(element) => {
  element.scrollIntoView({ block: "center" });
  if (!element.getClientRects().length) {
    element.style.display = "none";
    element.offsetHeight;
    element.style.display = "";
  }
  const { x, y, width, height } = element.getBoundingClientRect();
  return [x, y, width, height];
}
"""


def in_the_middle(element: Locator, seconds: float = PATIENCE) -> dict[str, float]:
    """Scroll an element to the middle of the window; return its rectangle once it stays there.

    JupyterLab gives cells their real heights only when they come into view, and that moves those
    below: a rectangle read at once may be one that the element is about to leave. And Chromium
    sometimes gives none to an image that was replaced out of sight, until it is laid out anew.
    An element that is replaced or hidden for a moment is looked for again.
    """
    until = time.monotonic() + seconds
    while True:
        element.evaluate(still(_MIDDLE))
        box = element.bounding_box()
        if box and box["height"] > 0:
            return box
        assert time.monotonic() < until, "the element has no place in the layout"


_PLACES = """
(explorer) => [innerWidth, innerHeight, ...[explorer, ...explorer.querySelectorAll(
  "canvas, img, text, button, select, input, .embvar-axes-legend, .widget-readout, table"
)].map((one) => {
  const { x, y, width, height } = one.getBoundingClientRect();
  return [x, y, width, height].map(Math.round);
})]
"""


def laid_out(explorer: Locator) -> None:
    """Wait until all parts of an explorer stay where they are, as after a change of the window."""
    explorer.evaluate(still(_PLACES))


def resize(page: Page, explorer: Locator, width: int, height: int) -> None:
    """Give the window another size, and wait until an explorer is laid out for it."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_function("width => innerWidth === width", arg=width)
    laid_out(explorer)


def clear(explorer: Locator) -> None:
    """Empty the search and remove all marks; wait until they and the card are gone.

    A new search must not find those of the one before.
    """
    explorer.locator(".embvar-clear").click()
    expect(explorer.locator(".embvar-search input")).to_have_value("")
    expect(explorer.locator(".embvar-marked").first).to_have_text("")
    expect(explorer.locator(".embvar-name")).to_have_count(0)
    explorer.locator(".embvar-card-contexts").wait_for(state="hidden")


def text_of(explorer: Locator, css: str) -> str:
    """The text of a part of an explorer, with all whitespace reduced to single spaces."""
    return " ".join(explorer.locator(f".embvar-{css}").inner_text().split())


def watch(explorer: Locator) -> Watch:
    """Watch the pixels of an explorer's widest canvas or image."""
    pictures = explorer.locator(PICTURE)
    # The buttons of a plot have canvases, too, and are there before the plot: that has to be there.
    explorer.page.wait_for_function(
        "one => [...one.querySelectorAll('canvas, img')].some((it) => it.clientWidth > 300)",
        arg=explorer.element_handle(),
    )
    # At first a picture has the size of a saved page: it is drawn anew once its room is known.
    poll(
        lambda: explorer.evaluate(
            """explorer => {
              const image = explorer.querySelector("img.embvar-picture");
              return !image || explorer.matches(".embvar-lecture") ||
                image.naturalWidth > explorer.clientWidth - 60;
            }"""
        ),
        bool,
    )
    shown = [pictures.nth(i) for i in range(pictures.count())]
    sizes = [(one.bounding_box() or {"width": 0})["width"] for one in shown]
    return Watch(shown[int(np.argmax(sizes))].element_handle())


def checked(explorer: Locator, css: str) -> bool:
    """Whether a checkbox is checked."""
    return explorer.locator(f".embvar-{css} input").is_checked()


def chosen(explorer: Locator, css: str) -> str:
    """The selected option of a dropdown."""
    return explorer.locator(f".embvar-{css} select").evaluate(
        "select => select.selectedOptions[0].textContent"
    )


def counts(explorer: Locator) -> dict[str, int | None]:
    """The range of frequencies set by the slider or dropdown, as arguments of the analysis."""
    slides = explorer.locator(".embvar-counts .noUi-handle").count()
    if slides:
        text = explorer.locator(".embvar-counts .widget-readout").inner_text()
    else:
        text = chosen(explorer, "counts")
    least, most = re.split(r"\s*(?:[–-]|to|or)\s*", text.strip())
    unlimited = most in ("no limit", "more")
    return {
        "min_count": int(as_number(least)),
        "max_count": None if unlimited else int(as_number(most)),
    }


def slider(explorer: Locator, css: str = "layer") -> Locator:
    """The handle of a slider."""
    return explorer.locator(f".embvar-{css} .noUi-handle").first


def readout(explorer: Locator, css: str = "layer") -> float:
    """The number beside a slider."""
    return as_number(explorer.locator(f".embvar-{css} .widget-readout").inner_text())


# The trade-off explorer


@dataclass(frozen=True)
class Fit:
    """The line of numbers above the plot, rounded as shown."""

    model: str
    site: str
    layer: int
    n_tokens: int
    slope: float
    r2: float
    cv_Q: float

    @classmethod
    def shown(cls, explorer: Locator) -> Fit:
        """The numbers on the page."""
        text = " ".join(explorer.locator(".embvar-numbers b").inner_text().split())
        found = re.fullmatch(
            rf"(\w+)(?:, (\w+))?, layer (\d+): ({NUMBER}) tokens, slope ({NUMBER}), R² ({NUMBER}), "
            rf"CV of Q ({NUMBER})",
            text,
        )
        assert found, text
        model, site, layer, n_tokens, *values = found.groups()
        return cls(
            model, site or "hidden", int(layer), int(as_number(n_tokens)), *map(as_number, values)
        )

    @classmethod
    def computed(cls, explorer: Locator) -> Fit:
        """The numbers of the analysis for the values of the controls."""
        shown = cls.shown(explorer)
        choice = counts(explorer) | {
            "special": checked(explorer, "special"),
            "unbiased": checked(explorer, "unbiased"),
        }
        fits = statistics(shown.model, shown.site).tradeoff(**choice).set_index("layer")
        fit = fits.loc[int(readout(explorer))]
        values = (round(float(fit[name]), 3) for name in ("slope", "r2", "cv_Q"))
        layer, n_tokens = int(readout(explorer)), int(fit["n_tokens"])
        return cls(shown.model, shown.site, layer, n_tokens, *values)


def table(explorer: Locator, layer: int | None = None) -> pd.DataFrame:
    """The tokens that the controls select, indexed by token, at the layer shown or another."""
    layer = int(readout(explorer)) if layer is None else layer
    choice = counts(explorer) | {"special": checked(explorer, "special")}
    shown = Fit.shown(explorer)
    return statistics(shown.model, shown.site).table(layer, **choice).set_index("token")


# All rectangles of a plot's canvases, of which the widest is the plot's own; and the ticks.
_BOX = """
  [...explorer.querySelectorAll(".embvar-scatter canvas")].map((canvas) => {
    const { x, y, width, height } = canvas.getBoundingClientRect();
    return { x, y, width, height };
  }).reduce((widest, one) => one.width > widest.width ? one : widest,
    { x: 0, y: 0, width: 0, height: 0 })
"""
_TICKS = f"""
explorer => [
  ["x", "y"].map((axis) => [...explorer.querySelectorAll(`.${{axis}}-axis .tick`)].map((tick) => {{
    const line = tick.querySelector("line").getBoundingClientRect();
    return [tick.textContent, line.x + line.width / 2, line.y + line.height / 2];
  }})),
  {_BOX},
]
"""


class Axes:
    """Positions of values of M and V on the page, from the ticks of the plot's axes.

    Args:
        explorer: the explorer, or one of its panels.
        log: whether the axes are logarithmic.

    Attributes:
        ticks: value and pixel of each tick of M, then of each tick of V.
        box: the rectangle of the plot at the same instant.
    """

    def __init__(self, explorer: Locator, *, log: bool = False) -> None:
        self._scaled = np.log10 if log else np.asarray
        # The axes are drawn a frame after the plot.
        (self._x, self._y), self.box = poll(
            lambda: explorer.evaluate(_TICKS),
            lambda found: min(map(len, found[0])) > 1 and found[1]["width"] > 0,
            20,
        )
        self._x = [(as_number(text), x) for text, x, _ in self._x]
        self._y = [(as_number(text), y) for text, _, y in self._y]
        self.ticks = self._x, self._y

    def per_pixel(self) -> np.ndarray:
        """How much of M and of V one pixel is."""
        return np.array([abs(np.polyfit(*np.array(ticks).T[::-1], 1)[0]) for ticks in self.ticks])

    def at(self, M: np.ndarray | float, V: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Pixels from the left and upper edges of the window."""
        found = []
        for ticks, values in ((self._x, M), (self._y, V)):
            known, pixels = np.array(ticks).T
            line = np.polyfit(self._scaled(known), pixels, 1)
            found.append(np.polyval(line, self._scaled(values)))
        return found[0], found[1]


def loneliest(explorer: Locator, room: int = 40) -> tuple[str, float, float]:
    """The token whose point is farthest from all others, and its position on the page."""
    return farthest_apart(explorer, table(explorer), room)


def farthest_apart(
    explorer: Locator, found: pd.DataFrame, room: int = 40, *, log: bool = False
) -> tuple[str, float, float]:
    """The same of the tokens of a table that a plot shows."""
    axes = Axes(explorer, log=log)
    (x, y), box = axes.at(found["M"].to_numpy(), found["V"].to_numpy()), axes.box
    inside = (x > box["x"] + room) & (x < box["x"] + box["width"] - room)
    inside &= (y > box["y"] + room) & (y < box["y"] + box["height"] - room)
    distance = np.zeros(len(found))
    for at in np.flatnonzero(inside):
        apart = np.hypot(x - x[at], y - y[at])
        apart[at] = np.inf
        distance[at] = apart.min()
    best = int(distance.argmax())
    return str(found.index[best]), float(x[best]), float(y[best])


def hovered_over_where_the_axes_say(
    page: Page, explorer: Locator, found: pd.DataFrame, *, log: bool = False
) -> None:
    """Check that a token of a table is drawn where the numbers at the axes say that it is."""
    hover(page, explorer, lambda: farthest_apart(explorer, found, log=log))
    page.mouse.move(3, 300)
    assert poll(lambda: tooltip(explorer), lambda text: not text) == ""


def hover(
    page: Page,
    explorer: Locator,
    find: Callable[[], tuple[str, float, float]],
    seconds: float = 2 * PATIENCE,
) -> tuple[str, str]:
    """Move the mouse over a token's point; return the token and the tooltip's text.

    The place is found and the mouse moved anew until the tooltip is there: a busy browser moves a
    plot late after its size has changed, and passes over a mouse that came before its points.
    """
    until, wait = time.monotonic() + seconds, 3.0
    while True:
        token, x, y = find()
        page.mouse.move(x + 60, y + 60)
        page.mouse.move(x + 1, y, steps=4)
        told = poll(lambda: tooltip(explorer), lambda text, t=token: t in text.split(), wait)
        if token in told.split():
            return token, told
        assert time.monotonic() < until, f"{token} is drawn elsewhere"
        wait = min(2 * wait, 24)


def plot_box(explorer: Locator) -> dict[str, float]:
    """The rectangle of the plot; it has no size while the plot is not laid out."""
    return explorer.evaluate(f"explorer => ({_BOX})")


def dot_size(explorer: Locator) -> float:
    """The diameter of a dot of the plot in pixels."""
    return explorer.locator(".embvar-scatter canvas").first.evaluate(
        """canvas => canvas.parentElement.parentElement.api.get("pointSize")"""
    )


def cut_buttons(explorer: Locator) -> list[str]:
    """The texts of buttons that are too narrow for them."""
    return explorer.locator("button").evaluate_all(
        """(all) => all.filter((one) => one.scrollWidth > one.clientWidth)
          .map((one) => one.textContent)"""
    )


def tooltip(explorer: Locator) -> str:
    """The text of the plot's tooltip; empty if it is hidden."""
    return explorer.locator(".embvar-scatter").evaluate(
        """plot => {
          const title = plot.querySelector(".token-title");
          let tip = title;
          while (tip && tip.style.pointerEvents !== "none") tip = tip.parentElement;
          return tip && getComputedStyle(tip).opacity > 0 ? tip.innerText : "";
        }"""
    )


# The layer explorer


def shown_parts(explorer: Locator) -> pd.DataFrame:
    """The table of numbers below the bars, one row per model."""
    lines = explorer.locator(".embvar-numbers tr").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    head, *body = lines
    found = pd.DataFrame(body, columns=head).set_index("model")
    return found.map(as_number)


def computed_parts(explorer: Locator) -> pd.DataFrame:
    """The same table from the analysis, for the layers shown on the page."""
    shown = shown_parts(explorer)
    whole = {"Q(X)": "Q", "V(X)": "V"}[chosen(explorer, "of")]
    choice = counts(explorer) | {
        "special": checked(explorer, "special"),
        "unbiased": checked(explorer, "unbiased"),
    }
    parts = {"Q": ("M", "V_B", "V_W"), "V": ("V_B", "V_W")}[whole]
    rows = []
    for model in shown.index:
        stats = statistics(model)
        if not checked(explorer, "sinks") and len(high := stats.high_norm()["token"]):
            stats = stats.without(high)
        layers = stats.layers
        layer = int(shown.loc[model, "layer"])
        assert layer in layers
        row = stats.decomposition(**choice).set_index("layer").loc[layer]
        moments = [row[name] for name in ("Q", "M", "V", "V_B", "V_W")]
        rows.append([layer, *moments, *(row[part] / row[whole] for part in parts)])
    return pd.DataFrame(rows, index=shown.index, columns=shown.columns)


# Any explorer


def cut_off(explorer: Locator) -> list[str]:
    """Descriptions of controls that extend beyond their column, and of texts that are cut off."""
    return explorer.evaluate(
        """(explorer) => {
          const column = explorer.closest(".jp-OutputArea-output, .jp-Cell, body");
          const edges = column.getBoundingClientRect();
          const found = [];
          const name = (one) => {
            const owner = one.closest("[class*=embvar-]");
            return [...owner.classList].filter((c) => c.startsWith("embvar-")).join(" ") + ": " +
              (one.textContent.trim() || one.value || one.tagName).slice(0, 40);
          };
          for (const one of explorer.querySelectorAll(
            "button, input, select, img, canvas, .widget-label, .widget-readout, .noUi-base, table"
          )) {
            const box = one.getBoundingClientRect();
            if (!box.width || !box.height) continue;
            // An element that scrolls may be wider than its window.
            let scrolls = false;
            for (let up = one.parentElement; up !== explorer; up = up.parentElement) {
              scrolls ||= ["auto", "scroll"].includes(getComputedStyle(up).overflowX) &&
                up.getBoundingClientRect().right <= edges.right + 1;
            }
            if (!scrolls && (box.right > edges.right + 1 || box.left < edges.left - 1)) {
              found.push(`${name(one)} reaches from ${Math.round(box.left)} to ` +
                `${Math.round(box.right)} in ${Math.round(edges.left)} to ` +
                `${Math.round(edges.right)}`);
            }
            const words = one.matches("button, .widget-label, .widget-readout");
            if (words && one.scrollWidth > one.clientWidth + 1) {
              found.push(`${name(one)} is ${one.scrollWidth} wide in ${one.clientWidth}`);
            }
            if (one.tagName === "SELECT" && one.size <= 1) {
              const ink = document.createElement("canvas").getContext("2d");
              ink.font = getComputedStyle(one).font;
              const option = one.selectedOptions[0];
              const wide = ink.measureText(option ? option.textContent : "").width;
              if (wide > one.clientWidth) found.push(`${name(one)}: its choice is cut`);
            }
          }
          if (column.scrollWidth > column.clientWidth + 1) {
            found.push(`the cell scrolls: ${column.scrollWidth} in ${column.clientWidth}`);
          }
          return found;
        }"""
    )


NAMED = frozenset({"button-name", "aria-input-field-name", "select-name", "image-alt"})
"""Rules of axe-core on names, which must find something to check."""


def violations(page: Page, rules: frozenset[str] = NAMED) -> dict[str, list[str]]:
    """What axe-core finds in the explorers that is serious or critical, by the rule's name.

    Args:
        page: the page.
        rules: those that must have found something to check.
    """
    found = Axe().run(page, context=".embvar-explorer").response
    checked = {one["id"] for one in found["passes"]}
    assert rules <= checked
    return {
        violation["id"]: [node["html"][:200] for node in violation["nodes"]]
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    }


def controls(explorer: Locator) -> set[str]:
    """CSS classes of the parts that can take the focus and that Tab must reach."""
    return set(
        explorer.evaluate(
            f"""(explorer) => [...explorer.querySelectorAll("[class*=embvar-]")].filter((one) =>
              !one.classList.contains("embvar-explorer") && one.checkVisibility() &&
              !one.querySelector("[class*=embvar-]") && one.querySelector({REACHABLE!r})
            ).map((one) => [...one.classList].find((name) => name.startsWith("embvar-")))"""
        )
    )
