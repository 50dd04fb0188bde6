"""The scripts of the benchmarks refuse options that they do not have, before they run or write."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from paths import ROOT

SCRIPTS = sorted(
    path
    for path in (ROOT / "tests" / "benchmarks").glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


TWICE = """
import contextlib, io, json, runpy, sys

_, script, *options = sys.argv
sys.path[0] = script.rpartition("/")[0]
found = []
for option in options:
    sys.argv, told, refused = [script, option], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(refused):
        try:
            runpy.run_path(script, run_name="__main__")
            status = 0
        except SystemExit as left:
            status = left.code
    found.append((status, told.getvalue(), refused.getvalue()))
print(json.dumps(found))
"""
"""Run a script with one option after the other, in one process: loading PyTorch takes longest."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_script_says_what_it_does_and_refuses_what_it_does_not_know(script):
    before = {page: page.read_bytes() for page in script.parent.glob("*.md")}
    command = [sys.executable, "-c", TWICE, script.as_posix(), "--help", "--no-such-option"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (status, told, _), (refused, printed, error) = json.loads(done.stdout)
    assert status == 0 and told.startswith(f"usage: {script.name}")
    assert len(told.partition("\n\n")[2].split()) > 5, "it says what it does"
    assert refused == 2 and not printed and error.startswith("usage: ")
    assert {page: page.read_bytes() for page in before} == before
