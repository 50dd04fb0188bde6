"""Read the files that the paper's authors published, and write files of the same form.

For each model there is one pickled dict, as the authors' scripts write and read it
(https://github.com/ymgw55/Norm-and-Variance)::

    {layer: {"tokens": [...], "n_t": [...], "mu_X_t": [...], "Q_X_t": [...], "M_X_t": [...],
             "V_X_t": [...]}}

Each list has one entry per token. At word level (Appendix J) the keys are ``words, n_w, mu_X_w,
Q_X_w, M_X_w, V_X_w``. Sentences are a pickled list of strings. Because pickles can run code, they
are read by :mod:`embvar_kit.paper.unpickling` only.

Such a file does not say which model and corpus were measured, which tokens are special, or how
sentences were tokenized. The first three can be given when it is read;
:attr:`TokenStatistics.info` records the rest as unknown.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit.corpora.bookcorpus import ROWS
from embvar_kit.corpora.corpus import Corpus, lengths_in_words
from embvar_kit.corpora.tokens import MARKERS, frequency_order
from embvar_kit.errors import ReleaseError
from embvar_kit.files import replacing, sha256_of
from embvar_kit.paper import unpickling
from embvar_kit.paper.released_layer import (
    TOKENS,
    WORDS,
    Columns,
    ReleasedLayer,
    entries_of,
    names_of,
    naming,
)
from embvar_kit.statistics.token_statistics import TokenStatistics

PROTOCOL = 4
"""Pickle protocol of written files. NumPy 1.26 and newer can read the arrays in them."""


# Reading


def read_token_statistics(
    path: str | Path,
    *,
    model: str | None = None,
    corpus: str | Corpus = "bookcorpus",
    special: Iterable[str] = (),
    marker: str | None = None,
) -> TokenStatistics:
    """Read the statistics of tokens that the authors published for a model.

    V is kept as it is in the file. The authors' script computes it as Q - M: in float64 under
    NumPy 1.26 (the newest that its pinned SciPy 1.10.1 runs with), but from a mean kept in
    float32; all in float32 under NumPy 2. V can therefore be slightly negative. Each Q, M and V is
    checked to satisfy ``Q = M + V`` within float32 rounding.

    Args:
        path: the file, for example ``bert-base-uncased.pkl``.
        model: name of the model in results; by default the file's name.
        corpus: what was measured: a name, or a :class:`Corpus` (see :func:`read_sentences`).
            Statistics can be merged only if a :class:`Corpus` is given, since only then are their
            sentences known.
        special: tokens to mark as special, for example ``("[CLS]", "[SEP]")`` for BERT. The file
            does not name them and the kit does not guess: by default no token is special.
        marker: the tokenizer's marker, ``"Ġ"`` for RoBERTa and GPT-2. The authors' script takes it
            off bare markers, too; with it, they get it back: the empty string becomes ``Ġ`` as in
            the kit, and ``Ġ`` becomes ``ĠĠ``. By default names stay as they are in the file.

    Returns:
        Statistics with the most frequent token first. Means are float32; Q, M and V are in units
        of the squared norm of the embedding.

    Raises:
        ReleaseError: If the file is missing, damaged, unsafe, not of this form or inconsistent;
            the message names the layer and the token.
    """
    return _read(Path(path), TOKENS, model, corpus, special, marker=marker)


def token_order(path: str | Path, *, marker: str | None = None) -> list[str]:
    """The tokens in the order of the authors' file, that of their first occurrence in the pass.

    :func:`read_token_statistics` sorts them by frequency. The draw of tokens for the paper's Fig. 1
    depends on this order: ``figures.pick_tokens(stats, paper=True, order=token_order(path))``.

    Args:
        path, marker: as in :func:`read_token_statistics`.

    Raises:
        ReleaseError: As in :func:`read_token_statistics`; only the first layer's names are checked.
    """
    path = Path(path).expanduser()
    content = unpickling.load(path)
    layer = _layer_numbers(content, path.name)[0]
    with naming(f"{path.name!r}, layer {layer}"):
        found = content[layer]
        if type(found) is not dict or TOKENS.names not in found:
            raise ReleaseError(f"{TOKENS.names!r} is missing.")
        return _with_bare_markers(names_of(found[TOKENS.names], TOKENS), marker)


def _with_bare_markers(names: list[str], marker: str | None) -> list[str]:
    """Names of a file, with one more marker on those that are nothing but markers."""
    if marker is None:
        return names
    if not marker:
        raise ReleaseError("marker='' marks nothing: pass '##', 'Ġ' or None.")
    return [name if name.replace(marker, "") else marker + name for name in names]


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
        ReleaseError: As in :func:`read_token_statistics`, and if a word has no number of tokens.
    """
    counts = None
    if token_counts is not None:
        counts = unpickling.load(token_counts)
        if type(counts) is not dict or not all(
            isinstance(word, str) and _is_count(n) for word, n in counts.items()
        ):
            name = Path(token_counts).name
            raise ReleaseError(f"{name!r} is not a dict of words and their numbers of tokens.")
    return _read(Path(path), WORDS, model, corpus, (), counts)


def read_sentences(path: str | Path, *, name: str | None = None) -> Corpus:
    """Read a pickled list of sentences.

    Args:
        path: the file, for example ``bookcorpus_train_lt64_pct001_seed0.pkl``.
        name: name of the corpus in results; by default the file's name.

    Raises:
        ReleaseError: If the file is missing, damaged, unsafe or not a list of strings.
    """
    path = Path(path)
    content = unpickling.load(path)
    with naming(repr(path.name)):
        sentences = entries_of(content, "sentences", "string", str)
    if not sentences:
        raise ReleaseError(f"{path.name!r} holds no sentences.")
    return Corpus.of(sentences, name or path.stem)


def _read(
    path: Path,
    columns: Columns,
    model: str | None,
    corpus: str | Corpus,
    special: Iterable[str],
    token_counts: Mapping[str, int] | None = None,
    marker: str | None = None,
) -> TokenStatistics:
    path = path.expanduser()
    content = unpickling.load(path)
    layers = _layer_numbers(content, path.name)
    file_size = path.stat().st_size
    first = None
    for at, layer in enumerate(layers):
        with naming(f"{path.name!r}, layer {layer}"):
            found = ReleasedLayer.of(content.pop(layer), columns, file_size)
            first = first or found
            positions = found.positions_in(first)
        if found is first:
            names = np.array(_with_bare_markers(found.names, marker), dtype=object)
            order = frequency_order(found.n, names)
            rank = np.argsort(order)
            shape = (len(layers), *found.mean.shape)
            if math.prod(shape) * 2 > file_size:
                raise ReleaseError(f"{path.name!r} claims more numbers than it holds.")
            mean = np.empty(shape, dtype=np.float32)
            parts = {name: np.empty(shape[:2]) for name in "QMV"}
        rows = rank[positions]
        mean[at, rows] = found.mean
        for name, values in parts.items():
            values[at, rows] = getattr(found, name)
    tokens, n = names[order], first.n[order]
    return TokenStatistics(
        tokens=tokens,
        special=pd.Index(tokens).isin([str(token) for token in special]),
        layers=np.array(layers),
        n=n,
        mean=mean,
        extra=None,
        info=_info(path, columns, model, corpus, n, (layers[-1] + 1, mean.shape[2])),
        subwords=None if token_counts is None else _subwords(tokens, token_counts),
        **parts,
    )


def _layer_numbers(content: Any, name: str) -> list[int]:
    """The keys of a file, ascending, as plain integers (which find NumPy's, too)."""
    if type(content) is not dict:
        hint = " Read sentences with read_sentences." if type(content) is list else ""
        raise ReleaseError(
            f"{name!r} holds a {type(content).__name__}, not a dict of layers.{hint}"
        )
    if not content:
        raise ReleaseError(f"{name!r} holds no layers.")
    for key in content:
        if type(key) is bool or not isinstance(key, (int, np.integer)) or not 0 <= key < 2**31:
            raise ReleaseError(
                f"{name!r} has a key of type {type(key).__name__} that is not a layer's number."
            )
    return sorted(map(int, content))


def _subwords(words: np.ndarray, token_counts: Mapping[str, int]) -> np.ndarray:
    for word in words:
        if word not in token_counts:
            raise ReleaseError(f"The numbers of tokens do not include the word {word!r}.")
    return np.array([float(token_counts[word]) for word in words])


def _is_count(n: Any) -> bool:
    return type(n) is not bool and isinstance(n, (int, np.integer)) and 1 <= n < 2**53


def _info(
    path: Path,
    columns: Columns,
    model: str | None,
    corpus: str | Corpus,
    n: np.ndarray,
    size: tuple[int, int],
) -> dict:
    """What is known about statistics that were read; see :func:`embvar_kit.extract`."""
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
                # None means that the sentences are unknown, and so what they overlap with.
                "fingerprint": corpus.fingerprint if known else None,
                "settings": corpus.settings if known else {},
            }
        ],
        "convention": {"by": columns.by, "site": "hidden"},
        "counts": {"occurrences": int(n.sum())},
        **(lengths_in_words(corpus.sentences) if known else {}),
    }


# Writing


def write_token_statistics(
    stats: TokenStatistics, path: str | Path, *, strip_bare: bool = False
) -> Path:
    """Write statistics of tokens in the form that the authors' scripts read.

    Reading the file gives the same tokens, counts, means, Q, M and V. The model, the corpus and
    the place in the model are not in it; :meth:`TokenStatistics.save` keeps them.

    Args:
        stats: statistics of tokens or vocabulary entries, with their means.
        path: the file; an existing one is replaced in one step.
        strip_bare: take the marker off bare markers, as the authors' script does: ``Ġ`` is written
            as the empty string, ``ĠĠ`` as ``Ġ``. Reading with ``marker="Ġ"`` undoes it.

    Raises:
        ReleaseError: If the statistics are of words or lack their means, if ``strip_bare`` is set
            and they do not say which markers the tokenizer has, or if the file cannot be written;
            an existing file is then left as it was.
    """
    return _write(stats, Path(path), TOKENS, strip_bare)


def write_word_statistics(
    stats: TokenStatistics, path: str | Path, *, token_counts: str | Path | None = None
) -> Path:
    """Write statistics of words (``by="word"``) in the form that the authors' scripts read.

    Args:
        stats, path: as in :func:`write_token_statistics`.
        token_counts: where to write the second file, ``{word: number of tokens}``. A word's mean
            number of tokens is rounded to an integer, because the scripts count in integers.

    Raises:
        ReleaseError: As in :func:`write_token_statistics`.
    """
    if token_counts is not None and stats.subwords is None:
        raise ReleaseError("These statistics do not include how many tokens a word has.")
    written = _write(stats, Path(path), WORDS)
    if token_counts is not None:
        numbers = np.maximum(1, np.rint(stats.subwords)).astype(int).tolist()
        _dump(dict(zip(map(str, stats.tokens), numbers, strict=True)), Path(token_counts))
    return written


def write_sentences(corpus: Corpus, path: str | Path) -> Path:
    """Write a corpus as a pickled list of sentences.

    Raises:
        ReleaseError: If the corpus is streamed, or if the file cannot be written; an existing file
            is then left as it was.
    """
    if not isinstance(corpus, Corpus):
        raise ReleaseError("A streamed corpus cannot be written: load it with streaming=False.")
    return _dump(list(corpus.sentences), Path(path))


def write_dataset_stand_in(path: str | Path) -> Path:
    """Write a small file that the authors' scripts take for the dataset.

    Their scripts for Figs. 1 and 9 and for the numbers of tokens of words read the pickled dataset
    (``datasets/bookcorpus.pkl``, several gigabytes) before they read the sentences drawn from it,
    and ask for nothing but its number of rows. The stand-in has that number and no rows.

    Args:
        path: the file; one that is there already is kept, for it may be the dataset itself.

    Raises:
        ReleaseError: If the file cannot be written.
    """
    path = Path(path).expanduser()
    return path if path.exists() else _dump({"train": range(ROWS)}, path)


def _write(stats: TokenStatistics, path: Path, columns: Columns, strip_bare: bool = False) -> Path:
    by = stats.info.get("convention", {}).get("by")
    if (by == "word") != (columns.by == "word"):
        right = "write_word_statistics" if by == "word" else "write_token_statistics"
        raise ReleaseError(f"These statistics are by {by}: write them with {right}.")
    if stats.mean is None:
        raise ReleaseError(
            "The authors' files include the token means, which these statistics lack (they are "
            "compact): extract them again and write those."
        )
    names, n = [str(token) for token in stats.tokens], stats.n.tolist()
    if strip_bare:
        names = _without_bare_markers(stats)
    content = {}
    for at, layer in enumerate(stats.layers):
        mean = np.ascontiguousarray(stats.mean[at], dtype=np.float32)
        parts = (names, n, list(mean), *(getattr(stats, x)[at].tolist() for x in "QMV"))
        content[int(layer)] = dict(zip(columns.keys, parts, strict=True))
    return _dump(content, path)


def _without_bare_markers(stats: TokenStatistics) -> list[str]:
    """The tokens' names, without one marker on those that are nothing but markers."""
    markers = stats.info["convention"].get("markers")
    if markers is None:
        raise ReleaseError(
            "These statistics do not say which markers the tokenizer has, so bare markers cannot "
            "be told: write them with strip_bare=False."
        )
    names = []
    for token, special in zip(map(str, stats.tokens), stats.special, strict=True):
        own = [m for m in MARKERS if m in markers and token and not token.replace(m, "")]
        names.append(token.removeprefix(own[0]) if own and not special else token)
    if len(set(names)) < len(names):
        raise ReleaseError(
            "Without their markers, two of these tokens have the same name: write them with "
            "strip_bare=False."
        )
    return names


def _dump(content: Any, path: Path) -> Path:
    """Write a pickle in one step: a reader finds the old file or the new one."""
    path = path.expanduser()
    try:
        with replacing(path) as scratch, scratch.open("wb") as file:
            pickle.dump(content, file, protocol=PROTOCOL)
    except OSError as error:
        raise ReleaseError(
            f"Could not write {str(path)!r}: {error.strerror or error}. An existing file was left "
            "as it was."
        ) from error
    return path
