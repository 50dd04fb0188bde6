"""The runner behind ``make run``: notebooks side by side, a line for each, errors at the end."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from paths import ROOT
from PIL import Image

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


FIGURE = """
%matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
x, y = np.random.default_rng(0).normal(size=(2, 2000))
plt.figure(figsize=(5, 3), dpi=100)
image = plt.scatter(x, y, c=y, s=8)
plt.savefig("plain.png", bbox_inches="tight")
"""
SEE_THROUGH = """
import io
from IPython.display import Image, display
from PIL import Image as pillow
png = io.BytesIO()
pillow.new("RGBA", (40, 30), (10, 20, 30, 128)).save(png, "PNG")
display(Image(png.getvalue()))
"""


def test_pictures_are_small_and_lose_neither_pixels_nor_colours(tmp_path: Path) -> None:
    path = write(tmp_path / "drawn.ipynb", FIGURE, SEE_THROUGH)
    command = [sys.executable, ROOT / ".ci" / "execute.py", "--out", tmp_path / "out", path]
    subprocess.run(command, check=True, timeout=250)
    figure, see_through = nbformat.read(tmp_path / "out" / "drawn.ipynb", as_version=4).cells
    (png,) = (out.data["image/png"] for out in figure.outputs if "image/png" in out.get("data", {}))
    saved = base64.b64decode(png)
    whole = Image.open(tmp_path / "plain.png").convert("RGB")
    few = Image.open(io.BytesIO(saved))
    assert few.mode == "P" and few.size == whole.size
    assert len(saved) < 0.6 * (tmp_path / "plain.png").stat().st_size
    away = np.abs(np.asarray(few.convert("RGB"), dtype=int) - np.asarray(whole)).max(axis=2)
    assert away.mean() < 2 and (away > 32).mean() < 0.01
    # What shines through keeps its alpha.
    kept = Image.open(io.BytesIO(base64.b64decode(see_through.outputs[0].data["image/png"])))
    assert kept.getpixel((0, 0)) == (10, 20, 30, 128)
