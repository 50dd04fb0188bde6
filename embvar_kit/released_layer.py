"""One layer of a file that the paper's authors published: its parts, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embvar_kit.errors import ReleaseError

SUM_TOLERANCE = 1e-5
"""How far ``Q - (M + V)`` may be from 0, relative to the largest of them: float32 subtraction."""

NORM_TOLERANCE = 1e-4
"""How far M may be from the squared norm of the stored mean, relative to it."""


@dataclass(frozen=True)
class Level:
    """What the parts of a file are called, at the level of tokens or of words.

    Attributes:
        by: ``"token"`` or ``"word"``.
        names, n, mean, Q, M, V: keys of a layer's dict.
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


TOKENS = Level("token", "tokens", "n_t", "mu_X_t", "Q_X_t", "M_X_t", "V_X_t")
WORDS = Level("word", "words", "n_w", "mu_X_w", "Q_X_w", "M_X_w", "V_X_w")


@dataclass(frozen=True)
class ReleasedLayer:
    """A layer's tokens (or words), in the order of the file.

    Attributes:
        where: file and layer, for messages.
        names: ``(T,)`` distinct strings.
        n: ``(T,)`` int64, at least 1.
        mean: ``(T, d)`` float32.
        Q, M, V: ``(T,)`` float64, in units of squared norm; ``Q = M + V`` as float32 has it.
    """

    where: str
    names: list[str]
    n: np.ndarray
    mean: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray

    @classmethod
    def of(cls, content: Any, where: str, level: Level, room: int) -> ReleasedLayer:
        """Check the dict of a layer.

        Args:
            content: the dict.
            where: file and layer, for messages.
            level: the names of its parts.
            room: bytes of the file. Means that need more, at two bytes a number, are a trick to
                fill the memory: one mean named often.

        Raises:
            ReleaseError: naming the layer, and the part or the token.
        """
        if type(content) is not dict:
            raise ReleaseError(f"{where}: a dict was expected, not a {type(content).__name__}.")
        missing = [key for key in level.keys if key not in content]
        if missing:
            other = WORDS if level is TOKENS else TOKENS
            hint = ""
            if all(key in content for key in other.keys):
                hint = f" It holds {other.by}s: use read_{other.by}_statistics."
            raise ReleaseError(f"{where}: {', '.join(map(repr, missing))} is missing.{hint}")
        names = valid_names(content[level.names], where, level.names)
        if not names:
            raise ReleaseError(f"{where}: there is no {level.by} in it.")
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise ReleaseError(f"{where}: {level.by} {twice!r} stands in it twice.")
        n = numbers(content[level.n], where, level.n, len(names))
        if (n < 1).any() or (n > 2**53).any() or (n != np.floor(n)).any():
            raise ReleaseError(f"{where}: {level.n!r} holds counts that are no whole numbers >= 1.")
        parts = {
            x: numbers(content[getattr(level, x)], where, getattr(level, x), len(names))
            for x in ("Q", "M", "V")
        }
        mean = _means(content[level.mean], where, level.mean, len(names), room)
        layer = cls(where, names, n.astype(np.int64), mean, **parts)
        layer._check_values(level)
        return layer

    def check_same(self, first: ReleasedLayer, level: Level) -> None:
        """Refuse a layer that has other tokens, counts or another width than the first.

        Raises:
            ReleaseError: naming the layer and the difference.
        """
        if self.names != first.names:
            there, here = set(first.names), set(self.names)
            for what, tokens in (("lacks", there - here), ("has besides", here - there)):
                if tokens:
                    raise ReleaseError(
                        f"{self.where}: it {what} {level.by} {min(tokens)!r}; every layer must "
                        f"have the {level.by}s of the first."
                    )
        counts = dict(zip(first.names, first.n.tolist(), strict=True))
        for name, n in zip(self.names, self.n.tolist(), strict=True):
            if counts[name] != n:
                raise ReleaseError(
                    f"{self.where}: {level.by} {name!r} occurs {n:,} times, in the first layer "
                    f"{counts[name]:,} times."
                )
        if self.mean.shape[1] != first.mean.shape[1]:
            raise ReleaseError(
                f"{self.where}: {level.mean!r} is {self.mean.shape[1]} wide, in the first layer "
                f"{first.mean.shape[1]}."
            )

    def _check_values(self, level: Level) -> None:
        """Refuse numbers that do not follow from a set of embeddings, within float32's rounding."""
        Q, M, V = self.Q, self.M, self.V
        scale = np.maximum(Q, M)
        norm = np.einsum("td,td->t", self.mean, self.mean, dtype=np.float64)
        # A running mean in float32 is off by at most some roundings a step.
        below = scale * (SUM_TOLERANCE + 4 * self.n * 2.0**-24)
        for wrong, said in (
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
                keys = {name: getattr(level, name) for name in ("Q", "M", "V", "mean")}
                raise ReleaseError(
                    f"{self.where}, {level.by} {self.names[at]!r}: {said.format(**keys)} "
                    f"(Q {Q[at]:.6g}, M {M[at]:.6g}, V {V[at]:.6g}, norm of the mean squared "
                    f"{norm[at]:.6g}). The file is damaged, or of another kind."
                )


def strings(value: Any, where: str, key: str) -> list[str]:
    """A list, tuple or array of strings as a list of plain ones.

    Raises:
        ReleaseError: if it is none.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "UO":
        try:
            value = value.tolist()
        except (ValueError, SystemError) as error:  # SystemError: NumPy, beyond the last character
            raise ReleaseError(f"{where}: {key!r} holds what is no Unicode text.") from error
    if type(value) not in (list, tuple):
        raise ReleaseError(f"{where}: {key!r} is no list of strings.")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str):
            raise ReleaseError(
                f"{where}: entry {number:,} of {key!r} is no string but a {type(item).__name__}."
            )
    return [str(item) for item in value]


def valid_names(value: Any, where: str, key: str) -> list[str]:
    """:func:`strings` that can be saved: half a surrogate pair, which no file takes, is refused.

    Raises:
        ReleaseError: if they are none.
    """
    found = strings(value, where, key)
    for number, name in enumerate(found, start=1):
        try:
            name.encode()
        except UnicodeError as error:
            raise ReleaseError(
                f"{where}: entry {number:,} of {key!r} is no valid Unicode text: it holds half a "
                "surrogate pair."
            ) from error
    return found


def numbers(value: Any, where: str, key: str, length: int) -> np.ndarray:
    """``(length,)`` float64 finite numbers, from a list, a tuple or an array.

    Raises:
        ReleaseError: if they are none, or not so many.
    """
    if type(value) in (list, tuple):
        for number, item in enumerate(value, start=1):
            if type(item) is bool or not isinstance(item, (int, float, np.integer, np.floating)):
                raise ReleaseError(
                    f"{where}: entry {number:,} of {key!r} is no number but a "
                    f"{type(item).__name__}."
                )
    elif not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim != 1:
        raise ReleaseError(f"{where}: {key!r} is no list of numbers.")
    if len(value) != length:
        raise ReleaseError(
            f"{where}: {key!r} has {len(value):,} entries, and there are {length:,} names."
        )
    try:
        found = np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise ReleaseError(f"{where}: {key!r} holds a number too large for float64.") from error
    _check_finite(found, where, key)
    return found


def _means(value: Any, where: str, key: str, length: int, room: int) -> np.ndarray:
    """``(length, d)`` float32, from such an array or a list of ``(d,)`` arrays."""
    if isinstance(value, np.ndarray) and value.ndim != 2:
        raise ReleaseError(f"{where}: {key!r} has shape {value.shape}, not (T, d).")
    if not isinstance(value, np.ndarray) and type(value) not in (list, tuple):
        raise ReleaseError(f"{where}: {key!r} is no array and no list of arrays.")
    if len(value) != length:
        raise ReleaseError(
            f"{where}: {key!r} has {len(value):,} entries, and there are {length:,} names."
        )
    width = 0
    for number, row in enumerate(value, start=1):
        if not isinstance(row, np.ndarray) or row.dtype.kind != "f" or row.ndim != 1:
            raise ReleaseError(f"{where}: entry {number:,} of {key!r} is no array of (d,) floats.")
        width = width or len(row)
        if len(row) != width or not width:
            raise ReleaseError(
                f"{where}: entry {number:,} of {key!r} is {len(row)} wide, the first {width}."
            )
    if length * width * 2 > room:
        raise ReleaseError(f"{where}: {key!r} claims more numbers than the file holds.")
    mean = np.empty((length, width), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        for at, row in enumerate(value):
            mean[at] = row
    _check_finite(mean, where, key)
    return mean


def _check_finite(found: np.ndarray, where: str, key: str) -> None:
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if not finite.all():
        raise ReleaseError(
            f"{where}: entry {int(finite.argmin()) + 1:,} of {key!r} is NaN or infinite."
        )
