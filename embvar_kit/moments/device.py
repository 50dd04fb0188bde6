"""The moments of :mod:`embvar_kit.moments.grouped` on an accelerator, without a copy to the host.

The same update in the same precision, as tensor operations. Every size is known on the host before
a batch starts, so nothing here makes it wait, and sums over a group run in a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from embvar_kit.moments.grouped import GroupedMoments, GroupOrder
from embvar_kit.moments.kernels import STEP


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor on the device; to CUDA through pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


_PIECE = 32  # rows: a device sums a piece one row after another, and the pieces side by side


class DeviceOrder:
    """A :class:`GroupOrder` on a device, sent there once for all layers."""

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
        """``(S, ...)`` sums of ``(N, ...)`` values, sorted by group, over each segment."""
        for lengths in self._levels:
            values = torch.segment_reduce(values, "sum", lengths=lengths, axis=0, unsafe=True)
        return values


class DeviceMoments:
    """Streaming moments that live on a torch device with float64 (CUDA; the CPU, for tests).

    Those of several layers together: for one layer, to start the device's many small steps would
    take longer than the steps.

    Args:
        n_groups: number of groups, ``G``.
        dim: length of the vectors, ``d``.
        device: where to keep them.
        n_layers: number of layers, ``L``.
    """

    def __init__(self, n_groups: int, dim: int, device: torch.device, n_layers: int = 1) -> None:
        shape = (n_groups, n_layers)
        self.count = torch.zeros(shape, dtype=torch.int64, device=device)
        self.mean = torch.full((*shape, dim), torch.nan, dtype=torch.float32, device=device)
        self._extra = torch.zeros((*shape, dim), dtype=torch.int8, device=device)
        self._squares = torch.zeros(shape, dtype=torch.float64, device=device)
        self._deviations = torch.zeros(shape, dtype=torch.float64, device=device)
        self.refused = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, xs: Sequence[torch.Tensor], order: DeviceOrder, first: int = 0) -> None:
        """Take a batch in; :attr:`refused` turns true if it holds NaN or infinity.

        Args:
            xs: for one layer or several that follow one another, ``(rows, d)`` embeddings of any
                floating type.
            order: the batch's occurrences, sorted by group.
            first: which of the layers the first of them is.

        Raises:
            RuntimeError: if the device's memory is too small; nothing has been taken in then.
        """
        groups, layers = order.groups, slice(first, first + len(xs))
        count, mean, extra, squares, deviations = (own[:, layers] for own in self._tensors)
        before = count[groups]
        # Memory is what this costs: rows are read as they are, and no squares are written out.
        rows = torch.stack([x[order.rows] for x in xs], dim=1)
        centre = self._widen(mean[groups], extra[groups])
        centre = torch.where((before == 0)[:, :, None], rows[order.first].double(), centre)
        norms = _squared_norms(rows)
        rows = rows - centre[order.segment]
        shift = order.total(rows)
        both = torch.stack([norms, _squared_norms(rows)], dim=1)
        norms, spread = order.total(both).unbind(1)
        after = before + order.lengths[:, None]
        centre += shift / after[:, :, None]
        grown = (spread - (shift * shift).sum(2) / after).clamp_(min=0)
        new_mean, new_extra = self._narrow(centre)
        self.refused |= ~torch.isfinite(norms).all()
        # What follows needs no memory: a batch is taken in whole or not at all.
        mean.index_copy_(0, groups, new_mean)
        extra.index_copy_(0, groups, new_extra)
        count.index_copy_(0, groups, after)
        squares.index_add_(0, groups, norms)
        deviations.index_add_(0, groups, grown)

    def to_host(
        self, layer: int = 0, mean: np.ndarray | None = None, extra: np.ndarray | None = None
    ) -> GroupedMoments:
        """A layer's moments as a :class:`GroupedMoments`, in the arrays given."""
        n_groups, _, dim = self.mean.shape
        moments = GroupedMoments(n_groups, dim, mean=mean, extra=extra)
        for array, tensor in zip(moments.state().values(), self._tensors, strict=True):
            torch.from_numpy(array).copy_(tensor[:, layer])
        return moments

    def restore(self, layer: int, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a layer's state of :class:`GroupedMoments`, to the bit."""
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


def _squared_norms(x: torch.Tensor) -> torch.Tensor:
    """``(..., )`` squared norms of ``(..., d)`` vectors in float64, without a copy in it."""
    norms = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return norms * norms
