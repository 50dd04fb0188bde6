"""The kit held against plain transformers, for every architecture of the installed release.

``python tests/sweep.py`` runs all of them and prints the table of the reliability page;
with names (``bert gpt2``), only those; ``--json FILE`` keeps what was found. Each architecture is
built tiny (:mod:`architectures`) and runs in a process of its own with a limit of time and memory,
so that one that crashes or hangs ends nothing but itself.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import json
import logging
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-4
"""Largest difference of Q, M and V allowed, as a share of Q."""

SENTENCES = [
    "the cat sat on the mat and " + "the dog was reading " * n + end
    for n, end in ((16, ""), (16, "so"), (16, "it is"), (15, "is swimming"), (1, ""))
]
"""Four of nearly one length, which share a padded batch, and a short one. Words come again in other
places, and some have several tokens."""

_DO_NOT_FIT = re.compile(
    "size of tensor|cannot be multiplied|split_sizes|equal size|invalid for input|mismatched_sizes"
)
"""What PyTorch says of matrices that do not fit together."""

OUTCOMES = ("right", "refused", "wrong", "foreign", "not built")


@dataclass
class Outcome:
    """What the kit made of an architecture.

    Attributes:
        name: the architecture (``model_type``).
        outcome: ``"right"``; ``"refused"``, by an error of the kit; ``"wrong"``, numbers that are
            not those of plain transformers; ``"foreign"``, by any other exception, a crash or a
            hang; or ``"not built"``.
        reason: the message, or where and how far the numbers are off.
        tokenizer: the kind of tokenizer it was given.
        plain: what plain transformers raised when it ran on the same token ids, if it did.
        worst: largest difference of Q, M or V, as a share of Q.
        seconds: time taken.
    """

    name: str
    outcome: str
    reason: str = ""
    tokenizer: str = ""
    plain: str = ""
    worst: float = 0.0
    seconds: float = 0.0


# One architecture


def examine(name: str) -> Outcome:
    """Build an architecture, measure it with the kit, and hold that against plain transformers."""
    import architectures

    import embvar_kit as ek

    with tempfile.TemporaryDirectory() as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(kept)
        try:
            _, kind = architectures.build(name, folder)
        except architectures.NotBuiltError as error:
            return Outcome(name, "not built", str(error))
        try:
            measured = _by_kit(folder)
        except ek.EmbvarError as error:
            plain = _why_not_plain(folder, name)
            if _DO_NOT_FIT.search(plain):  # says nothing about the architecture
                return Outcome(name, "not built", f"sizes that do not fit: {plain}", kind)
            return Outcome(name, "refused", str(error), kind, plain)
        except Exception as error:
            return Outcome(name, "foreign", f"{type(error).__name__}: {error}", kind)
        try:
            plain = _by_plain_transformers(folder, measured["part"])
        except Exception as error:
            reason = f"numbers where the plain model raises {type(error).__name__}: {error}"
            return Outcome(name, "wrong", reason, kind)
        worst, where = _apart(measured, plain)
        outcome = "right" if worst <= TOLERANCE else "wrong"
        return Outcome(name, outcome, where if outcome == "wrong" else "", kind, "", worst)


def _by_kit(folder: Path) -> dict[str, Any]:
    """The kit's statistics, ``{by: {label: (n, Q, M, V)}}``, each ``(layers,)``; and the class of
    the part of the model that it runs."""
    import embvar_kit as ek

    model = ek.load_model(folder, device="cpu")
    found: dict[str, Any] = {"part": type(model.module).__name__}
    for by in ("token", "word"):
        stats = ek.extract(model, ek.Corpus.of(SENTENCES), by=by, progress=False)
        found[by] = {
            label: (int(n), Q, M, V)
            for label, n, Q, M, V in zip(
                stats.tokens, stats.n, stats.Q.T, stats.M.T, stats.V.T, strict=True
            )
        }
    return found


def _states(model: Any, ids: Any) -> Any:
    """Hidden states under the mask of ones that tokenizers give: without one, VideoPrism's part for
    text looks ahead. A model that fails under a mask, or takes none, gets none."""
    import torch

    given = {"input_ids": ids, "output_hidden_states": True}
    with torch.no_grad():
        try:
            return model(**given, attention_mask=torch.ones_like(ids)).hidden_states
        except Exception:  # each architecture has its own
            return model(**given).hidden_states


def _by_plain_transformers(folder: Path, part: str) -> dict[str, Any]:
    """The same by definition: one sentence at a time, each by a model that has run nothing before.

    The tokenizer puts the begin and end tokens. Statistics are float64, the mean first.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from embvar_kit.corpora.tokens import group_vocabulary
    from embvar_kit.corpora.words import words_of

    tokenizer = AutoTokenizer.from_pretrained(folder)
    groups = group_vocabulary(tokenizer)
    fresh = AutoModel.from_pretrained(folder).eval()
    for module in fresh.modules():  # nothing is generated, and some caches need other layers
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False
    seen: dict[str, dict[str, list[np.ndarray]]] = {"token": defaultdict(list)}
    seen["word"] = defaultdict(list)
    for sentence in SENTENCES:
        coded = tokenizer(sentence, return_offsets_mapping=True)
        ids, spans = coded["input_ids"], coded["offset_mapping"]
        model = _part(copy.deepcopy(fresh), part)
        states = _states(model, torch.tensor([ids]))
        x = np.stack([_of_tokens(state)[0, : len(ids)].double().numpy() for state in states])
        for at, i in enumerate(ids):
            seen["token"][groups.labels[groups.group_of[i]]].append(x[:, at])
        for word, first, last in words_of(sentence):
            own = [
                at for at, (start, stop) in enumerate(spans) if max(start, first) < min(stop, last)
            ]
            if own:
                seen["word"][word].append(x[:, own].mean(axis=1))
    return {
        by: {label: _definition(np.stack(vectors)) for label, vectors in found.items()}
        for by, found in seen.items()
    }


def _of_tokens(state: Any) -> Any:
    """A hidden state; the tokens' own where a model gives several things (PEGASUS-X)."""
    return state[0] if isinstance(state, tuple) else state


def _part(model: Any, name: str) -> Any:
    """The part of a model that has a class; the model itself if there are none or several."""
    found = [part for part in model.modules() if type(part).__name__ == name]
    return found[0] if found else model


def _definition(x: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """n, Q, M and V of vectors ``(n, layers, d)``."""
    mean = x.mean(axis=0)
    V = np.square(x - mean).sum(axis=2).mean(axis=0)
    return len(x), np.square(x).sum(axis=2).mean(axis=0), np.square(mean).sum(axis=1), V


def _apart(measured: dict[str, Any], plain: dict[str, Any]) -> tuple[float, str]:
    """The largest difference as a share of Q, and where it is."""
    worst, where = 0.0, ""
    for by in ("token", "word"):
        if measured[by].keys() != plain[by].keys():
            return np.inf, f"other groups by {by}"
        for label, (n, *wanted) in plain[by].items():
            number, *found = measured[by][label]
            if number != n or found[0].shape != wanted[0].shape:
                return np.inf, f"{label!r} by {by}: {number} occurrences, {n} wanted, or layers"
            for symbol, one, other in zip("QMV", found, wanted, strict=True):
                share = np.abs(one - other) / np.maximum(wanted[0], 1e-12)
                share = np.where(np.isfinite(share), share, np.inf)
                if share.max() > worst:
                    worst = float(share.max())
                    where = f"{symbol} of {label!r} by {by}, layer {share.argmax()}: {worst:.2g} Q"
    return worst, where


def _why_not_plain(folder: Path, name: str) -> str:
    """What plain transformers raises for a sentence in the saved model, or nothing."""
    import architectures
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        ids = AutoTokenizer.from_pretrained(folder)(SENTENCES[-1])["input_ids"]
        if architectures.has_auto_model(name):
            model = AutoModel.from_pretrained(folder)
        else:
            model = architectures.model_class(name).from_pretrained(folder)
        with torch.no_grad():
            model.eval()(input_ids=torch.tensor([ids]), output_hidden_states=True)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


# Many architectures


def sweep(
    names: Iterable[str],
    *,
    jobs: int = 1,
    seconds: float = 120,
    memory: int = 12 << 30,
    job: Callable[[str], Outcome] = examine,
) -> Iterator[Outcome]:
    """Examine architectures, each in a process of its own; gives outcomes as they come.

    The processes are forked from this one, so that libraries are imported once (:func:`_warm_up`).

    Args:
        names: the architectures.
        jobs: processes at a time.
        seconds: limit for one architecture.
        memory: limit of a process' address space, in bytes.
        job: what is done with each name.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(names)[::-1]
    running: dict[Any, tuple[Any, str, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_limited, args=(job, name, theirs, memory))
            process.start()
            theirs.close()
            running[mine] = (process, name, time.monotonic())
        wait(list(running), timeout=0.5)
        for mine, (process, name, start) in list(running.items()):
            taken = time.monotonic() - start
            if mine.poll():
                try:
                    outcome = mine.recv()
                except EOFError:  # it ended without an answer
                    process.join()
                    outcome = Outcome(name, "foreign", f"crashed, exit code {process.exitcode}")
            elif taken > seconds:
                process.kill()
                outcome = Outcome(name, "foreign", f"took more than {seconds:.0f} s")
            else:
                continue
            process.join()
            mine.close()
            del running[mine]
            outcome.seconds = taken
            yield outcome


def _warm_up() -> None:
    """Import and compile what every process needs, so that it is there when they are forked.

    With one thread, since threads do not survive a fork.
    """
    for threads in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[threads] = "1"
    os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # GNU OpenMP ends forked processes
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    examine("bert")


def _limited(job: Callable[[str], Outcome], name: str, answer: Any, memory: int) -> None:
    faulthandler.disable()  # a crash is told by its exit code
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer.send(job(name))


# The table


_REASONS = {
    "no bare model": "transformers has no bare model for it: a part of a larger one, mostly",
    "cannot run on plain text": "needs more than token ids: an image, boxes, another sequence",
    "differ in shape": "states of another shape than one vector per token",
    "no hidden states": "no hidden states",
    "two answers": "two answers to the same input",
    "Could not load the model": "transformers cannot load what it saved",
}
"""What the kit's refusals say, in part, and what they are counted as."""


def reason_of(message: str) -> str:
    """What a refusal is counted as; the message itself if it is of no known kind."""
    return next((name for part, name in _REASONS.items() if part in message), message)


def table(found: Iterable[Outcome]) -> str:
    """How many architectures had each outcome, refusals by reason, in Markdown."""
    found = list(found)
    rows = ["| outcome | architectures |", "| --- | ---: |"]
    for outcome in OUTCOMES:
        own = [one for one in found if one.outcome == outcome]
        rows.append(f"| {outcome} | {len(own)} |")
        if outcome == "refused":
            for reason, number in Counter(reason_of(one.reason) for one in own).most_common():
                rows.append(f"| – {reason} | {number} |")
    return "\n".join(rows)


def main() -> int:
    """Run the script; the exit status is 1 if anything is wrong or foreign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures; all of them if none is named")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=120, help="limit for one architecture")
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    arguments = parser.parse_args()
    _warm_up()
    import architectures

    names = arguments.names or architectures.names()
    found = []
    for one in sweep(names, jobs=arguments.jobs, seconds=arguments.seconds):
        found.append(one)
        if one.outcome != "right":
            print(f"{one.outcome:>9}  {one.name}: {one.reason.splitlines()[0]}", flush=True)
    if arguments.json:
        found.sort(key=lambda one: one.name)
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    print(f"\n{table(found)}")
    return int(any(one.outcome in ("wrong", "foreign") for one in found))


if __name__ == "__main__":
    sys.exit(main())
