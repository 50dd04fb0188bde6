"""The one pass: forward a batch, take it into the moments, show progress, keep what there is."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

import numpy as np
import torch
from tqdm import tqdm

from embvar_kit import interrupts
from embvar_kit._version import __version__
from embvar_kit.accumulation import Accumulator, NotFiniteError
from embvar_kit.checkpoints import Checkpoint
from embvar_kit.corpora import Corpus
from embvar_kit.errors import ExtractionError
from embvar_kit.forwarding import Batch, forward, norms_for
from embvar_kit.models import EmbeddingModel
from embvar_kit.normalization import Norm
from embvar_kit.planning import Plan
from embvar_kit.statistics import TokenStatistics
from embvar_kit.tokens import frequency_order


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
            interrupts.held() as button,
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
