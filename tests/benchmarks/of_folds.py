"""Times passes with a null and with folds beside a plain one: python tests/benchmarks/of_folds.py

minilm over 6,000 sentences of the excerpt, in turn, on an otherwise idle machine. With ``--whole``,
over all of it, plain and in folds, once each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import embvar_kit as ek

PASSES = {
    "plain": {},
    "folds=20": {"folds": 20},
    "null=True": {"null": True},
    "both": {"null": True, "folds": 20},
}


def main(sample: int | None, passes: Sequence[str], rounds: int) -> None:
    """Print the seconds of each pass, and its ratio to the plain one of the same round."""
    model, corpus = ek.load_model("minilm"), ek.load_corpus("wikipedia", sample=sample, seed=0)
    few = ek.load_corpus("wikipedia", sample=300, seed=0)
    for options in ({}, {"folds": 5}):  # what is compiled and loaded once
        ek.extract(model, few, progress=False, **options)
    ratios: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        taken = {}
        for name in passes:
            started = time.perf_counter()
            ek.extract(model, corpus, progress=False, **PASSES[name])
            taken[name] = time.perf_counter() - started
            ratios[name].append(taken[name] / taken["plain"])
            print(f"{name:<10} {taken[name]:6.1f} s  {ratios[name][-1]:.2f}", flush=True)
    print({name: round(statistics.median(found), 2) for name, found in ratios.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].partition(":")[0])
    parser.add_argument(
        "--whole", action="store_true", help="all of the excerpt, plain and in folds, once each"
    )
    if parser.parse_args().whole:
        main(None, ["plain", "folds=20"], rounds=1)
    else:
        main(6000, list(PASSES), rounds=2)
