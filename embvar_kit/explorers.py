"""The explorers' door: figures to play with.

``explorer.state`` holds values and no widget, and can be set from code or a test;
``explorer.view`` shows them. The two are tied both ways. The mathematics is elsewhere.
"""

from __future__ import annotations

from embvar_kit.layer_explorer import LayerExplorer
from embvar_kit.normalization_bench import NormalizationBench
from embvar_kit.playground import SequencePlayer, VariancePlayground
from embvar_kit.tradeoff_explorer import TradeoffExplorer

__all__ = [
    "LayerExplorer",
    "NormalizationBench",
    "SequencePlayer",
    "TradeoffExplorer",
    "VariancePlayground",
]
