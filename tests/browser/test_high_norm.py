"""The trade-off explorer on a model with tokens of high norm, whose rare tokens are not known."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator

from . import view
from .conftest import Desk, screenshot
from .notebook_page import Notebook, poll

NAME = "high_norm.ipynb"
CELLS = (
    "import embvar_kit as ek\n"
    'stats = {name: ek.cached_statistics(name, progress=False) for name in ("smollm2", "minilm")}\n'
    "explorer = ek.TradeoffExplorer(stats, layer=15)\n"
    "explorer",
)


@pytest.fixture(scope="module")
def notebook(desk: Desk) -> Notebook:
    """A notebook with the explorer."""
    return desk.write(NAME, *CELLS)


@pytest.fixture
def explorer(notebook: Notebook) -> Locator:
    """The explorer, scrolled into view."""
    (explorer,) = notebook.explorers(1)
    view.laid_out(explorer)
    view.in_the_middle(explorer.locator(".embvar-layer"))
    return explorer


def test_unticked_high_norm_tokens_are_left_out(notebook: Notebook, explorer: Locator):
    page, box = notebook.page, explorer.locator(".embvar-sinks input")
    stats = view.statistics("smollm2")
    rest = stats.without(stats.high_norm()["token"])
    whole = view.Fit.shown(explorer)
    assert whole == view.Fit.computed(explorer) and whole.layer == 15
    assert "10 times the median" in view.text_of(explorer, "numbers")
    picture = view.watch(explorer)
    before = picture.rest()
    page.screenshot(path=screenshot("high-norm-shown"))
    box.uncheck()
    fit = rest.tradeoff(min_count=10, max_count=100_000).set_index("layer").loc[15]
    shown = poll(lambda: view.Fit.shown(explorer), lambda found: found.n_tokens == fit["n_tokens"])
    assert (shown.n_tokens, shown.slope, shown.cv_Q) == pytest.approx(
        (fit["n_tokens"], fit["slope"], fit["cv_Q"]), abs=6e-4
    )
    assert shown.cv_Q < 0.5 < 10 < whole.cv_Q
    told = poll(lambda: view.text_of(explorer, "numbers"), lambda t: "ogarithmic" not in t)
    assert "ogarithmic" not in told
    now = picture.rest(changes=before["changes"])
    page.screenshot(path=screenshot("high-norm-left-out"))
    explorer.locator(".embvar-search input").fill("Lincoln")
    told = poll(lambda: view.text_of(explorer, "found"), lambda text: "left out" in text)
    assert told == "'Lincoln' is left out: of high norm."
    explorer.locator(".embvar-downloads button", has_text="code").click()
    code = poll(lambda: view.text_of(explorer, "downloads code"), lambda text: "sinks" in text)
    assert "sinks=False" in code
    view.clear(explorer)
    box.check()
    assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == whole) == whole
    picture.rest(changes=now["changes"])
    picture.stop()
    assert poll(lambda: view.cut_off(explorer), lambda found: not found) == []


def test_the_slider_begins_at_the_rarest_tokens_that_are_known(
    notebook: Notebook, explorer: Locator
):
    page = notebook.page

    def rarest(model: str) -> int:
        """The number at the left end of the slider, and that no range there is refused."""
        view.slider(explorer, "counts").focus()
        least = {"smollm2": 10, "minilm": 1}[model]
        for _ in range(20):  # with another model, the slider gets its range a moment later
            page.keyboard.press("Home")
            now = poll(lambda: view.counts(explorer)["min_count"], lambda now: now == least, 3)
            if now == least:
                break
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
        wanted = view.Fit.computed(explorer)
        assert poll(lambda: view.Fit.shown(explorer), lambda fit: fit == wanted) == wanted
        assert wanted.model == model
        page.wait_for_timeout(1500)  # a slider returns from a range that is refused after a while
        assert view.text_of(explorer, "message") == ""
        return view.counts(explorer)["min_count"]

    view.slider(explorer, "counts").focus()
    page.keyboard.press("ArrowRight")
    assert poll(lambda: view.counts(explorer)["min_count"], lambda least: least == 20) == 20
    assert rarest("smollm2") == 10
    models = explorer.locator(".embvar-model select")
    models.select_option("minilm")
    poll(lambda: view.Fit.shown(explorer).model, lambda model: model == "minilm")
    assert rarest("minilm") == 1
    models.select_option("smollm2")
    poll(lambda: view.Fit.shown(explorer).model, lambda model: model == "smollm2")
    assert poll(lambda: view.counts(explorer)["min_count"], lambda least: least == 10) == 10
    assert rarest("smollm2") == 10
