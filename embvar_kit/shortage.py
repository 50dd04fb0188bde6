"""Where the memory ends: what an attempt that failed tells, and how to go on."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

from embvar_kit import means
from embvar_kit.errors import EmbvarWarning, ExtractionError
from embvar_kit.packing import could_not_compile, nothing_compiled
from embvar_kit.probing import first_line


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
    means.give_back()


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
