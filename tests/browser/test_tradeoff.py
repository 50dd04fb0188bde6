"""The trade-off explorer in a notebook of its own: what a lecture would trip over."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, poll

NAME = "tradeoff.ipynb"
CELLS = (
    "import embvar_kit as ek\n"
    'stats = ek.cached_statistics("minilm", progress=False)\n'
    "explorer = ek.TradeoffExplorer(stats, recall=True)\n"
    "explorer",
    'print(f"layer {explorer.state.layer}")',
)


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    """A notebook with the explorer, and a cell that tells the layer that the kernel knows."""
    return desk.write(NAME, *CELLS, below='<div style="height:2000px">Room to scroll</div>')


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer, scrolled into view."""
    (explorer,) = notebook.explorers(1)
    view.resize(notebook.page, explorer, **WINDOW)
    explorer.scroll_into_view_if_needed()
    return explorer


def told_by_a_cell(notebook: Notebook) -> str:
    """Run the second cell and return what it prints."""
    cell = notebook.page.locator(".jp-CodeCell").nth(1)
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").click()
    notebook.page.keyboard.press("Control+Enter")
    ran = poll(prompt.inner_text, lambda text: text != before and re.search(r"\d", text))
    assert re.search(r"\d", ran) and ran != before, f"the cell stays at {ran}"
    # The output of the run before is gone as soon as this run begins.
    return cell.locator(".jp-OutputArea-output").inner_text().strip()


# Before any reset of the view, which would hide what it looks for.
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1920, 1080)])
def test_tokens_are_drawn_where_the_axes_say_from_the_start(
    notebook: Notebook, width: int, height: int
):
    page = notebook.page
    page.set_viewport_size({"width": width, "height": height})
    notebook.run_all()
    (explorer,) = notebook.explorers(1)
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    picture = view.watch(explorer)
    picture.rest()
    view.hovered_over_where_the_axes_say(page, explorer, view.table(explorer))
    for scales, log in (("logarithmic", True), ("each layer's own", False)):
        before = view.Axes(explorer).ticks
        explorer.locator(".embvar-scales select").select_option(label=scales)
        poll(lambda: view.Axes(explorer).ticks, lambda now, then=before: now != then)
        view.hovered_over_where_the_axes_say(page, explorer, view.table(explorer), log=log)
    view.slider(explorer).focus()
    before = view.Axes(explorer).ticks
    picture.press("ArrowRight")
    poll(lambda: view.Axes(explorer).ticks, lambda now: now != before)
    view.hovered_over_where_the_axes_say(page, explorer, view.table(explorer))
    picture.press("ArrowLeft")
    picture.stop()
    explorer.locator(".embvar-scales select").select_option(label="same for all layers")
    page.set_viewport_size(WINDOW)


def test_slider_and_cells_are_followed_while_the_first_card_loads(
    notebook: Notebook, explorer: Locator
):
    """The card's thread loads torch, the model and the text; messages that come then count."""
    picture = view.watch(explorer)
    picture.rest()
    explorer.locator(".embvar-search input").fill("state")

    def loading() -> bool:
        return explorer.locator(".embvar-card-waiting").is_visible()

    assert poll(loading, bool)
    # At one instant, since the page scrolls and grows meanwhile.
    apart = explorer.evaluate(
        """explorer => {
          const box = (part) => explorer.querySelector(part).getBoundingClientRect();
          const image = box(".embvar-card img").top;
          return ["progress", ".embvar-card-progress", ".embvar-card-cancel"].map(
            (part) => image - box(`.embvar-card-waiting ${part}`).bottom);
        }"""
    )
    assert min(apart) >= 0, "what is waited for is told above its place"
    steps = 0
    while loading():
        view.slider(explorer).focus()
        picture.press("ArrowRight" if steps % 2 == 0 else "ArrowLeft")
        wanted = view.Fit.computed(explorer)
        assert poll(lambda: view.Fit.shown(explorer), lambda fit, w=wanted: fit == w) == wanted
        assert told_by_a_cell(notebook) == f"layer {wanted.layer}"
        steps += 1
    assert steps > 0
    explorer.locator(".embvar-card-contexts tr").first.wait_for(timeout=600_000)
    explorer.locator(".embvar-search input").fill("the")
    head = poll(lambda: view.text_of(explorer, "card-head"), lambda text: text.startswith("the "))
    assert head.startswith("the ")
    picture.stop()


# The wheel and the reset button

MOST_ZOOM = 50


@pytest.fixture
def plot(notebook: Notebook, explorer: Locator) -> Iterator[view.Watch]:
    """The plot's pixels; no token is marked, nothing is zoomed, the mouse is elsewhere."""
    away(notebook)
    view.clear(explorer)
    picture = view.watch(explorer)
    picture.rest()
    view.laid_out(explorer)
    yield picture
    explorer.locator(RESET).click()
    away(notebook)
    picture.rest()
    picture.stop()


RESET = 'button[title="Reset View"]'


def away(notebook: Notebook) -> None:
    """Move the mouse out of the explorer."""
    notebook.page.mouse.move(3, 300)


def height_on_the_page(explorer: Locator) -> float:
    """How far the explorer is from the upper edge of the window; it falls as the page scrolls."""
    return explorer.bounding_box()["y"]


def empty_place(explorer: Locator) -> tuple[float, float]:
    """A place in the plot without a point: the lower left, as V falls with M."""
    box = view.plot_box(explorer)
    return box["x"] + 0.15 * box["width"], box["y"] + 0.85 * box["height"]


def turn(notebook: Notebook, notches: int) -> None:
    """Turn the wheel where the mouse is; a positive number of notches scrolls down."""
    for _ in range(abs(notches)):
        notebook.page.mouse.wheel(0, 120 if notches > 0 else -120)


def scrolls_the_page(notebook: Notebook, explorer: Locator, plot: view.Watch) -> None:
    """Check that a notch of the wheel scrolls the page and leaves the plot alone."""
    view.laid_out(explorer)
    # A corner that is zoomed in may be blank.
    pixels, ticks = plot.rest(blank=True)["hash"], view.Axes(explorer).per_pixel()
    above = height_on_the_page(explorer)
    notebook.page.mouse.move(*empty_place(explorer))
    turn(notebook, 1)
    now = poll(lambda: height_on_the_page(explorer), lambda now: now < above - 20)
    assert now < above - 20
    away(notebook)
    view.laid_out(explorer)
    assert plot.come_to(pixels, blank=True) == pixels
    assert view.Axes(explorer).per_pixel() == pytest.approx(ticks)


def test_over_a_plot_that_was_not_clicked_the_wheel_scrolls_the_page(
    notebook: Notebook, explorer: Locator, plot: view.Watch
):
    scrolls_the_page(notebook, explorer, plot)


def test_after_a_click_the_wheel_zooms_within_bounds_until_the_mouse_leaves(
    notebook: Notebook, explorer: Locator, plot: view.Watch
):
    above, ticks = height_on_the_page(explorer), view.Axes(explorer).ticks
    whole = view.Axes(explorer).per_pixel()

    def zoom() -> np.ndarray:
        return whole / view.Axes(explorer).per_pixel()

    notebook.page.mouse.click(*empty_place(explorer))
    turn(notebook, -2)
    assert min(poll(zoom, lambda now: min(now) > 1.5)) > 1.5
    turn(notebook, -30)  # 13 would do
    poll(zoom, lambda now: min(now) > 0.95 * MOST_ZOOM)
    plot.rest(blank=True)
    assert zoom() == pytest.approx([MOST_ZOOM, MOST_ZOOM], rel=0.05)
    for _ in range(30):
        if (now := view.Axes(explorer).ticks) == ticks:
            break
        turn(notebook, 1)
        poll(lambda: view.Axes(explorer).ticks, lambda new, old=now: new != old)
    assert view.Axes(explorer).ticks == ticks, "zoomed out, it is the whole plot again"
    assert height_on_the_page(explorer) == above
    # Whoever clicked a point and scrolls on to its card is not held back.
    notebook.page.wait_for_timeout(600)  # longer than the pause that ends a gesture of the wheel
    scrolls_the_page(notebook, explorer, plot)
    explorer.scroll_into_view_if_needed()
    view.laid_out(explorer)
    notebook.page.mouse.click(*empty_place(explorer))
    turn(notebook, -2)
    assert min(poll(zoom, lambda now: min(now) > 1.5)) > 1.5
    away(notebook)
    scrolls_the_page(notebook, explorer, plot)


def test_with_ctrl_the_wheel_zooms(notebook: Notebook, explorer: Locator, plot: view.Watch):
    above, whole = height_on_the_page(explorer), view.Axes(explorer).per_pixel()
    notebook.page.mouse.move(*empty_place(explorer))
    notebook.page.keyboard.down("Control")
    turn(notebook, -3)
    notebook.page.keyboard.up("Control")
    wanted = pytest.approx([np.exp(3 * 120 / 400)] * 2, 0.1)
    zoom = poll(lambda: whole / view.Axes(explorer).per_pixel(), lambda now: now == wanted)
    plot.rest()
    assert zoom == wanted == whole / view.Axes(explorer).per_pixel()
    assert height_on_the_page(explorer) == above


def test_one_click_resets_the_view(notebook: Notebook, explorer: Locator, plot: view.Watch):
    page, pixels, ticks = notebook.page, plot.rest()["hash"], view.Axes(explorer).ticks
    for _ in range(4):
        x, y = empty_place(explorer)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 90, y - 60, steps=5)
        page.mouse.up()
        turn(notebook, -3)
        assert poll(lambda: view.Axes(explorer).ticks, lambda now: now != ticks) != ticks
        assert plot.rest()["hash"] != pixels
        explorer.locator(RESET).click()
        away(notebook)
        assert poll(lambda: view.Axes(explorer).ticks, lambda now: now == ticks) == ticks
        assert plot.come_to(pixels) == pixels


def test_a_press_moves_nothing_however_slow_the_frames(
    notebook: Notebook, explorer: Locator, plot: view.Watch
):
    pixels, ticks = plot.hash, view.Axes(explorer).ticks
    x, y = empty_place(explorer)
    # All within one frame: the mouse comes from afar and presses. Then it drags, and lets go.
    shown = explorer.evaluate(
        """async (explorer, [x, y]) => {
          const canvas = explorer.querySelector(".embvar-scatter canvas");
          const does = (type, kind, dx = 0) => canvas.dispatchEvent(
            new kind(type, { bubbles: true, buttons: 1, clientX: x + dx, clientY: y }));
          const frames = async () => {
            for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame);
          };
          const axis = () => explorer.querySelector(".embvar-axes svg").outerHTML;
          const view = () => canvas.parentElement.parentElement.api.get("cameraView").join();
          does("mousemove", MouseEvent, -150);
          await frames();
          const before = [view(), axis()];
          does("mousemove", MouseEvent);
          does("pointerdown", PointerEvent);
          does("mousedown", MouseEvent);
          await frames();
          const pressed = view() === before[0];
          does("mousemove", MouseEvent, 60);
          await frames();
          const dragged = axis() !== before[1];
          does("mouseup", MouseEvent, 60);
          return { "moved by a press": !pressed, "moved by a drag": dragged };
        }""",
        [x, y],
    )
    assert shown == {"moved by a press": False, "moved by a drag": True}
    explorer.locator(RESET).click()
    away(notebook)
    assert poll(lambda: view.Axes(explorer).ticks, lambda now: now == ticks) == ticks
    assert plot.come_to(pixels) == pixels


# On a wall


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (1440, 900), (1920, 1080)])
def test_the_plot_fills_its_column_and_begins_at_zero(
    notebook: Notebook, explorer: Locator, width: int, height: int
):
    page = notebook.page
    view.resize(page, explorer, width, height)
    explorer.evaluate("explorer => explorer.scrollIntoView()")

    def fills() -> tuple[bool, bool]:
        """Whether the plot fills its frame, but for the axis and the plot's buttons, and that its
        column; at one instant, since the layout of the size before may still stand."""
        plot, frame, column, room = explorer.evaluate(
            """explorer => [".embvar-scatter canvas", ".embvar-plot", ".embvar-columns"].map(
              (part) => explorer.querySelector(part).getBoundingClientRect().width
            ).concat(window.innerWidth)"""
        )
        assert room == width
        share = 0.95 if width == 1000 else 0.6
        return plot > frame - 140, column < width and frame > share * column

    assert poll(fills, all) == (True, True)
    view.laid_out(explorer)
    assert fills() == (True, True)
    box = view.plot_box(explorer)
    assert 0.3 * box["width"] < box["height"] < 0.8 * height

    def first_ticks() -> list[tuple[float, float]]:
        """The first value of each axis, and its distance in pixels from the plot's corner."""
        axes = view.Axes(explorer)
        edges = axes.box["x"], axes.box["y"] + axes.box["height"]
        first = (ticks[0] for ticks in axes.ticks)
        return [(value, abs(at - edge)) for (value, at), edge in zip(first, edges, strict=True)]

    near = [(0, pytest.approx(0, abs=2))] * 2
    assert poll(first_ticks, lambda first: first == near) == near
    box = view.plot_box(explorer)
    texts = explorer.locator(".embvar-axes :is(text, div, span)").evaluate_all(
        """(all) => all.map((one) => {
          const { left, right, top, bottom } = one.getBoundingClientRect();
          const frame = one.closest(".embvar-plot").getBoundingClientRect();
          const cut = left < frame.left - 1 || right > frame.right + 1 || top < frame.top - 1 ||
            bottom > frame.bottom + 1;
          return [one.textContent, parseFloat(getComputedStyle(one).fontSize), cut];
        })"""
    )
    assert len(texts) > 10
    assert [text for text, size, cut in texts if cut or size < 12] == []
    title = explorer.locator(".embvar-axes-y").bounding_box()
    assert title["x"] < box["x"] and title["y"] < box["y"], "at the axis whose numbers it names"
    assert explorer.locator(".embvar-axes-y sub").inner_text() == "t"
    page.screenshot(path=screenshot(f"tradeoff-{width}"))
    page.set_viewport_size(WINDOW)


def test_a_lecture_fills_the_screen_in_large_type(notebook: Notebook, explorer: Locator):
    page, button = notebook.page, explorer.locator(".embvar-lecture-button button")
    view.resize(page, explorer, 1920, 1080)
    button.click()
    page.wait_for_function("() => document.fullscreenElement")
    assert explorer.evaluate("explorer => explorer === document.fullscreenElement")
    poll(lambda: view.plot_box(explorer), lambda box: box["width"] > 1600)
    view.laid_out(explorer)
    plot = view.plot_box(explorer)
    assert plot["width"] > 1600
    for css in ("layer label", "layer .widget-readout", "numbers b", "axes .tick text"):
        one = explorer.locator(f".embvar-{css}").first
        assert one.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 20
        box = one.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 1080, "on the screen, with the plot"
    assert plot["y"] + plot["height"] < 1000
    before = view.Fit.shown(explorer)
    view.slider(explorer).focus()
    page.keyboard.press("ArrowRight")
    fit = poll(lambda: view.Fit.shown(explorer), lambda fit: fit.layer == before.layer + 1)
    assert fit == view.Fit.computed(explorer)
    page.keyboard.press("ArrowLeft")
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == before) == before
    page.screenshot(path=screenshot("tradeoff-lecture"))
    page.evaluate("() => document.exitFullscreen()")  # as Escape does
    classes = poll(lambda: explorer.get_attribute("class"), lambda now: "lecture" not in now)
    assert "embvar-lecture" not in classes.split()
    page.set_viewport_size(WINDOW)
    assert poll(lambda: view.plot_box(explorer)["width"], lambda width: width < 1200) < 1200


# The slider of frequencies, lists and tables


def test_quick_keys_keep_the_last_valid_range_and_name_the_refused_one(
    notebook: Notebook, explorer: Locator
):
    view.slider(explorer, "counts").focus()
    for _ in range(20):
        notebook.page.keyboard.press("ArrowRight")

    readout = explorer.locator(".embvar-counts .widget-readout")

    def told() -> tuple[str, ...] | None:
        """The number that was refused and the one that is kept, once the slider is back at it."""
        found = re.fullmatch(
            r"No token occurs ([\d,]+) to 100,000 times. "
            r"The range stays: ([\d,]+) to 100,000 times.",
            view.text_of(explorer, "message"),
        )
        return found and readout.inner_text() == f"{found[2]}-100,000" and found.groups()

    refused, kept = poll(told, bool)
    assert view.as_number(refused) > view.statistics("minilm").n.max() >= view.as_number(kept) > 10
    wanted = view.Fit.computed(explorer)
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == wanted) == wanted
    view.slider(explorer, "counts").focus()
    for _ in range(20):
        if (now := view.counts(explorer)["min_count"]) == 10:
            break
        notebook.page.keyboard.press("ArrowLeft")
        poll(lambda: view.counts(explorer)["min_count"], lambda new, old=now: new != old, 10)
    assert poll(lambda: view.text_of(explorer, "message"), lambda text: text == "") == ""
    wanted = view.Fit.computed(explorer)
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == wanted) == wanted


def test_marked_tokens_scroll_and_lists_have_heads_above_their_columns(
    notebook: Notebook, explorer: Locator
):
    names = view.table(explorer).index.astype(str)
    explorer.locator(".embvar-search input").fill("*ing")
    marked, rows = explorer.locator(".embvar-marked"), explorer.locator(".embvar-marked td")
    begun = min(200, names.str.endswith("ing").sum())
    assert poll(rows.count, lambda count: count == 5 * (begun + 1)) == 5 * (begun + 1)
    assert marked.evaluate("one => one.scrollHeight > 2 * one.clientHeight")
    marked.focus()
    notebook.page.keyboard.press("End")
    assert poll(lambda: marked.evaluate("one => one.scrollTop"), lambda top: top > 100) > 100
    explorer.locator(".embvar-compare select").select_option("layer 6")
    title = poll(lambda: view.text_of(explorer, "moved-title"), lambda text: "layer 6" in text)
    assert title == f"From layer {view.readout(explorer):.0f} to layer 6, the farthest first:"
    for css, columns in (("matches", "token occurrences"), ("moved", "token distance M V")):
        head = explorer.locator(f".embvar-list-head:has(+ .embvar-{css})")
        explorer.locator(f".embvar-{css} option").first.wait_for(state="attached")
        expect(head).to_have_text(re.compile(r"\s*".join(columns.split())))
        assert " ".join(head.inner_text().split()) == columns
        width = head.evaluate(
            """head => {
              const range = document.createRange();
              range.selectNodeContents(head.querySelector("b"));
              return range.getBoundingClientRect().width / head.innerText.trim().length;
            }"""
        )
        select = explorer.locator(f".embvar-{css} select")
        ink = select.evaluate(
            """select => {
              const ink = document.createElement("canvas").getContext("2d");
              ink.font = getComputedStyle(select.options[0]).font;
              return [ink.measureText("0").width, ink.measureText("i").width];
            }"""
        )
        assert ink[0] == ink[1] == pytest.approx(width, abs=0.2), "letters of one width"
    explorer.locator(".embvar-compare select").select_option("no other layer")
    view.clear(explorer)


@pytest.mark.parametrize("width", [1000, 1440])
def test_a_context_is_one_line_with_the_neighbours_at_the_token(
    notebook: Notebook, explorer: Locator, width: int
):
    view.resize(notebook.page, explorer, width, 900)
    explorer.locator(".embvar-search input").fill("state")
    table = explorer.locator(".embvar-kwic")
    table.wait_for(timeout=600_000)
    view.laid_out(explorer)
    heads = table.locator("th").all_inner_texts()
    assert heads == ["before", "token", "after", "source"]
    lines = table.locator("tr:has(td)").evaluate_all(
        """(rows) => rows.map((row) => {
          const [before, token, after] = row.cells;
          const height = parseFloat(getComputedStyle(row).lineHeight);
          const text = before.querySelector("span").getBoundingClientRect();
          return [row.offsetHeight / height, token.getBoundingClientRect().left - text.right,
            after.clientWidth, before.clientWidth];
        })"""
    )
    assert len(lines) > 3
    for height, apart, after, before in lines:
        assert height < 1.6 and 0 <= apart < 20
        assert min(after, before) > 60
    page_fits = explorer.locator(".embvar-card").evaluate("c => c.scrollWidth <= c.clientWidth + 1")
    assert page_fits
    notebook.page.screenshot(path=screenshot(f"tradeoff-contexts-{width}"))
    notebook.page.set_viewport_size(WINDOW)
    view.clear(explorer)


def test_a_dot_shows_its_sentence_and_a_sentence_its_dot(notebook: Notebook, explorer: Locator):
    page = notebook.page
    explorer.locator(".embvar-search input").fill("state")
    explorer.locator(".embvar-kwic").wait_for(timeout=600_000)
    image = explorer.locator("img.embvar-card-plane")
    expect(image).not_to_have_class(re.compile("embvar-waiting"))
    ring, tip = page.locator(".embvar-ring:visible"), page.locator(".embvar-tip:visible")
    lines = explorer.locator(".embvar-kwic tr[data-area]")
    for line in (lines.first, lines.last):
        view.in_the_middle(line)
        line.hover()
        ring.wait_for()
        box, picture = ring.bounding_box(), image.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        assert picture["x"] < x < picture["x"] + picture["width"]
        assert picture["y"] < y < picture["y"] + picture["height"]
        page.screenshot(path=screenshot("tradeoff-ring"))
        if not 100 < y < 850:  # the dot has scrolled out of the window with its picture
            offset = y - picture["y"]
            y = view.in_the_middle(image)["y"] + offset
        page.mouse.move(x, y)
        tip.wait_for()
        before = line.locator(".embvar-before span").inner_text()
        told = tip.inner_text()
        assert before[-10:] in told and "[" in told
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= WINDOW["width"]
        assert ring.count() == 0
    page.screenshot(path=screenshot("tradeoff-sentence"))
    away(notebook)
    view.clear(explorer)


def test_marked_tokens_are_named_beside_their_points(notebook: Notebook, explorer: Locator):
    explorer.locator(".embvar-search input").fill("state the")
    names = explorer.locator(".embvar-name")

    def beside() -> dict[str, bool]:
        """Of each name whether it is beside its token's point."""
        rows, axes = view.table(explorer), view.Axes(explorer)
        found = {}
        for text, (left, right, upper, lower) in names.evaluate_all(
            """all => all.map((one) => {
              const { left, right, top, bottom } = one.getBoundingClientRect();
              return [one.textContent, [left, right, top, bottom]];
            })"""
        ):
            x, y = axes.at(rows.loc[text, "M"], rows.loc[text, "V"])
            apart = left - x if left > x else x - right
            found[text] = bool(0 < apart < 15 and upper < y < lower)
        return found

    wanted = {"state": True, "the": True}
    assert poll(beside, lambda found: found == wanted) == wanted
    for key in ("ArrowRight", "ArrowLeft"):
        view.slider(explorer).focus()
        before = names.evaluate_all("all => all.map((one) => one.getBoundingClientRect().x)")
        notebook.page.keyboard.press(key)
        poll(
            lambda: names.evaluate_all("all => all.map((one) => one.getBoundingClientRect().x)"),
            lambda now, then=before: len(now) == 2 and now != then,
        )
        assert poll(beside, lambda found: found == wanted) == wanted
    notebook.page.screenshot(path=screenshot("tradeoff-names"))
    view.clear(explorer)
    assert poll(names.count, lambda count: count == 0) == 0


# Results


def test_results_come_out_by_buttons(notebook: Notebook, explorer: Locator):
    page, state = notebook.page, "explorer.state.restore("
    explorer.locator(".embvar-search input").fill("state")
    poll(lambda: view.text_of(explorer, "marked"), lambda text: "explorer.marked" in text)

    def saved(button: str) -> tuple[str, bytes]:
        with page.expect_download() as waiting:
            explorer.locator(".embvar-downloads button", has_text=button).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    layer = int(view.readout(explorer))
    name, content = saved("CSV")
    assert name == f"tradeoff-minilm-layer{layer}-marked.csv"
    row = pd.read_csv(io.BytesIO(content)).iloc[0]
    expected = view.table(explorer).loc["state"]
    assert row["token"] == "state" and row["layer"] == layer
    assert [row[one] for one in "nQMV"] == pytest.approx([expected[one] for one in "nQMV"])
    name, content = saved("SVG")
    assert name.endswith(".svg") and b"$V(X_t)$" in content
    name, content = saved("PNG")
    assert name.endswith(".png") and Image.open(io.BytesIO(content)).width > 1400
    explorer.locator(".embvar-downloads button", has_text="code").click()
    told = poll(lambda: view.text_of(explorer, "downloads code"), lambda text: state in text)
    assert "marked=['state']" in told and f"layer={layer}" in told
    view.clear(explorer)


# Waiting, and who cannot see it


def test_no_picture_is_broken_while_a_card_loads(notebook: Notebook, explorer: Locator):
    broken = notebook.page.evaluate_handle(
        """() => {
          const watch = { seen: 0, broken: [] };
          const look = () => {
            for (const one of document.querySelectorAll(".embvar-card img")) {
              if (!one.checkVisibility()) continue;
              watch.seen += 1;
              // An image that is being decoded is not complete, and still shows the one before.
              if (one.complete && one.naturalWidth < 300) watch.broken.push(one.className);
            }
            if (!watch.stopped) requestAnimationFrame(look);
          };
          look();
          return watch;
        }"""
    )
    for token in ("water", "music"):
        explorer.locator(".embvar-search input").fill(token)
        poll(lambda: view.text_of(explorer, "card-head"), lambda t, n=token: t.startswith(n))
        texts = explorer.locator(".embvar-kwic b")
        assert poll(
            lambda t=texts: {text.strip().lower() for text in t.all_inner_texts()},
            lambda found, n=token: found == {n},
            600,
        ) == {token}
    seen = broken.evaluate("watch => { watch.stopped = true; return watch.seen; }")
    assert seen > 10 and broken.evaluate("watch => watch.broken") == []
    waiting = explorer.locator(".embvar-card-waiting")
    assert poll(waiting.is_visible, lambda visible: not visible) is False
    view.clear(explorer)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_no_serious_violation_and_pictures_have_texts(
    notebook: Notebook, explorer: Locator, theme: str
):
    page = notebook.page
    notebook.choose_theme(theme)
    explorer.locator(".embvar-search input").fill("state")
    explorer.locator(".embvar-kwic").wait_for(timeout=600_000)
    layer = int(view.readout(explorer))
    canvas = explorer.locator(".embvar-scatter canvas").first

    def below_the_plot() -> list[float]:
        return explorer.evaluate(
            """explorer => {
              const { bottom } = explorer.querySelector(
                ".embvar-scatter canvas").getBoundingClientRect();
              return [...explorer.querySelectorAll(".embvar-axes .x-axis text")].map(
                (number) => number.getBoundingClientRect().top - bottom);
            }"""
        )

    poll(below_the_plot, lambda far: far and min(far) >= -1)

    def described() -> list[str]:
        return [
            canvas.get_attribute("aria-label"),
            *(
                explorer.locator(f"img.embvar-card-{part}").get_attribute("alt")
                for part in ("profile", "plane")
            ),
        ]

    texts = poll(described, lambda texts: all(text and "state" in text for text in texts[1:]))
    assert f"layer {layer}: " in texts[0] and "slope" in texts[0]
    assert f"layer {layer}: Q = " in texts[1] and "principal axes" in texts[2]
    for part in ("profile", "plane"):  # until it is drawn, a picture is pale
        image = explorer.locator(f"img.embvar-card-{part}")
        expect(image).not_to_have_class(re.compile("embvar-waiting"))
    assert view.violations(page) == {}
    ticks = view.Axes(explorer).ticks
    assert min(map(len, ticks)) > 3, "the axes are there in either theme"
    page.screenshot(path=screenshot(f"tradeoff-{theme.split()[1].lower()}"))
    view.clear(explorer)


# The search box


def test_a_search_says_what_it_found_and_opens_a_card_only_for_a_token(
    notebook: Notebook, explorer: Locator, plot: view.Watch
):
    page, box = notebook.page, explorer.locator(".embvar-search input")

    def search(text: str) -> None:
        """Replace what the box holds, key by key."""
        box.focus()
        page.keyboard.press("Control+a")
        page.keyboard.press("Delete")
        page.keyboard.type(text, delay=30)

    def shown(css: str, wanted: str) -> None:
        """Check that a part of the explorer comes to show a text, and still does so a while on."""
        text = poll(lambda: view.text_of(explorer, css), lambda text: wanted in text)
        assert wanted in text
        page.wait_for_timeout(800)
        assert wanted in view.text_of(explorer, css)

    search("zzzzqq")
    shown("found", "No token is or begins with 'zzzzqq'.")
    shown("card-head", "Token card: click a point")
    assert view.text_of(explorer, "marked") == ""
    search(" State ")
    shown("card-head", "state ")
    marked = poll(lambda: view.text_of(explorer, "marked"), lambda text: "state" in text)
    assert marked.count("state") == 1
    names = view.table(explorer).index.astype(str)
    for text, found in (
        ("stat*", names.str.startswith("stat")),
        ("*ing", names.str.endswith("ing")),
    ):
        search(text)
        shown("marked", f"mean of {found.sum()}")
        shown("card-head", "Token card: click a point")
    search("")
    assert poll(lambda: view.text_of(explorer, "marked"), lambda text: text == "") == ""
    expect(explorer.locator(".embvar-found")).to_be_hidden()
    expect(explorer.locator(".embvar-matches option")).to_have_count(0)
