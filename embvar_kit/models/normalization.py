"""Which normalization stands at each hidden state, found by watching one forward pass.

A layer normalization computes ``γ ⊙ z + β``: ``z`` is the input after centring (LayerNorm; Ba,
Kiros and Hinton 2016) or without it (RMSNorm; Zhang and Sennrich 2019), scaled to a mean square of
1 over its ``d`` features. Hence ``‖z‖² = d`` up to the epsilon, so that ``Q = d`` and
``V = d - M`` for any set of ``z``. Such modules are recognized by what they do, not by what they
are called, and are matched with the hidden states by comparing tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import layer_norm, rms_norm

from embvar_kit.models.running import listening

KINDS = ("LayerNorm", "RMSNorm")
"""The kinds of normalization: centred and scaled, or only scaled."""


@dataclass(frozen=True, eq=False)
class Norm:
    """One call of a normalization in a forward pass.

    Attributes:
        module: dotted name of the module in the model.
        call: index of the call among the module's calls in a pass, from 0; the modules of shared
            layers are called several times.
        name: name of the module's class.
        kind: ``"LayerNorm"`` if it centres, ``"RMSNorm"`` if it only scales.
        eps: epsilon added to the mean square before the root, to two digits.
        gamma: ``(d,)`` factor of each feature, as of loading; ones if the module has none.
        beta: ``(d,)`` then added to each feature, as of loading; zeros if the module has none.
    """

    module: str
    call: int
    name: str
    kind: str
    eps: float
    gamma: np.ndarray
    beta: np.ndarray

    def standardize(self, x: torch.Tensor) -> torch.Tensor:
        """Its output before γ and β for inputs ``(..., d)``: float32, of squared norm ``d`` up to
        the epsilon."""
        return standardize(x, self.kind, self.eps)


@dataclass(frozen=True, eq=False)
class StateNorm:
    """The normalizations around one hidden state.

    Attributes:
        layer: index of the hidden state.
        produced_by: the normalization whose output the hidden state is, or ``None``.
        consumed_by: the normalizations whose input it is, in the order of their calls.
    """

    layer: int
    produced_by: Norm | None
    consumed_by: tuple[Norm, ...]

    @property
    def placement(self) -> str:
        """``"post"`` (a norm's output), ``"pre"`` (a norm's input), ``"both"`` or ``"none"``."""
        if self.produced_by and self.consumed_by:
            return "both"
        return "post" if self.produced_by else "pre" if self.consumed_by else "none"

    @property
    def norm(self) -> Norm | None:
        """The normalization that embeddings are taken from: the one that produced the state, else
        the first that consumes it, else ``None``."""
        return self.produced_by or next(iter(self.consumed_by), None)


def placement(norms: Sequence[StateNorm]) -> str:
    """Where a model's blocks normalize: ``"post"``, ``"pre"`` or ``"none"``.

    Only the states between blocks count: the first state is the embedding layer's, and the last
    may be the output of a final norm. A model of one block has none in between, so its first state
    is judged instead.

    Args:
        norms: the normalizations around each hidden state, one entry per state.
    """
    between = norms[1:-1]
    if between and all(state.produced_by for state in between):
        return "post"
    if all(state.consumed_by for state in between or norms[:1]):
        return "pre"
    return "post" if not between and norms[-1].produced_by else "none"


def standardize(x: torch.Tensor, kind: str, eps: float = 0.0) -> torch.Tensor:
    """Centre (LayerNorm only) and scale to a mean square of 1: a normalization before γ and β.

    Args:
        x: ``(..., d)``, of any floating type.
        kind: one of :data:`KINDS`.
        eps: epsilon added to the mean square before the root. With 0, a vector of equal features
            (of zeros, for RMSNorm) becomes NaN, since it has no direction left.

    Returns:
        ``(..., d)`` float32, of squared norm ``d * s / (s + eps)`` with ``s`` the mean square.

    >>> z = standardize(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), "LayerNorm")
    >>> abs(round(z.sum().item(), 5)), round(z.square().sum().item(), 5)  # mean 0, ‖z‖² = d
    (0.0, 4.0)
    """
    norm = layer_norm if kind == "LayerNorm" else rms_norm
    return norm(x.float(), x.shape[-1:], eps=eps)


def table(model: Any) -> pd.DataFrame:
    """A table of each hidden state's placement, the module that normalizes it, and its γ and β.

    Args:
        model: an :class:`embvar_kit.models.loading.EmbeddingModel`.

    Returns:
        One row per hidden state, with columns ``layer, placement, module, call, kind, eps,
        gamma_min, gamma_max, beta_min, beta_max``. For a state that no normalization produces or
        consumes, all but the first two are empty.
    """
    rows = []
    for state in model.norms:
        row: dict[str, Any] = {"layer": state.layer, "placement": state.placement}
        if norm := state.norm:
            row |= {"module": norm.module, "call": norm.call, "kind": norm.kind, "eps": norm.eps}
            for name in ("gamma", "beta"):
                values = getattr(norm, name)
                row |= {f"{name}_min": values.min(), f"{name}_max": values.max()}
        rows.append(row)
    ranges = [f"{name}_{end}" for name in ("gamma", "beta") for end in ("min", "max")]
    columns = ["layer", "placement", "module", "call", "kind", "eps", *ranges]
    return pd.DataFrame(rows, columns=columns).astype({"call": "Int64"})


class Call(NamedTuple):
    """One call of a module that may be a normalization.

    Attributes:
        name: dotted name of the module in the model.
        number: index of the call among the module's calls in the pass.
        part: the module.
        input, output: the call's tensors, copied.
    """

    name: str
    number: int
    part: Any
    input: torch.Tensor
    output: torch.Tensor


@contextmanager
def recording(module: Any) -> Iterator[list[Call]]:
    """Record the calls of all modules that may be a normalization.

    Those are the modules without children and without a matrix. The recording misses a
    normalization that a larger module computes inline, has children of its own, or returns more
    than a tensor.

    Yields:
        A list of calls that grows with each forward pass.
    """
    calls: list[Call] = []

    def keep(name: str, number: int, part: Any, xs: list[torch.Tensor], y: Any) -> None:
        if xs and isinstance(y, torch.Tensor):
            # Copied, since later modules may write into them.
            calls.append(Call(name, number, part, xs[0].clone(), y.clone()))

    with listening({name: p for name, p in module.named_modules() if _may_normalize(p)}, keep):
        yield calls


def around(states: Sequence[torch.Tensor], calls: Sequence[Call]) -> tuple[StateNorm, ...]:
    """The normalizations that each hidden state comes from and goes to.

    Args:
        states: the hidden states of a pass, each ``(batch, length, d)``.
        calls: the calls that :func:`recording` listed in that pass.
    """
    behaviour: dict[str, _Behaviour | None] = {}

    def norms_of(matching: Iterable[Call]) -> tuple[Norm, ...]:
        found = []
        for call in matching:
            if call.name not in behaviour:
                like = states[0].to(call.output.device)
                behaviour[call.name] = _behaviour(call.part, like)
            if known := behaviour[call.name]:
                found.append(Norm(call.name, call.number, type(call.part).__name__, *known))
        return tuple(found)

    observed = []
    for layer, state in enumerate(states):
        before = norms_of(call for call in calls if _same(call.output, state))
        after = norms_of(call for call in calls if _same(call.input, state))
        observed.append(StateNorm(layer, before[-1] if before else None, after))
    return tuple(observed)


class NormCall(NamedTuple):
    """A normalization's input and output ``(batch, length, d)`` in one forward pass."""

    norm: Norm
    input: torch.Tensor
    output: torch.Tensor


@contextmanager
def record_norms(module: Any, norms: Mapping[int, Norm]) -> Iterator[dict[int, NormCall]]:
    """Keep the inputs and outputs of chosen normalizations of each forward pass.

    Args:
        module: the model.
        norms: the calls to listen to, by layer.

    Yields:
        A dict ``{layer: NormCall}`` that every pass fills anew; empty if ``norms`` is.
        The tensors are the model's own, not copies, on its device.
    """
    taps: dict[int, NormCall] = {}
    wanted: dict[tuple[str, int], list[int]] = {}
    for layer, norm in norms.items():
        wanted.setdefault((norm.module, norm.call), []).append(layer)

    def keep(name: str, call: int, _: Any, xs: list[torch.Tensor], y: Any) -> None:
        for layer in wanted.get((name, call), ()):
            taps[layer] = NormCall(norms[layer], xs[0], y)

    parts = {norm.module: module.get_submodule(norm.module) for norm in norms.values()}
    with listening(parts, keep) as calls:
        # Calls are counted anew in each pass.
        start = module.register_forward_pre_hook(lambda *_: (calls.clear(), taps.clear())[0])
        try:
            yield taps
        finally:
            start.remove()


def _may_normalize(part: Any) -> bool:
    """Whether a module has no children and, per weight, one number per feature (no matrix)."""
    return not any(part.children()) and all(
        weight.numel() <= max(weight.shape, default=1) for weight in part.parameters()
    )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.numel() != other.numel():
        return False
    return torch.equal(one.reshape(other.shape).to(other.device), other)


class _Behaviour(NamedTuple):
    kind: str
    eps: float
    gamma: np.ndarray
    beta: np.ndarray


def _behaviour(part: Any, state: torch.Tensor) -> _Behaviour | None:
    """Kind, epsilon, γ and β of a module, from its outputs for random vectors; ``None`` if it is
    no normalization.

    ``z`` is odd in the input, so β is the even part of the output and γ ⊙ z the odd one. Inputs of
    very different norms tell a normalization from a module that scales, shifts or is nonlinear in
    each feature.
    """
    d = state.shape[-1]
    noise = torch.from_numpy(np.random.default_rng(0).normal(0.5, 1, size=(4, d))).float()
    rows = noise * torch.tensor([[4.0], [8.0], [16.0], [32.0]])
    small = noise[:1] * torch.logspace(0, -9, 10)[:, None]  # so small that the epsilon shows
    x = torch.cat([rows, small]).to(state)
    try:
        with torch.inference_mode():
            plus, minus = (part(sign * x[None]).reshape(x.shape).double() for sign in (1, -1))
    except Exception:  # it takes more than a tensor, or another shape: no normalization of states
        return None
    x, even, odd = x.double(), (plus + minus) / 2, (plus - minus) / 2
    if not (torch.isfinite(odd[:4]).all() and odd[:4].abs().max() > 0):
        return None
    beta = even[:4].mean(dim=0)
    tolerance = max(1e-3, 4 * torch.finfo(state.dtype).eps)
    for kind in KINDS:
        centred = x - x.mean(dim=1, keepdim=True) if kind == "LayerNorm" else x
        square = centred.square().mean(dim=1, keepdim=True)
        z = centred / square.sqrt()
        gamma = (odd[:4] * z[:4]).sum(dim=0) / z[:4].square().sum(dim=0)
        residual = (gamma * z - odd)[:4].norm() + (even[:4] - beta).norm()
        if residual < tolerance * odd[:4].norm():
            eps = _epsilon((odd * gamma * z)[4:].sum(1) / (gamma * z)[4:].square().sum(1), square)
            return _Behaviour(kind, eps, gamma.float().cpu().numpy(), beta.float().cpu().numpy())
    return None


def _epsilon(response: torch.Tensor, square: torch.Tensor) -> float:
    """Epsilon from ``response = sqrt(s / (s + eps))`` to inputs of decreasing mean square s."""
    for ratio, s in zip(response.tolist(), square[4:, 0].tolist(), strict=True):
        if 0 < ratio < 0.9:
            return float(f"{s * (ratio**-2 - 1):.1e}")
    return 0.0
