"""The course's versions of the notebooks, and the tags of the source that they are made from."""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from paths import ROOT
from test_quoted_numbers import NAMED, PRINTED_IN, unfounded
from traitlets.config import Config

sys.path.insert(0, str(ROOT / "notebooks" / "course"))

import links
import versions

NOTEBOOKS = {
    path.stem: nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
TAGS = {"parameters", "nbval-ignore-output", "quiz", "slide", "exercise", "solution", "closing"}
"""All tags but those of single exercises. ``closing`` stays in a version without solutions."""

each_notebook = pytest.mark.parametrize("stem", NOTEBOOKS)


def with_tag(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in versions.tags(cell)]


def number_of(stem: str) -> str:
    return stem.partition("_")[0]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the builder has written the versions to."""
    folder = tmp_path_factory.mktemp("course")
    versions.build(folder)
    return folder


def read(out: Path, version: str, stem: str) -> NotebookNode:
    return nbformat.read(out / version / f"{stem}.ipynb", as_version=4)


# The source


def test_ids_are_unique_over_all_notebooks():
    # Not by nbformat, which gives new ids to cells whose ids are in a notebook twice.
    paths = [ROOT / "notebooks" / f"{stem}.ipynb" for stem in NOTEBOOKS]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    ids = [cell["id"] for text in texts for cell in json.loads(text)["cells"]]
    assert sorted(ids) == sorted(set(ids))


@each_notebook
def test_tags_are_known(stem):
    for cell in NOTEBOOKS[stem].cells:
        assert {*versions.tags(cell)} - {*versions.exercises_of(cell)} <= TAGS, cell.id
        if versions.exercises_of(cell):
            assert {"exercise", "solution"} & {*versions.tags(cell)}, cell.id


@each_notebook
def test_each_exercise_has_a_hint_and_a_solution(stem):
    notebook, number = NOTEBOOKS[stem], number_of(stem)
    found = with_tag(notebook, "exercise")
    assert len(found) >= 3
    answered = [versions.exercises_of(cell) for cell in with_tag(notebook, "solution")]
    for k, cell in enumerate(found, start=1):
        assert versions.exercises_of(cell) == [f"ex-{k}"]
        assert cell.id == f"ex-{number}-{k}"
        task, hint = re.fullmatch(
            rf"\*\*Exercise {k}\.\*\* (.+?)\n\n"
            r"<details><summary>Hint</summary>\n\n(.+)\n\n</details>",
            cell.source,
            re.S,
        ).groups()
        assert len(task) > 40 and len(hint) > 40
        assert [f"ex-{k}"] in answered or any(f"ex-{k}" in several for several in answered)
    assert {ex for several in answered for ex in several} == {
        f"ex-{k}" for k in range(1, len(found) + 1)
    }


@each_notebook
def test_every_cell_behind_the_solutions_heading_is_tagged(stem):
    notebook, number = NOTEBOOKS[stem], number_of(stem)
    headings = [i for i, cell in enumerate(notebook.cells) if "## Solutions" in cell.source]
    (at,) = headings
    heading, *rest = notebook.cells[at:]
    assert heading.source == "## Solutions" and versions.tags(heading) == ["solution"]
    assert not [cell.id for cell in notebook.cells[:at] if "solution" in versions.tags(cell)]
    if rest[-1].source.startswith("**Next**"):
        assert versions.tags(rest.pop()) == []
    for cell in rest:
        if "closing" in versions.tags(cell):
            continue
        assert "solution" in versions.tags(cell) and versions.exercises_of(cell), cell.id
        serves = "-".join(ex.removeprefix("ex-") for ex in versions.exercises_of(cell))
        assert re.fullmatch(rf"sol-{number}-{serves}[a-z]?", cell.id), cell.id
        # A solution that stands in the cell of another would stay behind if the two were parted.
        labels = {f"ex-{k}" for k in re.findall(r"(?m)^\*\*(\d+)\.\*\*", cell.source)}
        assert cell.cell_type == "code" or labels <= {*versions.exercises_of(cell)}, cell.id


@each_notebook
def test_exercises_are_asked_nowhere_else(stem):
    for cell in NOTEBOOKS[stem].cells:
        if cell.cell_type == "markdown" and "exercise" not in versions.tags(cell):
            assert "**Exercise" not in cell.source, cell.id


@each_notebook
def test_files_have_one_form(stem):
    text = (ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


# What nothing may depend on

KNOWN = {*dir(builtins), "display", "get_ipython"}


def unbound(cells: list[NotebookNode]) -> list[tuple[str, str]]:
    """The names that code cells use before any of them has bound it, each with its cell's id."""
    bound, missing = set(KNOWN), []
    for cell in cells:
        if cell.cell_type != "code":
            continue
        nodes = [*ast.walk(ast.parse(re.sub(r"(?m)^%.*", "", cell.source)))]
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        for node in nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                bound.add(node.name)
        missing += [(name, cell.id) for name in sorted(used - bound)]
    return missing


@each_notebook
def test_no_cell_outside_the_solutions_uses_a_name_of_theirs(stem):
    notebook = NOTEBOOKS[stem]
    assert unbound(notebook.cells) == []
    assert unbound(versions.student(notebook).cells) == []


def test_a_name_of_a_solution_is_noticed():
    solution = new_code_cell("import os.path\nfrom a import b as c\nhalf = 1", id="sol")
    later = new_code_cell("print(half, os, c, [x for x in half], lambda y: y)", id="later")
    assert unbound([solution, later]) == []
    assert unbound([later]) == [(name, "later") for name in ("c", "half", "os")]


# The versions


def relinked(cell: NotebookNode, stem: str) -> str:
    if cell.cell_type == "code":
        return cell.source
    return links.relink(cell.source, ROOT / "notebooks" / f"{stem}.ipynb")


@each_notebook
def test_published_is_the_source_but_for_its_links(stem, out):
    new, old = read(out, "published", stem), NOTEBOOKS[stem]
    assert new.metadata == old.metadata
    for mine, source in zip(new.cells, old.cells, strict=True):
        assert mine == {**source, "source": relinked(source, stem)}


@each_notebook
def test_students_get_everything_but_the_solutions(stem, out):
    new, old = read(out, "student", stem), NOTEBOOKS[stem]
    kept = [cell for cell in old.cells if "solution" not in versions.tags(cell)]
    theirs = [cell for cell in new.cells if "stub" not in versions.tags(cell)]
    for mine, source in zip(theirs, kept, strict=True):
        assert mine == {**source, "source": relinked(source, stem)}
    assert with_tag(old, "solution") and not with_tag(new, "solution")


@each_notebook
def test_no_line_of_a_solution_is_in_a_student_version(stem, out):
    def lines(cells: list[NotebookNode]) -> set[str]:
        return {line.strip() for cell in cells for line in cell.source.splitlines()}

    old = NOTEBOOKS[stem]
    solutions = with_tag(old, "solution")
    others = [cell for cell in old.cells if not {"solution", "exercise"} & {*versions.tags(cell)}]
    own = {line for line in lines(solutions) - lines(others) if len(line) > 30}
    assert own
    text = "\n".join(cell.source for cell in read(out, "student", stem).cells)
    assert not [line for line in own if line in text]


@each_notebook
def test_each_exercise_is_followed_by_a_cell_for_the_answer(stem, out):
    cells = read(out, "student", stem).cells
    solutions = with_tag(NOTEBOOKS[stem], "solution")
    for i, cell in enumerate(cells):
        if "exercise" not in versions.tags(cell):
            continue
        (exercise,) = versions.exercises_of(cell)
        types = {one.cell_type for one in solutions if exercise in versions.exercises_of(one)}
        stub = cells[i + 1]
        assert versions.tags(stub) == ["stub", exercise]
        assert stub.id == cell.id.replace("ex-", "stub-")
        assert stub.cell_type == ("code" if "code" in types else "markdown")
        if stub.cell_type == "code":
            ast.parse(stub.source)
            assert stub.source == f"# Exercise {exercise[3:]}: your code"
            assert stub.outputs == [] and stub.execution_count is None
    stubs = [cell for cell in cells if "stub" in versions.tags(cell)]
    assert len(stubs) == len(with_tag(NOTEBOOKS[stem], "exercise"))


@each_notebook
def test_instructors_get_everything_in_its_order(stem, out):
    new, old = read(out, "instructor", stem), NOTEBOOKS[stem]
    own = [cell for cell in new.cells if "instructor" not in versions.tags(cell)]
    code = [cell for cell in old.cells if cell.cell_type == "code"]
    assert [cell for cell in own if cell.cell_type == "code"] == code
    before = "\n".join(relinked(cell, stem) for cell in old.cells)
    after = "\n".join(cell.source for cell in own)
    assert re.sub(r"\n+", "\n", before) == re.sub(r"\n+", "\n", after)


@each_notebook
def test_each_section_has_a_note_behind_its_heading(stem, out):
    cells = read(out, "instructor", stem).cells
    assert "**For the instructor:" in cells[1].source
    sections, total = 0, 0
    for i, cell in enumerate(cells):
        heading = cell.source.splitlines()[-1] if cell.source else ""
        if cell.cell_type != "markdown" or not heading.startswith("## "):
            assert (
                not re.search(r"(?m)^## ", cell.source)
                or cell.cell_type == "code"
                or ("## Quiz" in cell.source)
            ), f"no note behind a heading of {cell.id}"
            continue
        if heading == "## Solutions":
            continue
        note = cells[i + 1]
        assert versions.tags(note) == ["instructor"], heading
        minutes = int(
            re.match(r"> \*\*For the instructor: (\d+) minutes\.\*\*\n>\n> \S", note.source)[1]
        )
        assert 1 < minutes < 30
        sections, total = sections + 1, total + minutes
    assert len(with_tag(read(out, "instructor", stem), "instructor")) == sections + 1
    assert f"**For the instructor: {total} minutes.**" in cells[1].source
    notes = "\n".join(cell.source for cell in cells if "instructor" in versions.tags(cell))
    assert notes.count("**What students get wrong.**") > 1 and notes.count("**Ask.**") > 2


@each_notebook
def test_numbers_in_notes_are_printed_in_their_section(stem, out):
    missing = unfounded(out / "instructor" / f"{stem}.ipynb")
    assert not [(number, line) for number, line in missing if line.startswith(">")]


@each_notebook
def test_sections_named_in_notes_exist(stem):
    text = (versions.NOTES / f"{stem}.md").read_text(encoding="utf-8")
    named = {at for names in NAMED.findall(text) for at in re.findall(r"\d+\.\d+", names)}
    assert named <= PRINTED_IN.keys()


@pytest.mark.parametrize("version", ["student", "instructor", "published"])
def test_versions_are_valid_and_their_ids_unique(version, out):
    ids = []
    for path in sorted((out / version).glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        ids += [cell.id for cell in notebook.cells]
    assert sorted(ids) == sorted(set(ids)) and len(ids) > 300


def anchors(page: Path) -> set[str]:
    """What links call the headings of a page, as on GitHub."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("version", ["student", "instructor", "published"])
def test_links_stay_inside_a_version_and_lead_somewhere(version, out):
    folder = out / version
    followed = set()
    for document in (*folder.glob("*.ipynb"), *folder.rglob("*.md")):
        text = document.read_text(encoding="utf-8")
        if document.suffix == ".ipynb":
            text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
        for link, anchor in links.LINK.findall(text):
            target = (document.parent / link).resolve()
            assert target.is_file(), f"{document.name} links to {link}"
            assert target.is_relative_to(folder.resolve()), f"{document.name} links to {link}"
            assert not anchor or anchor[1:] in anchors(target), f"{document.name}: {link}{anchor}"
            followed.add(target.name)
    assert {"02_sequential_computation.ipynb", "past_one_machine.md", "README.md"} <= followed


def test_the_same_files_are_in_every_version(out):
    student, instructor, published = (
        {path.relative_to(out / version) for path in (out / version).rglob("*") if path.is_file()}
        for version in ("student", "instructor", "published")
    )
    assert student == instructor == published


def test_building_again_changes_nothing(out):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    versions.build(out)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


# What is refused


def annotated(notes: str) -> list[str]:
    cells = [
        new_markdown_cell("# 1 · Title"),
        new_markdown_cell(
            "End of the first cell.\n\n## 1.1 A section\n\nText.\n\n## Look\nMore.", id="a"
        ),
        new_code_cell("x = 1"),
    ]
    made = versions.instructor(new_notebook(cells=cells), notes, "01")
    return [f"{cell.id}: {cell.source}" for cell in made.cells[1:-1]]


def test_a_note_comes_between_a_heading_and_its_text():
    assert annotated(
        "# Notes\n\nIn all.\n\n## 1.1 (4 minutes)\n\nOne.\n\n## Look (3 minutes)\n\nTwo."
    ) == [
        "note-01: > **For the instructor: 7 minutes.**\n>\n> In all.",
        "a: End of the first cell.\n\n## 1.1 A section",
        "note-01-1-1: > **For the instructor: 4 minutes.**\n>\n> One.",
        "a-1: Text.\n\n## Look",
        "note-01-look: > **For the instructor: 3 minutes.**\n>\n> Two.",
        "a-2: More.",
    ]


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ("## 1.2 (4 minutes)\n\nNo such section.", "does not have: ['1.2']"),
        ("## 1.1\n\nNo minutes.", "'## SECTION (N minutes)', not '## 1.1'"),
        ("## 1.1 (4 minutes)\n\nOnce.\n\n## 1.1 (4 minutes)\n\nTwice.", "Two notes on one section"),
        ("## 1.1 (4 minutes)\n\n[A link](../README.md).", "do not link to them"),
    ],
)
def test_notes_that_do_not_fit_are_an_error(notes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        annotated(f"# Notes\n\nIn all.\n\n{notes}")


def test_links_that_lead_nowhere_are_an_error():
    document = ROOT / "notebooks" / "01_variance_formula.ipynb"
    with pytest.raises(ValueError, match=r"nowhere\.md, which is no file"):
        links.relink("[A page](reference/nowhere.md#part)", document)
    with pytest.raises(ValueError, match="no file of the repository"):
        links.relink("[A file](../../outside.md)", document)


def test_links_are_rewritten_for_the_place_of_the_document():
    notebook, page = ROOT / "notebooks" / "06_across_layers.ipynb", ROOT / "data" / "README.md"
    text = "[a](07_anisotropy.ipynb) [b](../data/README.md#x) [c](https://arxiv.org) [d](#e)"
    new = "[a](07_anisotropy.ipynb) [b](pages/data/README.md#x) [c](https://arxiv.org) [d](#e)"
    assert links.relink(text, notebook) == new
    text = "[a](../notebooks/07_anisotropy.ipynb) [b](../CHANGELOG.md)"
    assert links.relink(text, page) == "[a](../../07_anisotropy.ipynb) [b](../CHANGELOG.md)"


# A student's notebook runs


@pytest.mark.slow
def test_the_student_version_of_notebook_1_runs_to_the_end(out):
    path = out / "student" / "01_variance_formula.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        config=Config(KernelManager={"transport_encryption": "auto"}),
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "Q = 18.0, M = 16.0, V = 2.0, M + V = 18.0" in printed
    assert len([cell for cell in code if "stub" in versions.tags(cell)]) == 2
