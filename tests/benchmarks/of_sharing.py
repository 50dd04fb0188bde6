"""Time passes on a machine that others use, too: python tests/benchmarks/of_sharing.py

Writes sharing.md: what busy processes beside a pass cost it, held against what they cost a plain
forward pass of the same batches; and a pass that sees 16 cores of which a quota grants two. Each
contestant has a process of its own (see contestants.py), and they take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from machine import processor, today
from turns import Contestant, write_text

import embvar_kit as ek

HERE = Path(__file__).parent

CORES = 2

ALONE = {
    "extract": "`extract`",
    "plain": "plain forward pass of the same batches",
    f"extract, 16, {CORES}": f"`extract`, 16 cores seen and a quota of {CORES}",
    "extract, 16": "the same, if the kit did not know of the quota",
}
BESIDE = ("extract", "plain")


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


Times = dict[str, list[float]]
"""Seconds of each contestant, round by round."""


def measure(folder: Path, rounds: int) -> tuple[Times, Times]:
    """Seconds of each contestant alone, and of some beside busy processes."""
    running = {name: Contestant(name, folder) for name in ALONE}
    alone: Times = {name: [] for name in ALONE}
    beside: Times = {name: [] for name in BESIDE}
    for number in range(rounds + 1):  # the first round is not counted
        first = number % len(running)
        names = list(running)
        for name in names[first:] + names[:first]:
            alone[name].append(running[name].run())
        with busy(CORES):
            for name in BESIDE[number % 2 :] + BESIDE[: number % 2]:
                beside[name].append(running[name].run())
        for how, times in (("alone", alone), ("beside", beside)):
            last = {name: round(found[-1], 2) for name, found in times.items()}
            print(f"  round {number}, {how}: {last}", flush=True)
    for contestant in running.values():
        contestant.close()
    return (
        {name: found[1:] for name, found in alone.items()},
        {name: found[1:] for name, found in beside.items()},
    )


def report(alone: Times, beside: Times, tokens: int, rounds: int) -> str:
    """The measurements beside their bars, as Markdown."""
    shortest = {name: min(found) for name, found in alone.items()}
    usual = {name: statistics.median(found) for name, found in alone.items()}
    disturbed = {name: statistics.median(found) for name, found in beside.items()}
    slowdown = {name: disturbed[name] / usual[name] for name in BESIDE}
    under_quota = f"extract, 16, {CORES}"
    rows = [
        (
            f"slowdown of `extract` / slowdown of a plain forward pass, beside {CORES} busy "
            "processes",
            slowdown["extract"] / slowdown["plain"],
            1.3,
        ),
        (
            f"`extract` with a quota of {CORES} where 16 cores are seen, over the same where "
            f"{CORES} are",
            shortest[under_quota] / shortest["extract"],
            1.2,
        ),
    ]
    lines = [
        "# On a shared machine",
        "",
        f"Measured by `python tests/benchmarks/of_sharing.py` in one run on {today()}: "
        f"{CORES} cores of {processor()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, embvar-kit {ek.__version__}. minilm over {tokens:,} tokens of "
        f"the excerpt. The contestants take turns, in {rounds} rounds. A slowdown divides "
        "the median beside busy processes by the median alone; the quota's row "
        "divides the shortest times.",
        "",
        "| | measured | bar | |",
        "| --- | ---: | ---: | --- |",
        *(
            f"| {what} | {found:.2f} | ≤ {bar} | {'met' if found <= bar else '**missed**'} |"
            for what, found, bar in rows
        ),
        "",
        f"| tokens/s | alone, shortest | alone, median | beside {CORES} busy processes, median "
        "| slowdown |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, title in ALONE.items():
        rest = " | | |"
        if name in beside:
            rest = f" | {tokens / disturbed[name]:,.0f} | {slowdown[name]:.2f} |"
        of_rounds = f"{tokens / shortest[name]:,.0f} | {tokens / usual[name]:,.0f}"
        lines.append(f"| {title} | {of_rounds}{rest}")
    lines += [
        "",
        "The plain pass is PyTorch's and transformers' alone, in a process that does not load the "
        "kit. A machine that shows 16 cores is simulated: PyTorch and Numba are given 16 threads, "
        "as they would take there, and the kit is told of the quota as its control groups would "
        "tell it; two cores are all that there are.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="counted, at least 5 to be reported")
    parser.add_argument("--out", type=Path, default=HERE / "sharing.md")
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # of a larger machine, this and all it starts get two
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as name:
        tokens = write_text(Path(name), chosen.sentences)
        alone, beside = measure(Path(name), chosen.rounds)
    page = report(alone, beside, tokens, chosen.rounds)
    chosen.out.write_text(page, encoding="utf-8")
    print(f"\n{page}\nwritten to {chosen.out.name}")


if __name__ == "__main__":
    main()
