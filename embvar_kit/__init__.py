"""Norm and variance of contextualized embeddings: ``Q = M + V``, token by token, layer by layer.

>>> import numpy as np
>>> import embvar_kit as ek
>>> m = ek.GroupedMoments(n_groups=1, dim=2)
>>> m.update(np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([0, 0]))
>>> float(m.Q[0]), float(m.M[0]), float(m.V[0])
(1.0, 0.5, 0.5)

The modules form a row: ``corpora, checkpoint_file, normalization, models, twins, tokens, words,
means, planning, moments, forwarding, accumulation, analysis, statistics, release, checkpoints,
running, extraction, reproduction, cached, collection, dimensions, affine, drawing, figures, atlas,
explorers, reporting, cli``. Each imports only from those before it. The public names are
loaded when they are first used, so that importing the kit is quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from embvar_kit._version import __version__

_HOMES = {
    "affine": ("AffineMoments", "affine_moments"),
    "analysis": ("analysis",),
    "atlas": ("atlas",),
    "bundled": ("fetch", "home"),
    "collection": ("Occurrences", "collect_embeddings", "sample_embeddings"),
    "corpora": ("CORPORA", "Corpus", "StreamedCorpus", "load_corpus"),
    "dimensions": ("DimensionMoments", "dimension_moments"),
    "errors": (
        "CheckpointError",
        "CorpusError",
        "EmbvarError",
        "EmbvarWarning",
        "ExtractionError",
        "ExtractionInterrupted",
        "ModelError",
        "MomentsError",
        "ReportError",
        "ReleaseError",
        "StatisticsError",
        "StatisticsFileError",
        "TrainingError",
    ),
    "layer_explorer": ("LayerExplorer",),
    "normalization_bench": ("NormalizationBench",),
    "playground": ("SequencePlayer", "VariancePlayground"),
    "tradeoff_explorer": ("TradeoffExplorer",),
    "cached": ("cached_statistics",),
    "extraction": ("extract", "partial_result", "run_plan"),
    "figures": ("figures",),
    "initialization": ("untrained",),
    "models": ("EmbeddingModel", "load_model"),
    "moments": ("GroupedMoments", "GroupOrder"),
    "normalization": ("normalization",),
    "planning": ("Plan", "plan"),
    "reporting": ("report",),
    "release": ("release",),
    "reproduction": ("reproduce",),
    "statistics": ("TokenStatistics",),
    "tokens": ("tokens",),
    "twins": ("TWINS", "load_twin", "twin_losses"),
    "words": ("words",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'embvar_kit' has no attribute {name!r}")
    module = importlib.import_module(f"embvar_kit.{_HOME_OF[name]}")
    return module if name == _HOME_OF[name] else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
