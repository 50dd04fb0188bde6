"""``embvar reproduce``: the paper's protocol for one of its models."""

from __future__ import annotations

import argparse
from pathlib import Path

from embvar_kit.cli.arguments import LEVELS, writable
from embvar_kit.cli.results import print_layers


def add_reproduce(commands: argparse._SubParsersAction) -> None:
    """Add the command ``reproduce``."""
    reproduce = commands.add_parser(
        "reproduce",
        help="run the paper's protocol for one of its six models",
        description="Draw the paper's sample of BookCorpus, run it through the model and save the "
        "statistics, in the kit's form and in that of the authors' release.",
    )
    reproduce.set_defaults(run=_reproduce)
    reproduce.add_argument("model", metavar="MODEL", help="bert-base-uncased, gpt2 ...")
    reproduce.add_argument(
        "--out", default="output", metavar="DIR", help="folder to write to (default: output)"
    )
    reproduce.add_argument(
        "--corpus", default="bookcorpus", help="bookcorpus (default), bookcorpus:PATH or another"
    )
    reproduce.add_argument(
        "--by", choices=LEVELS, default="token", help="measure tokens or words (default: token)"
    )
    reproduce.add_argument("--limit", type=int, help="take only the first LIMIT sentences, to try")
    reproduce.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    reproduce.add_argument(
        "--dtype", default="float32", help="number format of the weights (default: float32)"
    )
    reproduce.add_argument(
        "--batch-tokens", type=int, help="tokens in a batch (default: by device)"
    )
    reproduce.add_argument("--quiet", action="store_true", help="print no plan and no progress bar")


def _reproduce(chosen: argparse.Namespace) -> None:
    from embvar_kit.paper.reproduction import reproduce, short_name

    short_name(chosen.model)
    with writable(Path(chosen.out)):
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
    print_layers(
        statistics, chosen.spelled, min_count=10, max_count=100_000, special=True, unbiased=False
    )
