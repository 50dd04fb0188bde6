"""The trade-off explorer's further controls: colours, filter, null, density, nearest means."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Locator

import embvar_kit as ek
from embvar_kit.explorers.tables import decimal
from embvar_kit.statistics import analysis

from . import view
from .conftest import Desk, screenshot
from .notebook_page import WINDOW, Notebook, poll

NAME = "options.ipynb"
CELL = """
import pandas as pd

import embvar_kit as ek

stats = ek.cached_statistics("minilm", progress=False)
initial = pd.Series([token[0] for token in stats.tokens.astype(str)], index=stats.tokens)
initial = initial.where(initial.isin(list("abc")), "other").rename("initial")
explorer = ek.TradeoffExplorer(stats, recall=True, columns=initial)
explorer
"""


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    """A notebook with the explorer."""
    return desk.write(NAME, CELL.strip())


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer with its options open, scrolled into view."""
    (explorer,) = notebook.explorers(1)
    explorer.scroll_into_view_if_needed()
    more = explorer.locator(".embvar-more")
    if "more" in more.inner_text():
        more.click()
    explorer.locator(".embvar-colour").wait_for()
    view.resize(notebook.page, explorer, **WINDOW)
    return explorer


def choose(explorer: Locator, css: str, text: str) -> None:
    explorer.locator(f".embvar-{css} select").select_option(text)


def legend(explorer: Locator, wanted: str) -> str:
    """The text of the legend, once it has a part that is wanted."""
    shown = poll(lambda: view.text_of(explorer, "axes-legend"), lambda text: wanted in text)
    assert wanted in shown
    return shown


def many_pixels(
    notebook: Notebook, explorer: Locator, colour: tuple[int, int, int], least: int
) -> bool:
    """Whether the plot comes to have more pixels of about a colour than ``least``."""
    return poll(lambda: pixels_of(notebook, explorer, colour), lambda n: n > least) > least


def pixels_of(notebook: Notebook, explorer: Locator, colour: tuple[int, int, int]) -> int:
    """How many pixels of the plot have about this colour."""
    picture = explorer.locator(".embvar-scatter canvas").first
    return picture.evaluate(
        """(canvas, [red, green, blue]) => new Promise((done) => requestAnimationFrame(() => {
          const sheet = document.createElement("canvas");
          [sheet.width, sheet.height] = [canvas.width, canvas.height];
          const ink = sheet.getContext("2d");
          ink.drawImage(canvas, 0, 0);
          const { data } = ink.getImageData(0, 0, sheet.width, sheet.height);
          let found = 0;
          for (let i = 0; i < data.length; i += 4) {
            const far = Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) +
              Math.abs(data[i + 2] - blue);
            found += data[i + 3] > 250 && far < 24;
          }
          done(found);
        }))""",
        list(colour),
    )


def test_the_first_view_has_no_options(notebook: Notebook):
    (explorer,) = notebook.explorers(1)
    assert explorer.locator(".embvar-more").inner_text() == "more options"
    assert explorer.locator(".embvar-colour").count() == 0


def test_points_take_the_colours_of_a_column_and_the_legend_names_it(
    notebook: Notebook, explorer: Locator
):
    picture = view.watch(explorer)
    before = picture.rest()
    choose(explorer, "colour", "residual from the line")
    marks = legend(explorer, "V minus the line, squared norm")
    assert re.search(r"≤ −[\d.]+ ?0 ?≥ [\d.]+$", marks), marks
    now = picture.rest(changes=before["changes"])
    assert now["hash"] != before["hash"]
    wine, navy = (0x67, 0x00, 0x1F), (0x08, 0x30, 0x6B)
    # One token in a hundred has the colour of an end; most of these points lie on one another.
    assert all(many_pixels(notebook, explorer, colour, 8) for colour in (wine, navy))
    notebook.page.screenshot(path=screenshot("options-residual"))
    choose(explorer, "colour", "initial")
    assert legend(explorer, "initial").split()[1:] == ["a", "b", "c", "other"]
    boxes = explorer.locator(".embvar-axes-swatch")
    assert boxes.count() == 4
    assert many_pixels(notebook, explorer, (0x33, 0x22, 0x88), 30)
    choose(explorer, "colour", "word or sub-word")
    legend(explorer, "entry of the vocabulary")
    picture.rest()
    notebook.page.screenshot(path=screenshot("options-piece"))
    choose(explorer, "colour", "occurrences (log)")
    legend(explorer, "occurrences n")
    assert picture.come_to(before["hash"]) == before["hash"]
    picture.stop()


def test_a_filter_shows_its_tokens_and_their_line(notebook: Notebook, explorer: Locator):
    whole = view.Fit.shown(explorer)
    choose(explorer, "only-by", "letters or punctuation")
    choose(explorer, "only-category", "digits")
    layer = int(view.readout(explorer))
    stats = view.statistics("minilm")
    kept = stats.table(layer, **view.counts(explorer))
    numeric = [
        any(map(str.isnumeric, token)) and not any(map(str.isalpha, token))
        for token in kept["token"]
    ]
    kept = kept[numeric]
    fit = analysis.tradeoff(*(kept[name].to_numpy() for name in "QMV"))
    wanted = f"layer {layer}: {len(kept):,} tokens (letters or punctuation: digits), slope "
    wanted += f"{decimal(fit.slope)}, R² {fit.r2:.3f}"
    text = poll(lambda: view.text_of(explorer, "numbers b"), lambda text: wanted in text)
    assert wanted in text
    explorer.locator(".embvar-search input").fill("the")
    told = poll(lambda: view.text_of(explorer, "found"), lambda text: "filter" in text)
    assert told.startswith("'the' is outside the filter (letters or punctuation: digits).")
    explorer.locator(".embvar-downloads button", has_text="code").click()
    code = poll(lambda: view.text_of(explorer, "downloads code"), lambda text: "only=" in text)
    assert "only=('characters', 'digits')" in code
    choose(explorer, "only-by", "documents")
    slider = view.slider(explorer, "only-range")

    def told_least() -> float:
        """From which number of documents on tokens are shown, as the line above the plot says."""
        text = view.text_of(explorer, "numbers b")
        found = re.search(r"documents ([\d.]+) to 104", text)
        return float(found[1]) if found else 0

    least = poll(told_least, bool)
    slider.focus()
    for _ in range(4):
        before = least
        notebook.page.keyboard.press("ArrowRight")
        least = poll(told_least, lambda now, then=before: now > then)
        assert least > before > 0
    spoken = poll(lambda: slider.get_attribute("aria-valuetext"), lambda text: float(text) == least)
    assert float(spoken) == least, "what a screen reader says of the handle"
    documents = dict(zip(stats.tokens, stats.documents, strict=True))
    tokens = stats.table(layer, **view.counts(explorer))["token"]
    count = sum(documents[token] >= least for token in tokens)
    wanted = f"{count:,} tokens (documents {least:,.4g} to 104)"
    text = poll(lambda: view.text_of(explorer, "numbers b"), lambda text: wanted in text)
    assert least > 1 and wanted in text
    choose(explorer, "only-by", "all tokens")
    assert poll(lambda: whole_again(explorer), lambda fit: fit == whole) == whole
    view.clear(explorer)


def whole_again(explorer: Locator) -> view.Fit | None:
    return None if "(" in view.text_of(explorer, "numbers b") else view.Fit.shown(explorer)


def test_the_null_is_grey_behind_the_points_and_its_line_is_told(
    notebook: Notebook, explorer: Locator
):
    picture = view.watch(explorer)
    before = picture.rest()
    grey = (0xBD, 0xBD, 0xBD)
    none = pixels_of(notebook, explorer, grey)
    explorer.locator(".embvar-null input").click()
    fit = null_fit(explorer)
    told = poll(lambda: view.text_of(explorer, "numbers"), lambda text: fit in text)
    assert fit in told
    assert many_pixels(notebook, explorer, grey, none + 500)
    notebook.page.screenshot(path=screenshot("options-null"))
    view.slider(explorer).focus()
    picture.press("ArrowRight")
    fit = null_fit(explorer)
    assert fit in poll(lambda: view.text_of(explorer, "numbers"), lambda text: fit in text)
    # The cloud is where the axes say: the middle of it is grey.
    null = view.statistics("minilm").null.table(int(view.readout(explorer)), min_count=10)

    def is_grey(colour: list[int]) -> bool:
        return max(colour) - min(colour) < 12 and colour[0] < 0xC8 and 0xBD - colour[0] < 90

    middle = null["M"].median(), null["V"].median()
    colour = poll(lambda: colour_at(explorer, place_of(explorer, *middle)), is_grey)
    assert is_grey(colour), colour
    picture.press("ArrowLeft")
    explorer.locator(".embvar-null input").click()
    assert picture.come_to(before["hash"]) == before["hash"]
    told = poll(lambda: view.text_of(explorer, "numbers"), lambda text: "permuted" not in text)
    assert "permuted" not in told
    picture.stop()


def null_fit(explorer: Locator) -> str:
    """What is to be told of the null at the layer shown."""
    fits = view.statistics("minilm").null.tradeoff().set_index("layer")
    fit = fits.loc[int(view.readout(explorer))]
    return f"Labels permuted, in grey: slope {decimal(fit['slope'])}, R² {fit['r2']:.3f}."


def place_of(explorer: Locator, M: float, V: float) -> list[float]:
    """Where in the plot M and V are, as shares of its width and height."""
    axes = view.Axes(explorer)
    (x, y), box = axes.at(M, V), axes.box
    return [float(x - box["x"]) / box["width"], float(y - box["y"]) / box["height"]]


def colour_at(explorer: Locator, place: list[float]) -> list[int]:
    """The colour of the plot at a place, as shares of its width and height."""
    return explorer.locator(".embvar-scatter canvas").first.evaluate(
        """(canvas, [x, y]) => new Promise((done) => requestAnimationFrame(() => {
          const sheet = document.createElement("canvas");
          [sheet.width, sheet.height] = [canvas.width, canvas.height];
          const ink = sheet.getContext("2d");
          ink.drawImage(canvas, 0, 0);
          done([...ink.getImageData(x * sheet.width, y * sheet.height, 1, 1).data].slice(0, 3));
        }))""",
        place,
    )


def test_dense_tokens_become_transparent_and_a_lonely_one_stays(
    notebook: Notebook, explorer: Locator
):
    picture = view.watch(explorer)
    before = picture.rest()
    found = view.table(explorer)
    token, _, _ = view.loneliest(explorer)
    place = place_of(explorer, *found.loc[token, ["M", "V"]])
    alone = colour_at(explorer, place)
    dense = place_of(explorer, *found[["M", "V"]].median())
    crowded = colour_at(explorer, dense)
    explorer.locator(".embvar-shaded input").click()
    picture.rest(changes=before["changes"])
    assert poll(lambda: colour_at(explorer, dense), lambda now: now != crowded) != crowded
    after = picture.rest()
    assert after["hash"] != before["hash"]
    assert np.abs(np.subtract(colour_at(explorer, place), alone)).max() < 40
    notebook.page.screenshot(path=screenshot("options-shaded"))
    # More than once: the values of a message come in another order each time, and one of these
    # once left the plot without points.
    for wanted in (before, after, before, after, before):
        assert picture.rest()["hash"] != wanted["hash"]
        explorer.locator(".embvar-shaded input").click()
        assert picture.come_to(wanted["hash"]) == wanted["hash"]
    picture.stop()


def test_the_nearest_means_are_listed_with_a_card(notebook: Notebook, explorer: Locator):
    explorer.locator(".embvar-search input").fill("king")
    rows = explorer.locator(".embvar-nearest option")
    assert poll(rows.count, lambda count: count == 10) == 10
    stats, layer = view.statistics("minilm"), int(view.readout(explorer))
    state = ek.TradeoffExplorer(stats, layer=layer, token="king")
    wanted = state.nearest()["token"].tolist()
    names = poll(lambda: [t.split()[0] for t in rows.all_inner_texts()], lambda n: n == wanted)
    assert names == wanted
    title = "Nearest to the mean of 'king' at layer"
    told = poll(lambda: view.text_of(explorer, "nearest-title"), lambda t: t.startswith(title))
    assert told.startswith(title)
    view.clear(explorer)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_all_options_have_names_and_nothing_is_cut_off(
    notebook: Notebook, explorer: Locator, theme: str
):
    page = notebook.page
    notebook.choose_theme(theme)
    choose(explorer, "colour", "word or sub-word")
    choose(explorer, "only-by", "documents")
    explorer.locator(".embvar-null input").click()
    explorer.locator(".embvar-search input").fill("king")
    legend(explorer, "entry of the vocabulary")
    for css, wanted in (("numbers", "documents"), ("numbers", "permuted"), ("card-head", "king ")):
        told = poll(lambda c=css: view.text_of(explorer, c), lambda text, w=wanted: w in text)
        assert wanted in told
    explorer.locator(".embvar-nearest option").first.wait_for(state="attached")
    for width, height in ((1280, 900), (1000, 700)):
        view.resize(page, explorer, width, height)
        explorer.evaluate("explorer => explorer.scrollIntoView()")
        view.laid_out(explorer)
        assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []
        texts = explorer.locator(".embvar-axes-legend").evaluate(
            """(legend) => {
              const { left, right, bottom } = legend.getBoundingClientRect();
              const plot = legend.closest(".embvar-plot");
              const y = plot.querySelector(".embvar-axes-y").getBoundingClientRect();
              const whole = plot.getBoundingClientRect();
              const canvas = plot.querySelector("canvas").getBoundingClientRect();
              return [left > y.right || bottom < y.top, left >= whole.left, right <= whole.right,
                bottom <= canvas.top + 2];
            }"""
        )
        page.screenshot(path=screenshot(f"options-{theme.split()[1].lower()}-{width}"))
        assert many_pixels(notebook, explorer, (0x33, 0x22, 0x88), 100), "points are drawn"
        assert texts == [True] * 4, "the legend leaves the axis' title and the points free"
    assert view.violations(page) == {}
    page.set_viewport_size(WINDOW)
    choose(explorer, "only-by", "all tokens")
    choose(explorer, "colour", "occurrences (log)")
    explorer.locator(".embvar-null input").click()
    view.clear(explorer)
    notebook.choose_theme("JupyterLab Light")


def test_a_lecture_shows_the_options_in_large_type(notebook: Notebook, explorer: Locator):
    page = notebook.page
    view.resize(page, explorer, 1920, 1080)
    explorer.locator(".embvar-lecture-button button").click()
    page.wait_for_function("() => document.fullscreenElement")
    assert poll(lambda: view.plot_box(explorer)["width"], lambda width: width > 1600) > 1600
    view.laid_out(explorer)
    label = explorer.locator(".embvar-colour label")
    assert label.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") >= 20
    assert poll(lambda: view.dot_size(explorer), lambda size: size > 6) > 6
    assert poll(lambda: view.cut_buttons(explorer), lambda found: not found) == []
    page.screenshot(path=screenshot("options-lecture"))
    page.evaluate("() => document.exitFullscreen()")
    page.set_viewport_size(WINDOW)
    assert poll(lambda: view.plot_box(explorer)["width"], lambda width: width < 1200) < 1200
    assert poll(lambda: view.dot_size(explorer), lambda size: size == 4) == 4
