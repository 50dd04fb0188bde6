"""Homework that grades itself: release the assignments, and grade what comes back.

    python notebooks/course/homework.py release FOLDER
    python notebooks/course/homework.py grade SUBMISSION.ipynb... [--table marks.csv]
        [--marks filled.csv] [--feedback FOLDER]
    python notebooks/course/homework.py course FOLDER

``release`` writes the students' versions. ``grade`` prints the points of each exercise and what the
failing tests say; ``--table`` writes them to a file, ``--marks`` reads the file with the points and
comments that a person has filled in, and ``--feedback`` writes a page for each student. ``course``
makes a course folder for nbgrader's own commands and its form, the Formgrader. nbgrader does the
work, in a temporary course folder; the sources in ``notebooks/course/homework`` are only read.
Grading runs a student's code as the user who calls it.
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
from contextlib import contextmanager, suppress
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
        comment: what a person says; empty if nothing.
    """

    cell: str
    exercise: str
    earned: float | None
    points: float
    message: str
    comment: str = ""


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
    def title(self) -> str:
        """The title of the assignment."""
        first, *_ = nbformat.read(assignments()[self.assignment], as_version=4).cells
        return first.source.splitlines()[0].removeprefix("# ")

    @property
    def earned(self) -> float:
        """Points earned so far, without those that a person has still to give."""
        return sum(mark.earned or 0.0 for mark in self.marks)

    @property
    def by_hand(self) -> float:
        """Points that a person has still to give."""
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
        said, answer = {}, None
        for cell in cells:
            if is_grade(cell) and not is_solution(cell):
                said[cell.metadata.nbgrader.grade_id] = _message(cell, answer)
            elif is_solution(cell):
                answer = cell
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
                lines.append(_indented(mark, mark.message))
            if mark.comment:
                lines.append(_indented(mark, f"comment: {mark.comment}"))
    return "\n".join([*lines, _total(grade.marks, "in all")])


def _indented(mark: Mark, said: str) -> str:
    said = said.replace("\n", "\n" + " " * 14)
    return f"{' ' * 12}- {mark.cell} ({mark.points:g}): {said}"


def _total(marks: Sequence[Mark], what: str) -> str:
    earned = sum(mark.earned or 0.0 for mark in marks)
    by_hand = sum(mark.points for mark in marks if mark.earned is None)
    of = f"{earned:5g} of {sum(mark.points for mark in marks):<4g}"
    return f"{of} {what}" + (f", {by_hand:g} still to give by hand" if by_hand else "")


def _message(test: nbformat.NotebookNode, answer: nbformat.NotebookNode | None) -> str:
    """What a test said when it failed, or why the answer above it left it nothing to test."""
    for output in test.outputs:
        if output.output_type == "error":
            if output.ename == "AssertionError":
                return output.evalue
            if output.ename == "NameError":
                return _stopped(answer) or (
                    f"{output.evalue}. It is misspelt, or no cell above sets it."
                )
            return _error(output)
        if output.output_type == "stream" and output.name == "stderr":
            return f"the test wrote to stderr: {output.text.strip()}"
    return ""


def _stopped(answer: nbformat.NotebookNode | None) -> str:
    """With which error the cell of an answer stopped; empty if it did not."""
    for output in answer.get("outputs", ()) if answer else ():
        if output.output_type == "error":
            said = _error(output)
            if said == NOT_ANSWERED:
                return said
            return f"the cell {answer.metadata.nbgrader.grade_id} stopped: {said}"
    return ""


def _error(output: nbformat.NotebookNode) -> str:
    if output.ename == "NotImplementedError":
        return NOT_ANSWERED
    # IPython names a file of its own in which a syntax error is, before the line.
    value = re.sub(r"\(\S+, line (\d+)\)$", r"(line \1)", output.evalue)
    return f"{output.ename}: {value}".removesuffix(": ")


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


def _read_marks(path: Path, submissions: Sequence[Path]) -> dict[tuple[Path, str], dict]:
    """The points and comments of a filled-in table, by submission and cell, as fields of a mark.

    Raises:
        HomeworkError: if the file is no such table, or a row of it cannot be counted.
    """
    known, found = {}, {}
    for submission in submissions:
        with suppress(HomeworkError):  # of what cannot be graded; grading says so
            cells = graded_cells(assignments()[assignment_of(submission)])
            known |= {(submission.resolve(), cell): points for cell, _, points in cells}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="")
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeError, csv.Error) as error:
        raise HomeworkError(f"{path} cannot be read: {error}.") from error
    missing = {"submission", "cell", "earned", "comment"} - set(table.fieldnames or ())
    if missing:
        raise HomeworkError(
            f"{path} has no column {', '.join(sorted(missing))}, separated from others by a comma."
        )
    for line, row in rows:
        where, earned = f"{path}, line {line}", row["earned"].strip()
        key = Path(row["submission"]).resolve(), row["cell"]
        if key not in known:
            raise HomeworkError(
                f"{where}: no submission {row['submission']} with a cell {row['cell']} is graded."
            )
        if key in found:
            raise HomeworkError(f"{where}: {row['cell']} has had a row before.")
        found[key] = {"comment": row["comment"].strip()}
        if not earned:
            continue
        try:
            points = float(earned)
        except ValueError:
            raise HomeworkError(f"{where}: {earned!r} is not a number of points.") from None
        if not 0 <= points <= known[key]:
            raise HomeworkError(
                f"{where}: {earned} points; {row['cell']} can earn from 0 to {known[key]:g}."
            )
        found[key]["earned"] = points
    return found


def _pages(submissions: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the page of each submission goes: in folders like those that they were collected in."""
    together = Path(os.path.commonpath([path.resolve().parent for path in submissions]))
    return {
        path: folder / f"{str(path.resolve().relative_to(together)).removesuffix('.ipynb')}.html"
        for path in submissions
    }


def _grade_all(
    submissions: Sequence[Path], table: Path | None, marks: Path | None, folder: Path | None
) -> int:
    grades, problems = {}, 0
    by_hand = _read_marks(marks, submissions) if marks else {}
    pages = _pages(submissions, folder) if folder else {}
    for page in pages.values():
        try:
            page.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeworkError(f"No page can be written to {folder}: {error.strerror}.") from error
    with temporary_course() as course:
        for submission in submissions:
            try:
                grade = course.grade(submission)
            except HomeworkError as error:
                problems += 1
                print(error, file=sys.stderr)
                continue
            changed = []
            for mark in grade.marks:
                filled_in = mark._replace(**by_hand.get((submission.resolve(), mark.cell), {}))
                changed.append(filled_in)
                if mark.earned not in (None, filled_in.earned):
                    print(
                        f"{submission}: {mark.cell} earned {mark.earned:g} when it was graded, and "
                        f"has {filled_in.earned:g} in {marks}, which counts.",
                        file=sys.stderr,
                    )
            grades[submission] = grade = grade._replace(marks=tuple(changed))
            print(f"{submission}: {grade.assignment}")
            print(report(grade), flush=True)
            if folder:
                try:
                    name = pages[submission].relative_to(folder).with_suffix("")
                    pages[submission].write_text(feedback.page(grade, f"{name}.ipynb"), "utf-8")
                except Exception as error:  # a notebook can be broken in any way
                    problems += 1
                    print(f"{submission}: no page was made of it ({error}).", file=sys.stderr)
    if len(grades) > 1:
        print("all submissions")
        for submission, grade in grades.items():
            print(_total(grade.marks, f"{submission}: {grade.assignment}"))
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
    one.add_argument("--marks", type=Path, help="read points and comments from such a CSV file")
    one.add_argument("--feedback", type=Path, metavar="FOLDER", help="also write a page for each")
    one = commands.add_parser("course", help="make a course folder for nbgrader's own commands")
    one.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "grade":
            return _grade_all(chosen.submissions, chosen.table, chosen.marks, chosen.feedback)
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
