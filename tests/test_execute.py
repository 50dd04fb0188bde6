"""The runner behind ``make run``: notebooks side by side, a line for each, errors at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from paths import ROOT

pytestmark = pytest.mark.slow


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_each_notebook_runs_in_its_folder_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    good = write(source / "good.ipynb", "import os\nprint(os.path.basename(os.getcwd()))")
    bad = write(source / "bad.ipynb", "print('before')", "1 / 0", "print('after')")
    command = [sys.executable, ROOT / ".ci" / "execute.py", "--jobs", "2", "--out", out]
    done = subprocess.run([*command, bad, good], capture_output=True, text=True, timeout=250)
    assert done.returncode == 1
    assert re.search(r"^  good +\d+ s$", done.stdout, re.M)
    assert re.search(r"^  bad +\d+ s  FAILED$", done.stdout, re.M)
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "good.ipynb" not in done.stderr and "\x1b" not in done.stderr
    first, second, third = nbformat.read(out / "bad.ipynb", as_version=4).cells
    assert first.outputs[0].text == "before\n"
    assert second.outputs[0].ename == "ZeroDivisionError"
    assert third.outputs == []
    (cell,) = nbformat.read(out / "good.ipynb", as_version=4).cells
    assert cell.outputs[0].text == "source\n"
