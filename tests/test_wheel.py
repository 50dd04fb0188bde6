"""A wheel works outside a checkout: built, installed into a folder of its own and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

import embvar_kit as ek

pytestmark = pytest.mark.slow

SENTENCES = ["The cat sat on the mat.", "A dog barked at the cat.", "The mat was red."]


def pip(*arguments: object) -> None:
    """Run pip without a network; the environment has all that a build needs."""
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--no-index", "--quiet"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, because setuptools writes build/ and *.egg-info beside what it builds.
    project = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"]
    for name in [*project, "notebooks/09_your_own_model.ipynb", *package_files()]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def package_files() -> list[str]:
    """Files of the package, as paths below the repository."""
    found = (ROOT / "embvar_kit").rglob("*")
    return sorted(
        str(path.relative_to(ROOT))
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    )


@pytest.fixture(scope="module")
def outside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory away from the checkout, with the kit installed in ``site``."""
    folder = tmp_path_factory.mktemp("outside")
    pip("install", "--no-deps", "--target", folder / "site", wheel)
    (folder / "text.txt").write_text("\n".join(SENTENCES * 20) + "\n")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to((ek.home() / "models").resolve())
    return folder


def python(outside: Path, script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a script with the installed kit; the environment's own must not be found."""
    site = str(outside / "site")
    script = f"import embvar_kit as ek; assert ek.__file__.startswith({site!r})\n{script}"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=outside,
        env={**os.environ, "PYTHONPATH": site, "EMBVAR_HOME": str(outside / "home")},
        capture_output=True,
        text=True,
        timeout=250,
    )


def embvar(outside: Path, *arguments: str) -> subprocess.CompletedProcess:
    script = "import sys; from embvar_kit.cli import main; sys.exit(main())"
    return python(outside, script, *arguments)


def test_wheel_holds_the_package_and_what_it_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not set(package_files()) - names
    assert "embvar_kit/py.typed" in names
    assert "embvar_kit/09_your_own_model.ipynb" in names
    others = {name.split("/")[0] for name in names} - {"embvar_kit"}
    assert [name.endswith(".dist-info") for name in others] == [True]


def test_metadata_says_what_a_registry_shows(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nVersion: {ek.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "\nClassifier: Typing :: Typed\n" in metadata


def test_extract_and_show(outside: Path) -> None:
    done = embvar(outside, "extract", "--corpus", "text.txt", "--out", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    done = embvar(outside, "show", "out")
    assert done.returncode == 0, done.stderr
    assert "Q = M + V_W + V_B" in done.stdout


def test_report(outside: Path) -> None:
    arguments = ("--corpus", "text.txt", "--limit", "40", "--min-count", "5", "--out", "report")
    done = embvar(outside, "report", "minilm", *arguments)
    assert done.returncode == 0, done.stderr
    page = (outside / "report" / "report.html").read_text(encoding="utf-8")
    assert "A model of your own" in page


def test_twins_that_a_wheel_lacks_are_named_with_their_remedy(outside: Path) -> None:
    done = python(outside, "ek.load_twin('post-ln')")
    assert done.returncode == 1
    assert "embvar twins" in done.stderr.splitlines()[-1]
