"""Scatter plots that share the script which draws them, and send colours only when they change."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from embvar_kit.explorers.scatter_library import jscatter
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
    JupyterScatter = jscatter().widget.JupyterScatter
    return gzip.compress(str(JupyterScatter._esm).encode(), 6, mtime=0)


@cache
def _thin_class() -> type:
    jscatter()  # from here on, the library is imported as it says
    from jscatter.serializers import ndarray_serialization
    from jscatter.traittypes import Array
    from jscatter.widget import JupyterScatter

    def only_places(points: np.ndarray | None, plot: Any) -> dict[str, Any] | None:
        if points is None:
            return None
        # What the browser has of the places may stay the same while the colours change: it must
        # draw anew all the same.
        places = ndarray_serialization["to_json"](points[:, :2])
        return {**places, "coloured": plot.coloured}

    class ThinScatter(JupyterScatter):
        """jupyter-scatter's widget with a script that it only refers to.

        A point is four numbers: its place, its colour and its opacity. A step to another layer
        changes the places alone, so that the browser gets the others by themselves.
        """

        _esm = _script("thin_scatter.js")
        script = traitlets.Instance(ScatterScript).tag(sync=True, **widgets.widget_serialization)
        points = Array(default_value=None).tag(sync=True, to_json=only_places)
        looks = Array(
            default_value=None,
            allow_none=True,
            help="(T, 2) colours and opacities of the points, as jupyter-scatter encodes them",
        ).tag(sync=True, **ndarray_serialization)
        coloured = 0  # how often the looks have changed

        @traitlets.validate("points")
        def _keep_looks(self, proposal: dict[str, Any]) -> np.ndarray | None:
            """Set the looks before the places: what is drawn at these must have its own."""
            points = proposal["value"]
            looks = None if points is None else points[:, 2:].copy()
            if not _same(looks, self.looks):
                self.coloured += 1
                self.looks = looks
            return points

    return ThinScatter


def _same(looks: np.ndarray | None, others: np.ndarray | None) -> bool:
    if looks is None or others is None:
        return looks is others
    return np.array_equal(looks, others)


@contextmanager
def sharing(script: ScatterScript) -> Iterator[None]:
    """Let the plots that jupyter-scatter makes meanwhile draw themselves with this script.

    jupyter-scatter makes its widget itself and takes no other class for it, so that the class is
    replaced in its module for as long as the plots are made.
    """
    module = jscatter().jscatter
    own = module.JupyterScatter

    def thin(*args: Any, **values: Any) -> widgets.DOMWidget:
        return _thin_class()(*args, script=script, **values)

    module.JupyterScatter = thin
    try:
        yield
    finally:
        module.JupyterScatter = own
