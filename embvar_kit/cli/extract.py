"""``embvar extract``: a pass over a corpus, on this machine or on the workers of a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit.cli.arguments import (
    add_compact,
    add_device_map,
    add_folds,
    add_model_and_corpus,
    add_pass,
    add_threads,
    corpus_of,
    left_out_of,
    model_of,
    options_of,
    writable,
)
from embvar_kit.errors import ExtractionError, StatisticsError, as_sentence
from embvar_kit.threads import cores

if TYPE_CHECKING:
    from embvar_kit.models.loading import EmbeddingModel
    from embvar_kit.statistics.token_statistics import TokenStatistics

NOTHING_SAVED = "Nothing was saved: with --checkpoint DIR, an interrupted pass can be resumed."


def add_extract(commands: argparse._SubParsersAction) -> None:
    """Add the command ``extract``."""
    extract = commands.add_parser(
        "extract",
        help="run a corpus through a model and save the statistics",
        description="Run a corpus through a model in one pass and save the statistics of its "
        "tokens at each layer.",
    )
    extract.set_defaults(run=_extract, kept=_kept)
    extract.add_argument("--out", required=True, metavar="DIR", help="folder to save to")
    extract.add_argument("--quiet", action="store_true", help="print no plan and no progress bar")
    add_device_map(add_model_and_corpus(extract))
    run = add_pass(extract)
    add_compact(run)
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
    add_threads(many, "as the workers have; without workers, PyTorch's own")
    add_folds(many)
    where = many.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, metavar="N", help="measure on N processes of this machine"
    )
    where.add_argument(
        "--cluster", metavar="ADDRESS", help="measure on the workers of a Dask scheduler"
    )


def _extract(chosen: argparse.Namespace) -> None:
    with writable(Path(chosen.out)):
        _extract_and_save(chosen)


def _extract_and_save(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction import checkpoint
    from embvar_kit.extraction.extract import extract

    if chosen.device_map is not None and (chosen.workers is not None or chosen.cluster):
        raise ExtractionError(
            "--device-map spreads a model that this process runs, and each worker loads it on one "
            "device: leave out --device-map, or --workers and --cluster."
        )
    every = checkpoint.EVERY if chosen.checkpoint_every is None else chosen.checkpoint_every
    corpus, model = corpus_of(chosen), model_of(chosen)
    with _workers(chosen) as client:
        extracted = extract(
            model,
            corpus,
            site=chosen.site,
            leave_out=left_out_of(chosen),
            checkpoint=chosen.checkpoint,
            checkpoint_every=every,
            shards=chosen.shards,
            store=chosen.store,
            folds=chosen.folds,
            client=client,
            progress=not chosen.quiet,
            **options_of(chosen),
        )
    save(extracted, Path(chosen.out), chosen.compact, shared_by_vocabulary(model, chosen.by))
    if chosen.checkpoint:
        checkpoint.remove(chosen.checkpoint)


def _kept(chosen: argparse.Namespace) -> str:
    """What is left of a pass that was interrupted while no batch was run."""
    if chosen.checkpoint and not Path(chosen.checkpoint).expanduser().exists():
        return "Nothing was measured yet: the same command begins again."
    if place := chosen.store or chosen.checkpoint:
        return f"The same command resumes the pass with what {place!r} holds."
    return NOTHING_SAVED


@contextmanager
def _workers(chosen: argparse.Namespace) -> Iterator[Any]:
    """The client of the cluster that was named or asked for; ``None`` for this process."""
    if chosen.workers is None and chosen.cluster is None:
        yield None
        return
    import logging

    import dask
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
        # By default Dask gives up for good a worker that is slow to start after it was killed.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"}),
        LocalCluster(
            n_workers=chosen.workers,
            threads_per_worker=threads,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def shared_by_vocabulary(model: EmbeddingModel, by: str) -> Sequence[str]:
    """The strings of tokens that several vocabulary entries share."""
    from embvar_kit.corpora.tokens import group_vocabulary

    return () if by == "word" else group_vocabulary(model.tokenizer, by).shared.tolist()


def save(
    extracted: dict[str, TokenStatistics], folder: Path, compact: bool, shared: Sequence[str]
) -> None:
    """Save the statistics of each site, and say where.

    Args:
        extracted: the statistics by site.
        folder: where to save them.
        compact: save them compact, with what is known without tokens of high norm, without shared
            strings, and without both.
        shared: strings that several vocabulary entries share.
    """
    for site, statistics in extracted.items():
        out = folder if len(extracted) == 1 else folder / site
        if compact:
            high = extracted.get("hidden", statistics).high_norm(peak=True)["token"]
            left_out = dict.fromkeys([(), tuple(high), tuple(shared), (*high, *shared)])
            try:
                statistics = statistics.compact(left_out=left_out)
            except StatisticsError as error:  # the pass is not to be lost
                print(f"whole      the statistics are saved whole: {error}")
        statistics.save(out)
        print(f"saved      {out}; look at it with: embvar show {out}")
