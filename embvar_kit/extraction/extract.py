"""From text to statistics: a corpus, or a stream chunk by chunk, planned, run and merged."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from embvar_kit._version import __version__
from embvar_kit.corpora.corpus import Corpus, StreamedCorpus
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import ExtractionError, ExtractionInterrupted
from embvar_kit.extraction.accumulator import Accumulator, NotFiniteError
from embvar_kit.extraction.checkpoint import EVERY, Checkpoint, keeping, settings_of
from embvar_kit.extraction.forward import SITES, Batch, forward, norms_for
from embvar_kit.extraction.plan import Plan, at_sites, plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.models.normalization import Norm
from embvar_kit.statistics.token_statistics import TokenStatistics


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


# One pass


class Stopped(Exception):
    """The stop button was pressed.

    Attributes:
        found: by site, the statistics of the batches that were run; empty before the first.
        partial: how far the pass had come, as it stands in their ``info``.
    """

    def __init__(self, found: dict[str, TokenStatistics], partial: dict, tokens: float) -> None:
        super().__init__(
            f"{partial['batches']:,} of {partial['of']:,} batches, {tokens:.0%} of the tokens"
        )
        self.found, self.partial = found, partial


def run(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    sites: Sequence[str],
    *,
    progress: bool = True,
    kept: Checkpoint | None = None,
) -> dict[str, TokenStatistics]:
    """Run what was planned, from where a checkpoint left it.

    Args:
        model, corpus, work: that belong together.
        sites: where embeddings are taken.
        progress: draw a progress bar and print a summary.
        kept: the checkpoint to go on from and to write, if any.

    Raises:
        ExtractionError, CheckpointError: as :func:`embvar_kit.extract`.
        Stopped: if it is stopped by hand.
    """
    norms = norms_for(model, sites, work.layers)
    slots = np.array([work.text.lengths[batch].sum() for batch in work.batches])
    done, state = kept.resume(work) if kept else (0, None)
    if kept:
        kept.check_room(work.memory)
    moments = Accumulator(model, work, sites)
    if state is not None:
        moments.restore(state)
        if progress:
            share = slots[:done].sum() / work.n_tokens
            print(f"goes on    after {done:,} of {len(work.batches):,} batches, {share:.0%}")
    first, started = done, time.perf_counter()
    bar = tqdm(
        total=work.n_tokens,
        initial=int(slots[:done].sum()),
        unit="tok",
        unit_scale=True,
        desc=model.name,
        disable=not progress,
        file=sys.stdout,
        mininterval=0.5,
    )
    try:
        # Closed by name: an error that somebody holds on to would keep the hooks on the model.
        with (
            bar,
            stop_button() as button,
            closing(forward(model, work.text, work.batches[first:], norms, work.layers)) as batches,
        ):
            for batch in batches:
                moments.add(batch)
                bar.update(len(batch.rows))
                # A batch that was halved is counted when all of it is.
                if batch.last:
                    done = first + batch.planned + 1
                    if button.pressed:
                        break
                    if kept and done < len(work.batches) and kept.due():
                        kept.save(done, moments.state)
                del batch  # before the next forward pass
        held = moments.on_host()
    except NotFiniteError as error:
        raise _where_not_finite(model, corpus, work, sites, norms, error.batch) from error
    if kept and done > first:
        kept.save(done, moments.state)
    if done < len(work.batches):
        partial = {"batches": done, "of": len(work.batches)}
        found = _statistics(model, corpus, work, moments, held, partial) if done else {}
        raise Stopped(found, partial, slots[:done].sum() / work.n_tokens)
    seconds = time.perf_counter() - started
    if progress:
        rate = slots[first:].sum() / seconds
        print(f"done       in {seconds:,.1f} s, {rate:,.0f} tokens/s")
    return _statistics(model, corpus, work, moments, held, None)


def _statistics(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    moments: Accumulator,
    held: list,
    partial: dict | None,
) -> dict[str, TokenStatistics]:
    """What was accumulated, by site and with labels."""
    info = _info(model, corpus, work)
    if partial:
        info["partial"] = partial
    found = {}
    for at, site in enumerate(moments.sites):
        statistics = TokenStatistics.from_moments(
            held[at],
            tokens=work.labels,
            special=work.special,
            subwords=work.subwords,
            layers=np.array(work.layers),
            mean=moments.mean[at],
            extra=moments.extra[at],
            info={**info, "convention": {**info["convention"], "site": site}},
        )
        found[site] = _seen(statistics) if partial else statistics
    return found


def _seen(statistics: TokenStatistics) -> TokenStatistics:
    """Of a part of a pass: the tokens that occurred in it, the most frequent first."""
    seen = np.flatnonzero(statistics.n)
    return statistics.take(seen[frequency_order(statistics.n[seen], statistics.tokens[seen])])


def _where_not_finite(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    sites: Sequence[str],
    norms: Mapping[int, Norm],
    batch: Batch | None,
) -> ExtractionError:
    """The error for what is not finite; a pass on a device is run again to find the place."""
    if batch is not None:
        return _not_finite(model, corpus, work, [batch], sites)
    with closing(forward(model, work.text, work.batches, norms, work.layers)) as again:
        return _not_finite(model, corpus, work, again, sites)


def _not_finite(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    batches: Iterable[Batch],
    sites: Sequence[str],
) -> ExtractionError:
    """The error for what is not finite, with the first layer and sentence where it stands."""
    for batch in batches:
        for layer, site in itertools.product(work.layers, sites):
            state = batch.at(site, layer)
            finite = torch.isfinite(state).all(dim=2).reshape(-1).cpu().numpy()
            bad = batch.rows[~finite[batch.rows]]
            if len(bad):
                sequence = batch.sequences[bad[0] // state.shape[1]]
                sentence = corpus.where(int(work.text.sentence[sequence]))
                return ExtractionError(
                    f"The model gave NaN or infinity in layer {layer} for {sentence}. A number "
                    f"was too large for {model.dtype}, or the weights are damaged: load the model "
                    "with dtype='float32', or 'bfloat16' on an accelerator."
                )
    return ExtractionError(
        "The model gave NaN or infinity once and not when it was run again: it is not "
        "deterministic, or the device is failing."
    )


def _info(model: EmbeddingModel, corpus: Corpus, work: Plan) -> dict:
    """What was measured, in a form that survives JSON unchanged."""
    words = [len(corpus.sentences[i].split()) for i in np.unique(work.text.sentence)]
    info = {
        "kit_version": __version__,
        "model": {
            "name": model.name,
            "revision": model.revision,
            "architecture": type(model.module).__name__,
            "dtype": model.dtype,
            "device": model.device.type,
            "n_states": model.n_states,
            "width": model.width,
            "last_state_normalized_by": model.final_norm,
            "normalization": model.normalization,
        },
        "corpora": [
            {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "settings": corpus.settings,
            }
        ],
        "convention": {
            "by": work.by,
            "markers": work.markers,
            "begin": _token(model, model.begin),
            "end": _token(model, model.end),
            "long": work.long,
            "max_tokens": model.max_tokens,
            **({"min_count": work.min_count} if work.min_count > 1 else {}),
        },
        "counts": {
            "sentences": len(np.unique(work.text.sentence)),
            "sequences": len(work.text.lengths),
            "tokens": work.n_tokens,
            "occurrences": int(work.n.sum()),
            "split": work.text.n_split,
            "cut": work.text.n_cut,
            "empty": work.text.n_empty,
        },
        "sentences_by_words": np.bincount(words).tolist(),
    }
    return json.loads(json.dumps(info))


def _token(model: EmbeddingModel, token_id: int | None) -> str | None:
    return None if token_id is None else model.tokenizer.convert_ids_to_tokens(token_id)


# The stop button


class StopButton:
    """Whether somebody has asked to stop."""

    pressed = False


@contextmanager
def stop_button() -> Iterator[StopButton]:
    """Note an interrupt instead of raising it, so that a batch is counted at all layers or none.

    A second one is raised at once. Outside the main thread, and where interrupts are ignored,
    nothing changes.
    """
    button = StopButton()
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not (main and callable(before)):
        yield button
        return

    def press(number: int, frame: FrameType | None) -> None:
        if button.pressed:
            before(number, frame)
        button.pressed = True

    signal.signal(signal.SIGINT, press)
    try:
        yield button
    finally:
        signal.signal(signal.SIGINT, before)
