"""Figures to play with: each explorer keeps its state apart from its widgets.

``explorer.state`` holds values and no widget, and can be set from code or a test;
``explorer.view`` shows them. The two are linked both ways. The mathematics is elsewhere.
"""

from __future__ import annotations

import abc
import base64
import io
from collections.abc import Callable, Mapping

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from matplotlib.figure import Figure

from embvar_kit import figures

_LIMIT = 5.0


class CloudState(traitlets.HasTraits):
    """A 2-D cloud: where its mean is, how far it spreads, how many vectors it has.

    Its :attr:`moments` follow whatever is set. Values out of range are refused.
    """

    mean_1 = traitlets.Float(2.0, min=-3.0, max=3.0, help="mean of feature 1")
    mean_2 = traitlets.Float(1.0, min=-3.0, max=3.0, help="mean of feature 2")
    spread_1 = traitlets.Float(0.8, min=0.0, max=2.0, help="standard deviation of feature 1")
    spread_2 = traitlets.Float(0.4, min=0.0, max=2.0, help="standard deviation of feature 2")
    n = traitlets.Int(300, min=2, max=2000, help="number of vectors")
    seed = traitlets.Int(0, min=0, help="of the draw")
    moments = traitlets.Dict(read_only=True, help="Q, M and V of the cloud")

    @traitlets.default("moments")
    def _first_moments(self) -> dict[str, float]:
        return figures.moments_of(self.cloud())

    @traitlets.observe("mean_1", "mean_2", "spread_1", "spread_2", "n", "seed")
    def _follow(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.cloud()))

    def cloud(self) -> np.ndarray:
        """``(n, 2)`` vectors: normal, standardized so that mean and spread are those set."""
        noise = np.random.default_rng(self.seed).normal(size=(self.n, 2))
        noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
        return np.array([self.mean_1, self.mean_2]) + noise * [self.spread_1, self.spread_2]


class SequenceState(traitlets.HasTraits):
    """A sequence of vectors and how many of them have been seen."""

    k = traitlets.Int(1, min=1, help="vectors seen")
    moments = traitlets.Dict(read_only=True, help="Q, M and V after k vectors")

    def __init__(self, x: np.ndarray, **values: int) -> None:
        self.x = np.asarray(x)
        super().__init__(**values)

    @traitlets.validate("k")
    def _in_range(self, proposal: Mapping) -> int:
        if proposal["value"] > len(self.x):
            raise traitlets.TraitError(f"k={proposal['value']}: there are {len(self.x)} vectors.")
        return proposal["value"]

    @traitlets.default("moments")
    def _first_moments(self) -> dict[str, float]:
        return figures.moments_of(self.x[: self.k])

    @traitlets.observe("k")
    def _follow(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.x[: self.k]))


class _Explorer(abc.ABC):
    """Sliders beside a picture of the state; subclasses say which sliders and which picture."""

    def __init__(self, state: traitlets.HasTraits, controls: Mapping[str, widgets.Widget]) -> None:
        self.state = state
        self._picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self._numbers = widgets.Label()
        for name, control in controls.items():
            traitlets.link((state, name), (control, "value"))
        self._draw()
        # After the state's own observers, so that its moments are up to date; not on the moments
        # themselves, which may stay the same while the cloud moves.
        state.observe(lambda _: self._draw(), list(controls))
        rows = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
        self.view = widgets.VBox([rows, self._picture, self._numbers])

    def _draw(self) -> None:
        self._picture.value = _png(self.figure)
        self._numbers.value = "   ".join(
            f"{name} = {value:.3f}" for name, value in self.state.moments.items()
        )

    @abc.abstractmethod
    def figure(self) -> Figure:
        """The picture of the present state."""

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        """The widget, and its picture for readers of a page without a kernel."""
        bundle = self.view._repr_mimebundle_(**options)
        bundle["image/png"] = base64.b64encode(self._picture.value).decode()
        bundle["text/plain"] = f"{type(self).__name__}: its sliders need a running notebook"
        return bundle


class VariancePlayground(_Explorer):
    """Move the mean and the spread of a cloud, and watch ``Q = M + V`` hold.

    >>> playground = VariancePlayground()
    >>> playground.state.mean_1, playground.state.mean_2 = 3.0, 0.0
    >>> {name: round(value, 2) for name, value in playground.state.moments.items()}
    {'Q': 9.8, 'M': 9.0, 'V': 0.8}
    """

    def __init__(self) -> None:
        state = CloudState()
        slide = {"continuous_update": True, "step": 0.1}
        controls = {
            name: widgets.FloatSlider(min=-3, max=3, description=text, **slide)
            for name, text in (("mean_1", "mean 1"), ("mean_2", "mean 2"))
        }
        for name, text in (("spread_1", "spread 1"), ("spread_2", "spread 2")):
            controls[name] = widgets.FloatSlider(min=0, max=2, description=text, **slide)
        super().__init__(state, controls)

    def figure(self) -> Figure:
        """The figure of :func:`embvar_kit.figures.variance_formula`, on fixed scales."""
        return figures.variance_formula(self.state.cloud(), limit=_LIMIT)


class SequencePlayer(_Explorer):
    """Step through the occurrences of a token, and watch Q, M and V settle.

    Args:
        x: ``(N, d)`` embeddings in the order in which they arrive.
    """

    def __init__(self, x: np.ndarray) -> None:
        state = SequenceState(x)
        slider = widgets.IntSlider(min=1, max=len(state.x), description="seen, k")
        player = widgets.Play(min=1, max=len(state.x), interval=200)
        traitlets.link((player, "value"), (slider, "value"))
        super().__init__(state, {"k": slider})
        self.view.children = (player, *self.view.children)

    def figure(self) -> Figure:
        """The figure of :func:`embvar_kit.figures.running_moments`, marked at the present step."""
        return figures.running_moments(self.state.x, upto=self.state.k).figure


def _png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure off screen: a notebook's inline backend would show it a second time."""
    with plt.ioff():
        figure = draw()
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=90)
        plt.close(figure)
    return data.getvalue()
