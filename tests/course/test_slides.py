"""The lecture's outline: short slides, cells that exist, numbers that the notebooks print."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from lecture import SHOWN, SLIDES
from lecture import script as course
from paths import ROOT
from test_quoted_numbers import NAMED, NO_PROSE, PRINTED_IN, QUOTED, agrees, printed, sections

import embvar_kit as ek

NOT_MEASURED = {
    "100,000": "the paper's range",
    "36.97": "the mean of the V of three shards, weighted by their counts",
}
"""Numbers of the slides that no cell of their section prints, with what they are."""


def each(slides):
    return pytest.mark.parametrize("slide", slides, ids=lambda slide: slide.title)


def test_the_lecture_has_thirty_slides_or_so_and_ninety_minutes():
    assert 25 <= len(SLIDES) <= 35
    assert sum(slide.minutes for slide in SLIDES) == 90
    assert len({slide.title for slide in SLIDES}) == len(SLIDES)
    assert all(slide.part for slide in SLIDES)


@each(SLIDES)
def test_a_slide_is_short_and_its_notes_are_full(slide):
    assert len(slide.title) <= 60
    assert len(slide.points) <= 3
    for point in slide.points:
        assert len(re.sub(r"\\(mathbb|hat|tilde|mathrm)|[${}\\]", "", point)) <= 75, point
        assert not point.endswith(".")
    assert len(slide.notes.split()) >= 20
    assert 1 <= slide.minutes <= 5


@each(SHOWN)
def test_a_slide_shows_what_its_cell_holds(slide):
    """Figures have alternative text of their own; whatever else is read aloud as it is."""
    saved = course.saved_in(course.find_cell(*slide.cell))
    kinds = slide.show or [kind for kind in course.KINDS if kind in saved][:1]
    assert kinds and set(kinds) <= set(saved)
    assert ("figure" in kinds) == (len(slide.alt) > 60)


def test_drawings_have_alternative_text():
    drawn = [slide for slide in SLIDES if slide.figure]
    assert drawn and all(len(slide.alt) > 60 for slide in drawn)


def test_cells_with_the_tag_slide_are_those_that_the_outline_names():
    """After a change of the outline, give the cells that it names the tag, and no others."""
    tagged = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "slide" in cell["metadata"].get("tags", []):
                tagged.add((path.stem, cell["id"]))
    assert tagged == {slide.cell for slide in SHOWN}


def section_of(name: str, cell: str) -> list:
    """The cells of the section that a cell stands in."""
    for _, cells in sections(ROOT / "notebooks" / f"{name}.ipynb"):
        if any(one.id == cell for one in cells):
            return cells
    raise AssertionError(f"{name} has no cell {cell}")


def unfounded(slide) -> list[str]:
    """Numbers of a slide and its notes that neither its section prints nor one that it names."""
    values = printed(section_of(*slide.cell)) if slide.cell else []
    values = values + PRINTED_IN.get(slide.section, [])
    text = NO_PROSE.sub(" ", f"{slide.title}\n{slide.body}\n{slide.notes}").replace("{,}", ",")
    text = " ".join(text.replace("\n>", "\n").split())
    for names in NAMED.findall(text):
        for at in re.findall(r"\d+\.\d+", names):
            values = values + PRINTED_IN[at]
    quoted = QUOTED.finditer(NAMED.sub(" ", text.replace("$-", "$ -")))
    return [
        found["number"]
        for found in quoted
        if not agrees(found["number"], bool(found["percent"]), values)
    ]


def test_numbers_of_a_slide_are_printed_in_its_section():
    missing = {(slide.title, number) for slide in SLIDES for number in unfounded(slide)}
    assert {number for _, number in missing} == set(NOT_MEASURED), missing


def test_numbers_of_the_answers_are_printed_in_the_sections_that_they_name():
    """Each of the ten answers names a section, or says that nothing here answers."""
    page = course.OUTLINE.read_text(encoding="utf-8")
    answers = page.partition("## Questions you will be asked")[2]
    questions = re.split(r"(?m)^(?=\*\*\d+\. )", answers)[1:]
    assert [one.partition(".")[0] for one in questions] == [f"**{at}" for at in range(1, 11)]
    missing = set()
    for one in questions:
        assert NAMED.search(" ".join(one.split()))
        missing |= set(unfounded(course.Slide("", notes=one)))
    assert missing == {"92,961", "2.64", "2.91"}, "forty permutations, which no cell makes"


def test_numbers_of_the_notes_that_no_cell_prints():
    """The mean V of three shards, and two clouds of the explorer that have the same Q."""
    (text,) = [slide for slide in SLIDES if slide.title == "Partial results merge exactly"]
    lines = course.saved_in(course.find_cell(*text.cell))["text"].content.splitlines()
    shards = [re.findall(r"[\d.]+", line) for line in lines if line.startswith("shard")]
    assert len(shards) == 3
    weights, widths = ([float(one[at]) for one in shards] for at in (0, 2))
    assert f"{np.average(widths, weights=weights):.2f}" == "36.97"
    (pair,) = [slide for slide in SLIDES if slide.title == "Find two clouds with the same Q"]
    means_and_spreads = {
        (2, 1, 0.8, 0.4): "5.80 = 5.00 + 0.80",
        (1.1, 0.3, 1.5, 1.5): "5.80 = 1.30 + 4.50",
    }
    explorer = ek.VariancePlayground()
    for values, told in means_and_spreads.items():
        names = ("mean_1", "mean_2", "spread_1", "spread_2")
        explorer.state.restore(**dict(zip(names, values, strict=True)))
        found = explorer.state.moments
        assert told == f"{found['Q']:.2f} = {found['M']:.2f} + {found['V']:.2f}"
        assert f"`{told}`" in pair.notes


def test_a_wrong_number_is_noticed():
    slide = next(slide for slide in SLIDES if slide.title == "The trade-off")
    assert unfounded(slide) == []
    slide = course.read_outline(
        "### A\n\n- Slope $-0.12345$ of 87,654 tokens\n\ncell: 03_extract_statistics#8be239c1\n\n"
        "> **1 min.** In section 3.6 it is 0.93, and nowhere 0.98765.\n"
    )[0]
    assert unfounded(slide) == ["0.12345", "87,654", "0.98765"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("### A\n- point\n", "minutes"),
        ("### A\ncell: 01_variance_formula\n> **1 min.** Say.\n", "notebook#id"),
        ("### A\nshow: video\n> **1 min.** Say.\n", "nothing of the kind video"),
        ("### A\nfigure: V_on_M\n> **1 min.** Say.\n", "none of blocks, symbol_sheet"),
        ("### A\nsection: 99.9\n> **1 min.** Say.\n", "no notebook has a section '99.9'"),
    ],
)
def test_an_outline_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(course.OutlineError, match=message):
        course.read_outline(text)


def test_a_cell_that_is_not_there_is_named():
    with pytest.raises(course.OutlineError, match="no cell 'nowhere'"):
        course.find_cell("01_variance_formula", "nowhere")
    with pytest.raises(course.OutlineError, match="no notebook '99_none'"):
        course.find_cell("99_none", "nowhere")


@pytest.mark.parametrize(("show", "lacking"), [("", "output"), ("show: code, text\n", "text")])
def test_a_slide_of_a_cell_without_its_output_is_refused(show, lacking, tmp_path, monkeypatch):
    """As JupyterLab saves a notebook in which the output of a cell was cleared."""
    (slide,) = course.read_outline(f"### A\ncell: 01_lecture#ab\n{show}> **1 min.** Say.\n")
    cell = nbformat.v4.new_code_cell("print(1)", id="ab")
    cell.outputs = [nbformat.v4.new_output("stream", text="1\n")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path)
    nbformat.write(notebook, tmp_path / "01_lecture.ipynb")
    course._fill(slide, tmp_path)
    assert "1" in slide.shown[-1]
    cell.outputs = []
    nbformat.write(notebook, tmp_path / "01_lecture.ipynb")
    with pytest.raises(course.OutlineError) as refused:
        course._fill(slide, tmp_path)
    message = str(refused.value)
    assert message.startswith("'A': the cell ab of notebooks/01_lecture.ipynb was saved without")
    assert f"without {lacking} to show" in message
    assert message.endswith("git restore notebooks/01_lecture.ipynb")


def test_the_foot_of_a_slide_names_the_section():
    """In words that lead a reader there; the id of a cell leads nobody."""
    for slide in SLIDES:
        source = course.source_of(slide)
        assert bool(source) == bool(slide.cell or slide.section), slide.title
        assert re.fullmatch(r"(notebook \d+b?, (section \d+\.\d+|Look first))?", source)
    by_title = {slide.title: course.source_of(slide) for slide in SLIDES}
    assert by_title["Before training"] == "notebook 5b, section 5.6"
    assert by_title["When is a slope −1?"] == "notebook 4, section 4.4"


def test_the_outline_is_read_as_it_stands():
    first, second = course.read_outline(
        "# For readers\n\nNot a slide.\n\n## Part\n\n### A\n\n- one\n- two $x$\n\n"
        "cell: 01_variance_formula#ab\nshow: code, text\n\n> **2 min.** Say\n> this.\n\n"
        "### B\n\nfigure: blocks\nalt: A drawing.\n\n> **3 min.** Draw.\n"
    )
    assert (first.part, first.title, first.minutes) == ("Part", "A", 2)
    assert first.points == ["one", "two $x$"]
    assert first.cell == ("01_variance_formula", "ab") and first.show == ("code", "text")
    assert first.notes == "**2 min.** Say\nthis."
    assert (second.figure, second.alt, second.body) == ("blocks", "A drawing.", "")


class Page(HTMLParser):
    """What a page loads and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.alt: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.alt.append(found.get("alt"))
        self.loads += [found[name] for name in ("src", "href") if found.get(name)]


@pytest.mark.slow
def test_the_rendered_slides_are_whole_and_need_no_network(tmp_path):
    slides = course.render(tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.tags.count("section") == page.tags.count("aside") == len(slides) == len(SLIDES)
    files = [name for name in page.loads if not name.startswith("data:")]
    assert len(files) > len(page.alt) > 10
    for name in files:
        assert (tmp_path / name).is_file(), name
    for style in (tmp_path / "revealjs").glob("**/*.css"):
        if style.name in {"reset.css", "reveal.css", "white.css"}:
            assert not re.search(r"(url\(|@import)\s*['\"]?https?:", style.read_text("utf-8"))
    assert all(page.alt)
    for slide in SHOWN:
        if (picture := tmp_path / "figures" / f"{slide.cell[1]}.png").exists():
            saved = course.saved_in(course.find_cell(*slide.cell))["figure"].content
            assert picture.read_bytes() == base64.b64decode(saved)
    for name in course.SHEETS:
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
