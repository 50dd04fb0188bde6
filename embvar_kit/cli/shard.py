"""``embvar shard``: the steps of a pass in shards, one command each, for job arrays."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from embvar_kit.cli.arguments import (
    PHASES,
    add_compact,
    add_folds,
    add_model_and_corpus,
    add_pass,
    add_store,
    add_threads,
    corpus_of,
    left_out_of,
    model_of,
    options_of,
    writable,
)
from embvar_kit.cli.extract import save
from embvar_kit.errors import ExtractionError


def add_shard(commands: argparse._SubParsersAction) -> None:
    """Add the command ``shard`` and its steps."""
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
    add_store(plan)
    plan.add_argument("--shards", type=int, required=True, metavar="N", help="number of shards")
    add_threads(plan, "1")
    add_model_and_corpus(plan)
    add_pass(plan)

    run = steps.add_parser("run", help="measure one shard, or every K-th from one on")
    run.set_defaults(run=_shard_run)
    add_store(run)
    run.add_argument("--index", type=int, required=True, help="number of the shard, from 0")
    run.add_argument(
        "--every", type=int, metavar="K", help="also shards INDEX+K, INDEX+2K and so on"
    )
    run.add_argument(
        "--phase",
        choices=PHASES,
        help="count the groups of the shard, or measure it; a task that has nothing left to do in "
        "this phase ends at once (default: what the pass needs next)",
    )

    merge = steps.add_parser("merge", help="merge all shards and save the statistics")
    merge.set_defaults(run=_shard_merge)
    add_store(merge)
    merge.add_argument("--out", required=True, metavar="DIR", help="folder to save to")
    add_compact(merge)
    add_folds(merge)

    status = steps.add_parser("status", help="say which shards are done")
    status.set_defaults(run=_shard_status)
    add_store(status)


def _shard_plan(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.shards import ShardedPass

    model, corpus, leave_out = model_of(chosen), corpus_of(chosen), left_out_of(chosen)
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
        **options_of(chosen),
    )
    print(job)


def _shard_run(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.finishing import on_this_machine
    from embvar_kit.extraction.shards import ShardedPass

    job = ShardedPass.open(chosen.store)
    if chosen.every is not None and chosen.every < 1:
        raise ExtractionError(f"--every must be at least 1, got {chosen.every}.")
    if not 0 <= chosen.index < job.n_shards:
        raise ExtractionError(
            f"There is no shard {chosen.index}: those of {chosen.store!r} are 0 to "
            f"{job.n_shards - 1}."
        )
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
            print(f"{phase:<9}  number {shard} (of 0 to {job.n_shards - 1}) is done", flush=True)
    else:
        before = "done" if phase == "shards" else "counted"
        numbers = f"number{'s' * (len(shards) > 1)} {_some(shards)}"
        print(f"{phase:<9}  {numbers} {'were' if len(shards) > 1 else 'was'} {before} before")
    if phase == "counts":
        print("next       once all are counted, run the array again, to measure: --phase shards")


def _shard_merge(chosen: argparse.Namespace) -> None:
    from embvar_kit.extraction.shards import ShardedPass

    with writable(Path(chosen.out)):
        job = ShardedPass.open(chosen.store)
        if missing := job.missing("shards"):
            raise ExtractionError(
                f"{len(missing)} of {job.n_shards} shards are missing from {chosen.store!r}: "
                f"{_some(missing)}. Run them first: embvar shard run {chosen.store} --index "
                f"{missing[0]}."
            )
        shared = job.shared if chosen.compact else []
        save(job.merge(folds=chosen.folds), Path(chosen.out), chosen.compact, shared)


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
