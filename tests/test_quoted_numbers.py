"""Numbers that a notebook's prose quotes are among those that its cells print.

A decimal, a percentage or a number with a thousands separator in a markdown cell has to be found,
rounded as it is quoted, in a printed output of its own section ("## ..."), or of a section that its
paragraph names ("section 3.6"). A whole number may also be a setting in the code there. What is
defined, or taken from the paper, stands in NOT_MEASURED, with what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOT_MEASURED = {
    ("02_sequential_computation", "94.37477"): "an example of cancellation",
    ("02_sequential_computation", "94.37459"): "an example of cancellation",
    ("02_sequential_computation", "1.26"): "a version of NumPy",
    ("02_sequential_computation", "30,522"): "the vocabulary of BERT-base",
    ("03_extract_statistics", "19,881"): "in the first cell; section 3.1 prints it",
    ("03_extract_statistics", "100,000"): "the paper's range",
    ("04_norm_variance_tradeoff", "1"): "the share that the paper's histograms leave out",
    ("04_norm_variance_tradeoff", "740,000"): "the paper's corpus",
    ("05b_twins", "3.5"): "data/README.md has the sizes of the twins",
    ("05b_twins", "4,096"): "data/README.md has the vocabulary of the twins",
    ("05b_twins", "0.0008"): "twice the square of 0.02, the spread of fresh weights",
    ("05b_twins", "0.00001"): "the epsilon of the twins",
    ("05_layer_normalization", "0.6"): "exercise 3 chooses it",
    ("05_layer_normalization", "0.36"): "its square",
    ("06_across_layers", "100,000"): "the paper's range",
    ("06_across_layers", "89"): "the solution of exercise 3 prints it",
    ("07_anisotropy", "10,000"): "a power of ten",
    ("09_your_own_model", "0.05"): "exercise 3 chooses it",
}

QUOTED = re.compile(
    r"(?<![\w.,])(?P<number>\d+\.\d+|\d{1,3}(?:,\d{3})+|\d+(?=\s?(?:%|per\s?cent)))"
    r"(?P<percent>\s?(?:%|per\s?cent))?(?![\d\w])"
)
PRINTED = re.compile(r"(?<![\w.])\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
NAMED = re.compile(r"[Ss]ections?\s+(\d+\.\d+(?:(?:,\s|\sand\s|\sto\s)\d+\.\d+)*)")
NO_PROSE = re.compile(r"`[^`]*`|\]\([^)]*\)|arXiv [\d.]+|95 %(?= interval)|^#.*$", re.M)


def sections(path: Path) -> Iterator[tuple[str, list[nbformat.NotebookNode]]]:
    """The cells of a notebook by their ``##`` heading; a cell may hold several headings."""
    title, cells = "", []
    for cell in nbformat.read(path, as_version=4).cells:
        pieces = (
            [cell.source] if cell.cell_type == "code" else re.split(r"(?m)^(?=## )", cell.source)
        )
        for piece in pieces:
            if cell.cell_type == "markdown" and piece.startswith("## "):
                yield title, cells
                title, cells = piece.splitlines()[0].removeprefix("## "), []
            part = nbformat.from_dict({**cell, "source": piece})
            cells.append(part)
    yield title, cells


def printed(cells: list[nbformat.NotebookNode]) -> list[float]:
    """All numbers in the text that these cells print, and the whole numbers in their code."""
    shown, code = [], []
    for cell in cells:
        for output in cell.get("outputs", []):
            shown.append(output.get("text", "") + output.get("data", {}).get("text/plain", ""))
        if cell.cell_type == "code":
            code.append(cell.source)
    numbers = [found.rstrip(",").replace(",", "") for found in PRINTED.findall("\n".join(shown))]
    settings = re.findall(r"(?<![\w.])\d[\d_]*(?![\w.])", "\n".join(code))
    return [float(number) for number in [*numbers, *settings]]


def agrees(number: str, percent: bool, values: list[float]) -> bool:
    """Whether a value, rounded as the number is quoted, is this number, whatever their signs."""
    quoted = float(number.replace(",", ""))
    half = 0.5 * 10.0 ** -len(number.partition(".")[2]) * (1 + 1e-9)
    scales = (1, 100) if percent else (1,)
    return any(abs(value * scale - quoted) <= half for value in values for scale in scales)


PRINTED_IN = {
    re.match(r"\d+\.\d+", title)[0]: printed(cells)
    for path in NOTEBOOKS
    for title, cells in sections(path)
    if re.match(r"\d+\.\d+ ", title)
}


def unfounded(path: Path) -> list[tuple[str, str]]:
    """The numbers of a notebook's prose that no cell prints, each with its line."""
    found = []
    for _, cells in sections(path):
        own = printed(cells)
        for cell in cells:
            if cell.cell_type != "markdown":
                continue
            for paragraph in cell.source.splitlines():
                text = NO_PROSE.sub(" ", paragraph).replace("{,}", ",").replace("\\", "")
                named = [
                    at for names in NAMED.findall(text) for at in re.findall(r"\d+\.\d+", names)
                ]
                values = own + [value for at in named for value in PRINTED_IN.get(at, [])]
                for quoted in QUOTED.finditer(NAMED.sub(" ", text)):
                    if not agrees(quoted["number"], bool(quoted["percent"]), values):
                        found.append((quoted["number"], paragraph))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_quotes_what_cells_print(path):
    missing = unfounded(path)
    lost = [line for line in missing if (path.stem, line[0]) not in NOT_MEASURED]
    assert not lost, "\n".join(f"{number}: {line}" for number, line in lost)
    numbers = {number for number, _ in missing}
    stale = {number for stem, number in NOT_MEASURED if stem == path.stem} - numbers
    assert not stale


def test_a_number_is_found_as_it_is_rounded():
    values = [0.9274, 1234.0, 0.733]
    assert agrees("0.93", False, values) and not agrees("0.92", False, values)
    assert agrees("1,234", False, values) and not agrees("1,235", False, values)
    assert agrees("73", True, values) and not agrees("74", True, values)


def test_a_wrong_number_in_prose_is_noticed(tmp_path):
    path = NOTEBOOKS[2]
    notebook = nbformat.read(path, as_version=4)
    cell = notebook.cells[-1]
    cell.source += "\n\nThe slope is $-0.123456$, in 87,654,321 pairs, or 98.7654 %."
    nbformat.write(notebook, tmp_path / path.name)
    assert [number for number, _ in unfounded(tmp_path / path.name)][-3:] == [
        "0.123456",
        "87,654,321",
        "98.7654",
    ]
