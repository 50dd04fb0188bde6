"""State of the linked explorer, without widgets: two panels, and what ties them together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import traitlets

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.linked_panel import PanelState, take
from embvar_kit.explorers.matching import Match, match
from embvar_kit.explorers.points import Points, Statistics, by_name, points_of, usual_counts
from embvar_kit.explorers.search import counted
from embvar_kit.explorers.tables import times
from embvar_kit.explorers.traits import AllOrNothing, Counts, YesOrNo

SIDES = ("left", "right")

_COMMON = ("counts", "special", "unbiased", "scales")  # the same in both panels
_OWN = ("model", "site", "layer")  # each panel's own
_SWITCHES = ("together", "same_depth")
# The widest choice, in which any range is valid that has tokens.
_WIDEST = {"special": True, "unbiased": False}
_DEMANDING = ("same", "own", "log")  # kinds of axes, from the least demanding statistics on

Pairs = tuple[np.ndarray, np.ndarray]
"""``(K,)`` indices of the same tokens, at the left and at the right."""


class LinkedState(AllOrNothing, traitlets.HasTraits):
    """What the linked explorer shows. Invalid values are rejected.

    Args:
        stats: one model's statistics, several by name, or ``{name: {site: statistics}}``.
        left, right: initial ``model``, ``site`` and ``layer`` of the panels. By default, of
            several models the first two at their middle layers, of one its middle and last layer.
        values: initial values of the traits.

    Attributes:
        left, right: the panels, see
            :class:`embvar_kit.explorers.tradeoff_state.TradeoffState`.

    Raises:
        StatisticsError: if ``stats`` is something else or empty, or no token is in range.
        traitlets.TraitError: if a value is invalid, at the start or later.
    """

    counts = Counts(help="least and most occurrences, in each panel; None means no limit")
    special = YesOrNo(True, help="whether special tokens are shown")
    unbiased = YesOrNo(False, help="whether M and V are corrected for finite samples")
    scales = traitlets.Enum(
        _DEMANDING, help="axes: same for all layers, each layer's own, or logarithmic"
    )
    together = YesOrNo(True, help="show only the tokens that are in both panels")
    same_depth = YesOrNo(False, help="keep both panels at the same relative depth")
    search = traitlets.Unicode("", help="tokens, their beginnings (stat*) or ends (*ing)")
    marked = traitlets.List(
        read_only=True, help="(left, right) names of the marked tokens; None where there is none"
    )
    drawn = traitlets.Int(0, read_only=True, help="grows by one whenever the points change")

    def __init__(
        self,
        stats: Statistics,
        *,
        left: Mapping[str, Any] | None = None,
        right: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        self._busy = True
        self._match_of = lru_cache(maxsize=8)(self._make_match)
        self._both: tuple[tuple[Points, Points], tuple[Points, Points] | None] | None = None
        self._paired: tuple[tuple[Points, Points], Pairs] | None = None
        self._ranked: dict[tuple[int, int, str], np.ndarray] = {}
        super().__init__()
        self.sources = by_name(stats)
        for name in values:
            if name not in (*_COMMON, *_SWITCHES):
                raise traitlets.TraitError(f"The linked explorer has no value {name!r}.")
        models = list(self.sources)
        own = {"left": dict(left or {}), "right": dict(right or {})}
        own["left"].setdefault("model", models[0])
        own["right"].setdefault("model", models[1] if len(models) > 1 else models[0])
        for side, given in own.items():
            if unknown := [name for name in given if name not in _OWN]:
                raise traitlets.TraitError(f"The {side} panel has no value {unknown[0]!r}.")
        common = {name: values[name] for name in _COMMON if name in values}
        self.left, self.right = (PanelState(stats, **{**common, **own[side]}) for side in SIDES)
        self.right.side = 1
        one_view = all(getattr(self.left, n) == getattr(self.right, n) for n in ("model", "site"))
        if one_view and "layer" not in own["right"]:
            self.right.layer = int(self.right.stats.layers[-1])
        for panel in self.panels:
            panel.common = self._common
        self.special = values.get("special", True)
        self.unbiased = values.get("unbiased", False)
        self.counts = values.get("counts", self._widest())
        self.scales = values.get("scales", self._fitting_scales())
        self.together = values.get("together", True)
        self.same_depth = values.get("same_depth", False)
        self._busy = False
        for panel in self.panels:
            panel.observe(self._adapt_to_statistics, ["model", "site"])
            panel.observe(self._follow, "layer")
            panel.observe(self._carry_marks, "marked")
            panel.observe(lambda _: self._count_drawing(), "drawn")
        self._check()
        self._apply()
        if self.same_depth:
            self.right.layer = self.right.nearest(self.left.depth())

    @property
    def panels(self) -> tuple[PanelState, PanelState]:
        """The left and the right panel."""
        return self.left, self.right

    @property
    def match(self) -> Match:
        """The tokens that the statistics of the two panels share."""
        left, right = self.panels
        return self._match_of(left.model, left.site, right.model, right.site)

    def partners(self) -> tuple[np.ndarray, np.ndarray]:
        """For each point shown at the left, its index at the right, and the reverse; else -1."""
        left, right = (panel.points for panel in self.panels)
        here, there = self._pairs_shown()
        to_right, to_left = (np.full(len(one.n), -1, dtype=np.int32) for one in (left, right))
        to_right[here], to_left[there] = there, here
        return to_right, to_left

    def rank_correlations(self) -> dict[str, float]:
        """Spearman's correlation between the panels of Q, of M and of V, over the tokens in both.

        NaN where a value is constant over them, or there are fewer than three of them.
        """
        ranks = [self._ranks(side) for side in (0, 1)]
        found = {}
        for name in "QMV":
            a, b = (one[name] for one in ranks)
            defined = len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
            found[name] = float(np.corrcoef(a, b)[0, 1]) if defined else float("nan")
        return found

    def count_in_both(self) -> int:
        """How many tokens are in the range of both panels."""
        return len(self._pairs_shown()[0])

    def count_of(self, side: int) -> int:
        """How many tokens are in a panel's range, shown or not."""
        return len(self.panels[side].whole.n)

    def least_count(self) -> int:
        """The least number of occurrences at which a range may begin: both panels know it."""
        return max(panel.stats.least_count for panel in self.panels)

    def table(self) -> pd.DataFrame:
        """The marked tokens: ``model, site, layer, token, n, Q, M, V``, of each panel.

        The names of the columns end in ``_left`` and ``_right``. A token that a panel lacks, or
        that is outside its range, has no values there.
        """
        parts = []
        for at_side, (side, panel) in enumerate(zip(SIDES, self.panels, strict=True)):
            points, at = panel.points, panel.points.at(panel.layer)
            names = [pair[at_side] for pair in self.marked]
            rows = points.rows_of(names)
            present = rows >= 0
            part = pd.DataFrame(
                {name: getattr(panel, name) for name in _OWN}, index=range(len(rows))
            )
            part["token"] = pd.Series(names, dtype=object)
            part["n"] = pd.Series(points.n[rows], dtype="Int64").where(present)
            for name in "QMV":
                part[name] = np.where(present, getattr(points, name)[at][rows], np.nan)
            parts.append(part.add_suffix(f"_{side}"))
        return pd.concat(parts, axis=1)

    def mark(self, tokens: list[str | tuple[str | None, str | None]]) -> None:
        """Mark tokens in both panels.

        Args:
            tokens: names, as either panel has them; or pairs ``(left, right)``.

        Raises:
            traitlets.TraitError: if neither panel has a token of this name, or a pair is not the
                same token in both.
        """
        self._mark_pairs([self._pair(token) for token in tokens])

    def search_report(self) -> str:
        """What the search found besides a token itself, and what it did not find; may be empty."""
        told = [panel.search_report() for panel in self.panels]
        if told[0] == told[1]:
            return told[0]
        both = zip(SIDES, told, strict=True)
        return " ".join(f"{side.capitalize()}: {text}" for side, text in both if text)

    def clear(self) -> None:
        """Remove all marks."""
        self.search = ""
        self._mark_pairs([])

    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""
        found: dict[str, Any] = {name: getattr(self, name) for name in (*_COMMON, *_SWITCHES)}
        for side, panel in zip(SIDES, self.panels, strict=True):
            found[side] = {name: getattr(panel, name) for name in _OWN}
        found["marked"] = [a if a == b else (a, b) for a, b in self.marked]
        return found

    def _check_names(self, values: Mapping[str, Any]) -> None:
        super()._check_names(values)
        for side in SIDES:
            if unknown := [name for name in values.get(side, {}) if name not in _OWN]:
                raise traitlets.TraitError(f"The {side} panel has no value {unknown[0]!r}.")

    def _set(self, values: Mapping[str, Any]) -> None:
        kept = {name: getattr(self, name) for name in ("same_depth", *_WIDEST)}
        self.same_depth = False  # each panel takes its own layer
        for side, panel in zip(SIDES, self.panels, strict=True):
            given = values.get(side, {})
            for name in _OWN:
                if name in given:
                    setattr(panel, name, given[name])
        for name, value in _WIDEST.items():
            setattr(self, name, value)
        wanted = {**kept, **values}
        for name in (*_COMMON, "together"):
            if name in wanted:
                setattr(self, name, wanted[name])
        if "marked" in values:
            self.mark(values["marked"])
        self._set_same_depth(wanted["same_depth"], values)

    def _set_same_depth(self, wanted: bool, values: Mapping[str, Any]) -> None:
        """Tie the panels' depths or not; those that go together already stay as they are.

        Else one panel leads: the one whose layer is among the values, or that the values leave.
        """
        leads = [side for side in SIDES if "layer" in values.get(side, {})]
        leads = leads or [side for side in SIDES if side not in values]
        leader, other = self.panels if leads != ["right"] else reversed(self.panels)
        if wanted and leader.layer != leader.nearest(other.depth()):
            other.layer = other.nearest(leader.depth())
        busy, self._busy = self._busy, True  # that would take the right panel to the left one
        try:
            self.same_depth = wanted
        finally:
            self._busy = busy

    # Tokens in both

    def _common(self) -> tuple[Points, Points] | None:
        """The tokens of both panels' ranges, the same tokens in each; ``None`` to show all."""
        if not self.together:
            return None
        left, right = self.left.whole, self.right.whole
        if self._both is None or not _same(self._both[0], (left, right)):
            here, there = self._pair_up(left, right)
            # Each panel keeps its own order, by frequency.
            kept = (take(left, np.sort(here)), take(right, np.sort(there))) if len(here) else None
            self._both = (left, right), kept
        return self._both[1]

    def _pairs_shown(self) -> Pairs:
        """Indices of the tokens in both, among the points shown at the left and at the right."""
        points = self.left.points, self.right.points
        if self._paired is None or not _same(self._paired[0], points):
            self._paired = points, self._pair_up(*points)
            self._ranked = {}
            for panel in self.panels:
                panel.forget_vocabulary()
        return self._paired[1]

    def _pair_up(self, left: Points, right: Points) -> Pairs:
        there = right.rows_of(map(self.match.right_of.get, map(str, left.tokens)))
        here = np.flatnonzero(there >= 0)
        return here, there[here]

    def _ranks(self, side: int) -> dict[str, np.ndarray]:
        """Ranks of Q, M and V of a panel's layer among the tokens in both."""
        rows = self._pairs_shown()[side]
        panel = self.panels[side]
        at = panel.points.at(panel.layer)
        for name in "QMV":
            if (side, at, name) not in self._ranked:
                values = getattr(panel.points, name)[at][rows]
                self._ranked[side, at, name] = pd.Series(values).rank().to_numpy()
        return {name: self._ranked[side, at, name] for name in "QMV"}

    def _make_match(self, *names: str) -> Match:
        left, right = self.sources[names[0]][names[1]], self.sources[names[2]][names[3]]
        return match(left, right)

    # Marks

    def _pair(self, token: str | tuple[str | None, str | None]) -> tuple[str | None, str | None]:
        """The names of a token in both panels; ``None`` where a panel does not have it."""
        known = [panel.known for panel in self.panels]
        if not isinstance(token, str):
            if not isinstance(token, (tuple, list)) or len(token) != 2 or not any(token):
                raise traitlets.TraitError(
                    f"{token!r} is no token to mark: give a name, or a pair (left, right)."
                )
            left, right = token
            for side, name in enumerate(token):
                if name is not None and name not in known[side]:
                    raise traitlets.TraitError(
                        f"{name!r} is not among the tokens of the {SIDES[side]} panel."
                    )
            pair = left or self.match.left_of.get(right), right or self.match.right_of.get(left)
            if None not in pair and self.match.right_of.get(pair[0]) != pair[1]:
                raise traitlets.TraitError(
                    f"{left!r} at the left and {right!r} at the right are not the same token."
                )
            return pair
        if token in known[0]:
            return token, self.match.right_of.get(token)
        if token in known[1]:
            return self.match.left_of.get(token), token
        raise traitlets.TraitError(f"{token!r} is not among the tokens of either panel.")

    def _mark_pairs(self, pairs: list[tuple[str | None, str | None]]) -> None:
        pairs = list(dict.fromkeys(pairs))
        self._busy, before = True, self._busy
        try:
            for side, panel in enumerate(self.panels):
                panel.marked = [pair[side] for pair in pairs if pair[side] is not None]
        finally:
            self._busy = before
        self.set_trait("marked", pairs)

    def _carry_marks(self, change: Mapping) -> None:
        """Mark in the other panel what was marked in one."""
        if self._busy or not change["owner"].settled:
            return
        if change["owner"] is self.left:
            pairs = [(name, self.match.right_of.get(name)) for name in change["new"]]
        else:
            pairs = [(self.match.left_of.get(name), name) for name in change["new"]]
        self._mark_pairs(pairs)

    @traitlets.observe("search")
    def _mark_sought(self, _: object) -> None:
        self._busy = True
        try:
            for panel in self.panels:
                panel.search = self.search
        finally:
            self._busy = False
        left = [(name, self.match.right_of.get(name)) for name in self.left.marked]
        right = [(self.match.left_of.get(name), name) for name in self.right.marked]
        self._mark_pairs([*left, *right])

    # Validation and updates

    @traitlets.validate("counts", "special", "unbiased")
    def _some_tokens(self, proposal: Mapping) -> Any:
        if self._busy:
            return proposal["value"]
        choice = {name: getattr(self, name) for name in ("counts", "special", "unbiased")}
        kept = times(self.counts)
        choice[proposal["trait"].name] = proposal["value"]
        try:
            self._check(**choice)
        except StatisticsError as error:
            raise traitlets.TraitError(f"{error} The range stays: {kept}.") from error
        return proposal["value"]

    def _check(self, **choice: Any) -> None:
        """Reject a choice in which a panel has no token."""
        choice = choice or {n: getattr(self, n) for n in ("counts", "special", "unbiased")}
        counts = choice.pop("counts")
        for side, panel in zip(SIDES, self.panels, strict=True):
            try:
                points_of(panel.stats, counts, **choice)
            except StatisticsError as error:
                raise StatisticsError(f"The {side} panel: {error}") from error

    @traitlets.observe("counts", "special", "unbiased", "scales", "together")
    def _change_choice(self, _: object) -> None:
        if not self._busy:
            self._apply()

    def _apply(self) -> None:
        """Give both panels what they have in common, and draw each once."""
        with self.left.silent(), self.right.silent():
            for panel in self.panels:
                for name in _COMMON:
                    setattr(panel, name, getattr(self, name))
        self._pairs_shown()
        for panel in self.panels:
            panel.redraw()

    def _adapt_to_statistics(self, change: Mapping) -> None:
        """A panel shows another model or site: the other one's tokens may change with it."""
        if self._busy:
            return
        panel = change["owner"]
        if not panel.settled:  # its other values are being adapted: it will tell again
            return
        self._busy = True
        try:
            self.counts, self.scales = panel.counts, self._fitting_scales()
            known = self.match
            if panel is self.left:
                pairs = [(known.left_of.get(name), name) for name in self.right.marked]
            else:
                pairs = [(name, known.right_of.get(name)) for name in self.left.marked]
            try:
                self._check()
            except StatisticsError:  # a range of this model, in which the other one has no token
                self.counts = self._widest()
        finally:
            self._busy = False
        self._apply()
        self._mark_pairs(pairs)
        if self.same_depth:
            self._follow({"owner": self.left if panel is self.right else self.right})

    @traitlets.observe("same_depth")
    def _join_depths(self, _: object) -> None:
        if self.same_depth and not self._busy:
            self._follow({"owner": self.left})

    def _follow(self, change: Mapping) -> None:
        """Take the other panel to the same relative depth."""
        leader = change["owner"]
        if self._busy or not self.same_depth or not leader.settled:
            return
        other = self.right if leader is self.left else self.left
        self._busy = True
        try:
            other.layer = other.nearest(leader.depth())
        finally:
            self._busy = False

    def _count_drawing(self) -> None:
        self.set_trait("drawn", self.drawn + 1)

    def _widest(self) -> tuple[int, int | None]:
        """A range in which each panel has tokens: 10 to 100,000, as far as they are known."""
        return usual_counts(*(panel.stats for panel in self.panels), unbiased=self.unbiased)

    def _fitting_scales(self) -> str:
        kinds = [panel.fitting_scales() for panel in self.panels]
        return max(kinds, key=_DEMANDING.index)


def _same(some: tuple[Points, Points], others: tuple[Points, Points]) -> bool:
    return some[0] is others[0] and some[1] is others[1]


def in_both_text(state: LinkedState) -> str:
    """How many tokens are in both panels, how many each shows, and what makes them the same."""
    both = state.count_in_both()
    shown = [len(panel.points.n) for panel in state.panels]
    whole = [state.count_of(side) for side in (0, 1)]
    if shown[0] == shown[1] == whole[0] == whole[1] == both:
        return f"{counted(both)}, all in both panels ({state.match.how})."
    text = f"{counted(both)} in both panels ({state.match.how})"
    if not both:
        return f"{text}: each panel shows its own."
    counts = zip(shown, whole, SIDES, strict=True)
    told = " and ".join(f"{some:,} of {every:,} at the {side}" for some, every, side in counts)
    return f"{text}. Shown: {told}."
