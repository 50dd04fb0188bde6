"""The pages of the course: minutes and hours add up, and what they name exists."""

from __future__ import annotations

import json
import re
from itertools import accumulate

import pytest
from lecture import SHOWN, SLIDES
from lecture import script as course
from myst_parser.slugs import github_slugify
from paths import ROOT
from test_quoted_numbers import sections

from embvar_kit import figures

COURSE = ROOT / "notebooks" / "course"
ROUTES = (COURSE / "routes.md").read_text(encoding="utf-8")
FRONT = (COURSE / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "routes.md", "lecture.md")

BEFORE = r"\*Before the next slide, ask: (.+?)\*"
"""A question whose answer stands on the next slide."""

NUMBERS = {"an hour": 60, "half an hour": 30}


def minutes(text: str) -> int:
    """The minutes that a notebook says it takes to read and try."""
    said = re.search(r"\*\*Time\*\*: (.+?) to read and try", text)[1]
    return NUMBERS[said] if said in NUMBERS else int(re.fullmatch(r"(\d+) minutes", said)[1])


READING = {
    path.stem: minutes("".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}

TITLES = [title for path in READING for title, _ in sections(ROOT / f"notebooks/{path}.ipynb")]
SECTIONS = {found[0] for title in TITLES if (found := re.match(r"\d+\.\d+", title))}


def part(heading: str) -> str:
    """What stands under a heading of the second order."""
    return re.search(rf"^## {heading}.*?(?=^## |\Z)", ROUTES, re.M | re.S)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of a page's tables, their headings left out."""
    lines = re.findall(r"^\| (.+) \|$", text, re.M)
    found = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    rules = [at for at, row in enumerate(found) if set(row[0]) == {"-"}]
    heads = {at - 1 for at in rules} | set(rules)
    return [row for at, row in enumerate(found) if at not in heads]


def shown_in(slide) -> str:
    """A link to the section that holds what a slide shows, with the notebook if it is another's."""
    if slide.cell is None and not slide.section:
        return "text only"
    notebook, of_slide = slide.cell or (dict(course.sections())[slide.section], None)
    title = next(
        title
        for title, cells in sections(ROOT / "notebooks" / f"{notebook}.ipynb")
        if title.startswith(f"{slide.section} ") or any(cell.id == of_slide for cell in cells)
    )
    chapter = notebook.partition("_")[0].lstrip("0")
    number = re.match(r"(\d+)\.\d+", title)
    name = number[0] if number else f"{title}, before {chapter}.1"
    elsewhere = f", in notebook {chapter}" if number and number[1] != chapter else ""
    anchor = github_slugify(re.sub(r"\$[^$]*\$", "", title))  # as the site has it
    return f"[{name}](../{notebook}.ipynb#{anchor}){elsewhere}"


def timetable() -> list[list[str]]:
    """When each slide begins, where its figure is, and what its notes say is run and asked."""
    found, begins = [], 0
    for number, slide in enumerate(SLIDES, start=1):
        notes = " ".join(slide.notes.split())
        do = [f"**Live:** {live}" for live in re.findall(r"\*Live: (.+?)\*", notes)]
        do += [one[0].upper() + one[1:] for one in re.findall(r"\*Ask: (.+?)\*", notes)[:1]]
        do += [f"Before the next slide: {one}" for one in re.findall(BEFORE, notes)]
        what = [slide.title, shown_in(slide), " ".join(do) or "explain"]
        found.append([str(begins), str(number), *what])
        begins += slide.minutes
    return found


def test_the_timetable_is_that_of_the_outline():
    table = rows(part("The lecture of 90 minutes"))
    expected = timetable()
    lines = "\n".join(f"| {' | '.join(row)} |" for row in expected)
    assert table[: len(expected)] == expected, f"it should be\n{lines}"


def test_a_question_whose_slide_has_the_answer_stands_in_the_notes_of_the_slide_before():
    """The speaker sees the notes of one slide only, and a slide shows its answer at once."""
    notes = [" ".join(slide.notes.split()) for slide in SLIDES]
    assert sum(bool(re.search(BEFORE, one)) for one in notes) >= 4
    assert not re.search(BEFORE, notes[-1])
    assert not any("before you turn" in one for one in notes)


def test_slides_to_leave_out_save_what_the_page_says():
    page = " ".join(part("The lecture of 90 minutes").split())
    said = re.search(r"leave out (.+?): that saves (\d+) minutes", page)
    by_title = {slide.title: slide.minutes for slide in SLIDES}
    saved = [by_title[title] for title in re.findall(r"\*(.+?)\*", said[1])]
    assert sum(saved) == int(said[2])
    # How far ahead of the first column one is, once these slides were passed over one by one.
    ahead = [*accumulate(saved)]
    told = re.search(r"by (\d+) minutes after the first.+?by (\d+).+?by (\d+).+?by (\d+) at", page)
    assert [*map(int, told.groups())] == [*ahead[:3], ahead[-1]]


def test_what_is_shown_live_has_a_cell_on_its_slide():
    live = [slide for slide in SLIDES if "*Live:" in slide.notes]
    assert len(live) == 4
    assert all(slide in SHOWN for slide in live)


def test_the_sheet_of_symbols_stands_on_the_front_page_as_text():
    sheet = [row for rows_ in figures.SYMBOLS.values() for row in rows_]
    expected = [
        [
            one.written if "$" in one.written else f"`{one.name}`",
            one.formula,
            one.words,
            one.section,
        ]
        for one in sheet
    ]
    found = [row for row in rows(FRONT) if len(row) == 4]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in expected)
    assert found == expected, f"it should be\n{lines}"


def test_self_study_takes_the_hours_that_the_notebooks_name():
    table = rows(part("Self-study"))
    assert [re.search(r"\((?:\.\./)+(\w+)\.ipynb\)", row[0])[1] for row in table] == [*READING]
    assert [int(row[1]) for row in table] == [*READING.values()]
    text = " ".join(part("Self-study").split())
    said = re.search(r"\*\*(\d+) hours and (\d+) minutes\*\*", text)
    assert divmod(sum(READING.values()), 60) == (int(said[1]), int(said[2]))
    core = re.search(r"the first (\w+) rows.+?(\d+) hours and (\d+) minutes", text)
    number = ["one", "two", "three", "four", "five", "six", "seven", "eight"].index(core[1]) + 1
    assert divmod(sum([*READING.values()][:number]), 60) == (int(core[2]), int(core[3]))


def test_a_session_is_read_for_as_long_as_its_notebooks_take():
    found = re.findall(
        r"\*\*To read before\*\*: (.+?) \((\d+) minutes\)", " ".join(part("The seminar").split())
    )
    assert len(found) == 4
    for named, said in found:
        stems = re.findall(r"\((?:\.\./)+(\w+)\.ipynb\)", named)
        assert stems and sum(READING[stem] for stem in stems) == int(said), named


def test_each_session_fills_ninety_minutes_and_sets_its_homework():
    sessions = re.split(r"(?m)^### Session ", part("The seminar"))[1:]
    assert len(sessions) == 4
    homework = ["1_variance_formula", "2_one_pass", "3_tradeoff", "4_your_own_model"]
    for session, name in zip(sessions, homework, strict=True):
        assert sum(int(row[0]) for row in rows(session)) == 90
        assert f"`{name}`" in session


@pytest.mark.parametrize("page", PAGES)
def test_sections_and_links_of_a_page_exist(page):
    text = (COURSE / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w.])\d{1,2}\.\d(?![\d.%])(?! GB)", re.sub(r"\$[^$]*\$", "", text))
    assert set(named) <= SECTIONS
    for link in re.findall(r"\]\(([^)#:]+?)(?:#[\w-]+)?\)", text):
        assert (COURSE / link).exists(), link
