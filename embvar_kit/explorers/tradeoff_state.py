"""State of the trade-off explorer, without widgets: the choices, and the numbers they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets

from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.columns import BY_LAYER, COUNT, NORM, RESIDUAL, Column, Columns
from embvar_kit.explorers.points import Points, Statistics, by_name, points_of, usual_counts
from embvar_kit.explorers.search import Search, Vocabulary, counted, is_uncased
from embvar_kit.explorers.tables import times
from embvar_kit.explorers.traits import AllOrNothing, Counts, Whole, YesOrNo
from embvar_kit.figures.tradeoff import ZERO
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import HIGH_NORM_FACTOR, TokenStatistics

if TYPE_CHECKING:
    from embvar_kit.explorers.vocabularies import Vocabularies

_RESTORED = (
    *("model", "site", "counts", "special", "sinks", "unbiased", "only", "null"),
    *("layer", "scales", "colour_by", "shaded", "compare", "distance", "marked", "token"),
)

# The widest choice, in which any range is valid that has tokens.
_WIDEST = {"only": None, "compare": None, "unbiased": False, "special": True, "sinks": True}

# Traits that decide which tokens are shown and in which form, in the order of `choice`.
_CHOICE = ("counts", "special", "unbiased", "only", "sinks")
_NULL_OF_ALL = (
    "The null permutes the labels of all tokens, those of high norm too: it cannot be shown "
    "without them."
)

_SAME_AXES = 8.0  # layers whose ranges differ by at most this factor share their axes


class TradeoffState(AllOrNothing, traitlets.HasTraits):
    """What the trade-off explorer shows. Invalid values are rejected.

    Args:
        stats: one model's statistics, several by name, or ``{name: {site: statistics}}``.
        columns: further columns to colour and filter by, a table or a series indexed by token.
        vocabularies: where the models' tokenizers come from.
        values: initial values of the traits.

    Raises:
        StatisticsError: if ``stats`` is something else or empty, no token is in range, or
            ``columns`` do not fit.
        traitlets.TraitError: if a value is invalid, at the start or later.
    """

    model = traitlets.Unicode(help="name of the model shown")
    site = traitlets.Unicode(help="site shown, one of the model's")
    layer = Whole(help="the layer shown")
    counts = Counts(help="least and most occurrences; None means no limit")
    unbiased = YesOrNo(False, help="whether M and V are corrected for finite samples")
    special = YesOrNo(True, help="whether special tokens are shown")
    sinks = YesOrNo(True, help="whether high-norm tokens are shown")
    scales = traitlets.Enum(
        ("same", "own", "log"), help="axes: same for all layers, each layer's own, or logarithmic"
    )
    search = traitlets.Unicode("", help="tokens, their beginnings (stat*) or ends (*ing)")
    marked = traitlets.List(traitlets.Unicode(), help="the marked tokens, at every layer")
    token = traitlets.Unicode(None, allow_none=True, help="the token whose card is open")
    colour_by = traitlets.Unicode(COUNT, help="the column that gives the points their colours")
    only = traitlets.Any(
        None, help="a filter: (column, category) or (column, (least, most)); None shows all tokens"
    )
    null = YesOrNo(False, help="whether the null is drawn behind the tokens")
    shaded = YesOrNo(False, help="whether points are more transparent where many lie")
    compare = Whole(None, allow_none=True, help="layer to compare with the one shown")
    distance = traitlets.Enum(
        ("units", "share"),
        default_value="units",
        help="distance between two layers: squared norms, or fractions of each layer's mean Q",
    )
    fit = traitlets.Dict(
        read_only=True, help="n_tokens, cv_Q, slope, intercept, r2; or n_tokens and why no line"
    )
    null_fit = traitlets.Dict(read_only=True, help="the same of the null, where it is drawn")
    drawn = traitlets.Int(0, read_only=True, help="grows by one whenever the points change")

    def __init__(
        self,
        stats: Statistics,
        columns: pd.DataFrame | pd.Series | None = None,
        vocabularies: Vocabularies | None = None,
        **values: object,
    ) -> None:
        self.sources = by_name(stats)
        self.columns = Columns(self.sources, columns, vocabularies)
        self.chosen = lru_cache(maxsize=16)(self._make_points)
        self._null_points = lru_cache(maxsize=4)(self._make_null_points)
        self._names: dict[tuple[str, str], set[str]] = {}
        self._high_norm = lru_cache(maxsize=None)(self._find_high_norm)
        self._vocabulary_of = lru_cache(maxsize=4)(self._make_vocabulary)
        self._uncased = lru_cache(maxsize=None)(self._has_no_case)
        self.settled = False
        first = next(iter(self.sources))
        super().__init__(model=values.pop("model", first))
        self.site = values.pop("site", next(iter(self.sources[self.model])))
        unbiased = bool(values.get("unbiased"))
        self.counts = values.get("counts", usual_counts(self.stats, unbiased=unbiased))
        self.settled = True
        self.layer = int(self.stats.layers[len(self.stats.layers) // 2])
        self.scales = self._fitting_scales()
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"The trade-off explorer has no value {name!r}.")
            setattr(self, name, value)
        self._update_fit()

    @property
    def stats(self) -> TokenStatistics:
        """The statistics of the model and site shown."""
        return self.sources[self.model][self.site]

    @property
    def points(self) -> Points:
        """The tokens of the current choice, at all layers."""
        return self.chosen(self.model, self.site, *self.choice)

    @property
    def null_points(self) -> Points | None:
        """The same tokens with the labels permuted; ``None`` where the null is not drawn."""
        if not self.null:
            return None
        return self._null_points(self.model, self.site, *self.choice)

    def column(self) -> Column:
        """The column that gives the points their colours, for the tokens and the layer shown."""
        points, name = self.points, self.colour_by
        if name not in BY_LAYER:
            whole = self.columns.of(self.stats, name)
            return replace(whole, values=whole.values[points.rows])
        at = points.at(self.layer)
        if name == NORM:
            return Column(name, points.Q[at], "<i>Q</i>, mean squared norm")
        values = np.full(len(points.n), np.nan) if (far := self._residual()) is None else far
        return Column(RESIDUAL, values, "<i>V</i> minus the line, squared norm")

    def filter_text(self) -> str:
        """The filter in words; empty if there is none."""
        if self.only is None:
            return ""
        name, only = self.only
        return self.columns.of(self.stats, name).told(only)

    def table(self, *, null: bool = False) -> pd.DataFrame:
        """``token, n, Q, M, V`` at the layer shown, the rarest first; ``null`` gives the null's."""
        points = self.null_points if null else self.points
        at = points.at(self.layer)
        columns = {"token": points.tokens, "n": points.n}
        return pd.DataFrame({**columns, **{name: getattr(points, name)[at] for name in "QMV"}})

    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends of the axes of M and of V.

        Linear ones begin at 0, or just below the least value: an unbiased M may be negative.
        """
        points = self.points
        at = slice(None) if self.scales == "same" else points.at(self.layer)
        Q, M, V = points.Q[at], points.M[at], points.V[at]
        if (null := self.null_points) is not None:
            both = zip((Q, M, V), (null.Q[at], null.M[at], null.V[at]), strict=True)
            Q, M, V = (np.concatenate(pair, axis=-1) for pair in both)
        ends = []
        for values in (M, V):
            if self.scales == "log":
                seen = values[values > ZERO * Q]
                low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1.0, 10.0)
                margin = max(high / low, 1.01) ** 0.04
                ends.append((low / margin, high * margin))
            else:
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
                ends.append((low - margin if low < 0 else 0.0, high + margin))
        return ends[0], ends[1]

    def axes_note(self) -> str:
        """Why the axes are logarithmic, and how many tokens they cannot place; else empty."""
        if self.scales != "log":
            return ""
        points = self.points
        at = points.at(self.layer)
        (low_M, _), (low_V, _) = self.limits()
        at_edge = int(((points.M[at] < low_M) | (points.V[at] < low_V)).sum())
        why = (
            f": at some layer, Q of some tokens is {HIGH_NORM_FACTOR:g} times the median or more"
            if self.sinks and points.high_norm
            else ""
        )
        edge = f" At the edge: {counted(at_edge)} with M or V near 0 or below." if at_edge else ""
        return f"Logarithmic axes{why}.{edge}"

    def matches(self, text: str | None = None, most: int = 50) -> pd.DataFrame:
        """Tokens shown that a search finds: ``token, n``; exact matches first, then by frequency.

        A byte-level token is found by its name (``Ã©``) and by its text (``é``).

        Args:
            text: what to look for, :attr:`search` by default; see
                :mod:`embvar_kit.explorers.search`.
            most: how many tokens to return at most.
        """
        points = self.points
        order = self._looked_for(self.search if text is None else text).found(most)
        return pd.DataFrame({"token": points.tokens[order], "n": points.n[order]})

    def search_report(self) -> str:
        """What a search found besides a token itself, and what it did not find; may be empty."""
        return self._looked_for(self.search).report(self.counts)

    def has_high_norm(self) -> bool:
        """Whether the statistics shown have high-norm tokens, be they shown or left out."""
        return bool(self._high_norm(self.model, self.site).any())

    def residuals(self, most: int = 10) -> pd.DataFrame:
        """The tokens that lie farthest from the line: ``token, n, residual, M, V``.

        A residual is V minus what the line gives for M: positive above the line. The table is empty
        if there is no line.
        """
        columns = ["token", "n", "residual", "M", "V"]
        if (residual := self._residual()) is None:
            return pd.DataFrame(columns=columns)
        points = self.points
        at = points.at(self.layer)
        M, V = points.M[at], points.V[at]
        far = np.abs(residual)
        order = np.argpartition(-far, min(most, len(far)) - 1)[:most]  # a sort takes milliseconds
        order = order[np.argsort(-far[order], kind="stable")]
        values = (points.tokens, points.n, residual, M, V)
        return pd.DataFrame({n: v[order] for n, v in zip(columns, values, strict=True)})

    def moved(self, most: int = 10) -> pd.DataFrame:
        """The tokens that moved most between the layers :attr:`compare` and :attr:`layer`.

        Columns ``token, n, distance, M, V``: the distance in the plane of M and V, and the
        differences of M and of V, the deeper layer's minus the other's. Where :attr:`distance` is
        ``"share"``, each layer's M and V are divided by its mean Q first. The table is empty
        without a layer to compare with.
        """
        columns = ["token", "n", "distance", "M", "V"]
        if self.compare is None:
            return pd.DataFrame(columns=columns)
        points = self.points
        first, last = map(points.at, sorted((self.layer, self.compare)))
        unit = points.Q.mean(axis=1) if self.distance == "share" else np.ones(len(points.layers))
        M, V = (x[last] / unit[last] - x[first] / unit[first] for x in (points.M, points.V))
        distance = np.hypot(M, V)
        order = np.argsort(-distance, kind="stable")[:most]
        values = (points.tokens, points.n, distance, M, V)
        return pd.DataFrame({n: v[order] for n, v in zip(columns, values, strict=True)})

    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""
        return {name: getattr(self, name) for name in _RESTORED}

    def _set(self, values: Mapping[str, Any]) -> None:
        for name in ("model", "site"):  # to another one, what is not named adapts
            if name in values:
                setattr(self, name, values[name])
        kept = {name: getattr(self, name) for name in _WIDEST}
        if values.get("sinks", self.sinks) == self.sinks:  # else axes that fitted follow
            kept["scales"] = self.scales
        if "null" in values:  # with it, high-norm tokens cannot be left out
            self.null = False
        for name, value in _WIDEST.items():
            setattr(self, name, value)
        wanted = {**kept, **values}
        for name in _RESTORED:
            if name in wanted:
                setattr(self, name, wanted[name])

    def clear(self) -> None:
        """Remove all marks and close the card."""
        self.search, self.marked, self.token = "", [], None

    # Validation

    @traitlets.validate("model")
    def _known_model(self, proposal: Mapping) -> str:
        if proposal["value"] not in self.sources:
            raise traitlets.TraitError(
                f"There is no model {proposal['value']!r}, only {', '.join(self.sources)}."
            )
        return proposal["value"]

    @traitlets.validate("site")
    def _known_site(self, proposal: Mapping) -> str:
        if proposal["value"] not in self.sources[self.model]:
            raise traitlets.TraitError(
                f"{self.model} has no site {proposal['value']!r}, only "
                f"{', '.join(self.sources[self.model])}."
            )
        return proposal["value"]

    @traitlets.validate("layer", "compare")
    def _known_layer(self, proposal: Mapping) -> int | None:
        value = proposal["value"]
        if value is not None and self.settled and value not in self.stats.layers:
            raise traitlets.TraitError(
                f"Layer {value} was not extracted; there are "
                f"{', '.join(map(str, self.stats.layers))}."
            )
        return value

    @traitlets.validate("counts", "special", "unbiased", "only", "sinks")
    def _some_tokens(self, proposal: Mapping) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "only":
            value = self._checked(self.columns.filter_of, value)
        if not self.settled:
            return value
        if name == "sinks" and self.null and not value and self.has_high_norm():
            raise traitlets.TraitError(_NULL_OF_ALL)
        choice = dict(zip(_CHOICE, self.choice, strict=True))
        choice[name] = value
        try:
            # In the order of arguments that `points` uses: the result is cached for it.
            self.chosen(self.model, self.site, *choice.values())
        except StatisticsError as error:
            stays = f"The range stays: {times(self.counts)}"
            if name == "only":
                stays = f"What is shown stays: {self.filter_text() or 'all tokens'}"
            raise traitlets.TraitError(f"{error} {stays}.") from error
        return value

    @traitlets.validate("colour_by")
    def _known_column(self, proposal: Mapping) -> str:
        if self.settled and proposal["value"] not in BY_LAYER:
            self._checked(self.columns.of, proposal["value"])
        return proposal["value"]

    def _has_column(self, name: str) -> bool:
        """Whether the statistics shown have a column; the vocabulary it needs may be lacking."""
        if name not in self.columns.offered(self.stats):
            return False
        try:
            return name in BY_LAYER or bool(self.columns.of(self.stats, name))
        except StatisticsError:
            return False

    def _checked(self, of: Callable[[TokenStatistics, Any], Any], value: Any) -> Any:
        """What a method of the columns makes of a value, for the statistics shown."""
        try:
            return of(self.stats, value)
        except StatisticsError as error:
            raise traitlets.TraitError(str(error)) from error

    @traitlets.validate("null")
    def _has_null(self, proposal: Mapping) -> bool:
        if proposal["value"] and self.stats.null is None:
            raise traitlets.TraitError(
                f"The statistics of {self.model} have no null: extract with null=True. Statistics "
                "of some tokens only, or merged from parts, have none either."
            )
        if proposal["value"] and not self.sinks and self.has_high_norm():
            raise traitlets.TraitError(_NULL_OF_ALL)
        return proposal["value"]

    @traitlets.validate("marked", "token")
    def _known_tokens(self, proposal: Mapping) -> list[str] | str | None:
        value = proposal["value"]
        tokens = value if isinstance(value, list) else [] if value is None else [value]
        if absent := [token for token in tokens if token not in self._known]:
            shown = ", ".join(map(repr, absent[:5]))
            raise traitlets.TraitError(f"{shown}: not among the tokens of {self.model}.")
        return list(dict.fromkeys(value)) if isinstance(value, list) else value

    # Updates

    @traitlets.observe("model", "site")
    def _change_statistics(self, change: Mapping) -> None:
        """Adapt the other values to another model or site, then update the points once."""
        if not self.settled:
            return
        self.settled = False
        try:
            self._adapt(change)
        finally:
            self.settled = True
        self._update_fit()

    def _adapt(self, change: Mapping) -> None:
        before = self.sources[change["old"]] if change["name"] == "model" else None
        if before is not None and self.site not in self.sources[self.model]:
            self.site = next(iter(self.sources[self.model]))
        layers = self.stats.layers
        if before is not None:  # keep the relative depth
            old = next(iter(before.values())).layers
            depth = float(np.searchsorted(old, self.layer)) / max(1, len(old) - 1)
            self.layer = int(layers[round(depth * (len(layers) - 1))])
            self.compare = None
        elif self.layer not in layers:
            self.layer = int(layers[np.abs(layers - self.layer).argmin()])
        if self.compare is not None and self.compare not in layers:
            self.compare = None
        if self.stats.null is None or (not self.sinks and self.has_high_norm()):
            self.null = False
        if not self._has_column(self.colour_by):
            self.colour_by = COUNT
        rarest = max(self.stats.least_count, 2 if self.unbiased else 1)
        counts = (max(self.counts[0], rarest), self.counts[1])
        if self.only is not None:  # a filter of the other model that fits this one is kept
            try:
                self.columns.filter_of(self.stats, self.only)
                self.chosen(self.model, self.site, counts, *self.choice[1:])
            except StatisticsError:
                self.only = None
        try:
            self.chosen(self.model, self.site, counts, *self.choice[1:])
        except StatisticsError:  # a range of the other model, in which this one has no token
            counts = (rarest, None)
        self.counts = counts
        known = self._known
        self.marked = [token for token in self.marked if token in known]
        if self.token not in known:
            self.token = None
        self.scales = self._fitting_scales()

    @traitlets.observe("layer", "counts", "special", "unbiased", "scales", "only", "null")
    def _change_points(self, _: object) -> None:
        if self.settled:
            self._update_fit()

    @traitlets.observe("sinks")
    def _change_sinks(self, change: Mapping) -> None:
        """Update the points; axes that fitted those of before will fit those of now."""
        if not self.settled:
            return
        before = self.chosen(self.model, self.site, *self.choice[:-1], change["old"])
        if self.scales == self._fitting_scales(before, change["old"]):
            self.settled = False  # the points are drawn once
            try:
                self.scales = self._fitting_scales()
            finally:
                self.settled = True
        self._update_fit()

    @traitlets.observe("search")
    def _mark_sought(self, _: object) -> None:
        """Mark the tokens searched for; the card opens only for a single token named in full."""
        tokens, search = self.points.tokens, self._looked_for(self.search)
        self.marked = [str(token) for token in tokens[search.marked]]
        self.token = None if search.single is None else str(tokens[search.single])

    def _update_fit(self) -> None:
        self.set_trait("fit", self._fit_of(self.points))
        null = self.null_points
        self.set_trait("null_fit", {} if null is None else self._fit_of(null))
        self.set_trait("drawn", self.drawn + 1)

    def _fit_of(self, points: Points) -> dict[str, Any]:
        at = points.at(self.layer)
        try:
            line = analysis.tradeoff(points.Q[at], points.M[at], points.V[at])._asdict()
        except StatisticsError as error:
            return {"n_tokens": len(points.n), "why": str(error)}
        return {name: value for name, value in line.items() if value is not None}

    def _residual(self) -> np.ndarray | None:
        """V of the tokens shown minus what the line gives for M; ``None`` without a line."""
        if "slope" not in self.fit:
            return None
        at = self.points.at(self.layer)
        M, V = self.points.M[at], self.points.V[at]
        return V - (self.fit["intercept"] + self.fit["slope"] * M)

    @property
    def choice(self) -> tuple:
        """Which tokens are shown, and in which form."""
        return self.counts, self.special, self.unbiased, self.only, self.sinks

    @property
    def _known(self) -> set[str]:
        """All tokens of the statistics shown."""
        key = (self.model, self.site)
        if key not in self._names:
            self._names[key] = {str(token) for token in self.stats.tokens}
        return self._names[key]

    def _looked_for(self, text: str) -> Search:
        """A search among the tokens of the current choice, and besides among all others."""
        model, site = self.model, self.site
        choice = (self.counts, self.special, self.only, self.sinks)
        shown = self._vocabulary_of(model, site, choice)
        outside = None
        if self.only is not None:
            outside = ~self.columns.of(self.stats, self.only[0]).kept(self.only[1])
        whole = self._vocabulary_of(model, site, None)
        high_norm = None if self.sinks else self._high_norm(model, site)
        return Search(text, shown, whole, outside, self.filter_text(), high_norm)

    def _make_vocabulary(self, model: str, site: str, choice: tuple | None) -> Vocabulary:
        among = self.sources[model][site] if choice is None else self.points
        uncased = self._uncased(model, site)
        return Vocabulary(among.tokens, among.texts, among.n, any_case=uncased)

    def _has_no_case(self, model: str, site: str) -> bool:
        stats = self.sources[model][site]
        return is_uncased(stats.texts[~stats.special])

    def _make_points(
        self,
        model: str,
        site: str,
        counts: tuple,
        special: bool,
        unbiased: bool,
        only: tuple | None,
        sinks: bool,
    ) -> Points:
        stats, among, chosen_by = self.sources[model][site], None, "The filter"
        if only is not None:
            among = self.columns.of(stats, only[0]).kept(only[1])
        if not sinks:
            ordinary = ~self._high_norm(model, site)
            among = ordinary if among is None else among & ordinary
            chosen_by = "The choice without high norms"
        choice = {"special": special, "unbiased": unbiased}
        return points_of(stats, counts, **choice, among=among, chosen_by=chosen_by)

    def _find_high_norm(self, model: str, site: str) -> np.ndarray:
        """``(T,)`` which tokens of the statistics are of high norm at any layer."""
        stats = self.sources[model][site]
        return pd.Index(stats.tokens).isin(stats.high_norm()["token"])

    def _make_null_points(self, model: str, site: str, *choice: Any) -> Points:
        null, (counts, special, unbiased, only, _) = self.sources[model][site].null, choice
        among = None
        if only is not None:
            among = pd.Index(null.tokens).isin(self.chosen(model, site, *choice).tokens)
        return points_of(null, counts, special=special, unbiased=unbiased, among=among)

    def _fitting_scales(self, points: Points | None = None, sinks: bool | None = None) -> str:
        """Logarithmic axes if there are high-norm tokens; else the same if layers' ranges allow.

        Args:
            points: the tokens, by default those shown.
            sinks: whether those of high norm are among them, by default as now. Without them the
                median is another one, and a ratio to it can be just above the bound again.
        """
        points = self.points if points is None else points
        sinks = self.sinks if sinks is None else sinks
        if sinks and points.high_norm:
            return "log"
        spans = np.ptp(points.Q, axis=1), np.ptp(points.M, axis=1)
        widest = [float(span.max() / max(np.median(span), 1e-12)) for span in spans]
        return "same" if max(widest) < _SAME_AXES else "own"
