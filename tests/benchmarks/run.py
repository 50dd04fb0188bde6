"""Time the pass, its statistics and its memory against what they could be compared with.

    make bench                                  # or: .venv/bin/python tests/benchmarks/run.py
    .venv/bin/python tests/benchmarks/run.py --sentences 300 --rounds 1 --quick   # a quick look

Everything is measured in one run. Writes ``results.md`` beside this file (``--out`` for another
place).
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import measuring
from machine import processor, today

import embvar_kit as ek

HERE = Path(__file__).parent


def report(found: dict, rounds: int) -> str:
    """The measurements beside their bars, as Markdown."""
    whole, stages, over = found["whole"], found["stages"], found["over"]
    growth, means = (size / 2**20 for size in found["memory"])
    rates, tokens, half = found["rates"], found["per_token"], found["half"]
    lines = [
        "# Benchmark",
        "",
        f"Measured by `make bench` in one run on {today()}: {torch.get_num_threads()} threads on "
        f"{processor()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, embvar-kit {ek.__version__}; "
        f"the contestants take turns, and times are medians of {rounds} rounds.",
        "",
        "## Bars",
        "",
        "| | measured | bar | |",
        "| --- | ---: | ---: | --- |",
    ]
    extract = whole["extract"]
    narrow, wide = stages[384, 7], stages[768, 13]
    flat = max(tokens.values()) / min(tokens.values())
    limit = 1.2 * means + 300
    rows = [
        ("statistics over the bare forward pass, minilm, whole excerpt, %", over["minilm"], "≤ 2"),
        ("the same, smollm2, %", over["smollm2"], "≤ 1"),
        ("loop / kit on identical hidden states, 384 wide", narrow["loop"] / narrow["kit"], "≥ 20"),
        ("the same, 768 wide", wide["loop"] / wide["kit"], "≥ 20"),
        ("forward pass, % of the rate of the faster matrix product", rates["share"], "≥ 80"),
        ("the authors' scheme / `extract`", whole["authors"] / extract, "≥ 2.0"),
        (
            "plain pass, batches of 64, no statistics / `extract`",
            whole["plain"] / extract,
            "≥ 1.4",
        ),
        ("three sites / one site", whole["three"] / extract, "≤ 1.25"),
        ("time per token, 1,000 to 18,000 sentences, largest / smallest", flat, "≤ 1.10"),
        ("memory growth, MiB (1.2 × means + 300)", growth, f"≤ {limit:.0f}"),
        ("`import embvar_kit`, s", found["starts"]["import"], "≤ 0.3"),
        ("`embvar --help`, s", found["starts"]["help"], "≤ 0.3"),
    ]
    for name, value, bar in rows:
        limit = float(bar.split()[1])
        met = value <= limit if bar.startswith("≤") else value >= limit
        shown = f"{value:.0f}" if value > 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
        lines.append(f"| {name} | {shown} | {bar} | {'met' if met else '**missed**'} |")
    lines += [
        "",
        f"## Passes of minilm over {whole['tokens']:,} tokens",
        "",
        "| | tokens/s | time beside `extract` |",
        "| --- | ---: | ---: |",
    ]
    names = {
        "bare": "bare forward pass, the kit's batches",
        "extract": "**extract**: forward pass and statistics",
        "three": "**extract** at three sites: a normalization's input, standardized, and output",
        "plain": "plain forward pass, batches of 64 sentences sorted by length, no statistics",
        "authors": "the authors' scheme: batches of 1,024 sentences, a loop over occurrences",
    }
    for key, name in names.items():
        lines.append(
            f"| {name} | {whole['tokens'] / whole[key]:,.0f} | {whole[key] / extract:.2f} |"
        )
    lines += [
        "",
        "## The statistics alone, on identical hidden states",
        "",
        "Microseconds per occurrence and layer. The last column is the time to read the hidden "
        "states once, which nothing can beat.",
        "",
        "| | loop | kit | reading |",
        "| --- | ---: | ---: | ---: |",
    ]
    for (width, n_layers), times in stages.items():
        lines.append(
            f"| {width} wide, {n_layers} layers | {times['loop']:.2f} | {times['kit']:.3f} "
            f"| {times['read']:.3f} |"
        )
    lines += [
        "",
        f"PyTorch's linear layer multiplies float32 matrices of 2,048 × 2,048 at "
        f"{rates['mm']:.0f} Gflop/s, and at {rates['packed']:.0f} from packed weights "
        "(`embvar_kit/extraction/onednn.py`). The forward pass of minilm runs at "
        f"{rates['forward']:.0f}: linear layers take {rates['linear']:.0f} % of its time, "
        f"attention {rates['attention']:.0f} %. Microseconds per token of `extract`: "
        + ", ".join(f"{value:.0f} for {n:,} sentences" for n, value in sorted(tokens.items()))
        + f". The float32 means of the whole excerpt are {means:.0f} MiB; memory growth is that of "
        "the process's peak, and includes the plan and the model's own buffers.",
        "",
        f'`dtype="bfloat16"`, which you have to ask for, takes {half["time"]:.2f} times as long '
        "here and changes Q, M and V of tokens with n ≥ 10 by "
        f"{half['Q']:.1%}, {half['M']:.1%} and {half['V']:.1%} (medians over tokens and layers). "
        "`torch.compile` is not offered. For times on a GPU see [gpu.md](gpu.md).",
        "",
        "## What was tried",
        "",
        "`tests/benchmarks/of_attempts.py` measures again whatever is marked *an attempt* below; "
        "its numbers are from two or three runs on a virtual machine of 2 cores.",
        "",
        "- **Forward pass.** Packed weights made the difference. They were never measured on a "
        "processor that is known to be Intel's. Eager and plain (`MATH`) "
        "attention were no faster than PyTorch's fused attention at these lengths, and batches "
        "larger than 1,024 tokens were no faster either. An attempt: GELU in oneDNN's product "
        "gives the same bits and saves 3 to 5 % of minilm's pass, too little to justify finding "
        "where an activation follows a product, checking it and undoing it. "
        "Packed products are off where a trial before the first pass of a process finds them "
        "slower by a quarter: the fastest of many products of each kind, taken in turns for "
        "0.08 s, and once more before they are switched off. The two kinds round differently, "
        "so that a pass that is resumed, or measured by several workers, has to decide alike, "
        "on a busy machine, too: beside other work (load 5 on 2 cores) 1 of 1,200 such trials "
        "was wrong (an attempt).",
        "- **Statistics.** A segment (the occurrences of one group in a batch) reads and writes "
        "five bytes per element of a mean, which may be anywhere in hundreds of MiB. An attempt: "
        "moving these bytes (7,049 an occurrence and layer, 768 wide) without arithmetic takes "
        "0.17 to 0.22 µs, and the kit 0.41 to 0.46, so that the arithmetic is not all hidden "
        "behind the memory. Prefetching the rows of the segment after the next and cheaper extra "
        "bytes made it a third faster. Prefetching further ahead, into the second-level cache, or "
        "a segment's next row, and fusing loops, each gained less than a tenth. "
        "Float32 deviations gained little and would endanger the accuracy. Four batches at once "
        "gained a tenth, for four times the hidden states in memory. One thread was slower, and so "
        "were Python's threads in place of the compiler's. Since the forward pass became faster, "
        "the same microseconds are a larger share of its time.",
        "- **Statistics inside the pass.** An attempt: taking each layer in while it lies in the "
        "cache could gain at most 0 to 15 % of the statistics (states read just before). "
        "But a batch that fails half-way must leave no trace, and copying the means that it "
        "changes first, by NumPy, took 88 % more. Another: a thread that takes a batch in while "
        "the model runs the next one changed the pass by -0.4 to +0.5 % with one thread of its "
        "own, and made it 11 to 14 % longer with two: both cores are busy already.",
        "- **Time per token.** A short pass pays some costs once: for 1,000 sentences (30,302 "
        "tokens) oneDNN compiles 148 operations, some 6 µs per token, and 84 MB of means are "
        "touched for the first time; for 18,000 sentences (549,679 tokens) it is 236 operations "
        "and 255 MB. Keeping all compiled operations for the next pass took 70 MiB and made passes "
        "of 1,000 sentences about 5 % faster. Other page sizes made no difference.",
        "- **Between runs.** Four runs on one virtual machine gave 2.9 to 3.3 % and 1.3 to 3.7 % "
        "for the shares of the statistics, 20 to 23 and 12 to 13 for the loop, 54 to 60 % for the "
        "forward pass, 1.20 to 1.26 for three sites, and 1.08 to 1.18 for the time per token. "
        "A virtual machine of 2 cores of AMD EPYC without AVX-512 gave, in one run on "
        "2026-12-01: 2.5 and 2.3 % for the "
        "shares of the statistics, 18 and 9 for the loop, 97 % for the forward pass (packed "
        "products are no faster there: 159 and 154 Gflop/s), 3.8 times the time of `extract` "
        "for the authors' scheme and 1.08 for the plain pass, 1.34 for three sites, 1.04 for "
        "the time per token, and 4 for bfloat16.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1500, help="of the passes compared")
    parser.add_argument("--rounds", type=int, default=3, help="counted, at least 3 to be reported")
    parser.add_argument("--quick", action="store_true", help="a small part of the excerpt only")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    chosen = parser.parse_args()
    rounds = chosen.rounds
    found = {"memory": measuring.memory(), "starts": measuring.starts()}
    minilm = ek.load_model("minilm", device="cpu")
    shapes = ((384, 7), (768, 13))
    found["stages"] = {s: measuring.statistics_stage(minilm, *s, rounds) for s in shapes}
    found["whole"] = measuring.whole_passes(minilm, chosen.sentences, rounds)
    found["rates"] = measuring.product_rate(minilm, 300)
    fastest = max(found["rates"][name] for name in ("mm", "packed"))
    found["rates"]["share"] = 100 * found["rates"]["forward"] / fastest
    found["half"] = measuring.half_precision(200)
    print("overhead of the statistics", flush=True)
    excerpt = ek.load_corpus("wikipedia", limit=500 if chosen.quick else None)
    smollm2 = ek.load_model("smollm2", device="cpu")
    passes = (minilm, excerpt, 1), (smollm2, measuring.short_sentences(300), 6)
    spent = {model.name: measuring.overhead(model, *rest) for model, *rest in passes}
    found["over"] = {name: 100 * (t["with"] / t["bare"] - 1) for name, t in spent.items()}
    del smollm2
    found["per_token"] = measuring.per_token(minilm)
    text = report(found, rounds)
    chosen.out.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {chosen.out.name}")


if __name__ == "__main__":
    main()
