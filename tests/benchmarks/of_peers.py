"""Time passes of other libraries beside the kit's, and write peers.md: make bench-peers

The same token ids on the same machine in one run. Each contestant has a process of its own (see
contestants.py), and they take turns; the peers' processes run in ``.venv-peers``, which make
builds from ``peers.txt``.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contestants import PEERS
from machine import processor, today
from turns import Contestant, Failed, write_text

import embvar_kit as ek

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-peers" / "bin" / "python"

NAMES = {
    "extract": "**`extract`**: hidden states and statistics",
    "forward": "the forward pass of `extract` alone",
    "plain 32": "plain transformers, batches of 32 sentences as they come",
    "plain 64": "plain transformers, batches of 64 sentences sorted by length",
    "sentence-transformers": "sentence-transformers {version}, token embeddings, the same batches "
    "of 64",
    "TransformerLens": "TransformerLens {version}, `run_with_cache`, the same batches of 64",
    "nnsight": "nnsight {version}, `trace`, the same batches of 64",
    "authors": "the authors' scheme: one batch of all {sentences} sentences, hidden states and "
    "statistics in a loop over occurrences",
}

OWN = ("extract", "forward")
"""The kit's own states: both come from one function, so that they are not held against each other.
"""

ALIKE = ("threads", "torch", "transformers")
"""What has to be the same for all contestants."""

ONE_BATCH = 1024
"""Sentences in a batch of the authors' scheme."""

ROUNDING = 1e-4
"""Largest distance of two vectors, as a share of their norm, that is float32 rounding; the kit's
own trials of a model have the same bound."""


def check_alike(told: dict[str, dict[str, Any]]) -> None:
    """Stop if contestants differ in threads or in releases, which the page gives once for all."""
    found = {name: tuple(one[key] for key in ALIKE) for name, one in told.items()}
    if len(set(found.values())) > 1:
        lines = (f"  {name}: {', '.join(map(str, values))}" for name, values in found.items())
        sys.exit(
            f"The contestants differ in {', '.join(ALIKE)}, so that their times cannot be "
            "compared:\n" + "\n".join(lines) + "\nInstall the same releases in .venv and "
            ".venv-peers, with pip's index the same for both, and run `make bench-peers` again."
        )


def measure(folder: Path, rounds: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What was found of each contestant, and of those that failed, why."""
    running: dict[str, Contestant] = {}
    failed: dict[str, str] = {}
    for name in NAMES:
        try:
            running[name] = Contestant(name, folder, PYTHON if name in PEERS else sys.executable)
        except Failed as error:
            if name not in PEERS:
                raise
            failed[name] = str(error)
        print(f"  {name}: {failed.get(name) or running[name].told}", flush=True)
    check_alike({name: contestant.told for name, contestant in running.items()})
    taken: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds + 1):  # the first round is not counted
        turns = list(running)
        first = number % len(turns)
        for name in turns[first:] + turns[:first]:
            seconds = running[name].run()
            print(f"  round {number}: {name} {seconds:.2f} s", flush=True)
            if number:
                taken[name].append(seconds)
    found = {}
    for name, contestant in running.items():
        found[name] = contestant.told | contestant.order("memory")
        found[name] |= {"seconds": min(taken[name])}
        contestant.order("states")
        contestant.close()
        states, own = (np.load(folder / f"{at}.npy") for at in (name, "extract"))
        apart = np.linalg.norm(states - own, axis=-1) / np.linalg.norm(own, axis=-1)
        found[name]["apart"] = float(apart.max())
    return found, failed


def report(
    found: dict[str, dict[str, Any]],
    failed: dict[str, str],
    tokens: int,
    sentences: int,
    rounds: int,
) -> str:
    """The measurements as Markdown."""
    own = found["extract"]
    lines = [
        "# Beside other libraries",
        "",
        f"Measured by `make bench-peers` in one run on {today()}: {own['threads']} threads on "
        f"{processor()}, Python "
        f"{platform.python_version()}, torch {own['torch']}, transformers {own['transformers']}, "
        f"embvar-kit {ek.__version__}; the contestants take turns. A time is the shortest of "
        f"{rounds} rounds: what else a machine does can only lengthen it.",
        "",
        f"All hidden states of minilm for the same {tokens:,} tokens of the excerpt, from token "
        "ids, in float32. Only `extract` and the authors' scheme take statistics; the others drop "
        "the states of a batch before the next one.",
        "",
        "| | tokens/s | time beside `extract` | memory, MiB | of which the pass | states |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, title in NAMES.items():
        if name in failed:
            lines.append(f"| {name} | did not run: {failed[name]} | | | | |")
            continue
        one = found[name]
        grown = one["peak"] - one["before"]
        apart = "–" if name in OWN else f"{one['apart']:.0e}"
        if one["apart"] > ROUNDING:
            apart = f"**{apart}: other states**"
        told = title.format(version=one["version"], sentences=sentences)
        lines.append(
            f"| {told} | {tokens / one['seconds']:,.0f} "
            f"| {one['seconds'] / own['seconds']:.2f} | {one['peak'] / 2**20:,.0f} "
            f"| {grown / 2**20:,.0f} | {apart} |"
        )
    lines += [
        "",
        "*Memory* is the largest resident memory of the contestant's process, with its libraries "
        "and the weights, and *of which the pass* how much of it came after the model had run a "
        "few sentences. *States* is the largest distance of a hidden state from the kit's, as a "
        f"share of its norm, over the first sentences; up to {ROUNDING:.0e} is rounding. The kit's "
        "own two are from one function and are not compared.",
        "",
        "TransformerLens has no BERT without a head for masked words: its row pays for the logits "
        "of the vocabulary, from a head that it fills with random numbers, which leave the hidden "
        "states alone. From its cache only the residual stream between the blocks is taken. "
        "nnsight saves what the embeddings and each block give. The authors' scheme puts these few "
        "sentences into one batch, padded to the longest. Over a larger text its batches of "
        f"{ONE_BATCH:,} hold sentences of similar length, and it loses less: "
        "[results.md](results.md) has that time. The versions of everything are in "
        "`tests/benchmarks/peers.txt`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5, help="counted, at least 5 to be reported")
    parser.add_argument("--out", type=Path, default=HERE / "peers.md")
    chosen = parser.parse_args()
    if chosen.sentences > ONE_BATCH:
        parser.error(f"the page is about one batch of the authors' scheme: at most {ONE_BATCH}")
    if not PYTHON.exists():
        sys.exit(f"There is no {PYTHON}: run `make bench-peers`, which builds it.")
    with tempfile.TemporaryDirectory() as name:
        tokens = write_text(Path(name), chosen.sentences)
        found, failed = measure(Path(name), chosen.rounds)
    page = report(found, failed, tokens, chosen.sentences, chosen.rounds)
    chosen.out.write_text(page, encoding="utf-8")
    print(f"\n{page}\nwritten to {chosen.out.name}")


if __name__ == "__main__":
    main()
