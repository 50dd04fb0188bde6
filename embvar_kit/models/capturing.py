"""Keeping the hidden states that are asked for, and no others, by hooks where the model makes them.

A transformers model that is asked for its hidden states keeps all of them until its run ends. Here
one short run shows which module gives or takes each state that is wanted. In later runs the model
is asked for none, and hooks keep what these modules gave or took; the rest is freed as it goes.

transformers 5 can capture states by their index for some of its models. Hooks serve every model and
every release that the kit takes, and the trial proves them to the bit, so there is one way for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch

from embvar_kit.models.running import listening, run, whole_states


@contextmanager
def capturing(
    module: Any,
    layers: Sequence[int],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
) -> Iterator[dict[int, torch.Tensor] | None]:
    """While the context lasts, keep some hidden states of each run of a model.

    They are kept where they were found in a trial, if a second trial without
    ``output_hidden_states`` then gives all of them to the bit.

    Args:
        module: a transformers model.
        layers: the hidden states wanted.
        input_ids: ``(1, length)`` a sequence for the trials, of several tokens.
        attention_mask: ``(1, length)``, or ``None``.

    Yields:
        A dict ``{layer: state}`` that every run fills anew, with states ``(batch, length or more,
        d)``, on the device where the model made them. ``None`` if they cannot be kept so: a state
        that no module gives or takes, for one.
    """
    taps: dict[int, torch.Tensor] = {}
    sources: dict[int, _Source] = {}
    with suppress(Exception):  # the pass, which runs whole batches, says what to do
        wanted, sources = _trial(module, layers, input_ids, attention_mask)
    by_call: dict[tuple[str, int], list[tuple[int, _Source]]] = {}
    for layer, source in sources.items():
        by_call.setdefault((source.module, source.call), []).append((layer, source))

    def keep(name: str, call: int, _: Any, inputs: list[torch.Tensor], output: Any) -> None:
        for layer, source in by_call.get((name, call), ()):
            tensors = inputs if source.taken else _tensors(output)
            if source.index < len(tensors):
                taps[layer] = tensors[source.index]

    parts = {source.module: module.get_submodule(source.module) for source in sources.values()}
    with listening(parts, keep) as calls:
        # Calls are counted anew in each run.
        start = module.register_forward_pre_hook(lambda *_: (calls.clear(), taps.clear())[0])
        try:
            same = False
            if len(sources) == len(layers):
                with suppress(Exception):
                    run(module, input_ids, attention_mask)
                    same = all(_equal(taps[layer], state) for layer, state in wanted.items())
                taps.clear()
                del wanted
            yield taps if same else None
        finally:
            start.remove()


class _Source(NamedTuple):
    """Where a hidden state is found: a call of a module, and which of its tensors it is.

    Attributes:
        module: dotted name of the module in the model.
        call: index of the call among the module's calls in a run.
        taken: whether the module takes the state, rather than giving it.
        index: index of the state among the tensors that the module takes or gives.
    """

    module: str
    call: int
    taken: bool
    index: int


def _trial(
    module: Any,
    layers: Sequence[int],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> tuple[dict[int, torch.Tensor], dict[int, _Source]]:
    """The wanted states of a sequence, and where those are found that are found at all."""
    seen: list[tuple[_Source, torch.Tensor]] = []

    def keep(name: str, call: int, _: Any, inputs: list[torch.Tensor], output: Any) -> None:
        for taken, tensors in ((True, inputs), (False, _tensors(output))):
            seen.extend((_Source(name, call, taken, at), x) for at, x in enumerate(tensors))

    with listening(dict(module.named_modules()), keep):
        states = whole_states(module, input_ids, attention_mask)
    wanted = {layer: states[layer] for layer in layers}
    sources = {}
    for layer, state in wanted.items():
        same = (source for source, x in seen if _is(x, state))
        # A module that gives a state comes first: what takes it may run on another device.
        if source := min(same, key=lambda source: source.taken, default=None):
            sources[layer] = source
    return wanted, sources


def _tensors(output: Any) -> list[torch.Tensor]:
    """The tensors that a module returned by itself or in a tuple."""
    if isinstance(output, torch.Tensor):
        return [output]
    return [x for x in output if isinstance(x, torch.Tensor)] if isinstance(output, tuple) else []


def _is(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same numbers in memory, or copies on two devices."""
    if one.shape != other.shape:
        return False
    if one.device != other.device:
        return _equal(one, other)
    return one.data_ptr() == other.data_ptr() and one.stride() == other.stride()


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.to(other.device), other)
