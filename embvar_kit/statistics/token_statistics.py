"""The labelled result of a pass: Q, M and V of every token at every layer, and what they show."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from embvar_kit.corpora import byte_level
from embvar_kit.corpora.tokens import frequency_order
from embvar_kit.errors import StatisticsError
from embvar_kit.models.identity import DIGESTS
from embvar_kit.moments import memory
from embvar_kit.moments.grouped import GroupedMoments
from embvar_kit.statistics import analysis
from embvar_kit.statistics.storage import read, write

HIGH_NORM_FACTOR = 10
"""By default a token is of high norm where its Q is at least this many times the median."""

CHOICES = tuple(
    {"min_count": least, "max_count": most, "special": special, "unbiased": unbiased}
    for least, most in ((1, None), (2, None), (10, 100_000))
    for special in (True, False)
    for unbiased in ((False, True) if least > 1 else (False,))
)
"""Arguments of :meth:`TokenStatistics.decomposition` whose results compact statistics keep: all
tokens, those with two occurrences or more, and the paper's range; each with and without special
tokens, plain and unbiased."""

_NO_MAXIMUM = -1  # stands for max_count=None in a column of integers
_CONTROL = "parse_special"  # the convention of control tokens


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """Statistics of the sets ``X_t`` of embeddings, one set for each token, at each layer.

    ``Q = M + V`` holds for each token and layer; the three were accumulated independently. Their
    unit is the squared norm of the embedding.

    Attributes:
        tokens: ``(T,)`` token strings, the most frequent first.
        special: ``(T,)`` whether a token is one of the tokenizer's special tokens.
        layers: ``(L,)`` indices of the hidden states; 0 is the embedding layer's output.
        n: ``(T,)`` occurrences ``n_t``, the same at each layer.
        Q: ``(L, T)`` mean squared norm of a token's embeddings.
        M: ``(L, T)`` squared norm of their mean.
        V: ``(L, T)`` their variance (population form).
        mean: ``(L, T, d)`` float32 means, or ``None`` if they were left out.
        extra: ``(L, T, d)`` int8, the means' extra bytes (see
            :class:`embvar_kit.GroupedMoments`), which keep merging accurate; or ``None``.
        info: what was measured: model, corpora, convention, counts, version of the kit.
        subwords: ``(T,)`` for words (``by="word"``), the mean number of tokens in a word; else
            ``None``.
        decompositions: for compact statistics (:meth:`compact`), the results of
            :meth:`decomposition` for each of :data:`CHOICES`, computed before the means were left
            out; else ``None``.
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
        """Make statistics from the moments of each layer.

        Args:
            moments: one :class:`GroupedMoments` for each layer, with a group for each token.
            tokens: ``(T,)`` token strings.
            special: ``(T,)`` whether a token is special.
            layers: ``(L,)`` indices of the hidden states.
            mean, extra: ``(L, T, d)`` arrays that the moments keep their means in; not copied.
            info: what was measured.
            subwords: ``(T,)`` mean number of tokens in a word, or ``None`` for tokens.
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

    # What the tokens say

    @cached_property
    def texts(self) -> np.ndarray:
        r"""``(T,)`` the text of each token.

        It differs from the token where a byte-level tokenizer writes bytes as characters: ``Ã©`` is
        ``é``, ``Ġ`` a blank. Bytes that are no whole characters become escapes such as ``\xc3``.
        """
        kept = self.info.get("byte_level")
        if kept is None:
            # Statistics of older kits say nothing, but only byte-level tokenizers have this marker.
            markers = self.info.get("convention", {}).get("markers") or ()
            kept = {"verbatim": ()} if "Ġ" in markers else None
        if kept is None:
            return self.tokens.astype(str).astype(object)
        return byte_level.texts(self.tokens, kept["verbatim"])

    def find(self, text: str) -> list[str]:
        """The tokens of this name or with this text: ``stats.find("é")`` is ``["Ã©"]``.

        Args:
            text: a token as in :attr:`tokens`, or its text as in :attr:`texts`.

        Returns:
            The tokens, one of this very name first; empty if there is none.
        """
        names = self.tokens.astype(str)
        found = np.flatnonzero((names == text) | (self.texts == text))
        return sorted(names[found].tolist(), key=lambda name: name != text)

    # What the statistics show

    def table(
        self,
        layer: int,
        *,
        min_count: int = 1,
        max_count: int | None = None,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """One row for each token: ``token, n, Q, M, V``, and ``subwords`` for words.

        The most frequent token comes first. Q, M and V are squared norms of the embedding.

        Args:
            layer: index of the hidden state.
            min_count, max_count: keep tokens with ``min_count <= n_t <= max_count``.
            special: keep special tokens.
            unbiased: give the finite-sample corrected M and V (see
                :func:`embvar_kit.statistics.analysis.unbiased`).

        Raises:
            StatisticsError: if the layer is not among :attr:`layers`, or tokens as rare as
                ``min_count`` were not measured or kept.
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

        Each token is one unweighted point. The default range is that of the paper's Figs. 2 and 4,
        ``1 <= log10 n_t <= 5``. Arguments as in :meth:`table`.

        Raises:
            StatisticsError: if fewer than 3 tokens are in the range, their M do not differ, or
                tokens as rare as ``min_count`` were not measured or kept.
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
        """The parts of the mean squared norm of all embeddings: ``layer, Q, M, V, V_W, V_B``.

        ``Q = M + V`` and ``V = V_W + V_B`` over the union of the chosen tokens' embeddings,
        weighted by ``n_t`` (paper, Figs. 5 and 6). Arguments as in :meth:`table`; ``unbiased``
        removes what finite samples add to M and V_B.

        Raises:
            StatisticsError: if no token is in the range, or the means were left out and this
                choice is not among those stored.
        """
        if self.decompositions is not None:
            return self._stored_decomposition(
                min_count=min_count,
                max_count=max_count,
                special=special,
                unbiased=unbiased,
            ).drop(columns="n")
        if self.mean is None:
            raise StatisticsError(
                "A decomposition needs the token means, which were left out of these statistics."
            )
        kept = self._kept(min_count, max_count, special)
        rows = []
        for at, layer in enumerate(self.layers):
            parts = analysis.decompose(
                self.n[kept],
                self.Q[at, kept],
                self.V[at, kept],
                self.mean[at][kept],
                correct=unbiased,
            )
            rows.append({"layer": int(layer), **parts._asdict()})
        return pd.DataFrame(rows)

    def anisotropy(self, *, min_count: int = 10, special: bool = True) -> pd.DataFrame:
        """Mean cosine similarities: ``layer, anisotropy, self_similarity, adjusted``.

        The measures are those of Ethayarajh (2019), computed over all pairs instead of a sample.
        ``anisotropy`` is the mean over all pairs of distinct embeddings; ``self_similarity`` is
        the mean over the pairs of one token, averaged over the tokens with ``n_t >= min_count``;
        ``adjusted`` is ``self_similarity - anisotropy``.

        Raises:
            StatisticsError: if the embeddings are not of norm 1 (``site="unit"``), no token occurs
                ``min_count >= 2`` times, or these are compact statistics that do not know the
                number of occurrences of this choice.
        """
        site = self.info.get("convention", {}).get("site")
        if site != "unit":
            raise StatisticsError(
                "Anisotropy is a mean cosine similarity: it needs embeddings of norm 1, and these "
                f"are of site {site!r}. Extract with site='unit'."
            )
        whole = self.decomposition(min_count=1, max_count=None, special=special)
        n = np.array([self._n_occurrences(special)])
        rows = []
        for row in whole.itertuples():
            # The unbiased M is the mean dot product of distinct pairs: their mean cosine, here.
            baseline = float(analysis.unbiased(n, np.array([row.M]), np.array([row.V]))[0][0])
            tokens = self.table(row.layer, min_count=min_count, special=special, unbiased=True)
            if tokens.empty or min_count < 2:
                raise StatisticsError(
                    f"Self-similarity needs tokens that occur at least twice; "
                    f"min_count={min_count} leaves {len(tokens)} tokens. Choose a min_count of at "
                    "least 2 that some tokens reach."
                )
            alike = float(tokens["M"].mean())
            rows.append((row.layer, baseline, alike, alike - baseline))
        return pd.DataFrame(rows, columns=["layer", "anisotropy", "self_similarity", "adjusted"])

    def high_norm(
        self, *, factor: float = HIGH_NORM_FACTOR, min_count: int = 10, peak: bool = False
    ) -> pd.DataFrame:
        """Tokens whose embeddings are far longer than the rest, layer by layer.

        At a layer a token is of high norm if Q(X_t) is at least ``factor`` times the median of Q
        over the tokens with ``n_t >= min_count``, or over all tokens where the statistics hold
        more frequent ones only. A few of them can carry most of Q(X), and a regression over tokens
        then follows them alone. In some models the first positions of a sequence have huge norms;
        that they are *attention sinks* (Xiao et al. 2024; Sun et al. 2024) is an interpretation,
        since no attention is measured here. Other tokens have high norms wherever they stand. The
        columns ``begin`` and ``first`` tell how many of a token's occurrences stand in front.

        Args:
            factor: least ratio of Q to the median.
            min_count: least number of occurrences of a token.
            peak: give each token once, at the layer of its largest ratio.

        Returns:
            One row for each layer and token of high norm, often none: ``token, n, layer, Q,
            ratio``, then the shares of its occurrences that are begin tokens (``begin``) and that
            are the first token of a sequence behind these (``first``); NaN if the statistics do
            not know. By layer, the largest ratio first; with ``peak``, by ratio alone.
        """
        kept = np.flatnonzero(self._kept(max(min_count, self._least_count), None, True))
        Q, n = self.Q[:, kept], self.n[kept]
        ratio = Q / (np.median(Q, axis=1, keepdims=True) if len(kept) else np.nan)
        high = ratio >= factor
        if peak:
            high &= np.arange(len(Q))[:, None] == ratio.argmax(axis=0)
        at, token = np.nonzero(high)
        columns = {"token": self.tokens[kept][token], "n": n[token], "layer": self.layers[at]}
        columns |= {"Q": Q[high], "ratio": ratio[high]}
        for name in ("begin", "first"):
            share = self.counts[name][kept] / n if name in self.counts else np.full(len(n), np.nan)
            columns[name] = share[token]
        order = ["ratio"] if peak else ["layer", "ratio"]
        return pd.DataFrame(columns).sort_values(
            order, ascending=[name == "layer" for name in order], ignore_index=True
        )

    def sinks(self, *, factor: float = HIGH_NORM_FACTOR, min_count: int = 10) -> pd.DataFrame:
        """Older name of :meth:`high_norm` with ``peak=True``: ``token, n, layer, Q, ratio``."""
        found = self.high_norm(factor=factor, min_count=min_count, peak=True)
        return found[["token", "n", "layer", "Q", "ratio"]]

    # Part of the statistics

    def without(self, tokens: Iterable[str]) -> TokenStatistics:
        """The same statistics with some tokens left out; ``info["left_out"]`` names them.

        Args:
            tokens: token strings, for example ``stats.high_norm().token``; strings that are not
                among :attr:`tokens` are ignored.
        """
        leave = pd.Index(self.tokens).isin([str(token) for token in tokens])
        left_out = sorted({*self.info.get("left_out", ()), *self.tokens[leave].tolist()})
        kept = self.take(np.flatnonzero(~leave))
        return replace(kept, info={**self.info, "left_out": left_out})

    def take(self, rows: np.ndarray) -> TokenStatistics:
        """The statistics of some tokens; a :meth:`decomposition` then covers their embeddings.

        Args:
            rows: ``(K,)`` indices in :attr:`tokens`, in the order wanted.

        Raises:
            ExtractionError: if neither memory nor disk has room for their means.
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

        Q, M and V are rounded to float32, and tokens with ``n_t < min_count`` are left out.
        :meth:`decomposition` needs the means, so it is computed now for each of :data:`CHOICES`.
        Compact statistics refuse everything else that needs the means, such as merging.

        Args:
            min_count: keep tokens with at least so many occurrences.
            left_out: sets of tokens; the decompositions are stored for each ``without(tokens)``.

        Raises:
            StatisticsError: if the means were left out already.
        """
        if self.mean is None:
            raise StatisticsError(
                "Compacting needs the token means, which were left out of these statistics."
            )
        kept = self.n >= min_count
        arrays = {name: getattr(self, name)[kept] for name in ("tokens", "special", "n")}
        arrays |= {name: getattr(self, name)[:, kept].astype(np.float32) for name in "QMV"}
        if self.subwords is not None:
            arrays["subwords"] = self.subwords[kept]
        info = {**self.info, "compact": {"min_count": min_count}}
        stored = pd.concat(
            [table for tokens in left_out for table in self.without(tokens)._decompositions()],
            ignore_index=True,
        )
        return replace(self, **arrays, mean=None, extra=None, info=info, decompositions=stored)

    # Several parts of a corpus together

    def merge(self, other: TokenStatistics) -> TokenStatistics:
        """The statistics of two parts of a corpus together, as one pass over both would give them.

        Raises:
            StatisticsError: if the two differ in model, convention, layers or width, share a part
                of the corpus, or lack means.
            ExtractionError: if neither memory nor disk has room for the means.
        """
        _check_mergeable(self, other)
        return self.add(other)

    def add(self, other: TokenStatistics) -> TokenStatistics:
        """:meth:`merge` without its checks, for parts that are known to be distinct.

        The chunks of one stream are distinct, and merging would refuse those that repeat a text.

        Raises:
            ExtractionError: if neither memory nor disk has room for the means.
        """
        tokens = pd.Index(self.tokens).union(pd.Index(other.tokens), sort=False)
        parts = [(part, tokens.get_indexer(part.tokens)) for part in (self, other)]
        special = np.zeros(len(tokens), dtype=bool)
        n = np.zeros(len(tokens), dtype=np.int64)
        for part, rows in parts:
            special[rows] = part.special
            n[rows] += part.n
        order = frequency_order(n, tokens.to_numpy())
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        subwords = None
        if self.subwords is not None:
            total = np.zeros(len(tokens))
            for part, rows in parts:
                total[rows] += part.subwords * part.n
            subwords = (total / n)[order]
        n_layers, _, width = self.mean.shape
        mean, extra = memory.allocate((n_layers, len(tokens), width))
        moments = []
        for at in range(n_layers):
            whole = GroupedMoments(len(tokens), width, mean=mean[at], extra=extra[at])
            for part, rows in parts:
                own = GroupedMoments(len(rows), width)
                own.load(
                    np.arange(len(rows)),
                    count=part.n,
                    mean=part.mean[at],
                    Q=part.Q[at],
                    V=part.V[at],
                    extra=None if part.extra is None else part.extra[at],
                )
                whole.merge(own, rank[rows])
            moments.append(whole)
        return TokenStatistics.from_moments(
            moments,
            tokens=tokens.to_numpy()[order],
            special=special[order],
            layers=self.layers,
            mean=mean,
            extra=extra,
            info=merged_info(self.info, other.info),
            subwords=subwords,
        )

    # The file

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a folder: parquet table, safetensors means, JSON description.

        The folder is usable at every moment: new files are written beside the old ones, and one
        rename of ``metadata.json`` puts them in force. The files can be read without the kit.

        Raises:
            StatisticsFileError: if the folder cannot be written; statistics saved there before
                stay.
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

    # Which layer, which tokens

    def _at(self, layer: int) -> int:
        """The index of a layer in :attr:`layers`."""
        found = np.flatnonzero(self.layers == layer)
        if not len(found):
            raise StatisticsError(
                f"Layer {layer} was not extracted; the layers are "
                f"{', '.join(map(str, self.layers))}."
            )
        return int(found[0])

    @property
    def _measured_count(self) -> int:
        """The least number of occurrences of a token that the pass measured."""
        return self.info.get("convention", {}).get("min_count", 1)

    @property
    def _least_count(self) -> int:
        """The least number of occurrences of a token that these statistics know of."""
        return max(self._measured_count, self.info.get("compact", {}).get("min_count", 1))

    def _kept(self, min_count: int, max_count: int | None, special: bool) -> np.ndarray:
        """``(T,)`` whether a token is in the range."""
        least = self._least_count
        if min_count < least:
            measured = self._measured_count == least
            why = "were measured only for" if measured else "are compact: they keep only"
            raise StatisticsError(
                f"These statistics {why} the tokens with n_t >= {least}. Pass "
                f"min_count={least} or more, or extract again."
            )
        kept = self.n >= min_count
        if max_count is not None:
            kept &= self.n <= max_count
        return kept if special else kept & ~self.special

    # The decompositions of compact statistics

    def _decompositions(self) -> Iterator[pd.DataFrame]:
        """The decomposition for each of :data:`CHOICES` that leaves a token.

        A choice of rarer tokens than these statistics hold begins with the rarest they hold.
        Columns: ``layer, Q, M, V, V_W, V_B``, then ``n``, the number of embeddings, then
        ``min_count, max_count, special, unbiased, left_out``.
        """
        least = self._least_count
        raised = [{**choice, "min_count": max(least, choice["min_count"])} for choice in CHOICES]
        for at, choice in enumerate(raised):
            if choice in raised[:at]:
                continue
            tokens = {name: value for name, value in choice.items() if name != "unbiased"}
            n = int(self.table(int(self.layers[0]), **tokens)["n"].sum())
            if n:
                yield self.decomposition(**choice).assign(n=n, **self._key(choice))

    def _stored_decomposition(self, **choice: int | bool | None) -> pd.DataFrame:
        """One of the stored decompositions: ``layer, Q, M, V, V_W, V_B, n``."""
        stored = self.decompositions
        matching = pd.Series(True, index=stored.index)
        for name, value in self._key(choice).items():
            matching &= stored[name] == value
        if not matching.any():
            choices = {(row.min_count, row.max_count) for row in stored.itertuples()}
            counts = ", ".join(
                f"{least} to {'all' if most == _NO_MAXIMUM else most}"
                for least, most in sorted(choices)
            )
            raise StatisticsError(
                "These statistics are compact: the token means that a decomposition needs were "
                "left out, and this choice is not among the choices stored. Stored are min_count "
                f"and max_count of {counts} (unbiased from 2 on), with "
                f"{stored['left_out'].nunique()} sets of tokens left out. Extract again for others."
            )
        columns = ["layer", *analysis.Decomposition._fields, "n"]
        return stored.loc[matching, columns].reset_index(drop=True)

    def _key(self, choice: Mapping) -> dict:
        """The values that identify a choice among the stored decompositions."""
        most = _NO_MAXIMUM if choice["max_count"] is None else choice["max_count"]
        left_out = json.dumps(list(self.info.get("left_out", ())), ensure_ascii=False)
        return {**choice, "max_count": most, "left_out": left_out}

    def _n_occurrences(self, special: bool) -> int:
        """Occurrences of all tokens, including those that compact statistics no longer list."""
        if self.decompositions is None:
            return int(self.n[special | ~self.special].sum())
        stored = self._stored_decomposition(
            min_count=1, max_count=None, special=special, unbiased=False
        )
        return int(stored["n"].iloc[0])


def _check_mergeable(ours: TokenStatistics, theirs: TokenStatistics) -> None:
    """Refuse statistics that were not measured alike, or that share a part of the corpus.

    Raises:
        StatisticsError: naming the difference.
    """
    both = (ours, theirs)
    for part in ("model", "convention"):
        one, other = ours.info[part], theirs.info[part]
        neutral = {"device"}  # where the pass ran does not change what it measured
        if part == "convention":
            one, other = ({**p.info[part], _CONTROL: control_tokens_read(p.info)} for p in both)
        elif not all(DIGESTS[0] in told for told in (one, other)):
            neutral |= set(DIGESTS)  # an older kit kept none
        for key in sorted((one.keys() | other.keys()) - neutral):
            if one.get(key) != other.get(key):
                raise StatisticsError(
                    f"Cannot merge statistics that differ in {part} {key}: {one.get(key)!r} "
                    f"and {other.get(key)!r}."
                )
    if not np.array_equal(ours.layers, theirs.layers):
        raise StatisticsError("Cannot merge statistics of different layers.")
    for statistics in both:
        if statistics.mean is None:
            raise StatisticsError(
                "Merging needs the token means, which were left out of these statistics."
            )
        if "partial" in statistics.info:
            raise StatisticsError(
                "Partial statistics cannot be merged: their pass was stopped, and which sentences "
                "it had run is unknown. Run the pass again, with a checkpoint to resume from."
            )
        if (least := statistics.info["convention"].get("min_count", 1)) > 1:
            raise StatisticsError(
                f"Statistics of the tokens with n_t >= {least} cannot be merged: a token that is "
                "rarer in one part was not measured there. Extract without min_count."
            )
        if left_out := statistics.info.get("left_out"):
            raise StatisticsError(
                f"Tokens were left out of these statistics ({', '.join(map(repr, left_out))}): "
                "merge first, then leave them out."
            )
    for corpus in [*ours.info["corpora"], *theirs.info["corpora"]]:
        if corpus["fingerprint"] is None:
            raise StatisticsError(
                f"Which sentences of {corpus['name']!r} were measured is unknown, so merging could "
                "count some of them twice. Read the statistics with their sentences "
                "(corpus=read_sentences(...)), or extract again."
            )
    measured = {corpus["fingerprint"] for corpus in ours.info["corpora"]}
    for corpus in theirs.info["corpora"]:
        if corpus["fingerprint"] in measured:
            raise StatisticsError(
                f"Both statistics contain the same part of corpus {corpus['name']!r}; merging "
                "them would count it twice."
            )


def control_tokens_read(info: Mapping) -> bool:
    """Whether control tokens that the text spells out were read as control tokens.

    Kits that did not count them could not read them otherwise, and did not say so.
    """
    counted = "control_tokens_in_text" in info.get("counts", {})
    return bool(info.get("convention", {}).get(_CONTROL, not counted))


def merged_info(ours: Mapping, theirs: Mapping) -> dict:
    """What was measured in two parts together."""
    info = {**ours, "corpora": [*ours["corpora"], *theirs["corpora"]]}
    # Digests that one part alone tells hold for the whole, so that no third part contradicts them.
    info["model"] = {**theirs["model"], **ours["model"]}
    said = [note for part in (ours, theirs) for note in part["model"].get("notes", [])]
    if said:
        info["model"]["notes"] = list(dict.fromkeys(said))
    # What an older kit did not count is unknown for the whole, too.
    info["counts"] = {
        name: ours["counts"][name] + theirs["counts"][name]
        for name in ours["counts"]
        if name in theirs["counts"]
    }
    key = "sentences_by_words"
    lengths = [part[key] for part in (ours, theirs) if key in part]
    info.pop(key, None)
    if len(lengths) == 2:  # unknown for the whole if unknown for one part
        total = np.zeros(max(map(len, lengths)), dtype=np.int64)
        for found in lengths:
            total[: len(found)] += found
        info[key] = total.tolist()
    return info
