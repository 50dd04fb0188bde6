"""Time what was tried to make a pass on a CPU faster, most of it not in the kit for want of gain.

    .venv/bin/python tests/benchmarks/of_attempts.py      # about two minutes

Prints the numbers of the attempts that ``results.md`` tells under *What was tried*.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numba
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import seconds

import embvar_kit as ek
from embvar_kit.extraction import forward as forwarding
from embvar_kit.extraction.accumulator import Accumulator
from embvar_kit.extraction.forward import Batch, forward
from embvar_kit.extraction.onednn import SLOWER, packed, time_ratio
from embvar_kit.moments.grouped import GroupedMoments, GroupOrder

ROUNDS = 8


def in_turn(contestants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, run in turn; a round before them is not counted."""
    taken = [{name: seconds(work) for name, work in contestants.items()} for _ in range(ROUNDS + 1)]
    return {name: float(np.median([one[name] for one in taken[1:]])) for name in contestants}


# GELU inside the packed product of the layer before it


@contextmanager
def gelu_fused(module: torch.nn.Module) -> Iterator[int]:
    """As :func:`packed`, with BERT's activation in the product."""
    with packed(module) as number:
        changed = []
        for layer in module.encoder.layer:
            dense, gelu = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
            changed.append((dense, gelu, dense.forward))
            dense.forward = partial(_with_gelu, dense.forward.args[0], dense.bias)
            gelu.forward = _as_it_is
        try:
            yield number
        finally:
            for dense, gelu, before in changed:
                dense.forward = before
                del gelu.forward


def _with_gelu(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def fusing(model: ek.EmbeddingModel) -> None:
    work = ek.plan(model, ek.load_corpus("wikipedia", sample=150, seed=0))
    last: dict[str, torch.Tensor] = {}

    def run(name: str, context: Callable) -> None:
        forwarding.packed = context
        try:
            for batch in forward(model, work):
                last[name] = batch.embeddings("hidden", work.layers[-1])
        finally:
            forwarding.packed = packed

    found = in_turn(
        {name: partial(run, name, c) for name, c in (("apart", packed), ("fused", gelu_fused))}
    )
    same = torch.equal(last["apart"], last["fused"])
    print(f"GELU in the product: {share(found, 'fused', 'apart')} of the pass, same bits: {same}")


# Statistics of states that lie in the cache, and beside the next batch's forward pass


def warm(model: ek.EmbeddingModel, work: ek.Plan, batches: list[np.ndarray]) -> None:
    """What could be gained at most if each layer were taken in as soon as it is made.

    A batch that fails half-way must leave no trace: with ``undo`` the means that a layer changes
    are copied first.
    """
    held = Accumulator(model, work, ["hidden"])._moments[0]
    ways = ("after", "warm", "undo")
    taken: dict[str, list[list[float]]] = {way: [] for way in ways}

    def add(batch: Batch, way: str) -> float:
        order = GroupOrder.of(work.group[batch.occurrences], batch.rows)
        spent = 0.0
        for layer, moments in zip(work.layers, held, strict=True):
            x = batch.embeddings("hidden", layer).numpy()
            if way != "after":
                x.sum()
            if way == "undo":
                spent += seconds(lambda m=moments, o=order: (m.mean[o.groups], m._extra[o.groups]))
            spent += seconds(lambda m=moments, x=x, o=order: m.add(x, o))
        return spent

    for number in range(3 * ROUNDS + 3):
        each = [ways[(at + number) % 3] for at in range(len(batches))]
        found = zip(forward(model, work, batches=batches), each, strict=True)
        spent = [add(batch, way) for batch, way in found]
        for way in ways if number >= 3 else ():
            own = [t if own == way else np.nan for t, own in zip(spent, each, strict=True)]
            taken[way].append(own)
    sums = {way: float(np.nanmedian(taken[way], axis=0).sum()) for way in ways}
    print(f"states read just before: {share(sums, 'warm', 'after')} of the statistics")
    print(f"  with the means that change copied first: {share(sums, 'undo', 'after')}")


def beside(model: ek.EmbeddingModel, work: ek.Plan, batches: list[np.ndarray]) -> None:
    """A thread takes a batch in while the model runs the next one."""
    moments = Accumulator(model, work, ["hidden"])

    def after() -> None:
        for batch in forward(model, work, batches=batches):
            moments.add(batch)

    def at_once(threads: int) -> None:
        def add(batch: Batch) -> None:
            numba.set_num_threads(threads)
            moments.add(batch)

        with ThreadPoolExecutor(1) as pool:
            last = None
            for batch in forward(model, work, batches=batches):
                if last is not None:
                    last.result()
                last = pool.submit(add, batch)

    found = in_turn({"after": after, "1": partial(at_once, 1), "2": partial(at_once, 2)})
    for threads in "12":
        gain = share(found, threads, "after")
        print(f"statistics beside the next batch, {threads} threads: {gain} of the pass")


# The bytes that the statistics have to move


@numba.njit(parallel=True, nogil=True, fastmath={"reassoc"})
def _move(x, rows, starts, groups, mean, extra, sums):
    """Read each row, and read and write each mean, with no arithmetic to speak of."""
    for part in numba.prange(len(sums)):
        total = np.float32(0)
        n = len(groups)
        for s in range(n * part // len(sums), n * (part + 1) // len(sums)):
            for i in range(starts[s], starts[s + 1]):
                row = x[rows[i]]
                for j in range(row.shape[0]):
                    total += row[j]
            here, more = mean[groups[s]], extra[groups[s]]
            for j in range(here.shape[0]):
                here[j] += np.float32(1)
                more[j] ^= np.int8(1)
        sums[part] = total


def moving(model: ek.EmbeddingModel, width: int, n_layers: int) -> None:
    work = ek.plan(model, ek.load_corpus("wikipedia", sample=2000, seed=0))
    batches = work.batches[:: max(1, len(work.batches) // 12)]
    starts = work.text.starts
    tokens = [np.concatenate([np.arange(*starts[[i, i + 1]]) for i in one]) for one in batches]
    orders = [GroupOrder.of(work.group[one]) for one in tokens]
    rng = np.random.default_rng(0)
    states = [rng.random((n_layers, len(one), width), dtype=np.float32) for one in tokens]
    held = [GroupedMoments(len(work.labels), width) for _ in range(n_layers)]
    sums = np.zeros(torch.get_num_threads(), dtype=np.float32)

    def each(call: Callable) -> None:
        for x, order in zip(states, orders, strict=True):
            for layer, moments in enumerate(held):
                call(x[layer], order, moments)

    def move(x: np.ndarray, order: GroupOrder, m: GroupedMoments) -> None:
        _move(x, order.rows, order.starts, order.groups, m.mean, m._extra, sums)

    kit, bare = (partial(each, call) for call in (lambda x, o, m: m.add(x, o), move))
    found = in_turn({"kit": kit})  # before the means are moved, which are no means afterwards
    found |= in_turn({"bytes": bare})
    number = sum(map(len, tokens)) * n_layers
    each_moves = width * (4 + 10 * sum(len(o.groups) for o in orders) * n_layers / number)
    print(
        f"{width} wide: {each_moves:,.0f} bytes an occurrence and layer, moved in "
        f"{found['bytes'] / number * 1e6:.3f} µs; the kit takes {found['kit'] / number * 1e6:.3f}"
    )


# A trial of packed products before a pass


def trying(n_out: int, n_in: int, trials: int = 200) -> None:
    ratios = []
    taken = seconds(lambda: ratios.extend(time_ratio(n_out, n_in) for _ in range(trials)))
    least, median, most = np.quantile(ratios, [0, 0.5, 1])
    print(
        f"{trials} trials of {n_out} x {n_in} weights, {torch.get_num_threads()} threads, load "
        f"{os.getloadavg()[0]:.1f}: packed products took {median:.2f} ({least:.2f} to {most:.2f}) "
        f"times as long as PyTorch's; over {SLOWER}: {np.sum(np.array(ratios) > SLOWER)}; "
        f"{taken / trials:.3f} s each"
    )


def share(found: dict[str, float], name: str, of: str) -> str:
    return f"{found[of]:.3f} to {found[name]:.3f} s, {1 - found[name] / found[of]:+.1%} gained"


def main() -> None:
    for shape in ((682, 384), (341, 768)):
        trying(*shape)
    model = ek.load_model("minilm", device="cpu")
    moving(model, 768, 13)
    fusing(model)
    work = ek.plan(model, ek.load_corpus("wikipedia"))
    batches = work.batches[:: len(work.batches) // 16]
    warm(model, work, batches)
    beside(model, work, batches)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    main()
