"""jupyter-scatter, imported without seaborn, until something of that is asked for."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Postponed(ModuleType):
    """Stands for a module, and imports it when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        _withdraw(self)
        return getattr(importlib.import_module(self.__name__), name)


def jscatter() -> ModuleType:
    """The library, which takes a moment to import.

    It imports seaborn for its annotations by contours alone, and with seaborn comes
    ``scipy.stats``, which takes longer than the library itself.
    """
    if "jscatter" not in sys.modules and "seaborn" not in sys.modules:
        seaborn = _Postponed("seaborn")
        sys.modules["seaborn"] = seaborn
        try:
            importlib.import_module("jscatter")
        finally:
            _withdraw(seaborn)
    return importlib.import_module("jscatter")


def _withdraw(module: ModuleType) -> None:
    """Let the next import of this name find the real module."""
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]
