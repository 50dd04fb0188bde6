"""Linear layers run from weights laid out for the CPU's matrix products, while a pass lasts."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

# oneDNN compiles a product for every shape of batch and keeps 1,024 of them, a quarter of a MiB
# each, which is more than the model. A pass meets a shape in batches that follow one another. It
# reads this when it is first used; what a user has set stays.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


@contextmanager
def packed(module: nn.Module) -> Iterator[int]:
    """For as long as it lasts, float32 linear layers on an x86 CPU take oneDNN's products.

    PyTorch hands float32 products to MKL, which uses half of the vector width on CPUs that are
    not Intel's, and lays the weights out anew at every call. The weights are packed anew for every
    pass, since somebody may have changed them, unless the copies would take a quarter of the
    machine's memory. Results differ from PyTorch's own by float32 rounding; a pass repeated gives
    the same to the bit. ``torch.backends.mkldnn.flags(enabled=False)`` switches it off.

    Args:
        module: the model; it is as it was afterwards.

    Yields:
        How many layers are packed.
    """
    layers = [part for part in module.modules() if _fits(part)] if _available() else []
    # Of all the memory, not of what is free: a pass that is gone on with must decide alike.
    if sum(layer.weight.nbytes for layer in layers) > psutil.virtual_memory().total / 4:
        layers = []
    replaced = []
    try:
        for layer in layers:
            weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
            pack = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
            layer.forward = partial(_product, pack, layer.bias, layer.forward)
            replaced.append(layer)
        yield len(replaced)
    finally:
        for layer in replaced:
            del layer.forward


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """PyTorch's own operations only, none of those that oneDNN compiles.

    A thread in which oneDNN once had no memory to compile in cannot compile ever after: the code
    generator never forgets the error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")  # said whenever the flags are set
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def could_not_compile(error: Exception) -> bool:
    """Whether an error says that oneDNN had no memory to compile in.

    >>> could_not_compile(RuntimeError("could not create a primitive"))
    True
    >>> could_not_compile(RuntimeError("could not create a primitive descriptor for a matmul"))
    False
    """
    return str(error).lower().endswith("could not create a primitive")


def _available() -> bool:
    mkldnn = torch.backends.mkldnn
    return (
        platform.machine() in ("x86_64", "AMD64")
        and mkldnn.is_available()
        and mkldnn.enabled
        # What torch.compile emits for such layers; not a promise of PyTorch's, so looked for.
        and all(
            hasattr(torch.ops.mkldnn, name)
            for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    )


def _fits(part: nn.Module) -> bool:
    """Whether a module is a plain linear layer, its forward not replaced by somebody else's."""
    return (
        type(part) in (nn.Linear, Conv1D)
        and "forward" not in vars(part)
        and isinstance(part.weight, nn.Parameter)  # not computed anew at every call
        and part.weight.dtype == torch.float32
        and part.weight.device.type == "cpu"
    )


def _product(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    plain: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    try:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except RuntimeError:
        # Where memory is short, oneDNN has none to compile a product in; PyTorch's own needs less,
        # and says so where that is too much.
        return plain(x)
