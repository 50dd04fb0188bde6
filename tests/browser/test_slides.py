"""The lecture's slides in Chromium: each fits 1280 × 720, and nothing leaves the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from .notebook_page import poll
from .servers import ROOT

WIDTH, HEIGHT = 1280, 720
WAIT = 300_000  # milliseconds, on a busy machine
SMALLEST, LARGEST = 0.8, 1.25
"""Of a figure's own pixels: below the first, labels are too small to read; above the second, a
figure is soft."""

# What of the slide that is shown lies outside the window or under the line at its foot, texts
# included, and what is cut off where it stands.
OUTSIDE = """
([width, height]) => {
  const slide = Reveal.getCurrentSlide(), found = [];
  const foot = slide.querySelector(".source");
  const lowest = foot ? foot.getBoundingClientRect().top : height;
  const look = (name, box, floor) => {
    if (!box.width || !box.height) return;
    if (box.left < -1 || box.top < -1 || box.right > width + 1 || box.bottom > floor + 1)
      found.push(`${name} at ${[box.left, box.top, box.right, box.bottom].map(Math.round)}`);
  };
  for (const element of slide.querySelectorAll("*")) {
    if (element.closest("aside, mjx-assistive-mml")) continue;
    const floor = element === foot ? height : lowest;
    look(element.tagName, element.getBoundingClientRect(), floor);
    const style = getComputedStyle(element);
    if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1)
      found.push(`${element.tagName} is cut off`);
    for (const node of element.childNodes) {
      if (node.nodeType !== Node.TEXT_NODE || !node.data.trim()) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const box of range.getClientRects()) look(`"${node.data.trim()}"`, box, floor);
    }
  }
  return found;
}
"""

SHOW = """
async (number) => {
  Reveal.slide(number);
  const images = [...Reveal.getCurrentSlide().querySelectorAll("img")];
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  do await new Promise(requestAnimationFrame);
  while (document.getAnimations().some((one) =>
    one instanceof CSSTransition && one.playState === "running"));
}
"""

FIGURES = """
() => [...Reveal.getCurrentSlide().querySelectorAll("img")].map((image) => Math.min(
  image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight))
"""

UNSET = """
() => [...Reveal.getCurrentSlide().querySelectorAll("mjx-merror, .text")]
  .filter((one) => one.tagName === "MJX-MERROR" || one.innerText.includes("$"))
  .map((one) => one.innerText)
"""


@dataclass
class Slides:
    """The open slides, and the requests that would have left the machine."""

    page: Page
    number: int
    elsewhere: list[str] = field(default_factory=list)

    def go(self, number: int) -> None:
        """Show a slide by its number, from 0; it is at rest then, and its figures are there."""
        self.page.evaluate(SHOW, number)

    def outside(self) -> list[str]:
        """What of the slide that is shown does not fit."""
        return self.page.evaluate(OUTSIDE, [WIDTH, HEIGHT])


@pytest.fixture(scope="session", autouse=True)
def statistics() -> None:
    """None: the slides show what the notebooks were saved with."""


@pytest.fixture(scope="module")
def slides(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slides]:
    """The slides as ``make slides`` renders them, once formulas are set."""
    out: Path = tmp_path_factory.mktemp("slides")
    script = ROOT / "notebooks" / "course" / "slides.py"
    subprocess.run([sys.executable, script, out], check=True, cwd=ROOT)
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(WAIT)
    page = context.new_page()
    opened = Slides(page, 0)

    def note(url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            opened.elsewhere.append(url)

    page.on("request", lambda request: note(request.url))
    page.goto((out / "index.html").as_uri())
    page.wait_for_function("window.Reveal?.isReady() && window.MathJax?.startup?.promise")
    page.evaluate("() => MathJax.startup.promise.then(() => null)")
    opened.number = page.evaluate("Reveal.getTotalSlides()")
    yield opened
    context.close()


def test_every_slide_fits(slides: Slides):
    assert slides.number >= 25
    problems = {}
    for number in range(slides.number):
        slides.go(number)
        if found := slides.outside():
            problems[number + 1] = found
    assert not problems


def test_figures_are_sharp_and_not_shrunk_and_formulas_are_set(slides: Slides):
    shown = 0
    for number in range(slides.number):
        slides.go(number)
        scales = slides.page.evaluate(FIGURES)
        shown += len(scales)
        for scale in scales:
            assert SMALLEST < scale < LARGEST, f"slide {number + 1}: {scale}"
        assert slides.page.evaluate(UNSET) == [], f"slide {number + 1}"
    assert shown > 10
    assert slides.page.locator("section mjx-container").count() > 20


def test_keys_move_through_the_slides_and_the_last_one_is_reached(slides: Slides):
    slides.go(0)
    for number in range(1, slides.number):
        slides.page.keyboard.press("ArrowRight")
        assert poll(lambda: shown(slides), lambda now, n=number: now == n) == number
    assert slides.page.evaluate("Reveal.isLastSlide()")
    slides.page.keyboard.press("ArrowLeft")
    last = slides.number - 1
    assert poll(lambda: shown(slides), lambda now: now != last) == last - 1


def shown(slides: Slides) -> int:
    """The number of the slide that is shown, from 0."""
    return slides.page.evaluate("Reveal.getIndices().h")


def test_the_speaker_sees_the_notes_of_a_slide(slides: Slides):
    slides.go(1)
    with slides.page.context.expect_page() as opened:
        slides.page.keyboard.press("s")
    notes = opened.value.locator(".speaker-controls-notes .value")
    said = slides.page.locator("section.present aside.notes strong").first.text_content()
    assert said.endswith("min.")
    notes.get_by_text(said).wait_for(timeout=WAIT)
    opened.value.close()


def test_a_formula_of_the_notes_stands_once_in_the_speakers_window(slides: Slides):
    """The text that MathJax writes for screen readers is not hidden there."""
    titles = slides.page.locator("section h2").all_text_contents()
    slides.go(titles.index("When is a slope −1?"))
    with slides.page.context.expect_page() as opened:
        slides.page.keyboard.press("s")
    notes = opened.value.locator(".speaker-controls-notes .value")
    notes.locator("mjx-container").first.wait_for(timeout=WAIT)
    assert notes.locator("mjx-assistive-mml").count() == 0
    too_wide = """(one) => [...one.querySelectorAll("mjx-container")].filter((formula) =>
      formula.firstElementChild.getBoundingClientRect().right > innerWidth).length"""
    assert poll(lambda: notes.evaluate(too_wide), lambda number: number == 0) == 0
    opened.value.close()


def test_nothing_was_asked_of_another_machine(slides: Slides):
    for number in range(slides.number):
        slides.go(number)
    slides.page.wait_for_load_state("networkidle")
    assert slides.elsewhere == []


def test_a_slide_that_does_not_fit_is_noticed(slides: Slides):
    slides.go(2)
    assert slides.outside() == []
    add = "text => Reveal.getCurrentSlide().querySelector('.text').append(text)"
    slides.page.evaluate(add, "wide" * 100)
    assert any("wide" in one for one in slides.outside())
    slides.page.evaluate("Reveal.getCurrentSlide().querySelector('.text').lastChild.remove()")
    slides.page.evaluate(add, "long " * 1000)
    assert any("long" in one for one in slides.outside())
    slides.page.evaluate("Reveal.getCurrentSlide().querySelector('.text').lastChild.remove()")
    assert slides.outside() == []
