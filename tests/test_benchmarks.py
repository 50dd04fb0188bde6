"""The scripts of the benchmarks refuse options that they do not have, before they run or write."""

from __future__ import annotations

import subprocess
import sys

import pytest
from paths import ROOT

SCRIPTS = sorted(
    path
    for path in (ROOT / "tests" / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_script_says_what_it_does_and_refuses_what_it_does_not_know(script):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    before = {page: page.read_bytes() for page in script.parent.glob("*.md")}
    told = run("--help")
    assert told.returncode == 0 and told.stdout.startswith(f"usage: {script.name}"), told.stderr
    assert len(told.stdout.partition("\n\n")[2].split()) > 5, "it says what it does"
    refused = run("--no-such-option")
    assert refused.returncode == 2 and not refused.stdout
    assert {page: page.read_bytes() for page in before} == before
