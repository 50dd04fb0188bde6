"""Threads on a machine that others use, too: no more than a quota pays for, and none that spins."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from embvar_kit.control_groups import groups

SPINS = "10000"
"""Turns that a waiting thread of GNU's OpenMP makes before it sleeps. Its own default, 300,000,
takes longer than most steps of a pass: threads of PyTorch that wait would hold up Numba's, and
other processes. OpenMP of Intel and of LLVM, as on macOS, has a variable of its own,
``KMP_BLOCKTIME``, which is left alone."""


def sleep_soon(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of PyTorch that wait go to sleep soon, unless the environment says otherwise.

    OpenMP reads this once, when PyTorch is loaded, and processes started from here inherit it.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


def agree(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let Numba take the number of threads that OpenMP was given, unless it has one of its own.

    Numba reads this once, when it is loaded.
    """
    given = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given):
        environment.setdefault("NUMBA_NUM_THREADS", given)


def cores(root: Path = Path("/")) -> int:
    """Number of cores that this process can keep busy, at least 1.

    Args:
        root: the root of the file system.
    """
    return min(_visible(), quota(root) or _visible())


def quota(root: Path = Path("/")) -> int | None:
    """Number of cores whose time the control groups of this process grant it, if they limit it.

    A container with a quota of two cores may see all cores of its machine. Threads on each of them
    would use up the quota of a period at once, and stand still for the rest of it.

    Args:
        root: the root of the file system.
    """
    granted = min(_quotas(root), default=None)
    return None if granted is None else max(1, math.ceil(granted))


@cache
def granted() -> int | None:
    """The :func:`quota` of this process, as it was when it was first asked for."""
    return quota()


@cache
def limit_threads() -> None:
    """Let PyTorch use no more threads than a quota grants, unless ``OMP_NUM_THREADS`` is set.

    This is done once, so that a later ``torch.set_num_threads`` stands. What a process may run on
    otherwise, PyTorch finds out itself.
    """
    import torch

    most = granted()
    if most and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > most:
        torch.set_num_threads(most)


def forbid_nested_teams(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let no thread of OpenMP start a team of its own, unless the environment says otherwise.

    Some releases of Numba (0.61 is one) allow it as they start, for PyTorch's OpenMP as well. Each
    small product of matrices in PyTorch's attention then starts threads and ends them, thousands a
    second, and a pass takes several times as long.
    """
    if not {"OMP_NESTED", "OMP_MAX_ACTIVE_LEVELS"} & {*environment}:
        # Not where no OpenMP is visible to all libraries, nor on Windows, which has no such handle.
        with suppress(AttributeError, OSError, TypeError):
            openmp = ctypes.CDLL(None)
            if openmp.omp_get_nested():
                openmp.omp_set_nested(0)


def _visible() -> int:
    """Number of cores that this process may run on."""
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores that each control group grants, where it limits them."""
    for version, folder in groups("cpu", root):
        with suppress(OSError, ValueError):  # "max" is no number: no quota
            if version == 2:
                granted, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                granted, period = (int((folder / name).read_text()) for name in names)
            if granted > 0:  # -1: no quota
                yield granted / period
