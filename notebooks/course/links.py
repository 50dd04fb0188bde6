"""Links of notebooks and pages in a folder that is handed on by itself.

In such a folder the notebooks lie side by side, as they do in ``notebooks/``, and the pages that
they link to lie in ``pages/``, under their paths in the repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def place(file: Path) -> str:
    """Where a file of the repository lies in the folder."""
    if file.parent == NOTEBOOKS and file.suffix == ".ipynb":
        return file.name
    return f"pages/{file.relative_to(ROOT).as_posix()}"


def targets(text: str, document: Path) -> list[Path]:
    """The files that the relative links in the text of a document lead to.

    Raises:
        ValueError: if a link leads to no file of the repository.
    """
    found = [Path(os.path.normpath(document.parent / link)) for link, _ in LINK.findall(text)]
    for file in found:
        if not (file.is_file() and file.is_relative_to(ROOT)):
            raise ValueError(f"{document.name} links to {file}, which is no file of the repository")
    return found


def relink(text: str, document: Path) -> str:
    """The text of a document with its relative links as they have to be in the folder.

    Raises:
        ValueError: if a link leads to no file of the repository.
    """
    here = os.path.dirname(place(document)) or "."
    moved = iter([os.path.relpath(place(file), here) for file in targets(text, document)])
    return LINK.sub(lambda link: f"]({Path(next(moved)).as_posix()}{link[2] or ''})", text)


def pages(linked: Iterable[Path]) -> dict[str, bytes]:
    """By their places, the pages among the linked files and those that can be reached from them.

    Raises:
        ValueError: if a link of theirs leads to no file of the repository.
    """
    found: dict[str, bytes] = {}
    left = list(linked)
    while left:
        page = left.pop()
        if place(page) in found or not place(page).startswith("pages/"):
            continue
        found[place(page)] = page.read_bytes()
        if page.suffix == ".md":
            text = page.read_text(encoding="utf-8")
            found[place(page)] = relink(text, page).encode()
            left += targets(text, page)
    return found
