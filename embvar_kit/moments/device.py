"""The moments of :mod:`embvar_kit.moments.grouped` on an accelerator, without a copy to the host.

The update and its precision are the same, in tensor operations. Every size is known on the host
before a batch starts, so the host never waits for the device, and sums over a group are taken in a
fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from embvar_kit.moments.covariance import CovarianceMoments
from embvar_kit.moments.grouped import GroupedMoments, GroupOrder
from embvar_kit.moments.kernels import STEP


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to the device; to CUDA through pinned memory, so the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


_PIECE = 32
"""Rows in a piece: a device sums the rows of a piece in sequence, and pieces in parallel."""


class DeviceOrder:
    """A :class:`GroupOrder` on a device, sent there once for all layers.

    Args:
        order: the occurrences of a batch, sorted by group.
        device: where to send it.
    """

    def __init__(self, order: GroupOrder, device: torch.device) -> None:
        lengths = np.diff(order.starts)
        pieces = -(-lengths // _PIECE)
        sizes = np.full(pieces.sum(), _PIECE)
        sizes[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _PIECE
        segment = np.repeat(np.arange(len(lengths)), lengths)
        parts = (order.rows, segment, order.starts[:-1], order.groups, lengths, pieces, sizes)
        sent = send(np.concatenate(parts), device).split([len(part) for part in parts])
        self.rows, self.segment, self.first, self.groups, self.lengths, *levels = sent
        self._levels = levels[::-1]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """``(S, ...)`` sums over each segment of ``(N, ...)`` values that are sorted by group."""
        for lengths in self._levels:
            values = torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)
        return values


class DeviceMoments:
    """Streaming moments on a torch device that has float64 (CUDA; the CPU, for tests).

    One object holds the moments of several layers: for a single layer, launching the many small
    operations would take longer than running them.

    Args:
        n_groups: number of groups, ``G``.
        dim: length of the vectors, ``d``.
        device: where to keep the moments.
        n_layers: number of layers, ``L``.

    Attributes:
        Order: class of the orders that :meth:`add` takes.
        copies: whether :meth:`add` needs memory for copies of the embeddings.
        count: ``(G, L)`` int64, occurrences seen.
        mean: ``(G, L, d)`` float32, NaN for groups never seen.
        refused: boolean scalar, whether a batch held NaN or infinity.
    """

    Order, copies = DeviceOrder, True

    def __init__(self, n_groups: int, dim: int, device: torch.device, n_layers: int = 1) -> None:
        shape = (n_groups, n_layers)
        self.count = torch.zeros(shape, dtype=torch.int64, device=device)
        self.mean = torch.full((*shape, dim), torch.nan, dtype=torch.float32, device=device)
        self._extra = torch.zeros((*shape, dim), dtype=torch.int8, device=device)
        self._squares = torch.zeros(shape, dtype=torch.float64, device=device)
        self._deviations = torch.zeros(shape, dtype=torch.float64, device=device)
        self.refused = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, xs: Sequence[torch.Tensor], order: DeviceOrder, first: int = 0) -> None:
        """Take in a batch; :attr:`refused` turns true if it holds NaN or infinity.

        Args:
            xs: ``(rows, d)`` embeddings of any floating type, one tensor for each of one or more
                consecutive layers.
            order: the batch's occurrences, sorted by group.
            first: index of the first of these layers.

        Raises:
            RuntimeError: if the device's memory is too small; the moments are then unchanged.
        """
        groups, layers = order.groups, slice(first, first + len(xs))
        count, mean, extra, squares, deviations = (own[:, layers] for own in self._tensors)
        before = count[groups]
        # Memory traffic is the cost: rows are not converted first, and no squares are stored.
        rows = torch.stack([x[order.rows] for x in xs], dim=1)
        centre = self._widen(mean[groups], extra[groups])
        centre = torch.where((before == 0)[:, :, None], rows[order.first].double(), centre)
        norms = squared_norms(rows)
        rows = rows - centre[order.segment]
        shift = order.total(rows)
        both = torch.stack([norms, squared_norms(rows)], dim=1)
        norms, spread = order.total(both).unbind(1)
        after = before + order.lengths[:, None]
        centre += shift / after[:, :, None]
        grown = (spread - (shift * shift).sum(2) / after).clamp_(min=0)
        new_mean, new_extra = self._narrow(centre)
        self.refused |= ~torch.isfinite(norms).all()
        # Nothing below allocates memory: a batch is taken in whole or not at all.
        mean.index_copy_(0, groups, new_mean)
        extra.index_copy_(0, groups, new_extra)
        count.index_copy_(0, groups, after)
        squares.index_add_(0, groups, norms)
        deviations.index_add_(0, groups, grown)

    def to_host(
        self, layer: int = 0, mean: np.ndarray | None = None, extra: np.ndarray | None = None
    ) -> GroupedMoments:
        """Copy a layer's moments to a :class:`GroupedMoments`.

        Args:
            layer: index of the layer.
            mean, extra: ``(G, d)`` arrays to copy the means to; by default new ones.
        """
        n_groups, _, dim = self.mean.shape
        moments = GroupedMoments(n_groups, dim, mean=mean, extra=extra)
        for array, tensor in zip(moments.state().values(), self._tensors, strict=True):
            torch.from_numpy(array).copy_(tensor[:, layer])
        return moments

    def restore(self, layer: int, state: Mapping[str, np.ndarray]) -> None:
        """Set a layer's moments, to the bit, to a :meth:`GroupedMoments.state`."""
        for name, tensor in zip(GroupedMoments.STATE, self._tensors, strict=True):
            tensor[:, layer] = torch.from_numpy(np.ascontiguousarray(state[name])).to(tensor.device)

    @property
    def _tensors(self) -> tuple[torch.Tensor, ...]:
        """``(G, L, ...)``, in the order of :attr:`GroupedMoments.STATE`."""
        return self.count, self.mean, self._extra, self._squares, self._deviations

    @staticmethod
    def _widen(mean: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        bits = mean.double().view(torch.int64) + (extra.long() << STEP)
        return bits.view(torch.float64)

    @staticmethod
    def _narrow(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = value.float()
        half = 1 << (STEP - 1)
        steps = (value.view(torch.int64) + half - mean.double().view(torch.int64)) >> STEP
        return mean, steps.clamp_(-128, 127).to(torch.int8)


class DeviceCovariance:
    """The :class:`CovarianceMoments` of one layer on a torch device that has float64.

    Args:
        dim: length of the vectors, ``d``.
        device: where to keep the moments.
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        self.count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros((dim, dim), dtype=torch.float64, device=device)

    def update(self, x: torch.Tensor, rows: torch.Tensor) -> None:
        """Take in some rows of a batch; the host does not wait for the device.

        Args:
            x: ``(N, d)`` embeddings of any floating type.
            rows: ``(K,)`` the rows to take, at least one.

        Raises:
            RuntimeError: if the device's memory is too small; the moments are then unchanged.
        """
        apart = x[rows].double()
        centre = self._mean if self.count else apart.mean(dim=0)
        apart -= centre
        shift = apart.sum(dim=0)
        self._scatter.addmm_(apart.T, apart)
        self.count += len(rows)
        self._scatter.addr_(shift, shift, alpha=-1 / self.count)
        self._mean.copy_(centre).add_(shift, alpha=1 / self.count)

    def to_host(self) -> CovarianceMoments:
        """Copy the moments to a :class:`CovarianceMoments`."""
        own = CovarianceMoments(len(self._mean))
        arrays = (np.array([self.count]), self._mean.cpu().numpy(), self._scatter.cpu().numpy())
        own.restore(dict(zip(CovarianceMoments.STATE, arrays, strict=True)))
        return own

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Set the moments, to the bit, to a :meth:`CovarianceMoments.state`."""
        count, mean, scatter = (state[name] for name in CovarianceMoments.STATE)
        self.count = int(count[0])
        self._mean.copy_(torch.from_numpy(mean))
        self._scatter.copy_(torch.from_numpy(scatter))


def squared_norms(x: torch.Tensor) -> torch.Tensor:
    """``(...,)`` float64 squared norms of ``(..., d)`` vectors, without a float64 copy of them."""
    norms = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return norms * norms
