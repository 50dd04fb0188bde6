"""One plan, run: its batches are taken into moments, under a stop button and over a checkpoint."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import numpy as np
import torch
from tqdm import tqdm

from embvar_kit._version import __version__
from embvar_kit.corpora import byte_level
from embvar_kit.corpora.corpus import Corpus, lengths_in_words
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import EmbvarWarning, ExtractionError, NothingLeftError
from embvar_kit.extraction.accumulator import Accumulator, NotFiniteError
from embvar_kit.extraction.batching import known, sharing, told
from embvar_kit.extraction.checkpoint import Checkpoint
from embvar_kit.extraction.environment import environment
from embvar_kit.extraction.folding import with_folds
from embvar_kit.extraction.forward import Batch, forward, norms_for
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.extraction.norms import Screen
from embvar_kit.extraction.plan import NULL_SEED, Plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments.grouped import GroupedMoments
from embvar_kit.statistics.token_statistics import TokenStatistics
from embvar_kit.wording import number_of

NULL = "null/"
"""Before the names of the arrays of a null, where they are kept beside those of its pass."""

_FOLDS = "folds/"
"""The same for those of folds."""


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


@dataclass(frozen=True)
class Measured:
    """What a pass over one text found.

    Attributes:
        work: the plan that was run, without the occurrences that turned out to be of high norm.
        moments: its accumulator, whose arrays hold the means.
        held: the moments by site and layer.
        info: what was measured, in a form that survives JSON unchanged.
        null: the same with the labels of the occurrences permuted, if the plan asks for it.
        entries: the moments by site and layer of each token in each fold, if the plan has folds.
    """

    work: Plan
    moments: Accumulator
    held: list[list[GroupedMoments]]
    info: dict
    null: Measured | None = None
    entries: list[list[GroupedMoments]] | None = None

    def statistics(self) -> dict[str, TokenStatistics]:
        """The moments as labelled statistics, by site."""
        null = self.null.statistics() if self.null else {}
        found, taken = {}, self.moments.covariances()
        # The plan counts all batches, whichever were run.
        counts = {} if "partial" in self.info else self.work.counts
        for at, site in enumerate(self.moments.sites):
            covariance = None
            if taken:
                own = [taken[site, layer].covariance for layer in self.work.layers]
                covariance = np.stack(own)
            statistics = TokenStatistics.from_moments(
                self.held[at],
                tokens=self.work.labels,
                special=self.work.special,
                subwords=self.work.subwords,
                layers=np.array(self.work.layers),
                mean=self.moments.mean[at],
                extra=self.moments.extra[at],
                info=at_site(self.info, site),
                counts=counts,
                covariance=covariance,
            )
            if not (statistics.n.any() or "partial" in self.info):
                raise all_of_high_norm(self.work.corpus, self.work.leave_out)
            seen = np.arange(len(statistics))
            if "partial" in self.info or self.work.n_of_high_norm:
                seen = _seen(statistics)
                statistics = statistics.take(seen)
            if self.entries is not None and self._has_all_folds():
                in_folds = self.work.in_folds
                statistics = with_folds(
                    statistics,
                    (moments.state() for moments in self.entries[at]),
                    starts=in_folds.starts,
                    fold=in_folds.fold,
                    n_folds=in_folds.number,
                    rows=seen,
                )
            found[site] = replace(statistics, null=null.get(site))
        return found

    def _has_all_folds(self) -> bool:
        """Whether something was measured in each fold: a bound on the norm may have left nothing.

        The pass is over when that is known, so its other results are kept.
        """
        try:
            self.work.in_folds.check()
        except ExtractionError as error:
            warnings.warn(f"{error} The statistics have no folds.", EmbvarWarning, stacklevel=3)
            return False
        return True


def all_of_high_norm(corpus: str, leave_out: LeaveOut) -> NothingLeftError:
    """What to say of a corpus whose every occurrence reaches a bound on the norm."""
    return NothingLeftError(
        f"All that could be measured of {corpus!r} is of high norm, by the bounds in "
        f"{leave_out!r}: raise them."
    )


def at_site(info: dict, site: str) -> dict:
    """What was measured, with the site where the embeddings were taken."""
    return {**info, "convention": {**info["convention"], "site": site}}


def measure(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    sites: Sequence[str],
    *,
    progress: bool = True,
    kept: Checkpoint | None = None,
) -> Measured:
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
        kept.check_room(work.memory + work.covariance_memory)
    now = environment(model)
    environments = [now]
    if kept:
        environments = kept.environments(now if done < len(work.batches) else None)
    taken = _Taken(model, work, sites)
    if state is not None:
        taken.restore(state)
        if progress:
            share = slots[:done].sum() / work.n_tokens
            print(f"resumes    after {done:,} of {len(work.batches):,} batches, {share:.0%}")
    first, started = done, time.perf_counter()
    shared = sharing(model, work)
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
            closing(forward(model, work, sites, work.batches[first:], shared=shared)) as batches,
        ):
            for batch in batches:
                taken.add(batch)
                bar.update(batch.n_tokens)
                # A batch that was halved counts once all of its parts are done.
                if batch.last:
                    done = first + batch.planned + 1
                    if button.pressed:
                        break
                    if kept and done < len(work.batches) and kept.due():
                        kept.save(done, taken.state)
                del batch  # frees its states before the next forward pass
        held = taken.on_host()
    except NotFiniteError as error:
        raise _not_finite(model, corpus, work, sites, error.batch) from error
    if kept and done > first and (kept.whole or done < len(work.batches)):
        kept.save(done, taken.state)
    if taken.screen:
        work = work.without(taken.screen.left_out)
    info = info_of(model, corpus, work, environments)
    if shared is not known(model):
        info["model"]["notes"] = [*info["model"].get("notes", []), told(model, shared)]
    if done < len(work.batches):
        partial = {"batches": done, "of": len(work.batches)}
        found = taken.measured(work, held, info | {"partial": partial}).statistics()
        raise Stopped(found if done else {}, partial, slots[:done].sum() / work.n_tokens)
    seconds = time.perf_counter() - started
    if progress:
        rate = slots[first:].sum() / seconds
        print(f"done       in {seconds:,.1f} s, {rate:,.0f} tokens/s")
        if taken.screen:
            print(f"left out   {number_of(work.n_of_high_norm, 'occurrence')} of high norm")
    return taken.measured(work, held, info)


class _Taken:
    """What is taken from the batches of a pass: its moments, those of its null and of its folds.

    Attributes:
        screen: what takes occurrences of high norm out of the batches first, if the plan asks for
            it.
    """

    def __init__(self, model: EmbeddingModel, work: Plan, sites: Sequence[str]) -> None:
        parts = {"": work, NULL: work.null, _FOLDS: work.in_folds and work.in_folds.work}
        self._moments = {
            # What is taken of folds skips entries with no occurrence.
            prefix: Accumulator(model, part, sites, fill=prefix != _FOLDS)
            for prefix, part in parts.items()
            if part
        }
        self.screen = Screen(model, work) if work.leave_out and work.leave_out.bounds else None

    def add(self, batch: Batch) -> None:
        """Take what is wanted from a batch."""
        if self.screen:
            self.screen.take_out(batch)
        for moments in self._moments.values():
            moments.add(batch)

    def state(self) -> dict[str, np.ndarray]:
        """All that a resumed pass needs: arrays by name, without a copy."""
        parts = [moments.state(prefix) for prefix, moments in self._moments.items()]
        parts += [self.screen.state()] if self.screen else []
        return {name: array for part in parts for name, array in part.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state` gave."""
        for prefix, moments in self._moments.items():
            moments.restore(state, prefix)
        if self.screen:
            self.screen.restore(state)

    def on_host(self) -> dict[str, list[list[GroupedMoments]]]:
        """The moments by site and layer, under the prefix of what they are of."""
        return {prefix: moments.on_host() for prefix, moments in self._moments.items()}

    def measured(
        self, work: Plan, held: Mapping[str, list[list[GroupedMoments]]], info: dict
    ) -> Measured:
        """What the pass found.

        Args:
            work: the plan as it was carried out.
            held: the moments, from :meth:`on_host`.
            info: what was measured.
        """
        null = None
        if work.null:
            info = {**info, "null_seed": NULL_SEED}
            null = Measured(work.null, self._moments[NULL], held[NULL], {**info, "permuted": True})
        # Of a pass that was stopped, some folds may have nothing.
        entries = None if "partial" in info else held.get(_FOLDS)
        return Measured(work, self._moments[""], held[""], info, null, entries)


def _seen(statistics: TokenStatistics) -> np.ndarray:
    """Indices of the tokens that occurred, of those planned, the most frequent first."""
    seen = np.flatnonzero(statistics.n)
    return seen[frequency_order(statistics.n[seen], statistics.tokens[seen])]


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


def info_of(
    model: EmbeddingModel, corpus: Corpus, work: Plan, environments: Sequence[dict]
) -> dict:
    """A description of what was measured, in a form that survives JSON unchanged.

    Args:
        model, corpus: the model and the corpus that the plan was made for.
        work: the plan as it was carried out; nothing need have been measured.
        environments: what its batches were run with, several if it was resumed with another.
    """
    info = {
        "kit_version": __version__,
        "environments": environments,
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
            **model.digests,
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
            **({"leave_out": work.leave_out.told()} if work.leave_out else {}),
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
            **(_left_out(work) if work.leave_out else {}),
        },
        **lengths_in_words(corpus.sentences[i] for i in np.unique(work.text.sentence)),
    }
    if (verbatim := byte_level.verbatim(model.tokenizer)) is not None and work.by != "word":
        info["byte_level"] = {"verbatim": verbatim}
    return json.loads(json.dumps(info))


def _left_out(work: Plan) -> dict[str, int]:
    """Numbers of the occurrences left out."""
    return {"left_out_by_position": work.n_at_first, "left_out_by_norm": work.n_of_high_norm}


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
