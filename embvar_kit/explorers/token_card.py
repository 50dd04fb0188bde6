"""The card of one token: its moments by layer, its occurrences in context and in two dimensions."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ipywidgets as widgets

from embvar_kit.errors import EmbvarError
from embvar_kit.explorers.base import named, picture, rows
from embvar_kit.explorers.rendering import Ahead, Sheet, outwards
from embvar_kit.explorers.tables import contexts_table, number
from embvar_kit.figures.token import moments_of_token, occurrences_in_plane
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # they import torch, which takes seconds and only an open card needs
    from embvar_kit.explorers.concordance import Concordance, Context
    from embvar_kit.extraction.embeddings import Occurrences

MOST = 60
"""Occurrences of a token that are run through the model for its card."""

_SITES = ("hidden",)  # what collecting embeddings gives


@dataclass(frozen=True)
class Found:
    """What a pass over the sentences of a token gave: embeddings and contexts, in one order."""

    count: int
    occurrences: Occurrences
    contexts: list[Context]

    def neighbours(self, side: str) -> list[str | None]:
        """Of each occurrence the token after it or before it."""
        return [getattr(context, side) for context in self.contexts]


class TokenCard:
    """A card that follows a token and a layer; made in the background, a part at a time.

    Args:
        concordances: where a model's tokens occur, for the models that came with a corpus; one
            for each pair of model name and revision.
        recall: load the model and the text of other statistics again by their names, when a card
            is first opened.

    Attributes:
        view: the widget.
        side: buttons, what colours the occurrences: ``"after"`` or ``"before"``.
    """

    def __init__(self, concordances: Sequence[Concordance] = (), *, recall: bool = False) -> None:
        self._recall = recall
        self._concordances = {(c.model.name, c.model.revision): c for c in concordances}
        self._stats: TokenStatistics | None = None
        self._asked: tuple | None = None
        self._sources: dict[int, TokenStatistics] = {}
        self._sheets: dict[tuple, tuple] = {}
        self._head = named(widgets.HTML(), "embvar-card-head")
        self._profile, self._left = picture("embvar-card-profile", 300)
        self._plane, plane = picture("embvar-card-plane", 300)
        self._contexts = named(widgets.HTML(), "embvar-card-contexts")
        self.side = widgets.ToggleButtons(
            options=[("the following token", "after"), ("the preceding token", "before")],
            description="marked by",
            tooltips=["colour by what follows", "colour by what precedes"],
            style={"description_width": "initial", "button_width": "160px"},
        )
        named(self.side, "embvar-card-side").observe(lambda _: self._ask_plane(), "value")
        self._right = widgets.VBox([self.side, plane])
        self.view = widgets.VBox(
            [self._head, rows(self._left, self._right), self._contexts],
            layout={"border": "1px solid #bbb", "padding": "6px 10px", "margin": "8px 0"},
        )
        named(self.view, "embvar-card")
        self.profiles = Ahead(self._make_profile, lambda _, png: _put(self._profile, png))
        self.found = Ahead(self._find, self._show_found, self._say_why, keep=20)
        self.planes = Ahead(self._make_plane, lambda _, png: _put(self._plane, png), self._say_why)
        self.show(None, None, 0)

    def show(
        self, stats: TokenStatistics | None, token: str | None, layer: int, unbiased: bool = False
    ) -> None:
        """Show a token at a layer; without a token, the card says how to open one."""
        before, self._asked = self._asked, None
        if stats is None or token is None:
            self._head.value = (
                "<b>Token card</b>: click a point, search for a token, or choose one from a list."
            )
            self._visible(False)
            return
        self._sources[id(stats)] = stats
        self._stats, self._asked = stats, (id(stats), token, layer, unbiased)
        at = int((stats.tokens.astype(str) == token).nonzero()[0][0])
        row = int((stats.layers == layer).nonzero()[0][0])
        M, V = stats.M[row, at], stats.V[row, at]
        if unbiased:
            M, V = map(float, analysis.unbiased(stats.n[at], M, V))
        self._head.value = (
            f"<b style='font-size:120%'>{html.escape(token)}</b> &emsp; "
            f"n<sub>t</sub> = {stats.n[at]:,} &emsp; layer {layer}: &emsp; "
            f"Q = {number(stats.Q[row, at])} &emsp; M = {number(M)} &emsp; V = {number(V)} "
            f"&emsp; {'(unbiased M and V)' if unbiased else ''}"
        )
        self._visible(True)
        layers = [int(one) for one in stats.layers]
        ahead = [(*self._asked[:2], one, unbiased) for one in outwards(layers, row)]
        self.profiles.ask(self._asked, ahead)
        if before is None or before[:2] != self._asked[:2]:
            self._plane.value = b""
            self._ask_found()
        else:
            self._ask_plane()

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait until all parts are there; whether they were in time."""
        done = self.profiles.wait(seconds) and self.found.wait(seconds)
        return done and self.planes.wait(seconds)

    def _visible(self, there: bool) -> None:
        for part in (self._left, self._right, self._contexts):
            part.layout.display = None if there else "none"

    # Q, M and V by layer

    def _make_profile(self, key: tuple) -> bytes:
        _, token, layer, unbiased = key
        frame = (key[0], token, unbiased)
        if frame not in self._sheets:
            sheet = Sheet(5.4, 3.2)
            ax = moments_of_token(
                self._sources[key[0]], token, unbiased=unbiased, ax=sheet.figure.subplots()
            )
            sheet.freeze()
            self._sheets = {frame: (sheet, ax)}  # one at a time: a token is looked at for a while
        sheet, ax = self._sheets[frame]
        mark = ax.axvline(layer, color="black", linewidth=1.2)
        try:
            return sheet.png([mark])
        finally:
            mark.remove()

    # Occurrences, which need the model

    def _concordance(self, stats: TokenStatistics) -> Concordance | None:
        of = stats.info["model"]
        return self._concordances.get((of["name"], of.get("revision")))

    def _recalled(self, stats: TokenStatistics) -> Concordance:
        """That of the statistics' own model and text, loaded by name if none was given."""
        if (there := self._concordance(stats)) is not None:
            return there
        from embvar_kit.explorers.concordance import concordances
        from embvar_kit.extraction.embeddings import load_again

        (made,) = concordances([stats], *load_again(stats))
        self._concordances[made.model.name, made.model.revision] = made
        return made

    def _ask_found(self) -> None:
        concordance = self._concordance(self._stats)
        if concordance is None and not self._recall:
            name = html.escape(str(self._stats.info["model"]["name"]))
            self._nothing(
                "To see occurrences in context and in two dimensions, give the explorer the model "
                "and the corpus, <code>TradeoffExplorer(stats, model=…, corpus=…)</code>, or let "
                f"it load them again by name, <code>recall=True</code>; none came with {name}."
            )
            return
        convention = self._stats.info.get("convention", {})
        if concordance is not None and convention.get("by", "token") != concordance.by:
            self._nothing("These statistics group occurrences otherwise than the model given.")
            return
        if self._asked[:2] not in self.found:
            self._nothing("Looking for occurrences; the first time, the text is read …")
        self._right.layout.display = None
        self.found.ask(self._asked[:2])

    def _nothing(self, sentence: str) -> None:
        self._contexts.value = f"<i>{sentence}</i>"
        self._right.layout.display = "none"

    def _find(self, key: tuple) -> Found:
        concordance = self._recalled(self._sources[key[0]])
        occurrences = concordance.find(key[1], most=MOST)
        contexts = concordance.contexts(occurrences)
        return Found(concordance.count(key[1]), occurrences, contexts)

    def _show_found(self, key: tuple, found: Found) -> None:
        if self._asked is None or key != self._asked[:2]:
            return
        corpus = self._concordance(self._stats).corpus
        known = {one.get("fingerprint") for one in self._stats.info["corpora"]}
        other = "" if corpus.fingerprint in known else ", not the text that the statistics are of"
        self._contexts.value = contexts_table(found.contexts, found.count, corpus.name + other)
        self._right.layout.display = None
        self._ask_plane()

    def _ask_plane(self) -> None:
        if self._asked is None or self._asked[:2] not in self.found:
            return
        site = self._stats.info.get("convention", {}).get("site", "hidden")
        if site not in _SITES:
            self._right.layout.display = "none"
            return
        side, (source, token, layer, _) = self.side.value, self._asked
        layers = [int(one) for one in self._stats.layers]
        ahead = [(source, token, one, side) for one in outwards(layers, layers.index(layer))]
        self.planes.ask((source, token, layer, side), ahead[:2])

    def _make_plane(self, key: tuple) -> bytes:
        source, token, layer, side = key
        found = self.found[source, token]
        sheet = Sheet(6.0, 3.2)
        what = {"after": "followed by", "before": "preceded by"}[side]
        occurrences_in_plane(
            found.occurrences,
            found.neighbours(side),
            layer=layer,
            what=what,
            ax=sheet.figure.subplots(),
        )
        return sheet.png()

    def _say_why(self, error: Exception) -> None:
        reason = (
            str(error) if isinstance(error, EmbvarError) else f"{type(error).__name__}: {error}"
        )
        self._nothing(html.escape(reason))


def _put(picture: widgets.Image, png: bytes) -> None:
    picture.value = png
