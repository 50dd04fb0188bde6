"""A pass that is killed and resumed again and again gives the bits of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from effort import effort, tried
from safetensors.numpy import load_file

import embvar_kit as ek
from embvar_kit import array_file
from embvar_kit.extraction import checkpoint
from embvar_kit.files import leftovers

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a killed process is forked"),
    pytest.mark.slow,
]

# One process imports and loads, then forks a child for each attempt, which costs no start-up. It
# has one thread, since threads do not survive a fork. Children write a checkpoint every batch.
HOST = """
import os, sys
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import torch
torch.set_num_threads(1)
import embvar_kit as ek
from embvar_kit.corpora.parts import StreamedCorpus

model = ek.load_model({model!r}, device="cpu")
corpus = ek.load_corpus("wikipedia", limit={limit}, max_words=30)
streamed = StreamedCorpus(
    "stream", lambda: (("t", i, s) for i, s in enumerate(corpus, 1)), chunk={limit} // 3
)
for line in sys.stdin:
    how, out = line.split()
    text = streamed if how == "stream" else corpus
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)
        continue
    options = {{"checkpoint": "kept", "checkpoint_every": 0}} if out != "alone" else {{}}
    sites = ["hidden", "unit"]
    found = ek.extract(model, text, site=sites, batch_tokens=64, progress=False, **options)
    for site in sites:
        found[site].save(f"{{out}}/{{site}}")
    os._exit(0)
"""


class Host:
    """The process that forks passes, one at a time."""

    def __init__(self, model: Path, folder: Path, limit: int = 60) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST.format(model=str(model), limit=limit)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, how: str, out: str) -> int:
        """Fork a pass; returns its process id."""
        self.process.stdin.write(f"{how} {out}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for the pass; returns its exit status, 0 unless it failed or was killed."""
        return int(self.process.stdout.readline())

    def run(self, how: str, out: str) -> float:
        """Run a pass to its end; returns the seconds it took."""
        started = time.monotonic()
        self.begin(how, out)
        assert self.end() == 0
        return time.monotonic() - started


@pytest.fixture(scope="module")
def host(tiny, tmp_path_factory):
    host = Host(tiny("bert"), tmp_path_factory.mktemp("killed"))
    yield host
    host.process.stdin.close()
    host.process.wait(30)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["corpus", "stream"])
def test_a_pass_killed_at_random_moments_ends_with_the_same_bits(host, how, tmp_path):
    """SIGKILL while batches run, while checkpoints are written, and while parts are merged."""
    random.seed(how)
    host.run(how, "alone")
    wanted = {site: ek.TokenStatistics.load(host.folder / "alone" / site) for site in SITES}
    whole = host.run(how, "tried") + 0.05  # seconds of an undisturbed pass with checkpoints
    remove(host.folder / "kept")
    kills = writing = attempts = 0
    until = effort(20, 300)
    while kills < until:
        attempts += 1
        child = host.begin(how, "tried")
        time.sleep(random.uniform(0, whole if attempts % 3 else whole / 8))
        with suppress(ProcessLookupError):  # it may have ended
            os.kill(child, signal.SIGKILL)
        status = host.end()
        assert status in (0, signal.SIGKILL), "it ended well or was killed, without an error"
        if status:
            kills += 1
            writing += bool(leftovers(host.folder / "kept" / "pass.safetensors"))
        else:  # it ended before the kill: check it, and start over
            check(host.folder / "tried", wanted)
            remove(host.folder / "kept")
    host.run(how, "tried")
    check(host.folder / "tried", wanted)
    remove(host.folder / "kept")
    tried(f"passes killed ({how})", kills)
    tried("passes killed while a checkpoint was being written", writing)


SITES = ("hidden", "unit")


def check(folder: Path, wanted: dict) -> None:
    """Saved statistics are the wanted ones, to the bit."""
    for site, one in wanted.items():
        found = ek.TokenStatistics.load(folder / site)
        assert found.tokens.tolist() == one.tokens.tolist()
        for name in ("n", "Q", "M", "V", "mean", "extra"):
            np.testing.assert_array_equal(getattr(found, name), getattr(one, name))


def remove(folder: Path) -> None:
    checkpoint.remove(folder)
    assert not folder.exists()


@pytest.mark.timeout(300)
def test_a_file_killed_while_it_is_written_is_the_old_one_or_the_new_one(tmp_path):
    """Writing over and over, 4 MB each time, so that most kills fall into a write."""
    path = tmp_path / "pass.safetensors"
    number = 0
    array_file.write(path, array_of(0), {"number": 0})
    inside = 0
    random.seed(0)
    for _ in range(effort(20, 300)):
        child = os.fork()
        if not child:
            try:
                for n in range(number + 1, number + 10_000):
                    array_file.write(path, array_of(n), {"number": n})
            finally:
                os._exit(1)
        time.sleep(random.uniform(0.005, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        inside += bool(leftovers(path))
        kept = array_file.CheckpointFile(path)
        assert kept.told["number"] >= number
        number = kept.told["number"]
        np.testing.assert_array_equal(kept["x"], array_of(number)["x"])
        np.testing.assert_array_equal(load_file(path)["x"], kept["x"])
        tried("writers of a checkpoint killed")
    assert number > 0 and inside > 0
    tried("writers of a checkpoint killed with a file half written", inside)


def array_of(number: int) -> dict[str, np.ndarray]:
    return {"x": np.full(1_000_000, number, dtype=np.float32)}
