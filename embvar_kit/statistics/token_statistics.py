"""The labelled result of a pass: Q, M and V of every token at every layer, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from embvar_kit.corpora import byte_level
from embvar_kit.errors import StatisticsError, StatisticsFileError
from embvar_kit.moments import memory
from embvar_kit.statistics import analysis, by_layer, compaction, geometry, merging, storage
from embvar_kit.statistics.compaction import STORED, TOKENS
from embvar_kit.statistics.folds import COLUMNS, LEAST, Folds
from embvar_kit.statistics.geometry import require_unit
from embvar_kit.statistics.saved import from_parts, parts_of
from embvar_kit.statistics.survival import evidence_of
from embvar_kit.wording import number_of

if TYPE_CHECKING:
    from embvar_kit.moments.grouped import GroupedMoments

HIGH_NORM_FACTOR = 10
"""By default a token is of high norm where its Q is at least this many times the median."""

_OF_ALL = {"covariance": None, "isotropies": None, "null": None}
"""What is known of all embeddings together and says nothing of a part of them, to be dropped."""


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
        info: what was measured: model, corpora, convention, counts, version of the kit; and with
            what (``environments``): attention kernel, class of the tokenizer, versions of
            libraries.
        subwords: ``(T,)`` for words (``by="word"``), the mean number of tokens in a word; else
            ``None``.
        decompositions: for compact statistics (:meth:`compact`), the results of
            :meth:`decomposition` for each of
            :data:`embvar_kit.statistics.compaction.CHOICES`, computed before the means were
            left out; else ``None``.
        counts: by name, ``(T,)`` int64 counts of each token beside ``n``. Merging adds them up, but
            for those of documents, which may be in both parts: it drops these.
        null: statistics of the same occurrences with their labels permuted (``null=True``), or
            ``None``; those of merged parts, or of some of the tokens, have none.
        folds: the tokens' statistics without each fold of the documents (``folds=``), or ``None``;
            those of merged parts, and compact ones, have none.
        fold_decompositions: the results of :meth:`decomposition` without each fold, for each of
            :data:`embvar_kit.statistics.compaction.CHOICES`; or ``None``.
        replicates: for compact statistics, what :attr:`folds` gave for each of
            :data:`embvar_kit.statistics.compaction.CHOICES`; else ``None``.
        covariance: ``(L, d, d)`` covariance of all embeddings that were measured, if the pass took
            it (``extract(..., covariance=True)``); else ``None``.
        isotropies: for compact statistics, the result of :meth:`isotropy`, if the covariance was
            known before it was left out; else ``None``.
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
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    null: TokenStatistics | None = None
    folds: Folds | None = None
    fold_decompositions: pd.DataFrame | None = None
    replicates: pd.DataFrame | None = None
    covariance: np.ndarray | None = None
    isotropies: pd.DataFrame | None = None

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
        **more: Any,
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
            more: further attributes.
        """
        return cls(
            **more,
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
        part = ", NULL: labels permuted" if self.info.get("permuted") else ""
        if partial := self.info.get("partial"):
            part += f", PARTIAL: {partial['batches']:,} of {partial['of']:,} batches"
        counts = f"{number_of(len(self), 'token')}, {number_of(int(self.n.sum()), 'occurrence')}"
        return (
            f"TokenStatistics({model!r} on {corpus!r}: {counts}, layers {self.layers[0]} to "
            f"{self.layers[-1]}{part})"
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
        kept = self.kept(min_count, max_count, special)
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
        robust: bool = False,
        weighted: bool = False,
        intervals: bool = False,
    ) -> pd.DataFrame:
        """The regression of V on M at each layer, a row each (:class:`analysis.Tradeoff`).

        Each token is one unweighted point. The default range is that of the paper's Figs. 2 and 4,
        ``1 <= log10 n_t <= 5``. Arguments as in :meth:`table`, and:

        Args:
            robust: give the Theil-Sen slope and Spearman's correlation, too.
            weighted: weight the tokens by their occurrences ``n_t``.
            intervals: put 95 % intervals of the delete-one-fold jackknife beside the values, such
                as ``slope_low`` and ``slope_high``, from the folds of documents of a pass with
                ``folds=``. They are NaN where a line cannot be fitted without some fold.

        Raises:
            StatisticsError: if fewer than 3 tokens are in the range, their M do not differ,
                tokens as rare as ``min_count`` were not measured or kept, or there are no folds.
        """
        choice = _choice(min_count, max_count, special, unbiased)
        return by_layer.tradeoff(
            self, choice, robust=robust, weighted=weighted, intervals=intervals
        )

    def decomposition(
        self,
        *,
        min_count: int = 10,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
        intervals: bool = False,
    ) -> pd.DataFrame:
        """The parts of the mean squared norm of all embeddings: ``layer, Q, M, V, V_W, V_B``.

        ``Q = M + V`` and ``V = V_W + V_B`` over the union of the chosen tokens' embeddings,
        weighted by ``n_t`` (paper, Figs. 5 and 6). Arguments as in :meth:`table`; ``unbiased``
        removes what finite samples add to M and V_B. With ``intervals=True`` come the shares
        ``M/Q, V_B/Q, V_W/Q, V_W/V``, and the 95 % intervals of all columns, as in
        :meth:`tradeoff`; they are kept for
        :data:`embvar_kit.statistics.compaction.CHOICES`.

        Raises:
            StatisticsError: if no token is in the range, the means were left out and this
                choice is not among those stored, or its intervals are not.
        """
        choice = _choice(min_count, max_count, special, unbiased)
        return by_layer.decomposition(self, choice, intervals=intervals)

    def intervals_of(
        self,
        statistic: Callable[[pd.DataFrame], Mapping[str, float]],
        *,
        layers: Iterable[int] | None = None,
        min_count: int = 10,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """Numbers of your own over tokens, with 95 % intervals over folds of documents.

        Each number is computed from all occurrences, and once more without each fold; the
        delete-one-fold jackknife makes the interval from these (as in :meth:`tradeoff`). The
        jackknife is right for smooth functions of moments, such as a slope, and wrong for a median
        or a largest value. The tokens are taken as given, though another text brings other tokens:
        the interval of a mean over tokens is too narrow (in simulated corpora that of the mean of M
        covers in 87 to 91 %, ``tests/benchmarks/coverage.md``). A statistic that leaves tokens out
        by their own M or V leaves out others without each fold.

        Args:
            statistic: takes a table as :meth:`table` gives it, one row for each token, and returns
                numbers by their names.
            layers: the layers; by default all.
            min_count, max_count, special, unbiased: as in :meth:`table`. The tokens are chosen
                once, by all their occurrences.

        Returns:
            One row a layer: ``layer``, and for each name the number, ``_low`` and ``_high``, which
            are NaN where the function refuses what is left without some fold.

        Raises:
            StatisticsError: if the statistics have no folds or keep only what the intervals of
                other methods need, if ``min_count`` is below what folds are kept for, or the
                function returns something else than numbers by names that are free.

        For example, the slope of M on Q and its interval at layer 2 are
        ``stats.intervals_of(lambda t: {"slope": np.polyfit(t["Q"], t["M"], 1)[0]}, layers=[2])``.
        """
        choice = _choice(min_count, max_count, special, unbiased)
        return by_layer.of_statistic(self, statistic, layers, choice)

    def frequency_slopes(
        self,
        *,
        log: bool = False,
        min_count: int = 10,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
        apart: bool = False,
        intervals: bool = False,
    ) -> pd.DataFrame:
        """Slopes of Q, M and V on log10 n_t over tokens: ``layer, Q, M, V`` (paper, Fig. 7).

        A slope is the change of the squared norm for ten times as many occurrences; with
        ``log=True``, that of its logarithm to base 10, NaN where fewer than three tokens have one
        (see :func:`analysis.slopes_on_frequency`, which also says how the paper's Fig. 17 differs).
        Other arguments as in :meth:`table`, and ``intervals`` as in :meth:`tradeoff`.

        ``unbiased`` takes occurrences for independent, which those of one document are not. With
        ``apart=True`` M and V are estimated from pairs of occurrences in different folds instead,
        which share no document, over the tokens in two folds or more of each half of the documents
        (``n_tokens``; see :meth:`embvar_kit.statistics.folds.Folds.halves`). The intervals then err
        to the wide side, and slopes are NaN where there are fewer than three such tokens.

        Raises:
            StatisticsError: as :func:`analysis.regress` without ``apart``, or if tokens as rare as
                ``min_count`` were not measured or kept, there are no folds, or with ``apart`` these
                are compact statistics or ``unbiased`` is set as well.
        """
        choice = _choice(min_count, max_count, special, unbiased)
        return by_layer.frequency_slopes(self, choice, log=log, apart=apart, intervals=intervals)

    def anisotropy(
        self, *, min_count: int = 10, special: bool = True, intervals: bool = False
    ) -> pd.DataFrame:
        """Mean cosine similarities: ``layer, anisotropy, self_similarity, adjusted``.

        The measures are those of Ethayarajh (2019), computed over all pairs instead of a sample.
        ``anisotropy`` is the mean over all pairs of distinct embeddings; ``self_similarity`` is
        the mean over the pairs of one token, averaged over the tokens with ``n_t >= min_count``;
        ``adjusted`` is ``self_similarity - anisotropy``. With ``intervals=True`` their 95 %
        intervals stand beside them, as in :meth:`tradeoff`. They take the tokens that reach
        ``min_count`` as given. Another text brings other tokens, which a mean over tokens feels
        most: in simulated corpora the interval of the self-similarity covers in 87 to 91 % where
        many tokens are rare (``tests/benchmarks/coverage.md``).

        Raises:
            StatisticsError: if the embeddings are not of norm 1 (``site="unit"``), no token occurs
                ``min_count >= 2`` times, these are compact statistics that do not know the
                number of occurrences of this choice, or there are no folds.
        """
        return by_layer.anisotropy(self, min_count=min_count, special=special, intervals=intervals)

    def evidence(
        self,
        *,
        min_count: int = LEAST,
        max_count: int | None = 100_000,
        special: bool = True,
        unbiased: bool = False,
        null: bool | TokenStatistics = True,
        simultaneous: bool = False,
    ) -> pd.DataFrame:
        """What speaks for a trade-off between V and M at each layer, and against it.

        A slope near -1 is no evidence by itself: it is what unrelated Q and M give. What has to be
        shown is that M differs between tokens by more than chance makes it, and that V falls with
        it.

        Args:
            min_count, max_count, special: as in :meth:`table`, from ``min_count=10`` on.
            unbiased: regress the unbiased V on the unbiased M. ``sd_M`` is of the unbiased M in any
                case.
            null: compare with the null; without it, its columns and ``survives`` are left out.
                For a part of the tokens, pass the null yourself: ``whole.null.without(tokens)``
                has the sets of permuted labels by the names that are left. Their labels were
                permuted over all occurrences, those of the tokens left out among them, so it is
                another null than one of the part alone.
            simultaneous: make the intervals so wide that those of one column hold at all layers
                together with 95 % (Bonferroni): ask for it where the best of several layers is
                chosen.

        Returns:
            One row for each layer:

            - ``slope, slope_low, slope_high, r2, r2_low, r2_high``: the regression, with 95 %
              intervals over folds of documents;
            - ``null_slope, null_r2``: the same with the labels of the occurrences permuted;
            - ``sd_M, sd_M_low, sd_M_high, null_sd_M``: spread of the unbiased M over tokens, with
              the labels as they are and permuted;
            - ``n_halves``: tokens in two folds or more of each half of the documents, which the
              next columns are about; those that clump most are not among them;
            - ``reliability, reliability_low, reliability_high``: correlation of M between the
              halves, estimated from pairs of occurrences that share no document. That of the M
              which is regressed, from all documents, is higher;
            - ``slope_half``: the regression in a half, with the same M and V;
            - ``slope_iv, slope_iv_low, slope_iv_high``: the slope free of the noise in M, which
              takes the other half's M as instrumental variable;
            - ``theil_sen, spearman, null_spearman``: slope and correlation that no few tokens
              decide, and the correlation with the labels permuted;
            - ``survives``: whether the intervals of ``slope`` and ``slope_iv`` are below 0,
              ``sd_M_low`` is above ``null_sd_M``, the reliability is at least
              :data:`embvar_kit.statistics.survival.RELIABLE`, ``reliability_low`` is above 0,
              and ``n_halves`` is at least a third of ``n_tokens`` and at least 10.

            An interval is for the value at this size of corpus: the noise in M bends ``slope``
            and lowers ``r2``, by more than their intervals show. That of ``slope_iv`` is for a
            corpus without end, too (``tests/benchmarks/coverage.md``).

            What survives need not be learned: a Post-LN model before training survives, since its
            normalization holds Q constant. Tokens that differ in nothing but how they clump in
            documents do not survive: labels permuted over the corpus do not show that, but the
            reliability does, of the ``n_halves`` tokens that it is about. Tokens that keep to
            documents of one topic may owe their M to it.

        Raises:
            StatisticsError: if there are no folds, there is no null or it has other counts (the
                message says why that may be), what is passed as the null is none, comes from
                another pass or has names that were left out here, or as :meth:`tradeoff`.
        """
        choice = {"min_count": min_count, "max_count": max_count, "special": special}
        return evidence_of(self, choice, unbiased=unbiased, null=null, simultaneous=simultaneous)

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
        kept = np.flatnonzero(self.kept(max(min_count, self.least_count), None, True))
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

    # Directions, dimensions, spectra, dispersion

    def directions(
        self,
        layer: int,
        *,
        min_count: int = 10,
        max_count: int | None = None,
        special: bool = True,
        unbiased: bool = False,
    ) -> pd.DataFrame:
        """How far a token's directions agree: ``token, n, norm, kappa, diversity``.

        ``norm`` is that of the mean direction, from 0 to 1; ``kappa`` the concentration of a von
        Mises-Fisher distribution; ``diversity`` is ``1 / kappa``, the contextual diversity (see
        :mod:`embvar_kit.statistics.measures` for sources). A mean of few directions is too long by
        chance, which ``unbiased`` corrects: it takes ``M - V / (n - 1)``, the mean cosine of
        distinct pairs. Arguments as in :meth:`table`.

        Raises:
            StatisticsError: if the embeddings are not of norm 1 (``site="unit"``), or as
                :meth:`table`.
        """
        require_unit(self, "The norm of a mean direction measures directions")
        counts = {"min_count": min_count, "max_count": max_count}
        tokens = self.table(layer, **counts, special=special, unbiased=unbiased)
        return geometry.directions(self, tokens)

    def dimension_shares(self, layer: int) -> pd.DataFrame:
        """The share of each dimension in the mean cosine similarity: ``dimension, mean, share``.

        ``mean`` is the coordinate of the mean of all directions, and ``share`` its square over
        their sum (Timkey and van Schijndel 2021); the largest share comes first.

        Raises:
            StatisticsError: if the embeddings are not of norm 1 (``site="unit"``), the means were
                left out, or the layer was not extracted.
        """
        require_unit(self, "The mean cosine similarity measures directions")
        return geometry.dimension_shares(self, self._at(layer))

    def frequency_dimensions(
        self,
        layer: int,
        *,
        min_count: int = 10,
        max_count: int | None = None,
        special: bool = True,
    ) -> pd.DataFrame:
        """Which dimensions go with frequency: ``dimension, mean, correlation``.

        ``correlation`` is that of the token means' coordinate with ``log n_t`` over tokens, after
        Puccetti et al. (2022); the largest in size comes first. ``mean`` is the mean of all
        embeddings, in whose large coordinates outlier dimensions show. Arguments as in
        :meth:`table`.

        Raises:
            StatisticsError: if the means were left out, fewer than 3 tokens are in the range, or
                all have the same count.
        """
        at, kept = self._at(layer), self.kept(min_count, max_count, special)
        return geometry.frequency_dimensions(self, at, kept)

    def isotropy(self) -> pd.DataFrame:
        """How evenly the dimensions are used by all embeddings at each layer.

        Columns: ``layer, V``, the variance V(X); ``largest``, the share of it along the first
        principal axis; ``participation_ratio``, ``effective_rank`` (of the centred embeddings) and
        ``isoscore``, as in :mod:`embvar_kit.statistics.measures`. All are of the embeddings that
        were measured, special tokens included.

        Raises:
            StatisticsError: if the covariance of the embeddings is unknown.
        """
        return geometry.isotropy(self)

    def information_gain(
        self,
        layer: int,
        *,
        metric: np.ndarray | None = None,
        min_count: int = 10,
        max_count: int | None = None,
        special: bool = True,
    ) -> pd.DataFrame:
        """What a token's mean tells, by its whitened norm: ``token, n, gain``, in nats.

        See :func:`embvar_kit.statistics.measures.information_gain`, also on what chance adds to the
        gain of rare tokens.

        Args:
            layer: index of the hidden state.
            metric: ``(d, d)`` matrix ``G``. At the last layer of a language model,
                :func:`embvar_kit.statistics.measures.output_metric` gives that of Oyama et al.
                (2023); by default the inverse of the embeddings' covariance.
            min_count, max_count, special: as in :meth:`table`.

        Raises:
            StatisticsError: if the means were left out, or no metric is given and the covariance is
                unknown.
        """
        at, kept = self._at(layer), self.kept(min_count, max_count, special)
        return geometry.information_gain(self, at, kept, metric)

    @property
    def documents(self) -> np.ndarray:
        """``(T,)`` number of documents that a token stands in.

        Raises:
            StatisticsError: if the statistics do not know the documents.
        """
        return self._of_documents("documents")

    @property
    def effective_documents(self) -> np.ndarray:
        """``(T,)`` effective number of documents that a token stands in: ``n_t^2 / sum_d n_td^2``.

        It is the inverse of Simpson's index: D where a token occurs equally often in D documents.

        Raises:
            StatisticsError: if the statistics do not know the documents.
        """
        return self.n.astype(np.float64) ** 2 / self._of_documents("document_squares")

    def dispersion(
        self,
        *,
        min_count: int = 10,
        max_count: int | None = None,
        special: bool = True,
        unbiased: bool = True,
        intervals: bool = False,
    ) -> pd.DataFrame:
        """Frequency against dispersion: regressions of V on log10 n_t and log10 documents.

        One row a layer: ``layer`` and the fields of
        :class:`embvar_kit.statistics.measures.Dispersion`. Documents are counted by
        :attr:`effective_documents`. Arguments as in :meth:`table`.

        With ``intervals=True``, 95 % intervals over folds of documents stand beside them, as in
        :meth:`intervals_of`. A token's effective number of documents is taken as given: the counts
        and V are those without each fold, and the number is that of all documents.

        Raises:
            StatisticsError: if the documents are unknown, or as
                :func:`embvar_kit.statistics.measures.dispersion` and, with intervals,
                :meth:`intervals_of`.
        """
        choice = _choice(min_count, max_count, special, unbiased)
        return by_layer.dispersion(self, choice, intervals=intervals)

    def _of_documents(self, name: str) -> np.ndarray:
        if name not in self.counts:
            raise StatisticsError(
                "These statistics do not know in which documents a token stands: an older kit made "
                "them, they come from a file that does not tell, or parts were merged, which may "
                "share a document. Extract the whole corpus in one pass, or in shards."
            )
        return self.counts[name]

    # Part of the statistics

    def without(self, tokens: Iterable[str]) -> TokenStatistics:
        """The same statistics with some tokens left out; ``info["left_out"]`` names them.

        Args:
            tokens: token strings, for example ``stats.high_norm()["token"]``, or one of them;
                strings that are not among :attr:`tokens` are ignored. Compact statistics do not
                list rare tokens, and so remember these strings, too; and they drop what is known of
                all embeddings together, since they cannot tell whether it is about these strings.

        Raises:
            StatisticsError: if a table is given in place of its column of tokens.
        """
        if isinstance(tokens, pd.DataFrame):
            raise StatisticsError('Name tokens, not a table: without(table["token"]).')
        tokens = [tokens] if isinstance(tokens, str) else [str(token) for token in tokens]
        leave = pd.Index(self.tokens).isin(tokens)
        named = tokens if "compact" in self.info else self.tokens[leave].tolist()
        info = {**self.info, "left_out": sorted({*self.info.get("left_out", ()), *named})}
        if told := info.get("compact"):
            listed = sorted({*told.get("left_out", ()), *self.tokens[leave].tolist()})
            info["compact"] = {**told, "left_out": listed}
        kept = self.take(np.flatnonzero(~leave))
        # Those that are stored are found by the tokens left out.
        stored = {name: getattr(self, name) for name in STORED}
        if self.least_count > self._measured_count and not set(named) <= set(self.tokens):
            stored |= _OF_ALL
        return replace(kept, **stored, info=info)

    def take(self, rows: np.ndarray) -> TokenStatistics:
        """The statistics of some tokens; a :meth:`decomposition` then covers their embeddings.

        The covariance is that of all embeddings, and the null permutes the labels over all of
        them. They say nothing of a part, and are kept only if no token with an occurrence is left
        out; else ``info["part_of_tokens"]`` marks a part, which cannot be merged.

        Args:
            rows: ``(K,)`` indices in :attr:`tokens`, in the order wanted.

        Raises:
            ExtractionError: if neither memory nor disk has room for their means.
        """
        arrays = {name: getattr(self, name)[rows] for name in ("tokens", "special", "n")}
        arrays |= {name: getattr(self, name)[:, rows] for name in ("Q", "M", "V")}
        if self.mean is not None:
            arrays["mean"], arrays["extra"] = memory.select(self.mean, self.extra, rows)
        arrays |= {"counts": {name: count[rows] for name, count in self.counts.items()}}
        if self.subwords is not None:
            arrays["subwords"] = self.subwords[rows]
        left = self.n.copy()
        left[rows] = 0
        if left.any():
            arrays |= _OF_ALL | {"info": {**self.info, "part_of_tokens": True}}
        taken = arrays["tokens"]
        if self.folds is not None:
            arrays["folds"] = self.folds.of(taken[pd.Index(taken).isin(self.folds.tokens)])
        return replace(self, **arrays, **dict.fromkeys(STORED))

    def compact(
        self, *, min_count: int = 10, left_out: Iterable[Iterable[str]] = ((),)
    ) -> TokenStatistics:
        """What figures and tables need, without the means: a hundredth of the size.

        Q, M and V are rounded to float32, where that has room for them, and tokens with ``n_t <
        min_count`` are left out. :meth:`decomposition` needs the means, so it is computed now for
        each of :data:`embvar_kit.statistics.compaction.CHOICES`, and :meth:`isotropy`, which
        needs the covariance, if that is known. Compact statistics refuse everything else that needs
        the means, such as merging.

        Args:
            min_count: keep tokens with at least so many occurrences.
            left_out: sets of tokens; decompositions, and intervals of the trade-off, are stored for
                each ``without(tokens)``. To keep intervals without shared strings, name these:
                ``[(), group_vocabulary(model.tokenizer).shared]`` (:mod:`embvar_kit.tokens`).

        Raises:
            StatisticsError: if the means were left out already, or no token would be left, or
                none for a decomposition.
        """
        return compaction.compact(self, min_count, left_out)

    # Several parts of a corpus together

    def merge(self, other: TokenStatistics) -> TokenStatistics:
        """The statistics of two parts of a corpus together, as one pass over both would give them.

        The whole has a covariance if both parts have. The same sentences, and shards that are in
        both, are found and refused. Two selections of one text that share some of their sentences,
        such as samples with two seeds, are not found: see to it that yours share none.

        Raises:
            StatisticsError: if the two differ in model, convention, layers or width, are of the
                same sentences or have shards in common, or lack means.
            ExtractionError: if neither memory nor disk has room for the means.
        """
        merging.check_mergeable(self, other)
        return self.add(other)

    def add(self, other: TokenStatistics, *, whole_documents: bool = False) -> TokenStatistics:
        """:meth:`merge` without its checks, for parts that are known to be distinct.

        The chunks of one stream are distinct, and merging would refuse those that repeat a text.

        Args:
            other: the statistics of the other part.
            whole_documents: whether no document is in both, so that their counts add up.

        Raises:
            ExtractionError: if neither memory nor disk has room for the means.
        """
        return merging.merged(self, other, whole_documents=whole_documents)

    # The file

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a folder: parquet table, safetensors means, JSON description.

        The folder is usable at every moment: new files are written beside the old ones, and one
        rename of ``metadata.json`` puts them in force. The files can be read without the kit.

        Raises:
            StatisticsFileError: if there is no token to be saved, or the folder cannot be written;
                statistics saved there before stay.
        """
        if not len(self):
            raise StatisticsFileError(
                f"There is nothing to save in {str(path)!r}: these statistics hold no token."
            )
        return storage.write(Path(path), *parts_of(self), self.info)

    @classmethod
    def load(cls, path: str | Path) -> TokenStatistics:
        """Read statistics that :meth:`save` wrote.

        Raises:
            StatisticsFileError: if they are missing, truncated, altered or of a newer format, or
                their parts do not belong together; the message names the file or folder.
        """
        try:
            return from_parts(cls, *storage.read(Path(path)))
        except (LookupError, TypeError, ValueError, SafetensorError) as error:
            raise StatisticsFileError(
                f"{str(path)!r} does not hold statistics as the kit writes them "
                f"({type(error).__name__}: {error})."
            ) from error

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
    def least_count(self) -> int:
        """The least number of occurrences of a token that these statistics know of."""
        return max(self._measured_count, self.info.get("compact", {}).get("min_count", 1))

    def kept(self, min_count: int, max_count: int | None, special: bool) -> np.ndarray:
        """``(T,)`` whether a token is in the range.

        Args:
            min_count: least ``n_t``.
            max_count: largest ``n_t``, or ``None`` for any.
            special: keep special tokens.

        Raises:
            StatisticsError: if ``min_count`` is less than :attr:`least_count`.
        """
        least = self.least_count
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

    # Folds of documents

    @property
    def has_folds(self) -> bool:
        """Whether intervals can be given: from folds, or from what compact statistics keep."""
        return self.folds is not None or self.replicates is not None

    def replicated(self, what: str, choice: Mapping) -> pd.DataFrame:
        """What :attr:`folds` give for a choice of tokens, or gave before they were left out.

        Args:
            what: ``"tradeoff"`` or another of the tables of
                :meth:`embvar_kit.statistics.folds.Folds.give`.
            choice: ``min_count``, ``max_count``, ``special`` and ``unbiased``, as
                :meth:`tradeoff` takes them.

        Returns:
            The table: one row for each layer and fold, or for ``"halves"`` one for each layer.

        Raises:
            StatisticsError: if there are no folds and no results stored for the choice, or it
                holds tokens that are too rare for folds or for these statistics.
        """
        if self.folds is not None:
            tokens = self.tokens[self.kept(*(choice[name] for name in TOKENS))]
            return self.folds.of(tokens).give(what, unbiased=choice["unbiased"])
        if self.replicates is None:
            raise StatisticsError(
                "Intervals need folds of documents, which these statistics lack. Extract with "
                "folds=20; statistics merged from several parts have none."
            )
        stored = self.replicates.query("what == @what").drop(columns="what")
        if stored.empty:
            raise StatisticsError(
                "These compact statistics were made by an older kit and keep no intervals of this "
                "kind: extract them again."
            )
        found = compaction.stored_for_intervals(self, stored, choice)[list(COLUMNS[what])]
        # Stored beside rows that have no such number, it is no longer whole.
        return found.astype({"n_halves": int}) if "n_halves" in found else found


def _choice(
    min_count: int, max_count: int | None, special: bool, unbiased: bool
) -> dict[str, int | bool | None]:
    """Which tokens, and which form of their moments, as :mod:`by_layer` takes them."""
    return {
        "min_count": min_count,
        "max_count": max_count,
        "special": special,
        "unbiased": unbiased,
    }
