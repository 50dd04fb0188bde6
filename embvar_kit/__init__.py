"""Norm and variance of contextualized embeddings: ``Q = M + V``, token by token, layer by layer.

>>> import numpy as np
>>> import embvar_kit as ek
>>> m = ek.GroupedMoments(n_groups=1, dim=2)
>>> m.update(np.array([[1, 0], [0, 1]], dtype=np.float32), np.array([0, 0]))
>>> float(m.Q[0]), float(m.M[0]), float(m.V[0])
(1.0, 0.5, 0.5)

The folders spell the pipeline; each imports only from those before it::

    corpora > models > moments > statistics > extraction > paper, figures > explorers

Before them stand ``errors``, ``files``, ``threads`` and ``hub``, behind them ``model_report`` and
``cli``; ``cached`` and ``twin_seeds`` follow ``extraction``. The public names are loaded when they
are first used, so that importing the kit is quick. Importing it does one thing more: it says in the
environment, where nothing is said there, that threads of PyTorch which wait shall sleep
(``threads``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from embvar_kit import threads as _threads
from embvar_kit._version import __version__

if TYPE_CHECKING:  # for editors and type checkers; __getattr__ does it when a name is used
    from embvar_kit import figures
    from embvar_kit.cached import cached_statistics
    from embvar_kit.corpora import tokens, words
    from embvar_kit.corpora.corpus import Corpus
    from embvar_kit.corpora.load import CORPORA, load_corpus
    from embvar_kit.corpora.parts import StreamedCorpus
    from embvar_kit.errors import (
        CheckpointError,
        CorpusError,
        EmbvarError,
        EmbvarWarning,
        ExtractionError,
        ExtractionInterrupted,
        ModelError,
        MomentsError,
        ReleaseError,
        ReportError,
        StatisticsError,
        StatisticsFileError,
        TrainingError,
    )
    from embvar_kit.explorers import (
        LayerExplorer,
        LinkedExplorer,
        NormalizationBench,
        SequencePlayer,
        TradeoffExplorer,
        VariancePlayground,
    )
    from embvar_kit.extraction.affine import AffineMoments, affine_moments
    from embvar_kit.extraction.dimensions import DimensionMoments, dimension_moments
    from embvar_kit.extraction.embeddings import Occurrences, collect_embeddings, sample_embeddings
    from embvar_kit.extraction.extract import extract, partial_result, run_plan
    from embvar_kit.extraction.leave_out import LeaveOut
    from embvar_kit.extraction.norms import find_bounds, position_profile
    from embvar_kit.extraction.plan import Plan, plan
    from embvar_kit.extraction.shards import ShardedPass
    from embvar_kit.figures import atlas
    from embvar_kit.files import home
    from embvar_kit.model_report import report
    from embvar_kit.models import normalization
    from embvar_kit.models.bundled import fetch
    from embvar_kit.models.loading import EmbeddingModel, load_model, untrained
    from embvar_kit.models.twins import TWINS, load_twin, twin_losses
    from embvar_kit.moments.grouped import GroupedMoments, GroupOrder
    from embvar_kit.paper import release
    from embvar_kit.paper.reproduction import reproduce
    from embvar_kit.statistics import analysis, measures
    from embvar_kit.statistics.token_statistics import TokenStatistics
    from embvar_kit.twin_seeds import compare_twins, twin_tradeoffs

_HOMES = {
    "cached": ("cached_statistics",),
    "corpora.corpus": ("Corpus",),
    "corpora.load": (
        "CORPORA",
        "load_corpus",
    ),
    "corpora.parts": ("StreamedCorpus",),
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
        "LinkedExplorer",
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
    "extraction.leave_out": ("LeaveOut",),
    "extraction.norms": (
        "find_bounds",
        "position_profile",
    ),
    "extraction.plan": (
        "Plan",
        "plan",
    ),
    "extraction.shards": ("ShardedPass",),
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
    "statistics": (
        "analysis",
        "measures",
    ),
    "statistics.token_statistics": ("TokenStatistics",),
    "twin_seeds": ("compare_twins", "twin_tradeoffs"),
}
"""Where each public name lives: a module, or the folder of a public module."""

_MODULES = (
    "tokens",
    "words",
    "atlas",
    "figures",
    "normalization",
    "release",
    "analysis",
    "measures",
)
"""Public names that are modules themselves."""

_threads.sleep_soon()
_threads.agree()

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
