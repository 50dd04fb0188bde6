"""What the explorers are made of: a class, controls, and the ties between state and view.

An explorer keeps its values in ``state``, which knows no widget, and shows them in ``view``.
Callbacks only choose: what takes longer than a few milliseconds is made in the background (see
:mod:`embvar_kit.explorers.rendering`).
"""

from __future__ import annotations

import abc
import base64
from collections.abc import Callable, Iterable
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

COUNTS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))
"""Where the range of frequencies may begin and end."""


def tie(
    state: traitlets.HasTraits,
    name: str,
    control: widgets.Widget,
    say: Callable[[str], None],
    *,
    shown: Callable[[Any], Any] = lambda value: value,
    meant: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Tie a value of a state to a control, both ways; a value refused puts the control back.

    Args:
        say: called with the reason of a refusal, and with ``""`` when a value was taken.
        shown, meant: from the state's value to the control's, and back.
    """

    following = False

    def follow(_: object = None) -> None:
        nonlocal following
        following = True
        try:
            value = shown(getattr(state, name))
            if control.value != value:
                control.value = value
        finally:
            following = False

    def take(change: dict) -> None:
        if following or shown(getattr(state, name)) == change["new"]:
            return
        try:
            setattr(state, name, meant(change["new"]))
        except traitlets.TraitError as error:
            say(str(error))
            follow()
        else:
            say("")

    follow()
    state.observe(follow, name)
    control.observe(take, "value")


class CountsSlider(widgets.SelectionRangeSlider):
    """A range of frequencies ``(least, most)`` on round numbers; ``most=None`` is no limit.

    A value set from code that is no round number joins them.
    """

    def __init__(self, least: int, value: tuple[int, int | None]) -> None:
        super().__init__(
            options=self._options({*(n for n in COUNTS if n >= least), *value}),
            value=value,
            description="occurrences",
            tooltip="keep the tokens that occur so often: least and most",
            style={"description_width": "initial"},
            layout={"width": "340px"},
        )
        self.add_class("embvar-counts")

    def admit(self, value: tuple[int, int | None]) -> tuple[int, int | None]:
        """Make a value one of the options, and return it."""
        there = {n for _, n in self.options}
        if not set(value) <= there:
            self.options = self._options(there | set(value))
            self.value = value
        return value

    @staticmethod
    def _options(counts: Iterable[int | None]) -> list[tuple[str, int | None]]:
        ordered = sorted((n for n in counts if n is not None), key=int)
        return [*((f"{n:,}", n) for n in ordered), ("no limit", None)]


class Explorer(abc.ABC):
    """An explorer: ``state`` holds values and no widget, ``view`` shows them, tied both ways."""

    state: traitlets.HasTraits
    view: widgets.DOMWidget

    @abc.abstractmethod
    def still(self) -> bytes:
        """A PNG of the present state, for readers of a page without a kernel."""

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait for what is drawn in the background; whether it was done in time."""
        return True

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        bundle = self.view._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(self.still()).decode()
        bundle["text/plain"] = f"{type(self).__name__}: its controls need a running notebook"
        return bundle


def framed(*parts: widgets.Widget, kind: str = "formula") -> widgets.VBox:
    """An explorer's view: its parts below one another, in a frame that has its keys to itself."""
    view = widgets.VBox([*parts, OwnKeys()])
    return named(named(view, "embvar-explorer"), f"embvar-{kind}")


def named(control: widgets.DOMWidget, css: str) -> widgets.DOMWidget:
    """Give a control the class by which styles and tests find it, ``embvar-...``."""
    control.add_class(css)
    return control


def picture(css: str, least: int) -> tuple[widgets.Image, widgets.Box]:
    """A picture, and the box to show it in.

    Never larger than it was drawn, which would blur it; smaller in a narrow window, but no
    narrower than ``least`` pixels, so that its text can be read: the box scrolls then.
    """
    layout = {
        "max_width": "calc(100% - 8px)",
        "min_width": f"{least}px",
        "align_self": "flex-start",
    }
    image = widgets.Image(format="png", layout=layout)
    box = widgets.VBox([image], layout={"overflow": "auto", "max_width": "100%"})
    return named(image, css), box


def rows(*controls: widgets.Widget) -> widgets.HBox:
    """Controls in a row that wraps where the window is narrow."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    return widgets.HBox(list(controls), layout=layout)


def layer_slider(least: int, most: int, value: int) -> tuple[widgets.Play, widgets.IntSlider]:
    """A slider over layers, and the buttons that play through them."""
    slider = widgets.IntSlider(
        value=value,
        min=least,
        max=most,
        description="layer",
        tooltip="the layer shown; arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": "300px"},
    )
    play = widgets.Play(
        value=value,
        min=least,
        max=most,
        interval=900,
        show_repeat=False,
        tooltip="play through the layers",
    )
    for trait in ("min", "max", "value"):
        traitlets.link((slider, trait), (play, trait))
    return named(play, "embvar-play"), named(slider, "embvar-layer")


def choice(
    text: str, css: str, options: list, tooltip: str, width: str = "220px"
) -> widgets.Dropdown:
    """A dropdown with its description, its tooltip and its class."""
    control = widgets.Dropdown(
        options=options,
        description=text,
        tooltip=tooltip,
        style={"description_width": "initial"},
        layout={"width": width, "max_width": "100%"},
    )
    return named(control, css)


def box(text: str, css: str, tooltip: str) -> widgets.Checkbox:
    """A checkbox with its description, its tooltip and its class."""
    control = widgets.Checkbox(
        description=text, tooltip=tooltip, indent=False, layout={"width": "auto"}
    )
    return named(control, css)


class TokenList(widgets.Select):
    """A list of tokens to choose from; ``chosen`` is called with the one that a reader chooses."""

    def __init__(self, css: str, tooltip: str, lines: int, chosen: Callable[[str], None]) -> None:
        super().__init__(options=(), rows=lines, tooltip=tooltip, layout={"width": "auto"})
        self.add_class(css)
        self._filling = False
        self._then = chosen
        self.observe(self._take, "value")

    def fill(self, lines: Iterable[tuple[str, str]]) -> None:
        """New rows ``(text, token)``, none of them chosen; nothing follows from that."""
        lines = tuple(lines)
        self._filling = True
        try:
            if self.options != lines:
                self.options = lines
            self.value = None
        finally:
            self._filling = False

    def _take(self, change: dict) -> None:
        if change["new"] is not None and not self._filling:
            self._then(change["new"])


# Hovering


_SCRIPT = """
function render({ model, el }) {
  el.style.display = "none";
  const tip = document.createElement("div");
  tip.className = "embvar-tip";
  tip.style.cssText = "position:fixed; z-index:1000; pointer-events:none; display:none;" +
    "padding:3px 8px; background:#fff; color:#000; border:1px solid #888; font-size:12px;" +
    "white-space:pre";
  document.body.append(tip);
  const move = (event) => {
    const explorer = el.closest(".embvar-explorer");
    const image = event.target;
    if (!explorer || !explorer.contains(image) || !image.matches("img.embvar-picture")) {
      tip.style.display = "none";
      return;
    }
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const area = model.get("areas").find(([x0, y0, x1, y1]) =>
      x >= x0 && x < x1 && y >= y0 && y < y1);
    tip.style.display = area ? "block" : "none";
    if (!area) return;
    tip.textContent = area[4];
    const right = event.clientX + 14 + tip.offsetWidth < window.innerWidth;
    tip.style.left = `${right ? event.clientX + 14 : event.clientX - 14 - tip.offsetWidth}px`;
    tip.style.top = `${event.clientY + 14}px`;
  };
  document.addEventListener("mousemove", move);
  return () => { document.removeEventListener("mousemove", move); tip.remove(); };
}
export default { render };
"""


class Hover(anywidget.AnyWidget):
    """Shows the text of the area of the picture that the mouse is over; it has no look itself."""

    _esm = _SCRIPT
    areas = traitlets.List(
        help="left, upper, right, lower edge as shares of the picture's size, and the text"
    ).tag(sync=True)


# Keyboard


_SCRIPT = """
function render({ el }) {
  el.style.display = "none";
  const keys = (event) => {
    const explorer = el.closest(".embvar-explorer");
    if (!explorer || !explorer.contains(event.target)) return;
    // Lumino, which handles shortcuts, leaves an element with this mark alone; it looks at the
    // focused one first. With Control or Command, Ctrl+S for one, shortcuts stay as they are.
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", keys, true);  // before Lumino, which listens at the document
  return () => window.removeEventListener("keydown", keys, true);
}
export default { render };
"""


class OwnKeys(anywidget.AnyWidget):
    """Put into an explorer, it keeps the explorer's keys for its controls. It shows nothing."""

    _esm = _SCRIPT
