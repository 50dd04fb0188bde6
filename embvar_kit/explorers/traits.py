"""What the explorers' states are made of: values that are checked, and setting several at once.

Traitlets takes ``True`` for the number 1, and 1 for ``True``. A link or a line of code that has the
one in the place of the other has mixed two values up, and is refused.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
import traitlets

_TRUTH = (bool, np.bool_)


class Whole(traitlets.Int):
    """A whole number of any kind, Python's or NumPy's; no truth value."""

    def validate(self, obj: Any, value: Any) -> int:
        """Take a value, or refuse it by its name."""
        if not _is_whole(value):
            _refuse(self.name, value, "a whole number")
        return super().validate(obj, int(value))


class Number(traitlets.Float):
    """A finite number of any kind; no truth value."""

    def validate(self, obj: Any, value: Any) -> float:
        """Take a value, or refuse it by its name."""
        if not is_finite(value):
            _refuse(self.name, value, "a finite number")
        return super().validate(obj, float(value))


class YesOrNo(traitlets.Bool):
    """``True`` or ``False``, Python's or NumPy's; no number."""

    def validate(self, obj: Any, value: Any) -> bool:
        """Take a value, or refuse it by its name."""
        if not isinstance(value, _TRUTH):
            _refuse(self.name, value, "True or False")
        return bool(value)


class Counts(traitlets.TraitType):
    """The least and the most occurrences of the tokens chosen; ``None`` means no limit."""

    default_value = (10, 100_000)

    def validate(self, obj: Any, value: Any) -> tuple[int, int | None]:
        """Take a value, or refuse it by its name."""
        if isinstance(value, (tuple, list)) and len(value) == 2:
            least, most = value
            if _is_count(least) and (most is None or _is_count(most)):
                return int(least), None if most is None else int(most)
        _refuse(
            self.name,
            value,
            "the least and the most occurrences, as in (10, 100_000), or None for no limit",
        )


class AllOrNothing:
    """A state that sets several values at once: all of them, or none."""

    @abc.abstractmethod
    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""

    def _check_names(self, values: Mapping[str, Any]) -> None:
        """Refuse values that the state does not have."""
        known = self.values()
        if unknown := [name for name in values if name not in known]:
            raise traitlets.TraitError(f"There is no value {unknown[0]!r} to restore.")

    @abc.abstractmethod
    def _set(self, values: Mapping[str, Any]) -> None:
        """Set values in an order in which each is valid."""

    def restore(self, **values: Any) -> None:
        """Set several values at once; if one is not valid, all stay as they were.

        A value that is not named stays, too. Only what another model or site does not have adapts
        to it, as it does when the model is chosen by hand.

        Args:
            values: as :meth:`values` gives them, or some of them.

        Raises:
            traitlets.TraitError: if a value is invalid or unknown.
        """
        self._check_names(values)
        before = self.values()
        try:
            self._set(values)
        except traitlets.TraitError:
            self._set(before)
            raise


class Independent(AllOrNothing, traitlets.HasTraits):
    """A state each of whose values is valid or not, whatever the others are."""

    def values(self) -> dict[str, Any]:
        """What :meth:`restore` takes to show the same again."""
        chosen = (name for name, trait in self.traits().items() if not trait.read_only)
        return {name: getattr(self, name) for name in chosen}

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number and no truth value."""
    return not isinstance(value, _TRUTH) and isinstance(value, Real) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number, be it a float: a layer read from a table may be 2.0."""
    if isinstance(value, _TRUTH) or not isinstance(value, Real):
        return False
    return isinstance(value, Integral) or float(value).is_integer()


def _refuse(name: str | None, value: Any, wanted: str) -> NoReturn:
    raise traitlets.TraitError(f"{name}={value!r}: give {wanted}.")
