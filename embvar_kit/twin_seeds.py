"""The twins from several seeds, and the trade-off of each: what one run cannot tell.

The weights of the first seed's twins come with the kit. Of the others a table is enough: the
regression of V on M of every twin, site and layer, before and after training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.load import load_corpus
from embvar_kit.corpora.tokens import group_vocabulary
from embvar_kit.errors import ModelError, TrainingError
from embvar_kit.extraction.extract import extract
from embvar_kit.files import home, replacing, shipped
from embvar_kit.models import normalization
from embvar_kit.models.loading import EmbeddingModel, untrained
from embvar_kit.models.twin_training import Settings, train_twins
from embvar_kit.models.twins import TWINS, load_twin, twins_folder, twins_home

if TYPE_CHECKING:
    from embvar_kit.statistics.token_statistics import TokenStatistics

SEEDS = (0, 1, 2)
"""The seeds of :data:`FILE` that comes with the kit."""

FILE = "tradeoffs.csv"
"""The file beside the twins with the trade-offs of all seeds."""

SITES = ("hidden", "norm_input", "standardized", "norm_output")

FITS = ("n_tokens", "slope", "r2", "cv_Q", "sd_Q", "sd_M", "r", "rho", "spearman")
"""Columns of a trade-off that are kept."""


def compare_twins(
    seeds: Sequence[int] = SEEDS,
    *,
    out: str | Path | None = None,
    settings: Settings | None = None,
    corpus: Corpus | None = None,
    measured: Corpus | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train all twins from several seeds, and write :data:`FILE` beside those of the first.

    Args:
        seeds: seeds of initial weights and batches. The twins of the first are saved to ``out``,
            the others' to ``cache/twins/seed-N`` in the kit's folder.
        out: folder for the first seed's twins and the table; by default
            :func:`embvar_kit.models.twins.twins_home`.
        settings: settings shared by all of them, but for the seed.
        corpus: what they are trained on; by default the Wikipedia excerpt.
        measured: what their trade-offs are measured on; by default 3,000 sentences of it.
        progress: draw a progress bar for each training.

    Returns:
        The table as :func:`twin_tradeoffs` reads it.

    Raises:
        TrainingError, CheckpointError: as
            :func:`embvar_kit.models.twin_training.train_twins`; also if there is no seed, or one
            stands twice.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise TrainingError(f"seeds={list(seeds)}: at least one is needed, and each once.")
    settings = settings or Settings()
    out = twins_home() if out is None else Path(out)
    measured = load_corpus("wikipedia", sample=3000, seed=0) if measured is None else measured
    rows: list[dict] = []
    for seed in seeds:
        kept = home() / "cache" / "twins" / f"seed-{seed}"
        folder = out if seed == seeds[0] else kept
        train_twins(
            out=folder,
            settings=replace(settings, seed=seed),
            corpus=corpus,
            checkpoints=kept / "checkpoints",
            progress=progress,
        )
        for name in TWINS:
            rows += _tradeoffs(load_twin(name, folder=folder), measured, seed, name)
    table = pd.DataFrame(rows)
    with replacing(out / FILE) as scratch:
        table.to_csv(scratch, index=False, float_format="%.6g", lineterminator="\n")
    return twin_tradeoffs(out)


def _tradeoffs(model: EmbeddingModel, corpus: Corpus, seed: int, name: str) -> Iterator[dict]:
    """Rows of one twin: a row for each state, site, choice of tokens and layer."""
    gamma = normalization.table(model).set_index("layer")[["gamma_min", "gamma_max"]]
    shared = group_vocabulary(model.tokenizer).shared
    for weights, twin in (("trained", model), ("untrained", untrained(model))):
        for site, found in _at_sites(twin, corpus).items():
            for tokens, chosen in (("all", found), ("single entry", found.without(shared))):
                fits = chosen.tradeoff(robust=True).set_index("layer")
                for layer, fit in fits.iterrows():
                    of_gamma = gamma.loc[layer] if weights == "trained" else {}
                    yield {
                        **{"seed": seed, "twin": name, "weights": weights, "site": site},
                        **{"tokens": tokens, "layer": layer},
                        **{column: fit[column] for column in FITS},
                        **{at: of_gamma.get(at) for at in gamma.columns},
                    }


def _at_sites(twin: EmbeddingModel, corpus: Corpus) -> dict[str, TokenStatistics]:
    """Statistics at each site that a twin has."""
    sites = SITES[:1] if twin.normalization == "none" else SITES
    found = extract(twin, corpus, site=sites, progress=False)
    return found if isinstance(found, dict) else {sites[0]: found}


def twin_tradeoffs(folder: str | Path | None = None) -> pd.DataFrame:
    """The regressions of V on M of all twins from several seeds.

    Args:
        folder: the folder of the twins; by default
            :func:`embvar_kit.models.twins.twins_home`, or what comes with the kit.

    Returns:
        A row for each ``seed, twin, weights`` (trained or untrained), ``site``, ``tokens`` (all, or
        those of a single vocabulary entry) and ``layer``, with the columns of
        :meth:`TokenStatistics.tradeoff`, and ``gamma_min, gamma_max``, the range of γ in the
        normalization that the layer's state comes out of or goes into (NaN before training).

    Raises:
        ModelError: if the folder does not hold the table.
    """
    path = twins_folder(folder) / FILE
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise ModelError(
            f"There is no {FILE} in {str(path.parent)!r}. That of the kit is in "
            f"{str(shipped('twins'))!r}: name it as folder=. To make one: "
            "embvar twins --compare 0 1 2"
        ) from error
