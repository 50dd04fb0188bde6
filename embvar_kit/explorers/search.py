"""Looking for tokens: by name or text, by how they begin or end, several at once.

A search consists of parts, separated by blanks. A part without a star is a token's name or text; if
there is none, it is a beginning. ``stat*`` is a beginning, ``*ing`` an end, ``*tat*`` anything
between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

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


def is_uncased(texts: Iterable[str]) -> bool:
    """Whether no token has an upper-case letter.

    >>> is_uncased(["the", "##ing"]), is_uncased(["the", "The"])
    (True, False)
    """
    return all(text == text.lower() for text in map(str, texts))
