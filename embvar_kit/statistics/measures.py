"""More measures from the same moments: directions, dimensions, spectra, information, dispersion.

All functions take plain arrays. Those of directions need embeddings of norm 1 (site ``unit``);
those of spectra need one d x d covariance of all embeddings at a layer. Each docstring names its
source and what was checked there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import entr, rel_entr

from embvar_kit.errors import StatisticsError
from embvar_kit.statistics.analysis import ROUNDING, is_constant, regress
from embvar_kit.wording import number_of

_ROUNDING = 1e-6
"""How far M of directions may exceed 1, and an eigenvalue fall below 0 in units of the largest, by
rounding alone."""

RANK = 1e-10
"""Eigenvalues below this share of the largest one count as 0. The outputs of a layer normalization
lie in a hyperplane, so that their covariance has such an eigenvalue, made of rounding."""


# Directions


def mean_resultant_length(M: np.ndarray) -> np.ndarray:
    """The norm of the mean direction, ``R = sqrt(M)``: 1 where all directions agree, 0 where none.

    Nagata et al. (2023) measure the coverage of a word's meanings by the norm of its mean word
    vector, on vectors of norm 1; directional statistics calls it the mean resultant length. Their
    abstract was checked.

    Args:
        M: ``(T,)`` squared norms of the means of directions (site ``unit``), plain or unbiased. An
            unbiased M below 0, where the directions agree less than chance would have them, counts
            as 0.

    Returns:
        ``(T,)`` norms, from 0 to 1; NaN where M is NaN.

    Raises:
        StatisticsError: if an M is larger than 1, so that the embeddings were no directions.

    >>> mean_resultant_length(np.array([1.0, 0.25, -0.01])).tolist()
    [1.0, 0.5, 0.0]
    """
    M = np.asarray(M, dtype=np.float64)
    if (M > 1 + _ROUNDING).any():
        raise StatisticsError(
            f"The largest M is {np.nanmax(M):.4g}, and that of directions is at most 1. Extract "
            "with site='unit'."
        )
    return np.sqrt(np.clip(M, 0, 1))


def concentration(M: np.ndarray, dim: int, V: np.ndarray | None = None) -> np.ndarray:
    """The concentration of directions: kappa of a von Mises-Fisher distribution, approximately.

    ``kappa = R (d - R^2) / (1 - R^2)`` with ``R^2 = M``: the closed form of Banerjee et al. (2005)
    for the maximum-likelihood equation ``I_{d/2}(kappa) / I_{d/2-1}(kappa) = R``, as quoted by
    Sra (2012). Its inverse, ``1 / kappa``, is the contextual diversity of Nagata and Tanaka-Ishii
    (2025); their abstract and a public reimplementation were checked, not the paper's text.

    Args:
        M: ``(T,)`` squared norms of the means of directions, as in :func:`mean_resultant_length`.
        dim: ``d``, the length of an embedding.
        V: ``(T,)`` their variances, plain or unbiased as M is. For directions ``1 - R^2 = V``, and
            where these nearly agree only V still has digits; by default it is ``1 - M``.

    Returns:
        ``(T,)`` kappa; infinite where all directions are the same, as those of a single occurrence,
        or differ by the rounding of float32 embeddings alone.

    Raises:
        StatisticsError: as :func:`mean_resultant_length`, or if ``dim`` is below 2.

    >>> concentration(np.array([0.0, 0.25, 1.0]), dim=3).round(3).tolist()
    [0.0, 1.833, inf]
    """
    if dim < 2:
        raise StatisticsError(f"Directions need at least 2 dimensions, not {dim}.")
    R = mean_resultant_length(M)
    apart = 1 - R**2
    if V is not None:
        V = np.asarray(V, dtype=np.float64)
        apart = np.where(V <= ROUNDING**2, 0, V)
    with np.errstate(divide="ignore"):
        return R * (dim - R**2) / apart


def dimension_shares(mean: np.ndarray) -> np.ndarray:
    """The share of each dimension in the mean cosine similarity: ``mu_j^2 / M``.

    Timkey and van Schijndel (2021) average ``x_j y_j / (|x| |y|)`` over sampled pairs of embeddings
    and divide by the sum over dimensions. Over all pairs, each embedding with itself included, the
    average is the square of the mean direction's coordinate, so nothing is sampled. Pairs of an
    embedding with itself are one in n. Notes that quote the paper's formulas were checked.

    Args:
        mean: ``(d,)`` mean of directions (site ``unit``). Of embeddings as they are, the shares are
            those of M(X).

    Returns:
        ``(d,)`` shares, which sum to 1.

    Raises:
        StatisticsError: if the mean is 0 or not finite.

    >>> dimension_shares(np.array([0.6, 0.0, -0.2])).round(2).tolist()
    [0.9, 0.0, 0.1]
    """
    squares = np.asarray(mean, dtype=np.float64) ** 2
    M = squares.sum()
    if not (np.isfinite(M) and M > 0):
        raise StatisticsError("The mean is 0 or not finite: no dimension has a share of its norm.")
    return squares / M


def frequency_correlations(mean: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Correlation of each dimension of the token means with log frequency, over tokens.

    Puccetti et al. (2022) find that outlier dimensions go with the frequency of the encoded token
    in the pre-training data. Here a token is one point, its value the mean ``mu_tj``, and its
    frequency the logarithm of ``n_t`` in the corpus that was measured. Their abstract was checked;
    they correlate hidden states, so the numbers are not theirs.

    Args:
        mean: ``(T, d)`` token means.
        n: ``(T,)`` counts.

    Returns:
        ``(d,)`` Pearson correlations; NaN for a dimension that is the same in all tokens, up to
        rounding.

    Raises:
        StatisticsError: if there are fewer than 3 tokens, all have the same count, or a count is
            not above 0.

    >>> mean = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> frequency_correlations(mean, np.array([10, 100, 1000])).round(6).tolist()
    [1.0, nan]
    """
    if len(n) < 3:
        raise StatisticsError(
            f"A correlation over {number_of(len(n), 'token')} says nothing: lower min_count."
        )
    n, y = np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if not (n > 0).all():
        raise StatisticsError("Counts must be above 0: frequency is their logarithm.")
    if is_constant(n):
        raise StatisticsError("All tokens have the same count: nothing goes with frequency.")
    x = np.log(n) - np.log(n).mean()
    constant = np.ptp(y, axis=0) <= ROUNDING * np.abs(y).max(axis=0)
    y = y - y.mean(axis=0)
    lengths = np.linalg.norm(x) * np.linalg.norm(y, axis=0)
    return x @ y / np.where(constant, np.nan, lengths)


# Spectra


def spectrum(covariance: np.ndarray) -> np.ndarray:
    """``(d,)`` eigenvalues of a ``(d, d)`` covariance, the largest first; they sum to V(X).

    Raises:
        StatisticsError: if it is no covariance: not square, not finite, not symmetric, or with an
            eigenvalue below 0 by more than rounding; or if nothing varies.

    >>> spectrum(np.diag([1.0, 3.0])).tolist()
    [3.0, 1.0]
    """
    return _eigh(covariance)[0]


def _eigh(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, the largest first, and eigenvectors in columns, of a checked covariance."""
    covariance = np.asarray(covariance, dtype=np.float64)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise StatisticsError(f"A covariance is a square matrix, not of shape {covariance.shape}.")
    if not np.isfinite(covariance).all():
        raise StatisticsError("The covariance has a value that is not finite.")
    largest = np.abs(covariance).max(initial=0)
    if not largest:
        raise StatisticsError("The covariance is 0: the embeddings do not vary.")
    if np.abs(covariance - covariance.T).max() > _ROUNDING * largest:
        raise StatisticsError("The covariance is not symmetric.")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -_ROUNDING * values[-1]:
        raise StatisticsError(
            f"The covariance has the eigenvalue {values[0]:.3g}: no embeddings have one below 0."
        )
    return values[::-1].clip(min=0), vectors[:, ::-1]


def participation_ratio(eigenvalues: np.ndarray) -> float:
    """How many dimensions carry the variance: ``(sum lambda)^2 / sum lambda^2``.

    It is ``k`` where ``k`` eigenvalues are equal and the rest 0, and the inverse of Simpson's index
    of the shares of variance (Gao et al. 2017 for populations of neurons).

    Args:
        eigenvalues: ``(d,)`` eigenvalues of a covariance, from :func:`spectrum`.

    Raises:
        StatisticsError: if they are not what a covariance has.

    >>> participation_ratio(np.array([2.0, 2.0, 0.0]))
    2.0
    """
    eigenvalues = _scaled(eigenvalues)
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def effective_rank(singular_values: np.ndarray) -> float:
    """The effective rank of a matrix: the exponential of the entropy of its singular values.

    Roy and Vetterli (2007) divide the *singular values* of a matrix by their sum and take
    ``exp(-sum p log p)``; secondary sources that quote the definition were checked. The matrix of a
    set of embeddings is the centred ``(n, d)`` one: its singular values are ``sqrt(n lambda)``, so
    pass ``sqrt(lambda)``. Many papers pass the eigenvalues ``lambda`` instead, which gives the
    effective rank of the covariance, a smaller number.

    Args:
        singular_values: ``(d,)`` singular values, on any scale.

    Raises:
        StatisticsError: if one is negative or not finite, or all are 0.

    >>> effective_rank(np.array([3.0, 3.0, 0.0]))
    2.0
    """
    p = _scaled(singular_values)
    return float(np.exp(entr(p / p.sum()).sum()))


def isoscore(eigenvalues: np.ndarray) -> float:
    """IsoScore (Rudman et al. 2022): 1 where all dimensions vary alike, 0 where only one does.

    The authors rotate the embeddings to their principal components, scale the vector of variances
    to the length ``sqrt(d)``, and take its distance from the vector of ones over the largest
    possible one, ``delta = |v - 1| / sqrt(2 (d - sqrt(d)))``. The score is ``((d - delta^2 (d -
    sqrt(d)))^2 - d) / (d (d - 1))``; each step was checked in their released code. Put into one
    another the steps are ``(r - 1) / (d - 1)`` with ``r`` the participation ratio, and so they are
    computed here: IsoScore orders embeddings of one width as the participation ratio does.

    Args:
        eigenvalues: ``(d,)`` eigenvalues of a covariance, from :func:`spectrum`.

    Raises:
        StatisticsError: if they are not what a covariance has, or there are fewer than 2.

    >>> isoscore(np.ones(3)), isoscore(np.array([1.0, 0.0, 0.0])), isoscore(np.array([1.0, 1, 0]))
    (1.0, 0.0, 0.5)
    """
    if len(eigenvalues) < 2:
        raise StatisticsError("IsoScore needs at least 2 dimensions.")
    return (participation_ratio(eigenvalues) - 1) / (len(eigenvalues) - 1)


def _scaled(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise StatisticsError(
            "Eigenvalues and singular values must be finite, at least 0, and not all 0."
        )
    # Scaled, so that squares of very large or small ones stay in range.
    return values / values.max()


# Information


def information_gain(mean: np.ndarray, centre: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """The information gain of tokens, from whitened norms of their means: ``|G^(1/2) u|^2 / 2``.

    Oyama et al. (2023, eqs. 12-14 and 16) show that ``2 KL`` is about ``u' G u``, with ``u`` the
    embedding less the mean of all embeddings, for probabilities ``p(w | u)`` that a softmax layer
    makes of the last embedding; ``G`` is then the covariance of the *output* vectors, from
    :func:`output_metric`. Their sections 3 to 5 were checked. Two remarks on our use of it: they
    take single contextualized embeddings, and we the mean of a token's; and the third-order rest is
    left out, so the approximation is for gains that are small.

    With :func:`precision` of the embeddings' own covariance as ``G``, it is exactly the divergence
    between normal distributions of that covariance around the token's mean and around that of all.

    A mean of few occurrences is noisy, which adds ``tr(G C_t) / (2 n_t)`` on average, ``C_t`` the
    covariance of the token's embeddings: rare tokens seem informative by chance.

    Args:
        mean: ``(T, d)`` token means.
        centre: ``(d,)`` mean of all embeddings.
        metric: ``(d, d)`` symmetric matrix ``G``.

    Returns:
        ``(T,)`` gains in nats.

    Raises:
        StatisticsError: if shapes do not fit.

    >>> information_gain(np.array([[3.0, 1.0]]), np.array([1.0, 1.0]), np.diag([0.5, 7.0])).tolist()
    [1.0]
    """
    apart = np.asarray(mean, dtype=np.float64) - centre
    metric = np.asarray(metric, dtype=np.float64)
    if not np.isfinite(metric).all():
        raise StatisticsError("The metric has a value that is not finite.")
    if metric.shape != (apart.shape[-1],) * 2:
        raise StatisticsError(
            f"Means of {apart.shape[-1]} dimensions and a metric of shape {metric.shape} do not "
            "fit together."
        )
    return np.einsum("td,td->t", apart @ metric, apart) / 2


def output_metric(vectors: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The Fisher information at the unigram distribution: ``G`` of Oyama et al. (2023, eq. 11).

    Args:
        vectors: ``(W, d)`` output vectors of the vocabulary, ``v_w``: the weights of the softmax
            layer, such as ``model.get_output_embeddings().weight``; an array or a tensor.
        p: ``(W,)`` probabilities ``p(w)`` of the vocabulary.

    Returns:
        ``(d, d)`` covariance of the output vectors, ``sum_w p(w) (v_w - v) (v_w - v)'``.

    Raises:
        StatisticsError: if ``p`` is not a distribution over the vectors.

    >>> output_metric(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    if hasattr(vectors, "detach"):  # a tensor: perhaps a parameter, on a device, of 16 bits
        vectors = vectors.detach().cpu().double()
    vectors, p = np.asarray(vectors, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if p.shape != vectors.shape[:1] or (p < 0).any() or not np.isclose(p.sum(), 1):
        raise StatisticsError(
            f"p needs a probability for each of the {len(vectors):,} vectors, and 1 as their sum."
        )
    apart = vectors - p @ vectors
    return (apart * p[:, None]).T @ apart


def precision(covariance: np.ndarray) -> np.ndarray:
    """The inverse of a ``(d, d)`` covariance, on the directions in which the embeddings vary.

    Eigenvalues below :data:`RANK` times the largest are left out (Moore-Penrose): embeddings behind
    a layer normalization lie in a hyperplane.

    Raises:
        StatisticsError: as :func:`spectrum`.

    >>> precision(np.diag([4.0, 0.0])).tolist()
    [[0.25, 0.0], [0.0, 0.0]]
    """
    values, vectors = _eigh(covariance)
    kept = values > RANK * values[0]
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


def context_divergence(
    group: np.ndarray, sequence: np.ndarray, n_groups: int, *, window: int = 10
) -> np.ndarray:
    """What a token tells of its neighbours: ``KL(p(. | w) || p(.))``, from co-occurrences.

    ``p(w' | w)`` is the share of ``w'`` among the tokens at most ``window`` places from a ``w`` in
    the same sequence, ``p(w')`` its share of the corpus (Oyama et al. 2023, sections 3.2 and 6.1;
    checked there, but for the window, which is ours). Of a rare token most of it is sampling error:
    the paper subtracts (eq. 17) the same quantity of a shuffled corpus, that is, of
    ``rng.permutation(group)``.

    Args:
        group: ``(K,)`` the token of each occurrence in the order of the text, -1 for those left
            out, which are no neighbours but keep their places; :attr:`Plan.group`.
        sequence: ``(K,)`` the sequence that each occurrence stands in; :attr:`Plan.sequence`.
        n_groups: number of tokens, ``T``.
        window: largest distance of neighbours.

    Returns:
        ``(T,)`` divergences in nats; NaN for tokens without a neighbour.

    Raises:
        StatisticsError: if the arrays do not fit, or the window is below 1.

    >>> text = np.array([0, 1, 0, 1])  # each token has the other as its only neighbour
    >>> context_divergence(text, np.zeros(4), n_groups=2, window=1).round(4).tolist()
    [0.6931, 0.6931]
    """
    group, sequence = np.asarray(group), np.asarray(sequence)
    if group.shape != sequence.shape or group.max(initial=-1) >= n_groups:
        raise StatisticsError(f"Each occurrence needs a sequence, and a group below {n_groups}.")
    if window < 1:
        raise StatisticsError(f"window must be at least 1, got {window}.")
    from scipy import sparse  # takes a while to import

    together = sparse.csr_array((n_groups, n_groups), dtype=np.int64)
    for step in range(1, window + 1):
        one, other = group[:-step], group[step:]
        pairs = (sequence[:-step] == sequence[step:]) & (one >= 0) & (other >= 0)
        found = np.ones(int(pairs.sum()), dtype=np.int64)
        together = together + sparse.coo_array((found, (one[pairs], other[pairs])), together.shape)
    together = (together + together.T).tocoo()
    w, neighbour = together.coords
    n = np.bincount(group[group >= 0], minlength=n_groups)
    total = np.asarray(together.sum(axis=1), dtype=np.float64)
    p = together.data / total[w]
    terms = rel_entr(p, n[neighbour] / n.sum())
    divergence = np.bincount(w, weights=terms, minlength=n_groups)
    return np.where(total > 0, divergence, np.nan)


# Dispersion


class Dispersion(NamedTuple):
    """Regressions of V on log10 n_t and on the log10 of the effective number of documents.

    Attributes:
        n_tokens: number of tokens.
        slope_n, r2_n: on log10 n_t alone.
        slope_documents, r2_documents: on log10 of the effective number of documents alone.
        both_n, both_documents, r2: coefficients, and R^2, with the two side by side.
    """

    n_tokens: int
    slope_n: float
    r2_n: float
    slope_documents: float
    r2_documents: float
    both_n: float
    both_documents: float
    r2: float


def dispersion(n: np.ndarray, effective_documents: np.ndarray, V: np.ndarray) -> Dispersion:
    """Tell frequency from dispersion: regress V on both, each alone and side by side.

    A frequent token stands in more documents, and contexts differ between documents, so that what
    looks like an effect of frequency can be one of dispersion (Gries 2008 on dispersion in corpora;
    the effective number is the inverse of Simpson's index). Ordinary least squares, one point for
    each token.

    Args:
        n: ``(T,)`` counts.
        effective_documents: ``(T,)`` effective number of documents, ``n_t^2 / sum_d n_td^2``.
        V: ``(T,)`` variances, plain or unbiased, in squared norm of the embedding.

    Raises:
        StatisticsError: if there are fewer than 4 tokens, a value is not finite, or n and the
            number of documents do not differ from one another, so that neither can be told apart.

    >>> n, documents = np.array([10, 10, 100, 100]), np.array([1, 10, 1, 10])
    >>> found = dispersion(n, documents, V=np.array([1.0, 4.0, 1.0, 4.0]))
    >>> round(found.both_n, 6), round(found.both_documents, 6), round(found.r2_documents, 6)
    (0.0, 3.0, 1.0)
    """
    if len(n) < 4:
        raise StatisticsError(
            f"A regression on two things over {number_of(len(n), 'token')} says nothing: lower "
            "min_count."
        )
    if not (np.asarray(n) > 0).all() or not (np.asarray(effective_documents) > 0).all():
        raise StatisticsError("Counts and numbers of documents must be above 0.")
    if is_constant(np.asarray(effective_documents, dtype=np.float64)):
        raise StatisticsError(
            "All of these tokens are spread over the same number of documents, as those of a "
            "single document are: dispersion needs a corpus of several."
        )
    x, y, V = np.log10(n), np.log10(effective_documents), np.asarray(V, dtype=np.float64)
    alone = [regress(log, V, names=(name, "V")) for log, name in ((x, "n"), (y, "documents"))]
    predictors = np.column_stack([x - x.mean(), y - y.mean()])
    apart = V - np.mean(V)
    slopes, _, rank, _ = np.linalg.lstsq(predictors, apart, rcond=1e-9)
    if rank < 2:
        raise StatisticsError(
            "The number of documents follows from n here, so their effects on V cannot be told "
            "apart: take a corpus of more documents."
        )
    total = apart @ apart
    rest = apart - predictors @ slopes
    r2 = float("nan") if is_constant(V) else 1 - rest @ rest / total
    return Dispersion(
        len(x),
        alone[0].slope,
        alone[0].r2,
        alone[1].slope,
        alone[1].r2,
        *map(float, slopes),
        float(r2),
    )
