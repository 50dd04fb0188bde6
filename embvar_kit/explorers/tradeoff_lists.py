"""The trade-off explorer's lists of tokens: which moved, are far from the line, or are near one."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence

import ipywidgets as widgets
import pandas as pd

from embvar_kit.explorers.base import bind
from embvar_kit.explorers.controls import TokenList, dropdown, heading, paragraph
from embvar_kit.explorers.nearest import nearest_means
from embvar_kit.explorers.rendering import Prefetcher
from embvar_kit.explorers.tables import decimal, number, signed
from embvar_kit.explorers.tradeoff_state import TradeoffState

_NO_LAYER = -1  # a dropdown takes None to mean that nothing is chosen


class TokenLists:
    """Lists of tokens of a state.

    Args:
        state: the explorer's state.
        choose: called with the token that the reader chooses in a list.
        show_message: called with the reason why a value is refused.
        like: a text and a dropdown whose look others share.

    Attributes:
        view: the lists with their headings and controls, from top to bottom.
        near: what computes the nearest means, in the background.
    """

    def __init__(
        self,
        state: TradeoffState,
        choose: Callable[[str], None],
        show_message: Callable[[str], None],
        like: tuple[widgets.HTML, widgets.Dropdown],
    ) -> None:
        self._state, self._choose, self._show_message = state, choose, show_message
        self._like, self._like_dropdown = like
        self.view = widgets.VBox([*self._moved_box(), *self._residuals_box()])
        self._nearest: TokenList | None = None  # made with the first card
        self.near = Prefetcher(self._find_nearest, self._show_found, self._show_none, keep=20)

    def _moved_box(self) -> list[widgets.Widget]:
        state = self._state
        self._compare = dropdown(
            "compare with",
            "embvar-compare",
            self._layers(),
            "another layer; lists the tokens that moved most between the two",
            like=self._like_dropdown,
        )
        bind(
            state,
            "compare",
            self._compare,
            self._show_message,
            to_control=self._offer_layers,
            follows=["model", "site"],
            to_state=lambda layer: None if layer == _NO_LAYER else layer,
        )
        distance = dropdown(
            "distance",
            "embvar-distance",
            [("in squared norms", "units"), ("relative to mean Q", "share")],
            "unit of the distance that a token moved in the plane of M and V",
            like=self._like_dropdown,
        )
        bind(state, "distance", distance, self._show_message)
        self._moved_title = paragraph("embvar-moved-title", self._like)
        self._moved = self._list(
            "embvar-moved",
            "tokens that moved most; choosing one marks it and opens its card",
            ("token", "distance", "M", "V"),
        )
        title = heading("Which token moved most between two layers?", self._like)
        moved = [self._moved_title, self._moved.head, self._moved]
        return [title, self._compare, distance, *moved]

    def _residuals_box(self) -> list[widgets.Widget]:
        self._residuals = self._list(
            "embvar-residuals",
            "tokens farthest from the line; choosing one marks it and opens its card",
            ("token", "residual", "M", "V"),
        )
        title = heading("Which tokens lie farthest from the line?", self._like)
        return [title, self._residuals.head, self._residuals]

    def _nearest_box(self) -> list[widgets.Widget]:
        self._nearest = self._list(
            "embvar-nearest",
            "tokens whose means are nearest; choosing one marks it and opens its card",
            ("token", "cosine", "distance"),
        )
        self._nearest_title = paragraph("embvar-nearest-title", self._like)
        self._measure = dropdown(
            "nearest by",
            "embvar-nearest-by",
            [("cosine", "cosine"), ("Euclidean distance", "distance")],
            "what the list is sorted by",
            like=self._like_dropdown,
        )
        self._measure.observe(lambda _: self.show_nearest(), "value")
        title = heading("Whose means are nearest?", self._like)
        return [title, self._measure, self._nearest_title, self._nearest.head, self._nearest]

    def show_nearest(self) -> None:
        """List the tokens whose means are nearest to that of the token whose card is open."""
        state = self._state
        if self._nearest is None:
            if state.token is None:
                return
            self.view.children = [*self.view.children, *self._nearest_box()]
        if state.token is None:
            self._fill_nearest("Open a token's card to see whose means are near its own.")
            return
        shown = state.model, state.site, state.choice
        self.near.request((shown, state.layer, state.token, self._measure.value))

    def _find_nearest(self, key: tuple) -> pd.DataFrame:
        (model, site, choice), layer, token, by = key
        points = self._state.chosen(model, site, *choice)
        stats = self._state.sources[model][site]
        found = nearest_means(stats, layer, token, points.rows, by=by)
        # The names now: when this is shown, other tokens may be chosen already.
        return found.assign(shown=points.shown[points.indices_of(found["token"])])

    def _show_found(self, key: tuple, found: pd.DataFrame) -> None:
        _, layer, token, _ = key
        if self._state.token is None:
            return  # the card was closed meanwhile
        title = f"Nearest to the mean of {token!r} at layer {layer}, among the tokens shown:"
        self._fill_nearest(title, found)

    def _show_none(self, error: Exception) -> None:
        self._fill_nearest(str(error))

    def _fill_nearest(self, title: str, found: pd.DataFrame | None = None) -> None:
        self._nearest_title.value = html.escape(title)
        self._nearest.layout.display = "none" if found is None or found.empty else None
        if found is None:
            self._nearest.fill([])
            return
        cells = (
            (row.shown, decimal(row.cosine), number(row.distance))
            for row in found.itertuples(index=False)
        )
        self._nearest.fill(zip(found["token"].astype(str), cells, strict=True))

    def _list(self, css: str, tooltip: str, columns: Sequence[str]) -> TokenList:
        return TokenList(css, tooltip, columns, 10, self._choose, self._like)

    def _offer_layers(self, compare: int | None) -> int:
        """Offer the layers of the model shown to compare with; return the one chosen."""
        layers = self._layers()
        if self._compare.options != tuple(layers):
            self._compare.options = layers
        return compare if compare in dict(layers).values() else _NO_LAYER

    def _layers(self) -> list[tuple[str, int]]:
        layers = [int(layer) for layer in self._state.stats.layers]
        return [("no other layer", _NO_LAYER), *((f"layer {layer}", layer) for layer in layers)]

    def show_residuals(self) -> None:
        """List the tokens farthest from the line."""
        found = self._state.residuals()
        cells = (
            (name, signed(row.residual), number(row.M), number(row.V))
            for name, row in self._rows(found)
        )
        self._residuals.fill(zip(found["token"].astype(str), cells, strict=True))

    def show_moved(self) -> None:
        """List the tokens that moved most, or say why there are none."""
        state = self._state
        found = state.moved()
        if state.compare is None:
            text = "Choose a layer to compare with the one shown."
        elif state.compare == state.layer:
            text = "This is the layer shown: no token moved."
            found = found[:0]
        else:
            first, last = sorted((state.compare, state.layer))
            text = f"From layer {first} to layer {last}, the farthest first:"
        self._moved_title.value = text
        self._moved.layout.display = None if len(found) else "none"
        cells = (
            (name, number(row.distance), signed(row.M), signed(row.V))
            for name, row in self._rows(found)
        )
        self._moved.fill(zip(found["token"].astype(str), cells, strict=True))

    def _rows(self, found: pd.DataFrame) -> Iterator[tuple[str, tuple]]:
        """The rows of a table of tokens, each with the token's name as it is shown."""
        points = self._state.points
        names = points.shown[points.indices_of(found["token"])]
        return zip(names, found.itertuples(index=False), strict=True)
