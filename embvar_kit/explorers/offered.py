"""What controls offer: the layers and sites of the model shown, which may be another one.

A control whose options are replaced chooses the first of them by itself. These functions are the
``to_control`` of :func:`embvar_kit.explorers.base.bind`, which tells the state of no change that
they make.
"""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from embvar_kit.explorers.controls import CountsSlider
from embvar_kit.explorers.tradeoff_state import TradeoffState


def offer_layers(state: TradeoffState, slider: widgets.IntSlider, layer: int) -> int:
    """Let a slider span the layers of the model shown; return the layer."""
    first, last = int(state.stats.layers[0]), int(state.stats.layers[-1])
    if (slider.min, slider.max) != (first, last):
        # The buttons that play are linked to the slider. Were the ends set first, they would move
        # a layer that is outside to the last one, and the slider with them.
        slider.min, slider.max = min(slider.min, first), max(slider.max, last)
        slider.value = int(np.clip(layer, first, last))
        slider.min, slider.max = first, last
    return layer


def offer_counts(
    state: TradeoffState, slider: CountsSlider, counts: tuple[int, int | None]
) -> tuple[int, int | None]:
    """Let a slider begin at the least count that is known of the model shown; return the range."""
    return slider.admit(counts, state.stats.least_count)


def offer_sites(state: TradeoffState, sites: widgets.Dropdown, site: str) -> str:
    """Let a list offer the sites of the model shown; return the site."""
    if sites.options != tuple(offered := state.sources[state.model]):
        sites.options = list(offered)
    return site
