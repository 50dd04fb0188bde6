"""Build the site: gather its pages in one folder, and have Sphinx make HTML of them.

python notebooks/site/build.py OUT [--notebooks FOLDER]

The pages are files of the repository, which keep their places, so that the links between them hold,
and some that are made from the code: the reference (``reference.py``), the gallery (``gallery.py``)
and the list of notebooks. A warning of Sphinx is an error, and a link that leads nowhere is a
warning. OUT is replaced once all went well; nothing else is written outside a temporary folder.
With --notebooks, the notebooks are those that were executed into FOLDER.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

# No figure is shown, whatever backend the caller has chosen.
os.environ["MPLBACKEND"] = "Agg"
# The outline of the lecture is a page here, too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "course"))

import gallery
import nbformat
import reference
from slides import KEYS, sections
from sphinx.cmd.build import main as sphinx

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/README.md",
    "notebooks/*.ipynb",
    "notebooks/reference/*.md",
    "notebooks/course/**/*.md",
    "tests/benchmarks/*.md",
)
"""The files of the repository that are pages of the site."""

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SECTIONS = {
    "Start": "README",
    "Notebooks": "notebooks/index",
    "Course": "notebooks/course/README",
    "Gallery": "gallery/index",
    "Reference": "notebooks/reference/README",
    "API": "api/index",
    "Project": "project",
}
"""The sections of the site and the page that each begins with."""

LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]+)([^)\s]*)\)")
"""A link or a picture in a Markdown page: its text, the file that it names, the anchor there."""

_LINE = rf"(?:{'|'.join(KEYS)}): .+"
DIRECTIVES = re.compile(rf"^{_LINE}(?:\n{_LINE})*$", re.MULTILINE)
"""The lines that say what a slide of the lecture's outline shows."""


def main(arguments: list[str] | None = None) -> int:
    """Build the site; returns the exit code, 0 if there was no warning."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder of the site, which is replaced")
    parser.add_argument("--notebooks", type=Path, help="where the notebooks were executed")
    chosen = parser.parse_args(arguments)
    out, executed = chosen.out.resolve(), chosen.notebooks
    if out.exists() and any(out.iterdir()) and not (out / "objects.inv").is_file():
        parser.error(f"{out} holds something else than a site")
    if executed and (lack := [p.name for p in NOTEBOOKS if not (executed / p.name).is_file()]):
        parser.error(f"{executed} lacks {', '.join(lack)}")
    with tempfile.TemporaryDirectory(prefix="embvar-site-") as scratch:
        source, html = Path(scratch, "source"), Path(scratch, "html")
        gather(source, executed)
        # What somebody changed in a notebook and executed may be less tidy than what is committed.
        strict = [] if executed else ["-W", "--keep-going"]
        options = [*strict, "-q", "-b", "html", "-c", str(SITE)]
        options += ["-d", str(Path(scratch, "doctrees"))]
        if code := sphinx([*options, str(source), str(html)]):
            return code
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out, ignore=shutil.ignore_patterns(".buildinfo"))
    print(f"Open in a browser: {out / 'index.html'}")
    return 0


# The sources


def gather(source: Path, executed: Path | None = None) -> None:
    """Write all sources of the site into a new folder, with the notebooks as executed elsewhere."""
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    for file in sorted({*pages, *(file for page in pages for file in linked(page))}):
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file in pages and file.suffix == ".md":
            copy.write_text(_for_the_site(file, set(pages)), encoding="utf-8")
        else:
            shutil.copy2(file, copy)
    for notebook in NOTEBOOKS if executed else ():
        shutil.copy2(executed / notebook.name, source / "notebooks")
    reference.write(source)
    gallery.write(source, ROOT)
    (source / "notebooks" / "index.md").write_text(_notebooks(), encoding="utf-8")
    for page in ("index", "project"):
        shutil.copy2(SITE / f"{page}.md", source)
    for section in ("reference", "course"):
        _lead_into(source / "notebooks" / section, also={"reference": ["/embvar"]}.get(section, []))
    _lead_to(source / "index.md", [f"{t} <{p}>" for t, p in SECTIONS.items() if _is(source, p)])


def linked(page: Path) -> set[Path]:
    """The files of the repository that a page links to or shows."""
    if page.suffix == ".ipynb":
        cells = nbformat.read(page, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = page.read_text(encoding="utf-8")
    files = {_named(page, name) for _, name, _ in LINK.findall(text)}
    return {file for file in files if file.is_file() and file.is_relative_to(ROOT)}


def _named(page: Path, name: str) -> Path:
    return (page.parent / unquote(name)).resolve()


def _for_the_site(page: Path, pages: set[Path]) -> str:
    """The text of a page, with paths in place of links to what the site does not show.

    These are folders, but for that of the notebooks, whose list is a page, and notebooks that are
    handed out.
    """

    def shown(link: re.Match) -> str:
        text, name, _ = link.groups()
        file = _named(page, name)
        if not file.is_dir() and (file.suffix != ".ipynb" or file in pages or not file.exists()):
            return link[0]
        if file == ROOT / "notebooks":
            return f"[{text}]({name}/index.md)"
        path = file.relative_to(ROOT).as_posix()
        return f"{text} (`{path}{'/' * file.is_dir()}`)"

    return LINK.sub(shown, DIRECTIVES.sub(_in_words, page.read_text(encoding="utf-8")))


def _in_words(block: re.Match) -> str:
    """What a slide of the lecture's outline shows, or where to read more, with links."""
    told = dict(line.split(": ", 1) for line in block[0].splitlines())
    found = []
    if cell := told.get("cell"):
        found.append(f"*Shown*: a cell of {_link_to(cell.partition('#')[0])}.")
    elif "figure" in told:
        found.append("*Shown*: a drawing.")
    found.append(told.get("alt", ""))
    if section := told.get("section"):
        found.append(f"*To read*: section {section} of {_link_to(dict(sections())[section])}.")
    return " ".join(filter(None, found))


def _link_to(notebook: str) -> str:
    return f"[notebook {notebook.partition('_')[0].lstrip('0')}](../{notebook}.ipynb)"


def _is(source: Path, page: str) -> bool:
    return any((source / f"{page}{kind}").is_file() for kind in (".md", ".rst"))


def _lead_into(folder: Path, also: list[str]) -> None:
    """Have the first page of a folder lead to the others, in the order of its links to them."""
    others = [page.relative_to(folder) for page in sorted(folder.rglob("*.md"))]
    first = folder / "README.md"
    if others and not first.is_file():
        first.write_text(f"# {folder.name.capitalize()}\n", encoding="utf-8")
    if not others:
        return
    named = [name for _, name, _ in LINK.findall(first.read_text(encoding="utf-8"))]
    places = {name: place for place, name in reversed(list(enumerate(named)))}
    others.sort(key=lambda page: places.get(page.as_posix(), len(named)))  # the others come last
    paths = [page.with_suffix("").as_posix() for page in others if page != Path("README.md")]
    _lead_to(first, [*paths, *also])


def _lead_to(page: Path, others: list[str]) -> None:
    """Add pages to those that a page leads to in the navigation."""
    with page.open("a", encoding="utf-8") as file:
        file.write("\n```{toctree}\n:hidden:\n\n" + "\n".join(others) + "\n```\n")


def _notebooks() -> str:
    """The list of notebooks: the title of each, how it begins, and the time that it takes."""
    cards, names = [], []
    for path in NOTEBOOKS:
        first = nbformat.read(path, as_version=4).cells[0].source
        title, lead = first.split("\n\n")[:2]
        time = re.search(r"\*\*Time\*\*:? ([^.;]+)", first)
        cards.append(
            f"::::{{grid-item-card}} [{title.removeprefix('# ')}]({path.name})\n{lead}\n"
            + (f":::{{card-footer}}\n{time[1][:1].upper()}{time[1][1:]}\n:::\n" if time else "")
            + "::::\n"
        )
        names.append(path.stem)
    return (
        "# Notebooks\n\nThe notebooks as they were executed, with their numbers and figures. "
        "Explorers are still pictures here; in JupyterLab they have sliders.\n\n"
        ":::::{grid} 1 1 2 2\n:gutter: 3\n\n" + "\n".join(cards) + ":::::\n\n"
        "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())
