"""Controls of the explorers: sliders, lists and boxes of ipywidgets, with names and sizes."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import ipywidgets as widgets
import traitlets

from embvar_kit.explorers.rendering import DPI, blank
from embvar_kit.figures.lettering import shortened

COUNTS = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))
"""Round numbers at which a range of frequencies may begin and end."""

DOMWidget = TypeVar("DOMWidget", bound=widgets.DOMWidget)


def wrapping_row(*controls: widgets.Widget) -> widgets.HBox:
    """Controls in a row that wraps in a narrow window."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    return widgets.HBox(list(controls), layout=layout)


class Picture(widgets.Image):
    """A PNG that is a blank of its final size until it is there.

    Args:
        css: its CSS class.
        size: width and height in inches.
        layout: as for other widgets.
    """

    def __init__(self, css: str, size: tuple[float, float], layout: dict[str, str]) -> None:
        self._blank = blank(round(size[0] * DPI), round(size[1] * DPI))
        super().__init__(format="png", value=self._blank, layout=layout)
        self.add_class(css).add_class("embvar-waiting")

    def wait(self) -> None:
        """Show the blank, until :meth:`show` is called."""
        self.add_class("embvar-waiting")
        self.value = self._blank

    def show(self, png: bytes) -> None:
        """Show a PNG."""
        self.value = png
        self.remove_class("embvar-waiting")


def scrolling_image(
    css: str, min_width: int, size: tuple[float, float]
) -> tuple[Picture, widgets.Box]:
    """An image, and the box to show it in.

    The image is never enlarged, which would blur it. In a narrow window it shrinks to at least
    ``min_width`` pixels, so that its text stays legible; below that, the box scrolls.
    """
    layout = {
        "max_width": "calc(100% - 8px)",
        "min_width": f"{min_width}px",
        "align_self": "flex-start",
    }
    image = Picture(css, size, layout)
    return image, widgets.VBox([image], layout={"overflow": "auto", "max_width": "100%"})


def with_class(control: DOMWidget, css: str) -> DOMWidget:
    """Add the CSS class, ``embvar-...``, by which styles and tests find a control."""
    control.add_class(css)
    return control


def paragraph(css: str, like: widgets.HTML | None = None, value: str = "") -> widgets.HTML:
    """A text with a CSS class; ``like`` another, it shares that one's layout and style.

    Each of the two would be a widget of its own, and a kilobyte when the explorer opens.
    """
    shared = {} if like is None else {"layout": like.layout, "style": like.style}
    return with_class(widgets.HTML(value, **shared), css)


def heading(words: str, like: widgets.HTML) -> widgets.HTML:
    """A heading of a part of an explorer; it looks like another text."""
    return paragraph("embvar-heading", like, f"<b>{words}</b>")


# Controls


def layer_slider(first: int, last: int, value: int) -> tuple[widgets.Play, widgets.IntSlider]:
    """A slider over layers, and the buttons that play through them."""
    slider = widgets.IntSlider(
        value=value,
        min=first,
        max=last,
        description="layer",
        tooltip="the layer shown; arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": "300px"},
    )
    play = _play(first, last, value)
    for trait in ("min", "max", "value"):
        traitlets.link((slider, trait), (play, trait))
    return play, with_class(slider, "embvar-layer")


def depth_slider(depths: Sequence[str], value: int) -> tuple[widgets.Play, widgets.SelectionSlider]:
    """A slider over layers named by their positions on an axis; its values are their indices."""
    slider = widgets.SelectionSlider(
        options=[(text, at) for at, text in enumerate(depths)],
        value=value,
        description="layer",
        tooltip="the layer shown; arrow keys move it",
        style={"description_width": "initial"},
        layout={"width": "300px"},
    )
    play = _play(0, len(depths) - 1, value)
    traitlets.link((slider, "index"), (play, "value"))
    return play, with_class(slider, "embvar-layer")


def _play(first: int, last: int, value: int) -> widgets.Play:
    play = widgets.Play(
        value=value,
        min=first,
        max=last,
        interval=900,
        show_repeat=False,
        tooltip="play through the layers",
    )
    return with_class(play, "embvar-play")


def dropdown(
    description: str,
    css: str,
    options: list,
    tooltip: str,
    width: str = "220px",
    like: widgets.Dropdown | None = None,
) -> widgets.Dropdown:
    """A dropdown with its description, tooltip and CSS class.

    ``like`` another one, it shares that one's width and style, as :func:`paragraph` does.
    """
    look: dict = {"style": {"description_width": "initial"}}
    look["layout"] = {"width": width, "max_width": "100%"}
    if like is not None:
        look = {"style": like.style, "layout": like.layout}
    control = widgets.Dropdown(options=options, description=description, tooltip=tooltip, **look)
    return with_class(control, css)


def scales_dropdown(tooltip: str) -> widgets.Dropdown:
    """How the axes of a trade-off are scaled."""
    options = [("same for all layers", "same"), ("each layer's own", "own"), ("logarithmic", "log")]
    return dropdown("axes", "embvar-scales", options, tooltip, "215px")


def search_text(where: str, width: str) -> widgets.Text:
    """What is typed to mark tokens; ``where`` says where they are marked."""
    control = widgets.Text(
        placeholder="a token, stat*, *ing, or several",
        description="search",
        continuous_update=True,
        tooltip=f"marks this token {where}; if there is none, all that begin with it; stat* marks "
        "all that begin so, *ing all that end so; blanks separate several",
        style={"description_width": "initial"},
        layout={"width": width},
    )
    return with_class(control, "embvar-search")


def checkbox(description: str, css: str, tooltip: str) -> widgets.Checkbox:
    """A checkbox with its description, tooltip and CSS class."""
    control = widgets.Checkbox(
        description=description, tooltip=tooltip, indent=False, layout={"width": "auto"}
    )
    return with_class(control, css)


class CountsSlider(widgets.SelectionRangeSlider):
    """A range of frequencies ``(least, most)`` in round numbers; ``most=None`` means no limit.

    Args:
        least: smallest number offered, the least that the statistics know of.
        value: range at the start; numbers that are not round are added to the options.
    """

    def __init__(self, least: int, value: tuple[int, int | None]) -> None:
        self._least, self._added = least, set(value)
        super().__init__(
            options=self._options(value),
            value=value,
            description="occurrences",
            tooltip="show only tokens whose number of occurrences lies in this range",
            style={"description_width": "initial"},
            layout={"width": "340px"},
        )
        self.add_class("embvar-counts")

    def admit(
        self, value: tuple[int, int | None], least: int | None = None
    ) -> tuple[int, int | None]:
        """Add a range's ends to the options if they are missing; return the range.

        Args:
            value: the range.
            least: smallest number offered from now on, if it is another one than before.
        """
        self._least = self._least if least is None else least
        self._added |= set(value)
        if self.options != (options := self._options(value)):
            # A slider with new options goes to the first of them, and a key that is pressed in
            # the browser meanwhile would leave it there. So the browser is told both at once.
            with self.hold_sync():
                self.options = options
                self.value = value
        return value

    def _options(self, value: tuple[int, int | None]) -> tuple[tuple[str, int | None], ...]:
        offered = {n for n in (*COUNTS, *self._added) if n is not None and n >= self._least}
        # While a state adapts to another model, its range may still be that of the one before.
        offered |= {self._least, *value} - {None}
        return (*((f"{n:,}", n) for n in sorted(offered)), ("no limit", None))


class TokenList(widgets.Select):
    """A list of tokens to choose from, in columns.

    Args:
        css: its CSS class.
        tooltip: its tooltip.
        columns: the columns' heads; the first is of the tokens' names.
        lines: how many lines are visible.
        on_choice: called with the token that the reader chooses.
        like: a text whose look the heads have.

    Attributes:
        head: the line of heads, to be shown above the list.
    """

    def __init__(
        self,
        css: str,
        tooltip: str,
        columns: Sequence[str],
        lines: int,
        on_choice: Callable[[str], None],
        like: widgets.HTML | None = None,
    ) -> None:
        super().__init__(options=(), rows=lines, tooltip=tooltip, layout={"width": "auto"})
        with_class(with_class(self, css), "embvar-list")
        self.head = paragraph("embvar-list-head", like)
        self._columns = tuple(columns)
        self._filling = False
        self._on_choice = on_choice
        self.observe(self._choose, "value")

    def fill(self, rows: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Replace the rows ``(token, cells)``; none is chosen and ``on_choice`` is not called."""
        rows = [(token, (shortened(name), *others)) for token, (name, *others) in rows]
        texts = [self._columns, *(cells for _, cells in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        # The browser draws options in one font of equal widths; a second blank would be dropped.
        head, *lines = (
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).replace(" ", "\N{NO-BREAK SPACE}")
            for cells in texts
        )
        self.head.value = f"<b>{html.escape(head)}</b>" if rows else ""
        options = tuple(zip(lines, (token for token, _ in rows), strict=True))
        self._filling = True
        try:
            if self.options != options:
                self.options = options
            self.value = None
        finally:
            self._filling = False

    def _choose(self, change: dict) -> None:
        if change["new"] is not None and not self._filling:
            self._on_choice(change["new"])
