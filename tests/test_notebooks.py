"""Committed notebooks are whole: executed in order, self-contained, readable on a static page."""

import configparser
import json
import re
from pathlib import Path

import nbformat
import pytest
from paths import PAGES, ROOT

import embvar_kit as ek

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAY_IGNORE = {
    # Cells whose output is not compared, and why. A cell not listed here is compared.
    ("01_variance_formula", "ek.VariancePlayground()"): "a widget; explorers have their own tests",
    ("02_sequential_computation", "ek.SequencePlayer(x[:100], k=10)"): "a widget, likewise",
    ("02_sequential_computation", "rng = np.random.default_rng(0)"): "rounding errors of float32",
    ("02_sequential_computation", "same = rng.normal(size=384).astype(np.float32)"):
        "rounding errors of float32, likewise",
    (
        "02_sequential_computation",
        "cloud = same + 0.1 * rng.normal(size=(20_000, 384)).astype(np.float32)",
    ): "rounding errors of float32, likewise",
    ("02_sequential_computation", 'cls = ek.collect_embeddings(model, corpus, ["[CLS]"])["[CLS]"]'):
        "rounding errors of float32; what matters is asserted in the cell",
    (
        "03_extract_statistics",
        'whole_excerpt = (model_name, corpus_name, limit) == ("minilm", "wikipedia", None)',
    ): "a progress bar",
    ("04_norm_variance_tradeoff",
     'ek.TradeoffExplorer({"minilm": minilm, "smollm2": everything}, recall=True, layer=2)'):
        "a widget, likewise",
    ("04_norm_variance_tradeoff",
     'explorer = ek.LinkedExplorer(minilm, left={"layer": 2}, right={"layer": 3})'):
        "a widget, likewise",
    ("06_across_layers", "ek.LayerExplorer("): "a widget, likewise",
    (
        "05_layer_normalization",
        "shown = {at: part.leave_out(special) for at, part in parts.items()}",
    ): "a widget; explorers have their own tests",
    ("08_words", 'stats = ek.extract(model, corpus, by="word", null=True, folds=folds)'):
        "a progress bar",
    ("09_your_own_model", "corpus = ek.load_corpus(corpus_name, limit=limit)"): "a progress bar",
}  # fmt: skip


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def each_notebook(function):
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)(function)


def test_the_sequence_is_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_variance_formula",
        "02_sequential_computation",
        "03_extract_statistics",
        "04_norm_variance_tradeoff",
        "05_layer_normalization",
        "05b_twins",
        "06_across_layers",
        "07_anisotropy",
        "08_words",
        "09_your_own_model",
        "10_past_one_machine",
    ]


@each_notebook
def test_executed_in_order_without_errors(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"]


@each_notebook
def test_defines_no_helpers_and_installs_nothing(path):
    for cell in code_cells(path):
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M), cell.source
        assert "pip install" not in cell.source


@each_notebook
def test_imports_the_kit_before_pytorch(path):
    """PyTorch's waiting threads sleep soon only if the kit says so before PyTorch is loaded."""
    source = "\n".join(cell.source for cell in code_cells(path))
    kit, other = (
        re.search(rf"^(import|from) {name}\b", source, re.M)
        for name in ("embvar_kit", "(torch|transformers)")
    )
    assert kit is not None and (other is None or kit.start() < other.start())


@each_notebook
def test_no_cell_ends_in_a_semicolon(path):
    """nbval runs cells without a history, where a semicolon does not hide the last value."""
    for cell in code_cells(path):
        assert not cell.source.rstrip().endswith(";"), cell.source


@each_notebook
def test_every_output_is_compared_or_listed(path):
    """nbval compares by default; a tag that stops it must be on the list above, with its reason."""
    for cell in code_cells(path):
        tags = set(cell.metadata.get("tags", []))
        of_course = {tag for tag in tags if re.fullmatch(r"solution|closing|slide|ex-\d+", tag)}
        assert tags - of_course <= {"parameters", "nbval-ignore-output"}, tags
        assert "NBVAL" not in cell.source
        if "nbval-ignore-output" in tags:
            assert (path.stem, cell.source.splitlines()[0]) in MAY_IGNORE
    named = {first for stem, first in MAY_IGNORE if stem == path.stem}
    assert named <= {cell.source.splitlines()[0] for cell in code_cells(path)}


@each_notebook
def test_reads_well_without_a_kernel(path):
    """A widget carries a picture, a figure is a picture, and nothing names a place on a machine."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 2_000_000
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data or "<Figure" in str(
                data.get("text/plain")
            ):
                assert "image/png" in data
            shown = output.get("text", "") + "".join(
                str(value) for kind, value in data.items() if kind != "image/png"
            )
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/\w", shown), shown
            assert "\r" not in shown and "Warning" not in shown


@each_notebook
def test_says_what_a_reader_needs_to_know_first(path):
    cells = nbformat.read(path, as_version=4).cells
    first = cells[0].source
    for part in ("# ", "**You will learn**", "**You need**", "**Time**", "**In the paper**"):
        assert part in first, part
    headings = [
        line
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-2:] == ["## Exercises", "## Solutions"]


@pytest.mark.parametrize("stem", ["03_extract_statistics", "08_words", "09_your_own_model"])
def test_one_cell_holds_the_parameters(stem):
    cells = code_cells(ROOT / "notebooks" / f"{stem}.ipynb")
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for name in ("model_name", "corpus_name", "limit"):
        assert re.search(rf"^{name} = ", tagged[0].source, re.M)


def test_each_figure_of_the_paper_is_in_a_notebook_and_in_the_reference():
    """Every function that draws one is called in a notebook; the page on figures says where."""
    sources = "\n".join(cell.source for path in NOTEBOOKS for cell in code_cells(path))
    page = (ROOT / "notebooks" / "reference" / "figures.md").read_text(encoding="utf-8")
    for figure, (function, *_) in ek.figures.PAPER.items():
        assert f"ek.figures.{function.__name__}(" in sources, figure
        row = next(line for line in page.splitlines() if line.startswith(f"| {figure} |"))
        assert f"`{function.__name__}`" in row, figure
        notebook, section = re.findall(r"\]\(\.\./(\w+\.ipynb)\)[^|]*?(\d+\.\d+)", row)[0]
        text = (ROOT / "notebooks" / notebook).read_text(encoding="utf-8")
        assert f"## {section} " in text, f"{figure}: {notebook} has no section {section}"
        start = text.index(f"## {section} ")
        following = text.find('"## ', start)
        assert f"ek.figures.{function.__name__}(" in text[start:following], figure


def test_the_app_is_saved_without_outputs():
    """Voila runs it anew: nbval runs it as well, and there is nothing to compare or to go stale."""
    for cell in code_cells(ROOT / "notebooks" / "app" / "explorers.ipynb"):
        assert cell.outputs == [] and cell.execution_count is None
        assert not re.search(r"^\s*(def|class) ", cell.source, re.M)


def test_links_of_notebooks_and_pages_lead_somewhere():
    for page in (*NOTEBOOKS, *PAGES):
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join(cell["source"] for cell in nbformat.reads(text, 4).cells)
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_sanitizer_file_is_read_as_meant():
    """A pair without a blank behind "replace:" would silently not be loaded by nbval."""
    text = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, re.M)
    assert len(pairs) == len(parser.sections()) > 0
    done = "done       in 104.2 s, 5,829 tokens/s"
    assert re.sub(*pairs[0], done) == "done       in SECONDS, RATE"


def test_saved_statistics_in_outputs_are_plain_json():
    for path in NOTEBOOKS:
        json.loads(path.read_text(encoding="utf-8"))
