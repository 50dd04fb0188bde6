"""When and on what a page was measured, for its first line."""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path

import torch


def today() -> str:
    """The date."""
    return date.today().isoformat()


def processor() -> str:
    """The processor by its own name, which may lack a number, and the vectors that PyTorch uses."""
    name = platform.processor() or platform.machine()
    if (told := Path("/proc/cpuinfo")).is_file():
        entries = (line.partition(":") for line in told.read_text().splitlines())
        names = (value.strip() for key, _, value in entries if key.strip() == "model name")
        name = next(names, name)
    return f"{name} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
