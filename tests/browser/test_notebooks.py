"""Each notebook in JupyterLab: its explorers run without an error and follow the keyboard.

Explorers are found by their calls in the notebooks, and run with the cells that they need.
Notebooks without explorers are only opened and must look right: nbval runs all cells, and text,
tables and PNG look the same in any front end.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from embvar_kit import explorers

from . import servers, view
from .conftest import Desk, screenshot
from .excerpts import calls
from .notebook_page import Notebook, poll

FOLDER = servers.ROOT / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
CALLS = {name: calls(FOLDER / name) for name in NAMES}
WITH = [name for name in NAMES if CALLS[name]]


def notebooks_with(*kinds: str):
    """Parametrize a test by the notebooks that have explorers, or explorers of these kinds."""
    names = [name for name in WITH if not kinds or set(kinds) & set(CALLS[name])]
    return pytest.mark.parametrize("opened", names, ids=lambda name: name[:2], indirect=True)


def explorers_of(opened: Notebook) -> list[Locator]:
    """All explorers of a notebook, once they are shown."""
    return opened.explorers(len(CALLS[opened.name]))


def of_kind(opened: Notebook, css: str) -> Locator:
    """The first explorer of a CSS class, scrolled into view."""
    explorer = opened.page.locator(f".embvar-explorer.embvar-{css}").first
    explorer.scroll_into_view_if_needed()
    view.laid_out(explorer)
    return explorer


def test_the_explorers_are_found():
    assert {kind for name in WITH for kind in CALLS[name]} == set(explorers.__all__)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITH)))
def test_a_notebook_without_explorers_looks_right(name: str, desk: Desk):
    notebook = desk.open(name, run=False)
    page = notebook.page
    page.wait_for_selector("mjx-container", state="attached")
    images = page.locator(".jp-RenderedImage img")
    all_there = "all => all.every((image) => image.complete && image.naturalWidth > 0)"
    assert poll(lambda: images.evaluate_all(all_there), bool)
    assert page.locator("mjx-merror").count() == 0
    assert notebook.elsewhere == []


@notebooks_with()
def test_runs_without_an_error(opened: Notebook):
    assert opened.errors() == []
    saved = opened.saved()
    numbers = [cell.execution_count for cell in saved if cell.source.strip()]
    assert numbers == list(range(1, len(numbers) + 1))
    kinds = [output.output_type for cell in saved for output in cell.outputs]
    assert "error" not in kinds
    streams = [
        output.text
        for cell in saved
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert streams == []
    assert len(explorers_of(opened)) == len(CALLS[opened.name])
    assert opened.elsewhere == [], "the notebook requested something from another machine"


@notebooks_with()
def test_sliders_move_the_picture_and_the_numbers_and_back(opened: Notebook):
    """The same value also gives the same pixels, whichever way it was reached."""
    for explorer in explorers_of(opened):
        explorer.scroll_into_view_if_needed()
        left = explorer.locator(".embvar-left")
        explorer = left if left.count() else explorer  # one of two panels
        picture = view.watch(explorer)
        picture.rest()
        handle = explorer.locator(".noUi-handle").first
        handle.focus()
        numbers = view.text_of(explorer, "numbers")
        at, most = (handle.get_attribute(f"aria-{name}") for name in ("valuenow", "valuemax"))
        there, back = "ArrowRight", "ArrowLeft"
        if at == most:
            there, back = back, there
        # The first picture may have the size of a saved page: it is drawn anew for its room.
        picture.press(there)
        assert changed_from(explorer, numbers)
        picture.press(back)
        assert told_again(explorer, numbers)
        first = picture.rest()
        assert picture.press(there)["hash"] != first["hash"]
        assert changed_from(explorer, numbers)
        picture.press(back)
        assert picture.come_to(first["hash"]) == first["hash"]
        assert told_again(explorer, numbers)
        picture.stop()


def changed_from(explorer: Locator, numbers: str) -> bool:
    """Whether the numbers of an explorer come to be others."""
    return poll(lambda: view.text_of(explorer, "numbers"), lambda text: text != numbers) != numbers


def told_again(explorer: Locator, numbers: str) -> bool:
    """Whether the numbers of an explorer come to be what they once were."""
    return poll(lambda: view.text_of(explorer, "numbers"), lambda text: text == numbers) == numbers


@notebooks_with("VariancePlayground")
def test_the_playground_shows_the_moments_of_its_sliders(opened: Notebook):
    page = opened.page
    explorer = page.locator(".embvar-explorer", has=page.locator(".embvar-mean-1")).first
    picture = view.watch(explorer)
    for css, key in (("mean-1", "ArrowLeft"), ("mean-2", "ArrowRight"), ("spread-1", "ArrowRight")):
        view.slider(explorer, css).focus()
        picture.rest()
        picture.press(key)
        m1, m2, s1, s2 = (
            view.readout(explorer, name) for name in ("mean-1", "mean-2", "spread-1", "spread-2")
        )
        M, V = m1**2 + m2**2, s1**2 + s2**2
        wanted = f"Q = {M + V:.3f} M = {M:.3f} V = {V:.3f}"
        assert poll(lambda: view.text_of(explorer, "numbers"), lambda t, w=wanted: t == w) == wanted
    picture.stop()


@notebooks_with("SequencePlayer")
def test_the_player_steps(opened: Notebook):
    """``test_player.py`` holds the numbers to the definitions; here they must add up."""
    page = opened.page
    explorer = page.locator(".embvar-explorer", has=page.locator(".embvar-k")).first
    picture = view.watch(explorer)
    view.slider(explorer, "k").focus()
    before = view.readout(explorer, "k")
    picture.rest()
    for step in (1, 2, 3):
        picture.press("ArrowRight")
        assert view.readout(explorer, "k") == before + step
        text = view.text_of(explorer, "numbers")
        Q, M, V = map(view.as_number, re.findall(r"= ([\d.,]+)", text))
        assert pytest.approx(M + V, abs=0.002) == Q
        assert V > 0
    picture.stop()


@notebooks_with("TradeoffExplorer")
def test_the_fit_follows_the_layer_and_the_choices(opened: Notebook):
    explorer = of_kind(opened, "tradeoff")
    picture = view.watch(explorer)
    picture.rest()
    view.slider(explorer).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Home", "End", "ArrowLeft"):
        picture.press(key)
        wanted = view.Fit.computed(explorer)
        assert poll(lambda: view.Fit.shown(explorer), lambda fit, w=wanted: fit == w) == wanted
    explorer.locator(".embvar-unbiased input").focus()
    picture.press("Space")
    wanted = view.Fit.computed(explorer)
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == wanted) == wanted
    picture.press("Space")
    view.slider(explorer, "counts").focus()
    picture.press("ArrowRight")
    wanted = view.Fit.computed(explorer)
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == wanted) == wanted
    picture.press("ArrowLeft")
    picture.stop()


@notebooks_with("TradeoffExplorer")
def test_hovering_shows_a_points_token_and_clicking_opens_its_card(opened: Notebook):
    explorer, page = of_kind(opened, "tradeoff"), opened.page
    picture = view.watch(explorer)
    picture.rest()
    token, told = view.hover(page, explorer, lambda: view.loneliest(explorer))
    row = view.table(explorer).loc[token]
    shown = {view.as_number(text) for text in re.findall(view.NUMBER, told)}
    for value in (row["n"], row["Q"], row["M"], row["V"]):
        assert any(np.isclose(value, one, rtol=1e-3) for one in shown), (value, told)
    page.screenshot(path=screenshot("tradeoff-hover"))
    page.mouse.down()
    page.mouse.up()
    head = poll(lambda: view.text_of(explorer, "card-head"), lambda t: t.startswith(f"{token} "))
    check_head(explorer, token, head)
    marked = poll(lambda: view.text_of(explorer, "marked"), lambda text: token in text)
    assert marked.count(token) == 1
    view.clear(explorer)
    picture.stop()


@notebooks_with("TradeoffExplorer")
def test_a_search_marks_a_token_at_every_layer_and_opens_its_card(opened: Notebook):
    explorer, page = of_kind(opened, "tradeoff"), opened.page
    picture = view.watch(explorer)
    plain = picture.rest()["hash"]
    explorer.locator(".embvar-search input").fill("state")
    head = poll(lambda: view.text_of(explorer, "card-head"), lambda t: t.startswith("state "))
    check_head(explorer, "state", head)
    assert poll(lambda: view.text_of(explorer, "marked"), lambda text: "state" in text)
    marked = poll(lambda: picture.rest()["hash"], lambda now: now != plain)
    assert marked != plain
    found = poll(explorer.locator(".embvar-matches option").all_inner_texts, bool)
    assert re.match(r"state\s+[\d,]+$", found[0])
    # The model is loaded and runs on the sentences that contain the token.
    explorer.locator(".embvar-card-contexts tr").first.wait_for(timeout=600_000)
    contexts = explorer.locator(".embvar-card-contexts b").all_inner_texts()
    assert contexts and {text.strip().lower() for text in contexts} == {"state"}
    for part in ("profile", "plane"):
        image = explorer.locator(f"img.embvar-card-{part}")
        assert poll(lambda i=image: i.evaluate("i => i.naturalWidth"), lambda width: width > 100)
    links = explorer.locator(".embvar-card-contexts a").evaluate_all("all => all.map(a => a.href)")
    assert links and all(link.startswith("https://") for link in links)
    shot(opened, explorer, "tradeoff-card")
    # At another layer the pixels differ, and the mark stays with the token.
    view.slider(explorer).focus()
    picture.press("ArrowRight")
    layer = int(view.readout(explorer))
    text = poll(lambda: view.text_of(explorer, "marked"), lambda t: f"Marked at layer {layer}" in t)
    row = view.table(explorer).loc["state"]
    numbers = [view.as_number(one) for one in re.findall(view.NUMBER, text)]
    for value in (row["Q"], row["M"], row["V"]):
        assert any(np.isclose(value, one, rtol=1e-3) for one in numbers), text
    picture.press("ArrowLeft")
    assert picture.come_to(marked) == marked
    explorer.locator(".embvar-search input").fill("stat*")
    many = poll(lambda: view.text_of(explorer, "marked"), lambda text: "mean of" in text)
    begin = view.table(explorer).index.astype(str).str.startswith("stat").sum()
    assert int(re.search(r"mean of (\d+)", many)[1]) == begin
    view.clear(explorer)
    assert picture.come_to(plain) == plain
    page.keyboard.press("Escape")
    picture.stop()


@notebooks_with("TradeoffExplorer")
def test_the_tokens_that_moved_most_are_listed_and_can_be_chosen(opened: Notebook):
    explorer = of_kind(opened, "tradeoff")
    picture = view.watch(explorer)
    picture.rest()
    explorer.locator(".embvar-compare select").select_option("layer 0")
    now, then = view.table(explorer), view.table(explorer, 0)
    moved = np.hypot(now["M"] - then["M"], now["V"] - then["V"]).nlargest(10)
    options = explorer.locator(".embvar-moved option")
    options.first.wait_for(state="attached")
    wanted = moved.index.astype(str).tolist()
    named = poll(
        lambda: [text.split()[0] for text in options.all_inner_texts()], lambda now: now == wanted
    )
    assert named == wanted
    explorer.locator(".embvar-moved select").focus()
    opened.page.keyboard.press("ArrowDown")
    head = poll(lambda: view.text_of(explorer, "card-head"), lambda text: text.startswith(named[0]))
    check_head(explorer, named[0], head)
    picture.rest()
    shot(opened, explorer, "tradeoff-moved")
    view.clear(explorer)
    explorer.locator(".embvar-compare select").select_option("no other layer")
    picture.stop()


@notebooks_with("TradeoffExplorer")
def test_a_lasso_marks_what_is_inside(opened: Notebook):
    explorer, page = of_kind(opened, "tradeoff"), opened.page
    picture = view.watch(explorer)
    picture.rest()
    found = view.table(explorer)
    axes = view.Axes(explorer)
    x, y = axes.at(found["M"].to_numpy(), found["V"].to_numpy())
    left, right = np.quantile(x, [0.4, 0.7])
    upper, lower = np.quantile(y, [0.3, 0.6])
    inside = ((x > left) & (x < right) & (y > upper) & (y < lower)).sum()
    assert inside > 50, axes.box
    wanted = pytest.approx(inside, rel=0.1)

    def marked() -> int:
        """Of how many marked tokens the mean is told."""
        told = re.search(r"mean of ([\d,]+)", view.text_of(explorer, "marked"))
        return int(view.as_number(told[1])) if told else 0

    explorer.locator('.embvar-scatter button[title*="asso"]').first.click()
    for _ in range(3):  # a busy browser drops mouse moves, and a stroke of too few is no lasso
        picture.rest()
        page.mouse.move(left, upper)
        page.mouse.down()
        for corner in ((right, upper), (right, lower), (left, lower), (left, upper)):
            page.mouse.move(*corner, steps=12)
        page.mouse.up()
        if (count := poll(marked, lambda count: count == wanted, 30)) == wanted:
            break
    assert count == wanted, "points are drawn where the axes say"
    page.screenshot(path=screenshot("tradeoff-lasso"))
    view.clear(explorer)
    picture.stop()


@notebooks_with("LayerExplorer")
def test_the_parts_follow_the_layer_and_the_choices(opened: Notebook):
    explorer = of_kind(opened, "layers")
    picture = view.watch(explorer)
    picture.rest()

    def compare() -> None:
        def close(_: object) -> bool:
            shown, computed = view.shown_parts(explorer), view.computed_parts(explorer)
            return bool(np.allclose(shown, computed, rtol=1e-3, atol=6e-4))

        assert poll(lambda: None, close) is None and close(None), (
            view.shown_parts(explorer).to_string(),
            view.computed_parts(explorer).to_string(),
        )

    compare()
    view.slider(explorer).focus()
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home"):
        if key != "Home" or view.readout(explorer) > 0:
            picture.press(key)
        compare()
    picture.press("End")
    assert view.readout(explorer) == 1, "the relative depth, as on the axis"
    compare()
    explorer.locator(".embvar-of select").focus()
    picture.press("ArrowDown")
    compare()
    explorer.locator(".embvar-absolute select").focus()
    picture.press("ArrowDown")
    compare()
    shot(opened, explorer, "layers-absolute")
    explorer.locator(".embvar-sinks input").focus()
    picture.press("Space")
    compare()
    picture.press("Space")
    explorer.locator(".embvar-absolute select").focus()
    picture.press("ArrowUp")
    explorer.locator(".embvar-of select").focus()
    picture.press("ArrowUp")
    compare()
    picture.stop()


@notebooks_with("LayerExplorer")
def test_hovering_over_a_bar_shows_its_numbers(opened: Notebook):
    explorer, page = of_kind(opened, "layers"), opened.page
    picture = view.watch(explorer)
    picture.rest()
    view.slider(explorer).focus()
    if view.readout(explorer) > 0:
        picture.press("Home")
    image = explorer.locator("img.embvar-picture")
    box = view.in_the_middle(image)
    tip = page.locator(".embvar-tip").last
    models = set(view.shown_parts(explorer).index)

    def sweep() -> dict[tuple[str, int], str]:
        """What is told as the mouse goes over the bars, by model and layer."""
        told = {}
        for x in np.linspace(0.02, 0.98, 60):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + 0.4 * box["height"])
            if tip.is_visible():
                name, layer = re.match(r"(\w+), layer (\d+)", tip.inner_text()).groups()
                told[name, int(layer)] = tip.inner_text()
        return told

    told = poll(sweep, lambda told: {name for name, _ in told} == models)
    page.screenshot(path=screenshot("layers-hover"))
    assert {name for name, _ in told} == models
    parts = view.computed_parts(explorer).loc["minilm"]
    numbers = [view.as_number(n) for n in re.findall(rf"= ({view.NUMBER})", told["minilm", 0])]
    values = [parts[f"{name}(X)"] for name in ("Q", "M", "VB", "VW")]
    shares = [value / values[0] for value in values[1:]]
    assert numbers == pytest.approx([*values, *shares], rel=2e-3, abs=1e-3)
    page.mouse.move(box["x"] + 3, box["y"] - 30)
    expect(tip).to_be_hidden()
    picture.stop()


@notebooks_with("NormalizationBench")
def test_the_bench_mixes_gamma_and_beta_in(opened: Notebook):
    explorer, page = of_kind(opened, "normalization"), opened.page
    explorer.scroll_into_view_if_needed()
    picture = view.watch(explorer)
    first, text = picture.rest(), view.text_of(explorer, "numbers")
    sites = re.findall(r"(\w+): slope (\S+), R² ([\d.]+), CV of Q ([\d.]+)", text)
    assert [site for site, *_ in sites] == ["norm_input", "standardized", "norm_output"]
    # Without both, the third plot equals the second; with both again, it is as before.
    for css in ("gamma", "beta"):
        view.slider(explorer, css).focus()
        picture.press("Home")
    without = "norm_output: slope {}, R² {}, CV of Q {}".format(*sites[1][1:])
    shown = poll(lambda: view.text_of(explorer, "numbers"), lambda now: without in now)
    assert without in shown and "slope −1.000, R² 1.000" in without
    for css in ("gamma", "beta"):
        view.slider(explorer, css).focus()
        picture.press("End")
    assert picture.come_to(first["hash"]) == first["hash"]
    assert told_again(explorer, text)
    explorer.locator(".embvar-layer select").focus()
    assert picture.press("ArrowDown")["hash"] != first["hash"]
    assert changed_from(explorer, text)
    picture.press("ArrowUp")
    assert picture.come_to(first["hash"]) == first["hash"]
    image = explorer.locator("img.embvar-picture")
    page.set_viewport_size({"width": 700, "height": 900})
    # A moment later it comes in a smaller size, which the page need not shrink as much.
    shrunk = poll(
        lambda: image.evaluate("image => image.clientWidth / image.naturalWidth"),
        lambda share: share > 0.7,
    )
    page.set_viewport_size({"width": 1280, "height": 900})
    assert shrunk > 0.7, "in a narrow window the picture scrolls, so that its text stays legible"
    picture.stop()


@pytest.mark.parametrize("width", [700, 1600])
@notebooks_with()
def test_nothing_is_cut_off_in_narrow_and_wide_windows(opened: Notebook, width: int):
    page = opened.page
    page.set_viewport_size({"width": width, "height": 2200})
    try:
        for number, explorer in enumerate(explorers_of(opened)):
            explorer.scroll_into_view_if_needed()
            picture = view.watch(explorer)
            picture.rest()
            picture.stop()
            view.laid_out(explorer)
            name = f"{opened.name[:2]}-{number}-{width}"
            explorer.screenshot(path=screenshot(name))
            assert poll(lambda e=explorer: view.cut_off(e), lambda found: not found) == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


@notebooks_with()
def test_tab_reaches_every_control(opened: Notebook):
    page = opened.page
    for explorer in explorers_of(opened):
        explorer.scroll_into_view_if_needed()
        wanted = view.controls(explorer)
        assert wanted
        explorer.locator(view.REACHABLE).first.focus()
        reached = set()
        for _ in range(120):
            names = page.evaluate(
                """() => {
                  const names = [];
                  for (let one = document.activeElement; one; one = one.parentElement) {
                    names.push(...[...one.classList].filter((n) => n.startsWith("embvar-")));
                  }
                  return names;
                }"""
            )
            if "embvar-explorer" not in names:
                break
            reached |= set(names)
            page.keyboard.press("Tab")
        assert wanted <= reached


def check_head(explorer, token: str, head: str) -> None:
    """Check that the card's first line has the token's numbers at the layer shown."""
    row = view.table(explorer).loc[token]
    layer = int(view.readout(explorer))
    shown = [view.as_number(text) for text in re.findall(rf"= ({view.NUMBER})", head)]
    assert f"layer {layer}:" in head
    assert shown == pytest.approx([row[name] for name in ("n", "Q", "M", "V")], rel=1e-3)


def shot(opened: Notebook, explorer, name: str) -> None:
    """Take a screenshot of a whole explorer, in a window that is tall enough."""
    page = opened.page
    view.resize(page, explorer, 1280, 2200)
    explorer.screenshot(path=screenshot(name))
    view.resize(page, explorer, 1280, 900)
    explorer.scroll_into_view_if_needed()
