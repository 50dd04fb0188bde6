"""Looking for tokens: by name or text, by how they begin or end, several at once; and a report.

A search consists of parts, separated by blanks. A part without a star is a token's name or text; if
there is none, it is a beginning. ``stat*`` is a beginning, ``*ing`` an end, ``*tat*`` anything
between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MOST_MARKED = 500
"""A search marks at most this many tokens, the most frequent ones."""

_HOW = {
    (False, False): ("is or begins with", "beginning with"),
    (False, True): ("begins with", "beginning with"),
    (True, False): ("ends in", "ending in"),
    (True, True): ("contains", "containing"),
}


@dataclass(frozen=True)
class Part:
    """One part of a search, and the tokens that it finds in a vocabulary.

    Attributes:
        text: the part without its stars.
        stars: whether it has one in front, and one behind.
        exact: indices of the tokens of this name; if there are none, of this text.
        found: indices of all tokens found, ``exact`` first and then the most frequent.
    """

    text: str
    stars: tuple[bool, bool]
    exact: np.ndarray
    found: np.ndarray

    @property
    def starred(self) -> bool:
        """Whether the part has a star."""
        return any(self.stars)

    @property
    def verb(self) -> str:
        """What a token does that is found, ``"begins with"`` for one."""
        return _HOW[self.stars][0]

    @property
    def participle(self) -> str:
        """The same as a participle, ``"beginning with"``."""
        return _HOW[self.stars][1]

    @property
    def marked(self) -> np.ndarray:
        """Indices of the tokens meant: those that are the text, or else all that are found."""
        return self.exact if len(self.exact) else self.found


class Vocabulary:
    """Tokens to search in.

    Args:
        tokens: ``(T,)`` names.
        texts: ``(T,)`` their texts, which differ from the names of byte-level tokens.
        n: ``(T,)`` occurrences.
        any_case: whether case is ignored.
    """

    def __init__(
        self, tokens: np.ndarray, texts: np.ndarray, n: np.ndarray, *, any_case: bool
    ) -> None:
        self._tokens, self._texts, self._n, self._any_case = tokens, texts, n, any_case

    def often(self, indices: Iterable[int]) -> list[int]:
        """These tokens without repetitions, the most frequent first."""
        return sorted(dict.fromkeys(map(int, indices)), key=lambda i: -self._n[i])

    def count(self, at: int) -> int:
        """How often a token occurs."""
        return int(self._n[at])

    def parts(self, search: str) -> list[Part]:
        """The parts of a search; none if it is blank.

        A search that is a token as it stands is one part, whatever blanks and stars it has.
        """
        if not search.strip():
            return []
        for whole in dict.fromkeys((search, search.strip())):
            if len(exact := self._exact(whole)):
                return [self._part(whole, (False, False), exact)]
        return [self.part(text) for text in dict.fromkeys(search.split())]

    def part(self, text: str) -> Part:
        """What a part finds; ``text`` has no blanks at its ends, but may have stars there."""
        exact = self._exact(text)
        stars = text.startswith("*"), text.endswith("*")
        if len(exact) or not text.strip("*"):
            stars = False, False
        return self._part(text.strip("*") if any(stars) else text, stars, exact)

    def like(self, part: Part) -> np.ndarray:
        """Indices of the tokens that a part of a search in another vocabulary finds in this one."""
        return self._hits(part.text, part.stars)

    def _part(self, text: str, stars: tuple[bool, bool], exact: np.ndarray) -> Part:
        others = np.setdiff1d(self._hits(text, stars), exact)
        others = sorted(others, key=lambda i: (-self._n[i], str(self._tokens[i])))
        return Part(text, stars, exact, np.array([*exact, *others], dtype=int))

    def _hits(self, text: str, stars: tuple[bool, bool]) -> np.ndarray:
        sought = self._fold(text)
        found = {
            (True, True): lambda name: sought in name,
            (True, False): lambda name: name.endswith(sought),
        }.get(stars, lambda name: name.startswith(sought))
        return np.flatnonzero([any(map(found, own)) for own in zip(*self._names, strict=True)])

    def _exact(self, text: str) -> np.ndarray:
        """Tokens of this name, else of this text, else of this text without its blanks."""
        sought = self._fold(text)
        for names in self._names:
            if same := [i for i, name in enumerate(names) if name == sought]:
                # Where case is ignored, the token written like this goes first.
                return np.array(sorted(same, key=lambda i: self._tokens[i] != text), dtype=int)
        return np.array([], dtype=int)

    def _fold(self, text: str) -> str:
        return text.lower() if self._any_case else text

    @cached_property
    def _names(self) -> list[list[str]]:
        """Names, texts, and texts without blanks at their ends; without case if it is ignored.

        Lists, because an array of strings takes the room of its longest for each.
        """
        given = self._tokens, self._texts
        names, texts = ([self._fold(str(one)) for one in words] for words in given)
        return [names, texts, [text.strip() for text in texts]]


class Search:
    """What a search finds among the tokens shown, and what is to be said of it.

    Args:
        text: what is looked for.
        shown: the tokens shown; indices are of these.
        whole: all tokens, in which it is looked for what is not shown.
        outside: of all tokens, which a filter keeps out; ``None`` without a filter.
        only: the filter in words.
        high_norm: of all tokens, which are left out as of high norm; ``None`` if none is.
    """

    def __init__(
        self,
        text: str,
        shown: Vocabulary,
        whole: Vocabulary,
        outside: np.ndarray | None = None,
        only: str = "",
        high_norm: np.ndarray | None = None,
    ) -> None:
        self._shown, self._whole, self._outside, self._only = shown, whole, outside, only
        self._high_norm = high_norm
        self._parts = shown.parts(text)

    def found(self, most: int) -> list[int]:
        """Tokens found: those that are the text itself, then the most frequent of the others."""
        exact = [int(i) for part in self._parts for i in part.exact]
        others = self._shown.often(i for part in self._parts for i in part.found)
        return list(dict.fromkeys([*exact, *others]))[:most]

    @property
    def marked(self) -> list[int]:
        """The tokens meant; of too many, the most frequent."""
        meant = self._meant()
        return meant if len(meant) <= MOST_MARKED else self._shown.often(meant)[:MOST_MARKED]

    @property
    def single(self) -> int | None:
        """The token that is named in full, if the search is nothing else."""
        exact = self._parts[0].exact if len(self._parts) == 1 else ()
        return int(exact[0]) if len(exact) else None

    def report(self, counts: tuple[int, int | None]) -> str:
        """What was found besides tokens named in full, and what was not; may be empty.

        Args:
            counts: least and most occurrences of the tokens shown.
        """
        told = [self._report(part, counts) for part in self._parts if not len(part.exact)]
        if len(self._meant()) > MOST_MARKED:
            told.append(f"Only the {MOST_MARKED} most frequent are marked.")
        return " ".join(told)

    def _meant(self) -> list[int]:
        return list(dict.fromkeys(int(i) for part in self._parts for i in part.marked))

    def _report(self, part: Part, counts: tuple[int, int | None]) -> str:
        """What is to be said of a part of the search that is no token shown."""
        text = part.text
        found = f"Found: {counted(len(part.found))} {part.participle} {text!r}."
        exact = () if part.starred else self._whole.part(text).exact
        if len(exact):
            hidden = self._why_hidden(text, int(exact[0]), counts)
            return f"{hidden} {found}" if len(part.found) else hidden
        if len(part.found):
            return found if part.starred else f"No token is {text!r}. {found}"
        if hidden := len(self._whole.like(part)):
            what = "range shown" if self._outside is None else "range or the filter"
            what += "" if self._high_norm is None else ", or of high norm"
            return f"Outside the {what}: {counted(hidden)} {part.participle} {text!r}."
        return f"No token {part.verb} {text!r}."

    def _why_hidden(self, text: str, at: int, counts: tuple[int, int | None]) -> str:
        """Why a token of the whole is not among those shown."""
        n, (least, most) = self._whole.count(at), counts
        if n < least or (most is not None and n > most):
            often = "once" if n == 1 else f"{n:,} times"
            return f"{text!r} occurs {often}: outside the range shown."
        if self._high_norm is not None and self._high_norm[at]:
            return f"{text!r} is left out: of high norm."
        if self._outside is not None and self._outside[at]:
            return f"{text!r} is outside the filter ({self._only})."
        return f"{text!r} is a special token, and these are not shown."


def counted(count: int) -> str:
    """A number of tokens in words.

    >>> counted(1), counted(1200)
    ('1 token', '1,200 tokens')
    """
    return "1 token" if count == 1 else f"{count:,} tokens"


def is_uncased(texts: Iterable[str]) -> bool:
    """Whether no token has an upper-case letter.

    >>> is_uncased(["the", "##ing"]), is_uncased(["the", "The"])
    (True, False)
    """
    return all(text == text.lower() for text in map(str, texts))
