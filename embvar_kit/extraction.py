"""The one pass: forward a batch, update the moments of every layer, show progress."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

import numpy as np
import psutil
import torch
from tqdm import tqdm

from embvar_kit import moments_device
from embvar_kit._version import __version__
from embvar_kit.corpora import Corpus, StreamedCorpus
from embvar_kit.errors import ExtractionError, MomentsError
from embvar_kit.forwarding import SITES, Batch, Pooling, forward, norms_for
from embvar_kit.models import EmbeddingModel
from embvar_kit.moments import GroupedMoments, GroupOrder
from embvar_kit.moments_device import DeviceMoments, DeviceOrder
from embvar_kit.normalization import Norm
from embvar_kit.planning import Plan, plan
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
        progress: print the plan, draw a progress bar and print a summary.

    Returns:
        The statistics, tokens sorted by frequency; for a list of sites, a dict ``{site:
        statistics}``. They do not depend on ``batch_tokens`` beyond the rounding of the model's
        own arithmetic.

    Raises:
        ExtractionError: if an argument makes no sense, a layer has no normalization and the site
            needs one (the message names those that have), the means would not fit into memory, or
            the model gives NaN or infinity (it names the layer, the sentence and a remedy).
    """
    sites = _sites(site)
    options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    merged: dict[str, TokenStatistics] = {}
    for part in corpus.chunks() if isinstance(corpus, StreamedCorpus) else [corpus]:
        work = plan(model, part, **options)
        if progress:
            print(work, flush=True)
        found = run_plan(model, part, work, site=sites, progress=progress)
        merged = {at: merged[at].add(found[at]) if merged else found[at] for at in sites}
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
        ExtractionError: as :func:`extract`.
    """
    sites = _sites(site)
    norms = norms_for(model, sites, work.layers)
    info = _info(model, corpus, work)
    _check_memory(model, work, len(sites))
    shape = (len(sites), len(work.layers), len(work.labels), work.width)
    mean, extra = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int8)
    started = time.perf_counter()
    moments = _pass(model, corpus, work, sites, norms, mean, extra, progress)
    seconds = time.perf_counter() - started
    if progress:
        print(f"done       in {seconds:,.1f} s, {work.n_tokens / seconds:,.0f} tokens/s")
    found = {}
    for at, name in enumerate(sites):
        found[name] = TokenStatistics.from_moments(
            moments[at],
            tokens=work.labels,
            special=work.special,
            subwords=work.subwords,
            layers=np.array(work.layers),
            mean=mean[at],
            extra=extra[at],
            info={**info, "convention": {**info["convention"], "site": name}},
        )
    return found[site] if isinstance(site, str) else found


def _sites(site: str | Sequence[str]) -> list[str]:
    sites = [site] if isinstance(site, str) else list(dict.fromkeys(site))
    unknown = [name for name in sites if name not in SITES]
    if unknown or not sites:
        raise ExtractionError(f"site={site!r} is unknown; there is {', '.join(SITES)}.")
    return sites


def _check_memory(model: EmbeddingModel, work: Plan, n_sites: int) -> None:
    needed = work.memory * n_sites
    free = {"memory": psutil.virtual_memory().available}
    if model.device.type == "cuda":
        free["the device's memory"] = torch.cuda.mem_get_info(model.device)[0]
    for place, available in free.items():
        if needed > available:
            raise ExtractionError(
                f"The means need {needed / 1e9:,.1f} GB and {available / 1e9:,.1f} GB of "
                f"{place} are free: take fewer layers (layers=...), fewer sites or a smaller "
                "corpus (limit=...)."
            )


def _pass(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    sites: list[str],
    norms: Mapping[int, Norm],
    mean: np.ndarray,
    extra: np.ndarray,
    progress: bool,
) -> list[list[GroupedMoments]]:
    """Moments per site and layer, with their means in the arrays ``(sites, L, T, d)`` given."""
    on_device = model.device.type not in moments_device.HOST_MOMENTS
    of_sites = range(len(sites))
    if on_device:
        shape = (len(work.labels), work.width)
        device_moments = [
            [DeviceMoments(*shape, model.device) for _ in work.layers] for _ in of_sites
        ]
    else:
        moments = [
            [GroupedMoments(*m.shape, mean=m, extra=e) for m, e in zip(*own, strict=True)]
            for own in zip(mean, extra, strict=True)
        ]
    bar = tqdm(
        total=work.n_tokens,
        unit="tok",
        unit_scale=True,
        desc=model.name,
        disable=not progress,
        file=sys.stdout,
        mininterval=0.5,
    )
    # Closed by name: an error that somebody holds on to would keep the hooks on the model.
    with bar, closing(forward(model, work.text, work.batches, norms)) as batches:
        for number, batch in enumerate(batches, start=1):
            bar.update(len(batch.rows))
            found = Pooling.in_batch(work, batch, model.device)
            if not len(found.occurrences):  # sentences without a word
                continue
            order = GroupOrder.of(work.group[found.occurrences], found.at)
            sent = DeviceOrder(order, model.device) if on_device else None
            for at, layer in enumerate(work.layers):
                for own, site in zip(of_sites, sites, strict=True):
                    x = found.embeddings(batch, site, layer)
                    if on_device:
                        device_moments[own][at].add(x, sent)
                        continue
                    try:
                        moments[own][at].add(x.float().cpu().numpy(), order)
                    except MomentsError as error:
                        raise _not_finite(model, corpus, work, [batch], sites) from error
            # Asking makes the host wait for the device, so it is done rarely.
            if on_device and number % 256 == 0:
                _check_device(device_moments, model, corpus, work, sites)
            del batch, x  # before the next forward pass
        if on_device:
            _check_device(device_moments, model, corpus, work, sites)
            moments = [
                [m.to_host(*arrays) for m, *arrays in zip(*own, strict=True)]
                for own in zip(device_moments, mean, extra, strict=True)
            ]
    return moments


def _check_device(
    moments: list[list[DeviceMoments]],
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    sites: list[str],
) -> None:
    if any(bool(m.refused) for of_site in moments for m in of_site):
        norms = norms_for(model, sites, work.layers)
        with closing(forward(model, work.text, work.batches, norms)) as again:
            raise _not_finite(model, corpus, work, again, sites)


def _not_finite(
    model: EmbeddingModel, corpus: Corpus, work: Plan, batches: Iterable[Batch], sites: list[str]
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
        },
        "counts": {
            "sentences": len(np.unique(work.text.sentence)),
            "sequences": len(work.text.lengths),
            "tokens": work.n_tokens,
            "occurrences": len(work.group),
            "split": work.text.n_split,
            "cut": work.text.n_cut,
            "empty": work.text.n_empty,
        },
        "sentences_by_words": np.bincount(words).tolist(),
    }
    return json.loads(json.dumps(info))


def _token(model: EmbeddingModel, token_id: int | None) -> str | None:
    return None if token_id is None else model.tokenizer.convert_ids_to_tokens(token_id)
