"""oneDNN's matrix products for linear layers on a CPU, and batches cut to the free memory.

The two belong together: where memory is short, oneDNN fails first, in ways of its own.
"""

from __future__ import annotations

import math
import os
import platform
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from embvar_kit.errors import EmbvarWarning, ExtractionError, first_line
from embvar_kit.moments import memory

# oneDNN compiles a product for every shape of batch and keeps 1,024 of them, a quarter of a MiB
# each, which is more than the model. A pass meets a shape in consecutive batches, so that few are
# enough. oneDNN reads the variable when it is first used; a value that the user has set stays.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


@contextmanager
def packed(module: nn.Module) -> Iterator[int]:
    """While the context lasts, float32 linear layers on an x86 CPU use oneDNN's products.

    PyTorch gives float32 products to MKL, which uses half of the vector width on CPUs that are
    not Intel's, and lays the weights out anew at every call. Here they are packed once per pass,
    since they may have changed since the last one, unless the copies would take a quarter of the
    machine's memory, or a trial finds packed products slower here. Results differ from PyTorch's
    own by float32 rounding; a repeated pass gives the same bits.
    ``torch.backends.mkldnn.flags(enabled=False)`` around a pass switches this off.

    Args:
        module: the model, which is restored afterwards.

    Yields:
        How many layers are packed.
    """
    replaced = []
    try:
        for layer in _to_pack(module):
            weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
            pack = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
            layer.forward = partial(_product, pack, layer.bias, layer.forward)
            replaced.append(layer)
        yield len(replaced)
    finally:
        for layer in replaced:
            del layer.forward


def packs(module: nn.Module) -> bool:
    """Whether :func:`packed` would pack any layer of a model now."""
    return bool(_to_pack(module))


def _to_pack(module: nn.Module) -> list[nn.Module]:
    """The layers that are packed; none where that is not possible, too large or too slow."""
    layers = [part for part in module.modules() if _fits(part)] if _available() else []
    # A share of all memory, not of the free memory: a resumed pass must decide the same.
    too_large = sum(one.weight.nbytes for one in layers) > psutil.virtual_memory().total / 4
    return [] if too_large or _slower_here(layers) else layers


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Use PyTorch's own operations only, none that oneDNN compiles.

    A thread in which oneDNN once lacked the memory to compile can never compile again: its code
    generator keeps the error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")  # comes whenever the flags are set
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def could_not_compile(error: Exception) -> bool:
    """Whether an error says that oneDNN lacked the memory to compile a product.

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
        # torch.compile emits these operations; PyTorch does not promise that they exist.
        and all(
            hasattr(torch.ops.mkldnn, name)
            for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    )


def _fits(part: nn.Module) -> bool:
    """Whether a module is a plain linear layer whose forward method nobody has replaced."""
    return (
        type(part) in (nn.Linear, Conv1D)
        and "forward" not in vars(part)
        and isinstance(part.weight, nn.Parameter)  # otherwise it is computed at every call
        and part.weight.dtype == torch.float32
        and part.weight.device.type == "cpu"
    )


SLOWER = 1.25
"""Packed products are off where they take this many times as long as PyTorch's own.

The two round differently. A pass that is resumed and the workers of one pass should decide alike,
and so the margin is wider than what other processes mostly add to the fastest of many products, and
two trials have to agree. On a machine where packed products are slower by about this much, two
processes may still differ, by float32 rounding.
"""
_TRIAL = 0.08  # seconds
_TRYING = threading.Lock()  # two threads would slow each other's trial down
_ROWS, _LARGEST, _SMALLEST = 64, 2**18, 2**16  # tokens of a trial; elements of its weights


def _slower_here(layers: list[nn.Module]) -> bool:
    """Whether packed products of these layers are slower on this machine than PyTorch's own.

    The shape that most weights have is tried, or as much of it as a millisecond's product takes.
    Small layers are not: their products take microseconds of either kind.
    """
    weights: Counter[tuple[int, int]] = Counter()
    for layer in layers:
        shape = layer.weight.shape if isinstance(layer, nn.Linear) else layer.weight.T.shape
        weights[tuple(shape)] += layer.weight.numel()
    if not weights:
        return False
    n_out, n_in = max(weights, key=weights.__getitem__)
    if n_out * n_in < _SMALLEST:
        return False
    n_in = min(n_in, _LARGEST)
    with _TRYING:
        return _tried_slower(min(n_out, _LARGEST // n_in), n_in, torch.get_num_threads())


@cache
def _tried_slower(n_out: int, n_in: int, threads: int) -> bool:
    """Whether two trials find packed products slower; all passes of a process take one answer."""
    return all(time_ratio(n_out, n_in) > SLOWER for _ in range(2))


def time_ratio(n_out: int, n_in: int) -> float:
    """Time of a packed product over that of PyTorch's own: the fastest of each, taken in turns.

    Args:
        n_out, n_in: the shape of the weights.
    """
    # Whatever type and device the user has made PyTorch's defaults.
    ones = partial(torch.ones, dtype=torch.float32, device="cpu")
    weight, x = ones(n_out, n_in), ones(_ROWS, n_in)
    own = partial(nn.functional.linear, weight=weight)
    with torch.inference_mode():
        pack = torch.ops.mkldnn._reorder_linear_weight(weight)
        kinds = (partial(_product, pack, None, own), own)
        fastest = [math.inf, math.inf]
        end = time.perf_counter() + _TRIAL
        while time.perf_counter() < end:
            for at, product in enumerate(kinds):
                start = time.perf_counter()
                product(x)
                fastest[at] = min(fastest[at], time.perf_counter() - start)
    return fastest[0] / fastest[1]


def _product(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    plain: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> torch.Tensor:
    try:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except RuntimeError:
        # Where memory is short, oneDNN cannot compile the product. PyTorch's own needs less, and
        # raises a clear error where even that is too much.
        return plain(x)


class BatchLimit:
    """How many tokens a batch may have, learnt from attempts that failed for want of memory.

    Attributes:
        slots: most tokens of a batch, padding included; infinite until an attempt has failed.
    """

    def __init__(self) -> None:
        self.slots = math.inf
        self._compiling = True

    def attempt(self) -> AbstractContextManager[None]:
        """The context to run a batch in."""
        return nullcontext() if self._compiling else nothing_compiled()

    def learn(self, error: Exception, slots: int, *, alone: bool) -> None:
        """Learn from a batch that failed; the caller tries it again.

        Args:
            error: the error that the batch failed with.
            slots: tokens of the batch, padding included.
            alone: whether the batch was a single sequence, which cannot be halved.

        Raises:
            ExtractionError: if one sequence alone is too large.
            Exception: the error itself, if it does not say that memory is short.
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


def free_memory() -> None:
    """Free memory after a failed batch; call once its exception is released."""
    torch.cuda.empty_cache()
    memory.give_back()


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device or the host is out of memory.

    >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    >>> out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    # Words of CUDA and MPS, of PyTorch's allocator for the CPU, and of oneDNN's.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or could_not_compile(error):
        return True
    return any(word in str(error).lower() for word in words)
