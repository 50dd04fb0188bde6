"""The command ``embvar``: the kit's passes, tables and figures from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from embvar_kit._version import __version__
from embvar_kit.cli.arguments import Parser
from embvar_kit.cli.extract import NOTHING_SAVED, add_extract
from embvar_kit.cli.models import add_fetch, add_lists, add_twins
from embvar_kit.cli.reproduce import add_reproduce
from embvar_kit.cli.results import add_figures, add_report, add_show
from embvar_kit.cli.shard import add_shard
from embvar_kit.cli.spelling import Spelling
from embvar_kit.errors import EmbvarError, ExtractionInterrupted

_EXAMPLES = """examples:
  embvar fetch                                   fetch the two bundled models
  embvar extract --model minilm --corpus wikipedia --limit 3000 --out out/minilm
  embvar extract --shards 64 --store out/run --workers 4 --out out/minilm
  embvar show out/minilm                         the trade-off and the decomposition
  embvar show out/minilm --layer 3 --rows 20     the most frequent tokens of one layer
  embvar figures out/minilm                      every figure, with a page that shows them
  embvar report minilm                           a report on one model, as a page
  embvar reproduce bert-base-uncased             the paper's protocol; needs the Hub
  embvar twins --out out/twins --seed 1          train the six twins from another seed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 for an error it names, 2 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        # A console's encoding may lack a token's characters; it then shows escapes.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    known = parser()
    chosen = known.parse_args(arguments)
    if chosen.command is None:
        known.print_help()
        return 2
    chosen.spelled = spelled = Spelling(known, known.of(chosen))
    try:
        chosen.run(chosen)
        sys.stdout.flush()
    except EmbvarError as error:
        print(f"embvar: {' '.join(spelled(str(error)).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"embvar: {_how_to_resume(stopped, chosen)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, for example `head`, has gone; what is still buffered must not be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def parser() -> Parser:
    """The commands and their arguments; a parsed ``command`` has its function in ``run``."""
    whole = Parser(
        prog="embvar",
        description="Norm and variance of contextualized embeddings: Q = M + V for every token "
        "and layer of a Transformer, in one pass over a corpus.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"embvar-kit {__version__}"
    whole.add_argument("-V", "--version", action="version", version=version)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    add_fetch(commands)
    add_extract(commands)
    add_shard(commands)
    add_show(commands)
    add_figures(commands)
    add_report(commands)
    add_reproduce(commands)
    add_twins(commands)
    add_lists(commands)
    return whole


def _how_to_resume(stopped: KeyboardInterrupt, chosen: argparse.Namespace) -> str:
    """What an interrupted command leaves, and what the next try makes of it."""
    if not isinstance(stopped, ExtractionInterrupted):  # of a pass: not while batches are run
        return f"interrupted. {chosen.kept(chosen)}" if hasattr(chosen, "kept") else "interrupted"
    how_far = chosen.spelled(stopped.how_far)
    if getattr(chosen, "store", None):
        return how_far
    if getattr(chosen, "checkpoint", None):
        return f"{how_far} The same command resumes it."
    return f"{how_far} {NOTHING_SAVED}"
