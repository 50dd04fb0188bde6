"""The labelled result of a pass: Q, M and V of every token at every layer, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from embvar_kit import analysis, statistics_file
from embvar_kit.errors import StatisticsError
from embvar_kit.moments import GroupedMoments
from embvar_kit.tokens import frequency_order


@dataclass(frozen=True)
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
            :class:`embvar_kit.moments.GroupedMoments`), which keep merging accurate; or ``None``.
        info: what was measured: model, corpora, convention, counts, version of the kit.

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
    ) -> TokenStatistics:
        """Read the moments of each layer out; ``mean`` and ``extra`` are the arrays they live in.

        Args:
            moments: one :class:`GroupedMoments` a layer, its groups the tokens.
            tokens: ``(T,)``. special: ``(T,)``. layers: ``(L,)``. mean, extra: ``(L, T, d)``.
            info: what was measured.
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
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        model, corpus = self.info["model"]["name"], self.info["corpora"][0]["name"]
        return (
            f"TokenStatistics({model!r} on {corpus!r}: {len(self):,} tokens, "
            f"{int(self.n.sum()):,} occurrences, layers {self.layers[0]} to {self.layers[-1]})"
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
        """One row a token: ``token, n, Q, M, V``, the most frequent first.

        Args:
            layer: index of the hidden state.
            min_count, max_count: keep tokens with ``min_count <= n_t <= max_count``.
            special: whether special tokens are kept.
            unbiased: give the finite-sample corrected M and V (see
                :func:`embvar_kit.analysis.unbiased`).

        Raises:
            StatisticsError: if the layer is not among :attr:`layers`.
        """
        at = self._at(layer)
        kept = self._kept(min_count, max_count, special)
        n, M, V = self.n[kept], self.M[at, kept], self.V[at, kept]
        if unbiased:
            M, V = analysis.unbiased(n, M, V)
        columns = {"token": self.tokens[kept], "n": n, "Q": self.Q[at, kept], "M": M, "V": V}
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
            StatisticsError: if no token is in the range, or the means were left out.
        """
        means = self._means("A decomposition")
        kept = self._kept(min_count, max_count, special)
        rows = []
        for at, layer in enumerate(self.layers):
            parts = analysis.decompose(
                self.n[kept], self.Q[at, kept], self.V[at, kept], means[at][kept], correct=unbiased
            )
            rows.append({"layer": int(layer), **parts._asdict()})
        return pd.DataFrame(rows)

    def merge(self, other: TokenStatistics) -> TokenStatistics:
        """Statistics of two parts of a corpus together, as one pass over both would give them.

        Raises:
            StatisticsError: if the two differ in model, convention, layers or width, share a part
                of the corpus, or lack means.
        """
        self._check_mergeable(other)
        ours = {corpus["fingerprint"] for corpus in self.info["corpora"]}
        for corpus in other.info["corpora"]:
            if corpus["fingerprint"] in ours:
                raise StatisticsError(
                    f"Both statistics contain the same part of corpus {corpus['name']!r}; merging "
                    "them would count it twice."
                )
        return self.add(other)

    def add(self, other: TokenStatistics) -> TokenStatistics:
        """:meth:`merge` for parts known to be apart: chunks of one stream may repeat a text."""
        tokens = pd.Index(self.tokens).union(pd.Index(other.tokens), sort=False)
        own, added = tokens.get_indexer(self.tokens), tokens.get_indexer(other.tokens)
        special = np.zeros(len(tokens), dtype=bool)
        special[own], special[added] = self.special, other.special
        n = np.zeros(len(tokens), dtype=np.int64)
        np.add.at(n, own, self.n)
        np.add.at(n, added, other.n)
        order = frequency_order(n, tokens.to_numpy())
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        width = self._means("Merging").shape[2]
        mean = np.empty((len(self.layers), len(tokens), width), dtype=np.float32)
        extra = np.empty(mean.shape, dtype=np.int8)
        moments = []
        for at in range(len(self.layers)):
            whole = GroupedMoments(len(tokens), width, mean=mean[at], extra=extra[at])
            whole.load(rank[own], **self._of_layer(at))
            part = GroupedMoments(len(tokens), width)
            part.load(rank[added], **other._of_layer(at))
            whole.merge(part)
            moments.append(whole)
        counts = {
            key: self.info["counts"][key] + other.info["counts"][key] for key in self.info["counts"]
        }
        info = {**self.info, "counts": counts}
        info["corpora"] = [*self.info["corpora"], *other.info["corpora"]]
        return TokenStatistics.from_moments(
            moments,
            tokens=tokens.to_numpy()[order],
            special=special[order],
            layers=self.layers,
            mean=mean,
            extra=extra,
            info=info,
        )

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
        columns |= {"Q": self.Q.ravel(), "M": self.M.ravel(), "V": self.V.ravel()}
        tensors = {"mean": self.mean, "extra": self.extra}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return statistics_file.write(Path(path), pd.DataFrame(columns), tensors, self.info)

    @classmethod
    def load(cls, path: str | Path) -> TokenStatistics:
        """Read statistics that :meth:`save` wrote.

        Raises:
            StatisticsFileError: if they are missing, truncated, altered or of a newer format; the
                message names the file.
        """
        table, tensors, info = statistics_file.read(Path(path))
        layers = table["layer"].unique()
        first = table[table["layer"] == layers[0]]
        Q, M, V = (table[name].to_numpy().reshape(len(layers), len(first)) for name in "QMV")
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
        )

    def _of_layer(self, at: int) -> dict[str, np.ndarray]:
        extra = None if self.extra is None else self.extra[at]
        return {
            "count": self.n,
            "mean": self.mean[at],
            "Q": self.Q[at],
            "V": self.V[at],
            "extra": extra,
        }

    def _at(self, layer: int) -> int:
        found = np.flatnonzero(self.layers == layer)
        if not len(found):
            raise StatisticsError(
                f"Layer {layer} was not extracted; there are {', '.join(map(str, self.layers))}."
            )
        return int(found[0])

    def _kept(self, min_count: int, max_count: int | None, special: bool) -> np.ndarray:
        kept = self.n >= min_count
        if max_count is not None:
            kept &= self.n <= max_count
        return kept if special else kept & ~self.special

    def _means(self, purpose: str) -> np.ndarray:
        if self.mean is None:
            raise StatisticsError(f"{purpose} needs the token means, which were left out here.")
        return self.mean

    def _check_mergeable(self, other: TokenStatistics) -> None:
        for part in ("model", "convention"):
            ours, theirs = self.info[part], other.info[part]
            for key in ours.keys() | theirs.keys():
                # Where the pass ran does not change what it measured.
                if key != "device" and ours.get(key) != theirs.get(key):
                    raise StatisticsError(
                        f"Cannot merge statistics that differ in {part} {key}: {ours.get(key)!r} "
                        f"and {theirs.get(key)!r}."
                    )
        if not np.array_equal(self.layers, other.layers):
            raise StatisticsError("Cannot merge statistics of different layers.")
        for statistics in (self, other):
            statistics._means("Merging")
