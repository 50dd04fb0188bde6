"""Which normalization stands at each hidden state, found by watching one forward pass.

A layer normalization computes ``γ ⊙ z + β``: ``z`` is the input after centring (LayerNorm; Ba,
Kiros and Hinton 2016) or without it (RMSNorm; Zhang and Sennrich 2019), scaled to a mean square of
1 over its ``d`` features. Hence ``‖z‖² = d`` up to the epsilon, so that ``Q = d`` and
``V = d - M`` for any set of ``z``. Where a model has such modules is found by what they do, not by
what they are called, and matched with the hidden states by comparing tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import layer_norm, rms_norm

KINDS = ("LayerNorm", "RMSNorm")
"""Centred and scaled, or scaled alone."""


@dataclass(frozen=True, eq=False)
class Norm:
    """One call of a normalization in a forward pass.

    Attributes:
        module: its dotted name in the model.
        call: which of the module's calls in a pass, 0 the first; shared layers have several.
        name: of its class.
        kind: ``"LayerNorm"`` if it centres, ``"RMSNorm"`` if it only scales.
        eps: what it adds to the mean square before the root, to two digits.
        gamma: ``(d,)`` what it multiplies each feature by; ones where it has none.
        beta: ``(d,)`` what it then adds; zeros where it has none. Both as of loading.
    """

    module: str
    call: int
    name: str
    kind: str
    eps: float
    gamma: np.ndarray
    beta: np.ndarray

    def standardize(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., d)`` float32: its input before γ and β, of squared norm ``d`` up to epsilon."""
        return standardize(x, self.kind, self.eps)


@dataclass(frozen=True, eq=False)
class StateNorm:
    """The normalizations around one hidden state.

    Attributes:
        layer: index of the hidden state.
        produced_by: the one whose output the hidden state is, or ``None``.
        consumed_by: those whose input it is, in the order of their calls.
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
        """The one that embeddings are taken from: what produced the state, else what reads it."""
        return self.produced_by or next(iter(self.consumed_by), None)


def standardize(x: torch.Tensor, kind: str, eps: float = 0.0) -> torch.Tensor:
    """Centre (LayerNorm only) and scale to a mean square of 1: a normalization before γ and β.

    Args:
        x: ``(..., d)``, of any floating type.
        kind: one of :data:`KINDS`.
        eps: what is added to the mean square before the root; with 0, a vector of equal features
            (of zeros, for RMSNorm) has no direction left and becomes NaN.

    Returns:
        ``(..., d)`` float32, of squared norm ``d * s / (s + eps)`` with ``s`` the mean square.

    >>> z = standardize(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), "LayerNorm")
    >>> abs(round(z.sum().item(), 5)), round(z.square().sum().item(), 5)  # mean 0, ‖z‖² = d
    (0.0, 4.0)
    """
    norm = layer_norm if kind == "LayerNorm" else rms_norm
    return norm(x.float(), x.shape[-1:], eps=eps)


def table(model: Any) -> pd.DataFrame:
    """One row a hidden state: where it is normalized, by which module, with what γ and β.

    Args:
        model: an :class:`embvar_kit.models.loading.EmbeddingModel`.

    Returns:
        Columns ``layer, placement, module, call, kind, eps, gamma_min, gamma_max, beta_min,
        beta_max``; of a state that no normalization gave or takes, all but two are empty.
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
    """One call of a module that may be a normalization, and what it took and gave."""

    module: str
    number: int
    part: Any
    taken: torch.Tensor
    given: torch.Tensor


@contextmanager
def recording(module: Any) -> Iterator[list[Call]]:
    """While inside, list the calls of all modules that may be a normalization.

    Those are the modules without parts and without a matrix. A normalization that a larger module
    computes inline is not seen, nor one that has parts of its own or gives more than a tensor.
    """
    seen: list[Call] = []

    def keep(name: str, number: int, part: Any, taken: torch.Tensor, given: torch.Tensor) -> None:
        # Cloned: what comes later might write into them.
        seen.append(Call(name, number, part, taken.clone(), given.clone()))

    with _listening({name: p for name, p in module.named_modules() if _may_normalize(p)}, keep):
        yield seen


def around(states: Sequence[torch.Tensor], calls: Sequence[Call]) -> tuple[StateNorm, ...]:
    """Say of each hidden state which normalizations it comes from and goes to.

    Args:
        states: the hidden states of a pass, each ``(batch, length, d)``.
        calls: what :func:`recording` listed in that pass.
    """
    behaviour: dict[str, _Behaviour | None] = {}

    def norms_of(matching: Iterable[Call]) -> tuple[Norm, ...]:
        found = []
        for call in matching:
            if call.module not in behaviour:
                behaviour[call.module] = _behaviour(call.part, states[0])
            if known := behaviour[call.module]:
                found.append(Norm(call.module, call.number, type(call.part).__name__, *known))
        return tuple(found)

    observed = []
    for layer, state in enumerate(states):
        before = norms_of(call for call in calls if _same(call.given, state))
        after = norms_of(call for call in calls if _same(call.taken, state))
        observed.append(StateNorm(layer, before[-1] if before else None, after))
    return tuple(observed)


class Tap(NamedTuple):
    """What passed a normalization in one forward pass: ``norm``; ``taken, given`` its tensors."""

    norm: Norm
    taken: torch.Tensor
    given: torch.Tensor


@contextmanager
def tapping(module: Any, norms: Mapping[int, Norm]) -> Iterator[dict[int, Tap]]:
    """While inside, each forward pass leaves what its normalizations took and gave.

    Args:
        module: the model.
        norms: the calls to listen to, by layer.

    Yields:
        A dict ``{layer: Tap}`` that every pass fills anew; empty if there is nothing to listen to.
        The tensors are the model's own, not copies, on its device.
    """
    taps: dict[int, Tap] = {}
    wanted: dict[tuple[str, int], list[int]] = {}
    for layer, norm in norms.items():
        wanted.setdefault((norm.module, norm.call), []).append(layer)

    def keep(name: str, call: int, _: Any, taken: torch.Tensor, given: torch.Tensor) -> None:
        for layer in wanted.get((name, call), ()):
            taps[layer] = Tap(norms[layer], taken, given)

    parts = {norm.module: module.get_submodule(norm.module) for norm in norms.values()}
    with _listening(parts, keep) as calls:
        # Calls are counted within a pass.
        start = module.register_forward_pre_hook(lambda *_: (calls.clear(), taps.clear())[0])
        try:
            yield taps
        finally:
            start.remove()


@contextmanager
def _listening(parts: Mapping[str, Any], keep: Callable[..., None]) -> Iterator[Counter]:
    """Call ``keep(name, call, part, taken, given)`` whenever one of the modules has run."""
    calls: Counter = Counter()

    def listener(name: str) -> Callable[..., None]:
        def listen(part: Any, inputs: tuple, named: dict, output: Any) -> None:
            tensors = [x for x in (*inputs, *named.values()) if isinstance(x, torch.Tensor)]
            if tensors and isinstance(output, torch.Tensor):
                keep(name, calls[name], part, tensors[0], output)
            calls[name] += 1

        return listen

    hooks = [
        part.register_forward_hook(listener(name), with_kwargs=True) for name, part in parts.items()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _may_normalize(part: Any) -> bool:
    """A module without parts, whose weights are a number a feature: no matrix product."""
    return not any(part.children()) and all(
        weight.numel() <= max(weight.shape, default=1) for weight in part.parameters()
    )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.numel() == other.numel() and torch.equal(one.reshape(other.shape), other)


class _Behaviour(NamedTuple):
    kind: str
    eps: float
    gamma: np.ndarray
    beta: np.ndarray


def _behaviour(part: Any, state: torch.Tensor) -> _Behaviour | None:
    """What a module does to vectors made up for it, if that is a normalization.

    ``z`` is odd in the input, so β is the even part of the output and γ ⊙ z the odd one. Inputs of
    very different lengths tell a normalization from a module that only scales, shifts or bends.
    """
    d = state.shape[-1]
    noise = torch.from_numpy(np.random.default_rng(0).normal(0.5, 1, size=(4, d))).float()
    rows = noise * torch.tensor([[4.0], [8.0], [16.0], [32.0]])
    small = noise[:1] * torch.logspace(0, -9, 10)[:, None]  # here the epsilon shows
    x = torch.cat([rows, small]).to(state)
    try:
        with torch.inference_mode():
            there, back = (part(sign * x[None]).reshape(x.shape).double() for sign in (1, -1))
    except Exception:  # it takes more than a tensor, or another shape: no normalization of states
        return None
    x, even, odd = x.double(), (there + back) / 2, (there - back) / 2
    if not (torch.isfinite(odd[:4]).all() and odd[:4].abs().max() > 0):
        return None
    beta = even[:4].mean(dim=0)
    tolerance = max(1e-3, 4 * torch.finfo(state.dtype).eps)
    for kind in KINDS:
        centred = x - x.mean(dim=1, keepdim=True) if kind == "LayerNorm" else x
        square = centred.square().mean(dim=1, keepdim=True)
        z = centred / square.sqrt()
        gamma = (odd[:4] * z[:4]).sum(dim=0) / z[:4].square().sum(dim=0)
        apart = (gamma * z - odd)[:4].norm() + (even[:4] - beta).norm()
        if apart < tolerance * odd[:4].norm():
            eps = _epsilon((odd * gamma * z)[4:].sum(1) / (gamma * z)[4:].square().sum(1), square)
            return _Behaviour(kind, eps, gamma.float().cpu().numpy(), beta.float().cpu().numpy())
    return None


def _epsilon(response: torch.Tensor, square: torch.Tensor) -> float:
    """Epsilon from ``response = sqrt(s / (s + eps))`` to inputs of ever smaller mean square s."""
    for ratio, s in zip(response.tolist(), square[4:, 0].tolist(), strict=True):
        if 0 < ratio < 0.9:
            return float(f"{s * (ratio**-2 - 1):.1e}")
    return 0.0
