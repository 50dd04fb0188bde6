"""State of one panel of the linked explorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import traitlets

from embvar_kit.explorers.columns import COUNT
from embvar_kit.explorers.points import Points, Statistics
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.statistics.token_statistics import TokenStatistics


class _NotHere(traitlets.TraitType):
    """A value of the trade-off explorer that a panel leaves as it is."""

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse another value than the default one."""
        if type(value) is not type(self.default_value) or value != self.default_value:
            raise traitlets.TraitError(
                f"{self.name}={value!r}: a panel of the linked explorer does not take "
                f"{self.name!r}; use TradeoffExplorer for it."
            )
        return value


class PanelState(TradeoffState):
    """One of two panels: a trade-off whose tokens may be restricted to those in the other, too.

    A panel takes ``model``, ``site``, ``layer`` and ``marked``. What both panels share is set in
    :class:`embvar_kit.explorers.linked_state.LinkedState`: ``counts``, ``special``, ``unbiased``,
    ``scales`` and ``search``. Of what else the trade-off explorer takes, the pair does not know:
    it is refused.

    Attributes:
        common: gives the tokens of a choice that are in both panels; ``None`` shows all.
    """

    sinks = _NotHere(True)
    only = _NotHere(None, allow_none=True)
    null = _NotHere(False)
    colour_by = _NotHere(COUNT)
    shaded = _NotHere(False)
    compare = _NotHere(None, allow_none=True)
    distance = _NotHere("units")

    def __init__(self, stats: Statistics, **values: object) -> None:
        self.common: Callable[[], tuple[Points, Points] | None] | None = None
        self.side = 0
        super().__init__(stats, **values)

    @property
    def whole(self) -> Points:
        """The tokens of this panel's choice, those that the other lacks included."""
        return super().points

    @property
    def points(self) -> Points:
        """The tokens shown, at all layers."""
        both = self.common() if self.common is not None else None
        return self.whole if both is None else both[self.side]

    def depth(self, layer: int | None = None) -> float:
        """A layer's relative depth: 0 is the embedding layer's output, 1 the last state."""
        layer = self.layer if layer is None else layer
        return layer / max(1, _last(self.stats))

    def nearest(self, depth: float) -> int:
        """The layer that is nearest to a relative depth."""
        layers = self.stats.layers
        return int(layers[np.abs(layers / max(1, _last(self.stats)) - depth).argmin()])

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Set values without validating or drawing them; the caller does both."""
        self.settled = False
        try:
            yield
        finally:
            self.settled = True

    @property
    def known(self) -> set[str]:
        """All tokens of the statistics shown."""
        return self._known

    def fitting_scales(self) -> str:
        """The axes that the statistics shown need."""
        return self._fitting_scales()

    def redraw(self) -> None:
        """Fit and draw the points of now."""
        self._update_fit()

    def forget_vocabulary(self) -> None:
        """Other tokens are shown: indices of an earlier search are of no use."""
        self._vocabulary_of.cache_clear()


def _last(stats: TokenStatistics) -> int:
    """The number of a model's last state, whether or not it was measured."""
    states = stats.info.get("model", {}).get("n_states")
    return int(states) - 1 if states else int(stats.layers[-1])


def take(points: Points, rows: np.ndarray) -> Points:
    """Some of the tokens, in their order."""
    if len(rows) == len(points.n):
        return points
    of_tokens = {one.name for one in fields(points)} - {"layers"}  # (T,) or (L, T)
    return replace(points, **{name: getattr(points, name)[..., rows] for name in of_tokens})
