"""The one pass: forward a batch, update the moments of every layer, show progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from tqdm import tqdm

from embvar_kit._version import __version__
from embvar_kit.bundled import BUNDLED, home
from embvar_kit.corpora import Corpus, StreamedCorpus, load_corpus
from embvar_kit.errors import ExtractionError, MomentsError, StatisticsFileError
from embvar_kit.models import EmbeddingModel, load_model
from embvar_kit.moments import GroupedMoments, GroupOrder
from embvar_kit.moments_device import DeviceMoments, DeviceOrder, send
from embvar_kit.planning import Plan, plan
from embvar_kit.statistics import TokenStatistics
from embvar_kit.tokens import TokenizedCorpus

SITES = {"hidden": "the hidden states, as transformers returns them"}
"""Where in the model embeddings can be taken, with a line on each."""

HOST_MOMENTS = ("cpu", "mps")
"""Kinds of device whose moments are kept on the host: MPS has no float64."""


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
        by: what forms a group: ``"token"`` (the paper's strings, markers taken off) or ``"id"``
            (vocabulary entries as they are).
        site: where embeddings are taken: a key of :data:`SITES`, or a list of them.
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
        ExtractionError: if an argument makes no sense, the means would not fit into memory, or the
            model gives NaN or infinity (the message names the layer, the sentence and a remedy).
    """
    if not isinstance(site, str):
        (only,) = _sites(site)
        options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
        return {only: extract(model, corpus, site=only, progress=progress, **options)}
    _sites([site])
    options = {"by": by, "layers": layers, "batch_tokens": batch_tokens, "long": long}
    merged = None
    for part in corpus.chunks() if isinstance(corpus, StreamedCorpus) else [corpus]:
        work = plan(model, part, **options)
        if progress:
            print(work, flush=True)
        found = run_plan(model, part, work, site=site, progress=progress)
        merged = found if merged is None else merged.add(found)
    if merged is None:
        raise ExtractionError(f"Corpus {corpus.name!r} yields no sentence.")
    return merged


def run_plan(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    *,
    site: str = "hidden",
    progress: bool = True,
) -> TokenStatistics:
    """The second half of :func:`extract`: run what :func:`embvar_kit.plan` planned.

    Args:
        model, corpus: those that the plan was made for.
        work: the plan.
        site: where embeddings are taken: a key of :data:`SITES`.
        progress: draw a progress bar and print a summary.

    Raises:
        ExtractionError: as :func:`extract`.
    """
    _sites([site])
    info = _info(model, corpus, work, site)
    _check_memory(model, work)
    shape = (len(work.layers), len(work.groups), work.width)
    mean, extra = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int8)
    started = time.perf_counter()
    moments = _pass(model, corpus, work, mean, extra, progress)
    seconds = time.perf_counter() - started
    if progress:
        print(f"done       in {seconds:,.1f} s, {work.n_tokens / seconds:,.0f} tokens/s")
    return TokenStatistics.from_moments(
        moments,
        tokens=work.grouping.labels[work.groups],
        special=work.grouping.special[work.groups],
        layers=np.array(work.layers),
        mean=mean,
        extra=extra,
        info=info,
    )


def _sites(sites: Sequence[str]) -> list[str]:
    unknown = [site for site in sites if site not in SITES]
    if unknown or not sites:
        raise ExtractionError(f"site={sites!r} is unknown; there is {', '.join(SITES)}.")
    return list(dict.fromkeys(sites))


def _check_memory(model: EmbeddingModel, work: Plan) -> None:
    free = {"memory": psutil.virtual_memory().available}
    if model.device.type == "cuda":
        free["the device's memory"] = torch.cuda.mem_get_info(model.device)[0]
    for place, available in free.items():
        if work.memory > available:
            raise ExtractionError(
                f"The means need {work.memory / 1e9:,.1f} GB and {available / 1e9:,.1f} GB of "
                f"{place} are free: take fewer layers (layers=...) or a smaller corpus "
                "(limit=...)."
            )


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Attributes:
        sequences: ``(B,)`` indices of the sequences in the tokenized corpus.
        rows: ``(N,)`` where the real tokens lie when ``(B, longest)`` is laid out flat.
        token_ids: ``(N,)`` their ids, in that order.
        states: hidden states, each ``(B, longest, d)``.
    """

    sequences: np.ndarray
    rows: np.ndarray
    token_ids: np.ndarray
    states: tuple[torch.Tensor, ...]


def forward(
    model: EmbeddingModel, text: TokenizedCorpus, batches: Iterable[np.ndarray]
) -> Iterator[Batch]:
    """Run batches of sequences through a model, one after another; padding is never in ``rows``."""
    pad = model.tokenizer.pad_token_id or 0
    for sequences in batches:
        lengths = text.lengths[sequences]
        inside = np.arange(lengths.max()) < lengths[:, None]
        token_ids = np.concatenate(
            [text.ids[text.starts[i] : text.starts[i + 1]] for i in sequences]
        )
        ids = np.full(inside.shape, pad, dtype=np.int64)
        ids[inside] = token_ids
        # Attention is faster without a mask; where batches are small, most need none.
        mask = None if inside.all() else send(inside.astype(np.int64), model.device)
        states = model.hidden_states(send(ids, model.device), mask)
        yield Batch(sequences, np.flatnonzero(inside), token_ids, states)
        del states  # before the next ones are made


def cached_statistics(
    model: str = "minilm", corpus: str = "wikipedia", *, progress: bool = True
) -> TokenStatistics:
    """Statistics of an offline model on an offline corpus: those saved before, or a new pass.

    They live in ``cache/MODEL-CORPUS`` of the kit's folder (``data/`` in a checkout). A saved
    result of an older kit, of part of the corpus, or a damaged one is replaced by a new pass.
    """
    if model not in BUNDLED or corpus != "wikipedia":
        raise ExtractionError(
            "Only a bundled model on 'wikipedia' is cached by name; extract and save others."
        )
    folder = home() / "cache" / f"{model}-{corpus}"
    try:
        statistics = TokenStatistics.load(folder)
        if _is_whole(statistics, BUNDLED[model].weights_sha256):
            return statistics
    except StatisticsFileError:
        pass
    statistics = extract(load_model(model), load_corpus(corpus), progress=progress)
    statistics.save(folder)
    return statistics


def _is_whole(statistics: TokenStatistics, sha256: str) -> bool:
    """Whether saved statistics are what this kit would extract from all of the corpus."""
    info = statistics.info
    return (
        info["kit_version"] == __version__
        and info["model"]["revision"] == f"sha256:{sha256[:12]}"
        and info["corpora"][0]["settings"] == {}
        and (info["convention"]["by"], info["convention"]["long"]) == ("token", "split")
        and len(statistics.layers) == info["model"]["n_states"]
    )


def _pass(
    model: EmbeddingModel,
    corpus: Corpus,
    work: Plan,
    mean: np.ndarray,
    extra: np.ndarray,
    progress: bool,
) -> list[GroupedMoments]:
    rank = np.full(len(work.grouping.labels), -1)
    rank[work.groups] = np.arange(len(work.groups))
    rank_of = rank[work.grouping.group_of]
    on_device = model.device.type not in HOST_MOMENTS
    if on_device:
        shape = (len(work.groups), work.width)
        device_moments = [DeviceMoments(*shape, model.device) for _ in work.layers]
    else:
        moments = [
            GroupedMoments(*own.shape, mean=own, extra=bytes_of_own)
            for own, bytes_of_own in zip(mean, extra, strict=True)
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
    with bar:
        for number, batch in enumerate(forward(model, work.text, work.batches), start=1):
            order = GroupOrder.of(rank_of[batch.token_ids], batch.rows)
            flat = [batch.states[layer].reshape(-1, work.width) for layer in work.layers]
            if on_device:
                sent = DeviceOrder(order, model.device)
                for layer_moments, x in zip(device_moments, flat, strict=True):
                    layer_moments.add(x, sent)
                # Asking makes the host wait for the device, so it is done rarely.
                if number % 256 == 0 or number == len(work.batches):
                    _check_device(device_moments, model, corpus, work)
            else:
                for layer_moments, x in zip(moments, flat, strict=True):
                    try:
                        layer_moments.add(x.float().cpu().numpy(), order)
                    except MomentsError as error:
                        raise _not_finite(model, corpus, work, [batch]) from error
            bar.update(len(batch.rows))
            del batch, flat, x  # before the next forward pass
        if on_device:
            moments = [m.to_host(*own) for m, *own in zip(device_moments, mean, extra, strict=True)]
    return moments


def _check_device(
    moments: list[DeviceMoments], model: EmbeddingModel, corpus: Corpus, work: Plan
) -> None:
    if any(bool(layer_moments.refused) for layer_moments in moments):
        raise _not_finite(model, corpus, work, forward(model, work.text, work.batches))


def _not_finite(
    model: EmbeddingModel, corpus: Corpus, work: Plan, batches: Iterable[Batch]
) -> ExtractionError:
    """The error for what is not finite, with the first layer and sentence where it stands."""
    for batch in batches:
        for layer in work.layers:
            state = batch.states[layer]
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


def _info(model: EmbeddingModel, corpus: Corpus, work: Plan, site: str) -> dict:
    """What was measured, in a form that survives JSON unchanged."""
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
        },
        "corpora": [
            {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "settings": corpus.settings,
            }
        ],
        "convention": {
            "by": work.grouping.by,
            "site": site,
            "markers": work.grouping.markers,
            "begin": _token(model, model.begin),
            "end": _token(model, model.end),
            "long": work.long,
            "max_tokens": model.max_tokens,
        },
        "counts": {
            "sentences": len(np.unique(work.text.sentence)),
            "sequences": len(work.text.lengths),
            "tokens": work.n_tokens,
            "split": work.text.n_split,
            "cut": work.text.n_cut,
            "empty": work.text.n_empty,
        },
    }
    return json.loads(json.dumps(info))


def _token(model: EmbeddingModel, token_id: int | None) -> str | None:
    return None if token_id is None else model.tokenizer.convert_ids_to_tokens(token_id)
