"""The layer explorer without its widgets: what is chosen, and the decompositions that follow."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import traitlets

from embvar_kit import compaction
from embvar_kit.errors import StatisticsError
from embvar_kit.figures_layers import PARTS_OF
from embvar_kit.statistics import TokenStatistics


class Setting(NamedTuple):
    """All that a picture depends on but the layer."""

    shown: tuple[str, ...]
    of: str
    absolute: bool
    counts: tuple[int, int | None]
    special: bool
    sinks: bool
    unbiased: bool


class LayerState(traitlets.HasTraits):
    """What the layer explorer shows. Values that make no sense are refused.

    Args:
        stats: one model's statistics, or those of several by name.
        values: of the traits.
    """

    shown = traitlets.List(traitlets.Unicode(), minlen=1, help="the models shown")
    of = traitlets.Enum(("Q", "V"), default_value="Q", help="what is split: Q(X) or V(X)")
    absolute = traitlets.Bool(False, help="the parts themselves, not their shares")
    counts = traitlets.Tuple(
        traitlets.Int(min=1),
        traitlets.Int(min=1, allow_none=True),
        default_value=(10, 100_000),
        help="least and most occurrences; None is no limit",
    )
    special = traitlets.Bool(True, help="whether special tokens are in")
    sinks = traitlets.Bool(True, help="whether attention sinks are in")
    unbiased = traitlets.Bool(False, help="without what finite samples add to M and V_B")
    step = traitlets.Int(0, min=0, help="the layer looked at, of the deepest model shown")
    setting = traitlets.Any(read_only=True, help="all that a picture depends on but the step")

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: Any
    ) -> None:
        if isinstance(stats, TokenStatistics):
            stats = {str(stats.info["model"]["name"]): stats}
        if not isinstance(stats, Mapping) or not stats:
            raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
        self.sources = {str(name): one for name, one in stats.items()}
        if not all(isinstance(one, TokenStatistics) for one in self.sources.values()):
            raise StatisticsError("Give TokenStatistics by name: {name: statistics}.")
        self._lock = threading.RLock()
        self._without: dict[str, TokenStatistics] = {}
        self._parts: dict[tuple, pd.DataFrame] = {}
        self._ready = False
        super().__init__(shown=list(self.sources))
        self._ready = True
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"There is no {name!r} to set.")
            setattr(self, name, value)
        self._follow()

    def ranges(self) -> list[tuple[int, int | None]] | None:
        """The ranges of frequency that can be had; ``None`` if any can.

        Compact statistics know a few: see :data:`embvar_kit.compaction.CHOICES`.
        """
        if all(one.decompositions is None for one in self.sources.values()):
            return None
        pairs = [(choice["min_count"], choice["max_count"]) for choice in compaction.CHOICES]
        return list(dict.fromkeys(pairs))

    def relative(self, shown: Sequence[str] | None = None) -> bool:
        """Whether layers stand at their relative depth: where the models shown differ in depth."""
        shown = self.shown if shown is None else shown
        return len({int(self.sources[name].layers[-1]) for name in shown}) > 1

    def depth(self, name: str, shown: Sequence[str] | None = None) -> np.ndarray:
        """``(L,)`` where a model's layers stand, by number or :meth:`relative`."""
        layers = self.sources[name].layers
        if self.relative(shown):
            return layers / max(1, int(layers[-1]))
        return layers.astype(float)

    def steps(self, shown: Sequence[str] | None = None) -> int:
        """How many layers the deepest of the models shown has."""
        shown = self.shown if shown is None else shown
        return max(len(self.sources[name].layers) for name in shown)

    def row(self, name: str, step: int, shown: Sequence[str] | None = None) -> int:
        """The row of the layer of a model that a step stands for: the nearest in depth."""
        number = len(self.sources[name].layers)
        return round(step / max(1, self.steps(shown) - 1) * (number - 1))

    def parts(self, name: str, setting: Setting | None = None) -> pd.DataFrame:
        """The decomposition of a model: ``layer, Q, M, V, V_W, V_B``, a row a layer.

        Computed once for each choice of tokens.
        """
        setting = self.setting if setting is None else setting
        key = (name, setting.counts, setting.special, setting.sinks, setting.unbiased)
        with self._lock:
            if key not in self._parts:
                one = self.sources[name] if setting.sinks else self.without_sinks(name)
                self._parts[key] = one.decomposition(
                    min_count=setting.counts[0],
                    max_count=setting.counts[1],
                    special=setting.special,
                    unbiased=setting.unbiased,
                )
            return self._parts[key]

    def without_sinks(self, name: str) -> TokenStatistics:
        """A model's statistics without its attention sinks, if it has any."""
        with self._lock:
            if name not in self._without:
                one = self.sources[name]
                sinks = one.sinks()["token"]
                self._without[name] = one.without(sinks) if len(sinks) else one
            return self._without[name]

    def numbers(self, step: int | None = None, setting: Setting | None = None) -> pd.DataFrame:
        """A row a model shown: ``layer``, Q, M, V, V_W and V_B, and the shares of what is split.

        Shares are named ``M/Q`` and so on.
        """
        setting = self.setting if setting is None else setting
        step = self.step if step is None else step
        lines = []
        for name in setting.shown:
            row = self.parts(name, setting).iloc[self.row(name, step, setting.shown)]
            shares = {
                f"{part}/{setting.of}": row[part] / row[setting.of] for part in PARTS_OF[setting.of]
            }
            lines.append({"model": name, **row.to_dict(), "layer": int(row["layer"]), **shares})
        return pd.DataFrame(lines).set_index("model")

    @traitlets.validate("shown")
    def _known(self, proposal: Mapping) -> list[str]:
        value = proposal["value"]
        if absent := [name for name in value if name not in self.sources]:
            raise traitlets.TraitError(
                f"There is no model {absent[0]!r} here, only {', '.join(self.sources)}."
            )
        value = [name for name in self.sources if name in value]
        if self._ready:
            self._check(shown=value)
        return value

    @traitlets.validate("counts", "special", "sinks", "unbiased")
    def _possible(self, proposal: Mapping) -> Any:
        if self._ready:
            self._check(**{proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @traitlets.validate("step")
    def _in_range(self, proposal: Mapping) -> int:
        if self._ready and proposal["value"] >= self.steps():
            raise traitlets.TraitError(
                f"step={proposal['value']}: the models shown have {self.steps()} layers at most."
            )
        return proposal["value"]

    def _check(self, **changed: Any) -> None:
        """Refuse what cannot be computed, before it is computed."""
        now = {name: getattr(self, name) for name in Setting._fields if name != "of"}
        setting = {**now, **changed}
        least, most = setting["counts"]
        try:
            if setting["unbiased"] and least < 2:
                raise StatisticsError(
                    "The correction needs two occurrences of a token: raise the range to 2."
                )
            for name in setting["shown"]:
                one = self.sources[name] if setting["sinks"] else self.without_sinks(name)
                choice = {"min_count": least, "max_count": most, "special": setting["special"]}
                if one.decompositions is not None:
                    try:
                        one.decomposition(**choice, unbiased=setting["unbiased"])
                    except StatisticsError as error:
                        raise StatisticsError(
                            f"The statistics of {name} are compact: they hold the decompositions "
                            "of a few choices of tokens, and this is none of them."
                        ) from error
                elif one.table(int(one.layers[0]), **choice).empty:
                    raise StatisticsError(f"No token of {name} is in this range: widen it.")
        except StatisticsError as error:
            raise traitlets.TraitError(str(error)) from error

    @traitlets.observe(*Setting._fields)
    def _changed(self, _: object) -> None:
        if self._ready:
            self._follow()

    def _follow(self) -> None:
        if self.step >= self.steps():
            self.step = self.steps() - 1
        values = {name: getattr(self, name) for name in Setting._fields}
        self.set_trait("setting", Setting(**{**values, "shown": tuple(self.shown)}))
