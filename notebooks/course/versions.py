"""The three versions of the notebooks: for students, for instructors, and as they are published.

python notebooks/course/versions.py OUT [--colab ADDRESS]

writes OUT/student (exercises with a cell for the answer, and no solutions), OUT/instructor
(everything, and the notes of notebooks/course/instructor) and OUT/published (the notebooks as they
are). With an address of the kit, OUT/colab is the students' version with a cell that installs the
kit from there. Each folder can be handed on by itself: the pages that its notebooks link to are
inside it.
The tags of the source decide what goes where, so that no version is edited by hand.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Iterator
from pathlib import Path

import colab
import nbformat
from links import NOTEBOOKS, pages, relink, targets
from nbformat import NotebookNode

NOTES = Path(__file__).resolve().parent / "instructor"
NOTE = re.compile(r"^## (.+) \((\d+) minutes\)$", re.M)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def exercises_of(cell: NotebookNode) -> list[str]:
    """The exercises that a cell belongs to, by tag: ``["ex-2"]``, or two where it serves both."""
    return [tag for tag in tags(cell) if re.fullmatch(r"ex-\d+", tag)]


def student(notebook: NotebookNode) -> NotebookNode:
    """The notebook without solutions, and behind each exercise a cell for the answer.

    It is a code cell where the solution has code, and text elsewhere. Other cells keep their
    outputs, so that the notebook can be read before it is run.
    """
    new = copy.deepcopy(notebook)
    solutions = [cell for cell in new.cells if "solution" in tags(cell)]
    coded = {ex for cell in solutions if cell.cell_type == "code" for ex in exercises_of(cell)}
    cells = []
    for cell in new.cells:
        if "solution" in tags(cell):
            continue
        cells.append(cell)
        if "exercise" in tags(cell):
            (exercise,) = exercises_of(cell)
            name = f"stub-{cell.id.removeprefix('ex-')}"
            own = {"id": name, "metadata": {"tags": ["stub", exercise]}}
            if exercise in coded:
                text = f"# Exercise {exercise.removeprefix('ex-')}: your code"
                cells.append(nbformat.v4.new_code_cell(text, **own))
            else:
                cells.append(nbformat.v4.new_markdown_cell("*Your answer*", **own))
    new.cells = cells
    return new


def instructor(notebook: NotebookNode, notes: str, number: str) -> NotebookNode:
    """The notebook with notes: one behind the first cell, and one behind each section's heading.

    Args:
        notebook: as published.
        notes: the text of its file of notes. A section has the heading ``## 4.1 (10 minutes)``,
            with its number, or with its whole title if it has no number.
        number: that of the notebook, ``04``, for the ids of the cells.

    Raises:
        ValueError: if a heading gives no minutes, or if there are two notes on one section, or one
            on a section that does not exist, or if a note has a relative link.
    """
    new = copy.deepcopy(notebook)
    preface, left = read_notes(notes)
    minutes = sum(length for length, _ in left.values())
    cells = [new.cells[0], _note(f"note-{number}", minutes, preface)]
    for cell in new.cells[1:]:
        cells.extend(_annotated(cell, left, number) if cell.cell_type == "markdown" else [cell])
    if left:
        raise ValueError(f"Notes on sections that notebook {number} does not have: {[*left]}")
    new.cells = cells
    return new


def read_notes(text: str) -> tuple[str, dict[str, tuple[int, str]]]:
    """What notes say of the whole notebook, and by section their minutes and text.

    Raises:
        ValueError: if a heading gives no minutes, if there are two notes on one section, or if a
            note has a relative link.
    """
    preface, *rest = NOTE.split(re.sub(r"\A# .*\n", "", text))
    sections, lengths, texts = rest[::3], rest[1::3], rest[2::3]
    if bad := re.findall(r"(?m)^#+ .*", "".join([preface, *texts])):
        raise ValueError(f"A heading of notes is '## SECTION (N minutes)', not {bad[0]!r}")
    if len(set(sections)) < len(sections):
        raise ValueError(f"Two notes on one section: {sections}")
    if links := re.findall(r"\]\((?!https?://)[^)]*\)", text):
        raise ValueError(f"Notes name sections by their numbers and do not link to them: {links}")
    notes = zip(sections, map(int, lengths), texts, strict=True)
    return preface.strip(), {section: (length, note.strip()) for section, length, note in notes}


def _annotated(cell: NotebookNode, left: dict, number: str) -> Iterator[NotebookNode]:
    """The cell in parts, and between them the notes that belong there, which are taken from left.

    A cell may hold several headings. The first part keeps its id.
    """
    parts: list[str | NotebookNode] = [""]
    for piece in re.split(r"(?m)^(?=## )", cell.source):
        heading, _, body = piece.partition("\n")
        title = heading.removeprefix("## ")
        section = found[0] if (found := re.match(r"\d+\.\d+", title)) else title
        if heading.startswith("## ") and section in left:
            name = re.sub(r"\W+", "-", section.lower())
            parts[-1] += heading
            parts += [_note(f"note-{number}-{name}", *left.pop(section)), body]
        else:
            parts[-1] += piece
    if len(parts) == 1:
        yield cell
        return
    written = 0
    for part in parts:
        if isinstance(part, NotebookNode):
            yield part
        elif part.strip():
            name = f"{cell.id}-{written}" if written else cell.id
            yield nbformat.from_dict({**cell, "id": name, "source": part.strip("\n")})
            written += 1


def _note(name: str, minutes: int, text: str) -> NotebookNode:
    lines = f"**For the instructor: {minutes} minutes.**\n\n{text}".splitlines()
    quoted = "\n".join(f"> {line}".rstrip() for line in lines)
    return nbformat.v4.new_markdown_cell(quoted, id=name, metadata={"tags": ["instructor"]})


def build(out: Path, kit: str | None = None) -> list[str]:
    """Write the versions to ``out/student``, ``out/instructor`` and ``out/published``.

    Args:
        out: the folder.
        kit: where Colab gets the kit (see :func:`colab.code`); if it is given, ``out/colab`` is
            written, too.

    Returns:
        The names of the versions.

    Raises:
        ValueError: if a link or a note leads nowhere, if a notebook has no notes, or if ``kit`` is
            no address; nothing is written then.
    """
    paths = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if stray := {path.stem for path in paths} ^ {path.stem for path in NOTES.glob("[0-9]*.md")}:
        raise ValueError(f"Notebooks without notes, or notes without a notebook: {sorted(stray)}")
    notebooks, linked = {}, []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                linked += targets(cell.source, path)
                cell.source = relink(cell.source, path)
        notes = (NOTES / f"{path.stem}.md").read_text(encoding="utf-8")
        number = path.stem.partition("_")[0]
        notebooks["student", path.name] = student(notebook)
        notebooks["instructor", path.name] = instructor(notebook, notes, number)
        notebooks["published", path.name] = notebook
        if kit is not None:
            handed_out = notebooks["student", path.name]
            notebooks["colab", path.name] = colab.with_setup(handed_out, number, kit)
    versions = list(dict.fromkeys(version for version, _ in notebooks))
    files = {
        key: (nbformat.writes(notebook) + "\n").encode() for key, notebook in notebooks.items()
    }
    for name, page in pages(linked).items():
        files |= {(version, name): page for version in versions}
    for (version, name), content in files.items():
        file = out / version / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the versions to")
    parser.add_argument(
        "--colab", metavar="ADDRESS", help="where Colab gets the kit: git+https://... or a wheel"
    )
    chosen = parser.parse_args()
    for version in build(chosen.out, chosen.colab):
        folder = chosen.out / version
        print(f"{len([*folder.glob('*.ipynb')])} notebooks in {folder}")


if __name__ == "__main__":
    main()
