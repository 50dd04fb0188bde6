"""The labelled result of a pass: Q, M and V of every token at every layer, and what they show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import StatisticsError
from embvar_kit.moments import memory
from embvar_kit.moments.grouped import GroupedMoments
from embvar_kit.statistics import analysis
from embvar_kit.statistics.storage import read, write

SINK_FACTOR = 10
"""A token with Q of so many times the median is taken for a sink, unless another is asked for."""


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Statistics of the sets ``X_t`` of embeddings, one a token, at each layer.

    Attributes:
        tokens: ``(T,)`` token strings, the most frequent first.
        special: ``(T,)`` whether a token is one of the tokenizer's special ones.
        layers: ``(L,)`` indices of the hidden states; 0 is the embedding layer's output.
        n: ``(T,)`` occurrences ``n_t``, the same at each layer.
        Q: ``(L, T)`` mean squared norm of a token's embeddings.
        M: ``(L, T)`` squared norm of their mean.
        V: ``(L, T)`` their variance (population form).
        mean: ``(L, T, d)`` float32 means, or ``None`` where they were left out.
        extra: ``(L, T, d)`` int8, the means' extra bytes (see
            :class:`embvar_kit.GroupedMoments`), which keep merging accurate; or ``None``.
        info: what was measured: model, corpora, convention, counts, version of the kit.
        subwords: ``(T,)`` of words (``by="word"``), the mean number of tokens that they consist
            of; else ``None``.
        decompositions: in compact statistics (:meth:`compact`), what :meth:`decomposition` gave
            before the means were left out, for several choices; else ``None``.

    ``Q = M + V`` holds for each token and layer; the three were accumulated independently.
    """

    tokens: np.ndarray
    special: np.ndarray
    layers: np.ndarray
    n: np.ndarray
    Q: np.ndarray
    M: np.ndarray
    V: np.ndarray
    mean: np.ndarray | None
    extra: np.ndarray | None
    info: Mapping
    subwords: np.ndarray | None = None
    decompositions: pd.DataFrame | None = None

    @classmethod
    def from_moments(
        cls,
        moments: list[GroupedMoments],
        *,
        tokens: np.ndarray,
        special: np.ndarray,
        layers: np.ndarray,
        mean: np.ndarray,
        extra: np.ndarray,
        info: Mapping,
        subwords: np.ndarray | None = None,
    ) -> TokenStatistics:
        """Read the moments of each layer out; ``mean`` and ``extra`` are the arrays they live in.

        Args:
            moments: one :class:`GroupedMoments` a layer, its groups the tokens.
            tokens: ``(T,)``. special: ``(T,)``. layers: ``(L,)``. mean, extra: ``(L, T, d)``.
            info: what was measured.
            subwords: ``(T,)`` of words, or ``None``.
        """
        return cls(
            tokens=tokens,
            special=special,
            layers=np.asarray(layers),
            n=moments[0].count.copy(),
            Q=np.stack([m.Q for m in moments]),
            M=np.stack([m.M for m in moments]),
            V=np.stack([m.V for m in moments]),
            mean=mean,
            extra=extra,
            info=info,
            subwords=subwords,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        model, corpus = self.info["model"]["name"], self.info["corpora"][0]["name"]
        part = ""
        if partial := self.info.get("partial"):
            part = f", PARTIAL: {partial['batches']:,} of {partial['of']:,} batches"
        return (
            f"TokenStatistics({model!r} on {corpus!r}: {len(self):,} tokens, "
            f"{int(self.n.sum()):,} occurrences, layers {self.layers[0]} to {self.layers[-1]}"
            f"{part})"
        )

    def table(
        self,
        layer: int,
        *,
        min_count: int = 1,
        max_count: int | None = None,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """One row a token: ``token, n, Q, M, V``, the most frequent first; of words, ``subwords``.

        Args:
            layer: index of the hidden state.
            min_count, max_count: keep tokens with ``min_count <= n_t <= max_count``.
            special: whether special tokens are kept.
            unbiased: give the finite-sample corrected M and V (see
                :func:`embvar_kit.statistics.analysis.unbiased`).

        Raises:
            StatisticsError: if the layer is not among :attr:`layers`.
        """
        at = self._at(layer)
        kept = self._kept(min_count, max_count, special)
        n, M, V = self.n[kept], self.M[at, kept], self.V[at, kept]
        if unbiased:
            M, V = analysis.unbiased(n, M, V)
        columns = {"token": self.tokens[kept], "n": n, "Q": self.Q[at, kept], "M": M, "V": V}
        if self.subwords is not None:
            columns["subwords"] = self.subwords[kept]
        return pd.DataFrame(columns)

    def tradeoff(
        self,
        *,
        min_count: int = 10,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """The regression of V on M at each layer: ``layer, n_tokens, cv_Q, slope, intercept, r2``.

        One point a token, unweighted, over the tokens with ``1 <= log10 n_t <= 5``, as in the
        paper's Figs. 2 and 4. Arguments as in :meth:`table`.

        Raises:
            StatisticsError: if fewer than 3 tokens are in the range.
        """
        rows = []
        for layer in self.layers:
            of_layer = self.table(
                layer,
                min_count=min_count,
                max_count=max_count,
                special=special,
                unbiased=unbiased,
            )
            fit = analysis.tradeoff(*(of_layer[name].to_numpy() for name in "QMV"))
            rows.append({"layer": int(layer), **fit._asdict()})
        return pd.DataFrame(rows)

    def decomposition(
        self,
        *,
        min_count: int = 10,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """The mean squared norm of all embeddings, split: ``layer, Q, M, V, V_W, V_B``.

        ``Q = M + V`` and ``V = V_W + V_B`` over the union of the chosen tokens' embeddings,
        weighted by ``n_t`` (paper, Figs. 5 and 6). Arguments as in :meth:`table`; ``unbiased``
        removes what finite samples add to M and V_B.

        Raises:
            StatisticsError: if no token is in the range, or the means were left out and this
                choice is not among those stored.
        """
        if self.decompositions is not None:
            return look_up(
                self,
                min_count=min_count,
                max_count=max_count,
                special=special,
                unbiased=unbiased,
            ).drop(columns="n")
        mean = self._means("A decomposition")
        kept = self._kept(min_count, max_count, special)
        rows = []
        for at, layer in enumerate(self.layers):
            parts = analysis.decompose(
                self.n[kept], self.Q[at, kept], self.V[at, kept], mean[at][kept], correct=unbiased
            )
            rows.append({"layer": int(layer), **parts._asdict()})
        return pd.DataFrame(rows)

    def anisotropy(self, *, min_count: int = 10, special: bool = True) -> pd.DataFrame:
        """Mean cosine similarities: ``layer, anisotropy, self_similarity, adjusted``.

        Ethayarajh's (2019) baseline, the mean over all pairs of distinct embeddings; his
        self-similarity, that over the pairs of one token, averaged over the tokens with ``n_t >=
        min_count``; and the second less the first. All pairs count, none is drawn.

        Raises:
            StatisticsError: if the embeddings are not of norm 1 (``site="unit"``), or compact
                statistics no longer know the number of occurrences of this choice.
        """
        return by_layer(self, min_count=min_count, special=special)

    def sinks(self, *, factor: float = SINK_FACTOR, min_count: int = 10) -> pd.DataFrame:
        """Tokens whose embeddings are out of all proportion: ``token, n, layer, Q, ratio``.

        Today's decoders put huge norms on the first positions of a text, the attention sinks
        (Xiao et al. 2024; Sun et al. 2024). Tokens that stand there, always or now and then, carry
        most of Q(X), and a regression over tokens follows them alone. The rule: at some layer,
        Q(X_t) is at least ``factor`` times the median of Q over the tokens with ``n_t >=
        min_count``.

        Returns:
            One row a sink, at the layer of its largest ratio, the largest first; often none.
        """
        kept = np.flatnonzero(self._kept(min_count, None, True))
        if not len(kept):
            return pd.DataFrame(columns=["token", "n", "layer", "Q", "ratio"])
        Q = self.Q[:, kept]
        ratio = Q / np.median(Q, axis=1, keepdims=True)
        at = ratio.argmax(axis=0)
        columns = {"token": self.tokens[kept], "n": self.n[kept], "layer": self.layers[at]}
        columns |= {name: x[at, np.arange(len(kept))] for name, x in (("Q", Q), ("ratio", ratio))}
        found = pd.DataFrame(columns).query("ratio >= @factor")
        return found.sort_values("ratio", ascending=False, ignore_index=True)

    def without(self, tokens: Iterable[str]) -> TokenStatistics:
        """The same statistics, some tokens left out; ``info`` names those that were there.

        Args:
            tokens: token strings, ``stats.sinks().token`` for one; others than those here are no
                matter.
        """
        leave = pd.Index(self.tokens).isin([str(token) for token in tokens])
        left_out = sorted({*self.info.get("left_out", ()), *self.tokens[leave].tolist()})
        kept = self.take(np.flatnonzero(~leave))
        return replace(kept, info={**self.info, "left_out": left_out})

    def take(self, rows: np.ndarray) -> TokenStatistics:
        """The same statistics of some tokens, in the order of ``rows``, indices in :attr:`tokens`.

        A :meth:`decomposition` is then one of their embeddings.
        """
        arrays = {name: getattr(self, name)[rows] for name in ("tokens", "special", "n")}
        arrays |= {name: getattr(self, name)[:, rows] for name in ("Q", "M", "V")}
        if self.mean is not None:
            arrays["mean"], arrays["extra"] = memory.select(self.mean, self.extra, rows)
        if self.subwords is not None:
            arrays["subwords"] = self.subwords[rows]
        return replace(self, **arrays)

    def compact(
        self, *, min_count: int = 10, left_out: Iterable[Iterable[str]] = ((),)
    ) -> TokenStatistics:
        """What figures and tables need, without the means: a hundredth of the size.

        Q, M and V are rounded to float32 and the tokens with ``n_t < min_count`` left out.
        :meth:`decomposition`, which needs the means, is computed now for the choices in
        :data:`CHOICES`. What else needs means, merging for one, is refused
        afterwards.

        Args:
            min_count: the least frequent tokens to keep.
            left_out: sets of tokens; the decompositions are stored for :meth:`without` each.
        """
        kept = self.n >= min_count
        arrays = {name: getattr(self, name)[kept] for name in ("tokens", "special", "n")}
        arrays |= {name: getattr(self, name)[:, kept].astype(np.float32) for name in "QMV"}
        if self.subwords is not None:
            arrays["subwords"] = self.subwords[kept]
        info = {**self.info, "compact": {"min_count": min_count}}
        stored = decompositions(self, left_out)
        return replace(self, **arrays, mean=None, extra=None, info=info, decompositions=stored)

    def merge(self, other: TokenStatistics) -> TokenStatistics:
        """Statistics of two parts of a corpus together, as one pass over both would give them.

        Raises:
            StatisticsError: if the two differ in model, convention, layers or width, share a part
                of the corpus, or lack means.
        """
        check(self, other)
        return self.add(other)

    def add(self, other: TokenStatistics) -> TokenStatistics:
        """:meth:`merge` for parts known to be apart: chunks of one stream may repeat a text."""
        return TokenStatistics.from_moments(**combine(self, other))

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a folder: parquet table, safetensors means, JSON description.

        The folder is usable at every moment: new files are written beside the old ones and one
        rename of ``metadata.json`` puts them in force. README.md shows how to read them without
        the kit.

        Raises:
            StatisticsFileError: if the folder cannot be written; what was there stays.
        """
        layer = np.repeat(self.layers, len(self))
        columns = {"layer": layer, "token": np.tile(self.tokens, len(self.layers))}
        columns |= {"special": np.tile(self.special, len(self.layers))}
        columns |= {"n": np.tile(self.n, len(self.layers))}
        if self.subwords is not None:
            columns |= {"subwords": np.tile(self.subwords, len(self.layers))}
        columns |= {"Q": self.Q.ravel(), "M": self.M.ravel(), "V": self.V.ravel()}
        tensors = {"mean": self.mean, "extra": self.extra}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        tables = {"table": pd.DataFrame(columns)}
        if self.decompositions is not None:
            tables["decompositions"] = self.decompositions
        return write(Path(path), tables, tensors, self.info)

    @classmethod
    def load(cls, path: str | Path) -> TokenStatistics:
        """Read statistics that :meth:`save` wrote.

        Raises:
            StatisticsFileError: if they are missing, truncated, altered or of a newer format; the
                message names the file.
        """
        tables, tensors, info = read(Path(path))
        table = tables["table"]
        layers = table["layer"].unique()
        first = table[table["layer"] == layers[0]]
        Q, M, V = (
            table[name].to_numpy(dtype=float).reshape(len(layers), len(first)) for name in "QMV"
        )
        return cls(
            tokens=first["token"].to_numpy(dtype=object),
            special=first["special"].to_numpy(),
            layers=layers,
            n=first["n"].to_numpy(),
            Q=Q,
            M=M,
            V=V,
            mean=tensors.get("mean"),
            extra=tensors.get("extra"),
            info=info,
            subwords=first["subwords"].to_numpy() if "subwords" in first else None,
            decompositions=tables.get("decompositions"),
        )

    def _at(self, layer: int) -> int:
        found = np.flatnonzero(self.layers == layer)
        if not len(found):
            raise StatisticsError(
                f"Layer {layer} was not extracted; there are {', '.join(map(str, self.layers))}."
            )
        return int(found[0])

    def _kept(self, min_count: int, max_count: int | None, special: bool) -> np.ndarray:
        measured = self.info.get("convention", {}).get("min_count", 1)
        least = max(measured, self.info.get("compact", {}).get("min_count", 1))
        if min_count < least:
            why = "were measured for" if measured == least else "are compact: they keep"
            raise StatisticsError(
                f"These statistics {why} the tokens with n_t >= {least}. Pass "
                f"min_count={least} or more, or extract again."
            )
        kept = self.n >= min_count
        if max_count is not None:
            kept &= self.n <= max_count
        return kept if special else kept & ~self.special

    def _means(self, purpose: str) -> np.ndarray:
        if self.mean is None:
            raise StatisticsError(f"{purpose} needs the token means, which were left out here.")
        return self.mean


# Anisotropy


def by_layer(statistics: Any, *, min_count: int, special: bool) -> pd.DataFrame:
    """What :meth:`embvar_kit.TokenStatistics.anisotropy` gives."""
    site = statistics.info.get("convention", {}).get("site")
    if site != "unit":
        raise StatisticsError(
            f"Anisotropy is a mean cosine similarity: it needs embeddings of norm 1, and these are "
            f"of site {site!r}. Extract with site='unit'."
        )
    whole = statistics.decomposition(min_count=1, max_count=None, special=special)
    number = np.array([_occurrences(statistics, special)])
    rows = []
    for row in whole.itertuples():
        baseline = float(analysis.unbiased(number, np.array([row.M]), np.array([row.V]))[0][0])
        tokens = statistics.table(row.layer, min_count=min_count, special=special, unbiased=True)
        if tokens.empty or min_count < 2:
            raise StatisticsError(
                f"Self-similarity needs tokens that occur twice or more; min_count={min_count} "
                f"leaves {len(tokens)}. Take min_count of at least 2, and as low as leaves some."
            )
        alike = float(tokens["M"].mean())
        rows.append((row.layer, baseline, alike, alike - baseline))
    return pd.DataFrame(rows, columns=["layer", "anisotropy", "self_similarity", "adjusted"])


def _occurrences(statistics: Any, special: bool) -> int:
    """Occurrences of all tokens, those that compact statistics no longer list included."""
    if statistics.decompositions is None:
        return int(statistics.n[special | ~statistics.special].sum())
    stored = look_up(statistics, min_count=1, max_count=None, special=special, unbiased=False)
    return int(stored["n"].iloc[0])


# Compact statistics


CHOICES = tuple(
    {"min_count": least, "max_count": most, "special": special, "unbiased": unbiased}
    for least, most in ((1, None), (2, None), (10, 100_000))
    for special in (True, False)
    for unbiased in ((False, True) if least > 1 else (False,))
)
"""The choices that are kept: all tokens, those with two occurrences, the paper's range."""

_ALL = -1  # max_count=None, in a column of whole numbers


def decompositions(statistics: Any, left_out: Iterable[Iterable[str]] = ((),)) -> pd.DataFrame:
    """The decomposition at each layer for each of :data:`CHOICES`, and each set of tokens left out.

    A choice that leaves no token is passed over. Columns: ``layer, Q, M, V, V_W, V_B``, then ``n``,
    the number of embeddings, then ``min_count, max_count, special, unbiased, left_out``.
    """
    rows = []
    for tokens in left_out:
        part = statistics.without(tokens)
        for choice in CHOICES:
            tokens_of = {name: value for name, value in choice.items() if name != "unbiased"}
            n = int(part.table(int(part.layers[0]), **tokens_of)["n"].sum())
            if not n:
                continue
            kept = {**choice, "max_count": _ALL if choice["max_count"] is None else 100_000}
            rows.append(part.decomposition(**choice).assign(n=n, **kept, left_out=_named(part)))
    return pd.concat(rows, ignore_index=True)


def look_up(statistics: Any, **choice: int | bool | None) -> pd.DataFrame:
    """One of the stored decompositions: ``layer, Q, M, V, V_W, V_B, n``.

    Raises:
        StatisticsError: if this choice was not stored; the message names those that were.
    """
    stored = statistics.decompositions
    wanted = {**choice, "left_out": _named(statistics)}
    wanted["max_count"] = _ALL if choice["max_count"] is None else choice["max_count"]
    matching = pd.Series(True, index=stored.index)
    for name, value in wanted.items():
        matching &= stored[name] == value
    if not matching.any():
        choices = {(row.min_count, row.max_count) for row in stored.itertuples()}
        counts = ", ".join(
            f"{least} to {'all' if most == _ALL else most}" for least, most in sorted(choices)
        )
        raise StatisticsError(
            "These statistics are compact: a decomposition needs the token means, which were left "
            f"out, and this choice is not among the choices stored for it: min_count and max_count "
            f"{counts} (unbiased from 2 on), with {stored['left_out'].nunique()} sets of tokens "
            "left out. Extract again for others."
        )
    columns = ["layer", *analysis.Decomposition._fields, "n"]
    return stored.loc[matching, columns].reset_index(drop=True)


def _named(statistics: Any) -> str:
    return json.dumps(list(statistics.info.get("left_out", ())), ensure_ascii=False)


# Merging


def check(ours: Any, theirs: Any) -> None:
    """Refuse two that were not measured alike, or that share a part of the corpus.

    Raises:
        StatisticsError: naming the difference.
    """
    for part in ("model", "convention"):
        one, other = ours.info[part], theirs.info[part]
        for key in one.keys() | other.keys():
            # Where the pass ran does not change what it measured.
            if key != "device" and one.get(key) != other.get(key):
                raise StatisticsError(
                    f"Cannot merge statistics that differ in {part} {key}: {one.get(key)!r} "
                    f"and {other.get(key)!r}."
                )
    if not np.array_equal(ours.layers, theirs.layers):
        raise StatisticsError("Cannot merge statistics of different layers.")
    for statistics in (ours, theirs):
        if statistics.mean is None:
            raise StatisticsError("Merging needs the token means, which were left out here.")
        if "partial" in statistics.info:
            raise StatisticsError(
                "A partial result is not merged: the pass was stopped, and which sentences it had "
                "run is not known. Run it again, with a checkpoint to go on from."
            )
        if (least := statistics.info["convention"].get("min_count", 1)) > 1:
            raise StatisticsError(
                f"Statistics of the tokens with n_t >= {least} are not merged: one that is rarer "
                "in a part would lack what was not measured. Extract without min_count."
            )
        if left_out := statistics.info.get("left_out"):
            raise StatisticsError(
                f"Tokens were left out of these statistics ({', '.join(map(repr, left_out))}): "
                "merge first, then leave them out."
            )
    for corpus in [*ours.info["corpora"], *theirs.info["corpora"]]:
        if corpus["fingerprint"] is None:
            raise StatisticsError(
                f"Which sentences of {corpus['name']!r} were measured is not known, so that "
                "merging could count some twice. Read the statistics with their sentences "
                "(corpus=read_sentences(...)), or extract again."
            )
    there = {corpus["fingerprint"] for corpus in ours.info["corpora"]}
    for corpus in theirs.info["corpora"]:
        if corpus["fingerprint"] in there:
            raise StatisticsError(
                f"Both statistics contain the same part of corpus {corpus['name']!r}; merging "
                "them would count it twice."
            )


def combine(ours: Any, theirs: Any) -> dict[str, Any]:
    """What :meth:`TokenStatistics.from_moments` takes, for the two together."""
    tokens = pd.Index(ours.tokens).union(pd.Index(theirs.tokens), sort=False)
    own, added = tokens.get_indexer(ours.tokens), tokens.get_indexer(theirs.tokens)
    special = np.zeros(len(tokens), dtype=bool)
    special[own], special[added] = ours.special, theirs.special
    n = np.zeros(len(tokens), dtype=np.int64)
    n[own] += ours.n
    n[added] += theirs.n
    order = frequency_order(n, tokens.to_numpy())
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    subwords = None
    if ours.subwords is not None:
        total = np.zeros(len(tokens))
        total[own] += ours.subwords * ours.n
        total[added] += theirs.subwords * theirs.n
        subwords = (total / n)[order]
    n_layers, _, width = ours.mean.shape
    mean, extra = memory.allocate((n_layers, len(tokens), width))
    moments = []
    for at in range(n_layers):
        whole = GroupedMoments(len(tokens), width, mean=mean[at], extra=extra[at])
        whole.load(rank[own], **_of_layer(ours, at))
        part = GroupedMoments(len(tokens), width)
        part.load(rank[added], **_of_layer(theirs, at))
        whole.merge(part)
        moments.append(whole)
    return {
        "moments": moments,
        "tokens": tokens.to_numpy()[order],
        "special": special[order],
        "layers": ours.layers,
        "mean": mean,
        "extra": extra,
        "info": _info(ours.info, theirs.info),
        "subwords": subwords,
    }


def _of_layer(statistics: Any, at: int) -> dict[str, np.ndarray | None]:
    return {
        "count": statistics.n,
        "mean": statistics.mean[at],
        "Q": statistics.Q[at],
        "V": statistics.V[at],
        "extra": None if statistics.extra is None else statistics.extra[at],
    }


def _info(ours: Mapping, theirs: Mapping) -> dict:
    info = {**ours, "corpora": [*ours["corpora"], *theirs["corpora"]]}
    info["counts"] = {
        name: ours["counts"][name] + theirs["counts"][name] for name in ours["counts"]
    }
    key = "sentences_by_words"
    lengths = [part[key] for part in (ours, theirs) if key in part]
    info.pop(key, None)
    if len(lengths) == 2:  # where the lengths of one part are not known, those of the whole are not
        total = np.zeros(max(map(len, lengths)), dtype=np.int64)
        for found in lengths:
            total[: len(found)] += found
        info[key] = total.tolist()
    return info
