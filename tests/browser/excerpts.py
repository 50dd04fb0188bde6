"""What of a notebook its explorers need: their cells, and those that define a name that these use.

nbval runs all cells of all notebooks. A browser needs the explorers, and the rest of a notebook
would only let it wait. A cell that changes an object in place, and defines nothing, is not seen.
"""

from __future__ import annotations

import re
import symtable
from pathlib import Path

import nbformat

from embvar_kit import explorers

CALL = re.compile(rf"\b({'|'.join(explorers.__all__)})\(")


def calls(path: Path) -> list[str]:
    """Names of the explorers that a notebook shows, in order."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        found for cell in cells if cell.cell_type == "code" for found in CALL.findall(cell.source)
    ]


def keep_what_explorers_need(path: Path) -> None:
    """Take the code cells out of a notebook that none of its explorers depends on."""
    notebook = nbformat.read(path, as_version=4)
    kept, needed = [], set()
    for cell in reversed(notebook.cells):
        if cell.cell_type == "code":
            defined, used = _names(cell.source)
            if not (CALL.search(cell.source) or defined & needed):
                continue
            needed |= used
        kept.append(cell)
    notebook.cells = kept[::-1]
    nbformat.write(notebook, path)


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell defines, and those that it takes from the cells before it."""
    lines = (line for line in source.splitlines() if not line.startswith(("%", "!")))
    table = symtable.symtable("\n".join(lines), "cell", "exec")
    defined = {one.get_name() for one in table.get_symbols() if one.is_assigned()}
    defined |= {one.get_name() for one in table.get_symbols() if one.is_imported()}
    used, scopes = set(), [table]
    for scope in scopes:  # comprehensions and functions have scopes of their own
        scopes += scope.get_children()
        used |= {
            one.get_name()
            for one in scope.get_symbols()
            if one.is_referenced() and (scope is table or one.is_global())
        }
    return defined, used - defined
