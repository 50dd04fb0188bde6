"""A wheel works outside a checkout: built, installed into a folder of its own and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wheels

import embvar_kit as ek
from embvar_kit.models.twins import TWINS

pytestmark = pytest.mark.slow

SENTENCES = ["The cat sat on the mat.", "A dog barked at the cat.", "The mat was red."]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def outside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory away from the checkout, with the kit installed in ``site``."""
    folder = tmp_path_factory.mktemp("outside")
    wheels.pip("install", "--no-deps", "--target", folder / "site", wheel)
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
    assert not set(wheels.files_of("embvar_kit")) - names
    data = {f"embvar_kit/{name}" for name in wheels.files_of("data/stats", "data/twins")}
    assert len(data) > 40 and not data - names
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


def test_the_statistics_that_come_with_the_kit_are_read(outside: Path) -> None:
    """Without them, this would take a pass of an hour and time out."""
    script = "stats = ek.cached_statistics('smollm2', progress=False); print(len(stats.layers))"
    done = python(outside, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["31"]


def test_the_twins_that_come_with_the_kit_are_read(outside: Path) -> None:
    script = (
        "print(ek.load_twin('post-ln').n_states, *ek.twin_losses().twin.unique());"
        "print(len(ek.twin_tradeoffs()))"
    )
    done = python(outside, script)
    assert done.returncode == 0, done.stderr
    twins, rows = done.stdout.splitlines()
    assert twins.split() == ["7", *TWINS]
    assert int(rows) == len(ek.twin_tradeoffs())
    # What is trained goes elsewhere.
    assert not (outside / "home" / "twins").exists()
