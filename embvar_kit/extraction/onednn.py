"""Linear layers run from weights laid out for the CPU's matrix products, while a pass lasts."""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from embvar_kit.errors import EmbvarWarning, ExtractionError, first_line
from embvar_kit.moments import memory

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


# Where the memory ends


class Room:
    """What a pass's batches have room for, learnt from attempts.

    Attributes:
        slots: tokens of a batch, padding included, that were not yet too many.
    """

    def __init__(self) -> None:
        self.slots = math.inf
        self._compiling = True

    def attempt(self) -> AbstractContextManager[None]:
        """What to run a batch in."""
        return nullcontext() if self._compiling else nothing_compiled()

    def learn(self, error: Exception, slots: int, *, alone: bool) -> None:
        """Take in why a batch of so many slots failed; it is to be tried again afterwards.

        Args:
            error: that it failed with.
            slots: of the batch.
            alone: whether it was one sequence, which cannot be halved.

        Raises:
            ExtractionError: if one sequence alone is too large.
            Exception: the error, if it does not say that memory is short.
        """
        if not out_of_memory(error):
            raise error
        if self._compiling and could_not_compile(error):
            self._compiling = False
            return
        if alone:
            raise ExtractionError(
                f"The memory is too small for a sequence of {slots:,} tokens alone "
                f"({first_line(error)}). Split sentences into shorter ones, or load the model in "
                "half precision (dtype='bfloat16')."
            ) from error
        if self.slots == math.inf:
            warnings.warn(
                f"The memory is too small for {slots:,} tokens at once: such batches are halved. "
                "A smaller batch_tokens avoids the attempt.",
                EmbvarWarning,
                stacklevel=3,
            )
        self.slots = slots / 2


def clear() -> None:
    """Give back what a failed attempt has left; its error, which holds on to tensors, is gone."""
    torch.cuda.empty_cache()
    memory.give_back()


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device or the host has no memory left.

    >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    # Of CUDA and MPS; of PyTorch's allocator for the CPU; of oneDNN's.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or could_not_compile(error):
        return True
    return any(word in str(error).lower() for word in words)
