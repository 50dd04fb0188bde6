"""From text to statistics: a corpus, or each chunk of a stream, is planned, run and merged."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from embvar_kit._version import __version__
from embvar_kit.corpora import byte_level
from embvar_kit.corpora.corpus import Corpus, StreamedCorpus
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import ExtractionError, ExtractionInterrupted
from embvar_kit.extraction.accumulator import Accumulator, NotFiniteError
from embvar_kit.extraction.checkpoint import EVERY, Checkpoint, keeping, settings_of
from embvar_kit.extraction.forward import SITES, Batch, forward, norms_for
from embvar_kit.extraction.plan import Plan, at_sites, plan
from embvar_kit.models.loading import EmbeddingModel
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
    parse_special: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = EVERY,
    progress: bool = True,
) -> TokenStatistics | dict[str, TokenStatistics]:
    """Run a corpus through a model once and return the statistics of every token and layer.

    Args:
        model: a model from :func:`embvar_kit.load_model`.
        corpus: a corpus from :func:`embvar_kit.load_corpus`. The chunks of a streamed one are
            planned, run and merged one after another.
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
            take, saves most of the memory. Such statistics cannot be merged, and a stream cannot
            be measured this way.
        parse_special: what becomes of control tokens that the text spells out, such as ``[SEP]``
            or ``<s>``. By default they are text like any other; with ``True`` they are read as
            control tokens, for corpora that mean it. The plan counts them either way.
        checkpoint: folder to keep the progress in. A pass that was killed at any moment resumes
            when called again with the same arguments, and ends with the same bits. The folder can
            be removed once the result is saved.
        checkpoint_every: least number of seconds between two checkpoints.
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
        CheckpointError: if the checkpoint was made with another model, corpus or setting (the
            message names them), is damaged, in use by another process, or cannot be written.
        ExtractionInterrupted: if the pass is stopped by hand; :func:`partial_result` then returns
            what was measured.
    """
    sites = _sites(site)
    options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    options |= {"min_count": min_count, "parse_special": parse_special}
    streamed = isinstance(corpus, StreamedCorpus)
    if streamed and min_count > 1:
        raise ExtractionError(
            "The counts of a stream are not known before its end: leave min_count out, or load "
            "the whole corpus (streaming=False)."
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
        found = run(model, corpus, at_sites(work, len(sites), model), sites, progress=progress)
    except Stopped as stopped:
        raise _stopped(stopped, {}, site) from None
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


def _sites(site: str | Sequence[str]) -> list[str]:
    sites = [site] if isinstance(site, str) else list(dict.fromkeys(site))
    unknown = [name for name in sites if name not in SITES]
    if unknown or not sites:
        raise ExtractionError(f"site={site!r} is unknown; the sites are {', '.join(SITES)}.")
    return sites


class Stopped(Exception):
    """The stop button was pressed.

    Attributes:
        found: by site, the statistics of the batches that were run; empty if there were none.
        partial: how far the pass had come, as recorded in their ``info``.
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
    """Run a plan, from where a checkpoint left it.

    Args:
        model, corpus: the model and the corpus that the plan was made for.
        work: the plan.
        sites: where in the model the embeddings are taken.
        progress: print a progress bar and a summary.
        kept: the checkpoint to resume from and to write to, if any.

    Raises:
        ExtractionError, CheckpointError: as :func:`embvar_kit.extract`.
        Stopped: if the pass is stopped by hand.
    """
    norms_for(model, sites, work.layers)  # refuses a layer without one before memory is taken
    slots = np.array([work.text.lengths[batch].sum() for batch in work.batches])
    done, state = kept.resume(work) if kept else (0, None)
    if kept:
        kept.check_room(work.memory)
    moments = Accumulator(model, work, sites)
    if state is not None:
        moments.restore(state)
        if progress:
            share = slots[:done].sum() / work.n_tokens
            print(f"resumes    after {done:,} of {len(work.batches):,} batches, {share:.0%}")
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
        # Closed explicitly: a traceback that somebody keeps would leave the hooks on the model.
        with (
            bar,
            stop_button() as button,
            closing(forward(model, work, sites, work.batches[first:])) as batches,
        ):
            for batch in batches:
                moments.add(batch)
                bar.update(batch.n_tokens)
                # A batch that was halved counts once all of its parts are done.
                if batch.last:
                    done = first + batch.planned + 1
                    if button.pressed:
                        break
                    if kept and done < len(work.batches) and kept.due():
                        kept.save(done, moments.state)
                del batch  # frees its states before the next forward pass
        held = moments.on_host()
    except NotFiniteError as error:
        raise _not_finite(model, corpus, work, sites, error.batch) from error
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
    """The accumulated moments as labelled statistics, by site."""
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
    """The tokens that occurred in a part of a pass, the most frequent first."""
    seen = np.flatnonzero(statistics.n)
    return statistics.take(seen[frequency_order(statistics.n[seen], statistics.tokens[seen])])


def _not_finite(
    model: EmbeddingModel, corpus: Corpus, work: Plan, sites: Sequence[str], batch: Batch | None
) -> ExtractionError:
    """The error for a value that is not finite, with the first layer and sentence that have one.

    A pass on a device does not know the batch: it is run again to find the place.
    """
    if batch is not None:
        where = _first_not_finite(work, sites, batch)
    else:
        with closing(forward(model, work, sites)) as batches:
            found = (_first_not_finite(work, sites, again) for again in batches)
            where = next(filter(None, found), None)
    if where is None:
        return ExtractionError(
            "The model gave NaN or infinity once and not when it was run again: it is not "
            "deterministic, or the device is failing."
        )
    layer, sentence = where
    return ExtractionError(
        f"The model gave NaN or infinity in layer {layer} for {corpus.where(sentence)}. A number "
        f"was too large for {model.dtype}, or the weights are damaged: load the model with "
        "dtype='float32', or 'bfloat16' on an accelerator."
    )


def _first_not_finite(work: Plan, sites: Sequence[str], batch: Batch) -> tuple[int, int] | None:
    """Layer and sentence of the first embedding of a batch that is not finite, if there is one."""
    for layer, site in itertools.product(work.layers, sites):
        finite = torch.isfinite(batch.embeddings(site, layer)).all(dim=1).cpu().numpy()
        bad = batch.occurrences[~finite[batch.rows]]
        if len(bad):
            return layer, int(work.text.sentence[work.sequence[bad[0]]])
    return None


def _info(model: EmbeddingModel, corpus: Corpus, work: Plan) -> dict:
    """A description of what was measured, in a form that survives JSON unchanged."""
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
            **({"notes": model.notes} if model.notes else {}),
        },
        "corpora": [
            {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "settings": corpus.settings,
                **({"without_text": corpus.without_text} if corpus.without_text else {}),
            }
        ],
        "convention": {
            "by": work.by,
            "markers": work.markers,
            "begin": _tokens(model, model.begin),
            "end": _tokens(model, model.end),
            "long": work.long,
            "max_tokens": model.max_tokens,
            **({"min_count": work.min_count} if work.min_count > 1 else {}),
            **({"parse_special": True} if work.text.parse_special else {}),
        },
        "counts": {
            "sentences": len(np.unique(work.text.sentence)),
            "sequences": len(work.text.lengths),
            "tokens": work.n_tokens,
            "occurrences": int(work.n.sum()),
            "split": work.text.n_split,
            "cut": work.text.n_cut,
            "empty": work.text.n_empty,
            "control_tokens_in_text": work.text.n_spelled_out,
        },
        "sentences_by_words": np.bincount(words).tolist(),
    }
    if (verbatim := byte_level.verbatim(model.tokenizer)) is not None and work.by != "word":
        info["byte_level"] = {"verbatim": verbatim}
    return json.loads(json.dumps(info))


def _tokens(model: EmbeddingModel, ids: tuple[int, ...]) -> str | list[str] | None:
    """Strings of the tokens put at one end of a sentence: one, several, or ``None``."""
    tokens = model.tokenizer.convert_ids_to_tokens(list(ids))
    return tokens if len(tokens) > 1 else next(iter(tokens), None)


class StopButton:
    """Whether somebody has asked to stop."""

    pressed = False


@contextmanager
def stop_button() -> Iterator[StopButton]:
    """Note an interrupt instead of raising it, so that a batch counts at all layers or at none.

    A second interrupt is raised at once. Outside the main thread, and where interrupts are
    ignored, nothing changes.
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
