"""One layer of the authors' files: the keys of its dict, and the checks of what they hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from embvar_kit.errors import ReleaseError

SUM_TOLERANCE = 1e-5
"""How far ``Q - (M + V)`` may be from 0, relative to the largest of them: float32 subtraction."""

NORM_TOLERANCE = 1e-4
"""How far M may be from the squared norm of the stored mean, relative to it."""


@dataclass(frozen=True)
class Columns:
    """The keys of a layer's dict.

    Attributes:
        by: ``"token"`` or ``"word"``: what the rows are.
        names, n, mean, Q, M, V: keys of these quantities.
    """

    by: str
    names: str
    n: str
    mean: str
    Q: str
    M: str
    V: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order in which the authors write them."""
        return (self.names, self.n, self.mean, self.Q, self.M, self.V)


TOKENS = Columns("token", "tokens", "n_t", "mu_X_t", "Q_X_t", "M_X_t", "V_X_t")
WORDS = Columns("word", "words", "n_w", "mu_X_w", "Q_X_w", "M_X_w", "V_X_w")


@dataclass(frozen=True)
class ReleasedLayer:
    """A layer's tokens (or words), in the order of the file.

    Attributes:
        columns: the keys of its dict, for messages.
        names: ``(T,)`` distinct strings.
        n: ``(T,)`` int64, at least 1.
        mean: ``(T, d)`` float32.
        Q, M, V: ``(T,)`` float64, in units of squared norm; ``Q = M + V`` within float32 rounding.
    """

    columns: Columns
    names: list[str]
    n: np.ndarray
    mean: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray

    @classmethod
    def of(cls, content: Any, columns: Columns, file_size: int) -> ReleasedLayer:
        """Check the dict of a layer.

        Args:
            content: the dict.
            columns: its keys.
            file_size: bytes of the file. Means that need more, at two bytes a number, are refused:
                they would fill the memory with one mean that is listed many times.

        Raises:
            ReleaseError: Naming the column or the token.
        """
        if type(content) is not dict:
            raise ReleaseError(f"a dict was expected, not a {type(content).__name__}.")
        missing = [key for key in columns.keys if key not in content]
        if missing:
            other = WORDS if columns is TOKENS else TOKENS
            hint = ""
            if all(key in content for key in other.keys):
                hint = f" It holds {other.by}s: use read_{other.by}_statistics."
            raise ReleaseError(f"{', '.join(map(repr, missing))} is missing.{hint}")
        names = names_of(content[columns.names], columns)
        n, Q, M, V = (
            _numbers(content[key], key, len(names))
            for key in (columns.n, columns.Q, columns.M, columns.V)
        )
        if (n < 1).any() or (n > 2**53).any() or (n != np.floor(n)).any():
            raise ReleaseError(f"{columns.n!r} holds counts that are not integers >= 1.")
        mean = _means(content[columns.mean], columns.mean, len(names), file_size)
        layer = cls(columns, names, n.astype(np.int64), mean, Q, M, V)
        layer._check_values()
        return layer

    def positions_in(self, first: ReleasedLayer) -> np.ndarray:
        """``(T,)`` where the file's first layer has each token.

        Raises:
            ReleaseError: If this layer has other tokens, counts or another width than the first;
                the message names the difference.
        """
        by = self.columns.by
        here, there = set(self.names), set(first.names)
        for what, tokens in (("lacks", there - here), ("also has", here - there)):
            if tokens:
                raise ReleaseError(
                    f"it {what} {by} {min(tokens)!r}; every layer must have the {by}s of the first."
                )
        position = {name: at for at, name in enumerate(first.names)}
        found = np.array([position[name] for name in self.names])
        differs = self.n != first.n[found]
        if differs.any():
            at = int(differs.argmax())
            raise ReleaseError(
                f"{by} {self.names[at]!r} occurs {self.n[at]:,} times, in the first layer "
                f"{first.n[found[at]]:,} times."
            )
        width, expected = self.mean.shape[1], first.mean.shape[1]
        if width != expected:
            raise ReleaseError(
                f"{self.columns.mean!r} is {width} wide, in the first layer {expected}."
            )
        return found

    def _check_values(self) -> None:
        """Refuse numbers that no set of embeddings has, within float32 rounding."""
        Q, M, V = self.Q, self.M, self.V
        scale = np.maximum(Q, M)
        norm = np.einsum("td,td->t", self.mean, self.mean, dtype=np.float64)
        # A running mean in float32 is off by at most a few roundings per step.
        below = scale * (SUM_TOLERANCE + 4 * self.n * 2.0**-24)
        for wrong, problem in (
            ((Q < 0) | (M < 0), "{Q} or {M} is negative"),
            (np.abs(Q - M - V) > SUM_TOLERANCE * scale, "{Q} is not {M} + {V}"),
            (V < -below, "{V} is negative beyond rounding"),
            (
                np.abs(M - norm) > NORM_TOLERANCE * np.maximum(M, norm),
                "{M} is not the squared norm of {mean}",
            ),
        ):
            if wrong.any():
                at = int(wrong.argmax())
                raise ReleaseError(
                    f"{self.columns.by} {self.names[at]!r}: "
                    f"{problem.format(**vars(self.columns))} (Q {Q[at]:.6g}, M {M[at]:.6g}, "
                    f"V {V[at]:.6g}, squared norm of the mean {norm[at]:.6g}). The file is "
                    "damaged, or of another kind."
                )


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put the file, or the layer in it, in front of an error's message."""
    try:
        yield
    except ReleaseError as error:
        raise ReleaseError(f"{place}: {error}") from error


def names_of(value: Any, columns: Columns) -> list[str]:
    """The names of a layer: distinct strings, at least one, that can be saved.

    Raises:
        ReleaseError: If they are anything else.
    """
    names = entries_of(value, columns.names, "string", str)
    if not names:
        raise ReleaseError(f"it has no {columns.by}s.")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ReleaseError(f"{columns.by} {name!r} occurs in it {count:,} times.")
    for number, name in enumerate(names, start=1):
        if re.search("[\ud800-\udfff]", name):
            raise ReleaseError(
                f"entry {number:,} of {columns.names!r} is not valid Unicode text: it contains "
                "half a surrogate pair."
            )
    return names


def _numbers(value: Any, key: str, length: int) -> np.ndarray:
    """``(length,)`` float64 finite numbers."""
    value = entries_of(value, key, "number", (int, float, np.integer, np.floating), length)
    try:
        return _finite(np.array(value, dtype=np.float64), key)
    except OverflowError as error:
        raise ReleaseError(f"{key!r} holds a number too large for float64.") from error


def _means(value: Any, key: str, length: int, file_size: int) -> np.ndarray:
    """``(length, d)`` float32."""
    rows = entries_of(value, key, "array", np.ndarray, length)
    d = rows[0].size
    for number, row in enumerate(rows, start=1):
        if row.dtype.kind != "f" or row.shape != (d,):
            raise ReleaseError(
                f"entry {number:,} of {key!r} has shape {row.shape} and type {row.dtype}; all must "
                "be floats of the shape (d,)."
            )
    if not d:
        raise ReleaseError(f"{key!r} holds arrays without numbers.")
    if length * d * 2 > file_size:
        raise ReleaseError(f"{key!r} claims more numbers than the file holds.")
    mean = np.empty((length, d), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        np.stack(rows, out=mean, casting="same_kind")
    return _finite(mean, key)


def _finite(found: np.ndarray, key: str) -> np.ndarray:
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if not finite.all():
        raise ReleaseError(f"entry {int(finite.argmin()) + 1:,} of {key!r} is NaN or infinite.")
    return found


def entries_of(
    value: Any, key: str, what: str, types: type | tuple[type, ...], length: int | None = None
) -> list:
    """The entries of a list, tuple or array, which must be of these types (bools are of none).

    Args:
        value: the list.
        key: its name, for messages.
        what: what an entry is, for messages.
        types: what it has to be.
        length: how many there have to be, if that is known.

    Raises:
        ReleaseError: Naming the key, and the number of the entry.
    """
    array = isinstance(value, np.ndarray) and value.size > 0  # a shape (10**15, 0) needs no bytes
    if not array and type(value) not in (list, tuple):
        raise ReleaseError(f"{key!r} is not a list of {what}s.")
    if length is not None and len(value) != length:
        raise ReleaseError(f"{key!r} has {len(value):,} entries, but there are {length:,} names.")
    try:
        entries = value.tolist() if array and value.ndim == 1 else list(value)
    except (ValueError, SystemError) as error:  # NumPy's SystemError: beyond the last character
        raise ReleaseError(f"{key!r} is not valid Unicode text.") from error
    kinds = set(map(type, entries))
    wrong = {kind for kind in kinds if kind is bool or not issubclass(kind, types)}
    if wrong:
        number, kind = next((i, type(x)) for i, x in enumerate(entries, 1) if type(x) in wrong)
        raise ReleaseError(
            f"entry {number:,} of {key!r} has type {kind.__name__}; {what}s were expected."
        )
    return entries
