"""Which occurrences a pass leaves out: by their position, by their norm, or by both.

In some models a few occurrences are longer than all others by orders of magnitude: the first ones
of a sequence, and some words wherever they stand (Sun et al. 2024). They decide Q(X), and a
regression over tokens follows the tokens that have some of them. An occurrence, not a token, is
what such a norm belongs to: a token may have it in one place and not in another.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embvar_kit.errors import ExtractionError


@dataclass(frozen=True)
class LeaveOut:
    """Which occurrences a pass leaves out.

    An occurrence is left out at every layer or at none, so that n_t is the same at each layer. The
    model reads the whole text all the same: what is left out is still context of the rest.

    A position is one in the sequence that the model reads, 0 for its first token. Begin tokens
    count: with one begin token, ``first=1`` leaves that out, ``first=2`` the first token of the
    text, too. Each piece of a sentence that was split is a sequence with first positions of its
    own, as the model sees no more than the piece. A word stands where its first token does.

    A norm is that of the hidden state, also where the embeddings are taken at another site, and
    that of the mean over its tokens for a word. It is compared at each hidden state that the pass
    takes, or at those named. An occurrence within rounding of the bound may fall on either side.

    ``min_count`` of a pass counts what positions leave, since norms are known only after the pass.
    Tokens of which the norms leave no occurrence are not in the result. The labels of a null are
    permuted before the pass, so that norms leave its counts near those of the tokens only.

    Args:
        first: leave out the occurrences at so many first positions of each sequence.
        norm: leave out an occurrence whose squared norm is at least this factor times the typical
            one at some hidden state. Typical is the median of ``‖x‖²`` over the occurrences in a
            sample of the corpus, which is run first (see :func:`embvar_kit.find_bounds`).
        layers: the hidden states at which the norm is compared; by default those of the pass.
        bounds: least squared norm, by hidden state, at which an occurrence is left out, in place of
            ``norm``. A sequence holds the bounds of the states 0, 1, 2 and so on.
        sample: number of sentences in the sample.
        seed: seed of its draw.
        found: how the bounds were found; :func:`embvar_kit.find_bounds` says it here.

    Raises:
        ExtractionError: if an argument makes no sense, or nothing is left out.

    >>> LeaveOut(first=1, bounds=[4.0, 900.0])
    LeaveOut(first=1, bounds={0: 4.0, 1: 900.0})
    >>> print(LeaveOut(first=2, norm=10))
    the first 2 positions of each sequence; squared norms from 10 times the median on
    """

    first: int = 0
    norm: float | None = None
    layers: Iterable[int] | None = None
    bounds: Mapping[int, float] | Sequence[float] | None = None
    sample: int = 256
    seed: int = 0
    found: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (("first", 0), ("sample", 1), ("seed", 0)):
            value = _whole(name, getattr(self, name))
            if value < least:
                raise ExtractionError(f"LeaveOut: {name} must be at least {least}, got {value}.")
            object.__setattr__(self, name, value)
        if self.norm is not None:
            object.__setattr__(self, "norm", _number("norm", self.norm))
            if self.norm <= 1:
                raise ExtractionError(
                    f"LeaveOut: norm={self.norm:g} would leave out about half of the text or more. "
                    "It is a factor to the median, such as 10."
                )
        if self.layers is not None:
            if self.norm is None:
                raise ExtractionError(
                    "LeaveOut: layers= says where norm= is compared; bounds= names its own states."
                )
            object.__setattr__(self, "layers", tuple(_whole("layers", at) for at in self.layers))
        if self.bounds is not None:
            if self.norm is not None:
                raise ExtractionError("LeaveOut: give norm=, a factor, or bounds=, not both.")
            object.__setattr__(self, "bounds", _as_bounds(self.bounds))
        if not (self.first or self.norm or self.bounds):
            raise ExtractionError("LeaveOut leaves nothing out: give first=, norm= or bounds=.")

    def told(self) -> dict[str, Any]:
        """What is left out, in a form that survives JSON unchanged."""
        named = {name: getattr(self, name) for name in ("first", "norm") if getattr(self, name)}
        if self.norm is not None:
            named |= {"sample": self.sample, "seed": self.seed}
            named |= {} if self.layers is None else {"layers": list(self.layers)}
        if self.bounds:
            named["bounds"] = {str(layer): bound for layer, bound in self.bounds.items()}
        return named | ({"found": dict(self.found)} if self.found else {})

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> LeaveOut:
        """What :meth:`told` told.

        >>> LeaveOut.from_told(LeaveOut(bounds={3: 50}).told()) == LeaveOut(bounds={3: 50.0})
        True
        """
        given = dict(told)
        if "bounds" in given:
            given["bounds"] = {int(layer): bound for layer, bound in given["bounds"].items()}
        return cls(**given)

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in ("first", "norm", "layers", "bounds")}
        named = ", ".join(f"{name}={value!r}" for name, value in given.items() if value)
        return f"LeaveOut({named})"

    def __str__(self) -> str:
        parts = []
        if self.first:
            count = f"{self.first} positions" if self.first > 1 else "position"
            parts.append(f"the first {count} of each sequence")
        if self.norm:
            parts.append(f"squared norms from {self.norm:g} times the median on")
        if self.bounds:
            least, most = min(self.bounds.values()), max(self.bounds.values())
            span = f"{least:,.4g}" if least == most else f"{least:,.4g} to {most:,.4g}, by layer,"
            parts.append(f"squared norms from {span} on")
        return "; ".join(parts)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool):
        raise ExtractionError(f"LeaveOut: {name} is a whole number, not {value!r}.")
    try:
        return operator.index(value)
    except TypeError as error:
        raise ExtractionError(f"LeaveOut: {name} is a whole number, not {value!r}.") from error


def _number(name: str, value: Any) -> float:
    """A positive number as a float."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0) or isinstance(value, bool):
        raise ExtractionError(f"LeaveOut: {name} is a positive number, not {value!r}.")
    return number


def _as_bounds(bounds: Mapping[int, float] | Iterable[float]) -> dict[int, float]:
    """Bounds by hidden state, ascending."""
    try:
        pairs = bounds.items() if isinstance(bounds, Mapping) else enumerate(bounds)
    except TypeError as error:
        raise ExtractionError(
            f"LeaveOut: bounds={bounds!r} is neither a mapping of hidden states to squared norms, "
            "such as {15: 3e4}, nor a sequence of one for each state."
        ) from error
    by_state = {_whole("bounds", layer): _number("bounds", bound) for layer, bound in pairs}
    if by_state and min(by_state) < 0:
        raise ExtractionError("LeaveOut: bounds name hidden states by their index, from 0 on.")
    return dict(sorted(by_state.items()))
