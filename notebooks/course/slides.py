"""Render the lecture as slides that need no network: ``python notebooks/course/slides.py [OUT]``.

``lecture.md`` is the outline: what a slide says, and which cell of a notebook it shows. Figures,
tables and printed lines are the outputs that the notebook was saved with; nothing is run again.
reveal.js and MathJax are copied from the packages *sphinx-revealjs* and *sphinx-mathjax-offline*.
"""

from __future__ import annotations

import argparse
import base64
import functools
import html
import importlib.util
import io
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jinja2
import nbformat
from nbconvert.filters import Highlight2HTML, markdown2html, strip_ansi
from PIL import Image
from pygments.formatters import HtmlFormatter

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent
OUTLINE = HERE / "lecture.md"
OUT = NOTEBOOKS.parent / "data" / "cache" / "slides"

KEYS = ("cell", "show", "figure", "section", "alt")
"""What the lines of the outline begin with that say what a slide shows."""

KINDS = ("figure", "table", "text")
"""What a cell may have to show, the first of which is shown by default; ``code`` only if asked."""

SHEETS = ("blocks", "symbol_sheet")
"""Drawings of the kit that show no data, which a slide may name and which are also saved as PDF."""

# Width and height, in pixels of the slide, of what is shown below the points or beside them.
BELOW, BESIDE = (1200, 490), (800, 590)
NARROW = {
    "text": 44,
    "code": 44,
    "table": 60,
}  # the characters of a line that find room beside the points


class OutlineError(ValueError):
    """The outline says something that cannot be shown; the message names the slide."""


@dataclass
class Slide:
    """A slide of the outline.

    Attributes:
        title: its heading.
        part: the heading of the part of the lecture that it belongs to.
        body: its points and formulas, in Markdown.
        cell: notebook and cell id, such as ``("01_variance_formula", "055b6b63")``, if it has one.
        show: what of the cell is shown: kinds of :data:`KINDS`, and ``code``.
        figure: a drawing of :data:`SHEETS` in place of a cell.
        section: the section to read, such as ``"4.4"``, of a slide that shows no cell.
        alt: what a reader who cannot see the figure is told.
        notes: what the speaker says, in Markdown.
        minutes: how long that takes.
        shown: what :func:`render` has found for it, in HTML.
        source: the section that this stands in, as the foot of the slide names it.
        layout: where that stands: ``"below"`` or ``"beside"`` the points, ``"columns"`` for a
            figure below points that stand side by side, ``"alone"`` if either is missing.
    """

    title: str
    part: str = ""
    body: str = ""
    cell: tuple[str, str] | None = None
    show: tuple[str, ...] = ()
    figure: str | None = None
    section: str = ""
    alt: str = ""
    notes: str = ""
    minutes: int = 0
    shown: list[str] = field(default_factory=list)
    source: str = ""
    layout: str = "alone"

    @property
    def points(self) -> list[str]:
        """The points, without their bullets."""
        return re.findall(r"^- (.+)$", self.body, re.M)


def read_outline(text: str) -> list[Slide]:
    """The slides of an outline.

    ``## `` begins a part and ``### `` a slide. Lines ``cell:``, ``show:``, ``figure:`` and ``alt:``
    say what is shown, and ``section:`` what to read where no cell says it; a quotation holds the
    speaker's notes, which begin with their minutes, ``> **3 min.**``. All else is the slide's own
    text. What stands before the first slide is for readers of the outline.

    Raises:
        OutlineError: if a line cannot be understood or a slide has no minutes.
    """
    slides: list[Slide] = []
    part = ""
    for block in re.split(r"(?m)^(?=###? )", text):
        heading, _, rest = block.partition("\n")
        if heading.startswith("## "):
            part = heading[3:].strip()
        elif heading.startswith("### "):
            slides.append(_read_slide(Slide(heading[4:].strip(), part), rest))
    return slides


def _read_slide(slide: Slide, text: str) -> Slide:
    body, notes = [], []
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if line.startswith(">"):
            notes.append(line[1:].strip())
        elif colon and key in KEYS:
            _set(slide, key, value.strip())
        else:
            body.append(line)
    slide.body = "\n".join(body).strip()
    slide.notes = "\n".join(notes).strip()
    minutes = re.match(r"\*\*(\d+) min\.\*\*", slide.notes)
    if minutes is None:
        raise OutlineError(f"{slide.title!r}: the notes begin with the minutes, **3 min.**")
    slide.minutes = int(minutes[1])
    return slide


def _set(slide: Slide, key: str, value: str) -> None:
    if key == "cell":
        notebook, sharp, cell = value.partition("#")
        if not sharp:
            raise OutlineError(f"{slide.title!r}: a cell is written notebook#id, not {value!r}")
        slide.cell = notebook, cell
    elif key == "show":
        slide.show = tuple(value.split(", "))
        if unknown := set(slide.show) - {*KINDS, "code"}:
            raise OutlineError(f"{slide.title!r}: nothing of the kind {', '.join(unknown)}")
    elif key == "figure":
        if value not in SHEETS:
            raise OutlineError(f"{slide.title!r}: {value!r} is none of {', '.join(SHEETS)}")
        slide.figure = value
    elif key == "section":
        if not any(value == number for number, _ in sections()):
            raise OutlineError(f"{slide.title!r}: no notebook has a section {value!r}")
        slide.section = value
    else:
        slide.alt = value


# What a cell has to show


def find_cell(name: str, cell: str) -> nbformat.NotebookNode:
    """The cell of a notebook with this id.

    Raises:
        OutlineError: if there is no such notebook, or no such cell in it.
    """
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        raise OutlineError(f"there is no notebook {name!r}")
    for found in nbformat.read(path, as_version=4).cells:
        if found.id == cell:
            return found
    raise OutlineError(f"{name} has no cell {cell!r}")


@functools.cache
def sections() -> tuple[tuple[str, str], ...]:
    """The number of each numbered section, with the name of its notebook."""
    return tuple(
        (number, path.stem)
        for path in sorted(NOTEBOOKS.glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for number in re.findall(r"(?m)^## (\d+\.\d+) ", cell.source)
    )


def source_of(slide: Slide) -> str:
    """Where to read what a slide shows: ``notebook 1, section 1.3``, or nothing."""
    if slide.cell is None:
        return _place(dict(sections())[slide.section], slide.section) if slide.section else ""
    name, cell = slide.cell
    heading = ""
    for one in nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells:
        if one.cell_type == "markdown":
            heading = (re.findall(r"(?m)^## (.+)$", one.source) or [heading])[-1]
        if one.id == cell:
            break
    number = re.match(r"\d+\.\d+", heading)
    return _place(name, number[0] if number else "", heading)


def _place(name: str, number: str, heading: str = "") -> str:
    section = f"section {number}" if number else heading
    return f"notebook {name.partition('_')[0].lstrip('0')}, {section}".removesuffix(", ")


class Saved(NamedTuple):
    """Something that a cell was saved with: a PNG in base64, an HTML table, or lines of text.

    ``columns`` is how many characters its longest line has as plain text.
    """

    content: str
    columns: int


def saved_in(cell: nbformat.NotebookNode) -> dict[str, Saved]:
    """What a code cell has to show, by kind: its last figure and table, its lines and its code."""
    found = {"code": _lines(cell.source)}
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            before = found["text"].content if "text" in found else ""
            found["text"] = _lines(before + strip_ansi(output.text))
        elif "image/png" in data:
            found["figure"] = Saved(data["image/png"], 0)
        elif "text/html" in data:
            found["table"] = Saved(data["text/html"], _lines(data["text/plain"]).columns)
    return found


def _lines(text: str) -> Saved:
    return Saved(text, max((len(line) for line in text.splitlines()), default=0))


def _fill(slide: Slide, out: Path) -> None:
    """Find what a slide shows, save the picture in it, and choose the layout."""
    slide.source = source_of(slide)
    if slide.figure:
        _add_figure(slide, _drawn(slide.figure), slide.figure, out)
    elif slide.cell:
        saved = saved_in(find_cell(*slide.cell))
        # Without ``show:`` a cell whose output was cleared has nothing: the slide would be empty.
        kinds = slide.show or [kind for kind in KINDS if kind in saved][:1] or ["output"]
        for kind in kinds:
            if kind not in saved:
                raise OutlineError(_nothing_to_show(slide, kind))
            if kind == "figure":
                picture = base64.b64decode(saved[kind].content)
                _add_figure(slide, picture, slide.cell[1], out)
            else:
                _add_text(slide, kind, saved[kind])
    if not slide.body:
        slide.layout = "alone"


def _nothing_to_show(slide: Slide, kind: str) -> str:
    """What is wrong with a slide whose cell lacks what it shows, and what to do."""
    notebook, cell = slide.cell
    return (
        f"{slide.title!r}: the cell {cell} of notebooks/{notebook}.ipynb was saved without {kind} "
        "to show. Run all cells of this notebook and save it, or take the committed one back: "
        f"git restore notebooks/{notebook}.ipynb"
    )


def _add_text(slide: Slide, kind: str, saved: Saved) -> None:
    """Add a table, printed lines or code; a formula takes the room beside the points."""
    text = saved.content
    if kind == "table":
        text = re.sub(r'<style.*?</style>| (border|style)="[^"]*"', "", text, flags=re.S)
    elif kind == "code":
        text = Highlight2HTML()(text)
    else:
        text = f"<pre>{html.escape(text.rstrip())}</pre>"
    slide.shown.append(text)
    fits = saved.columns <= NARROW[kind] and "$$" not in slide.body and slide.layout != "below"
    slide.layout = "beside" if fits else "below"


def _add_figure(slide: Slide, png: bytes, name: str, out: Path) -> None:
    """Save a picture, and place it where it is shown larger."""
    width, height = Image.open(io.BytesIO(png)).size
    below, beside = (min(room[0] / width, room[1] / height) for room in (BELOW, BESIDE))
    slide.layout = "beside" if beside > below else "columns"
    path = out / "figures" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    slide.shown.append(f'<img src="figures/{path.name}" alt="{html.escape(slide.alt)}">')


def _drawn(name: str) -> bytes:
    from embvar_kit import figures

    png = io.BytesIO()
    getattr(figures, name)().savefig(png, dpi=100)
    return png.getvalue()


# The page


def package_folder(name: str) -> Path:
    """Where an installed package lies, which need not be imported for that.

    Raises:
        OutlineError: if it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise OutlineError(f"the package {name} is missing: pip install -e .[site]")
    return Path(next(iter(spec.submodule_search_locations)))


def _copy_libraries(out: Path) -> None:
    """reveal.js with its theme, its plugins for notes and formulas, and MathJax in one file."""
    revealjs = package_folder("sphinx_revealjs") / "_static" / "revealjs"
    shutil.copytree(revealjs / "dist", out / "revealjs", dirs_exist_ok=True)
    for plugin in ("notes", "math"):
        shutil.copy(revealjs / "plugin" / plugin / f"{plugin}.js", out / "revealjs")
    mathjax = package_folder("sphinx-mathjax-offline") / "static" / "mathjax"
    shutil.copy(mathjax / "tex-svg.js", out / "revealjs")


def render(out: Path) -> list[Slide]:
    """Write the slides to a folder, as ``index.html`` with all that it needs; returns them.

    Raises:
        OutlineError: if the outline names something that is not there.
    """
    import matplotlib

    matplotlib.use("Agg")
    from embvar_kit import figures

    slides = read_outline(OUTLINE.read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    for slide in slides:
        _fill(slide, out)
    _copy_libraries(out)
    for name in SHEETS:
        getattr(figures, name)().savefig(out / f"{name}.pdf")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    environment.filters["markdown"] = markdown2html
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    page = environment.get_template("slides.html").render(slides=slides, highlight=colours)
    (out / "index.html").write_text(page, encoding="utf-8")
    return slides


def main() -> None:
    """Render, and say where the slides are."""
    parser = argparse.ArgumentParser(description="Render the lecture as slides.")
    parser.add_argument("out", nargs="?", type=Path, default=OUT, help="a folder")
    out = parser.parse_args().out
    try:
        slides = render(out)
    except OutlineError as error:
        sys.exit(f"slides: {error}")
    print(f"{len(slides)} slides, {sum(slide.minutes for slide in slides)} minutes")
    print(f"Open in a browser: {out / 'index.html'}  (S: speaker notes, F: full screen, ?: keys)")
    print("To hand out: " + ", ".join(str(out / f"{name}.pdf") for name in SHEETS))


if __name__ == "__main__":
    main()
