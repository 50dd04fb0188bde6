"""The moments of :mod:`embvar_kit.moments.device` by one kernel, which reads each embedding once.

The kernel is written in Triton, which compiles it for the GPU at its first use. All arithmetic is
float64 in registers, so that the precision is that of :mod:`embvar_kit.moments.kernels`; what goes
through the GPU's memory are the embeddings, in their own type, and five bytes for each element of a
mean. Every sum is taken in a fixed order.

The environment variable :data:`SWITCH` switches it on. It is off by default, since it has been
tested by Triton's interpreter only and not been timed on a GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch

from embvar_kit.errors import EmbvarWarning
from embvar_kit.moments.device import DeviceMoments, send
from embvar_kit.moments.grouped import GroupOrder
from embvar_kit.moments.kernels import STEP

try:
    import triton
    import triton.language as tl
except ImportError:  # it has wheels for Linux only
    triton = None

SWITCH = "EMBVAR_FUSED"
"""Environment variable that is 1 to take moments on a GPU by the fused kernel."""

# Not compiled anew for another number of segments or layers, which only count.
_COUNTS = ["n_segments", "n_layers", "all_layers", "first_layer", "blocks"]
_jit = triton.jit(do_not_specialize=_COUNTS) if triton else lambda kernel: kernel

_FEATURES = 128  # of a program: a wider state has several programs for each segment
_ROWS = 8  # that a program reads at once
_SEGMENTS = 128  # that a program of the second kernel finishes


def device_moments() -> type[DeviceMoments]:
    """The class that keeps moments on a device: the fused one where :data:`SWITCH` asks for it."""
    if os.environ.get(SWITCH) != "1":
        return DeviceMoments
    if triton is None:
        warnings.warn(
            f"{SWITCH}=1 asks for the fused kernel, which needs the package triton: the pass does "
            "without. Install triton (Linux only), or unset the variable.",
            EmbvarWarning,
            stacklevel=2,
        )
        return DeviceMoments
    return FusedMoments


class FusedOrder:
    """A :class:`GroupOrder` on a device, sent there once for all layers, longest segments first.

    The longest segments begin, so that none is left to run alone at the end.

    Args:
        order: the occurrences of a batch, sorted by group.
        device: where to send it.
    """

    def __init__(self, order: GroupOrder, device: torch.device) -> None:
        lengths = np.diff(order.starts)
        longest = np.argsort(-lengths, kind="stable")
        parts = order.rows, order.starts[longest], lengths[longest], order.groups[longest]
        sent = send(np.concatenate(parts), device).split([len(part) for part in parts])
        self.rows, self.first, self.lengths, self.groups = sent


class FusedMoments(DeviceMoments):
    """:class:`DeviceMoments` that take a batch of all layers in by one launch of a kernel.

    A second, small kernel adds what the programs of the first one found.
    """

    Order, copies = FusedOrder, False

    def add(self, xs: Sequence[torch.Tensor], order: FusedOrder, first: int = 0) -> None:
        """Take in a batch, as :meth:`DeviceMoments.add` does.

        The embeddings are read where they lie: they are copied only if the layers differ in type
        or if a vector's features do not lie side by side.
        """
        dtype = reduce(torch.promote_types, (x.dtype for x in xs))
        xs = [x.to(dtype).contiguous() for x in xs]
        n_segments, n_layers, dim = len(order.groups), len(xs), self.mean.shape[2]
        features = min(_FEATURES, triton.next_power_of_2(dim))
        blocks = triton.cdiv(dim, features)
        addresses = send(np.array([x.data_ptr() for x in xs]), self.mean.device)
        found = self._squares.new_empty((2, blocks, n_layers, n_segments))
        shape = n_segments, n_layers, self.mean.shape[1], first
        # Nothing below allocates memory: a batch is taken in whole or not at all.
        with torch.cuda.device_of(self.mean):  # Triton launches on the current device
            _take_in[n_segments, n_layers, blocks](
                addresses,
                order.rows,
                order.first,
                order.lengths,
                order.groups,
                self.count,
                self.mean,
                self._extra,
                found,
                dim,
                *shape,
                DTYPE=getattr(tl, str(dtype).removeprefix("torch.")),
                ALIGNED=all(x.data_ptr() % 16 == 0 for x in xs),
                FEATURES=features,
                ROWS=_ROWS,
                STEP=STEP,
            )
            _finish[triton.cdiv(n_segments, _SEGMENTS), n_layers](
                found,
                order.lengths,
                order.groups,
                self.count,
                self._squares,
                self._deviations,
                self.refused.view(torch.uint8),
                blocks,
                *shape,
                SEGMENTS=_SEGMENTS,
            )


@_jit
def _take_in(
    addresses,
    rows,
    first,
    lengths,
    groups,
    count,
    mean,
    extra,
    found,
    dim,
    n_segments,
    n_layers,
    all_layers,
    first_layer,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    FEATURES: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
):
    """Move the means by a batch, and find by how much the sums of squares grow.

    A program has one segment, one layer and one block of features; ``found`` is ``(2, blocks, L,
    S)``, the squared norms and the squared deviations in the program's features. See
    :func:`embvar_kit.moments.kernels.update` for the formulas.
    """
    segment, layer, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = tl.load(first + segment), tl.load(lengths + segment)
    own = tl.load(groups + segment) * all_layers + first_layer + layer
    x = tl.load(addresses + layer).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        x = tl.multiple_of(x, 16)
    features = block * FEATURES + tl.arange(0, FEATURES)
    inside = features < dim

    before = tl.load(count + own)
    near = tl.load(mean + own * dim + features, mask=inside & (before > 0), other=0)
    steps = tl.load(extra + own * dim + features, mask=inside & (before > 0), other=0)
    bits = near.to(tl.float64).to(tl.int64, bitcast=True) + (steps.to(tl.int64) << STEP)
    opening = x + tl.load(rows + start) * dim
    fresh = tl.load(opening + features, mask=inside & (before == 0), other=0).to(tl.float64)
    centre = tl.where(before == 0, fresh, bits.to(tl.float64, bitcast=True))

    shift = tl.full((ROWS, FEATURES), 0, tl.float64)
    spread = tl.full((ROWS, FEATURES), 0, tl.float64)
    norms = tl.full((ROWS, FEATURES), 0, tl.float64)
    for at in range(0, length, ROWS):
        present = at + tl.arange(0, ROWS) < length
        row = tl.load(rows + start + at + tl.arange(0, ROWS), mask=present, other=0) * dim
        wanted = present[:, None] & inside[None, :]
        value = tl.load(x + row[:, None] + features[None, :], mask=wanted, other=0).to(tl.float64)
        deviation = tl.where(wanted, value - centre[None, :], 0)
        shift += deviation
        spread += deviation * deviation
        norms += value * value

    after = (before + length).to(tl.float64)
    moved = tl.sum(shift, 0)
    grown = tl.maximum(tl.sum(spread, 0) - moved * moved / after, 0)
    centre += moved / after
    near = centre.to(tl.float32)
    bits = near.to(tl.float64).to(tl.int64, bitcast=True)
    steps = (centre.to(tl.int64, bitcast=True) + (1 << (STEP - 1)) - bits) >> STEP
    steps = tl.minimum(tl.maximum(steps, -128), 127)
    tl.store(mean + own * dim + features, near, mask=inside)
    tl.store(extra + own * dim + features, steps.to(tl.int8), mask=inside)
    place = found + (block * n_layers + layer) * n_segments + segment
    tl.store(place, tl.sum(tl.sum(norms, 0), 0))
    tl.store(place + tl.num_programs(2) * n_layers * n_segments, tl.sum(grown, 0))


@_jit
def _finish(
    found,
    lengths,
    groups,
    count,
    squares,
    deviations,
    refused,
    blocks,
    n_segments,
    n_layers,
    all_layers,
    first_layer,
    SEGMENTS: tl.constexpr,
):
    """Add what the blocks of features found, one block after another, and the counts."""
    layer = tl.program_id(1)
    segments = tl.program_id(0) * SEGMENTS + tl.arange(0, SEGMENTS)
    inside = segments < n_segments
    norms = tl.full((SEGMENTS,), 0, tl.float64)
    grown = tl.full((SEGMENTS,), 0, tl.float64)
    for block in range(0, blocks):
        place = found + (block * n_layers + layer) * n_segments + segments
        norms += tl.load(place, mask=inside, other=0)
        grown += tl.load(place + blocks * n_layers * n_segments, mask=inside, other=0)
    own = tl.load(groups + segments, mask=inside, other=0) * all_layers + first_layer + layer
    length = tl.load(lengths + segments, mask=inside, other=0)
    tl.store(count + own, tl.load(count + own, mask=inside, other=0) + length, mask=inside)
    tl.store(squares + own, tl.load(squares + own, mask=inside, other=0) + norms, mask=inside)
    total = tl.load(deviations + own, mask=inside, other=0) + grown
    tl.store(deviations + own, total, mask=inside)
    # Of infinity and NaN, the difference from itself is NaN. All writers write the same.
    bad = norms - norms != 0
    tl.store(refused + tl.full((SEGMENTS,), 0, tl.int32), bad.to(tl.uint8), mask=bad)
