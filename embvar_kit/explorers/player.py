"""The player: Q, M and V of a sequence while its vectors arrive; the end is hidden until asked."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embvar_kit import figures
from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.blitted import BlittedExplorer
from embvar_kit.explorers.controls import checkbox, dropdown, with_class
from embvar_kit.explorers.traits import Independent, Whole, YesOrNo
from embvar_kit.figures.formula import (
    NEAR,
    near_from,
    running_artists,
    running_frame,
    running_path,
)

_SPEEDS = {"slow": 500, "normal": 200, "fast": 40}  # milliseconds a vector


class SequenceState(Independent):
    """A sequence of vectors, how many of them have been seen, and whether the end is shown.

    Args:
        x: ``(N, d)`` vectors.
        values: initial values of the traits.

    Raises:
        StatisticsError: if they are no vectors, or one is not finite.
    """

    k = Whole(1, min=1, help="number of vectors seen")
    answer = YesOrNo(False, help="whether the values after all vectors are shown")
    moments = traitlets.Dict(read_only=True, help="Q, M and V after k vectors")

    def __init__(self, x: np.ndarray, **values: int | bool) -> None:
        if unknown := values.keys() - self.trait_names():
            raise traitlets.TraitError(f"A sequence has no value {min(unknown)!r}.")
        self.x = _vectors(x)
        self.path = running_path(self.x)
        super().__init__(**values)

    def near_from(self) -> dict[str, int]:
        """From which k on Q, M and V stay within a tenth of their values after all vectors."""
        return {name: near_from(values) for name, values in self.path.items()}

    @traitlets.validate("k")
    def _in_range(self, proposal: Mapping) -> int:
        if proposal["value"] > len(self.x):
            raise traitlets.TraitError(f"k={proposal['value']}: there are {len(self.x)} vectors.")
        return proposal["value"]

    @traitlets.default("moments")
    def _initial_moments(self) -> dict[str, float]:
        return figures.moments_of(self.x[: self.k])

    @traitlets.observe("k")
    def _update_moments(self, _: object) -> None:
        self.set_trait("moments", figures.moments_of(self.x[: self.k]))


def _vectors(x: np.ndarray) -> np.ndarray:
    """``(N, d)`` real finite vectors whose squared norms can be added.

    Raises:
        StatisticsError: if they are none.
    """
    wanted = "A sequence is (N, d) finite vectors, at least one of them; "
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise StatisticsError(f"{wanted}these differ in length.") from error
    if x.dtype.kind not in "fiu":
        raise StatisticsError(f"{wanted}this is an array of {x.dtype}, not of real numbers.")
    if x.ndim != 2 or not x.size:
        raise StatisticsError(f"{wanted}this is an array of shape {x.shape}.")
    if not np.isfinite(x).all():
        raise StatisticsError(f"{wanted}this is an array of shape {x.shape} with NaN or infinity.")
    with np.errstate(over="ignore"):
        total = np.square(x, dtype=np.float64).sum()
    if not np.isfinite(total):
        raise StatisticsError(f"{wanted}the squared norms of these are too large for float64.")
    return x


class SequencePlayer(BlittedExplorer):
    """Step through the occurrences of a token, and see Q, M and V grow; the end is hidden at first.

    Args:
        x: ``(N, d)`` embeddings in the order in which they arrive.
        values: initial values of the state, for example ``k=10``.
    """

    link_name = "player"
    size = 7.5, 3.8
    drawn = ("k", "answer")
    shows = "Q, M and V of the first k vectors, against k."

    def __init__(self, x: np.ndarray, **values: int | bool) -> None:
        state = SequenceState(x, **values)
        slider = widgets.IntSlider(
            min=1,
            max=len(state.x),
            description="seen, k",
            tooltip="number of occurrences seen; arrow keys move it",
        )
        player = widgets.Play(
            min=1,
            max=len(state.x),
            interval=_SPEEDS["normal"],
            tooltip="play the sequence",
        )
        slider.value = state.k
        traitlets.link((slider, "value"), (player, "value"))
        speed = dropdown(
            "speed", "embvar-speed", list(_SPEEDS.items()), "how fast it plays", "150px"
        )
        speed.value = _SPEEDS["normal"]
        traitlets.link((speed, "value"), (player, "interval"))
        answer = checkbox(
            "show the end",
            "embvar-answer",
            f"the values after all vectors, each in a band of ±{NEAR:.0%}",
        )
        controls = {"k": slider, "answer": answer}
        before = with_class(player, "embvar-play"), speed
        super().__init__(state, controls, "Q, M and V after each of the vectors", before=before)

    def frame(self, figure: Figure) -> Axes:
        """Axes wide and high enough for the whole sequence."""
        return running_frame(self.state.path, ax=figure.subplots())

    def artists(self, axes: Axes, values: Mapping[str, float]) -> list[Artist]:
        """The curves up to k, and the values that they end at if these are shown."""
        path = self.state.path
        return running_artists(axes, path, int(values["k"]), answer=bool(values["answer"]))

    def _table(self) -> pd.DataFrame:
        # Whoever has not asked for the end does not get it by a file, either.
        state = self.state
        told = len(state.x) if state.answer else state.k
        columns = {name: values[:told] for name, values in state.path.items()}
        return pd.DataFrame({"k": np.arange(1, told + 1), **columns})

    def _shows(self) -> str:
        return f"k{self.state.k}" + ("-end" if self.state.answer else "")

    def _remarks(self) -> list[str]:
        if not self.state.answer:
            return []
        first = ", ".join(f"{name} from k = {k}" for name, k in self.state.near_from().items())
        return [f"within {NEAR:.0%} of the end: {first}"]
