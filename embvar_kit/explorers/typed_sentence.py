"""A sentence that the reader types: the model reads it, and a token's occurrence gets its numbers.

Its squared norm is one of those whose mean is Q, and its squared distance from the token's mean one
of those whose mean is V.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets as widgets
import numpy as np

from embvar_kit.corpora.byte_level import named
from embvar_kit.errors import EmbvarError
from embvar_kit.explorers.controls import paragraph, with_class, wrapping_row
from embvar_kit.explorers.progress import CancelledError, Progress
from embvar_kit.explorers.rendering import Prefetcher
from embvar_kit.explorers.tables import MOST_NAMED, explained, number, table
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:  # this imports torch, which takes seconds
    from embvar_kit.explorers.concordance import Concordance, Insertion

_STEPS = ("Loading the model", "Waiting for the model", "Running the model on your sentence")
_MOST_TOKENS = 60  # tokens of a sentence that are listed
_REACH = 50  # characters of the sentence around the token


class Distances(NamedTuple):
    """Squared norms of a token's occurrences in a typed sentence, at one layer.

    Attributes:
        norm: ``(k,)`` the squared norm of each occurrence's embedding.
        from_mean: ``(k,)`` its squared distance from the token's mean; ``None`` where the
            statistics do not hold the mean.
    """

    norm: np.ndarray
    from_mean: np.ndarray | None


def distances(stats: TokenStatistics, token: str, layer: int, insertion: Insertion) -> Distances:
    """Squared norms of a token's occurrences in a sentence, and of their distances from its mean.

    Q and V of the token are the means of these two over all its occurrences in the corpus.

    Args:
        stats: the statistics that the token's mean is taken from.
        token: one of their tokens.
        layer: one of their layers.
        insertion: the sentence, in which the token occurs.
    """
    x = insertion.occurrences.at(layer).astype(np.float64)
    norm = np.einsum("kd,kd->k", x, x)
    if stats.mean is None:
        return Distances(norm, None)
    at, row = _place(stats, token, layer)
    away = x - stats.mean[row, at]
    return Distances(norm, np.einsum("kd,kd->k", away, away))


class SentenceBox:
    """A box for a sentence, and below it what the model makes of the card's token in it.

    Args:
        concordance: gives the concordance of statistics; called in another thread, as it may load
            the model.
        changed: called when :attr:`insertion` has changed.

    Attributes:
        view: the widget.
        text: the box; the sentence is read when Enter is pressed in it.
        insertion: what is known of the sentence and the card's token; ``None`` while nothing is, or
            if the token does not occur in it.
        runs: the runs of the model, by statistics, token and sentence.
    """

    def __init__(
        self, concordance: Callable[[TokenStatistics], Concordance], changed: Callable[[], None]
    ) -> None:
        self._concordance, self._changed = concordance, changed
        self._stats: TokenStatistics | None = None
        self._sources: dict[int, TokenStatistics] = {}
        self._token, self._layer, self._unbiased = "", 0, False
        self.insertion: Insertion | None = None
        self.text = widgets.Text(
            description="your sentence",
            continuous_update=False,
            tooltip="the model reads it as it reads the corpus, and the token's occurrence in it "
            "gets a cross among the others",
            style={"description_width": "initial"},
            layout={"flex": "1 1 320px", "width": "auto"},
        )
        with_class(self.text, "embvar-sentence").observe(lambda _: self.request(), "value")
        run = widgets.Button(description="run", tooltip="run the model on your sentence")
        with_class(run, "embvar-sentence-run").on_click(lambda _: self.request())
        self._progress = Progress("embvar-sentence", _STEPS, self.request)
        self._told = paragraph("embvar-sentence-told")
        row = wrapping_row(self.text, run)
        row.layout.width = "100%"
        self.view = widgets.VBox([row, self._progress.view, self._told])
        self.runs = Prefetcher(self._run, self._show_run, self._show_error, keep=20)

    def show(self, stats: TokenStatistics, token: str, layer: int, unbiased: bool = False) -> None:
        """Look for a token in the sentence, and show its numbers at a layer.

        Args:
            stats: the statistics shown.
            token: one of their tokens.
            layer: one of their layers.
            unbiased: whether the card shows V corrected for finite samples, which is not the mean
                of squared distances: it is then named beside it.
        """
        self.view.layout.display = None
        same = self._stats is stats and self._token == token
        self._stats, self._token, self._layer, self._unbiased = stats, token, layer, unbiased
        self._sources[id(stats)] = stats
        name = named(token, stats.texts[_place(stats, token, layer)[0]])
        self.text.placeholder = f"type a sentence with {name} in it, and press Enter"
        if not same:
            self._forget()
            if self.text.value.strip():
                self.request()
        elif self.insertion is not None:
            self._tell_numbers()

    def close(self) -> None:
        """Hide the box; what is typed in it stays."""
        self.view.layout.display = "none"
        self._stats = None
        self._forget()

    def request(self) -> None:
        """Run the model on the sentence, unless it has been; without one, do not load it."""
        if self._stats is None:
            return
        if not self.text.value.strip():
            self._forget()
            self._tell("<i>Type a sentence: there is no text yet.</i>")
            return
        self._progress.restart()
        key = id(self._stats), self._token, self.text.value
        if key not in self.runs:
            self._forget()
            self._progress.show()
        self.runs.request(key)

    def wait(self, seconds: float = 120.0) -> bool:
        """Wait until the model has read the sentence; return whether it was in time."""
        return self.runs.wait(seconds)

    def _run(self, key: tuple[int, str, str]) -> Insertion:
        source, token, sentence = key
        begin = self._progress.stepper()
        begin(0)
        concordance = self._concordance(self._sources[source])
        begin(1)
        with concordance.lock:
            begin(2)
            return concordance.insert(sentence, token)

    def _show_run(self, key: tuple[int, str, str], insertion: Insertion) -> None:
        if key != (id(self._stats), self._token, self.text.value):
            return  # the reader went on
        self._progress.hide()
        self.insertion = None if insertion.occurrences is None else insertion
        if self.insertion is None:
            self._tell_tokens(insertion)
        else:
            self._tell_numbers()
        self._changed()

    def _show_error(self, error: Exception) -> None:
        if isinstance(error, CancelledError):
            return
        self._progress.hide()
        reason = (
            str(error) if isinstance(error, EmbvarError) else f"{type(error).__name__}: {error}"
        )
        self._tell(f"<i>{html.escape(reason)}</i>")

    def _forget(self) -> None:
        """Show nothing of the sentence of before."""
        self._progress.hide()
        self._told.value = ""
        had, self.insertion = self.insertion is not None, None
        if had:
            self._changed()

    def _tell(self, told: str) -> None:
        self._told.value = f"<div role='status'>{told}</div>"

    def _tell_tokens(self, insertion: Insertion) -> None:
        """Say that the token does not occur in the sentence, and which do."""
        stats = self._stats
        texts = dict(zip(map(str, stats.tokens), stats.texts, strict=True))
        names = [html.escape(named(one, texts.get(one, one))) for one in map(str, insertion.tokens)]
        more = len(names) - _MOST_TOKENS
        listed = ", ".join(f"<b>{name}</b>" for name in names[:_MOST_TOKENS])
        listed += f" and {more:,} more" if more > 0 else ""
        missing = html.escape(named(self._token, texts[self._token]))
        self._tell(f"<i>{missing} does not occur in your sentence.</i> The model reads: {listed}.")

    def _tell_numbers(self) -> None:
        """Show the numbers of the token's occurrences at the layer, beside the token's Q and V."""
        stats, insertion = self._stats, self.insertion
        at, row = _place(stats, self._token, self._layer)
        found = distances(stats, self._token, self._layer, insertion)
        away = ["not known"] * len(found.norm)
        if found.from_mean is not None:
            away = [number(value) for value in found.from_mean]
        lines = [
            [_around(*parts), number(norm), far]
            for parts, norm, far in zip(insertion.parts, found.norm, away, strict=True)
        ]
        more = len(lines) - MOST_NAMED
        heads = ["in your sentence", "squared norm", "squared distance from the token's mean"]
        Q, V = number(stats.Q[row, at]), number(stats.V[row, at])
        over = f"mean of all {stats.n[at]:,} in the corpus"
        last = [f"<i>{over}</i>", f"{explained('Q')} = {Q}", f"{explained('V')} = {V}"]
        told = f"<b>Layer {self._layer}</b>"
        told += table(heads, [*lines[:MOST_NAMED], last])
        if self._unbiased:
            told += "<p><i>V here is not corrected for the number of occurrences.</i></p>"
        if more > 0:
            told += f"<p>and {more:,} more in your sentence</p>"
        if found.from_mean is None:
            told += (
                "<p><i>These statistics are compact and do not hold the token's mean, so the "
                "distance from it is not known.</i></p>"
            )
        self._tell(told)


def _place(stats: TokenStatistics, token: str, layer: int) -> tuple[int, int]:
    """The index of a token in the statistics, and the row of a layer."""
    at = int((stats.tokens.astype(str) == token).nonzero()[0][0])
    return at, int((stats.layers == layer).nonzero()[0][0])


def _around(left: str, keyword: str, right: str) -> str:
    """HTML: an occurrence in its sentence, with a few words around it."""
    left = left if len(left) <= _REACH else f"…{left[-_REACH:]}"
    right = right if len(right) <= _REACH else f"{right[:_REACH]}…"
    before, word, after = map(html.escape, (left, keyword, right))
    return f"{before}<b>{word}</b>{after}"
