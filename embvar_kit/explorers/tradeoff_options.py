"""The trade-off explorer's further controls: what colours the points, and which are shown.

They are made when they are first asked for, so that an explorer opens as fast as without them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

import ipywidgets as widgets
import numpy as np
import traitlets

from embvar_kit.errors import EmbvarError
from embvar_kit.explorers.base import bind
from embvar_kit.explorers.columns import COUNT, PIECE, Column
from embvar_kit.explorers.controls import checkbox, dropdown, with_class
from embvar_kit.explorers.tradeoff_state import TradeoffState
from embvar_kit.figures.lettering import with_minus

_MORE, _LESS, _TOOLTIP = "more options", "fewer options", "colours, a filter and more"
_ALL = "all tokens"
_STEPS = 40  # numbers at which a range may begin and end, beside its own ends
# Values that show the controls where they are not as at first.
_ALTERED = ("colour_by", "only", "null", "shaded")


class Options:
    """A button, and the controls that it brings into its row.

    Args:
        state: the explorer's state.
        row: the row of controls that they are added to.
        show_message: called with the reason why a value is refused.
        like: a button whose look theirs shares.

    Attributes:
        row: the row.
    """

    def __init__(
        self,
        state: TradeoffState,
        row: widgets.Box,
        show_message: Callable[[str], None],
        like: widgets.Button,
    ) -> None:
        self._state, self.row, self._show_message = state, row, show_message
        self._before: tuple[widgets.Widget, ...] = row.children
        self._made: tuple[widgets.Widget, ...] = ()
        self._button = widgets.Button(
            description=_MORE, tooltip=_TOOLTIP, layout=like.layout, style=like.style
        )
        with_class(self._button, "embvar-more").on_click(lambda _: self._show(not self._shown))
        row.children = [*self._before, self._button]
        state.observe(lambda _: self._open_if_altered(), list(_ALTERED))
        self._open_if_altered()

    def _open_if_altered(self) -> None:
        """Show the controls where code or a link has set one: a reader must see a filter."""
        state = self._state
        if any(getattr(state, name) != state.traits()[name].default_value for name in _ALTERED):
            self._show(True)

    @property
    def _shown(self) -> bool:
        return len(self.row.children) > len(self._before) + 1

    def _show(self, shown: bool) -> None:
        if shown and not self._made:
            self._made = self._make()
        self._button.description = _LESS if shown else _MORE
        self.row.children = [*self._before, self._button, *(self._made if shown else ())]

    def _make(self) -> tuple[widgets.Widget, ...]:
        state = self._state
        self._colour = dropdown(
            "colour", "embvar-colour", self._colours(), "what gives the points their colours"
        )
        offered = {"to_control": self._offer_colours, "follows": ["model", "site"]}
        bind(state, "colour_by", self._colour, self._show_message, **offered)
        self._by = dropdown(
            "show", "embvar-only-by", self._filters(), "show all tokens, or filter them by this"
        )
        self._value = with_class(widgets.HBox(), "embvar-only")
        self._setting = False
        self._set_by()
        self._by.observe(self._choose_filter, "value")
        state.observe(lambda _: self._set_by(), "only")
        state.observe(lambda _: self._offer(), ["model", "site"])
        self._null = checkbox("null behind", "embvar-null", "")
        bind(state, "null", self._null, self._show_message)
        self._tell_of_null()
        shaded = checkbox(
            "fade where dense", "embvar-shaded", "where many tokens lie, each is more transparent"
        )
        bind(state, "shaded", shaded, self._show_message)
        self._prepare()
        return self._colour, self._by, self._value, self._null, shaded

    def _prepare(self) -> None:
        """Load the vocabulary of the model shown before it is asked for: that takes seconds."""
        columns, stats = self._state.columns, self._state.stats

        def load() -> None:
            with suppress(EmbvarError, OSError):  # it is told to whoever chooses the column
                columns.of(stats, PIECE)

        if PIECE in columns.offered(stats):
            threading.Thread(target=load, daemon=True).start()

    def _tell_of_null(self) -> None:
        """The null can be drawn where the statistics hold one."""
        lacking = self._state.stats.null is None
        self._null.disabled = lacking
        self._null.tooltip = "in grey, the same occurrences with their labels permuted" + (
            ": these statistics hold none, extract with null=True" if lacking else ""
        )

    # Colours

    def _colours(self) -> list[tuple[str, str]]:
        offered = self._state.columns.offered(self._state.stats)
        return [(text, name) for name, text in offered.items()]

    def _offer_colours(self, chosen: str) -> str:
        """Offer the columns of the model shown; return the one chosen."""
        if self._state.settled and self._colour.options != tuple(self._colours()):
            self._colour.options = self._colours()
        return chosen

    def _offer(self) -> None:
        """Offer the filters of the model shown, and its null."""
        if not self._state.settled:
            return
        self._set_by()
        self._tell_of_null()
        self._prepare()

    # The filter

    def _filters(self) -> list[tuple[str, str]]:
        offered = self._state.columns.offered(self._state.stats, by_layer=False)
        # The slider of occurrences filters by these.
        return [(_ALL, ""), *((text, name) for name, text in offered.items() if name != COUNT)]

    def _set_by(self) -> None:
        """Set the controls to the state's filter."""
        state = self._state
        name, only = state.only or ("", None)
        self._setting = True  # a list whose options are replaced chooses the first by itself
        try:
            if self._by.options != tuple(self._filters()):
                self._by.options = self._filters()
            self._by.value = name
        finally:
            self._setting = False
        if state.only is None:
            self._value.children = ()
            return
        shown = self._value.children
        if shown and shown[0].column is state.columns.of(state.stats, name):
            shown[0].show(only)
        else:
            column = state.columns.of(state.stats, name)
            self._value.children = [_value_control(column, only, self._set_value)]

    def _choose_filter(self, change: dict) -> None:
        name, state = change["new"], self._state
        if self._setting:
            return
        if (state.only or ("",))[0] == name:
            return
        try:
            if not name:
                state.only = None
            elif (column := state.columns.of(state.stats, name)).categories:
                self._set_first(column)
            else:
                state.only = name, column.ends()
        except (traitlets.TraitError, EmbvarError) as error:
            self._show_message(str(error))
            self._set_by()
        else:
            self._show_message("")

    def _set_first(self, column: Column) -> None:
        """Filter by the first category that has a token in the range shown."""
        for at, category in enumerate(column.categories):
            try:
                self._state.only = column.name, category
                return
            except traitlets.TraitError:
                if at == len(column.categories) - 1:
                    raise

    def _set_value(self, only: str | tuple[float, float]) -> None:
        state = self._state
        if state.only is None or state.only[1] == only:
            return  # the control returns to the filter: the reason for that stays
        try:
            state.only = state.only[0], only
        except traitlets.TraitError as error:
            self._show_message(str(error))
            self._set_by()
        else:
            self._show_message("")


class _Categories(widgets.Dropdown):
    """The categories of a column, of which one is shown."""

    def __init__(self, column: Column, only: str, choose: Callable[[str], None]) -> None:
        super().__init__(
            options=column.categories,
            value=only,
            description="only",
            tooltip="the tokens that are shown",
            style={"description_width": "initial"},
            layout={"width": "220px", "max_width": "100%"},
        )
        self.column = column
        with_class(self, "embvar-only-category")
        self.observe(lambda change: choose(change["new"]), "value")

    def show(self, only: str) -> None:
        self.value = only


class _Range(widgets.SelectionRangeSlider):
    """A range of the numbers of a column; its handles move over round numbers."""

    def __init__(
        self,
        column: Column,
        only: tuple[float, float],
        choose: Callable[[tuple[float, float]], None],
    ) -> None:
        self._numbers = _round_numbers(*column.ends(), log=column.log)
        super().__init__(
            options=_labelled({*self._numbers, *only}),
            value=only,
            description="from",
            tooltip="the tokens that are shown: those whose number lies in this range",
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "340px"},
        )
        self.column = column
        with_class(self, "embvar-only-range")
        self._choose, self._showing = choose, False
        self.observe(self._tell, "value")

    def show(self, only: tuple[float, float]) -> None:
        self._showing = True  # with other options, the slider goes to the first by itself
        try:
            with self.hold_sync():  # as in CountsSlider: the browser never sees the first
                if not set(only) <= {number for _, number in self.options}:
                    self.options = _labelled({*self._numbers, *only})
                self.value = only
        finally:
            self._showing = False

    def _tell(self, change: dict) -> None:
        if not self._showing:
            self._choose(change["new"])


def _value_control(
    column: Column, only: str | tuple[float, float], choose: Callable
) -> _Categories | _Range:
    return (_Categories if column.categories else _Range)(column, only, choose)


def _labelled(numbers: Iterable[float]) -> list[tuple[str, float]]:
    # A slider puts a hyphen between its two numbers, from which no minus must be mistaken.
    return [(with_minus(f"{number:,.6g}"), number) for number in sorted(numbers)]


def _round_numbers(low: float, high: float, *, log: bool) -> set[float]:
    """Some numbers between two ends, and the ends."""
    between = np.geomspace(low, high, _STEPS) if log else np.linspace(low, high, _STEPS)
    return {low, high, *(float(f"{x:.2g}") for x in between if low < float(f"{x:.2g}") < high)}
