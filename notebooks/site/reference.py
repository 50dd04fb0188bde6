"""The reference: pages of the public names, from docstrings, and of the commands, from ``--help``.

:func:`write` makes them anew at each build, so they cannot differ from the code.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sphinx.pycode import ModuleAnalyzer

import embvar_kit as ek
from embvar_kit import cli

FOLDERS = (
    "corpora",
    "models",
    "moments",
    "statistics",
    "extraction",
    "paper",
    "figures",
    "explorers",
)
"""The folders of the package, in the order of the pipeline; a page for each."""

BESIDE = "beside"
"""The page of the names whose modules stand beside the folders."""


def write(folder: Path) -> None:
    """Write the pages ``api/*.rst`` and ``embvar.md`` into a folder."""
    api = folder / "api"
    api.mkdir()
    pages = {page: [] for page in (*FOLDERS, BESIDE)}
    for name in names():
        pages[page_of(name)].append(name)
    for page, its_names in pages.items():
        (api / f"{page}.rst").write_text(_page(page, its_names), encoding="utf-8")
    (api / "index.rst").write_text(_index(pages), encoding="utf-8")
    (folder / "embvar.md").write_text(_commands(), encoding="utf-8")


# The public names


def names() -> list[str]:
    """The public names of the kit, and so of ``ek``, but for the version."""
    return [name for name in ek.__all__ if name != "__version__"]


def home_of(name: str) -> str:
    """The module in which a public name is defined, or the module that it is."""
    thing = getattr(ek, name)
    if isinstance(thing, ModuleType):
        return thing.__name__
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return thing.__module__
    # A constant does not know where it comes from; the package does.
    return f"embvar_kit.{ek._HOME_OF[name]}"


def page_of(name: str) -> str:
    """The page on which a public name stands."""
    folder = home_of(name).split(".")[1]
    return folder if folder in FOLDERS else BESIDE


def _described(name: str) -> str:
    """The docstring of a public name; for a constant, the string that follows it."""
    thing = getattr(ek, name)
    if isinstance(thing, ModuleType) or inspect.isclass(thing) or inspect.isfunction(thing):
        return inspect.getdoc(thing) or ""
    found = ModuleAnalyzer.for_module(home_of(name)).find_attr_docs()
    return "\n".join(found["", name]).strip()


def _title(page: str) -> str:
    return "Errors, files, reports" if page == BESIDE else page.capitalize()


def _underlined(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _index(pages: dict[str, list[str]]) -> str:
    parts = [
        _underlined("API", "="),
        "All public names, in the order of the pipeline. ``import embvar_kit as ek`` makes each of "
        "them an attribute of ``ek``; the functions and classes say which shapes and units they "
        "take and give, and which errors they raise.\n",
        ".. toctree::\n   :hidden:\n\n" + "".join(f"   {page}\n" for page in pages),
    ]
    for page, its_names in pages.items():
        parts += [_underlined(_title(page), "-"), ".. list-table::\n   :widths: 30 70\n"]
        for name in its_names:
            module = isinstance(getattr(ek, name), ModuleType)
            target = f":py:{'mod' if module else 'obj'}:`ek.{name} <{_target(name)}>`"
            first = " ".join(_described(name).split("\n\n")[0].split())
            parts.append(f"   * - {target}\n     - {first}")
        parts.append("")
    return "\n".join(parts)


def _target(name: str) -> str:
    home = home_of(name)
    return home if isinstance(getattr(ek, name), ModuleType) else f"embvar_kit.{name}"


def _page(page: str, its_names: list[str]) -> str:
    parts = [_underlined(_title(page), "=")]
    if page != BESIDE:
        folder = importlib.import_module(f"embvar_kit.{page}")
        if page not in its_names:  # a module that is public is described where it is listed
            parts.append(f"{inspect.getdoc(folder)}\n")
    own = [name for name in its_names if not isinstance(getattr(ek, name), ModuleType)]
    # A page has one place for each module: what a module defines that is public stands there.
    for name in its_names:
        if name in own:
            parts += [".. py:currentmodule:: embvar_kit\n", *_entry(name)]
        else:
            home = home_of(name)
            parts += [_underlined(f"ek.{name}", "-"), f".. automodule:: {home}", "   :members:\n"]
            parts += _constants(getattr(ek, name))
    return "\n".join(parts)


def _entry(name: str) -> Iterator[str]:
    thing = getattr(ek, name)
    if inspect.isclass(thing):
        yield f".. autoclass:: {name}\n   :members:\n"
    elif inspect.isfunction(thing):
        yield f".. autofunction:: {name}\n"
    else:
        yield _constant(name, thing, _described(name))


def _constant(name: str, value: object, description: str) -> str:
    lines = "".join(f"   {line}\n" for line in description.splitlines())
    return f".. py:data:: {name}\n   :type: {type(value).__name__}\n\n{lines}"


def _constants(package: ModuleType) -> Iterator[str]:
    """The constants that a public package has from its modules, where autodoc does not look."""
    if not hasattr(package, "__path__"):
        return
    yield f".. py:currentmodule:: {package.__name__}\n"
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        for (scope, name), lines in ModuleAnalyzer.for_module(found.name).find_attr_docs().items():
            if not scope and name in package.__all__:
                yield _constant(name, getattr(package, name), "\n".join(lines).strip())


# The commands


def _commands() -> str:
    """The page of the commands: what each prints with ``--help``, 80 characters wide."""
    before = os.environ.get("COLUMNS"), os.environ.get("NO_COLOR")
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
    try:
        parts = [
            "# embvar, command by command\n",
            "What `embvar COMMAND --help` prints. [Commands](notebooks/reference/commands.md) has "
            "an overview.\n",
        ]
        for depth, parser in _parsers(cli.parser()):
            parts.append(f"{'#' * (depth + 2)} {parser.prog}\n")
            parts.append(f"```text\n{parser.format_help().rstrip()}\n```\n")
    finally:
        for key, value in zip(("COLUMNS", "NO_COLOR"), before, strict=True):
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    return "\n".join(parts)


def _parsers(
    parser: argparse.ArgumentParser, depth: int = 0
) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    """A parser and those of its commands, with how deep each lies."""
    yield depth, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _parsers(command, depth + 1)
