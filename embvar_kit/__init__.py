"""Norm and variance of contextualized embeddings: ``Q = M + V``, token by token, layer by layer.

>>> import numpy as np
>>> import embvar_kit as ek
>>> m = ek.GroupedMoments(n_groups=1, dim=2)
>>> m.update(np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([0, 0]))
>>> float(m.Q[0]), float(m.M[0]), float(m.V[0])
(1.0, 0.5, 0.5)

The folders spell the pipeline; each imports only from those before it::

    corpora > models > moments > statistics > extraction > paper, figures > explorers

Before them stand ``errors``, ``files`` and ``hub``, behind them ``model_report`` and ``cli``;
``cached`` follows ``extraction``. The public names are loaded when they are first used, so that
importing the kit is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from embvar_kit._version import __version__

_HOMES = {
    "cached": ("cached_statistics",),
    "corpora.corpus": (
        "CORPORA",
        "Corpus",
        "StreamedCorpus",
        "load_corpus",
    ),
    "corpora": (
        "tokens",
        "words",
    ),
    "errors": (
        "CheckpointError",
        "CorpusError",
        "EmbvarError",
        "EmbvarWarning",
        "ExtractionError",
        "ExtractionInterrupted",
        "ModelError",
        "MomentsError",
        "ReleaseError",
        "ReportError",
        "StatisticsError",
        "StatisticsFileError",
        "TrainingError",
    ),
    "explorers": (
        "LayerExplorer",
        "NormalizationBench",
        "SequencePlayer",
        "TradeoffExplorer",
        "VariancePlayground",
    ),
    "extraction.affine": (
        "AffineMoments",
        "affine_moments",
    ),
    "extraction.dimensions": (
        "DimensionMoments",
        "dimension_moments",
    ),
    "extraction.embeddings": (
        "Occurrences",
        "collect_embeddings",
        "sample_embeddings",
    ),
    "extraction.extract": (
        "extract",
        "partial_result",
        "run_plan",
    ),
    "extraction.plan": (
        "Plan",
        "plan",
    ),
    "figures": ("atlas",),
    "files": ("home",),
    "model_report": ("report",),
    "models": ("normalization",),
    "models.bundled": ("fetch",),
    "models.loading": (
        "EmbeddingModel",
        "load_model",
        "untrained",
    ),
    "models.twins": (
        "TWINS",
        "load_twin",
        "twin_losses",
    ),
    "moments.grouped": (
        "GroupedMoments",
        "GroupOrder",
    ),
    "paper": ("release",),
    "paper.reproduction": ("reproduce",),
    "statistics": ("analysis",),
    "statistics.token_statistics": ("TokenStatistics",),
}
"""Where each public name lives: a module, or the folder of a public module."""

_MODULES = ("tokens", "words", "atlas", "figures", "normalization", "release", "analysis")
"""Public names that are modules themselves."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names} | {"figures": ""}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'embvar_kit' has no attribute {name!r}")
    home = ".".join(filter(None, ("embvar_kit", _HOME_OF[name])))
    if name in _MODULES:
        return importlib.import_module(f"{home}.{name}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
