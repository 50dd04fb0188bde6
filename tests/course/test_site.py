"""The site: it is built without a warning, is whole, and asks nothing of another machine."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag
from paths import ROOT

import embvar_kit as ek
from embvar_kit import cli

SITE = ROOT / "notebooks" / "site"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Built:
    """The site as it was built: its folder, what the build printed, how long it took, its pages."""

    folder: Path
    printed: str
    seconds: float

    @cached_property
    def pages(self) -> dict[str, BeautifulSoup]:
        """Every page by its path."""
        return {
            path.relative_to(self.folder).as_posix(): BeautifulSoup(
                path.read_text(encoding="utf-8"), "html.parser"
            )
            for path in sorted(self.folder.rglob("*.html"))
            if "_static" not in path.parts
        }

    @cached_property
    def anchors(self) -> dict[str, set[str]]:
        """The anchors of every page."""
        return {
            name: {tag["id"] for tag in page.find_all(id=True)} for name, page in self.pages.items()
        }

    def article(self, name: str) -> Tag:
        """The content of a page, without what stands around it."""
        return self.pages[name].find("article")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The whole site, built once."""
    folder = tmp_path_factory.mktemp("site") / "html"
    begun = time.monotonic()
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return Built(folder, done.stderr, time.monotonic() - begun)


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SITE / "build.py"), *map(str, arguments)]
    # As the caller's folder is not the repository, so nothing depends on it.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT.parent)


# The build


def test_the_build_warns_of_nothing(site):
    assert "WARNING" not in site.printed and "ERROR" not in site.printed


def test_the_build_takes_less_than_five_minutes(site):
    """Beside other tests, too."""
    assert site.seconds < 300


def test_the_source_tree_is_left_as_it_was(site):
    """Sphinx writes nothing beside the sources."""
    made = {path.name for path in SITE.rglob("*") if path.is_dir()}
    assert made <= {"_static", "__pycache__"}
    assert not list((ROOT / "notebooks").glob("**/jupyter_execute"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[here](#page)", ""),
        ("[nowhere](missing.md)", "missing.md"),
        ("[no such heading](#nothing)", "nothing"),
        ("![a picture](missing.png)", "missing.png"),
        ("```{nonsense}\n```", "nonsense"),
    ],
    ids=["none", "link", "anchor", "picture", "directive"],
)
def test_a_fault_of_a_page_is_an_error(text, fault, tmp_path):
    """With the settings of the site, on a page of its own."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-c", str(SITE)]
    done = subprocess.run(
        [*command, str(tmp_path / "source"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode != 0) == bool(fault), done.stderr
    assert bool(done.stderr.strip()) == bool(fault), done.stderr
    assert fault in done.stderr


def test_a_folder_with_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    done = build(tmp_path)
    assert done.returncode == 2 and "something else" in done.stderr
    assert (tmp_path / "thesis.tex").is_file()


def test_a_folder_that_lacks_an_executed_notebook_is_refused(tmp_path):
    done = build(tmp_path / "site", "--notebooks", tmp_path)
    assert done.returncode == 2 and "lacks 01_variance_formula.ipynb" in done.stderr
    assert not (tmp_path / "site").exists()


# What is on the pages


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_its_page(site, path):
    """With all its code, its pictures, and the still picture of each explorer."""
    cells = nbformat.read(path, as_version=4).cells
    article = site.article(f"notebooks/{path.stem}.html")
    assert article.find("h1").get_text().startswith(cells[0].source.split("\n")[0][2:])
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    assert len(article.select("div.cell_input")) == len(code)
    pictures = [
        output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(article.select("div.cell_output img")) == len(pictures)
    assert "vnd.jupyter.widget" not in str(article)
    listed = {link["href"] for link in site.article("notebooks/index.html").find_all("a")}
    assert f"{path.stem}.html" in listed


@pytest.mark.parametrize("name", [name for name in ek.__all__ if name != "__version__"])
def test_every_public_name_is_in_the_reference(site, name):
    index = site.article("api/index.html")
    link = next(link for link in index.find_all("a") if link.get_text() == f"ek.{name}")
    page, _, anchor = link["href"].partition("#")
    thing = getattr(ek, name)
    module = isinstance(thing, ModuleType)
    assert anchor == (f"module-{thing.__name__}" if module else f"embvar_kit.{name}")
    entry = site.pages[f"api/{page}"].find(id=anchor)
    assert entry is not None
    if inspect.isfunction(thing):
        signature = entry.get_text()
        for parameter in inspect.signature(thing).parameters:
            assert parameter in signature, parameter


@pytest.mark.parametrize(
    "module",
    ["figures", "tokens", "words", "normalization", "analysis", "measures", "release", "atlas"],
)
def test_what_a_public_module_defines_is_in_the_reference(site, module):
    module = getattr(ek, module)
    anchors = set().union(*(site.anchors[page] for page in site.pages if page.startswith("api/")))
    own = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    ]
    assert own
    assert {f"{module.__name__}.{name}" for name in own} <= anchors


def test_shapes_and_errors_are_in_the_reference(site):
    """What a docstring says of shapes, units and errors is on the page, with its types."""
    entry = site.article("api/statistics.html").find(id="embvar_kit.TokenStatistics").parent
    text = entry.get_text()
    assert "(L, T)" in text and "squared norm of the embedding" in text
    extract = site.article("api/extraction.html").find(id="embvar_kit.extract").parent.get_text()
    assert "Parameters" in extract and "Raises" in extract and "ExtractionError" in extract


def test_every_command_and_option_is_in_the_reference(site):
    article = site.article("embvar.html")
    headings = [heading.get_text().rstrip("#") for heading in article.find_all(["h2", "h3", "h4"])]
    text = article.get_text()
    found = 0
    for parser in parsers(cli.parser()):
        assert parser.prog in headings
        for action in parser._actions:
            for option in action.option_strings:
                assert option in text, f"{parser.prog} {option}"
                found += 1
    assert found > 100


def parsers(parser):
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from parsers(command)


def test_the_gallery_shows_the_papers_figures_and_the_calls(site):
    article = site.article("gallery/index.html")
    for figure, entry in ek.figures.PAPER.items():
        heading = next(h for h in article.find_all("h3") if h.get_text().rstrip("#") == figure)
        section = heading.parent
        assert section.select("img, table.dataframe"), f"{figure} is in no notebook"
        calls = [block.get_text() for block in section.find_all("pre")]
        assert calls
        assert all(f"ek.figures.{entry.function.__name__}(" in call for call in calls)
        for value in entry.options.values():
            assert repr(value) in section.get_text()
    heading = next(h for h in article.find_all("h3") if h.get_text().rstrip("#") == "Not drawn")
    assert "no function for Fig. 21 and Table 1 of the paper" in heading.parent.get_text()


def test_the_outline_of_the_lecture_says_in_words_what_a_slide_shows(site):
    outline = (ROOT / "notebooks" / "course" / "lecture.md").read_text(encoding="utf-8")
    number = len(re.findall(r"^(?:cell|figure): ", outline, re.M))
    article = site.article("notebooks/course/lecture.html")
    assert number > 20 and article.get_text().count("Shown: ") == number
    read = len(re.findall(r"^section: ", outline, re.M))
    assert read >= 5 and article.get_text().count("To read: section ") == read
    assert not re.search(r"^(cell|figure|show|section|alt): ", article.get_text(), re.M)


@pytest.mark.parametrize(
    ("page", "text", "to"),
    [
        ("notebooks/course/README.html", "the instructor’s notes", "instructor/README.html"),
        ("notebooks/course/routes.html", "the instructor’s notes", "instructor/README.html"),
        ("notebooks/course/routes.html", "the executed notebooks", "../index.html"),
    ],
)
def test_what_the_course_sends_a_lecturer_to_is_a_link(site, page, text, to):
    """On GitHub these are a page of a folder and a folder; the site has a page for each."""
    links = site.article(page).find_all("a", string=text)
    assert links and {link["href"] for link in links} == {to}


def test_every_notebook_has_a_page_of_notes(site):
    article = site.article("notebooks/course/instructor/README.html")
    links = {link["href"] for link in article.find_all("a")}
    assert {f"{path.stem}.html" for path in NOTEBOOKS} <= links


def test_a_neighbour_is_named_as_in_the_navigation(site):
    """The first page is called Start there, and has the title of the kit."""
    following = site.pages["index.html"].select_one(".right-next")
    assert following["href"] == "README.html"
    assert following.select_one(".prev-next-title").get_text() == "Start"
    before = site.pages["notebooks/index.html"].select_one(".left-prev")
    assert before.select_one(".prev-next-title").get_text() == "Start"
    # A page without a name of its own there keeps its title.
    after = site.pages["notebooks/01_variance_formula.html"].select_one(".right-next")
    assert after.select_one(".prev-next-title").get_text() == "2 · Sequential computation"


def test_the_slider_has_every_layer_with_its_numbers(site):
    every = ek.TokenStatistics.load(ROOT / "data/stats/smollm2-wikipedia/hidden")
    stats = every.without(every.high_norm(peak=True)["token"])
    fits = stats.tradeoff()
    figures = site.article("gallery/layers.html").select(".layer-slider figure")
    assert len(figures) == len(fits) == len(stats.layers)
    for figure, fit in zip(figures, fits.itertuples(), strict=True):
        numbers = f"slope {fit.slope:.2f}, R² {fit.r2:.2f}".replace("-", "−")
        caption = figure.select_one(".caption-text").get_text()
        assert caption.startswith(f"Layer {fit.layer}: {numbers}")
        assert numbers in figure.find("img")["alt"]


# Links, pictures, and what is loaded


def test_all_internal_links_and_anchors_lead_somewhere(site):
    lost, followed = [], 0
    for name, page in site.pages.items():
        for tag in page.find_all(["a", "link", "script", "img", "source"]):
            target = tag.get("href") or tag.get("src")
            if not target or urlsplit(target).scheme:
                continue
            to, _, anchor = target.partition("#")
            to = unquote(to.partition("?")[0])
            file = (site.folder / name).parent / to if to else site.folder / name
            file = Path(os.path.normpath(file))
            followed += 1
            other = file.relative_to(site.folder).as_posix()
            if not file.is_file() or (
                anchor and tag.name == "a" and unquote(anchor) not in site.anchors[other]
            ):
                lost.append(f"{name}: {target}")
    assert not lost
    assert followed > 1000


def test_nothing_is_loaded_from_elsewhere(site):
    """Pages and style sheets name no other machine but in links that a reader may follow."""
    for name, page in site.pages.items():
        for tag in page.find_all(True):
            if tag.name in ("a", "svg", "path"):
                continue
            for key in ("src", "href", "srcset", "data", "poster", "action"):
                value = tag.get(key, "")
                assert not re.match(r"\s*(https?:)?//", value), f"{name}: {tag}"
    for sheet in site.folder.rglob("*.css"):
        style = sheet.read_text(encoding="utf-8")
        assert not re.search(r"""url\(\s*["']?\s*(https?:)?//""", style), sheet
        assert not re.search(r"""@import\s+["'](https?:)?//""", style), sheet


def test_every_picture_has_an_alternative_text(site):
    """In words: the name of a file, which is what stands there without one, says nothing."""
    number = 0
    for name, page in site.pages.items():
        for picture in page.find_all("img"):
            text = picture.get("alt", "")
            number += 1
            assert len(text.split()) >= 4, f"{name}: {picture.get('src')}: {text!r}"
            assert not re.search(r"\.(png|svg|jpe?g)\b", text), f"{name}: {text!r}"
    assert number > 100


def test_the_alternative_text_says_what_is_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))
    import alternatives

    source = "%matplotlib inline\nax = ek.figures.V_on_M(\n    stats, layer=2\n).figure\nprint(ax)"
    source += "\nstats.frequency_slopes()"  # a table of the same name as the figure
    (found,) = alternatives.calls(source)
    assert found == ("V_on_M", "ek.figures.V_on_M(\n    stats, layer=2\n)")
    assert alternatives.description("V_on_M") == (
        "V against M for every token of a layer, with the regression line."
    )
    assert alternatives.description("LayerExplorer").startswith("A still picture of an explorer. ")
    for name in ek.figures.__all__:
        assert not re.search(r"[`:]\w+:|\(paper", alternatives.description(name)), name
