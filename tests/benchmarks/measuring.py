"""What the benchmark measures: passes over the excerpt, the statistics alone, memory, starts.

Contestants are timed in turn, in short pieces where they can be cut into such: on a shared machine
seconds drift, ratios hold.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from brute_force import SequentialLoop
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import embvar_kit as ek
from embvar_kit.extraction.accumulator import Accumulator
from embvar_kit.extraction.forward import AT_NORMS, forward
from embvar_kit.extraction.onednn import packed
from embvar_kit.moments.grouped import GroupOrder

PIECE = 8  # batches that one contestant runs before it is the next one's turn


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


# Forward passes


def bare_forward(model: ek.EmbeddingModel, work: ek.Plan) -> None:
    for _ in forward(model, work):
        pass


def plain_batches(model: ek.EmbeddingModel, work: ek.Plan) -> None:
    """What one would write first: sorted by length, 64 sentences a batch, padded."""
    order = np.argsort(work.text.lengths, kind="stable")
    for at in range(0, len(order), 64):
        batch = padded(model, work, order[at : at + 64])
        model.hidden_states(batch["input_ids"], batch["attention_mask"])


def authors_scheme(model: ek.EmbeddingModel, corpus: ek.Corpus, work: ek.Plan) -> None:
    """The paper's: sentences sorted by words, 1,024 a batch, padded, and the loop over tokens."""
    words = np.array([len(corpus.sentences[i].split()) for i in work.text.sentence])
    order = np.argsort(words, kind="stable")
    loops = [SequentialLoop(np.float32) for _ in work.layers]
    for at in range(0, len(order), 1024):
        sequences = order[at : at + 1024]
        batch = padded(model, work, sequences)
        mask = batch["attention_mask"].numpy().astype(bool)
        states = model.hidden_states(batch["input_ids"], batch["attention_mask"])
        starts = work.text.starts
        tokens = np.concatenate([np.arange(*starts[[i, i + 1]]) for i in sequences])
        for loop, layer in zip(loops, work.layers, strict=True):
            loop.update(states[layer].numpy()[mask], work.group[tokens])


def padded(model: ek.EmbeddingModel, work: ek.Plan, sequences: np.ndarray) -> dict:
    starts = work.text.starts
    ids = [work.text.ids[slice(*starts[[i, i + 1]])].tolist() for i in sequences]
    return model.tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")


def whole_passes(model: ek.EmbeddingModel, sentences: int, rounds: int) -> dict[str, float]:
    """Seconds of passes over the same sentences, each by another scheme."""
    corpus = ek.load_corpus("wikipedia", sample=sentences, seed=0)
    work = ek.plan(model, corpus)
    print(f"passes over {len(corpus)} sentences, {work.n_tokens:,} tokens", flush=True)
    times = medians(
        {
            "extract": lambda: ek.run_plan(model, corpus, work, progress=False),
            "three": lambda: ek.run_plan(model, corpus, work, site=list(AT_NORMS), progress=False),
            "plain": lambda: plain_batches(model, work),
            "authors": lambda: authors_scheme(model, corpus, work),
            "bare": lambda: bare_forward(model, work),
        },
        rounds,
    )
    return times | {"tokens": work.n_tokens}


def overhead(model: ek.EmbeddingModel, corpus: ek.Corpus, rounds: int = 1) -> dict[str, float]:
    """A pass over a corpus in pieces, each run bare and with the statistics, in turn.

    Seconds of the whole: the sum over the pieces of each one's median of ``rounds``.
    """
    work = ek.plan(model, corpus)
    moments = Accumulator(model, work, ["hidden"])
    pieces = [work.batches[at : at + PIECE] for at in range(0, len(work.batches), PIECE)]
    spent: dict[str, list[list[float]]] = {
        "bare": [[] for _ in pieces],
        "with": [[] for _ in pieces],
    }

    def run(piece: list[np.ndarray], counted: bool) -> None:
        for batch in forward(model, work, batches=piece):
            if counted:
                moments.add(batch)

    run(work.batches[-1:], True)  # compiled
    for turn in range(rounds):
        for number, piece in enumerate(pieces, start=turn):
            for name in ("bare", "with") if number % 2 else ("with", "bare"):
                taken = seconds(lambda p=piece, n=name: run(p, n == "with"))
                spent[name][number - turn].append(taken)
    total = {name: sum(map(statistics.median, times)) for name, times in spent.items()}
    print(f"  {model.name}: {total['with'] / total['bare'] - 1:.2%} over bare", flush=True)
    return {**total, "tokens": work.n_tokens}


def product_rate(model: ek.EmbeddingModel, sentences: int) -> dict[str, float]:
    """Floating-point operations a second, in units of 1e9, of matrix products and of the forward
    pass; and what share of the pass's time goes into products and attention."""
    work = ek.plan(model, ek.load_corpus("wikipedia", sample=sentences, seed=0))
    with FlopCounterMode(display=False) as counter, torch.backends.mkldnn.flags(enabled=False):
        bare_forward(model, work)  # the counter does not know packed products
    size = 2048
    layer = torch.nn.Linear(size, size, bias=False)
    x = torch.randn(size, size)
    spent: dict[str, list[float]] = defaultdict(list)

    def products() -> None:
        with torch.inference_mode():
            for _ in range(5):
                layer(x)

    for _ in range(5):
        spent["mm"].append(seconds(products))
        with packed(layer):
            products()
            spent["packed"].append(seconds(products))
        spent["forward"].append(seconds(lambda: bare_forward(model, work)))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        bare_forward(model, work)
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    whole = sum(times.values())
    shares = {
        kind: 100 * sum(t for key, t in times.items() if any(name in key for name in names)) / whole
        for kind, names in {"linear": ("linear", "mm"), "attention": ("scaled_dot",)}.items()
    }
    flop = {"mm": 10 * size**3, "packed": 10 * size**3, "forward": counter.get_total_flops()}
    return {name: flop[name] / min(times) / 1e9 for name, times in spent.items()} | shares


def per_token(model: ek.EmbeddingModel) -> dict[int, float]:
    """Microseconds a token, for corpora of 1,000, 4,000 and 18,000 sentences."""
    taken = defaultdict(list)
    for sentences in (1000, 4000, 1000, 18_000, 1000, 4000):
        corpus = ek.load_corpus("wikipedia", sample=sentences, seed=1)
        work = ek.plan(model, corpus)
        spent = seconds(lambda w=work, c=corpus: ek.run_plan(model, c, w, progress=False))
        taken[sentences].append(spent / work.n_tokens * 1e6)
        print(f"  {sentences:,} sentences: {taken[sentences][-1]:.1f} µs a token", flush=True)
    return {sentences: statistics.median(values) for sentences, values in taken.items()}


def half_precision(sentences: int) -> dict[str, float]:
    """What bfloat16 weights do to speed and to Q, M and V."""
    corpus = ek.load_corpus("wikipedia", sample=sentences, seed=0)
    found, spent = {}, {}
    for dtype in ("float32", "bfloat16"):
        model = ek.load_model("minilm", device="cpu", dtype=dtype)
        ek.extract(model, corpus[:20], progress=False)
        started = time.perf_counter()
        found[dtype] = ek.extract(model, corpus, progress=False)
        spent[dtype] = time.perf_counter() - started
    kept = found["float32"].n >= 10
    off = {"time": spent["bfloat16"] / spent["float32"]}
    for name in "QMV":
        full, half = (getattr(one, name)[:, kept] for one in found.values())
        varies = full > 0  # tokens that always stand at the first position do not, in layer 0
        off[name] = float(np.median(np.abs(half - full)[varies] / full[varies]))
    return off


# The statistics alone


def statistics_stage(
    model: ek.EmbeddingModel, width: int, n_layers: int, rounds: int
) -> dict[str, float]:
    """Microseconds an occurrence and layer on identical hidden states: kit, loop, one reading."""
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

    def read() -> None:
        for x in states:
            torch.from_numpy(x).sum()

    print(f"statistics stage, {width} wide, {n_layers} layers", flush=True)
    times = medians({"kit": kit, "loop": loop, "read": read}, rounds)
    each = sum(len(g) for g in groups) * n_layers
    return {name: spent / each * 1e6 for name, spent in times.items()}


# Memory and starts, each in a process of its own

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


def starts() -> dict[str, float]:
    """Seconds that a fresh process takes for an import and for the command's help, less Python's
    own."""
    commands = {
        "python": ["-c", "pass"],
        "import": ["-c", "import embvar_kit"],
        "help": ["-m", "embvar_kit", "--help"],
    }
    times = medians(
        {
            name: lambda a=arguments: subprocess.run(
                [sys.executable, *a], capture_output=True, check=True
            )
            for name, arguments in commands.items()
        },
        7,
    )
    return {name: times[name] - times["python"] for name in ("import", "help")}


def short_sentences(number: int) -> ek.Corpus:
    """For a model that is slow."""
    return ek.load_corpus("wikipedia", max_words=30).select(sample=number, seed=0)
