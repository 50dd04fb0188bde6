"""Time the pass, and its statistics stage, against what they could be compared with.

    make bench                                  # or: .venv/bin/python tests/benchmarks/run.py
    .venv/bin/python tests/benchmarks/run.py --sentences 300 --rounds 1    # a quick look

Everything is measured in one run, the contestants in turn in every round, and the medians of the
rounds are compared: on a shared machine seconds drift, ratios hold. Writes ``results.md`` beside
this file (``--out`` for another place).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import SequentialLoop

import embvar_kit as ek
from embvar_kit.forwarding import AT_NORMS, forward
from embvar_kit.moments import GroupOrder

HERE = Path(__file__).parent


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, run in turn; one round before them is not counted.

    Every round starts with another contestant, so that none always follows the same one.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        turns = list(contestants.items())
        first = number % len(turns)
        for name, work in turns[first:] + turns[:first]:
            spent = seconds(work)
            print(f"  round {number}: {name} {spent:.2f} s", flush=True)
            if number:
                taken[name].append(spent)
    return {name: statistics.median(times) for name, times in taken.items()}


def bare_forward(model: ek.EmbeddingModel, work: ek.Plan) -> None:
    for _ in forward(model, work.text, work.batches):
        pass


def plain_batches(model: ek.EmbeddingModel, work: ek.Plan) -> None:
    """What one would write first: sorted by length, 64 sentences a batch, padded."""
    order = np.argsort(work.text.lengths, kind="stable")
    sequences = [
        work.text.ids[work.text.starts[i] : work.text.starts[i + 1]].tolist() for i in order
    ]
    for at in range(0, len(sequences), 64):
        batch = model.tokenizer.pad({"input_ids": sequences[at : at + 64]}, return_tensors="pt")
        model.hidden_states(batch["input_ids"], batch["attention_mask"])


def loop_pass(model: ek.EmbeddingModel, work: ek.Plan) -> None:
    """The same batches, with the paper's recurrence once per occurrence and layer."""
    loops = [SequentialLoop(np.float32) for _ in work.layers]
    for batch in forward(model, work.text, work.batches):
        groups = work.group[batch.tokens]
        for loop, layer in zip(loops, work.layers, strict=True):
            x = batch.states[layer].reshape(-1, work.width).numpy()[batch.rows]
            loop.update(x, groups)


def whole_passes(model: ek.EmbeddingModel, sentences: int, rounds: int) -> dict[str, float]:
    corpus = ek.load_corpus("wikipedia", sample=sentences, seed=0)
    work = ek.plan(model, corpus)
    print(f"passes over {len(corpus)} sentences, {work.n_tokens:,} tokens", flush=True)
    times = medians(
        {
            "bare": lambda: bare_forward(model, work),
            "extract": lambda: ek.run_plan(model, corpus, work),
            "three": lambda: ek.run_plan(model, corpus, work, site=list(AT_NORMS)),
            "plain": lambda: plain_batches(model, work),
            "loop": lambda: loop_pass(model, work),
        },
        rounds,
    )
    return times | {"tokens": work.n_tokens}


def statistics_stage(
    model: ek.EmbeddingModel, width: int, n_layers: int, rounds: int
) -> dict[str, float]:
    """The moments alone, the kit's against the loop's, on identical hidden states."""
    work = ek.plan(model, ek.load_corpus("wikipedia", sample=2000, seed=0))
    rng = np.random.default_rng(0)
    batches = work.batches[:: max(1, len(work.batches) // 12)]
    starts = work.text.starts
    groups = [
        work.group[np.concatenate([np.arange(*starts[[i, i + 1]]) for i in batch])]
        for batch in batches
    ]
    states = [rng.normal(size=(n_layers, len(g), width)).astype(np.float32) for g in groups]
    moments = [ek.GroupedMoments(len(work.labels), width) for _ in range(n_layers)]
    loops = [SequentialLoop(np.float32) for _ in range(n_layers)]

    def kit() -> None:
        for x, own in zip(states, groups, strict=True):
            order = GroupOrder.of(own)
            for layer in range(n_layers):
                moments[layer].add(x[layer], order)

    def loop() -> None:
        for x, own in zip(states, groups, strict=True):
            for layer in range(n_layers):
                loops[layer].update(x[layer], own)

    print(f"statistics stage, {width} wide, {n_layers} layers", flush=True)
    times = medians({"kit": kit, "loop": loop}, rounds)
    each = sum(len(g) for g in groups) * n_layers
    return {name: spent / each * 1e6 for name, spent in times.items()}


MEMORY = """
import sys, psutil, resource
import embvar_kit as ek
import embvar_kit.extraction
model, corpus = ek.load_model("minilm", device="cpu"), ek.load_corpus("wikipedia")
ek.extract(model, corpus[:20], progress=False)  # compiled code, threads, buffers
before = psutil.Process().memory_info().rss
stats = ek.extract(model, corpus, progress=False)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(peak - before, stats.mean.nbytes)
"""


def memory() -> tuple[int, int]:
    """Bytes by which a pass over the whole excerpt grows a process, and bytes of its means."""
    print("memory of a pass over the whole excerpt", flush=True)
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    growth, means = out.stdout.split()[-2:]
    return int(growth), int(means)


def report(whole: dict, stages: dict, grown: tuple[int, int], rounds: int) -> str:
    growth, means = (size / 2**20 for size in grown)
    tokens = whole["tokens"]
    lines = [
        "# Benchmark",
        "",
        f"Measured by `make bench` in one run: {torch.get_num_threads()} threads on "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"embvar-kit {ek.__version__}; contestants in turn, medians of {rounds} rounds.",
        "",
        f"## A pass of minilm over {tokens:,} tokens",
        "",
        "| | tokens/s | time beside the bare forward pass |",
        "| --- | ---: | ---: |",
    ]
    names = {
        "bare": "bare forward pass, the kit's batches",
        "extract": "**extract**: forward pass and statistics",
        "three": "**extract** at three sites: a normalization's input, standardized, output",
        "plain": "plain forward pass, 64 sentences a batch sorted by length, no statistics",
        "loop": "forward pass and the paper's loop, the kit's batches",
    }
    for key, name in names.items():
        lines.append(f"| {name} | {tokens / whole[key]:,.0f} | {whole[key] / whole['bare']:.3f} |")
    lines += [
        "",
        "## The statistics alone, on identical hidden states",
        "",
        "| | loop, µs | kit, µs | loop / kit |",
        "| --- | ---: | ---: | ---: |",
    ]
    for (width, n_layers), times in stages.items():
        lines.append(
            f"| {width} wide, {n_layers} layers, per occurrence and layer "
            f"| {times['loop']:.2f} | {times['kit']:.2f} | {times['loop'] / times['kit']:.1f} |"
        )
    rows = [
        ("`extract` / bare forward pass", whole["extract"] / whole["bare"], "≤ 1.05"),
        ("`extract` / plain pass of 64 sentences", whole["extract"] / whole["plain"], "≤ 0.80"),
        ("three sites / one site", whole["three"] / whole["extract"], "≤ 1.25"),
        ("loop / kit, 384 wide", stages[384, 7]["loop"] / stages[384, 7]["kit"], "≥ 12"),
        ("memory growth, MiB", growth, f"≤ {1.3 * means + 400:.0f} (1.3 × means + 400)"),
    ]
    lines += ["", "## Bars", "", "| | measured | bar | |", "| --- | ---: | ---: | --- |"]
    for name, value, bar in rows:
        limit = float(bar.split()[1])
        met = value <= limit if bar.startswith("≤") else value >= limit
        shown = f"{value:.0f}" if value > 100 else f"{value:.3f}" if value < 10 else f"{value:.1f}"
        lines.append(f"| {name} | {shown} | {bar} | {'met' if met else '**missed**'} |")
    lines += [
        "",
        f"The float32 means of the whole excerpt are {means:.0f} MiB; the growth is that of the "
        "process's peak, which includes the plan and the model's own buffers. The GPU path has "
        "not been timed on a GPU.",
        "",
        "The bars are the project's own. The second depends on the processor: it was set where "
        "batches of 64 sentences fall out of the caches. Where they do not, both passes run at "
        "the rate of the same matrix products, and the bar cannot be met by batching.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1500, help="of the passes compared")
    parser.add_argument("--rounds", type=int, default=3, help="counted, at least 3 to be reported")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    chosen = parser.parse_args()
    model = ek.load_model("minilm", device="cpu")
    grown = memory()
    stages = {
        shape: statistics_stage(model, *shape, chosen.rounds) for shape in ((384, 7), (768, 13))
    }
    whole = whole_passes(model, chosen.sentences, chosen.rounds)
    text = report(whole, stages, grown, chosen.rounds)
    chosen.out.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {chosen.out.name}")


if __name__ == "__main__":
    main()
