"""The other explorers in a notebook of their own: mouse, lecture, accessibility."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from embvar_kit import figures
from embvar_kit.explorers.tables import line_text

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, poll

NAME = "explorers.ipynb"
CELLS = (
    "import numpy as np\n\nimport embvar_kit as ek\n\nek.VariancePlayground()",
    "rng = np.random.default_rng(0)\n"
    "ek.SequencePlayer(rng.normal(0.5, 1, (60, 20)).astype(np.float32))",
    'ek.LayerExplorer(ek.cached_statistics("minilm", progress=False))',
    'model, corpus = ek.load_model("minilm"), ek.load_corpus("wikipedia", limit=300)\n'
    'how = {"layers": [2, 6], "progress": False}\n'
    'inputs = ek.extract(model, corpus, site="norm_input", **how)\n'
    "ek.NormalizationBench(ek.affine_moments(model, corpus, layers=[2, 6]), inputs)",
)
KINDS = ("playground", "player", "layers", "bench")
STILL = {"playground": 1056, "player": 720, "layers": 730, "bench": 902}
"""Widths in pixels that the pictures have in a saved page."""


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    """A notebook with one explorer of each kind."""
    return desk.write(NAME, *CELLS)


@pytest.fixture
def explorers(notebook: Notebook) -> dict[str, Locator]:
    """The explorers by kind."""
    found = dict(zip(KINDS, notebook.explorers(len(KINDS)), strict=True))
    view.resize(notebook.page, found["playground"], **WINDOW)
    return found


def at_rest(explorer: Locator) -> view.Watch:
    """The pixels of an explorer's picture, in view and at rest; the caller stops the watch."""
    view.in_the_middle(explorer.locator("img.embvar-picture"))
    picture = view.watch(explorer)
    picture.rest()
    return picture


def test_the_cloud_can_be_dragged_and_stays_in_its_plot(
    notebook: Notebook, explorers: dict[str, Locator]
):
    page, explorer = notebook.page, explorers["playground"]
    picture = at_rest(explorer)
    box = view.in_the_middle(explorer.locator("img.embvar-picture"))
    expect(explorer.locator(".embvar-hint:visible")).to_have_text(re.compile("Drag the cloud"))
    # The plot of the cloud is the left third; its middle is the origin, 7 units from each edge.
    before = [view.readout(explorer, f"mean-{feature}") for feature in (1, 2)]
    assert before == [2, 1]
    x, y = box["x"] + 0.2 * box["width"], box["y"] + 0.4 * box["height"]

    def cursor() -> str:
        """What the mouse looks like over the cloud, once the page knows where that is."""
        page.mouse.move(x - 1, y)
        page.mouse.move(x, y)
        return explorer.locator("img.embvar-picture").evaluate("image => image.style.cursor")

    assert poll(cursor, lambda now: now == "grab") == "grab"
    page.mouse.down()
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.55 * box["height"], steps=8)
    there = poll(lambda: view.readout(explorer, "mean-1"), lambda now: now < 0)
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.72 * box["height"], steps=8)
    page.mouse.up()
    place = [poll(lambda f=f: view.readout(explorer, f"mean-{f}"), lambda now: now == -3)
             for f in (1, 2)]  # fmt: skip
    assert there < 0 and place == [-3, -3], "the farthest that the sliders go"
    numbers = poll(lambda: view.text_of(explorer, "numbers"), lambda text: "M = 18.000" in text)
    assert "M = 18.000" in numbers
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.3 * box["height"])
    page.wait_for_timeout(300)
    assert view.readout(explorer, "mean-1") == -3, "released, the cloud stays"
    picture.rest()
    page.screenshot(path=screenshot("playground-dragged"))
    picture.stop()


def test_a_bar_of_the_playground_tells_its_number(
    notebook: Notebook, explorers: dict[str, Locator]
):
    page, explorer = notebook.page, explorers["playground"]
    at_rest(explorer).stop()
    box = view.in_the_middle(explorer.locator("img.embvar-picture"))
    tip = page.locator(".embvar-tip:visible")

    def sweep() -> dict[str, str]:
        """The numbers that are told as the mouse goes over the bars."""
        told = {}
        for x in np.linspace(0.8, 0.96, 5):
            for y in np.linspace(0.1, 0.78, 60):
                page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
                for text in tip.all_inner_texts():
                    name, value = re.match(r"([QMV]) = ([\d.]+)\n", text).groups()
                    told[name] = value
        return told

    told = poll(sweep, lambda told: len(told) == 3)
    numbers = view.text_of(explorer, "numbers")
    assert sorted(told) == ["M", "Q", "V"]
    for name, value in told.items():
        assert f"{name} = {value}" in numbers
    page.mouse.move(3, 300)


def test_the_player_plays_at_a_speed_hides_the_end_and_loops(
    notebook: Notebook, explorers: dict[str, Locator]
):
    page, explorer = notebook.page, explorers["player"]
    picture = at_rest(explorer)
    assert "k =" not in view.text_of(explorer, "numbers")
    explorer.locator(".embvar-speed select").select_option("fast")
    play, stop, repeat = explorer.locator(".embvar-play button").all()
    repeat.click()
    play.click()
    seen = [view.readout(explorer, "k")]
    # Where the browser is slow, the end may come between two looks: it comes again.
    poll(
        lambda: (
            seen.append(view.readout(explorer, "k")) or (seen[-1] < max(seen) and max(seen) > 50)
        ),
        bool,
        400,
    )
    assert seen[-1] < max(seen) and max(seen) > 50, "after the end it began again"
    play.click()
    x = np.random.default_rng(0).normal(0.5, 1, (60, 20)).astype(np.float32)

    def of_now() -> bool:
        """Whether the numbers are those of the vectors seen."""
        moments = figures.moments_of(x[: int(view.readout(explorer, "k"))])
        wanted = " ".join(f"{name} = {value:.3f}" for name, value in moments.items())
        return wanted in view.text_of(explorer, "numbers")

    assert poll(of_now, bool)
    picture.rest()
    pixels = picture.rest()["hash"]
    explorer.locator(".embvar-answer input").focus()
    assert picture.press("Space")["hash"] != pixels
    numbers = poll(lambda: view.text_of(explorer, "numbers"), lambda text: "V from k = " in text)
    assert re.search(r"within 10% of the end: Q from k = \d+, M from k = \d+, V from k", numbers)
    page.screenshot(path=screenshot("player-end"))
    explorer.locator(".embvar-answer input").focus()
    picture.press("Space")
    assert picture.come_to(pixels) == pixels
    stop.click()
    assert poll(lambda: view.readout(explorer, "k"), lambda now: now == 1) == 1
    picture.stop()


def test_a_click_on_a_bar_selects_its_layer(notebook: Notebook, explorers: dict[str, Locator]):
    page, explorer = notebook.page, explorers["layers"]
    picture = at_rest(explorer)
    box = view.in_the_middle(explorer.locator("img.embvar-picture"))
    for share in (0.5, 0.8, 0.2):
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 0.4 * box["height"])
        tip = page.locator(".embvar-tip:visible")
        tip.wait_for()
        layer = int(re.match(r"minilm, layer (\d+)", tip.inner_text())[1])
        assert poll(lambda: view.readout(explorer), lambda now, n=layer: now == n) == layer
        shown = poll(
            lambda: view.shown_parts(explorer)["layer"].iloc[0], lambda now, n=layer: now == n
        )
        assert shown == layer
    page.mouse.move(3, 300)
    picture.stop()


def saved(notebook: Notebook, explorer: Locator, button: str) -> tuple[str, bytes]:
    """The name and the content of the file that a button saves."""
    with notebook.page.expect_download() as waiting:
        explorer.locator(".embvar-downloads button", has_text=button).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("playground", ["mean_1", "Q", "M", "V"]),
        ("player", ["k", "Q", "M", "V"]),
        ("bench", ["layer", "site", "slope", "r2"]),
    ],
)
def test_figure_and_numbers_come_out(
    notebook: Notebook, explorers: dict[str, Locator], kind: str, columns: list[str]
):
    explorer = explorers[kind]
    at_rest(explorer).stop()
    name, content = saved(notebook, explorer, "CSV")
    assert name.startswith(f"{kind}-") and name.endswith(".csv")
    read = pd.read_csv(io.BytesIO(content))
    assert set(columns) <= set(read.columns)
    row = read.iloc[-1]
    wanted = [f"{column} = {row[column]:.3f}" for column in {"Q", "M", "V"} & set(columns)]
    if kind == "bench":
        wanted.append(f"{row['site']}: {line_text(row['slope'], row['r2'])}")
    told = poll(
        lambda: view.text_of(explorer, "numbers"), lambda told: all(one in told for one in wanted)
    )
    assert [one for one in wanted if one not in told] == []
    name, content = saved(notebook, explorer, "PNG")
    assert name.endswith(".png") and Image.open(io.BytesIO(content)).width > 1400
    name, content = saved(notebook, explorer, "SVG")
    assert name.endswith(".svg") and content.startswith(b"<?xml")


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_fills_its_column(notebook: Notebook, explorers: dict[str, Locator], kind: str):
    page, explorer = notebook.page, explorers[kind]
    image = explorer.locator("img.embvar-picture")
    for width, height in ((1920, 1080), (1000, 700)):
        view.resize(page, explorer, width, height)
        at_rest(explorer).stop()

        def sizes() -> tuple[float, float, float, float]:
            """Widths of explorer, picture and its pixels, and its height; at one instant."""
            return image.evaluate(
                """image => {
                  const { width, height } = image.getBoundingClientRect();
                  const explorer = image.closest(".embvar-explorer").getBoundingClientRect();
                  return [explorer.width, width, image.naturalWidth, height];
                }"""
            )

        def fills(now: tuple[float, float, float, float], window: int = height) -> bool:
            """Whether the picture is drawn for its room, and not enlarged."""
            whole, shown, drawn, tall = now
            return (
                max(STILL[kind], whole - 60) <= drawn <= max(STILL[kind], whole)
                and (shown > whole - 60 or shown == drawn)
                and (tall < 0.63 * window or drawn == STILL[kind])
            )

        now = poll(sizes, fills)
        assert fills(now), now
        view.laid_out(explorer)
        assert fills(sizes()), sizes()
        assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []
        page.screenshot(path=screenshot(f"{kind}-{width}"))
        if width < 1920:
            continue
        picture = at_rest(explorer)
        slider = explorer.locator(".noUi-handle").first
        slider.focus()
        ends = (slider.get_attribute(f"aria-value{end}") for end in ("now", "max"))
        there, back = (
            ("ArrowLeft", "ArrowRight") if len(set(ends)) == 1 else ("ArrowRight", "ArrowLeft")
        )
        for key in (there, back):
            received = notebook.traffic.received
            picture.press(key)
            assert notebook.traffic.received - received < 500_000, "a step's bytes stay few"
        picture.stop()
    page.set_viewport_size(WINDOW)


def test_figure_and_numbers_of_the_layers_come_out(
    notebook: Notebook, explorers: dict[str, Locator]
):
    explorer = explorers["layers"]
    at_rest(explorer).stop()
    name, content = saved(notebook, explorer, "CSV")
    assert name == "layers-minilm-Q.csv"
    read = pd.read_csv(io.BytesIO(content)).set_index("layer")
    wanted = view.statistics("minilm").decomposition().set_index("layer")
    for part in ("Q", "M", "V", "V_W", "V_B"):
        np.testing.assert_allclose(read[part], wanted[part], rtol=1e-9)
    name, content = saved(notebook, explorer, "PNG")
    assert name == "layers-minilm-Q.png" and Image.open(io.BytesIO(content)).width > 1400
    name, content = saved(notebook, explorer, "SVG")
    assert name.endswith(".svg") and b"share of" in content
    explorer.locator(".embvar-downloads button", has_text="code").click()
    told = poll(lambda: view.text_of(explorer, "downloads code"), lambda text: "restore" in text)
    assert "state.restore(shown=['minilm'], of='Q'" in told


@pytest.mark.parametrize(("width", "height"), [(1000, 700), (1440, 900)])
def test_the_bench_shows_all_three_plots_its_colours_and_its_layer(
    notebook: Notebook, explorers: dict[str, Locator], width: int, height: int
):
    page, explorer = notebook.page, explorers["bench"]
    view.resize(page, explorer, width, height)
    picture = at_rest(explorer)
    image = explorer.locator("img.embvar-picture")

    def fits() -> bool:
        drawn, shown, whole = image.evaluate(
            """image => [image.naturalWidth, image.getBoundingClientRect().width,
              image.parentElement.clientWidth]"""
        )
        return 0.75 * drawn < shown <= whole

    assert poll(fits, bool), "it scrolls not"
    assert view.text_of(explorer, "numbers").startswith("layer ")
    page.screenshot(path=screenshot(f"bench-{width}"))
    page.set_viewport_size(WINDOW)
    picture.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lecture_fills_the_screen_in_large_type(
    notebook: Notebook, explorers: dict[str, Locator], kind: str
):
    page, explorer = notebook.page, explorers[kind]
    at_rest(explorer).stop()
    view.resize(page, explorer, 1920, 1080)
    image = explorer.locator("img.embvar-picture")
    poll(lambda: image.evaluate("i => i.naturalWidth"), lambda now: now > 1600)
    at_rest(explorer).stop()
    wide = image.evaluate("i => i.naturalWidth")
    explorer.locator(".embvar-lecture-button button").click()
    page.wait_for_function("() => document.fullscreenElement")
    assert explorer.evaluate("explorer => explorer === document.fullscreenElement")
    # As for a saved page, and not for the width of the column, whose type would stay small.
    wanted = pytest.approx(2 * STILL[kind], abs=1)
    sharp = poll(lambda: image.evaluate("i => i.naturalWidth"), lambda now: now == wanted)
    assert sharp == wanted
    poll(image.bounding_box, lambda box: box["width"] > 1300)
    view.laid_out(explorer)
    box = image.bounding_box()
    assert box["width"] > 1300
    assert box["width"] / box["height"] == pytest.approx(
        image.evaluate("i => i.naturalWidth / i.naturalHeight"), rel=0.01
    )
    parts = [image, *explorer.locator(".widget-label, .widget-readout, .embvar-numbers").all()]
    for part in filter(lambda one: one.is_visible(), parts):
        place = part.bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 1920
        assert place["y"] >= 0 and place["y"] + place["height"] <= 1080, part.inner_text()
    for part in parts[1:]:
        assert part.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 20
    picture = view.watch(explorer)
    first = picture.rest()["hash"]
    handle = explorer.locator(".noUi-handle").first
    handle.focus()
    there, back = "ArrowLeft", "ArrowRight"
    if handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin"):
        there, back = back, there
    assert picture.press(there)["hash"] != first
    picture.press(back)
    assert picture.come_to(first) == first
    picture.stop()
    page.screenshot(path=screenshot(f"{kind}-lecture"))
    page.evaluate("() => document.exitFullscreen()")  # as Escape does
    poll(lambda: image.evaluate("i => i.naturalWidth"), lambda now: now == wide)
    assert image.evaluate("i => i.naturalWidth") == wide
    page.set_viewport_size(WINDOW)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_no_serious_violation_and_all_has_a_name(
    notebook: Notebook, explorers: dict[str, Locator], theme: str
):
    page = notebook.page
    notebook.choose_theme(theme)
    for kind, explorer in explorers.items():
        at_rest(explorer).stop()
        text = explorer.locator("img.embvar-picture").get_attribute("alt")
        assert re.search(r"\d\.\d", text) and len(text) > 40, text
        names = explorer.locator("button, select, input, [role=slider]").evaluate_all(
            """(all) => all.filter((one) => one.checkVisibility()).map((one) =>
              one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent)"""
        )
        assert all(name.strip() for name in names) and len(names) > 3
        assert len(set(names)) == len(names), "no two controls have the same name"
        for width, height in ((1000, 700), (1440, 900)):
            view.resize(page, explorer, width, height)
            explorer.scroll_into_view_if_needed()
            view.laid_out(explorer)
            page.screenshot(path=screenshot(f"{kind}-{width}-{theme.split()[1].lower()}"))
    page.set_viewport_size(WINDOW)
    assert view.violations(page) == {}
