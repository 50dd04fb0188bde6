"""A page for a student: marks, what the failing tests say, and the notebook as it was run.

``homework.py grade --feedback FOLDER`` writes one for each submission. A page is a single file that
needs no network: MathJax stands in it, copied from the package *sphinx-mathjax-offline*.
"""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import bleach
import jinja2
import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

if TYPE_CHECKING:
    from homework import Grade

HERE = Path(__file__).resolve().parent
TAGS = bleach.ALLOWED_TAGS | {
    *("p", "br", "hr", "div", "span", "pre", "sub", "sup", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td", "img", "details", "summary", "del", "u", "kbd"),
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
        for output in cell.get("outputs", ()):
            output.pop("metadata", None)  # nbconvert writes sizes and file names as they are
            if output.output_type in ("display_data", "execute_result"):
                output["metadata"] = {}
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
        nonce=secrets.token_urlsafe(),
    )


def _clean(html: str | bytes) -> str:
    """HTML without what a browser runs: a page is opened by others than the one who handed it in.

    nbconvert's own filter would take away paragraphs and headings, too.
    """
    html = html.decode() if isinstance(html, bytes) else str(html)
    soup = BeautifulSoup(html, "html.parser")
    for code in soup.find_all(["script", "style"]):
        code.decompose()
    cells = ["colspan", "rowspan"]
    attributes = {
        "*": ["class", "id"],
        "a": ["href"],
        "img": _of_image,
        "ol": ["start"],
        "th": cells,
        "td": cells,
    }
    schemes = bleach.ALLOWED_PROTOCOLS | {"data"}
    return bleach.clean(str(soup), tags=TAGS, attributes=attributes, protocols=schemes, strip=True)


def _of_image(tag: str, name: str, value: str) -> bool:
    """Whether an image keeps an attribute: pictures that stand in the notebook are shown."""
    return name == "alt" or (name == "src" and value.startswith("data:image/"))


def _mathjax() -> str:
    """MathJax in one file, with its fonts; empty, and formulas stay TeX, without the package."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        return ""
    folder = Path(next(iter(spec.submodule_search_locations)))
    return (folder / "static" / "mathjax" / "tex-svg.js").read_text(encoding="utf-8")
