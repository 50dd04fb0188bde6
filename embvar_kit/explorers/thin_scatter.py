"""Scatter plots that share the script which draws them."""

from __future__ import annotations

import gzip
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from embvar_kit.explorers.scripted import _script


class ScatterScript(anywidget.AnyWidget):
    """jupyter-scatter's script, packed; scatter plots refer to it. It is never shown."""

    _esm = "export default {};"
    packed = traitlets.Bytes(read_only=True).tag(sync=True)

    @traitlets.default("packed")
    def _packed(self) -> bytes:
        return _packed_script()


@cache
def _packed_script() -> bytes:
    from jscatter.widget import JupyterScatter

    return gzip.compress(str(JupyterScatter._esm).encode(), 6, mtime=0)


@cache
def _thin_class() -> type:
    from jscatter.widget import JupyterScatter  # takes a second to import

    class ThinScatter(JupyterScatter):
        """jupyter-scatter's widget with a script that it only refers to."""

        _esm = _script("thin_scatter.js")
        script = traitlets.Instance(ScatterScript).tag(sync=True, **widgets.widget_serialization)

    return ThinScatter


@contextmanager
def sharing(script: ScatterScript) -> Iterator[None]:
    """Let the plots that jupyter-scatter makes meanwhile draw themselves with this script.

    jupyter-scatter makes its widget itself and takes no other class for it, so that the class is
    replaced in its module for as long as the plots are made.
    """
    module = importlib.import_module("jscatter.jscatter")
    own = module.JupyterScatter

    def thin(*args: Any, **values: Any) -> widgets.DOMWidget:
        return _thin_class()(*args, script=script, **values)

    module.JupyterScatter = thin
    try:
        yield
    finally:
        module.JupyterScatter = own
