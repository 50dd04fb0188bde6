"""Alternative texts for the pictures in notebooks, from the docstring of what drew them.

A picture that a cell leaves has none of its own. The cell calls a function of ``ek.figures`` or
makes an explorer, whose docstring begins with what it shows; together with the section that the
picture stands in, it tells a reader who cannot see it what is there. What to see in it is said in
the text below each figure.
"""

from __future__ import annotations

import ast
import inspect
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import embvar_kit as ek
from embvar_kit import explorers

logger = logging.getLogger(__name__)

DRAWING = {"ek.figures": ek.figures.__all__, "ek": explorers.__all__}
"""What draws, by the module that the notebooks call it from."""


def calls(source: str) -> list[tuple[str, str]]:
    """The calls of figures and explorers in the source of a cell: names, and the code of each.

    A method of statistics may have the name of the figure that is drawn from it; it draws nothing.

    >>> calls("%matplotlib inline\\nax = ek.figures.V_on_M(stats, layer=2)")
    [('V_on_M', 'ek.figures.V_on_M(stats, layer=2)')]
    >>> calls("stats.frequency_slopes()")
    []
    """
    code = re.sub(r"^[%!].*$", "pass", source, flags=re.M)
    return [
        (node.func.attr, ast.get_source_segment(code, node) or "")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in DRAWING.get(ast.unparse(node.func.value), ())
    ]


def description(name: str) -> str:
    """The first sentence of the docstring of a figure or an explorer, without markup."""
    still = name in explorers.__all__
    thing = getattr(explorers if still else ek.figures, name)
    first = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    first = re.sub(r":\w+:`([^`]*)`", r"\1", first).replace("`", "")
    first = re.sub(r" \((?:paper, )?(?:Figs?\.|Table) [^)]*\)", "", first).rstrip(".")
    return f"A still picture of an explorer. {first}." if still else f"{first}."


class Alternatives(SphinxTransform):
    """Gives each picture of a cell's output an alternative text."""

    default_priority = 500

    def apply(self) -> None:
        """Find the pictures, and the sources of their cells."""
        for cell in self.document.findall(_is_cell):
            bare = [
                picture
                for output in cell.findall(lambda node: "cell_output" in _classes(node))
                for picture in output.findall(nodes.image)
                if not picture.get("alt")
            ]
            if not bare:
                continue
            source = next(cell.findall(nodes.literal_block)).astext()
            texts = [description(name) for name, _ in calls(source)]
            if not texts:
                logger.warning("a picture without alternative text", location=cell)
            for picture in bare:
                picture["alt"] = " ".join([*dict.fromkeys(texts), f"{_section(cell)}"]).strip()


def _classes(node: nodes.Node) -> list[str]:
    return node.get("classes", []) if isinstance(node, nodes.Element) else []


def _is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "cell" in _classes(node)


def _section(node: nodes.Node) -> str:
    """Where a node stands, as a sentence."""
    while node is not None and not isinstance(node, nodes.section):
        node = node.parent
    return "" if node is None else f"In section “{node.next_node(nodes.title).astext()}”."


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(Alternatives)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
