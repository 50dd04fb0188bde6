"""Homework that grades itself: release the assignments, and grade what comes back.

    python notebooks/course/homework.py release FOLDER
    python notebooks/course/homework.py grade SUBMISSION.ipynb... [--table marks.csv]
        [--feedback FOLDER]
    python notebooks/course/homework.py course FOLDER

``release`` writes the students' versions. ``grade`` prints the points of each exercise and what the
failing tests say; with ``--feedback`` it also writes a page for each student. ``course`` makes a
course folder for nbgrader's own commands, such as ``nbgrader formgrader``. nbgrader does the work,
in a temporary course folder; the sources in ``notebooks/course/homework`` are only read. Grading
runs a student's code as the user who calls it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import feedback
import nbformat
from nbformat.warnings import MissingIDFieldWarning
from nbgrader.apps.api import NbGraderAPI
from nbgrader.utils import is_grade, is_solution
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

SOURCE = Path(__file__).resolve().parent / "homework"
"""Where the source notebooks are, each an assignment of its own."""

CELL_TIMEOUT = 300
"""Seconds after which a cell of a submission is interrupted, and its points are lost."""

NOT_ANSWERED = "not answered yet."

_SETTINGS = {
    "CourseDirectory": {"course_id": "embvar-kit"},
    "Execute": {"timeout": CELL_TIMEOUT},
    # Without encryption, each kernel warns that it has none.
    "KernelManager": {"transport_encryption": "auto"},
    # A test that a student deleted is put back, and graded.
    "OverwriteCells": {"add_missing_cells": True},
}


class HomeworkError(Exception):
    """A submission or an assignment that cannot be dealt with; the message says why."""


class Mark(NamedTuple):
    """The points of one graded cell.

    Attributes:
        cell: nbgrader's id of the cell.
        exercise: the heading that the cell stands under.
        earned: points earned; ``None`` where a person has to give them.
        points: points that can be earned.
        message: what the failing test says; empty where there is nothing to say.
    """

    cell: str
    exercise: str
    earned: float | None
    points: float
    message: str


class Grade(NamedTuple):
    """The marks of one submission.

    Attributes:
        assignment: name of the assignment.
        marks: one for each graded cell, in the order of the notebook.
        run: the submission with the output of all its tests, in the course folder.
    """

    assignment: str
    marks: tuple[Mark, ...]
    run: Path

    @property
    def earned(self) -> float:
        """Points earned so far, without those that a person has to give."""
        return sum(mark.earned or 0.0 for mark in self.marks)

    @property
    def by_hand(self) -> float:
        """Points that a person may still give."""
        return sum(mark.points for mark in self.marks if mark.earned is None)

    @property
    def points(self) -> float:
        """Points that can be earned in the assignment."""
        return sum(mark.points for mark in self.marks)


def assignments() -> dict[str, Path]:
    """The source notebook of each assignment, by name."""
    return {path.stem: path for path in sorted(SOURCE.glob("[0-9]_*.ipynb"))}


class Course:
    """A course folder of nbgrader with the assignments in it.

    Attributes:
        folder: where it is; ``release/NAME/NAME.ipynb`` is the students' version of an assignment
            once :meth:`release` was called for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        for name, path in assignments().items():
            place = self.folder / "source" / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / path.name)
        _find_scripts()
        config = Config(_SETTINGS)
        config.CourseDirectory.root = str(self.folder)
        self._nbgrader = NbGraderAPI(config=config)
        self._nbgrader.log_level = "ERROR"
        self._graded = 0

    def release(self, name: str) -> Path:
        """Make the students' version of an assignment, unless it is there; returns its path.

        Raises:
            HomeworkError: if nbgrader refuses the source notebook.
        """
        path = self.folder / "release" / name / f"{name}.ipynb"
        if not path.is_file():
            _require(self._nbgrader.generate_assignment(name), f"{name} cannot be released")
        return path

    def grade(self, submission: Path) -> Grade:
        """Run a submission with all tests of its assignment, the hidden ones as well.

        Args:
            submission: a notebook that was made from a students' version, under any name.

        Raises:
            HomeworkError: if it is no notebook of this course, or could not be run to its end.
        """
        name = assignment_of(submission)
        self.release(name)
        self._graded += 1
        student = f"submission-{self._graded}"
        place = self.folder / "submitted" / student / name
        place.mkdir(parents=True)
        shutil.copyfile(submission, place / f"{name}.ipynb")
        run = self.folder / "autograded" / student / name / f"{name}.ipynb"
        with warnings.catch_warnings():
            # Of nbgrader's own queries, and of a test that it put back: of no consequence.
            warnings.simplefilter("ignore", SAWarning)
            warnings.simplefilter("ignore", MissingIDFieldWarning)
            _require(self._nbgrader.autograde(name, student), f"{submission} cannot be graded")
            cells = nbformat.read(run, as_version=4).cells
        said = {
            cell.metadata.nbgrader.grade_id: _message(cell)
            for cell in cells
            if is_grade(cell) and not is_solution(cell)
        }
        with self._nbgrader.gradebook as gradebook:
            (notebook,) = gradebook.find_submission(name, student).notebooks
            earned = {grade.name: grade.auto_score for grade in notebook.grades}
        marks = []
        for cell, exercise, points in graded_cells(assignments()[name]):
            # What is read by a person has no score yet, or none for an answer left as it was.
            message = said.get(cell, "" if earned[cell] is None else NOT_ANSWERED)
            marks.append(Mark(cell, exercise, earned[cell], points, message))
        return Grade(name, tuple(marks), run)


@contextmanager
def temporary_course() -> Iterator[Course]:
    """A course folder that is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="embvar-homework-") as folder:
        yield Course(Path(folder))


def graded_cells(path: Path) -> list[tuple[str, str, float]]:
    """The id, exercise and points of each graded cell of a notebook."""
    found, heading = [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.splitlines()[0].removeprefix("## ")
        if is_grade(cell):
            about = cell.metadata.nbgrader
            found.append((about.grade_id, heading, float(about.points)))
    return found


def assignment_of(submission: Path) -> str:
    """The assignment that a submission answers: the one that it has most graded cells of.

    Raises:
        HomeworkError: if it is no notebook, or has none of their cells.
    """
    try:
        cells = nbformat.read(submission, as_version=4).cells
    except OSError as error:
        raise HomeworkError(f"{submission} cannot be read: {error.strerror}.") from error
    except Exception as error:  # nbformat raises errors of many kinds for what is no notebook
        raise HomeworkError(f"{submission} is no notebook: {error}") from error
    ids = {cell.metadata.get("nbgrader", {}).get("grade_id") for cell in cells}
    shared = {
        name: len(ids & {cell for cell, *_ in graded_cells(path)})
        for name, path in assignments().items()
    }
    name = max(shared, key=shared.get)
    if not shared[name]:
        raise HomeworkError(
            f"{submission} has no graded cell of {', '.join(shared)}: it was not made from a "
            "released assignment, or its cells lost their metadata."
        )
    return name


def release(folder: Path) -> list[Path]:
    """Write the students' versions into a folder; returns their paths.

    Raises:
        HomeworkError: if the folder is that of the sources, or nbgrader refuses a source.
    """
    if folder.resolve() == SOURCE:
        raise HomeworkError(f"{folder} holds the sources: release into another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_course() as course:
        return [Path(shutil.copy(course.release(name), folder)) for name in assignments()]


def report(grade: Grade) -> str:
    """The marks of a submission as text: a line for each exercise, and what failing tests say."""
    lines = []
    for exercise in dict.fromkeys(mark.exercise for mark in grade.marks):
        marks = [mark for mark in grade.marks if mark.exercise == exercise]
        lines.append(_total(marks, exercise))
        for mark in marks:
            if mark.message:
                said = mark.message.replace("\n", "\n" + " " * 14)
                lines.append(f"{' ' * 12}- {mark.cell} ({mark.points:g}): {said}")
    return "\n".join([*lines, _total(grade.marks, "in all")])


def _total(marks: Sequence[Mark], what: str) -> str:
    tested = [mark for mark in marks if mark.earned is not None]
    by_hand = sum(mark.points for mark in marks if mark.earned is None)
    earned = sum(mark.earned for mark in tested)
    of = f"{earned:5g} of {sum(mark.points for mark in tested):<4g}" if tested else " " * 13
    return f"{of} {what}" + (f" [{by_hand:g} by hand]" if by_hand else "")


def _message(cell: nbformat.NotebookNode) -> str:
    """What a graded cell said when it failed."""
    for output in cell.outputs:
        if output.output_type == "error":
            if output.ename == "NotImplementedError":
                return NOT_ANSWERED
            if output.ename == "AssertionError":
                return output.evalue
            if output.ename == "NameError":
                return f"{output.evalue}: the cell that defines it was not answered, or stopped."
            return f"{output.ename}: {output.evalue}".removesuffix(": ")
        if output.output_type == "stream" and output.name == "stderr":
            return f"the test wrote to stderr: {output.text.strip()}"
    return ""


def _require(result: dict, problem: str) -> None:
    """Raise the first error that a call of nbgrader's API met, if it failed."""
    if not result["success"]:
        text = result.get("log", "") + result["error"]
        errors = re.findall(r"^\s*(?:\w+\.)*(\w*(?:Error|Exception)\b.*)$", text, re.M)
        raise HomeworkError(f"{problem}: {errors[0] if errors else text.strip()}")


def _find_scripts() -> None:
    """Put the environment's commands on the path: nbgrader calls one of them, alembic, by name."""
    scripts, path = sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((scripts, path))


def _write_table(path: Path, grades: dict[Path, Grade]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("submission", "assignment", *Mark._fields))
        for submission, grade in grades.items():
            table.writerows((submission, grade.assignment, *mark) for mark in grade.marks)


def _pages(submissions: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the page of each submission goes: in folders like those that they were collected in."""
    together = Path(os.path.commonpath([path.resolve().parent for path in submissions]))
    return {
        path: folder / f"{str(path.resolve().relative_to(together)).removesuffix('.ipynb')}.html"
        for path in submissions
    }


def _grade_all(submissions: Sequence[Path], table: Path | None, folder: Path | None) -> int:
    grades, problems = {}, 0
    pages = _pages(submissions, folder) if folder else {}
    for page in pages.values():
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeworkError(f"No page can be written to {folder}: {error.strerror}.") from error
    with temporary_course() as course:
        for submission in submissions:
            try:
                grades[submission] = course.grade(submission)
            except HomeworkError as error:
                problems += 1
                print(error, file=sys.stderr)
                continue
            print(f"{submission}: {grades[submission].assignment}")
            print(report(grades[submission]), flush=True)
            if folder:
                try:
                    page = feedback.page(grades[submission], submission.name)
                    pages[submission].write_text(page, "utf-8")
                except Exception as error:  # a notebook can be broken in any way
                    problems += 1
                    print(f"{submission}: no page was made of it ({error}).", file=sys.stderr)
    if table:
        _write_table(table, grades)
    return 1 if problems else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("release", help="write the students' versions")
    one.add_argument("folder", type=Path)
    one = commands.add_parser("grade", help="grade submissions and print the points")
    one.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSION")
    one.add_argument("--table", type=Path, help="also write the marks to this CSV file")
    one.add_argument("--feedback", type=Path, metavar="FOLDER", help="also write a page for each")
    one = commands.add_parser("course", help="make a course folder for nbgrader's own commands")
    one.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "grade":
            return _grade_all(chosen.submissions, chosen.table, chosen.feedback)
        if chosen.command == "release":
            written = release(chosen.folder)
        else:
            written = make_course(chosen.folder)
    except HomeworkError as error:
        print(error, file=sys.stderr)
        return 1
    print(*written, sep="\n")
    return 0


def make_course(folder: Path) -> list[Path]:
    """Make a course folder with sources, students' versions, gradebook and nbgrader's settings.

    Raises:
        HomeworkError: if the folder is not empty, or nbgrader refuses a source.
    """
    if folder.exists() and any(folder.iterdir()):
        raise HomeworkError(f"{folder} is not empty: a course is made in a new folder.")
    course = Course(folder)
    written = [course.release(name) for name in assignments()]
    lines = [
        f"c.{section}.{name} = {value!r}"
        for section, values in _SETTINGS.items()
        for name, value in values.items()
    ]
    settings = "\n".join(["c = get_config()  # noqa: F821", *lines])
    (folder / "nbgrader_config.py").write_text(settings + "\n", encoding="utf-8")
    return written


if __name__ == "__main__":
    sys.exit(main())
