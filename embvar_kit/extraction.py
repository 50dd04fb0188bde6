"""From text to statistics: a corpus, or a stream chunk by chunk, planned, run and merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from embvar_kit.checkpoints import EVERY, keeping, settings_of
from embvar_kit.corpora import Corpus, StreamedCorpus
from embvar_kit.errors import ExtractionError, ExtractionInterrupted
from embvar_kit.forwarding import SITES
from embvar_kit.models import EmbeddingModel
from embvar_kit.planning import Plan, at_sites, plan
from embvar_kit.running import Stopped, run
from embvar_kit.statistics import TokenStatistics


def extract(
    model: EmbeddingModel,
    corpus: Corpus | StreamedCorpus,
    *,
    by: str = "token",
    site: str | Sequence[str] = "hidden",
    layers: Iterable[int] | None = None,
    batch_tokens: int | None = None,
    long: str = "split",
    min_count: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = EVERY,
    progress: bool = True,
) -> TokenStatistics | dict[str, TokenStatistics]:
    """Run a corpus through a model once and return the statistics of every token and layer.

    Args:
        model: from :func:`embvar_kit.load_model`.
        corpus: from :func:`embvar_kit.load_corpus`; a streamed one is taken in chunks, planned and
            merged one after another.
        by: what forms a group: ``"token"`` (the paper's strings, markers taken off), ``"id"``
            (vocabulary entries as they are) or ``"word"`` (Appendix J: a word's embedding is the
            mean of its tokens').
        site: where embeddings are taken: a key of :data:`SITES`, or a list of such keys, which
            costs one pass all the same.
        layers: hidden states to take (0 is the embedding layer's output, -1 the last); all of them
            by default.
        batch_tokens: tokens a batch, padding included; by default what suits the device.
        long: sentences longer than the model takes are ``"split"`` or ``"cut"``, and reported, or
            raise an ``"error"``.
        min_count: measure only what occurs so often. Most of a corpus' tokens are rare, and each
            needs a mean at every layer: 10, the least that the paper's regressions take, saves
            most of the memory. Such statistics cannot be merged, nor a stream be measured so.
        checkpoint: folder to keep the progress in. Killed at any moment and called again with the
            same arguments, the pass goes on from there, and ends with the same bits. Once it is
            done and saved, the folder can be removed.
        checkpoint_every: seconds between two checkpoints, at least.
        progress: print the plan, draw a progress bar and print a summary.

    Returns:
        The statistics, tokens sorted by frequency; for a list of sites, a dict ``{site:
        statistics}``. They do not depend on ``batch_tokens`` beyond the rounding of the model's
        own arithmetic.

    Raises:
        ExtractionError: if an argument makes no sense, a layer has no normalization and the site
            needs one (the message names those that have), neither memory nor disk has room for the
            means, or the model gives NaN or infinity (it names the layer, the sentence and a
            remedy).
        CheckpointError: if the checkpoint was made with another model, corpus or setting (it names
            them), is damaged, in use by another process, or cannot be written.
        ExtractionInterrupted: if it is stopped by hand; :func:`partial_result` has what it had.
    """
    sites = _sites(site)
    options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    options["min_count"] = min_count
    streamed = isinstance(corpus, StreamedCorpus)
    if streamed and min_count > 1:
        raise ExtractionError(
            "A stream's counts are not known before its end: leave min_count out, or load the "
            "corpus whole (streaming=False)."
        )
    if layers is not None:
        options["layers"] = layers = list(layers)
    merged: dict[str, TokenStatistics] = {}
    asked = partial(settings_of, model, corpus.name, sites, options)
    with keeping(checkpoint, checkpoint_every, asked) as kept:
        for part in corpus.chunks() if streamed else [corpus]:
            if kept and kept.begin_part(part):
                continue
            work = plan(model, part, sites=len(sites), **options)
            if progress:
                print(work, flush=True)
            if kept and not merged:
                merged = kept.merged()
            try:
                found = run(model, part, work, sites, progress=progress, kept=kept)
            except Stopped as stopped:
                raise _stopped(stopped, merged, site) from None
            merged = {at: merged[at].add(found[at]) if merged else found[at] for at in sites}
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
        model, corpus: those that the plan was made for.
        work: the plan.
        site: what is taken: a key of :data:`SITES`, or a list of them.
        progress: draw a progress bar and print a summary.

    Returns:
        The statistics; for a list of sites, a dict ``{site: statistics}``.

    Raises:
        ExtractionError, ExtractionInterrupted: as :func:`extract`.
    """
    sites = _sites(site)
    try:
        found = run(model, corpus, at_sites(work, len(sites), model), sites, progress=progress)
    except Stopped as stopped:
        raise _stopped(stopped, {}, site) from None
    return found[site] if isinstance(site, str) else found


def partial_result() -> TokenStatistics | dict[str, TokenStatistics]:
    """What the last pass that was stopped by hand would have returned, of the batches it had run.

    The longest sentences come first in a pass, so it is no fair sample of the corpus. Marked as
    partial in ``info``, and not merged with others.

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
    """The interrupt with what it would have returned: the earlier chunks of a stream, too."""
    global _last_stopped
    found = dict(stopped.found)
    for at, before in merged.items():
        found[at] = before.add(found[at]) if found else before
        found[at] = replace(found[at], info={**found[at].info, "partial": stopped.partial})
    whole = (found[site] if isinstance(site, str) else found) if found else None
    _last_stopped = ExtractionInterrupted(f"Stopped after {stopped}.", whole)
    return _last_stopped


def _sites(site: str | Sequence[str]) -> list[str]:
    sites = [site] if isinstance(site, str) else list(dict.fromkeys(site))
    unknown = [name for name in sites if name not in SITES]
    if unknown or not sites:
        raise ExtractionError(f"site={site!r} is unknown; there is {', '.join(SITES)}.")
    return sites
