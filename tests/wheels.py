"""Wheels of the kit, built and installed by pip without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from paths import ROOT


def pip(*arguments: object, python: str | Path = sys.executable) -> None:
    """Run pip without a network; the environment has all that a build needs."""
    command = [str(python), "-m", "pip", *map(str, arguments), "--no-index", "--quiet"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def build(folder: Path) -> Path:
    """Build a wheel of the kit in a folder."""
    source = folder / "source"
    # A copy, because setuptools writes build/ and *.egg-info beside what it builds.
    project = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"]
    project.append("notebooks/09_your_own_model.ipynb")
    for name in [*project, *files_of("embvar_kit", "data/stats", "data/twins")]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


def files_of(*folders: str) -> list[str]:
    """The files in folders of the repository, as paths below it."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
