"""A page for a student: marks, what the failing tests say, and the notebook as it was run.

``homework.py grade --feedback FOLDER`` writes one for each submission. A page is a single file that
needs no network: MathJax stands in it, copied from the package *sphinx-mathjax-offline*.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import bleach
import jinja2
import nbformat
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

if TYPE_CHECKING:
    from homework import Grade

HERE = Path(__file__).resolve().parent
TAGS = bleach.ALLOWED_TAGS | {
    *("p", "br", "hr", "div", "span", "pre", "sub", "sup", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td", "img"),
}


def page(grade: Grade, submission: str) -> str:
    """The page of a submission, in HTML.

    A cell that is graded carries its points and, if its test failed, what the test says. Tests are
    folded; they include the part that was hidden when the student wrote the answer.

    Args:
        grade: the marks, and where the notebook lies with the output of all its tests.
        submission: the name of the file that was handed in.
    """
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        sanitize_html=True,
        filters={"clean_html": _clean},
    )
    marks = {mark.cell: mark for mark in grade.marks}
    cells = []
    for cell in nbformat.read(grade.run, as_version=4).cells:
        known = cell.metadata.get("nbgrader", {})
        shown, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
        is_test = bool(known.get("grade")) and not known.get("solution")
        cells.append((marks.get(known.get("grade_id")), is_test, shown))
    exercises: dict[str, list] = {}
    for mark in grade.marks:
        exercises.setdefault(mark.exercise, []).append(mark)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    return environment.get_template("feedback.html").render(
        submission=submission,
        grade=grade,
        exercises=exercises,
        cells=cells,
        highlight=HtmlFormatter(style="friendly").get_style_defs(".highlight"),
        mathjax=_mathjax(),
    )


def _clean(html: str | bytes) -> str:
    """HTML without what a browser runs: a page is opened by others than the one who handed it in.

    nbconvert's own filter would take away paragraphs and headings, too.
    """
    html = html.decode() if isinstance(html, bytes) else str(html)
    return bleach.clean(html, tags=TAGS, attributes={"*": ["class", "id"], "a": ["href"]})


def _mathjax() -> str:
    """MathJax in one file, with its fonts; empty, and formulas stay TeX, without the package."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        return ""
    folder = Path(next(iter(spec.submodule_search_locations)))
    return (folder / "static" / "mathjax" / "tex-svg.js").read_text(encoding="utf-8")
