"""The moments of a pass: of every site and layer, on the host or on the model's device."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from embvar_kit.errors import MomentsError
from embvar_kit.extraction.forward import Batch
from embvar_kit.extraction.onednn import free_memory, out_of_memory
from embvar_kit.extraction.plan import Plan
from embvar_kit.models.loading import EmbeddingModel
from embvar_kit.moments import memory
from embvar_kit.moments.covariance import CovarianceMoments
from embvar_kit.moments.device import DeviceCovariance, DeviceMoments, DeviceOrder
from embvar_kit.moments.fused import FusedOrder, device_moments
from embvar_kit.moments.grouped import GroupedMoments, GroupOrder

_CHECK_EVERY = 256  # batches: asking the device whether all was finite makes the host wait

_ELEMENTS = 2**26  # most numbers of the layers that are added together: half a GiB in float64


class NotFiniteError(Exception):
    """A value was NaN or infinite: in ``batch``, or in an earlier one where that is ``None``."""

    def __init__(self, batch: Batch | None) -> None:
        super().__init__()
        self.batch = batch


class Accumulator:
    """Adds batches to the moments of the groups of a plan.

    Args:
        model: the model that gives the embeddings.
        work: the plan.
        sites: where in the model the embeddings are taken.
        fill: whether the means of groups that are never seen are NaN; else they may be anything,
            and one pass over large arrays is saved.

    Attributes:
        mean, extra: ``(sites, L, T, d)`` arrays that hold the means of the host's moments.
    """

    def __init__(
        self, model: EmbeddingModel, work: Plan, sites: Sequence[str], *, fill: bool = True
    ) -> None:
        self.work, self.sites = work, list(sites)
        shape = (len(self.sites), len(work.layers), len(work.labels), work.width)
        self.mean, self.extra = memory.allocate(shape, in_file=work.means_in == "file")
        self.on_device = work.means_in == "device"
        self._batches = 0
        self._runs = _runs(model, work.layers)
        if self.on_device:
            kind = device_moments()
            self._moments = [
                [kind(*shape[2:], run.place, len(run.layers)) for run in self._runs]
                for _ in self.sites
            ]
        else:
            self._moments = [
                [
                    GroupedMoments(*m.shape, mean=m, extra=e, fill=fill)
                    for m, e in zip(*own, strict=True)
                ]
                for own in zip(self.mean, self.extra, strict=True)
            ]
        # By site and layer; none unless the plan asks for them.
        self._covariances: dict[tuple[str, int], CovarianceMoments | DeviceCovariance] = {
            (site, layer): DeviceCovariance(work.width, model.place(layer))
            if self.on_device
            else CovarianceMoments(work.width)
            for site, layer in itertools.product(self.sites, work.layers if work.covariance else ())
        }

    def add(self, batch: Batch) -> None:
        """Add the occurrences of a batch to the moments of their groups.

        Raises:
            NotFiniteError: if a value is NaN or infinite; on a device, :meth:`check` notices later.
        """
        groups, rows = self.work.group[batch.occurrences], batch.rows
        if not (measured := groups >= 0).all():
            rows, groups = rows[measured], groups[measured]
        if not len(groups):  # for example sentences without a word
            return
        order = GroupOrder.of(groups, rows)
        if self.on_device:
            self._add_on_device(batch, order)
            return
        for site, own in zip(self.sites, self._moments, strict=True):
            for layer, moments in zip(self.work.layers, own, strict=True):
                x = batch.embeddings(site, layer).float().cpu().numpy()
                try:
                    moments.add(x, order)
                except MomentsError as error:
                    raise NotFiniteError(batch) from error
                if covariance := self._covariances.get((site, layer)):
                    covariance.update(x[order.rows])

    def _add_on_device(self, batch: Batch, order: GroupOrder) -> None:
        few = max(1, _ELEMENTS // (len(order.rows) * self.work.width))
        for at, run in enumerate(self._runs):
            sent = self._moments[0][at].Order(order, run.place)
            for site, own in zip(self.sites, self._moments, strict=True):
                # Hidden states of tokens are there already; others are made when asked for.
                there = site == "hidden" and self.work.word is None
                at_once = len(run.layers) if there and not own[at].copies else few
                for first in range(0, len(run.layers), at_once):
                    some = run.layers[first : first + at_once]
                    xs = [batch.embeddings(site, layer).to(run.place) for layer in some]
                    _add_or_halve(own[at], xs, order, sent, first)
                    for layer, x in zip(some, xs, strict=True):
                        if covariance := self._covariances.get((site, layer)):
                            _update_or_halve(covariance, x, sent.rows)
        self._batches += 1
        if self._batches % _CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Ask the device whether all values so far were finite; does nothing on the host.

        Raises:
            NotFiniteError: if one was not.
        """
        if self.on_device and any(bool(part.refused) for own in self._moments for part in own):
            raise NotFiniteError(None)

    def on_host(self) -> list[list[GroupedMoments]]:
        """The moments by site and layer; their means lie in :attr:`mean` and :attr:`extra`."""
        if not self.on_device:
            return self._moments
        self.check()
        return [
            [
                part.to_host(at, *to)
                for (part, at), *to in zip(self._by_layer(own), *means, strict=True)
            ]
            for own, *means in zip(self._moments, self.mean, self.extra, strict=True)
        ]

    def _by_layer(self, own: list[DeviceMoments]) -> list[tuple[DeviceMoments, int]]:
        """For each layer of the plan, which moments hold it at a site, and its index there."""
        return [
            (part, at)
            for part, run in zip(own, self._runs, strict=True)
            for at in range(len(run.layers))
        ]

    def covariances(self) -> dict[tuple[str, int], CovarianceMoments]:
        """The covariance of all embeddings by site and layer; empty if the plan asks for none."""
        return {
            at: own.to_host() if self.on_device else own for at, own in self._covariances.items()
        }

    def state(self, prefix: str = "") -> dict[str, np.ndarray]:
        """All that a resumed pass needs: arrays by name, without a copy."""
        held = {
            (site, layer): moments
            for site, own in zip(self.sites, self.on_host(), strict=True)
            for layer, moments in zip(self.work.layers, own, strict=True)
        }
        return {
            f"{prefix}{site}/{layer}/{name}": array
            for part in (held, self.covariances())
            for (site, layer), moments in part.items()
            for name, array in moments.state().items()
        }

    def restore(self, state: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Restore what :meth:`state` gave, to the bit."""
        for site, own in zip(self.sites, self._moments, strict=True):
            held = self._by_layer(own) if self.on_device else own
            for layer, moments in zip(self.work.layers, held, strict=True):
                names = GroupedMoments.STATE
                one = {name: state[f"{prefix}{site}/{layer}/{name}"] for name in names}
                if self.on_device:
                    part, at = moments
                    part.restore(at, one)
                else:
                    moments.restore(one)
        for (site, layer), own in self._covariances.items():
            names = CovarianceMoments.STATE
            own.restore({name: state[f"{prefix}{site}/{layer}/{name}"] for name in names})


class _Run(NamedTuple):
    """Consecutive layers of a plan whose moments are kept on one device, together."""

    place: torch.device
    layers: list[int]


def _runs(model: EmbeddingModel, layers: Sequence[int]) -> list[_Run]:
    return [_Run(place, list(own)) for place, own in itertools.groupby(layers, model.place)]


def _add_or_halve(
    moments: DeviceMoments,
    xs: list[torch.Tensor],
    order: GroupOrder,
    sent: DeviceOrder | FusedOrder,
    first: int,
) -> None:
    """Add a batch, in halves of its layers or groups where the memory is too small."""
    try:
        moments.add(xs, sent, first)
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(xs) == len(order.groups) == 1:
            raise
    free_memory()
    if len(xs) > 1:
        cut = len(xs) // 2
        _add_or_halve(moments, xs[:cut], order, sent, first)
        _add_or_halve(moments, xs[cut:], order, sent, first + cut)
    else:
        for half in order.halves():
            _add_or_halve(moments, xs, half, moments.Order(half, sent.rows.device), first)


def _update_or_halve(covariance: DeviceCovariance, x: torch.Tensor, rows: torch.Tensor) -> None:
    """Add a batch to a covariance, in halves of its rows where the memory is too small."""
    try:
        covariance.update(x, rows)
        return
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(rows) == 1:
            raise
    free_memory()
    for half in rows.tensor_split(2):
        _update_or_halve(covariance, x, half)
