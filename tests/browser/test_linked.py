"""The linked explorer in a notebook of its own: what is done in one panel shows in the other."""

from __future__ import annotations

import io
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Locator

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, Watch, poll

NAME = "linked.ipynb"
RESET = 'button[title="Reset View"]'
CELLS = (
    "import embvar_kit as ek\n"
    'stats = {name: ek.cached_statistics(name, progress=False) for name in ("minilm", "smollm2")}\n'
    "explorer = ek.LinkedExplorer(stats)\n"
    "explorer",
)


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    """A notebook with the explorer."""
    return desk.write(NAME, *CELLS)


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer, at the upper edge of the window, both plots drawn and whole."""
    (explorer,) = notebook.explorers(1)
    view.resize(notebook.page, explorer, **WINDOW)
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    explorer.locator(".embvar-scales select").select_option(label="logarithmic")
    for side in ("left", "right"):
        panel(explorer, side).locator(RESET).click()
    notebook.page.mouse.move(3, 300)  # after a click into a plot, the wheel zooms it
    for side in ("left", "right"):
        marks = poll(lambda s=side: ticks_of(explorer, s), lambda ticks: min(ticks) > 1)
        assert min(marks) > 1, "an axis without two numbers cannot be read"
    view.laid_out(explorer)
    return explorer


def panel(explorer: Locator, side: str) -> Locator:
    return explorer.locator(f".embvar-{side}")


def ticks_of(explorer: Locator, side: str) -> list[int]:
    """How many ticks the axes of a panel have."""
    return [len(marks) for marks in view.Axes(panel(explorer, side)).ticks]


def choose_scales(explorer: Locator, label: str) -> None:
    """Choose other axes than those shown, and wait until both panels have them."""
    before = {side: view.Axes(panel(explorer, side)).ticks for side in ("left", "right")}
    explorer.locator(".embvar-scales select").select_option(label=label)
    for side, then in before.items():
        now = poll(lambda s=side: view.Axes(panel(explorer, s)).ticks, lambda n, t=then: n != t)
        assert now != then


def watched(explorer: Locator, side: str) -> Watch:
    """The pixels of a panel's plot, at rest."""
    picture = view.watch(panel(explorer, side))
    picture.rest()
    return picture


def fit_of(explorer: Locator, side: str) -> tuple[int, int, float, float]:
    """Layer, tokens, slope and R² above a panel."""
    text = view.text_of(panel(explorer, side), "numbers b")
    found = re.search(
        rf"layer (\d+): ([\d,]+) tokens, slope ({view.NUMBER}), R² ({view.NUMBER})", text
    )
    assert found, text
    layer, tokens, slope, r2 = map(view.as_number, found.groups())
    return int(layer), int(tokens), slope, r2


def both() -> set[str]:
    """Texts of tokens of both models that occur at least ten times in each."""
    texts = []
    for name in ("minilm", "smollm2"):
        stats = view.statistics(name)
        texts.append(set(stats.texts[(stats.n >= 10) & (stats.n <= 100_000)].tolist()))
    return set.intersection(*texts)


# The first test: a reset of the view would hide what it looks for.
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1920, 1080)])
def test_tokens_are_drawn_where_the_axes_say_from_the_start(
    notebook: Notebook, width: int, height: int
):
    page, common = notebook.page, both()
    page.set_viewport_size({"width": width, "height": height})
    notebook.run_all()
    (explorer,) = notebook.explorers(1)
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    tables = {}
    for side, name, layer in (("left", "minilm", 3), ("right", "smollm2", 15)):
        table = view.statistics(name).table(layer, min_count=10)
        tables[side] = table[table["token"].isin(common)].set_index("token")

    def as_drawn(log: bool) -> None:
        for side, table in tables.items():
            watched(explorer, side).stop()
            view.hovered_over_where_the_axes_say(page, panel(explorer, side), table, log=log)

    as_drawn(log=True)
    page.screenshot(path=screenshot(f"linked-start-{width}"))
    choose_scales(explorer, "each layer's own")
    as_drawn(log=False)
    # Zoomed in, and after another change of size.
    axes = view.Axes(panel(explorer, "left"))
    box, whole = axes.box, axes.ticks
    page.mouse.click(box["x"] + 0.12 * box["width"], box["y"] + 0.85 * box["height"])
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.wheel(0, -120)
    zoomed = poll(lambda: view.Axes(panel(explorer, "left")).ticks, lambda now: now != whole)
    assert zoomed != whole
    as_drawn(log=False)
    view.resize(page, explorer, **WINDOW)
    as_drawn(log=False)
    choose_scales(explorer, "logarithmic")
    panel(explorer, "left").locator(RESET).click()


def test_a_step_of_a_slider_moves_its_own_panel_and_the_numbers_are_the_analysis(
    notebook: Notebook, explorer: Locator
):
    left, right = (watched(explorer, side) for side in ("left", "right"))
    before = right.hash
    view.slider(panel(explorer, "left")).focus()
    assert left.press("ArrowLeft")["changes"] > 0
    _, tokens, slope, _ = poll(lambda: fit_of(explorer, "left"), lambda fit: fit[0] == 2)
    common = both()
    assert tokens == len(common) > 4000
    found = view.statistics("minilm").table(2, min_count=10).query("token in @common")
    assert slope == pytest.approx(np.polyfit(found["M"], found["V"], 1)[0], abs=6e-4)
    assert right.hash == before
    left.press("ArrowRight")
    assert poll(lambda: fit_of(explorer, "left")[0], lambda layer: layer == 3) == 3
    left.stop(), right.stop()


def test_at_the_same_depth_both_sliders_go_together(notebook: Notebook, explorer: Locator):
    switch = explorer.locator(".embvar-same-depth input")
    switch.check()
    view.slider(panel(explorer, "left")).focus()
    for key, wanted in (("End", (6, 30)), ("ArrowLeft", (5, 25)), ("Home", (0, 0))):
        notebook.page.keyboard.press(key)
        shown = poll(
            lambda: tuple(fit_of(explorer, side)[0] for side in ("left", "right")),
            lambda now, w=wanted: now == w,
        )
        assert shown == wanted
    view.slider(panel(explorer, "right")).focus()
    notebook.page.keyboard.press("End")
    assert poll(lambda: fit_of(explorer, "left")[0], lambda now: now == 6) == 6
    switch.uncheck()
    for side, back in (("left", 3), ("right", 15)):
        view.slider(panel(explorer, side)).focus()
        for _ in range(back):
            notebook.page.keyboard.press("ArrowLeft")
    for side, layer in (("left", 3), ("right", 15)):
        shown = poll(lambda s=side: fit_of(explorer, s)[0], lambda now, n=layer: now == n)
        assert shown == layer


def test_after_a_change_of_model_the_axes_are_those_of_its_tokens(
    notebook: Notebook, explorer: Locator
):
    left = panel(explorer, "left")
    before = view.Axes(left).ticks
    model = left.locator(".embvar-model select")
    model.select_option(label="smollm2")
    fit = poll(lambda: fit_of(explorer, "left"), lambda now: now[0] == 15)
    table = view.statistics("smollm2").table(15, min_count=10)
    assert fit[:2] == (15, len(table)), "both panels show all of its tokens"
    watched(explorer, "left").stop()
    titles = left.locator(".embvar-axes-x, .embvar-axes-y").all_inner_texts()
    assert [title.split(",")[0] for title in titles] == ["M(Xt)", "V(Xt)"]
    low, high = table["M"].min(), table["M"].max()  # the other model's are below all of these

    def fit_the_table(values: list[float]) -> bool:
        return all(0.8 * low < value < 1.2 * high for value in values) and len(values) > 1

    M = poll(lambda: [value for value, _ in view.Axes(left).ticks[0]], fit_the_table)
    assert fit_the_table(M), M
    placed = table[(table[["M", "V"]] > 0).all(axis=1)].set_index("token")
    view.hovered_over_where_the_axes_say(notebook.page, left, placed, log=True)
    notebook.page.screenshot(path=screenshot("linked-other-model"))
    model.select_option(label="minilm")
    poll(lambda: fit_of(explorer, "left")[:2], lambda now: now == (3, len(both())))
    assert poll(lambda: view.Axes(left).ticks, lambda now: now == before) == before


def test_large_numbers_at_the_axes_are_powers_of_ten_and_not_cut(explorer: Locator):
    together, right = explorer.locator(".embvar-together input"), panel(explorer, "right")
    together.uncheck()  # a token that only smollm2 has reaches 10⁸
    for axis in "xy":
        numbers = right.locator(f".{axis}-axis text")
        shown = poll(numbers.all_text_contents, lambda now: "10⁷" in now)
        assert "10⁷" in shown and "100,000" in shown
    view.laid_out(explorer)
    values = [value for value, _ in view.Axes(right).ticks[1]]
    assert values == sorted(values)
    frame = right.locator(".embvar-plot").bounding_box()["x"]
    lefts = numbers.evaluate_all("all => all.map((one) => one.getBoundingClientRect().x)")
    assert min(lefts) > frame
    right.screenshot(path=screenshot("linked-powers"))
    together.check()
    poll(lambda: fit_of(explorer, "right")[1], lambda tokens: tokens == len(both()))


def test_what_is_lassoed_in_one_panel_is_marked_in_the_other(notebook: Notebook, explorer: Locator):
    page, right = notebook.page, watched(explorer, "right")
    before = right.hash
    left = panel(explorer, "left")
    left.locator('button[title*="asso"]').first.click()
    box = view.plot_box(left)
    corners = [(0.8, 0.5), (0.9, 0.5), (0.9, 0.75), (0.8, 0.75), (0.8, 0.5)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    table = explorer.locator(".embvar-marked tr")
    for _ in range(3):  # a busy browser drops mouse moves, and a stroke of too few is no lasso
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
        if (count := poll(table.count, lambda count: count > 3, 30)) > 3:
            break
    assert count > 3, "the lasso holds some tokens"
    assert poll(lambda: right.rest()["hash"], lambda now: now != before) != before
    names = explorer.locator(".embvar-marked td:first-child").all_inner_texts()
    stats = [view.statistics(name).table(layer, min_count=10).set_index("token")
             for name, layer in (("minilm", 3), ("smollm2", 15))]  # fmt: skip
    first = explorer.locator(".embvar-marked tr").nth(1).locator("td").all_inner_texts()
    shown = [view.as_number(text) for text in first[1:]]
    rows = [one.loc[names[0]] for one in stats]
    wanted = [row[name] for name in "nQMV" for row in rows]
    assert shown == pytest.approx(wanted, rel=6e-4)
    page.screenshot(path=screenshot("linked-lasso"))
    left.locator('.embvar-scatter button[title*="an"]').first.click()  # pan and zoom again
    view.clear(explorer)
    assert table.count() == 0
    right.stop()


def test_a_search_marks_in_both_panels_and_results_come_out(notebook: Notebook, explorer: Locator):
    explorer.locator(".embvar-search input").fill("state")
    for side in ("left", "right"):
        names = panel(explorer, side).locator(".embvar-name")
        assert poll(names.all_text_contents, lambda now: now == ["state"]) == ["state"]
        named = (
            panel(explorer, side)
            .locator(".embvar-name, .embvar-outer")
            .evaluate_all(
                """all => all.map((one) => {
              const { x, y, width, height } = one.getBoundingClientRect();
              return [one.textContent, { x, y, width, height }];
            })"""
            )
        )
        texts, boxes = zip(*named, strict=True)
        assert 2 < len(texts) - 1 <= 6 and texts.count("state") == 1
        for one, other in combinations(boxes, 2):
            apart = [
                abs(one[x] - other[x]) + 3 > (one if one[x] < other[x] else other)[width]
                for x, width in (("x", "width"), ("y", "height"))
            ]
            assert any(apart), "names lie on one another"

    def saved(button: str) -> tuple[str, bytes]:
        with notebook.page.expect_download() as waiting:
            explorer.locator(".embvar-downloads button", has_text=button).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    name, content = saved("CSV")
    assert name == "linked-minilm-layer3-smollm2-layer15-marked.csv"
    row = pd.read_csv(io.BytesIO(content)).iloc[0]
    for side, model, layer in (("left", "minilm", 3), ("right", "smollm2", 15)):
        expected = view.statistics(model).table(layer, min_count=10).set_index("token").loc["state"]
        assert [row[f"{one}_{side}"] for one in "nQMV"] == pytest.approx(
            [expected[one] for one in "nQMV"]
        )
    name, content = saved("PNG")
    assert name.endswith(".png") and Image.open(io.BytesIO(content)).width > 2000
    explorer.locator(".embvar-downloads button", has_text="code").click()
    told = poll(
        lambda: view.text_of(explorer, "downloads code"), lambda text: "explorer.state" in text
    )
    assert "explorer.state.restore(" in told and "marked=['state']" in told
    view.clear(explorer)


def test_the_wheel_scrolls_the_page_over_either_plot_and_zooms_the_one_clicked(
    notebook: Notebook, explorer: Locator
):
    page = notebook.page
    for side, other in (("right", "left"), ("left", "right")):
        box = view.plot_box(panel(explorer, side))
        place = box["x"] + 0.12 * box["width"], box["y"] + 0.85 * box["height"]
        above = explorer.bounding_box()["y"]
        page.mouse.move(*place)
        page.mouse.wheel(0, -60)
        now = poll(lambda: explorer.bounding_box()["y"], lambda y, a=above: y > a + 20)
        assert now > above + 20, f"the page scrolls over the plot at the {side}"
        explorer.evaluate("explorer => explorer.scrollIntoView()")
        view.laid_out(explorer)
        box = view.plot_box(panel(explorer, side))
        place = box["x"] + 0.12 * box["width"], box["y"] + 0.85 * box["height"]
        ticks = {one: view.Axes(panel(explorer, one)).ticks for one in (side, other)}
        page.mouse.click(*place)
        page.mouse.wheel(0, -240)
        changed = poll(
            lambda s=side: view.Axes(panel(explorer, s)).ticks,
            lambda now, t=ticks[side]: now != t,
        )
        assert changed != ticks[side]
        assert view.Axes(panel(explorer, other)).ticks == ticks[other]
        panel(explorer, side).locator(RESET).click()
        back = poll(
            lambda s=side: view.Axes(panel(explorer, s)).ticks,
            lambda now, t=ticks[side]: now == t,
        )
        assert back == ticks[side]
        page.mouse.move(3, 300)
        view.laid_out(explorer)


def test_the_token_hovered_over_is_shown_in_both_panels(notebook: Notebook, explorer: Locator):
    page, common = notebook.page, both()
    choose_scales(explorer, "each layer's own")  # on linear axes, ticks tell where a point is
    pictures = [watched(explorer, side) for side in ("left", "right")]
    before = [picture.hash for picture in pictures]
    tables = [
        view.statistics(name).table(layer, min_count=10).set_index("token")
        for name, layer in (("minilm", 3), ("smollm2", 15))
    ]
    left = tables[0][tables[0].index.isin(common)]
    here = panel(explorer, "left")
    token, _ = view.hover(page, here, lambda: view.farthest_apart(here, left))
    for side, table in zip(("left", "right"), tables, strict=True):
        told = poll(lambda s=side: view.tooltip(panel(explorer, s)), lambda text: token in text)
        assert token in told.split()
        shown = {view.as_number(text) for text in re.findall(view.NUMBER, told)}
        for value in table.loc[token, ["n", "Q", "M", "V"]]:
            assert any(np.isclose(value, one, rtol=1e-3) for one in shown), (value, told)
    for picture, plain in zip(pictures, before, strict=True):
        assert poll(lambda p=picture: p.hash, lambda now, was=plain: now != was) != plain
    page.screenshot(path=screenshot("linked-hover"))
    page.mouse.move(3, 300)
    for side, picture, plain in zip(("left", "right"), pictures, before, strict=True):
        assert poll(lambda p=picture: p.hash, lambda now, was=plain: now == was) == plain
        assert poll(lambda s=side: view.tooltip(panel(explorer, s)), lambda text: not text) == ""
        picture.stop()
    choose_scales(explorer, "logarithmic")


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (1280, 900), (1920, 1080)])
def test_the_panels_fit_their_column(
    notebook: Notebook, explorer: Locator, width: int, height: int
):
    page = notebook.page
    view.resize(page, explorer, width, height)
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    view.laid_out(explorer)
    boxes = [panel(explorer, side).bounding_box() for side in ("left", "right")]
    plots = [view.plot_box(panel(explorer, side)) for side in ("left", "right")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"], "side by side"
    assert abs(plots[0]["y"] - plots[1]["y"]) < 2, "at one height"
    assert abs(plots[0]["width"] - plots[1]["width"]) < 30
    for box, plot in zip(boxes, plots, strict=True):
        assert plot["width"] > box["width"] - 140
    above = plots[0]["y"] - explorer.bounding_box()["y"]
    assert above < {1000: 295, 1280: 255, 1920: 185}[width], "the controls leave room for the plots"
    assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []
    page.screenshot(path=screenshot(f"linked-{width}"))
    page.set_viewport_size(WINDOW)


def test_a_lecture_fills_the_screen_in_large_type(notebook: Notebook, explorer: Locator):
    page = notebook.page
    view.resize(page, explorer, 1920, 1080)
    explorer.locator(".embvar-lecture-button button").click()
    page.wait_for_function("() => document.fullscreenElement")
    poll(lambda: view.plot_box(panel(explorer, "right")), lambda box: box["width"] > 700)
    view.laid_out(explorer)
    wide = view.plot_box(panel(explorer, "right"))
    assert wide["width"] > 700 and wide["y"] + wide["height"] < 1080
    for css in ("left .embvar-layer label", "right .embvar-numbers b", "both"):
        one = explorer.locator(f".embvar-{css}").first
        assert one.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 20
    for side in ("left", "right"):
        size = poll(lambda s=side: view.dot_size(panel(explorer, s)), lambda size: size > 6)
        assert size > 6
    assert poll(lambda: view.cut_buttons(explorer), lambda found: not found) == []
    page.screenshot(path=screenshot("linked-lecture"))
    page.evaluate("() => document.exitFullscreen()")
    page.set_viewport_size(WINDOW)
    classes = poll(lambda: explorer.get_attribute("class"), lambda now: "lecture" not in now)
    assert "lecture" not in classes


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_no_serious_violation_and_all_has_a_name(
    notebook: Notebook, explorer: Locator, theme: str
):
    page = notebook.page
    notebook.choose_theme(theme)
    explorer.locator(".embvar-search input").fill("state")
    rows = explorer.locator(".embvar-marked tr")
    assert poll(rows.count, lambda count: count == 2) == 2
    texts = {
        side: panel(explorer, side)
        .locator(".embvar-scatter canvas")
        .first.get_attribute("aria-label")
        for side in ("left", "right")
    }
    for side, text in texts.items():
        assert f"{side} panel" in text and "slope" in text
        assert panel(explorer, side).get_attribute("aria-label") == f"{side} panel"
        assert panel(explorer, side).get_attribute("role") == "group"
    names = explorer.locator("select, input, [role=slider]").evaluate_all(
        """(all) => all.filter((one) => one.checkVisibility() && !one.closest(".embvar-scatter"))
          .map((one) => one.getAttribute("aria-label") ||
            (one.labels?.[0]?.textContent ?? "") + (one.closest("[title]")?.title ?? ""))"""
    )
    assert all(name.strip() for name in names) and len(names) > 8
    assert view.violations(page, view.NAMED - {"image-alt"}) == {}, "a plot is no image"
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    view.laid_out(explorer)
    page.screenshot(path=screenshot(f"linked-{theme.split()[1].lower()}"))
    view.clear(explorer)


def test_without_its_kernel_all_stays_in_its_place(notebook: Notebook, explorer: Locator):
    page = notebook.page

    def places() -> list[list[float]]:
        """Where panels, plots and readouts are: from the panels' upper left corner, and sizes."""
        return explorer.evaluate(
            """explorer => {
              const of = explorer.querySelector(".embvar-panels").getBoundingClientRect();
              const parts = ".embvar-panel, .embvar-plot, .embvar-panel .widget-readout";
              return [...explorer.querySelectorAll(parts)].map((one) => {
                const { x, y, width, height } = one.getBoundingClientRect();
                return [x - of.x, y - of.y, width, height];
              });
            }"""
        )

    before = places()
    assert len(before) == 6
    page.locator(".lm-MenuBar-item", has_text="Kernel").first.click()
    page.locator('.lm-Menu-item[data-command="kernelmenu:restart"]').click()
    page.locator(".jp-Dialog button", has_text="Restart").click()
    told = poll(
        lambda: explorer.evaluate("one => getComputedStyle(one, '::after').content"),
        lambda text: "restarted" in text,
    )
    assert "run the cell again" in told
    same = pytest.approx(np.array(before), abs=1)
    assert poll(lambda: np.array(places()), lambda now: now == same) == same
    icons = poll(
        lambda: explorer.evaluate(
            """explorer => {
              const cut = explorer.querySelectorAll(".jupyter-widgets-disconnected");
              return [explorer, ...cut].map((one) => getComputedStyle(one, "::before").content);
            }"""
        ),
        lambda icons: len(icons) > 20,
    )
    assert len(icons) > 20 and set(icons) == {"none"}
    explorer.evaluate("explorer => explorer.scrollIntoView()")
    page.screenshot(path=screenshot("linked-disconnected"))
