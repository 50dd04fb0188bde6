"""The notebooks for Colab: what their set-up cell asks for, and that it sets the kit up.

Colab itself is nowhere in these tests. A virtual environment stands in for its runtime, and a
module of a few lines for ``google.colab``, which only Colab has; pip, kernel, widgets and kit are
real.
The long form (``make test-long``) installs Colab's own releases from the package index, under the
Python that EMBVAR_COLAB_PYTHON names, and runs more notebooks.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import wheels
from browser.excerpts import calls
from effort import LONG
from nbclient import NotebookClient
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT
from traitlets.config import Config

import embvar_kit as ek

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

sys.path.insert(0, str(ROOT / "notebooks" / "course"))

import colab
import versions

ADDRESS = "git+https://example.org/embvar-kit.git@v1"
RUNTIME = ROOT / "tests" / "course" / "colab_runtime.txt"
"""Releases of Colab's runtime."""

LONG_ONES = ("01_variance_formula", "04_norm_variance_tradeoff", "05b_twins", "06_across_layers")
"""The notebooks that the long form runs: four explorers, the statistics and the twins."""

WIDGET = "application/vnd.jupyter.widget-view+json"

DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

# What the cell says


def test_the_cell_asks_for_the_ranges_of_the_project_and_no_more():
    needs = colab.needs()
    assert set(needs) < set(DEPENDENCIES)
    assert not [line for line in needs if "==" in line or "<" in line]
    left = {Requirement(line).name for line in set(DEPENDENCIES) - set(needs)}
    assert left == {"ipykernel", "ipywidgets", "traitlets", "jupyterlab", "voila"}
    assert left <= {*colab.OWN, *colab.FRONT_ENDS}


def test_colabs_releases_satisfy_what_the_cell_asks_for():
    """So pip replaces none of them, and nothing that the session has loaded changes."""
    runtime = {
        canonicalize_name(name): version
        for name, version in re.findall(r"(?m)^([\w-]+)==(\S+)$", RUNTIME.read_text())
    }
    assert {*colab.KEPT} <= {*runtime}
    asked = [Requirement(line) for line in colab.needs()]
    brought = [one for one in asked if canonicalize_name(one.name) in runtime]
    assert len(brought) > 20
    for one in brought:
        assert runtime[canonicalize_name(one.name)] in one.specifier, one


def test_the_cell_reads_as_python_of_any_line_length():
    code = colab.code(ADDRESS, colab.needs())
    nodes = [*ast.walk(ast.parse(code))]
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert max(map(len, code.splitlines())) <= 100
    imported = {
        name.partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert imported - {"google"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "address",
    ["", " ", "embvar-kit", "https://example.org/kit.git", "git+https://", 'a"b.whl', "a b.whl"],
)
def test_no_address_of_the_kit_no_cell(address, tmp_path):
    with pytest.raises(ValueError, match=r"git\+https://\.\.\., or a wheel"):
        versions.build(tmp_path / "out", address)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions, with one for Colab."""
    folder = tmp_path_factory.mktemp("course")
    assert versions.build(folder, ADDRESS) == ["student", "instructor", "published", "colab"]
    return folder


def test_the_version_for_colab_is_the_students_with_a_cell_in_front(out):
    names = [path.name for path in (out / "student").glob("*.ipynb")]
    assert len(names) == 11
    for name in names:
        mine, theirs = (nbformat.read(out / one / name, 4) for one in ("colab", "student"))
        nbformat.validate(mine)
        title, text, cell, *rest = mine.cells
        assert [title, *rest] == theirs.cells
        assert versions.tags(text) == versions.tags(cell) == ["setup"]
        assert "*Restart session*" in text.source
        assert cell.source == colab.code(ADDRESS, colab.needs()) and not cell.outputs
    files = [
        {path.relative_to(out / one) for path in (out / one).rglob("*")}
        for one in ("colab", "student")
    ]
    assert files[0] == files[1]


def test_the_address_stands_in_one_place_of_a_notebook(out):
    for path in (out / "colab").glob("*.ipynb"):
        assert path.read_text(encoding="utf-8").count(ADDRESS) == 1, path.name
    others = [path for one in ("student", "published") for path in (out / one).rglob("*.ipynb")]
    assert others and not [path for path in others if ADDRESS in path.read_text(encoding="utf-8")]


def test_make_passes_the_address_on():
    command = ["make", "--dry-run", "course", f"COLAB={ADDRESS}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f'versions.py "data/cache/course" --colab "{ADDRESS}"' in told
    told = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--colab" not in told


def test_elsewhere_the_cell_does_nothing(tmp_path):
    script = colab.code(ADDRESS, colab.needs())
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [*tmp_path.iterdir()]


def test_the_page_says_what_the_cell_keeps_and_what_was_tried():
    page = " ".join((ROOT / "notebooks/reference/where_it_runs.md").read_text("utf-8").split())
    assert f"({', '.join(colab.OWN)}) and its PyTorch" in page
    head = RUNTIME.read_text().split("\n\n")[0]
    (day,) = re.findall(r"\d+ \w+ 20\d\d", head)
    (python,) = re.findall(r"Python is (3\.\d+)", head)
    assert f"`{RUNTIME.relative_to(ROOT)}`, {day})" in page and f"under Python {python}" in page
    # The most that a session may take on mybinder.org, and a CPU build of PyTorch.
    row = re.search(r"\| GB \| ([\d. |]+) \|", page)[1].split(" | ")
    assert [at for at, held in enumerate(row, start=1) if float(held) - 0.3 < 2] == [1, 2]
    named = [int(stem[:2]) for stem in LONG_ONES if stem[2] == "_"]
    assert f"notebooks {named[0]}, {named[1]}, 5b and {named[2]}. By hand" in page


# The cell at work

STAND_IN = """
from types import SimpleNamespace

_widgets = SimpleNamespace(_installed_url=None)

def enable_custom_widget_manager():
    _widgets._installed_url = "https://colab.invalid/manager.js"
"""


class Runtime:
    """A stand-in for a fresh runtime of Colab: an environment, an empty folder, a kernel.

    The folder of models is the one of this checkout, so that nothing is downloaded.
    """

    def __init__(self, folder: Path, python: str = sys.executable, *options: str) -> None:
        self.folder = folder
        self.content = folder / "content"
        self.content.mkdir()
        subprocess.run([python, "-m", "venv", *options, str(folder / "venv")], check=True)
        self.python = folder / "venv" / "bin" / "python"
        (folder / "stand-in" / "google" / "colab").mkdir(parents=True)
        (folder / "stand-in" / "google" / "colab" / "__init__.py").touch()
        (folder / "stand-in" / "google" / "colab" / "output.py").write_text(STAND_IN)
        (folder / "stand-in" / "sitecustomize.py").write_text("import google.colab.output\n")
        home = folder / "home"
        home.mkdir()
        (home / "models").symlink_to((ek.home() / "models").resolve())
        self.variables = {"PYTHONPATH": str(folder / "stand-in"), "EMBVAR_HOME": str(home)}
        kernel = folder / "jupyter" / "kernels" / "colab"
        kernel.mkdir(parents=True)
        launch = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": launch, "display_name": "Colab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps({**spec, "env": self.variables}))

    def see(self, folder: Path) -> None:
        """Have the environment see the packages in a folder."""
        at = subprocess.run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        Path(at, f"{folder.name}.pth").write_text(f"{folder}\n")

    def run(self, code: str, **more: str) -> subprocess.CompletedProcess:
        """Run code as a session of its own."""
        return subprocess.run(
            [self.python, "-c", code],
            cwd=self.content,
            env={**os.environ, **self.variables, **more},
            capture_output=True,
            text=True,
            timeout=1200,
        )

    def releases(self) -> dict[str, str]:
        """The release of every package."""
        code = (
            "from importlib.metadata import distributions\n"
            "print([(one.name, one.version) for one in distributions()])"
        )
        found = ast.literal_eval(self.run(code).stdout)
        return {canonicalize_name(name): release for name, release in found}

    def execute(self, notebook: NotebookNode) -> NotebookClient:
        """Run a notebook in the empty folder, as its front end."""
        client = NotebookClient(
            notebook,
            kernel_name="colab",
            timeout=1200,
            config=Config(KernelManager={"transport_encryption": "auto"}),
            resources={"metadata": {"path": str(self.content)}},
        )
        client.execute()
        return client


def toy(folder: Path, release: str) -> Path:
    """A wheel of a package that is nothing but its release."""
    info = f"toy-{release}.dist-info"
    wheel = folder / f"toy-{release}-py3-none-any.whl"
    files = {
        "toy.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: toy\nVersion: {release}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A runtime that has all packages of this environment, pip among them, but the kit; and toy."""
    made = Runtime(tmp_path_factory.mktemp("runtime"), sys.executable, "--without-pip")
    packages = made.folder / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"embvar.kit|__editable__", path.name):
            (packages / path.name).symlink_to(path)
    made.see(packages)
    shelf = made.folder / "shelf"
    shelf.mkdir()
    wheels.pip("install", toy(shelf, "1"), python=made.python)
    toy(shelf, "2")
    made.offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}
    return made


@pytest.mark.slow
def test_the_cell_sets_up_a_runtime_and_says_when_to_restart_it(runtime, wheel):
    """A refusal by pip, a package that the session has loaded, and a restart."""
    before = runtime.releases()
    assert "embvar-kit" not in before and before["toy"] == "1"
    missing = colab.code(str(wheel), ["no-such-package-anywhere"])
    done = runtime.run(missing, **runtime.offline)
    assert done.returncode and "No matching distribution" in done.stderr.splitlines()[-1]
    assert runtime.releases() == before

    code = colab.code(str(wheel), [*colab.needs(), "toy>=2"])
    again = f"import toy\n{code}"
    twice = (
        f"import toy\ncell, session = {code!r}, {{}}\n"
        "try:\n    exec(cell, session)\nexcept RuntimeError as error:\n    print(error)\n"
        "exec(cell, session)"
    )
    done = runtime.run(twice, **runtime.offline)
    told = "Choose Runtime > Restart session"
    assert told in done.stdout and "another release of toy than" in done.stdout
    assert done.returncode and told in done.stderr  # a second run does not hide it
    assert "ready" not in done.stdout
    after = runtime.releases()
    assert {name for name in after if after[name] != before.get(name)} == {"embvar-kit", "toy"}

    done = runtime.run(again)  # without a shelf: nothing is installed again
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "The kit is ready."


def printed(cell: NotebookNode) -> str:
    """What a cell printed."""
    return "".join(one.text for one in cell.outputs if one.get("name") == "stdout")


def shows_explorers(client: NotebookClient) -> int:
    """Check the explorers in the outputs of a notebook that ran; returns their number.

    Colab finds its manager of third-party widgets by the metadata, and the widget by its comm.
    """
    outputs = [one for cell in client.nb.cells for one in cell.get("outputs", [])]
    found = [one for one in outputs if WIDGET in one.get("data", {})]
    for one in found:
        manager = one["metadata"][WIDGET]["colab"]["custom_widget_manager"]
        assert manager == {"url": "https://colab.invalid/manager.js"}
        assert one["data"][WIDGET]["model_id"] in client.widget_state
        assert one["data"]["image/png"]
    assert not [one for one in outputs if one.output_type == "error"]
    return len(found)


WHERE = "from embvar_kit.files import checkout\nprint(ek.__file__, checkout())"


@pytest.mark.slow
def test_a_notebook_runs_in_an_empty_folder_behind_the_cell(runtime, wheel, monkeypatch):
    """Notebook 1, as far as its explorer: a model, embeddings, a figure."""
    if "embvar-kit" not in runtime.releases():
        wheels.pip("install", "--no-deps", wheel, python=runtime.python)
    monkeypatch.setenv("JUPYTER_PATH", str(runtime.folder / "jupyter"))
    path = ROOT / "notebooks" / "01_variance_formula.ipynb"
    notebook = colab.with_setup(nbformat.read(path, as_version=4), "01", str(wheel))
    at = next(i for i, cell in enumerate(notebook.cells) if "ek.VariancePlayground" in cell.source)
    notebook.cells[at + 1 :] = [nbformat.v4.new_code_cell(WHERE)]
    client = runtime.execute(notebook)
    assert printed(notebook.cells[2]).endswith("The kit is ready.\n")
    kit, checkout = printed(notebook.cells[-1]).split()
    assert kit.startswith(str(runtime.folder)) and checkout == "None"
    assert shows_explorers(client) == 1


NESTED = """
import ctypes
import numpy as np
import torch
from embvar_kit.moments.grouped import GroupedMoments
GroupedMoments(2, 4).update(np.ones((8, 4), np.float32), np.zeros(8, int))
print(ctypes.CDLL(None).omp_get_nested())
"""
"""Whether threads of PyTorch may start teams of their own, which makes a pass several times as
long. Colab's release of Numba allows it."""


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="installs Colab's releases: make test-long")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="some of them need Python 3.11")
@pytest.mark.timeout(3600)
def test_a_bare_environment_with_colabs_releases(wheel, tmp_path, monkeypatch):
    """No lock: what the index has on the day, beside what Colab keeps."""
    python = os.environ.get("EMBVAR_COLAB_PYTHON")
    runtime = Runtime(tmp_path, python or sys.executable)
    wanted = RUNTIME.read_text()
    if not python:  # the build of PyTorch that is here already, and no CUDA
        public = version("torch").partition("+")[0]
        wanted = re.sub(r"(?m)^torch==.*$", f"torch=={public}", wanted)
    (tmp_path / "runtime.txt").write_text(wanted)
    command = [runtime.python, "-m", "pip", "install", "--quiet", "-r", tmp_path / "runtime.txt"]
    subprocess.run(command, check=True)
    before = runtime.releases()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    explorers = {}
    for stem in LONG_ONES:
        notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
        client = runtime.execute(colab.with_setup(notebook, "01", str(wheel)))
        assert printed(client.nb.cells[2]).endswith("The kit is ready.\n")
        explorers[stem] = shows_explorers(client)
    shown = {stem: len(calls(ROOT / "notebooks" / f"{stem}.ipynb")) for stem in LONG_ONES}
    assert explorers == shown and sum(shown.values()) >= 4
    assert runtime.run(NESTED).stdout.split() == ["0"]
    after = runtime.releases()
    assert {name: after[name] for name in colab.KEPT} == {name: before[name] for name in colab.KEPT}
