"""State of the layer explorer, without widgets: the choices, and the decompositions they give."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import traitlets

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.points import rarest_text, usual_counts
from embvar_kit.explorers.tables import times
from embvar_kit.explorers.traits import Counts, Whole, YesOrNo
from embvar_kit.figures.layers import PARTS_OF
from embvar_kit.statistics.compaction import CHOICES
from embvar_kit.statistics.token_statistics import TokenStatistics


class Setting(NamedTuple):
    """Everything that a picture depends on except the layer."""

    shown: tuple[str, ...]
    of: str
    absolute: bool
    counts: tuple[int, int | None]
    special: bool
    sinks: bool
    unbiased: bool


class LayerState(traitlets.HasTraits):
    """What the layer explorer shows. Invalid values are rejected.

    Args:
        stats: one model's statistics, or those of several models by name.
        values: initial values of the traits.

    Raises:
        StatisticsError: if ``stats`` is something else, or empty.
        traitlets.TraitError: if a value is invalid, at the start or later.
    """

    shown = traitlets.List(traitlets.Unicode(), minlen=1, help="the models shown")
    of = traitlets.Enum(("Q", "V"), default_value="Q", help="what is split: Q(X) or V(X)")
    absolute = YesOrNo(False, help="show the parts themselves, not their shares")
    counts = Counts(help="least and most occurrences; None means no limit")
    special = YesOrNo(True, help="whether special tokens are included")
    sinks = YesOrNo(True, help="whether high-norm tokens are included")
    unbiased = YesOrNo(False, help="subtract the finite-sample bias of M and V_B")
    step = Whole(0, min=0, help="index of the selected layer in the deepest model shown")
    setting = traitlets.Instance(
        Setting, read_only=True, help="everything that a picture depends on except the step"
    )

    def __init__(
        self, stats: TokenStatistics | Mapping[str, TokenStatistics], **values: object
    ) -> None:
        if isinstance(stats, TokenStatistics):
            stats = {str(stats.info["model"]["name"]): stats}
        if not isinstance(stats, Mapping) or not stats:
            raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
        self.sources = {str(name): one for name, one in stats.items()}
        if not all(isinstance(one, TokenStatistics) for one in self.sources.values()):
            raise StatisticsError("Give TokenStatistics by name: {name: statistics}.")
        self._lock = threading.RLock()  # pictures are drawn in a thread
        self._without: dict[str, TokenStatistics] = {}
        self._parts: dict[tuple, pd.DataFrame] = {}
        self._ready = False
        super().__init__(shown=list(self.sources))
        self._ready = True
        if "counts" not in values:
            self._begin_with_tokens(unbiased=bool(values.get("unbiased")))
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"The layer explorer has no value {name!r}.")
            setattr(self, name, value)
        self._update_setting()

    def _begin_with_tokens(self, *, unbiased: bool) -> None:
        """Begin with the usual range, or in a small text with any number of occurrences."""
        with suppress(traitlets.TraitError):  # compact statistics may not hold it
            self.counts = usual_counts(*self.sources.values(), unbiased=unbiased)

    def ranges(self) -> list[tuple[int, int | None]] | None:
        """The ranges of frequency on offer; ``None`` if any range can be computed.

        Compact statistics hold a few: see :data:`embvar_kit.statistics.compaction.CHOICES`.
        """
        if all(one.decompositions is None for one in self.sources.values()):
            return None
        pairs = [(choice["min_count"], choice["max_count"]) for choice in CHOICES]
        return list(dict.fromkeys(pairs))

    def least_count(self) -> int:
        """The least number of occurrences at which a range may begin: all models shown know it."""
        return max(self.sources[name].least_count for name in self.shown)

    def relative(self, shown: Sequence[str] | None = None) -> bool:
        """Whether layers are drawn at their relative depth: if the models shown differ in depth."""
        shown = self.shown if shown is None else shown
        return len({int(self.sources[name].layers[-1]) for name in shown}) > 1

    def depth(self, name: str, shown: Sequence[str] | None = None) -> np.ndarray:
        """``(L,)`` positions of a model's layers: their numbers, or relative depths in 0 to 1."""
        layers = self.sources[name].layers
        if self.relative(shown):
            return layers / max(1, int(layers[-1]))
        return layers.astype(float)

    def steps(self, shown: Sequence[str] | None = None) -> int:
        """How many layers the deepest of the models shown has."""
        shown = self.shown if shown is None else shown
        return max(len(self.sources[name].layers) for name in shown)

    def row(self, name: str, step: int, shown: Sequence[str] | None = None) -> int:
        """The row of a model's layer that is nearest in relative depth to a step."""
        number = len(self.sources[name].layers)
        return round(step / max(1, self.steps(shown) - 1) * (number - 1))

    def parts(self, name: str, setting: Setting | None = None) -> pd.DataFrame:
        """The decomposition of a model: ``layer, Q, M, V, V_W, V_B``, one row per layer.

        It is computed once for each choice of tokens.
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
        """A model's statistics without its high-norm tokens, if it has any."""
        with self._lock:
            if name not in self._without:
                one = self.sources[name]
                high = one.high_norm()["token"]
                self._without[name] = one.without(high) if len(high) else one
            return self._without[name]

    def numbers(self, step: int | None = None, setting: Setting | None = None) -> pd.DataFrame:
        """The numbers of the selected layer, one row per model shown.

        Columns ``layer, Q, M, V, V_W, V_B``, then the shares of the total, such as ``M/Q``.
        """
        setting = self.setting if setting is None else setting
        step = self.step if step is None else step
        lines = []
        for name in setting.shown:
            row = self.parts(name, setting).iloc[self.row(name, step, setting.shown)]
            whole = row[setting.of] or np.nan
            shares = {f"{part}/{setting.of}": row[part] / whole for part in PARTS_OF[setting.of]}
            lines.append({"model": name, **row.to_dict(), "layer": int(row["layer"]), **shares})
        return pd.DataFrame(lines).set_index("model")

    def table(self) -> pd.DataFrame:
        """The numbers of all layers: ``model, layer, Q, M, V, V_W, V_B``, then the shares."""
        tables = []
        for name in self.setting.shown:
            parts = self.parts(name, self.setting)
            whole = self.setting.of
            shares = {f"{part}/{whole}": parts[part] / parts[whole] for part in PARTS_OF[whole]}
            table = parts.assign(**shares)
            table.insert(0, "model", name)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""
        return {name: getattr(self, name) for name in (*Setting._fields, "step")}

    def restore(self, **values: Any) -> None:
        """Set several values at once; if they are not valid together, all stays as it is.

        A value that is not named stays, too. Only a step beyond the layers of the models shown goes
        to their last.

        Raises:
            traitlets.TraitError: if a value is invalid or unknown, or they do not go together.
        """
        before = self.values()
        if unknown := [name for name in values if name not in before]:
            raise traitlets.TraitError(f"There is no value {unknown[0]!r} to restore.")
        wanted = {name: self._typed(name, value) for name, value in {**before, **values}.items()}
        wanted["shown"] = self._known({"value": wanted["shown"]}, alone=True)
        self._check(**{name: wanted[name] for name in Setting._fields if name != "of"})
        if "step" not in values:
            wanted["step"] = min(wanted["step"], self.steps(wanted["shown"]) - 1)
        self._check_step(wanted["step"], wanted["shown"])
        self._ready = False
        try:
            for name, value in wanted.items():
                setattr(self, name, value)
        finally:
            self._ready = True
        self._update_setting()

    def _typed(self, name: str, value: Any) -> Any:
        """A value as its trait takes it, whatever the others are."""
        return self.traits()[name].validate(self, value)

    @traitlets.validate("shown")
    def _known(self, proposal: Mapping, *, alone: bool = False) -> list[str]:
        value = proposal["value"]
        if absent := [name for name in value if name not in self.sources]:
            raise traitlets.TraitError(
                f"There is no model {absent[0]!r} here, only {', '.join(self.sources)}."
            )
        value = [name for name in self.sources if name in value]
        if self._ready and not alone:
            self._check(shown=value)
        return value

    @traitlets.validate("counts", "special", "sinks", "unbiased")
    def _computable(self, proposal: Mapping) -> tuple[int, int | None] | bool:
        if self._ready:
            self._check(**{proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @traitlets.validate("step")
    def _in_range(self, proposal: Mapping) -> int:
        if self._ready:
            self._check_step(proposal["value"], self.shown)
        return proposal["value"]

    def _check_step(self, step: int, shown: Sequence[str]) -> None:
        if step >= self.steps(shown):
            raise traitlets.TraitError(
                f"step={step}: the models shown have at most {self.steps(shown)} layers."
            )

    def _check(self, **changed: object) -> None:
        """Reject a setting that cannot be computed, before it is drawn."""
        current = {name: getattr(self, name) for name in Setting._fields if name != "of"}
        setting = {**current, **changed}
        least, most = setting["counts"]
        try:
            if setting["unbiased"] and least < 2:
                raise StatisticsError(
                    "The unbiased forms need two occurrences of each token: start the range at 2."
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
                            "of a few choices of tokens only, and this one is not among them."
                        ) from error
                elif least < one.least_count:
                    raise StatisticsError(rarest_text(one.least_count))
                elif one.table(int(one.layers[0]), **choice).empty:
                    raise StatisticsError(f"No token of {name} occurs {times((least, most))}.")
        except StatisticsError as error:
            kept = f" The range stays: {times(self.counts)}." if "counts" in changed else ""
            raise traitlets.TraitError(f"{error}{kept}") from error

    @traitlets.observe(*Setting._fields)
    def _change(self, _: object) -> None:
        if self._ready:
            self._update_setting()

    def _update_setting(self) -> None:
        if self.step >= self.steps():
            self.step = self.steps() - 1
        values = {name: getattr(self, name) for name in Setting._fields}
        self.set_trait("setting", Setting(**{**values, "shown": tuple(self.shown)}))
