"""The trade-off explorer without its widgets: what is chosen, and the numbers that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import traitlets

from embvar_kit.errors import StatisticsError
from embvar_kit.figures.tradeoff import ZERO
from embvar_kit.statistics import analysis
from embvar_kit.statistics.token_statistics import SINK_FACTOR, TokenStatistics

MOST_MARKED = 500
"""A prefix marks at most so many tokens, the most frequent ones."""

_SAME = 8.0  # layers whose ranges differ by more than this factor get axes of their own


class TradeoffState(traitlets.HasTraits):
    """What the trade-off explorer shows. Values that make no sense are refused.

    Args:
        stats: one model's statistics, several by name, or ``{name: {site: statistics}}``.
        values: of the traits.
    """

    model = traitlets.Unicode(help="which of the models")
    site = traitlets.Unicode(help="which of its sites")
    layer = traitlets.Int(help="the layer shown")
    counts = traitlets.Tuple(
        traitlets.Int(min=1),
        traitlets.Int(min=1, allow_none=True),
        default_value=(10, 100_000),
        help="least and most occurrences; None is no limit",
    )
    unbiased = traitlets.Bool(False, help="the finite-sample corrected M and V")
    special = traitlets.Bool(True, help="whether special tokens are shown")
    scales = traitlets.Enum(
        ("same", "own", "log"), help="axes: the same for all layers, the layer's own, logarithmic"
    )
    search = traitlets.Unicode("", help="a token, or its beginning")
    marked = traitlets.List(traitlets.Unicode(), help="tokens marked, at every layer")
    token = traitlets.Unicode(None, allow_none=True, help="the token whose card is open")
    compare = traitlets.Int(None, allow_none=True, help="another layer, to see what moved")
    distance = traitlets.Enum(
        ("units", "share"), default_value="units", help="of a move: as drawn, or over mean Q"
    )
    fit = traitlets.Dict(read_only=True, help="n_tokens, cv_Q, slope, intercept, r2; or why none")
    drawn = traitlets.Int(0, read_only=True, help="grows by one whenever the points change")

    def __init__(self, stats: TokenStatistics | Mapping[str, Any], **values: Any) -> None:
        self.sources = by_name(stats)
        self._points = lru_cache(maxsize=16)(self._make_points)
        self._names: dict[tuple[str, str], set[str]] = {}
        self._settled = False
        first = next(iter(self.sources))
        super().__init__(model=values.pop("model", first))
        self.site = values.pop("site", next(iter(self.sources[self.model])))
        least = max(10, least_count(self.stats))
        self.counts = values.get("counts", (least, 100_000))
        self._settled = True
        self.layer = int(self.stats.layers[len(self.stats.layers) // 2])
        self.scales = self._fitting_scales()
        for name, value in values.items():
            if not self.has_trait(name):
                raise traitlets.TraitError(f"There is no {name!r} to set.")
            setattr(self, name, value)
        self._follow()

    @property
    def stats(self) -> TokenStatistics:
        """The statistics of the model and site chosen."""
        return self.sources[self.model][self.site]

    @property
    def points(self) -> Points:
        """The tokens of the present choice, at all layers."""
        return self._points(self.model, self.site, self.counts, self.special, self.unbiased)

    def table(self) -> pd.DataFrame:
        """The tokens shown, with ``token, n, Q, M, V`` of the layer shown, the rarest first."""
        points = self.points
        at = points.at(self.layer)
        columns = {"token": points.tokens, "n": points.n}
        return pd.DataFrame({**columns, **{name: getattr(points, name)[at] for name in "QMV"}})

    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The ends of the two axes, of M and of V, with some room."""
        points = self.points
        at = slice(None) if self.scales == "same" else points.at(self.layer)
        ends = []
        for values in (points.M[at], points.V[at]):
            if self.scales == "log":
                seen = values[values > ZERO * points.Q[at]]
                low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1.0, 10.0)
                room = max(high / low, 1.01) ** 0.04
                ends.append((low / room, high * room))
            else:
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
                ends.append((low - room, high + room))
        return ends[0], ends[1]

    def matches(self, text: str | None = None, most: int = 50) -> pd.DataFrame:
        """Tokens shown that are, or begin with, a text: ``token, n``, an exact match first."""
        text = self.search if text is None else text
        points = self.points
        beginning = text[:-1] if text.endswith("*") and len(text) > 1 else text
        if not beginning:
            return pd.DataFrame({"token": [], "n": []})
        names = points.tokens.astype(str)
        found = np.flatnonzero(np.char.startswith(names, beginning))
        order = sorted(found, key=lambda i: (names[i] != text, -points.n[i], names[i]))[:most]
        return pd.DataFrame({"token": points.tokens[order], "n": points.n[order]})

    def moved(self, most: int = 10) -> pd.DataFrame:
        """Tokens that moved most between :attr:`compare` and :attr:`layer`.

        Columns ``token, n, distance, M, V``: the distance in the plane of M and V, and the
        differences; each layer's M and V over its mean Q first, where :attr:`distance` is
        ``"share"``. Empty without a layer to compare with.
        """
        columns = ["token", "n", "distance", "M", "V"]
        if self.compare is None:
            return pd.DataFrame(columns=columns)
        points = self.points
        now, then = points.at(self.layer), points.at(self.compare)
        unit = points.Q.mean(axis=1) if self.distance == "share" else np.ones(len(points.layers))
        M, V = (x[now] / unit[now] - x[then] / unit[then] for x in (points.M, points.V))
        distance = np.hypot(M, V)
        order = np.argsort(-distance, kind="stable")[:most]
        values = (points.tokens, points.n, distance, M, V)
        return pd.DataFrame({n: v[order] for n, v in zip(columns, values, strict=True)})

    def clear(self) -> None:
        """Take all marks off and close the card."""
        self.search, self.marked, self.token = "", [], None

    # What is refused

    @traitlets.validate("model")
    def _known_model(self, proposal: Mapping) -> str:
        if proposal["value"] not in self.sources:
            raise traitlets.TraitError(
                f"There is no model {proposal['value']!r} here, only {', '.join(self.sources)}."
            )
        return proposal["value"]

    @traitlets.validate("site")
    def _known_site(self, proposal: Mapping) -> str:
        if proposal["value"] not in self.sources[self.model]:
            raise traitlets.TraitError(
                f"{self.model} has no site {proposal['value']!r} here, only "
                f"{', '.join(self.sources[self.model])}."
            )
        return proposal["value"]

    @traitlets.validate("layer", "compare")
    def _known_layer(self, proposal: Mapping) -> int | None:
        value = proposal["value"]
        if value is not None and self._settled and value not in self.stats.layers:
            raise traitlets.TraitError(
                f"Layer {value} was not extracted; there are "
                f"{', '.join(map(str, self.stats.layers))}."
            )
        return value

    @traitlets.validate("counts", "special", "unbiased")
    def _some_tokens(self, proposal: Mapping) -> Any:
        if not self._settled:
            return proposal["value"]
        choice = {"counts": self.counts, "special": self.special, "unbiased": self.unbiased}
        choice[proposal["trait"].name] = proposal["value"]
        try:
            self._points(self.model, self.site, *choice.values())  # as `points` asks: it is cached
        except StatisticsError as error:
            raise traitlets.TraitError(str(error)) from error
        return proposal["value"]

    @traitlets.validate("marked", "token")
    def _known_tokens(self, proposal: Mapping) -> Any:
        value = proposal["value"]
        asked = value if isinstance(value, list) else [] if value is None else [value]
        if absent := [token for token in asked if token not in self._known]:
            shown = ", ".join(map(repr, absent[:5]))
            raise traitlets.TraitError(f"{shown}: not among the tokens of {self.model}.")
        return list(dict.fromkeys(value)) if isinstance(value, list) else value

    # What follows

    @traitlets.observe("model", "site")
    def _other_statistics(self, change: Mapping) -> None:
        if not self._settled:
            return
        self._settled = False  # one change of the points, not one for each value that adapts
        before = self.sources[change["old"]] if change["name"] == "model" else None
        if before is not None and self.site not in self.sources[self.model]:
            self.site = next(iter(self.sources[self.model]))
        layers = self.stats.layers
        if before is not None:  # the same relative depth
            old = next(iter(before.values())).layers
            depth = float(np.searchsorted(old, self.layer)) / max(1, len(old) - 1)
            self.layer = int(layers[round(depth * (len(layers) - 1))])
            self.compare = None
        elif self.layer not in layers:
            self.layer = int(layers[np.abs(layers - self.layer).argmin()])
        if self.compare is not None and self.compare not in layers:
            self.compare = None
        if self.counts[0] < least_count(self.stats):
            self.counts = (least_count(self.stats), self.counts[1])
        known = self._known
        self.marked = [token for token in self.marked if token in known]
        if self.token not in known:
            self.token = None
        self.scales = self._fitting_scales()
        self._settled = True
        self._follow()

    @traitlets.observe("layer", "counts", "special", "unbiased", "scales")
    def _other_points(self, _: object) -> None:
        if self._settled:
            self._follow()

    @traitlets.observe("search")
    def _found(self, _: object) -> None:
        """Mark the token searched for; or, if there is none of that name, those that begin so."""
        found = self.matches(most=MOST_MARKED)["token"].tolist()
        exact = self.search in found
        self.marked = [self.search] if exact else found
        if exact or len(found) == 1:
            self.token = found[0]

    def _follow(self) -> None:
        points = self.points
        at = points.at(self.layer)
        try:
            fit = analysis.tradeoff(points.Q[at], points.M[at], points.V[at])._asdict()
        except StatisticsError as error:
            fit = {"n_tokens": len(points.n), "why": str(error)}
        self.set_trait("fit", fit)
        self.set_trait("drawn", self.drawn + 1)

    @property
    def _known(self) -> set[str]:
        of = (self.model, self.site)
        if of not in self._names:
            self._names[of] = {str(token) for token in self.stats.tokens}
        return self._names[of]

    def _make_points(
        self, model: str, site: str, counts: tuple, special: bool, unbiased: bool
    ) -> Points:
        return points_of(self.sources[model][site], counts, special=special, unbiased=unbiased)

    def _fitting_scales(self) -> str:
        """The same axes for all layers where these have room on them; of sinks, logarithmic."""
        Q = self.points.Q
        if (Q.max(axis=1) >= SINK_FACTOR * np.median(Q, axis=1)).any():
            return "log"
        spans = np.ptp(Q, axis=1), np.ptp(self.points.M, axis=1)
        widest = [float(span.max() / max(np.median(span), 1e-12)) for span in spans]
        return "same" if max(widest) < _SAME else "own"


# Points


@dataclass(frozen=True)
class Points:
    """The tokens of a choice, the rarest first, at all layers.

    Attributes:
        tokens: ``(T,)``. n: ``(T,)``. layers: ``(L,)``. Q, M, V: ``(L, T)``; M and V in the form
            chosen, measured or unbiased.
    """

    tokens: np.ndarray
    n: np.ndarray
    layers: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray

    def at(self, layer: int) -> int:
        """The row of a layer."""
        return int(np.flatnonzero(self.layers == layer)[0])

    def rows(self, tokens: Iterable[str]) -> np.ndarray:
        """Where these tokens are, in their order; those that are not here are left out."""
        tokens = list(tokens)
        found = self._index.get_indexer(tokens) if tokens else np.array([], dtype=int)
        return found[found >= 0]

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.tokens)


def by_name(stats: TokenStatistics | Mapping[str, Any]) -> dict[str, dict[str, TokenStatistics]]:
    """Statistics by model and site, from one, ``{name: one}`` or ``{name: {site: one}}``.

    What :func:`embvar_kit.extract` gives for a list of sites, ``{site: one}``, is one model's.

    Raises:
        StatisticsError: if something else is given, or nothing.
    """

    def site(one: TokenStatistics) -> str:
        return str(one.info.get("convention", {}).get("site", "hidden"))

    def model(one: TokenStatistics) -> str:
        return str(one.info["model"]["name"])

    if isinstance(stats, TokenStatistics):
        return {model(stats): {site(stats): stats}}
    if not isinstance(stats, Mapping) or not stats:
        raise StatisticsError("Give TokenStatistics, or several by name: {name: statistics}.")
    ones = list(stats.values())
    sites_of_one = (
        len(ones) > 1
        and all(isinstance(one, TokenStatistics) for one in ones)
        and [site(one) for one in ones] == list(stats)
        and len({model(one) for one in ones}) == 1
    )
    if sites_of_one:
        return {model(ones[0]): dict(stats)}
    found = {}
    for name, one in stats.items():
        sites = {site(one): one} if isinstance(one, TokenStatistics) else one
        values = list(sites.values()) if isinstance(sites, Mapping) else []
        if not values or not all(isinstance(each, TokenStatistics) for each in values):
            raise StatisticsError("Give TokenStatistics by name, or {name: {site: statistics}}.")
        found[str(name)] = dict(sites)
    return found


def points_of(
    stats: TokenStatistics, counts: tuple[int, int | None], *, special: bool, unbiased: bool
) -> Points:
    """The tokens of a choice, at all layers.

    Args:
        stats: one model's statistics.
        counts: least and most occurrences; ``None`` is no limit.
        special: whether special tokens are kept.
        unbiased: the finite-sample corrected M and V.

    Raises:
        StatisticsError: if no token is left, or the form or the range cannot be had.
    """
    least, most = counts
    if most is not None and most < least:
        raise StatisticsError(f"No token occurs {least:,} times or more and {most:,} or less.")
    choice = {"min_count": least, "max_count": most, "special": special}
    table = stats.table(int(stats.layers[0]), **choice)
    if table.empty:
        raise StatisticsError("No token is in this range: widen it.")
    if unbiased and least < 2:
        raise StatisticsError(
            "The unbiased forms need two occurrences of a token: raise the range to 2."
        )
    kept = pd.Index(stats.tokens).get_indexer(table["token"])[::-1]
    n, M, V = stats.n[kept], stats.M[:, kept], stats.V[:, kept]
    if unbiased:
        M, V = analysis.unbiased(n, M, V)
    return Points(stats.tokens[kept], n, stats.layers, stats.Q[:, kept], M, V)


def least_count(stats: TokenStatistics) -> int:
    """The smallest count that statistics hold."""
    return int(stats.info.get("compact", {}).get("min_count", 1))
