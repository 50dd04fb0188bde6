"""Which token of one model's statistics is which of another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embvar_kit.corpora.tokens import MARKERS, SUFFIXES, strip_marker
from embvar_kit.statistics.token_statistics import TokenStatistics

_MARKED = 0.05  # share of the entries with a marker from which on they count as marked

STARTS, GOES_ON, ANYWHERE = "starts a word", "goes on in a word", "anywhere"


@dataclass(frozen=True)
class Match:
    """The tokens of two statistics that are the same token.

    Attributes:
        right_of: the token at the right by the token at the left.
        how: what makes two tokens the same, in words.
    """

    right_of: Mapping[str, str]
    how: str

    @cached_property
    def left_of(self) -> dict[str, str]:
        """The token at the left by the token at the right."""
        return {right: left for left, right in self.right_of.items()}


def match(left: TokenStatistics, right: TokenStatistics) -> Match:
    """Match the tokens of two statistics, each with at most one of the other.

    Tokens measured entry by entry (``by="id"``) match if text and place in a word are the same:
    ``##ing`` of WordPiece and ``ing`` of a byte-level BPE both go on in a word. Punctuation in
    WordPiece has no place in a word, and matches that behind no blank. Where markers were removed,
    as in the paper, tokens match by their text (``é`` and the byte-level ``Ã©``). Statistics that
    were grouped in different ways share only equal strings. A special token matches only its like.
    """
    ways = [one.info.get("convention", {}).get("by", "token") for one in (left, right)]
    if ways[0] != ways[1]:
        keys = [_names(one) for one in (left, right)]
        how = f"equal strings only, as they are grouped by {ways[0]} and by {ways[1]}"
    elif np.array_equal(left.tokens, right.tokens):
        names = [str(token) for token in left.tokens]
        return Match(dict(zip(names, names, strict=True)), "the two have the same tokens")
    elif ways[0] == "id" and all(map(_marker, (left, right))):
        keys = [_places(one) for one in (left, right)]
        how = "by their text and their place in a word"
    elif ways[0] == "id":
        keys = [_names(one) for one in (left, right)]
        how = "equal strings only, as no marker tells a token's place in a word"
    else:
        keys = [_texts(one) for one in (left, right)]
        how = "by their text"
        if ways[0] == "token":
            how += "; their place in a word is not known, as markers such as ## were removed"
    known: dict[tuple, str] = {}
    for key, token in zip(keys[1], right.tokens, strict=True):
        known.setdefault(key, str(token))  # of two with the same text, the more frequent one
    found: dict[tuple, tuple[str, str]] = {}
    for key, token in zip(keys[0], left.tokens, strict=True):
        if key in known:
            found.setdefault(key, (str(token), known[key]))
    return Match(dict(found.values()), how)


def _names(stats: TokenStatistics) -> list[tuple]:
    return [(str(t), bool(s)) for t, s in zip(stats.tokens, stats.special, strict=True)]


def _texts(stats: TokenStatistics) -> list[tuple]:
    return [(str(t), bool(s)) for t, s in zip(stats.texts, stats.special, strict=True)]


def _places(stats: TokenStatistics) -> list[tuple]:
    """The text of each entry of a vocabulary without its marker, and its place in a word."""
    marker = _marker(stats)
    keys = []
    for token, text, special in zip(stats.tokens, stats.texts, stats.special, strict=True):
        token, text = str(token), str(text)
        if special:
            keys.append((token, "special"))
            continue
        bare = strip_marker(token, (marker,))
        marked = bare != token
        if marker == "Ġ":  # in the text it is a blank already
            bare = text[1:] if marked else text
        if marked:
            place = GOES_ON if marker == "##" else STARTS
        elif any(char.isalnum() for char in bare):
            place = STARTS if marker == "##" else GOES_ON
        else:
            place = ANYWHERE
        keys.append((bare, place))
    return keys


def _marker(stats: TokenStatistics) -> str:
    """The prefix by which entries of a vocabulary tell their place; empty if there is none."""
    names = [str(token) for token in stats.tokens[~stats.special]]
    if any(sum(name.endswith(s) for name in names) >= _MARKED * len(names) for s in SUFFIXES):
        return ""  # markers at the ends of tokens are not compared with those in front
    for marker in MARKERS:
        if names and sum(name.startswith(marker) for name in names) >= _MARKED * len(names):
            return marker
    return ""
