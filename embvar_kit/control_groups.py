"""Linux's control groups, by which containers and SLURM keep a process to what it asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """The control groups of this process that may limit something, and those above each.

    Args:
        controller: what is limited: ``"memory"`` or ``"cpu"``.
        root: the root of the file system.

    Yields:
        The version of a group, 1 or 2, and its folder, which need not exist: a container sees its
        own group at the top, and may be told a path that is not there.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # no Linux, or a path that is no text
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        number, controllers, own = line.split(":", 2)
        if number == "0" and not controllers:
            version, top = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            # Mounted under the controller's name, under that of all it is mounted with, or both.
            version, top = 1, root / "sys/fs/cgroup" / controller
            if not top.is_dir():
                top = root / "sys/fs/cgroup" / controllers
        else:
            continue
        group = Path(own.lstrip("/"))
        for folder in {top / group, *(top / above for above in group.parents)}:
            yield version, folder
