"""The command ``embvar``: the kit's passes and tables from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit.arguments import parser
from embvar_kit.errors import (
    EmbvarError,
    ExtractionInterrupted,
    StatisticsError,
    StatisticsFileError,
)

if TYPE_CHECKING:
    from embvar_kit.statistics import TokenStatistics


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 for an error it names, 2 for wrong usage."""
    known = parser()
    chosen = known.parse_args(arguments)
    if chosen.command is None:
        known.print_help()
        return 2
    try:
        _RUN[chosen.command](chosen)
        sys.stdout.flush()
    except EmbvarError as error:
        print(f"embvar: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"embvar: {_how_to_go_on(stopped, chosen)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, `head` for one, has gone; what is still held must not be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _how_to_go_on(stopped: KeyboardInterrupt, chosen: argparse.Namespace) -> str:
    if not isinstance(stopped, ExtractionInterrupted):
        return "interrupted"
    if getattr(chosen, "checkpoint", None):
        return f"{stopped.how_far} The same command goes on from there."
    return f"{stopped.how_far} With --checkpoint DIR, a pass can go on where it was."


def _fetch(chosen: argparse.Namespace) -> None:
    from embvar_kit.bundled import BUNDLED, fetch

    for alias in chosen.alias or BUNDLED:
        new = fetch(alias, again=chosen.again)
        print(f"{alias}: {'fetched' if new else 'here already'}, verified")


def _extract(chosen: argparse.Namespace) -> None:
    from embvar_kit import checkpoints
    from embvar_kit.corpora import load_corpus
    from embvar_kit.extraction import extract
    from embvar_kit.models import load_model

    _check_writable(Path(chosen.out))
    every = checkpoints.EVERY if chosen.checkpoint_every is None else chosen.checkpoint_every
    corpus = load_corpus(
        chosen.corpus,
        limit=chosen.limit,
        max_words=chosen.max_words,
        sample=chosen.sample,
        seed=chosen.seed,
        split_sentences=chosen.split_sentences,
        language=chosen.language,
        text_column=chosen.text_column,
        split=chosen.split,
        config=chosen.config,
        streaming=chosen.streaming,
    )
    model = load_model(
        chosen.model, device=chosen.device, dtype=chosen.dtype, revision=chosen.revision
    )
    extracted = extract(
        model,
        corpus,
        by=chosen.by,
        site=chosen.site,
        layers=chosen.layers,
        batch_tokens=chosen.batch_tokens,
        long=chosen.long,
        min_count=chosen.min_count,
        checkpoint=chosen.checkpoint,
        checkpoint_every=every,
        progress=not chosen.quiet,
    )
    sinks = extracted.get("hidden", next(iter(extracted.values()))).sinks()["token"]
    for site, statistics in extracted.items():
        out = Path(chosen.out) if len(extracted) == 1 else Path(chosen.out) / site
        if chosen.compact:
            statistics = statistics.compact(left_out=[(), sinks] if len(sinks) else [()])
        statistics.save(out)
        print(f"saved      {out}; look at it with: embvar show {out}")
    if chosen.checkpoint:
        checkpoints.remove(chosen.checkpoint)


def _check_writable(folder: Path) -> None:
    """A pass takes minutes: whether its result can be saved is better known before it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StatisticsFileError(
            f"Statistics cannot be saved to {str(folder)!r}: {error.strerror}."
        ) from error


def _show(chosen: argparse.Namespace) -> None:
    from embvar_kit.statistics import TokenStatistics

    statistics = TokenStatistics.load(chosen.folder)
    choice = {
        "min_count": chosen.min_count,
        "max_count": chosen.max_count,
        "special": not chosen.no_special,
        "unbiased": chosen.unbiased,
    }
    if chosen.layer is None:
        _print_layers(statistics, chosen.no_sinks, **choice)
        return
    if chosen.no_sinks:
        statistics = statistics.without(statistics.sinks()["token"])
    table = statistics.table(chosen.layer, **choice).head(chosen.rows)
    print(statistics)
    print(table.to_string(index=False, float_format="{:.4f}".format))


def _print_layers(statistics: TokenStatistics, sinks_out: bool = False, **choice: Any) -> None:
    sinks = statistics.sinks()["token"]
    if sinks_out:
        statistics = statistics.without(sinks)
    forms = "unbiased" if choice["unbiased"] else "as measured"
    counts = f"{choice['min_count']} <= n_t <= {choice['max_count']:,}"
    parts = {f"\nV on M over tokens ({forms}, {counts})\n": statistics.tradeoff(**choice)}
    note = ""
    try:
        title = "\nQ = M + V_W + V_B over all their embeddings\n"
        parts[title] = statistics.decomposition(**choice)
    except StatisticsError:
        if statistics.mean is not None:
            raise
        note = "\nNo decomposition for this choice: the statistics are without token means."
    print(statistics)
    if len(sinks):
        done = "left out" if sinks_out else "counted; --no-sinks leaves them out"
        names = ", ".join(map(repr, sinks[:8])) + (", ..." if len(sinks) > 8 else "")
        print(f"{len(sinks)} sinks (Q at least 10 times the layer's median), {done}: {names}")
    for title, table in parts.items():
        print(title + table.to_string(index=False, float_format="{:.3f}".format))
    if note:
        print(note)


def _report(chosen: argparse.Namespace) -> None:
    from embvar_kit.reporting import report

    values = {
        "corpus_name": chosen.corpus,
        "device": chosen.device,
        "limit": chosen.limit,
        "min_count": chosen.min_count,
    }
    given = {name: value for name, value in values.items() if value is not None}
    out = chosen.out or f"out/report-{Path(chosen.model).name}"
    for kind, path in report(chosen.model, out, parameters=given).items():
        print(f"{kind:<9}  {path}")


def _reproduce(chosen: argparse.Namespace) -> None:
    from embvar_kit.reproduction import reproduce, short_name

    short_name(chosen.model)
    _check_writable(Path(chosen.out))
    statistics = reproduce(
        chosen.model,
        chosen.out,
        corpus=chosen.corpus,
        by=chosen.by,
        limit=chosen.limit,
        device=chosen.device,
        dtype=chosen.dtype,
        batch_tokens=chosen.batch_tokens,
        progress=not chosen.quiet,
    )
    print(f"saved      {chosen.out}, laid out as the authors' folder output\n")
    _print_layers(statistics, min_count=10, max_count=100_000, special=True, unbiased=False)


def _figures(chosen: argparse.Namespace) -> None:
    from embvar_kit import atlas
    from embvar_kit.statistics import TokenStatistics

    statistics = [TokenStatistics.load(folder) for folder in chosen.folders]
    paths = [Path(folder).resolve() for folder in chosen.folders]
    beside = paths[0].parent / "figures" / "+".join(path.name for path in paths)
    out = Path(chosen.out) if chosen.out else beside
    entries = atlas.write(
        statistics,
        out,
        min_count=chosen.min_count,
        max_count=chosen.max_count,
        unbiased=chosen.unbiased,
        without_sinks=chosen.without_sinks,
        embeddings=not chosen.no_embeddings,
    )
    drawn = sum(entry.reason is None for entry in entries)
    print(f"figures    {drawn} drawn, {len(entries) - drawn} not (the page says why)")
    print(f"page       {out / 'index.html'}")


def _twins(chosen: argparse.Namespace) -> None:
    from embvar_kit.twin_training import Settings, train_twins
    from embvar_kit.twins import TWINS, twins_home

    given = {"seed": chosen.seed} | ({"steps": chosen.steps} if chosen.steps is not None else {})
    out = Path(chosen.out) if chosen.out else twins_home()
    records = train_twins(
        chosen.only or tuple(TWINS),
        out=out,
        settings=Settings(**given),
        progress=not chosen.quiet,
    )
    for name, record in records.items():
        last = record["curve"][-1]
        print(f"{name:<12} held-out loss {last['held_out']:.3f} after {last['step']:,} steps")
    print(f"saved      {out}; a twin is loaded by its name, load_twin({name!r})")


def _models(chosen: argparse.Namespace) -> None:
    from embvar_kit.bundled import BUNDLED

    for model in BUNDLED.values():
        state = "here" if model.present else "run: embvar fetch"
        print(f"{model.alias:<8}  {model.title} [{state}]")
    print("PATH      a folder with a transformers model, or a .gguf file")
    print("NAME      a model on the Hugging Face Hub, where it can be reached")


def _corpora(chosen: argparse.Namespace) -> None:
    from embvar_kit.corpora import CORPORA

    for name, what in CORPORA.items():
        print(f"{name:<15}  {what}")


_RUN = {
    "fetch": _fetch,
    "extract": _extract,
    "show": _show,
    "report": _report,
    "reproduce": _reproduce,
    "figures": _figures,
    "twins": _twins,
    "models": _models,
    "corpora": _corpora,
}
