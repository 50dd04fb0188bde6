"""The moments of :mod:`embvar_kit.moments` on an accelerator, without a copy to the host.

The same update in the same precision, as tensor operations. Every size is known on the host before
a batch starts, so nothing here makes it wait, and sums over a group run in a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from embvar_kit._kernels import STEP
from embvar_kit.moments import GroupedMoments, GroupOrder


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor on the device; to CUDA through pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class DeviceOrder:
    """A :class:`GroupOrder` on a device, sent there once for all layers."""

    def __init__(self, order: GroupOrder, device: torch.device) -> None:
        lengths = np.diff(order.starts)
        self.rows = send(order.rows, device)
        self.groups = send(order.groups, device)
        self.lengths = send(lengths, device)
        self.segment = send(np.repeat(np.arange(len(lengths)), lengths), device)
        self.first = send(order.rows[order.starts[:-1]], device)


class DeviceMoments:
    """Streaming moments that live on a torch device with float64 (CUDA; the CPU, for tests).

    Args:
        n_groups: number of groups, ``G``.
        dim: length of the vectors, ``d``.
        device: where to keep them.
    """

    def __init__(self, n_groups: int, dim: int, device: torch.device) -> None:
        self.count = torch.zeros(n_groups, dtype=torch.int64, device=device)
        self.mean = torch.full((n_groups, dim), torch.nan, dtype=torch.float32, device=device)
        self._extra = torch.zeros((n_groups, dim), dtype=torch.int8, device=device)
        self._squares = torch.zeros(n_groups, dtype=torch.float64, device=device)
        self._deviations = torch.zeros(n_groups, dtype=torch.float64, device=device)
        self.refused = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, x: torch.Tensor, order: DeviceOrder) -> None:
        """Take a batch in; :attr:`refused` turns true if it holds NaN or infinity.

        Args:
            x: ``(rows, d)`` embeddings of any floating type.
            order: the batch's occurrences, sorted by group.
        """
        groups = order.groups
        before = self.count[groups]
        centre = self._widen(self.mean[groups], self._extra[groups])
        centre = torch.where((before == 0)[:, None], x[order.first].double(), centre)
        rows = x[order.rows].double()
        norms = self._total((rows * rows).sum(1), order)
        rows -= centre[order.segment]
        shift = self._total(rows, order)
        spread = self._total((rows * rows).sum(1), order)
        after = before + order.lengths
        centre += shift / after[:, None]
        grown = (spread - (shift * shift).sum(1) / after).clamp_(min=0)
        mean, extra = self._narrow(centre)
        self.mean.index_copy_(0, groups, mean)
        self._extra.index_copy_(0, groups, extra)
        self.count.index_copy_(0, groups, after)
        self._squares.index_add_(0, groups, norms)
        self._deviations.index_add_(0, groups, grown)
        self.refused |= ~torch.isfinite(norms).all()

    def to_host(
        self, mean: np.ndarray | None = None, extra: np.ndarray | None = None
    ) -> GroupedMoments:
        """The same moments as a :class:`GroupedMoments`, in the arrays given."""
        moments = GroupedMoments(*self.mean.shape, mean=mean, extra=extra)
        moments.mean[:] = self.mean.cpu().numpy()
        moments.count[:] = self.count.cpu().numpy()
        moments._extra[:] = self._extra.cpu().numpy()
        moments._squares[:] = self._squares.cpu().numpy()
        moments._deviations[:] = self._deviations.cpu().numpy()
        return moments

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state of :class:`GroupedMoments`, to the bit."""
        own = (self.count, self.mean, self._extra, self._squares, self._deviations)
        for name, tensor in zip(GroupedMoments.STATE, own, strict=True):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))

    @staticmethod
    def _total(values: torch.Tensor, order: DeviceOrder) -> torch.Tensor:
        return torch.segment_reduce(values, "sum", lengths=order.lengths, axis=0, unsafe=True)

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
