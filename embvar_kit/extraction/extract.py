"""From text to statistics: a corpus, or each chunk of a stream, is planned, run and merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.parts import FileCorpus, StreamedCorpus
from embvar_kit.errors import ExtractionError, ExtractionInterrupted, NothingLeftError
from embvar_kit.extraction.checkpoint import EVERY, keeping, settings_of
from embvar_kit.extraction.finishing import finish, on_this_machine
from embvar_kit.extraction.forward import SITES
from embvar_kit.extraction.in_folds import check_documents
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.measure import Stopped, measure
from embvar_kit.extraction.norms import find_bounds
from embvar_kit.extraction.options import (
    check_no_names,
    check_options,
    chosen_layers,
    whole_number,
)
from embvar_kit.extraction.plan import Plan, at_sites, plan
from embvar_kit.extraction.shards import ShardedPass
from embvar_kit.files import temporary_folder
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments.memory import HOST_MOMENTS
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:
    from distributed import Client


def extract(
    model: EmbeddingModel,
    corpus: Corpus | StreamedCorpus | FileCorpus,
    *,
    by: str = "token",
    site: str | Sequence[str] = "hidden",
    layers: Iterable[int] | None = None,
    batch_tokens: int | None = None,
    long: str = "split",
    min_count: int = 1,
    parse_special: bool = False,
    leave_out: LeaveOut | None = None,
    null: bool = False,
    folds: int | None = None,
    covariance: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = EVERY,
    shards: int | None = None,
    store: str | Path | None = None,
    client: Client | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> TokenStatistics | dict[str, TokenStatistics]:
    """Run a corpus through a model once and return the statistics of every token and layer.

    Args:
        model: a model from :func:`embvar_kit.load_model`.
        corpus: a corpus from :func:`embvar_kit.load_corpus`. The chunks of a streamed one,
            and the files of one of many files, are planned, run and merged one after another.
        by: what forms a group: ``"token"`` (the paper's strings, markers taken off), ``"id"``
            (vocabulary entries as they are) or ``"word"`` (Appendix J: a word's embedding is the
            mean of its tokens').
        site: where embeddings are taken: a key of :data:`SITES`, or a list of such keys, which
            costs one pass all the same.
        layers: hidden states to take (0 is the embedding layer's output, -1 the last); by default
            all of them.
        batch_tokens: tokens per batch, padding included; by default what suits the device.
        long: what happens to sentences longer than the model takes: ``"split"`` or ``"cut"``
            (both are reported), or ``"error"``.
        min_count: measure only tokens that occur at least this often. Most tokens of a corpus are
            rare, and each needs a mean at every layer: 10, the least that the paper's regressions
            take, saves most of the memory. Such statistics cannot be merged. Many files can be
            measured this way in shards only, and a stream, which has no shards, cannot.
        parse_special: what becomes of control tokens that the text spells out, such as ``[SEP]``
            or ``<s>``. By default they are text like any other; with ``True`` they are read as
            control tokens, for corpora that mean it. The plan counts them either way.
        leave_out: occurrences that are not measured, by their position in the sequence, their norm
            or both, such as ``LeaveOut(first=1, norm=10)``; see :class:`embvar_kit.LeaveOut`. The
            result counts them in ``info``. ``min_count`` applies to the occurrences that their
            position leaves; tokens of which the norm leaves none are not in the result. A
            ``norm`` costs a first look at a sample, which a stream or many files cannot give.
        null: measure the null in the same pass, too: the same occurrences, their labels permuted
            over the whole corpus (seeded; counts are kept). ``stats.null`` has its statistics.
            Where a norm leaves occurrences out, its counts are not those of the tokens, and
            :meth:`TokenStatistics.evidence` does not compare with it; a warning says so.
        folds: deal the documents of the corpus out to so many folds, and keep what tells the
            statistics without each of them: intervals (``stats.tradeoff(intervals=True)``),
            reliability, :meth:`TokenStatistics.evidence`. By default they are measured in one
            pass, which leaves the bits of all else as they are without folds, and keeps a mean of
            each token in each fold. With ``store``, ``shards``, ``client``, ``threads`` or many
            files, and without ``checkpoint`` where the memory has no room for these means, each
            fold is one shard or several: on the disk until they are merged, in ``store``, or in a
            temporary folder that is removed at the end. The results then differ by rounding, and
            those of a null as another permutation's. Something has to be measured in each fold.
            What a pass gives that is stopped half-way has no folds.
        covariance: take the d x d covariance of all embeddings at each layer, too, from which
            :meth:`TokenStatistics.isotropy` and :meth:`TokenStatistics.information_gain` follow.
            It costs d^2 multiplications for each embedding and layer.
        checkpoint: folder to keep the progress in. A pass that was killed at any moment resumes
            when called again with the same arguments, and ends with the same bits, if attention
            kernel and libraries are the same (``info["environments"]`` tells). The folder can be
            removed once the result is saved.
        checkpoint_every: least number of seconds between two checkpoints.
        shards: measure the corpus in so many parts of whole documents and merge them (see
            :mod:`embvar_kit.extraction.shards`). The bits of the result depend on the number of
            shards, and neither on who measures them nor on what was interrupted.
        store: folder, or path such as ``s3://BUCKET/FOLDER``, for the shards. A pass that was
            stopped, here or on a cluster, resumes when called again with the same arguments.
        client: a ``dask.distributed`` client, whose workers measure the shards.
        threads: number of threads that measure a shard, which its last bits can depend on. By
            default that of a pass in the store, else that of the workers, else PyTorch's.
        progress: print the plan, a progress bar and a summary.

    Returns:
        The statistics, tokens sorted by frequency; for a list of sites, a dict ``{site:
        statistics}``. They do not depend on ``batch_tokens`` beyond the rounding of the model's
        own arithmetic.

    Raises:
        ExtractionError: if an argument makes no sense, a layer lacks the normalization that the
            site needs (the message names the layers that have one), neither memory nor disk has
            room for the means, or the model gives NaN or infinity (the message names the layer,
            the sentence and a remedy).
        CheckpointError: if the checkpoint or the store was made with another model, corpus or
            setting (the message names them), is damaged, in use by another process, or cannot be
            written.
        ExtractionInterrupted: if the pass is stopped by hand; :func:`partial_result` then returns
            what was measured.
    """
    check_no_names(model, corpus)
    sites = _sites(site)
    batch_tokens, min_count = check_options(by, batch_tokens, long, min_count)
    if layers is not None:
        layers = list(chosen_layers(model, layers))
    options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    options |= {"min_count": min_count, "parse_special": parse_special}
    options |= {name: True for name, on in (("null", null), ("covariance", covariance)) if on}
    streamed = isinstance(corpus, StreamedCorpus | FileCorpus)
    in_shards = any(given is not None for given in (shards, store, client))
    in_shards |= folds is not None and (threads is not None or streamed)
    work = None
    if threads is not None and not in_shards:
        raise ExtractionError(
            f"threads={threads} is for the shards of a pass, and this pass has none: pass folds=, "
            "or shards= and store=, too, or leave the threads to PyTorch."
        )
    if streamed and null and not in_shards:
        raise ExtractionError(
            "The labels of a stream, or of many files, are not known before its end, so that they "
            "cannot be permuted: leave out null=True, load the whole corpus (streaming=False), or "
            "measure files in shards (shards=, store=)."
        )
    if streamed and min_count > 1 and not in_shards:
        raise ExtractionError(
            "The counts of a stream, or of many files, are not known before its end: leave out "
            f"min_count={min_count}, load the whole corpus (streaming=False), or measure files in "
            "shards (shards=, store=)."
        )
    if isinstance(leave_out, LeaveOut):
        names = ("by", "layers", "batch_tokens", "long", "parse_special")
        how = {name: options[name] for name in names}
        leave_out = find_bounds(model, corpus, leave_out, **how)
    options["leave_out"] = leave_out
    if folds is not None:
        folds, of_folds = _in_folds(folds, shards)
        if in_shards and not streamed:  # the plan of one pass checks it, too
            check_documents(corpus, folds)
        if not in_shards:
            work = plan(model, corpus, sites=len(sites), folds=folds, **options)
            in_shards = checkpoint is None and not _is_quick(work, model)
            if in_shards and progress:
                print("folds      each is a shard: the memory has no room for the means of all")
        if in_shards:
            shards, work = of_folds, None
        else:
            options["folds"] = folds
    if in_shards:
        local = folds is not None and client is None
        no_store = store is None and not local
        stream = isinstance(corpus, StreamedCorpus)
        lack = [
            name for name, missing in (("shards=", shards is None), ("store=", no_store)) if missing
        ]
        if lack:
            raise ExtractionError(
                "A pass in shards takes shards= (or folds=), store= and, for a cluster, client=. "
                f"Add {' and '.join(lack)}, or leave the others out. Folds alone need no store."
            )
        if checkpoint is not None:
            raise ExtractionError(
                "A pass in shards keeps its progress in its store (store=): leave out "
                f"checkpoint={str(checkpoint)!r}."
            )
        if stream:
            raise ExtractionError(
                "A pass in shards takes no stream: leave out streaming=True, or name the files of "
                "the corpus by a pattern ('DIR/*.parquet')."
            )
        with temporary_folder() if store is None else nullcontext(store) as place:
            job = ShardedPass.plan(
                place,
                model,
                corpus,
                shards=shards,
                threads=threads,
                usual_threads=None if client is None else _threads_of(client),
                sites=sites,
                **options,
            )
            if progress:
                print(job.summary() if store is None else job, flush=True)
            try:
                found = _run_shards(job, model, client, folds, progress)
            except ExtractionInterrupted as stopped:
                if store is not None:
                    raise
                raise ExtractionInterrupted(
                    "Stopped. Without store= the folds lie in a temporary folder, and are gone: "
                    "name a store, and the same call resumes the pass.",
                    None,
                ) from stopped
        return found[site] if isinstance(site, str) else found
    merged: dict[str, TokenStatistics] = {}
    told = {**options, "leave_out": leave_out.told() if isinstance(leave_out, LeaveOut) else None}
    asked = partial(settings_of, model, corpus.name, sites, told)
    with keeping(checkpoint, checkpoint_every, asked) as kept:
        for part in corpus.chunks() if streamed else [corpus]:
            if kept and kept.begin_part(part):
                continue
            try:
                work = work or plan(model, part, sites=len(sites), **options)
            except NothingLeftError as error:
                if not isinstance(corpus, FileCorpus):
                    raise
                raise NothingLeftError(
                    f"Nothing of the file {part.titles[0]!r} can be measured by {by}. Leave it "
                    "out, or measure the files in shards (shards=, store=), which pass over it."
                ) from error
            if progress:
                print(work, flush=True)
            if kept and not merged:
                merged = kept.merged()
            try:
                measured = measure(model, part, work, sites, progress=progress, kept=kept)
            except Stopped as stopped:
                raise _stopped(stopped, merged, site) from None
            work = None
            found = measured.statistics()
            of_files = isinstance(corpus, FileCorpus)  # each is a document of its own, or several
            merged = {
                at: merged[at].add(found[at], whole_documents=of_files) if merged else found[at]
                for at in sites
            }
            if kept and streamed:
                kept.keep_merged(merged)
        if kept:
            kept.check_all_seen()
    if not merged:
        raise ExtractionError(f"Corpus {corpus.name!r} yields no sentence.")
    return merged[site] if isinstance(site, str) else merged


def run_plan(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    *,
    site: str | Sequence[str] = "hidden",
    progress: bool = True,
) -> TokenStatistics | dict[str, TokenStatistics]:
    """The second half of :func:`extract`: run what :func:`embvar_kit.plan` planned.

    Args:
        model, corpus: the model and the corpus that the plan was made for.
        work: the plan.
        site: a key of :data:`SITES`, or a list of them.
        progress: print a progress bar and a summary.

    Returns:
        The statistics; for a list of sites, a dict ``{site: statistics}``.

    Raises:
        ExtractionError, ExtractionInterrupted: as :func:`extract`.
    """
    sites = _sites(site)
    try:
        placed = at_sites(work, len(sites), model)
        measured = measure(model, corpus, placed, sites, progress=progress)
    except Stopped as stopped:
        raise _stopped(stopped, {}, site) from None
    found = measured.statistics()
    return found[site] if isinstance(site, str) else found


def partial_result() -> TokenStatistics | dict[str, TokenStatistics]:
    """The statistics of the batches that the last pass had run when it was stopped by hand.

    A pass runs the longest sentences first, so these are no fair sample of the corpus. They are
    marked as partial in ``info`` and cannot be merged with others.

    Raises:
        ExtractionError: if no pass was stopped after its first batch.
    """
    if _last_stopped.partial is None:
        raise ExtractionError("No pass was stopped by hand after its first batch.")
    return _last_stopped.partial


_last_stopped = ExtractionInterrupted("", None)


def _stopped(
    stopped: Stopped, merged: dict[str, TokenStatistics], site: str | Sequence[str]
) -> ExtractionInterrupted:
    """The interrupt, with the partial result; earlier chunks of a stream are in it, too."""
    global _last_stopped
    found = dict(stopped.found)
    for at, before in merged.items():
        found[at] = before.add(found[at]) if found else before
        found[at] = replace(found[at], info={**found[at].info, "partial": stopped.partial})
    whole = (found[site] if isinstance(site, str) else found) if found else None
    _last_stopped = ExtractionInterrupted(f"Stopped after {stopped}.", whole)
    return _last_stopped


def _threads_of(client: Client) -> int:
    from embvar_kit.extraction.cluster import threads_of_workers

    return threads_of_workers(client)


def _is_quick(work: Plan, model: EmbeddingModel) -> bool:
    """Whether the means have room where the model's states are.

    A file of means is read and written all over, while the states of shards are read and written
    sequentially.
    """
    return work.means_in == ("memory" if model.device.type in HOST_MOMENTS else "device")


def _in_folds(folds: int, shards: int | None) -> tuple[int, int]:
    """The number of folds and of shards of a pass in folds.

    Raises:
        ExtractionError: if folds cannot be made of so many shards.
    """
    if shards is not None:
        shards = whole_number("shards", shards)
    try:
        number = whole_number("folds", folds, 2)
    except ExtractionError:
        number = 0
    if not number or (shards is not None and shards < number):
        raise ExtractionError(
            f"folds={folds!r} must be a whole number from 2, and at most shards= if that is given: "
            "each fold is one or more shards. 20 folds are usual."
        )
    return number, shards or number


def _run_shards(
    job: ShardedPass,
    model: EmbeddingModel,
    client: Client | None,
    folds: int | None,
    progress: bool,
) -> dict[str, TokenStatistics]:
    with job.store.held():
        if client is None:
            make = on_this_machine(job, model, folds=folds, progress=progress)
            return finish(job, make, folds=folds)
        from embvar_kit.extraction.cluster import on_cluster

        return finish(job, on_cluster(client, job, progress=progress), folds=folds)


def _sites(site: str | Sequence[str]) -> list[str]:
    sites = [site] if isinstance(site, str) else list(dict.fromkeys(site))
    unknown = [name for name in sites if name not in SITES]
    if unknown or not sites:
        raise ExtractionError(f"site={site!r} is unknown; the sites are {', '.join(SITES)}.")
    return sites
