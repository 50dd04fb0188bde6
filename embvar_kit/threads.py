"""Threads on a machine that others use, too: no more than may run, and none that waits busily."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

from embvar_kit.control_groups import groups

SPINS = "10000"
"""Turns that a waiting thread of GNU's OpenMP makes before it sleeps. Its own default, 300,000,
takes longer than most steps of a pass: threads of PyTorch that wait would hold up Numba's, and
other processes."""


def prepare(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Set the number of threads and how they wait, where the environment does not.

    PyTorch and Numba read this once, when they are loaded, and processes started from here inherit
    it. The number is set where a quota is smaller than what they would find themselves.

    Args:
        environment: the variables of the environment.
        root: the root of the file system.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
    if (most := cores(root)) < _visible():
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
            environment.setdefault(name, str(most))


def cores(root: Path = Path("/")) -> int:
    """Number of cores that this process can keep busy, at least 1.

    A container with a quota of two cores may see all cores of its machine. Threads on each of them
    would use up the quota of a period at once, and stand still for the rest of it.
    """
    return max(1, min([_visible(), *map(math.ceil, _quotas(root))]))


def limit_threads() -> None:
    """Let PyTorch use no more threads than :func:`cores`, where it was loaded before the kit.

    Another number that the environment gives stands.
    """
    import torch

    most = cores()
    given = os.environ.get("OMP_NUM_THREADS", str(most))
    if given == str(most) and torch.get_num_threads() > most:
        torch.set_num_threads(most)


def _visible() -> int:
    """Number of cores that this process may run on."""
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores whose time the control groups of this process grant it, where they limit it."""
    for version, folder in groups("cpu", root):
        with suppress(OSError, ValueError):  # "max" is no number: no quota
            if version == 2:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                quota, period = (int((folder / name).read_text()) for name in names)
            if quota > 0:  # -1: no quota
                yield quota / period
