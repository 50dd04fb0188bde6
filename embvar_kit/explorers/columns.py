"""What the tokens of the trade-off explorer can be coloured and filtered by.

A column has one value a token: a number, or one of a few categories. Some are known from the
statistics (occurrences, Q, the distance from the line), one needs the model's vocabulary, and
readers bring their own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from embvar_kit.corpora.tokens import word_pieces
from embvar_kit.errors import StatisticsError
from embvar_kit.explorers.traits import is_finite
from embvar_kit.statistics.token_statistics import TokenStatistics

if TYPE_CHECKING:
    from embvar_kit.explorers.vocabularies import Vocabularies

COUNT, CHARACTERS, PIECE = "n", "characters", "piece"
RESIDUAL, NORM, DOCUMENTS, SUBWORDS = "residual", "Q", "documents", "subwords"

OFFERED = {
    COUNT: "occurrences (log)",
    CHARACTERS: "letters or punctuation",
    PIECE: "word or sub-word",
    RESIDUAL: "residual from the line",
    NORM: "Q",
    DOCUMENTS: "documents",
    SUBWORDS: "sub-words in a word",
}
"""The columns that need nothing of the reader, with their names in the list of colours."""

BY_LAYER = (RESIDUAL, NORM)
"""Those that differ from layer to layer. They cannot be used as filters: each layer would show
other tokens, and a residual is from the line that a filter decides."""

MOST_CATEGORIES = 8
"""As many colours as colour-blind readers can tell apart."""

_PIECES = ("whole word", "sub-word", "both")
_NO_WORD, _SPECIAL = "no letters", "special token"
_CHARACTERS = ("letters", "digits", "punctuation", "other", _SPECIAL)
_SPREAD = 100.0  # numbers above 0 whose ends differ by this factor get a logarithmic scale


@dataclass(frozen=True)
class Column:
    """One value for each token of some statistics.

    Attributes:
        name: by which the state refers to it.
        values: ``(T,)`` float64, NaN where a token has no value; of categories, their numbers.
        categories: the names of the categories; empty for numbers.
        title: what the legend says, with the unit.
        log: whether its scale is logarithmic.
    """

    name: str
    values: np.ndarray
    title: str
    categories: tuple[str, ...] = ()
    log: bool = False

    def ends(self) -> tuple[float, float]:
        """The least and the largest number, rounded outwards to three digits."""
        low, high = float(np.nanmin(self.values)), float(np.nanmax(self.values))
        return min(low, _rounded(low, np.floor)), max(high, _rounded(high, np.ceil))

    def kept(self, only: str | tuple[float, float]) -> np.ndarray:
        """``(T,)`` whether a token has this category, or a number in this range, ends included."""
        if self.categories:
            return self.values == self.categories.index(only)
        low, high = only
        return (self.values >= low) & (self.values <= high)

    def told(self, only: str | tuple[float, float]) -> str:
        """A filter in words, for example ``letters or punctuation: digits``."""
        what = OFFERED.get(self.name, self.name)
        if self.categories:
            return f"{what}: {only}"
        return f"{what} {only[0]:,.4g} to {only[1]:,.4g}"


class Columns:
    """The columns of all statistics of an explorer, each made when it is first asked for.

    Args:
        sources: ``{model: {site: statistics}}``.
        own: the reader's, see :func:`own_columns`.
        vocabularies: where the models' tokenizers come from, if they are at hand.

    Raises:
        StatisticsError: if one of the reader's cannot be used.
    """

    def __init__(
        self,
        sources: Mapping[str, Mapping[str, TokenStatistics]],
        own: pd.DataFrame | pd.Series | None = None,
        vocabularies: Vocabularies | None = None,
    ) -> None:
        tokens = [one.tokens.astype(str) for sites in sources.values() for one in sites.values()]
        self._own = own_columns(own, set().union(*tokens)) if own is not None else {}
        self._vocabularies = vocabularies
        self._made: dict[tuple[int, str], Column | None] = {}

    def offered(self, stats: TokenStatistics, *, by_layer: bool = True) -> dict[str, str]:
        """The columns of some statistics: what a list of them says, by name.

        Args:
            stats: one of the statistics.
            by_layer: give those that differ from layer to layer, too.
        """
        known = {
            PIECE: self._vocabularies is not None and self._vocabularies.at_hand(stats),
            DOCUMENTS: "documents" in stats.counts,
            SUBWORDS: stats.subwords is not None,
        }
        names = {name: text for name, text in OFFERED.items() if known.get(name, True)}
        names |= {name: name for name in self._own if self._own_of(stats, name) is not None}
        return names if by_layer else {k: v for k, v in names.items() if k not in BY_LAYER}

    def of(self, stats: TokenStatistics, name: str) -> Column:
        """A column of some statistics that is the same at all layers.

        Raises:
            StatisticsError: if they have none of this name; the message says what would help.
        """
        if name in self._own:
            if (own := self._own_of(stats, name)) is None:
                raise StatisticsError(f"Column {name!r} has no value for a token of this model.")
            return own
        if name not in OFFERED:
            raise StatisticsError(
                f"There is no column {name!r}, only {', '.join([*OFFERED, *self._own])}."
            )
        key = id(stats), name
        if key not in self._made:
            tokenizer = None
            if name == PIECE:
                if self._vocabularies is None or not self._vocabularies.at_hand(stats):
                    raise StatisticsError(
                        f"Column {PIECE!r} needs the model's vocabulary: pass model and corpus, or "
                        "recall=True where the model can be loaded by name. Words have none."
                    )
                tokenizer = self._vocabularies.of(stats)
            self._made[key] = column_of(stats, name, tokenizer)
        return self._made[key]

    def filter_of(self, stats: TokenStatistics, value: Any) -> tuple | None:
        """A filter ``(column, category)`` or ``(column, (least, most))``, ends included.

        Args:
            stats: the statistics that it is for.
            value: the filter, which may have lists in place of tuples, as a link has; or ``None``.

        Raises:
            StatisticsError: if it is no filter for these statistics.
        """
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise StatisticsError(
                f"only={value!r} is no filter: give (column, category) or (column, (least, most))."
            )
        name, only = value
        if name in BY_LAYER:
            raise StatisticsError(
                f"{name!r} differs from layer to layer, and a filter takes the same tokens at all: "
                "choose another column, or mark tokens."
            )
        if name == COUNT:
            raise StatisticsError(
                f"{COUNT!r}: a range of occurrences is no filter here: use counts=(least, most)."
            )
        column = self.of(stats, name)
        if column.categories:
            if only not in column.categories:
                raise StatisticsError(
                    f"{name!r} has no category {only!r}, only {', '.join(column.categories)}."
                )
            return name, only
        pair = isinstance(only, list | tuple) and len(only) == 2
        if not pair or not all(map(is_finite, only)) or not only[0] <= only[1]:
            raise StatisticsError(
                f"{name!r}: {only!r} is no range of finite numbers (least, most)."
            )
        return name, (float(only[0]), float(only[1]))

    def _own_of(self, stats: TokenStatistics, name: str) -> Column | None:
        key = id(stats), name
        if key not in self._made:
            self._made[key] = own_column(name, self._own[name], stats)
        return self._made[key]


def column_of(stats: TokenStatistics, name: str, tokenizer: Any = None) -> Column:
    """A column that the statistics give, of those that are the same at all layers.

    Args:
        stats: one model's statistics.
        name: one of :data:`OFFERED`, but of those by layer.
        tokenizer: the model's, for :data:`PIECE`.

    Raises:
        StatisticsError: if the statistics do not know what it needs.
    """
    if name == COUNT:
        return Column(COUNT, stats.n.astype(float), "occurrences <i>n<sub>t</sub></i>", log=True)
    if name == CHARACTERS:
        return _categorical(CHARACTERS, _characters(stats), _CHARACTERS, "characters of the token")
    if name == PIECE:
        if not (pieces := word_pieces(tokenizer, stats.info["convention"]["by"])):
            raise StatisticsError(
                "The tokenizer marks neither words nor sub-words, so the vocabulary does not tell."
            )
        found = [
            pieces.get(str(token)) if kind == "letters" else kind if kind == _SPECIAL else _NO_WORD
            for token, kind in zip(stats.tokens, _characters(stats), strict=True)
        ]
        order = (*_PIECES, _NO_WORD, _SPECIAL)
        return _categorical(PIECE, found, order, "entry of the vocabulary")
    if name == DOCUMENTS:
        values = stats.documents.astype(float)
        return Column(DOCUMENTS, values, "documents with the token", log=_spread(values))
    if name == SUBWORDS and stats.subwords is not None:
        return Column(SUBWORDS, stats.subwords.astype(float), "sub-words in a word, mean")
    raise StatisticsError(f"These statistics have no column {name!r}.")


def own_columns(columns: pd.DataFrame | pd.Series, known: set[str]) -> dict[str, pd.Series]:
    """A reader's columns by name, each a series of numbers or of categories by token.

    Args:
        columns: a table or a series indexed by token.
        known: the tokens of all statistics.

    Raises:
        StatisticsError: if a column cannot be used; the message names it and says what to do.
    """
    if isinstance(columns, pd.Series):
        columns = columns.to_frame("column" if columns.name is None else columns.name)
    if not isinstance(columns, pd.DataFrame):
        raise StatisticsError(
            f"columns= takes a pandas Series or DataFrame indexed by token, not a "
            f"{type(columns).__name__}."
        )
    index = columns.index
    if isinstance(index, pd.MultiIndex) or not all(isinstance(token, str) for token in index):
        raise StatisticsError(
            "columns= is indexed by token, a string each: use table.set_index('token')."
        )
    if index.has_duplicates:
        twice = index[index.duplicated()].unique()
        raise StatisticsError(f"columns= names {_some(twice)} more than once: keep one row each.")
    if not len(columns) or not len(columns.columns):
        raise StatisticsError("columns= is empty: it needs a column, and a row for each token.")
    if unknown := [token for token in index if token not in known]:
        raise StatisticsError(
            f"columns= has {len(unknown):,} rows of tokens that the statistics do not hold, such "
            f"as {_some(unknown)}: keep columns[columns.index.isin(stats.tokens)]."
        )
    names = list(columns.columns)
    if len(set(names)) < len(names):
        raise StatisticsError("columns= has two columns of the same name: rename one.")
    found = {}
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise StatisticsError(f"columns= has a column named {name!r}: give it a text as name.")
        if name in OFFERED:
            raise StatisticsError(
                f"Column {name!r} has the name of one of the explorer's own: rename it."
            )
        found[name] = _checked(name, columns.iloc[:, at])
    return found


def own_column(name: str, values: pd.Series, stats: TokenStatistics) -> Column | None:
    """A reader's column for some statistics; ``None`` if none of their tokens has a value."""
    values = values.reindex(stats.tokens.astype(str))
    if values.isna().all():
        return None
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy().astype(float)
        codes[codes < 0] = np.nan
        return Column(name, codes, name, tuple(map(str, values.cat.categories)))
    numbers = values.to_numpy(dtype=float)
    return Column(name, numbers, name, log=_spread(numbers))


def _checked(name: str, values: pd.Series) -> pd.Series:
    """A column as numbers (float64) or as categories."""
    given = values.dropna()
    if given.empty:
        raise StatisticsError(f"Column {name!r} has no value.")
    kinds = pd.api.types
    if kinds.is_bool_dtype(given) or given.map(type).isin([bool, np.bool_]).all():
        values = values.map({True: "yes", False: "no"}, na_action="ignore")
        return values.astype(pd.CategoricalDtype(["yes", "no"]))
    if kinds.is_numeric_dtype(given) and not kinds.is_complex_dtype(given):
        numbers = values.astype(float)
        if np.isinf(numbers).any():
            raise StatisticsError(
                f"Column {name!r} has infinite values, {_some(numbers.index[np.isinf(numbers)])}: "
                "leave them out, or put NaN in their place."
            )
        return numbers
    if not isinstance(given.dtype, pd.CategoricalDtype):
        if not given.map(lambda one: isinstance(one, str)).all():
            raise StatisticsError(
                f"Column {name!r} holds neither numbers only nor texts only (dtype "
                f"{values.dtype}): convert it with astype(float) or astype(str)."
            )
        values = values.astype(pd.CategoricalDtype(sorted(set(given))))
    values = values.cat.remove_unused_categories()
    names = list(map(str, values.cat.categories))
    if len(set(names)) < len(names):
        raise StatisticsError(
            f"Column {name!r} has two categories written alike, {_some(values.cat.categories)}: "
            "rename one, or convert the column with astype(str)."
        )
    values = values.cat.rename_categories(names)
    if (number := len(values.cat.categories)) > MOST_CATEGORIES:
        raise StatisticsError(
            f"Column {name!r} has {number:,} categories, and {MOST_CATEGORIES} can be told apart: "
            "give the rarest one name, such as 'other'."
        )
    return values


def _characters(stats: TokenStatistics) -> list[str]:
    """What each token is written with, by the Unicode categories of its text."""
    found = []
    for token, text, special in zip(stats.tokens, stats.texts, stats.special, strict=True):
        kinds = {unicodedata.category(char)[0] for char in text}
        if special:
            found.append(_SPECIAL)
        elif "\\x" in text and "\\x" not in str(token):
            found.append("other")  # bytes of which no character is whole
        elif "L" in kinds:
            found.append("letters")
        elif "N" in kinds:
            found.append("digits")
        else:
            found.append("punctuation" if kinds & {"P", "S"} else "other")
    return found


def _categorical(name: str, found: list[str | None], order: tuple[str, ...], title: str) -> Column:
    """A column of the categories that occur, in this order."""
    present = tuple(one for one in order if one in set(found))
    codes = pd.Categorical(found, categories=present).codes.astype(float)
    codes[codes < 0] = np.nan
    return Column(name, codes, title, present)


def _spread(numbers: np.ndarray) -> bool:
    """Whether numbers are all above 0 and differ by orders of magnitude."""
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return bool(low > 0 and high >= _SPREAD * low)


def _rounded(number: float, to: np.ufunc) -> float:
    if number == 0:
        return 0.0
    step = 10.0 ** (np.floor(np.log10(abs(number))) - 2)
    return float(np.format_float_positional(to(number / step) * step, precision=15, trim="-"))


def _some(tokens: Any) -> str:
    return ", ".join(map(repr, list(tokens)[:5]))
