"""Contestants that take turns: each in a process of its own, which waits for orders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from contestants import OF_THE_KIT

import embvar_kit as ek
from embvar_kit.models.bundled import BUNDLED

HERE = Path(__file__).parent

SET_BY_THE_KIT = ("GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Variables that the kit sets when it is imported before PyTorch. Other processes inherit them,
which other libraries are not to."""


class Failed(Exception):
    """A contestant's process ended; the text is the last line of what it said."""


class Contestant:
    """A contestant in a process of its own.

    Args:
        name: as in contestants.py, with ``, 16`` if 16 cores are to be seen, and ``, 16, 2`` if a
            quota is to grant two of them.
        folder: where :func:`write_text` has written the text.
        python: the interpreter that it runs with.

    Attributes:
        told: what it told of itself: versions and threads.

    Raises:
        Failed: if it could not load.
    """

    def __init__(self, name: str, folder: Path, python: str | Path = sys.executable) -> None:
        own = name.split(",")[0] in OF_THE_KIT
        passed_on = os.environ.keys() - (() if own else SET_BY_THE_KIT)
        self._said = (folder / f"{name}.log").open("w+")
        self._process = subprocess.Popen(
            [str(python), str(HERE / "contestants.py"), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={key: os.environ[key] for key in passed_on},
        )
        self.told = self._answer()

    def order(self, order: str) -> dict[str, Any]:
        """What it answers to an order: ``pass``, ``memory`` or ``states``."""
        with suppress(BrokenPipeError):  # it has ended, which the missing answer shows, too
            print(order, file=self._process.stdin, flush=True)
        return self._answer()

    def run(self) -> float:
        """Seconds that it takes for the text."""
        return self.order("pass")["seconds"]

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()
        self._said.close()

    def _answer(self) -> dict[str, Any]:
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        raise Failed((self._said.read().strip().splitlines() or ["it said nothing"])[-1])


def write_text(folder: Path, sentences: int) -> int:
    """Write some sentences of the excerpt for contestants to run minilm on.

    Returns:
        Their number of tokens.
    """
    corpus = ek.load_corpus("wikipedia", sample=sentences, seed=0)
    work = ek.plan(ek.load_model("minilm", device="cpu"), corpus)
    np.savez(
        folder / "text.npz",
        model=str(BUNDLED["minilm"].path),
        ids=work.text.ids,
        starts=work.text.starts,
        order=np.concatenate(work.batches),
        sizes=[len(batch) for batch in work.batches],
    )
    (folder / "sentences.json").write_text(json.dumps(list(corpus.sentences)))
    return work.n_tokens
