"""Counts, means and variances of groups of embeddings, in one pass and in little memory.

For every group of occurrences the kit keeps four things: the count ``n``, the mean vector, the sum
of squared norms and the sum of squared deviations from the mean. From them follow, in units of
squared norm of the embedding (the paper's variance formula):

- ``Q = E||x||^2``, the mean squared norm;
- ``M = ||E x||^2``, the squared norm of the mean;
- ``V = E||x - E x||^2``, the variance (population form, divided by ``n``);

and ``Q = M + V``. The three are accumulated independently, so the identity is a check on the
numbers and not a way of computing them. The difference ``V = Q - M`` would lose its digits where
embeddings hardly vary; here deviations are taken from a running mean before they are squared (the
pairwise update of Chan, Golub and LeVeque, 1983).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embvar_kit.errors import MomentsError
from embvar_kit.moments import kernels


@dataclass(frozen=True)
class GroupOrder:
    """The occurrences of one batch sorted by group, so that every layer can reuse the sorting.

    Attributes:
        rows: ``(N,)`` row of each occurrence in the array of embeddings, sorted by group.
        starts: ``(S + 1,)`` where the rows of each segment (the occurrences of one group) start
            in ``rows``, and ``N``.
        groups: ``(S,)`` group of each segment, ascending and distinct.
    """

    rows: np.ndarray
    starts: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, rows: np.ndarray | None = None) -> GroupOrder:
        """Sort occurrences by group.

        Args:
            groups: ``(N,)`` group of each occurrence.
            rows: ``(N,)`` row of each occurrence in the embeddings; by default ``0..N-1``. Other
                rows, such as padding, are never read.

        >>> order = GroupOrder.of(np.array([7, 2, 7]))
        >>> order.groups.tolist(), order.starts.tolist(), order.rows.tolist()
        ([2, 7], [0, 1, 3], [1, 0, 2])
        """
        groups = np.ascontiguousarray(groups, dtype=np.int64)
        # NumPy sorts 16-bit integers by radix, in a third of the time.
        few = len(groups) and groups.min() >= 0 and groups.max() < 2**16
        by_group = np.argsort(groups.astype(np.uint16) if few else groups, kind="stable")
        in_order = groups[by_group]
        first = np.flatnonzero(np.diff(in_order, prepend=in_order[:1] - 1))
        starts = np.append(first, len(groups)).astype(np.int64)
        rows = by_group if rows is None else np.asarray(rows, dtype=np.int64)[by_group]
        return cls(rows=rows.astype(np.int64), starts=starts, groups=in_order[first])

    def halves(self) -> tuple[GroupOrder, GroupOrder]:
        """Two orders with half of the groups each, of an order with at least two groups."""
        cut = len(self.groups) // 2
        row = self.starts[cut]
        return (
            GroupOrder(self.rows[:row], self.starts[: cut + 1], self.groups[:cut]),
            GroupOrder(self.rows[row:], self.starts[cut:] - row, self.groups[cut:]),
        )


class GroupedMoments:
    """Streaming ``n``, mean, ``Q``, ``M`` and ``V`` of many groups of vectors.

    Each element of a mean is stored as a float32 and one extra byte with the next eight bits of
    its float64 value: five bytes with a 32-bit significand. Four bytes are too few: with float32
    means alone, their rounding enters ``V`` to first order (a test measures it). Eight, for float64
    means, would gain nothing. Sums of squares, one number for each group, are float64.

    Args:
        n_groups: number of groups, ``G``.
        dim: length of the vectors, ``d``.
        mean: ``(G, d)`` float32 array to keep the means in, for example a slice of a larger one;
            by default a new one. It is filled with NaN.
        extra: ``(G, d)`` int8 array to keep the extra bytes in; by default a new one. It is filled
            with zeros.
        fill: whether to fill the two. Without it, entries of groups never seen are undefined,
            and so is their :attr:`M`.

    Attributes:
        count: ``(G,)`` int64, occurrences seen.
        mean: ``(G, d)`` float32, NaN for groups never seen unless ``fill`` is false.

    Raises:
        MomentsError: if ``n_groups`` is negative, ``dim`` is not positive, or ``mean`` or ``extra``
            has another shape or type.

    >>> square = np.array([[3, 1], [3, -1], [5, 1], [5, -1]], dtype=np.float32)
    >>> m = GroupedMoments(n_groups=2, dim=2)
    >>> m.update(square, np.array([0, 0, 0, 0]))
    >>> m.count.tolist(), m.mean[0].tolist()
    ([4, 0], [4.0, 0.0])
    >>> [float(x[0]) for x in (m.Q, m.M, m.V)]  # Q = M + V
    [18.0, 16.0, 2.0]
    >>> float(m.V[1])  # a group never seen has no variance
    nan
    """

    def __init__(
        self,
        n_groups: int,
        dim: int,
        *,
        mean: np.ndarray | None = None,
        extra: np.ndarray | None = None,
        fill: bool = True,
    ) -> None:
        if n_groups < 0 or dim < 1:
            raise MomentsError(
                f"GroupedMoments needs n_groups >= 0 and dim >= 1, got {n_groups} and {dim}."
            )
        shape = (n_groups, dim)
        mean = np.empty(shape, dtype=np.float32) if mean is None else mean
        extra = np.empty(shape, dtype=np.int8) if extra is None else extra
        for name, array, dtype in (("mean", mean, np.float32), ("extra", extra, np.int8)):
            if array.shape != shape or array.dtype != dtype:
                raise MomentsError(f"{name} must be {np.dtype(dtype)} of shape {shape}.")
        if fill:
            mean[:] = np.nan
            extra[:] = 0
        self.count = np.zeros(n_groups, dtype=np.int64)
        self.mean = mean
        self._extra = extra
        self._squares = np.zeros(n_groups)  # sum of ||x||^2
        self._deviations = np.zeros(n_groups)  # sum of ||x - mean||^2

    def __repr__(self) -> str:
        seen = int((self.count > 0).sum())
        return (
            f"GroupedMoments(n_groups={self.n_groups}, dim={self.dim}: "
            f"{int(self.count.sum())} vectors in {seen} groups)"
        )

    STATE = ("count", "mean", "extra", "squares", "deviations")
    """Names of the arrays in a :meth:`state`."""

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that determine all moments, by the names in :data:`STATE`; not copied."""
        arrays = (self.count, self.mean, self._extra, self._squares, self._deviations)
        return dict(zip(self.STATE, arrays, strict=True))

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> GroupedMoments:
        """Moments on the arrays of a :meth:`state`, which are not copied."""
        own = cls.__new__(cls)
        own.count, own.mean, own._extra, own._squares, own._deviations = (
            state[name] for name in cls.STATE
        )
        return own

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the moments, to the bit, to a :meth:`state`."""
        for name, array in self.state().items():
            array[:] = state[name]

    @property
    def n_groups(self) -> int:
        """Number of groups, ``G``."""
        return self.mean.shape[0]

    @property
    def dim(self) -> int:
        """Length of the vectors, ``d``."""
        return self.mean.shape[1]

    @property
    def Q(self) -> np.ndarray:
        """``(G,)`` mean squared norm ``E||x||^2``; NaN where ``count`` is 0."""
        return self._per_count(self._squares)

    @property
    def M(self) -> np.ndarray:
        """``(G,)`` squared norm of the mean ``||E x||^2``; NaN where ``count`` is 0."""
        return kernels.squared_norms_of_means(self.mean, self._extra)

    @property
    def V(self) -> np.ndarray:
        """``(G,)`` variance ``E||x - E x||^2`` (population form); NaN where ``count`` is 0."""
        return self._per_count(self._deviations)

    def _per_count(self, total: np.ndarray) -> np.ndarray:
        return np.divide(
            total, self.count, out=np.full(self.n_groups, np.nan), where=self.count > 0
        )

    def update(self, x: np.ndarray, groups: np.ndarray | GroupOrder) -> None:
        """Take in a batch of vectors; if it is refused, the moments do not change.

        Args:
            x: ``(N, d)`` vectors; converted to float32.
            groups: ``(N,)`` group of each vector, or the :class:`GroupOrder` of a batch.

        Raises:
            MomentsError: if shapes do not fit, a group is out of range, or a value is NaN or
                infinite (the message names the row and the group).
        """
        x = self._as_vectors(x)
        order = groups if isinstance(groups, GroupOrder) else self._order(x, groups)
        self._check_order(x, order)
        self._check_finite(x, order)
        self.add(x, order)

    def add(self, x: np.ndarray, order: GroupOrder) -> None:
        """:meth:`update` without checks or copies, for a pass that makes the arrays itself.

        Args:
            x: ``(rows, d)`` float32 vectors, C-contiguous.
            order: the batch's occurrences; rows and groups must be in range.

        Raises:
            MomentsError: if a value is NaN or infinite. Groups without such a value have then
                taken in the batch, so the moments should not be used further.
        """
        with kernels.sharing_out() as n_threads:
            refused = kernels.update(
                x,
                order.rows,
                order.starts,
                order.groups,
                self.count,
                self.mean,
                self._extra,
                self._squares,
                self._deviations,
                min(n_threads, len(order.groups)),
            )
        if refused:
            self._check_finite(x, order)

    def load(
        self,
        groups: np.ndarray,
        count: np.ndarray,
        mean: np.ndarray,
        Q: np.ndarray,
        V: np.ndarray,
        extra: np.ndarray | None = None,
    ) -> None:
        """Set the moments of some groups, for example to saved ones.

        Args:
            groups: ``(K,)`` distinct groups.
            count: ``(K,)`` counts.
            mean: ``(K, d)`` means.
            Q, V: ``(K,)`` mean squared norms and variances.
            extra: ``(K, d)`` extra bytes of the means; without them the means, and merging, have
                the accuracy of float32.
        """
        self.count[groups] = count
        self.mean[groups] = mean
        self._extra[groups] = 0 if extra is None else extra
        self._squares[groups] = Q * count
        self._deviations[groups] = V * count

    def merge(self, other: GroupedMoments, groups: np.ndarray | None = None) -> None:
        """Add the moments of another part of the data, group by group; ``other`` is unchanged.

        Means and squared deviations combine by the pairwise update (Chan, Golub and LeVeque,
        1983), so that parts give together what one pass over all of them gives.

        Args:
            other: the moments of the other part.
            groups: ``(K,)`` distinct groups of these moments, one for each group of ``other``; by
                default both have the same groups.

        Raises:
            MomentsError: if the numbers of groups or dimensions differ, or ``groups`` do not fit.

        >>> x = np.arange(12, dtype=np.float32).reshape(6, 2)
        >>> a, b, whole = (GroupedMoments(1, 2) for _ in range(3))
        >>> a.update(x[:2], np.zeros(2)); b.update(x[2:], np.zeros(4))
        >>> whole.update(x, np.zeros(6)); a.merge(b)
        >>> bool(np.isclose(a.V[0], whole.V[0], rtol=1e-9))
        True
        """
        if self.dim != other.dim or (groups is None and self.n_groups != other.n_groups):
            raise MomentsError(
                f"Cannot merge moments of {other.n_groups} groups in {other.dim} dimensions into "
                f"{self.n_groups} groups in {self.dim} dimensions."
            )
        if groups is None:
            groups = np.arange(self.n_groups)
        elif len(groups) != other.n_groups or len(np.unique(groups)) != len(groups):
            raise MomentsError(f"{other.n_groups} groups need as many distinct ones to go to.")
        elif len(groups) and not 0 <= groups.min() <= groups.max() < self.n_groups:
            raise MomentsError(f"A group is outside 0..{self.n_groups - 1}.")
        kernels.merge(
            np.asarray(groups, dtype=np.int64),
            self.count,
            self.mean,
            self._extra,
            self._deviations,
            other.count,
            other.mean,
            other._extra,
            other._deviations,
        )
        self._squares[groups] += other._squares
        self.count[groups] += other.count

    def _as_vectors(self, x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise MomentsError(
                f"Expected vectors of shape (N, {self.dim}), got an array of shape {x.shape}."
            )
        return x

    def _order(self, x: np.ndarray, groups: np.ndarray) -> GroupOrder:
        groups = np.asarray(groups)
        if groups.shape != x.shape[:1]:
            raise MomentsError(
                f"{x.shape[0]} vectors need as many groups, got an array of shape {groups.shape}."
            )
        as_int = groups.astype(np.int64)
        if len(groups) and not np.array_equal(as_int, groups):
            raise MomentsError("Groups must be whole numbers.")
        return GroupOrder.of(as_int)

    def _check_finite(self, x: np.ndarray, order: GroupOrder) -> None:
        bad = np.flatnonzero(~np.isfinite(x[order.rows]).all(axis=1))
        if len(bad):
            row = int(order.rows[bad[0]])
            group = int(order.groups[np.searchsorted(order.starts, bad[0], side="right") - 1])
            feature = int(np.flatnonzero(~np.isfinite(x[row]))[0])
            raise MomentsError(
                f"Row {row} (group {group}) is not finite: feature {feature} is {x[row, feature]}."
            )

    def _check_order(self, x: np.ndarray, order: GroupOrder) -> None:
        if (
            len(order.starts) != len(order.groups) + 1
            or order.starts[0] != 0
            or order.starts[-1] != len(order.rows)
            or (np.diff(order.starts) < 1).any()
            or (np.diff(order.groups) < 1).any()
        ):
            raise MomentsError("The order's segments do not cover its rows once, group by group.")
        # Segments are sorted by group, so checking the first and the last is enough.
        if len(order.groups) and (order.groups[0] < 0 or order.groups[-1] >= self.n_groups):
            bad = order.groups[0] if order.groups[0] < 0 else order.groups[-1]
            raise MomentsError(f"Group {bad} is outside 0..{self.n_groups - 1}.")
        if len(order.rows) and (order.rows.min() < 0 or order.rows.max() >= len(x)):
            raise MomentsError(f"The order names rows outside the {len(x)} rows given.")
