"""Explorers: interactive figures for notebooks.

``explorer.state`` holds values and no widget, and can be set from code or a test;
``explorer.view`` shows them. The two are bound both ways. The numbers come from
:mod:`embvar_kit.statistics`, the drawing from :mod:`embvar_kit.figures`.
"""

from __future__ import annotations

from embvar_kit.explorers.layers import LayerExplorer
from embvar_kit.explorers.linked import LinkedExplorer
from embvar_kit.explorers.normalization import NormalizationBench
from embvar_kit.explorers.player import SequencePlayer
from embvar_kit.explorers.playground import VariancePlayground
from embvar_kit.explorers.tradeoff import TradeoffExplorer

__all__ = [
    "LayerExplorer",
    "LinkedExplorer",
    "NormalizationBench",
    "SequencePlayer",
    "TradeoffExplorer",
    "VariancePlayground",
]
