"""The files that the paper's authors published: reading them, and writing files of their form.

Per model they hold one pickled dict, as the authors' scripts write and read it
(https://github.com/ymgw55/Norm-and-Variance)::

    {layer: {"tokens": [...], "n_t": [...], "mu_X_t": [...], "Q_X_t": [...], "M_X_t": [...],
             "V_X_t": [...]}}

with one entry a token in each list; at word level (Appendix J) ``words, n_w, mu_X_w, Q_X_w,
M_X_w, V_X_w``. Sentences are a pickled list of strings. Pickles can run code, so they are read by
:mod:`embvar_kit.paper.unpickling` only.

What such a file does not say: the model, the corpus, which tokens are special, how sentences were
tokenized. The first three can be given when it is read; :attr:`TokenStatistics.info` holds the
rest as unknown.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import ReleaseError
from embvar_kit.files import replacing, sha256_of
from embvar_kit.paper import unpickling
from embvar_kit.statistics.token_statistics import TokenStatistics

PROTOCOL = 4
"""Of the pickles written. Arrays in them can be read where NumPy is 1.26 or newer."""


def read_token_statistics(
    path: str | Path,
    *,
    model: str | None = None,
    corpus: str | Corpus = "bookcorpus",
    special: Iterable[str] = (),
) -> TokenStatistics:
    """Read the statistics of tokens that the authors published for a model.

    V is kept as the file has it. The authors took it as Q - M in float32, so that it can be
    slightly negative; each Q, M and V is checked to be what float32 makes of ``Q = M + V``.

    Args:
        path: of the file, ``bert-base-uncased.pkl`` for one.
        model: its name in results; by default the file's name.
        corpus: what was measured: its name, or a :class:`Corpus` (see :func:`read_sentences`).
            Only with a corpus are its sentences known, and the statistics fit for merging.
        special: token strings to mark as special, ``("[CLS]", "[SEP]")`` for BERT. The file does
            not tell them, and the kit does not guess: without them no token is.

    Returns:
        Statistics with the most frequent token first and float32 means, as Q, M and V in units of
        squared norm of the embedding.

    Raises:
        ReleaseError: if the file is missing, damaged, unsafe, not of this form or contradicts
            itself; the message names the layer and the token.
    """
    return _read(Path(path), TOKENS, model, corpus, special)


def read_word_statistics(
    path: str | Path,
    *,
    model: str | None = None,
    corpus: str | Corpus = "bookcorpus",
    token_counts: str | Path | None = None,
) -> TokenStatistics:
    """Read the statistics of words (Appendix J), whose means may be PyTorch tensors.

    Args:
        path, model, corpus: as in :func:`read_token_statistics`.
        token_counts: a second file of the release, a pickled dict ``{word: number of tokens}``;
            it becomes :attr:`TokenStatistics.subwords`.

    Raises:
        ReleaseError: as :func:`read_token_statistics`, and if a word has no number of tokens.
    """
    counts = None
    if token_counts is not None:
        counts = unpickling.load(token_counts)
        name = Path(token_counts).name
        if type(counts) is not dict or not all(
            isinstance(word, str) and _is_count(n) for word, n in counts.items()
        ):
            raise ReleaseError(f"{name!r} holds no dict of words and their numbers of tokens.")
    return _read(Path(path), WORDS, model, corpus, (), counts)


def read_sentences(path: str | Path, *, name: str | None = None) -> Corpus:
    """Read a pickled list of sentences.

    Args:
        path: of the file, ``bookcorpus_train_lt64_pct001_seed0.pkl`` for one.
        name: of the corpus in results; by default the file's name.

    Raises:
        ReleaseError: if the file is missing, damaged, unsafe or holds no list of strings.
    """
    path = Path(path)
    sentences = strings(unpickling.load(path), repr(path.name), "sentences")
    if not sentences:
        raise ReleaseError(f"{path.name!r} holds no sentence.")
    return Corpus.of(sentences, name or path.stem)


def write_token_statistics(stats: TokenStatistics, path: str | Path) -> Path:
    """Write statistics of tokens as the authors' scripts read them.

    Reading the file gives the same tokens, counts, means, Q, M and V. It says nothing of the
    model, the corpus or the place in the model: :meth:`TokenStatistics.save` does.

    Args:
        stats: of tokens or vocabulary entries, with their means.
        path: of the file; an old one is replaced in one step.

    Raises:
        ReleaseError: if the statistics are of words or lack their means, or the file cannot be
            written; what was there stays.
    """
    return _write(stats, Path(path), TOKENS)


def write_word_statistics(
    stats: TokenStatistics, path: str | Path, *, token_counts: str | Path | None = None
) -> Path:
    """Write statistics of words (``by="word"``) as the authors' scripts read them.

    Args:
        stats, path: as in :func:`write_token_statistics`.
        token_counts: where to write the second file, ``{word: number of tokens}``. A word's mean
            number of tokens is rounded to a whole one, as the scripts count.

    Raises:
        ReleaseError: as :func:`write_token_statistics`.
    """
    if token_counts is not None and stats.subwords is None:
        raise ReleaseError("These statistics do not know how many tokens a word has.")
    written = _write(stats, Path(path), WORDS)
    if token_counts is not None:
        numbers = np.maximum(1, np.rint(stats.subwords)).astype(int).tolist()
        _dump(dict(zip(map(str, stats.tokens), numbers, strict=True)), Path(token_counts))
    return written


def write_sentences(corpus: Corpus, path: str | Path) -> Path:
    """Write a corpus as a pickled list of sentences.

    Raises:
        ReleaseError: if the corpus is a stream, or the file cannot be written; what was there
            stays.
    """
    if not isinstance(corpus, Corpus):
        raise ReleaseError("Only a corpus that is held whole can be written: load it unstreamed.")
    return _dump(list(corpus.sentences), Path(path))


def _write(stats: TokenStatistics, path: Path, level: Level) -> Path:
    by = stats.info.get("convention", {}).get("by")
    if (by == "word") != (level.by == "word"):
        right = "write_word_statistics" if by == "word" else "write_token_statistics"
        raise ReleaseError(f"These statistics are by {by}: write them with {right}.")
    if stats.mean is None:
        raise ReleaseError(
            "The authors' files hold the token means, which were left out of these statistics "
            "(compact): extract again and write those."
        )
    names, n = [str(token) for token in stats.tokens], stats.n.tolist()
    content = {}
    for at, layer in enumerate(stats.layers):
        mean = np.ascontiguousarray(stats.mean[at], dtype=np.float32)
        parts = (names, n, list(mean), *(getattr(stats, x)[at].tolist() for x in "QMV"))
        content[int(layer)] = dict(zip(level.keys, parts, strict=True))
    return _dump(content, path)


def _dump(content: Any, path: Path) -> Path:
    """Write a pickle in one step: a reader finds the old file or the new one."""
    path = path.expanduser()
    try:
        with replacing(path) as scratch, scratch.open("wb") as file:
            pickle.dump(content, file, protocol=PROTOCOL)
    except OSError as error:
        raise ReleaseError(
            f"Could not write {str(path)!r}: {error.strerror or error}. What was there before is "
            "unharmed."
        ) from error
    return path


def _read(
    path: Path,
    level: Level,
    model: str | None,
    corpus: str | Corpus,
    special: Iterable[str],
    counts: dict | None = None,
) -> TokenStatistics:
    path = path.expanduser()
    content = unpickling.load(path)
    layers = _layers(content, path.name)
    room = path.stat().st_size
    for at, layer in enumerate(layers):
        where = f"{path.name!r}, layer {layer}"
        found = ReleasedLayer.of(content.pop(layer), where, level, room)
        if at == 0:
            first = found
            order = frequency_order(found.n, np.array(found.names, dtype=object))
            rank_of = {found.names[i]: rank for rank, i in enumerate(order)}
            shape = (len(layers), *found.mean.shape)
            if np.prod(shape, dtype=object) * 2 > room:
                raise ReleaseError(f"{path.name!r} claims more numbers than it holds.")
            mean = np.empty(shape, dtype=np.float32)
            parts = {name: np.empty(shape[:2]) for name in "QMV"}
        found.check_same(first, level)
        ranks = np.array([rank_of[name] for name in found.names])
        mean[at, ranks] = found.mean
        for name, values in parts.items():
            values[at, ranks] = getattr(found, name)
    tokens, n = np.array(first.names, dtype=object)[order], first.n[order]
    return TokenStatistics(
        tokens=tokens,
        special=pd.Index(tokens).isin([str(token) for token in special]),
        layers=np.array(layers),
        n=n,
        mean=mean,
        extra=None,
        info=_info(path, level, model, corpus, n, (layers[-1] + 1, mean.shape[2])),
        subwords=None if counts is None else _subwords(tokens, counts),
        **parts,
    )


def _layers(content: Any, name: str) -> list[int]:
    """The layers of a file, ascending; they become plain numbers, which find the same entries."""
    if type(content) is not dict:
        hint = " Sentences are read with read_sentences." if type(content) is list else ""
        raise ReleaseError(
            f"{name!r} holds a {type(content).__name__}, not a dict of layers.{hint}"
        )
    if not content:
        raise ReleaseError(f"{name!r} holds no layer.")
    for key in content:
        if type(key) is bool or not isinstance(key, (int, np.integer)) or not 0 <= key < 2**31:
            raise ReleaseError(
                f"{name!r} has a key, a {type(key).__name__}, that is no number of a layer."
            )
    return sorted(map(int, content))


def _subwords(words: np.ndarray, counts: Mapping[str, int]) -> np.ndarray:
    for word in words:
        if word not in counts:
            raise ReleaseError(f"The numbers of tokens say nothing of word {word!r}.")
    return np.array([float(counts[word]) for word in words])


def _is_count(n: Any) -> bool:
    return type(n) is not bool and isinstance(n, (int, np.integer)) and 1 <= n < 2**53


def _info(
    path: Path,
    level: Level,
    model: str | None,
    corpus: str | Corpus,
    n: np.ndarray,
    size: tuple[int, int],
) -> dict:
    """What is known of statistics that were read; see :func:`embvar_kit.extract`."""
    known = isinstance(corpus, Corpus)
    return {
        "kit_version": None,  # not measured by the kit
        "source": {"file": path.name, "sha256": sha256_of(path)},
        "model": {
            "name": model or path.stem,
            "revision": None,
            "n_states": size[0],
            "width": size[1],
        },
        "corpora": [
            {
                "name": corpus.name if known else corpus,
                # None is a corpus of unknown sentences: what overlaps with it cannot be told.
                "fingerprint": corpus.fingerprint if known else None,
                "settings": corpus.settings if known else {},
            }
        ],
        "convention": {"by": level.by, "site": "hidden"},
        "counts": {"occurrences": int(n.sum())},
    }


# One layer of a released file


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
