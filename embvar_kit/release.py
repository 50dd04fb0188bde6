"""The files that the paper's authors published: reading them, and writing files of their form.

Per model they hold one pickled dict, as the authors' scripts write and read it
(https://github.com/ymgw55/Norm-and-Variance)::

    {layer: {"tokens": [...], "n_t": [...], "mu_X_t": [...], "Q_X_t": [...], "M_X_t": [...],
             "V_X_t": [...]}}

with one entry a token in each list; at word level (Appendix J) ``words, n_w, mu_X_w, Q_X_w,
M_X_w, V_X_w``. Sentences are a pickled list of strings. Pickles can run code, so they are read by
:mod:`embvar_kit.unpickling` only.

What such a file does not say: the model, the corpus, which tokens are special, how sentences were
tokenized. The first three can be given when it is read; :attr:`TokenStatistics.info` holds the
rest as unknown.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit import unpickling
from embvar_kit.bundled import sha256_of
from embvar_kit.corpora import Corpus
from embvar_kit.errors import ReleaseError
from embvar_kit.released_layer import TOKENS, WORDS, Level, ReleasedLayer, strings
from embvar_kit.statistics import TokenStatistics
from embvar_kit.tokens import frequency_order

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
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            pickle.dump(content, file, protocol=PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(0o644)
        os.replace(scratch, path)
        scratch = None
    except OSError as error:
        raise ReleaseError(
            f"Could not write {str(path)!r}: {error.strerror or error}. What was there before is "
            "unharmed."
        ) from error
    finally:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)
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
    """What is known of statistics that were read; see :func:`embvar_kit.extraction.extract`."""
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
