"""The token card: one token's moments by layer, its occurrences in context and in a plane."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as widgets
import numpy as np
from matplotlib.axes import Axes

from embvar_kit.corpora.byte_level import named, visible
from embvar_kit.errors import EmbvarError
from embvar_kit.explorers.controls import scrolling_image, with_class, wrapping_row
from embvar_kit.explorers.progress import CancelledError, Progress
from embvar_kit.explorers.rendering import BlittedFigure, Prefetcher, nearest_first
from embvar_kit.explorers.scripted import Tooltip
from embvar_kit.explorers.tables import contexts_table, number
from embvar_kit.explorers.typed_sentence import SentenceBox
from embvar_kit.figures.token import in_plane, moments_of_token, occurrences_in_plane
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # these import torch, which takes seconds and only an open card needs
    from embvar_kit.explorers.concordance import Concordance, Context, Insertion
    from embvar_kit.extraction.embeddings import Occurrences

MOST = 60
"""Number of a token's occurrences that are run through the model for its card."""

_PROFILE, _PLANE = (5.4, 3.2), (6.0, 3.2)  # sizes of the pictures, in inches
_STEPS = (
    "Loading the model and the text",
    "Tokenizing the text",
    "Running the model on the token's sentences",
    "Reading the token's contexts",
)
_REACH = 5  # pixels around a dot in which the mouse is on it
_SITES = ("hidden",)  # where embeddings of single occurrences can be collected

OccurrencesKey = tuple[int, str]
"""Id of the statistics and token."""

ProfileKey = tuple[int, str, int, bool]
"""Id of the statistics, token, layer, whether M and V are unbiased."""

PlaneKey = tuple[int, str, int, str, "Insertion | None"]
"""Id of the statistics, token, layer, side of the neighbour to mark by, the reader's sentence."""


@dataclass(frozen=True)
class OccurrenceSample:
    """Some occurrences of a token.

    Attributes:
        count: how often the token occurs in the corpus.
        occurrences: embeddings of the sampled occurrences.
        contexts: text around the sampled occurrences, in the same order.
    """

    count: int
    occurrences: Occurrences
    contexts: list[Context]

    def neighbours(self, side: str) -> list[str | None]:
        """The token next to each occurrence; ``side`` is ``"after"`` or ``"before"``."""
        return [getattr(context, side) for context in self.contexts]


class Plane(NamedTuple):
    """The picture of occurrences in two dimensions, and where in it each occurrence is.

    Attributes:
        png: the picture.
        areas: of each occurrence, the edges of its dot and its sentence, for a tooltip.
    """

    png: bytes
    areas: list[list[float | str]]


class TokenCard:
    """A card about a token at a layer; its parts are computed in the background, one by one.

    Args:
        concordances: one for each model that was given with a corpus.
        recall: when a card is first opened, load the model and text of statistics that have no
            concordance by their names.
        describe: called with the CSS class of a picture and its text for who cannot see it.

    Attributes:
        view: the widget.
        side: the buttons that choose the neighbour to mark by, ``"after"`` or ``"before"``.
        sentence: the box for a sentence of the reader's.
    """

    def __init__(
        self,
        concordances: Sequence[Concordance] = (),
        *,
        recall: bool = False,
        describe: Callable[[str, str], None] = lambda css, text: None,
    ) -> None:
        self._describe = describe
        self._recall = recall
        self._loading = threading.Lock()  # a sample and a sentence may both need the model
        self._concordances = {(c.model.name, c.model.revision): c for c in concordances}
        self._stats: TokenStatistics | None = None
        self._requested: ProfileKey | None = None
        self._in_plane = ""  # the picture of the plane in words
        self._sources: dict[int, TokenStatistics] = {}
        self._figures: dict[tuple[int, str, bool], tuple[BlittedFigure, Axes]] = {}
        self._head = with_class(widgets.HTML(), "embvar-card-head")
        self._profile, self._left = scrolling_image("embvar-card-profile", 300, _PROFILE)
        self._plane, plane = scrolling_image("embvar-card-plane", 300, _PLANE)
        self._progress = Progress("embvar-card", _STEPS, self._request_sample)
        self._contexts = with_class(widgets.HTML(), "embvar-card-contexts")
        self.side = widgets.ToggleButtons(
            options=[("the following token", "after"), ("the preceding token", "before")],
            description="marked by",
            tooltips=["mark by the following token", "mark by the preceding token"],
            style={"description_width": "initial", "button_width": "160px"},
        )
        with_class(self.side, "embvar-card-side").observe(lambda _: self._request_plane(), "value")
        self._sentences = Tooltip(
            picture="embvar-card-plane",
            hint="Point at a dot for its sentence, or at a sentence below for its dot.",
        )
        self.sentence = SentenceBox(self._load_concordance, self._request_plane)
        self._right = widgets.VBox([self.side, plane, self._sentences])
        self.view = widgets.VBox(
            [
                self._head,
                self._progress.view,  # above the pictures, which reach below a screen's lower edge
                wrapping_row(self._left, self._right),
                self.sentence.view,
                self._contexts,
            ],
            layout={"border": "1px solid #bbb", "padding": "6px 10px", "margin": "8px 0"},
        )
        with_class(self.view, "embvar-card")
        self.profiles = Prefetcher(
            self._draw_profile, lambda _, png: self._profile.show(png), self._show_no_profile
        )
        self.samples = Prefetcher(self._sample, self._show_sample, self._show_error, keep=20)
        self.planes = Prefetcher(self._draw_plane, self._show_plane, self._show_no_plane)
        self.show(None, None, 0)

    def show(
        self, stats: TokenStatistics | None, token: str | None, layer: int, unbiased: bool = False
    ) -> None:
        """Show a token at a layer.

        Args:
            stats: the statistics shown.
            token: one of their tokens; ``None`` closes the card, which then says how to open it.
            layer: one of their layers.
            unbiased: whether M and V are corrected for finite samples.
        """
        before, self._requested = self._requested, None
        self._progress.hide()
        if stats is None or token is None:
            self._head.value = (
                "<b>Token card</b>: click a point, search for a token, or choose one from a list."
            )
            self._show_parts(False)
            self.sentence.close()
            return
        self._sources[id(stats)] = stats
        self._stats, self._requested = stats, (id(stats), token, layer, unbiased)
        at = int((stats.tokens.astype(str) == token).nonzero()[0][0])
        row = int((stats.layers == layer).nonzero()[0][0])
        M, V = stats.M[row, at], stats.V[row, at]
        if unbiased:
            M, V = map(float, analysis.unbiased(stats.n[at], M, V))
        self._head.value = (
            f"<b style='font-size:120%'>{html.escape(named(token, stats.texts[at]))}</b> &emsp; "
            f"n<sub>t</sub>&nbsp;=&nbsp;{stats.n[at]:,} &emsp; layer&nbsp;{layer}: &emsp; "
            f"Q&nbsp;=&nbsp;{number(stats.Q[row, at])} &emsp; M&nbsp;=&nbsp;{number(M)} &emsp; "
            f"V&nbsp;=&nbsp;{number(V)} &emsp; {'(unbiased M and V)' if unbiased else ''}"
        )
        self._show_parts(True)
        layers = [int(one) for one in stats.layers]
        ahead = [(*self._requested[:2], one, unbiased) for one in nearest_first(layers, row)]
        shown = named(token, stats.texts[at])
        numbers = f"Q = {number(stats.Q[row, at])}, M = {number(M)}, V = {number(V)}"
        self._describe(
            "embvar-card-profile", f"Q, M and V of {shown} by layer; layer {layer}: {numbers}."
        )
        self._in_plane = f"Occurrences of {shown} on two principal axes, layer {layer}."
        self._describe("embvar-card-plane", self._in_plane)
        if self._obstacle() is None and self._site in _SITES:
            self.sentence.show(stats, token, layer, unbiased)
        else:
            self.sentence.close()
        if before is None or before[:2] != self._requested[:2]:
            self._profile.wait()
            self._plane.wait()
            self._sentences.areas = []
            self.profiles.request(self._requested, ahead)
            self._request_sample()
        else:
            self.profiles.request(self._requested, ahead)
            self._request_plane()

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait until all parts are complete; return whether they were in time."""
        done = self.profiles.wait(seconds) and self.samples.wait(seconds)
        return done and self.sentence.wait(seconds) and self.planes.wait(seconds)

    def _show_parts(self, visible: bool) -> None:
        for part in (self._left, self._right, self._contexts):
            part.layout.display = None if visible else "none"

    # Q, M and V by layer

    def _draw_profile(self, key: ProfileKey) -> bytes:
        source, token, layer, unbiased = key
        frame = (source, token, unbiased)
        if frame not in self._figures:
            blitted = BlittedFigure(*_PROFILE)
            ax = moments_of_token(
                self._sources[source], token, unbiased=unbiased, ax=blitted.figure.subplots()
            )
            blitted.draw_background()
            self._figures = {frame: (blitted, ax)}  # only the current token's is kept
        blitted, ax = self._figures[frame]
        mark = ax.axvline(layer, color="black", linewidth=1.2)
        try:
            return blitted.png([mark])
        finally:
            mark.remove()

    def _show_no_profile(self, error: Exception) -> None:
        self._head.value += f"<p><i>Q, M and V by layer: {html.escape(str(error))}</i></p>"

    # Occurrences, which need the model

    def _concordance(self, stats: TokenStatistics) -> Concordance | None:
        """The concordance of the statistics' model, if it was given or loaded."""
        model = stats.info["model"]
        return self._concordances.get((model["name"], model.get("revision")))

    def _load_concordance(self, stats: TokenStatistics) -> Concordance:
        """The concordance of the statistics' model; if none was given, load it by name."""
        with self._loading:
            if (known := self._concordance(stats)) is not None:
                return known
            from embvar_kit.explorers.concordance import concordances
            from embvar_kit.extraction.embeddings import load_again

            (loaded,) = concordances([stats], *load_again(stats))
            self._concordances[loaded.model.name, loaded.model.revision] = loaded
            return loaded

    def _obstacle(self) -> str | None:
        """HTML: why no occurrences of the statistics shown can be had, if that is known already."""
        concordance = self._concordance(self._stats)
        if concordance is None and not self._recall:
            name = html.escape(str(self._stats.info["model"]["name"]))
            return (
                f"The explorer has no model and corpus for {name}. To see occurrences in context "
                "and in two dimensions, pass both, <code>TradeoffExplorer(stats, model=…, "
                "corpus=…)</code>, or let it load them by name, <code>recall=True</code>."
            )
        convention = self._stats.info.get("convention", {})
        if concordance is not None and convention.get("by", "token") != concordance.by:
            return "These statistics group occurrences differently from the model given."
        return None

    def _request_sample(self) -> None:
        if (obstacle := self._obstacle()) is not None:
            self._show_instead(obstacle)
            return
        self._right.layout.display = None
        self._progress.restart()
        if self._requested[:2] not in self.samples:
            self._contexts.value = ""
            self._progress.show()
        self.samples.request(self._requested[:2])

    def _show_instead(self, sentence: str) -> None:
        self._progress.hide()
        self._contexts.value = f"<i>{sentence}</i>"
        self._right.layout.display = "none"

    def _sample(self, key: OccurrencesKey) -> OccurrenceSample:
        source, token = key
        stats, begin = self._sources[source], self._progress.stepper()
        begin(0)
        concordance = self._load_concordance(stats)
        with concordance.lock:
            begin(1)
            count = concordance.count(token)  # tokenizes
            begin(2)
            occurrences = concordance.find(token, most=MOST)
            begin(3)
            contexts = concordance.contexts(occurrences)
        return OccurrenceSample(count, occurrences, contexts)

    def _show_sample(self, key: OccurrencesKey, sample: OccurrenceSample) -> None:
        if self._requested is None or key != self._requested[:2]:
            return
        corpus = self._concordance(self._stats).corpus
        known = {one.get("fingerprint") for one in self._stats.info["corpora"]}
        other = "" if corpus.fingerprint in known else ", which is not the statistics' own text"
        self._contexts.value = contexts_table(sample.contexts, sample.count, corpus.name + other)
        self._progress.hide()
        self._right.layout.display = None
        self._request_plane()

    def _request_plane(self) -> None:
        if self._requested is None or self._requested[:2] not in self.samples:
            return
        if self._site not in _SITES:
            self._right.layout.display = "none"
            return
        side, (source, token, layer, _) = self.side.value, self._requested
        layers = [int(one) for one in self._stats.layers]
        rest = side, self.sentence.insertion
        ahead = [(source, token, one, *rest) for one in nearest_first(layers, layers.index(layer))]
        self.planes.request((source, token, layer, *rest), ahead[:2])

    @property
    def _site(self) -> str:
        """Where in the model the embeddings of the statistics were taken."""
        return self._stats.info.get("convention", {}).get("site", "hidden")

    def _show_plane(self, key: PlaneKey, plane: Plane) -> None:
        if self._requested is None or key[:3] != self._requested[:3]:
            return  # it was drawn for a token that the card has left
        self._plane.show(plane.png)
        self._sentences.areas = plane.areas
        if key[4] is not None:
            crosses = f" Crosses mark those in your sentence: {len(key[4].parts)}."
            self._describe("embvar-card-plane", f"{self._in_plane}{crosses}")
        else:
            self._describe("embvar-card-plane", self._in_plane)

    def _draw_plane(self, key: PlaneKey) -> Plane:
        source, token, layer, side, insertion = key
        sample, stats = self.samples[source, token], self._sources[source]
        text_of = dict(zip(map(str, stats.tokens), stats.texts, strict=True))
        neighbours = [
            None if one is None else visible(text_of.get(one, one))
            for one in sample.neighbours(side)
        ]
        blitted = BlittedFigure(*_PLANE)
        what = {"after": "followed by", "before": "preceded by"}[side]
        ax = occurrences_in_plane(
            sample.occurrences,
            neighbours,
            layer=layer,
            what=what,
            name=named(token, text_of[token]),
            added=None if insertion is None else insertion.occurrences.at(layer),
            ax=blitted.figure.subplots(),
        )
        png = blitted.png()  # before it the layout is not known
        if (found := in_plane(sample.occurrences.at(layer))) is None:
            return Plane(png, [])
        places = found.places
        texts = [f"{one.left}[{one.keyword}]{one.right}" for one in sample.contexts]
        if insertion is not None:
            places = np.concatenate([places, found.place(insertion.occurrences.at(layer))])
            texts += [f"your sentence: {a}[{word}]{b}" for a, word, b in insertion.parts]
        width, height = blitted.figure.bbox.size
        areas = []
        for (x, y), text in zip(ax.transData.transform(places), texts, strict=True):
            left, upper = (x - _REACH) / width, 1 - (y + _REACH) / height
            right, lower = (x + _REACH) / width, 1 - (y - _REACH) / height
            areas.append([*map(float, (left, upper, right, lower)), text])
        return Plane(png, areas)

    def _show_error(self, error: Exception) -> None:
        if isinstance(error, CancelledError):
            return
        reason = (
            str(error) if isinstance(error, EmbvarError) else f"{type(error).__name__}: {error}"
        )
        self._show_instead(html.escape(reason))

    def _show_no_plane(self, error: Exception) -> None:
        """Say why the occurrences are in no plane; their sentences stay."""
        self._right.layout.display = "none"
        said = f"<p><i>{html.escape(str(error))}</i></p>"
        if said not in self._contexts.value:
            self._contexts.value += said
