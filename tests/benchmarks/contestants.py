"""A contestant, in a process of its own: python contestants.py NAME FOLDER

FOLDER holds the text (see :func:`turns.write_text`). The process loads its library and its model,
warms up, and answers each order that it reads from its standard input with a line of JSON: ``pass``
runs the text once and tells the seconds, ``states`` saves the hidden states of the first sequences
to FOLDER, ``memory`` tells what it has taken so far.

Only the kit's own contestants import the kit: other libraries live in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import psutil
import torch

WARM = 64
"""Sequences that are run before anything is measured."""

States = Sequence[torch.Tensor]
"""Hidden states ``(batch, length, d)``, one for each layer and the embeddings'."""

Run = Callable[[torch.Tensor, torch.Tensor], States]
"""What gives the hidden states for ids and a mask, each ``(batch, length)``."""


class Text(NamedTuple):
    """Token ids of all sequences, one sequence after another.

    Attributes:
        model: the folder of the model.
        sequences: by sequence, its ids, begin and end tokens included.
        batches: the sequences of each batch of the kit.
    """

    model: str
    sequences: list[np.ndarray]
    batches: list[np.ndarray]


def read(folder: Path) -> Text:
    """The text that all contestants run."""
    with np.load(folder / "text.npz") as held:
        sequences = np.split(held["ids"].astype(np.int64), held["starts"][1:-1])
        batches = np.split(held["order"], np.cumsum(held["sizes"])[:-1])
        return Text(str(held["model"]), sequences, batches)


class Contestant(NamedTuple):
    """What a contestant does with sequences of a text.

    Attributes:
        batches: runs some sequences and yields, batch by batch, which they are, the mask
            ``(batch, length)`` of their tokens, and their hidden states.
        whole: runs the whole text, which is what is timed.
    """

    batches: Callable[[Sequence[int]], Iterator[tuple[Sequence[int], torch.Tensor, States]]]
    whole: Callable[[], object]


# Loops in batches: a plain one, and by other libraries


Divide = Callable[[Text, Sequence[int]], Iterable[Sequence[int]]]
"""What divides sequences into batches."""


def as_they_come(text: Text, chosen: Sequence[int]) -> Iterable[Sequence[int]]:
    """Batches of 32."""
    return (chosen[at : at + 32] for at in range(0, len(chosen), 32))


def by_length(text: Text, chosen: Sequence[int]) -> Iterable[Sequence[int]]:
    """Batches of 64, sorted by length."""
    ordered = sorted(chosen, key=lambda i: len(text.sequences[i]))
    return (ordered[at : at + 64] for at in range(0, len(ordered), 64))


def as_the_kit(text: Text, chosen: Sequence[int]) -> Iterable[Sequence[int]]:
    """The batches of the kit's plan."""
    parts = ([int(i) for i in batch if i in chosen] for batch in text.batches)
    return (part for part in parts if part)


def in_batches(text: Text, run: Run, divide: Divide) -> Contestant:
    """A loop over padded batches, whose states are dropped after each."""
    run = torch.inference_mode()(run)

    def batches(chosen: Sequence[int]) -> Iterator[tuple[Sequence[int], torch.Tensor, States]]:
        for some in divide(text, chosen):
            lengths = torch.tensor([len(text.sequences[i]) for i in some])
            mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
            ids = torch.zeros_like(mask)  # MiniLM's padding has the id 0
            ids[mask.bool()] = torch.from_numpy(np.concatenate([text.sequences[i] for i in some]))
            yield some, mask, run(ids, mask)

    def whole() -> None:
        for found in batches(range(len(text.sequences))):
            del found  # frees these states before the next ones are made, as the kit does

    return Contestant(batches, whole)


def transformers_model(text: Text) -> torch.nn.Module:
    from transformers import AutoModel

    return AutoModel.from_pretrained(text.model).eval()


def plain(text: Text) -> Run:
    """A transformers model asked for its hidden states."""
    model = transformers_model(text)

    def run(ids: torch.Tensor, mask: torch.Tensor) -> States:
        return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states

    return run


def by_sentence_transformers(text: Text) -> Run:
    """Token embeddings of sentence-transformers, of all layers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    part = Transformer(text.model, config_kwargs={"output_hidden_states": True})
    model = SentenceTransformer(modules=[part], device="cpu").eval()

    def run(ids: torch.Tensor, mask: torch.Tensor) -> States:
        return model({"input_ids": ids, "attention_mask": mask})["all_layer_embeddings"]

    return run


def by_transformer_lens(text: Text) -> Run:
    """TransformerLens' cache, of the residual stream between the blocks only."""
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(text.model, device="cpu")
    names = ["blocks.0.hook_in", *(f"blocks.{i}.hook_out" for i in range(bridge.cfg.n_layers))]

    def run(ids: torch.Tensor, mask: torch.Tensor) -> States:
        _, cache = bridge.run_with_cache(
            ids, attention_mask=mask, names_filter=names, return_cache_object=False
        )
        return [cache[name] for name in names]

    return run


def by_nnsight(text: Text) -> Run:
    """nnsight's trace, in which the outputs of the embeddings and of each block are saved."""
    import nnsight

    model = nnsight.NNsight(transformers_model(text))

    def run(ids: torch.Tensor, mask: torch.Tensor) -> States:
        with model.trace(input_ids=ids, attention_mask=mask):
            states = [model.embeddings.output.save()]
            for block in model.encoder.layer:
                states.append(block.output.save())
            nnsight.save(states)
        return states

    return run


# The kit and the authors' loop


def of_the_kit(text: Text, folder: Path, name: str) -> Contestant:
    """``extract`` as planned, its forward pass alone, or the authors' loop with the kit's model.

    The plan is made before anything is measured, as the others are given token ids.
    """
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import measuring

    import embvar_kit as ek
    from embvar_kit.extraction.forward import forward

    model = ek.load_model(text.model, device="cpu")
    corpus = ek.Corpus.of(json.loads((folder / "sentences.json").read_text(encoding="utf-8")))
    work = ek.plan(model, corpus)
    ek.extract(model, corpus[:20], progress=False)  # loops that are compiled once

    def batches(chosen: Sequence[int]) -> Iterator[tuple[Sequence[int], torch.Tensor, States]]:
        for own in np.array_split(np.asarray(chosen), 4):
            for batch in forward(model, work, batches=[own]):
                inside = np.arange(work.text.lengths[own].max()) < work.text.lengths[own][:, None]
                states = [
                    batch.embeddings("hidden", layer).reshape(*inside.shape, -1)
                    for layer in work.layers
                ]
                yield own, torch.from_numpy(inside), states

    def authors_batches(
        chosen: Sequence[int],
    ) -> Iterator[tuple[Sequence[int], torch.Tensor, States]]:
        given = measuring.padded(model, work, np.asarray(chosen))
        mask = given["attention_mask"]
        yield chosen, mask, model.hidden_states(given["input_ids"], mask)

    return {
        "extract": Contestant(batches, lambda: ek.run_plan(model, corpus, work, progress=False)),
        "forward": Contestant(batches, lambda: measuring.bare_forward(model, work)),
        "authors": Contestant(
            authors_batches, lambda: measuring.authors_scheme(model, corpus, work)
        ),
    }[name]


OF_THE_KIT = ("extract", "forward", "authors")

PEERS = ("sentence-transformers", "TransformerLens", "nnsight")

LOOPS: dict[str, tuple[Callable[[Text], Run], Divide, str]] = {
    "plain 32": (plain, as_they_come, "transformers"),
    "plain 64": (plain, by_length, "transformers"),
    "plain": (plain, as_the_kit, "transformers"),
    "sentence-transformers": (by_sentence_transformers, by_length, "sentence-transformers"),
    "TransformerLens": (by_transformer_lens, by_length, "transformer-lens"),
    "nnsight": (by_nnsight, by_length, "nnsight"),
}
"""By name: what makes the run, what divides the text into batches, and the package it is of."""


def on_a_large_machine(cores: int, quota: int | None) -> None:
    """Let this process run as where many cores are seen and a control group grants some of them.

    Args:
        cores: number of threads that PyTorch and Numba take by themselves.
        quota: number of cores that are granted; ``None`` where the kit does not know of any.
    """
    torch.set_num_threads(cores)
    os.environ["NUMBA_NUM_THREADS"] = str(cores)
    from embvar_kit import threads

    threads.granted = lambda: quota


# Orders


def save_states(made: Contestant, text: Text, number: int, out: Path) -> None:
    """Save the hidden states of the first sequences, ``(layers, tokens, d)``, in order."""
    found: dict[int, np.ndarray] = {}
    for chosen, mask, states in made.batches(range(number)):
        together = torch.stack([state.detach() for state in states]).float().numpy()
        for row, sequence in enumerate(chosen):
            found[int(sequence)] = together[:, row, mask[row].bool().numpy()]
    np.save(out, np.concatenate([found[i] for i in range(number)], axis=1))


def peak() -> int:
    """Largest resident memory of this process so far, bytes."""
    try:
        # The peak that resource gives may be that of the process which started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def main(name: str, folder: Path) -> None:
    # Libraries print, too: answers have the standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**told: object) -> None:
        print(json.dumps(told), file=answers, flush=True)

    text, (name, *shown) = read(folder), name.split(", ")
    if shown:
        on_a_large_machine(int(shown[0]), int(shown[1]) if len(shown) > 1 else None)
    if name in OF_THE_KIT:
        made, package = of_the_kit(text, folder, name), "embvar-kit"
    else:
        make, divide, package = LOOPS[name]
        made = in_batches(text, make(text), divide)
    for _ in made.batches(range(min(WARM, len(text.sequences)))):
        pass
    before = psutil.Process().memory_info().rss
    answer(
        version=version(package),
        torch=torch.__version__,
        transformers=version("transformers"),
        threads=torch.get_num_threads(),
    )
    for order in map(str.strip, sys.stdin):
        if order == "pass":
            started = time.perf_counter()
            made.whole()
            answer(seconds=time.perf_counter() - started)
        elif order == "memory":
            answer(before=before, peak=peak())
        elif order == "states":
            save_states(made, text, min(WARM, len(text.sequences)), folder / f"{name}.npy")
            answer(saved=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].partition(":")[0])
    parser.add_argument("name", metavar="NAME", help="the contestant")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder with the text")
    chosen = parser.parse_args()
    main(chosen.name, chosen.folder)
