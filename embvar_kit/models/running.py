"""Running a model on token ids: its hidden states, one vector per token, and nothing changed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from embvar_kit.models.silence import quiet


def run(
    module: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    states: bool = False,
) -> Any:
    """What a model gives for token ids; what the run changes of the model is undone.

    Args:
        module: a transformers model.
        input_ids: ``(batch, length)`` token ids.
        attention_mask: ``(batch, length)``, or ``None`` where nothing is padded.
        states: whether the model is to keep all its hidden states.
    """
    with running(module) as run_once:
        return run_once(input_ids, attention_mask, states=states)


@contextmanager
def running(module: Any) -> Iterator[Callable[..., Any]]:
    """Run a model several times: what it is like beforehand is noted only once.

    Yields:
        A function that takes what :func:`run` takes after the module. What each run changes of the
        model is undone after it.
    """

    def run_once(
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        states: bool = False,
    ) -> Any:
        # A model may take no mask at all: where none is needed, it gets none.
        given = {} if attention_mask is None else {"attention_mask": attention_mask}
        try:
            with torch.inference_mode():
                return module(input_ids=input_ids, output_hidden_states=states, **given)
        finally:
            put_back()

    with use_of(module), quiet(), unchanged(module) as put_back:
        yield run_once


def use_of(module: Any) -> threading.RLock:
    """The lock of a model, which whoever runs it holds.

    Hooks, layers that are cut off and packed weights are those of the one module: a pass in another
    thread would run a model that is not its own. A pass holds it from the first batch to the last.
    """
    with _choosing:
        return _locks.setdefault(module, threading.RLock())


_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_choosing = threading.Lock()


def whole_states(
    module: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Hidden states as the model gives them, ``(batch, length or more, d)``; empty for none.

    Arguments are those of :func:`run`.
    """
    return states_in(run(module, input_ids, attention_mask, states=True))


def states_in(output: Any) -> tuple[torch.Tensor, ...]:
    """The hidden states in what a model gave, ``(batch, length or more, d)``; empty for none.

    A model whose last layer returns several things (PEGASUS-X: the states of tokens and of global
    tokens) may give them together as one state; the first of them is the tokens'.
    """
    states = output.hidden_states
    return tuple(state[0] if isinstance(state, tuple) else state for state in states or ())


def states_of(
    module: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """Hidden states ``(batch, length, d)`` of a batch, without what a model pads them with.

    A model that works in chunks (Reformer) pads its input to a multiple of their length. What it
    returns for that padding is cut off here. Arguments are those of :func:`run`.
    """
    states = whole_states(module, input_ids, attention_mask)
    return tuple(cut(state, input_ids.shape[1]) for state in states)


def cut(state: torch.Tensor, length: int) -> torch.Tensor:
    """``(batch, length, d)``: a state without what the model padded it with."""
    return state if state.shape[1] == length else state[:, :length]


def input_device(module: nn.Module) -> torch.device:
    """Where a model takes its token ids: where its first weight lies.

    Weights that are offloaded lie on the device ``meta`` while they are not used.
    """
    devices = (weight.device for weight in module.parameters())
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


@contextmanager
def listening(parts: Mapping[str, nn.Module], keep: Callable[..., None]) -> Iterator[Counter]:
    """Call ``keep(name, call, part, inputs, output)`` whenever one of the modules has run.

    Args:
        parts: the modules by name.
        keep: gets the name, the index of the call among the module's calls, the module, a list of
            the tensors that it was given, and what it returned.

    Yields:
        How often each module was called; whoever listens to several runs clears it between them.
    """
    calls: Counter = Counter()

    def listener(name: str) -> Callable[..., None]:
        def listen(part: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
            tensors = [x for x in (*inputs, *named.values()) if isinstance(x, torch.Tensor)]
            keep(name, calls[name], part, tensors, output)
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


@contextmanager
def unchanged(module: nn.Module) -> Iterator[Callable[[], None]]:
    """Undo what forward passes change of a model while the context lasts.

    BigBird, for one, replaces its sparse attention by full attention for good after one short
    input. Submodules, parameters, buffers, attributes and the configuration are put back; what is
    changed inside a list or dict is not.

    A model that changes weights in place keeps all that a run changed: RWKV rescales them at its
    first run and remembers that it did, and one without the other would be another model.

    Yields:
        A function that puts everything back, which whoever runs the model several times calls
        after each run.
    """
    before = _Snapshot(module)

    def put_back() -> None:
        nonlocal before
        if before.weights_are_the_same():
            before.put_back()
        else:
            before = _Snapshot(module)

    try:
        yield put_back
    finally:
        put_back()


class _Snapshot:
    """What a model is like before a run. Taking it costs more than finding that nothing changed."""

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        configs = {id(part.config): part.config for part in parts if hasattr(part, "config")}
        contents = [getattr(part, kind) for part in parts for kind in _KINDS]
        contents += [vars(config) for config in configs.values()]
        self._contents = [_Held(content) for content in contents]
        self._attributes = [_Held(vars(part)) for part in parts]
        tensors = chain(module.parameters(), module.buffers())
        self._weights = [(weight, _version(weight)) for weight in tensors]

    def weights_are_the_same(self) -> bool:
        return all(_version(weight) == version for weight, version in self._weights)

    def put_back(self) -> None:
        for content in self._contents:
            if content.changed():
                content.now.clear()
                content.now.update(content.before)
        for attributes in self._attributes:
            if attributes.changed():
                before = _own(attributes.before)
                for name in _own(attributes.now).keys() - before.keys():
                    del attributes.now[name]
                attributes.now.update(before)


class _Held:
    """A dict as it is now, and what it held before."""

    def __init__(self, now: dict[str, Any]) -> None:
        self.now, self.before = now, dict(now)
        self._values = list(now.values())

    def changed(self) -> bool:
        """Whether it has other names, or holds other things under them."""
        return self.now.keys() != self.before.keys() or not all(
            map(is_, self.now.values(), self._values)
        )


_KINDS = ("_modules", "_parameters", "_buffers")
_OF_TORCH = frozenset(vars(nn.Module()))


def _own(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a module's own, but for notes on hooks: transformers installs its hooks once,
    at the first run, and notes that it did; the hooks stay."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in _OF_TORCH and "hook" not in name
    }


def _version(weight: torch.Tensor) -> int:
    """How often a tensor was changed in place."""
    return 0 if weight.is_inference() else weight._version


def alike(states: Any, others: Any, rounding: float = 0.0) -> bool:
    """Whether all vectors of two runs are the same up to rounding in the model's precision.

    What is not finite equals what is not finite in the same place.

    Args:
        states, others: hidden states of the two runs, each ``(..., d)``.
        rounding: how far runs of one input are apart that differ in nothing but the batch, as
            :func:`apart` gives it.
    """
    tolerance = _tolerance(states[0].dtype)
    # Not without end: what other sentences change shows beside a second copy of one, too.
    tolerance = max(tolerance, min(4 * rounding, 4 * tolerance))
    return bool(apart(states, others) <= tolerance)


def apart(states: Any, others: Any) -> float:
    """Largest distance between vectors of two runs, as a share of the norm; NaN for NaN in one."""
    most = 0.0
    for state, other in zip(states, others, strict=True):
        one, two = state.double(), other.double()
        neither = ~one.isfinite() & ~two.isfinite()  # an overflow, which the pass will name
        gap = torch.where(neither, 0.0, one - two)
        share = gap.norm(dim=-1) / (torch.where(neither, 0.0, two).norm(dim=-1) + 1e-12)
        most = max(most, float(share.max())) if not bool(share.isnan().any()) else float("nan")
        if most != most:
            return most
    return most


def _tolerance(dtype: torch.dtype) -> float:
    """Rounding is 1e-6 in float32; in half precision it is of the size of one step."""
    eps = torch.finfo(dtype).eps
    return 1e-4 if eps < 1e-6 else 2 * eps
