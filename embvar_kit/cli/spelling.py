"""Messages of the library for users of the command line: ``--folds 20`` in place of ``folds=20``.

The library names arguments as Python does, since notebooks and scripts raise the same messages. An
argument and its option have the same name but for hyphens, which the commands' parsers know: no
message is written twice.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator

_LEFT_OUT = {"first": "leave_out_first", "norm": "leave_out_norm"}
"""The arguments of ``LeaveOut`` as the options that stand for them."""

_CLIENT = "--workers or --cluster"

_PARTS = re.compile(
    r"""
    (?:\w+\.)*LeaveOut\((?P<leaving>[^()]*)\)
    | [\w.]+\([^()]*\)                            # a call: it stays a call
    | (?<![\w=])(?:'[^'\n]*' | "[^"\n]*")(?!\w)   # a name that somebody gave
    | (?P<with>with\ )?(?<![\w./\\])(?P<name>[A-Za-z_]+)=(?!=)
      (?P<value>'[^']*' | "[^"]*" | \[[^\]]*\] | \{[^{}]*\} | \([^()]*\) | \.\.\. | -?[\w.+-]*\w)?
    | (?<![\w./\\])(?P<bare>[a-z]+(?:_[a-z]+)+ | ^[a-z]+(?=\ must\ be))(?![\w(/]|\.\w)
    """,
    re.VERBOSE,
)


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers_of(command)


class Spelling:
    """How the arguments of the library are written as options.

    Args:
        whole: the parser of all commands.
        own: the parser of the command that runs, whose options come before those of the others.
    """

    def __init__(self, whole: argparse.ArgumentParser, own: argparse.ArgumentParser) -> None:
        self._actions: dict[str, argparse.Action] = {}
        for parser in (own, *parsers_of(whole)):
            for action in parser._actions:
                if action.option_strings:
                    self._actions.setdefault(action.dest, action)

    def __call__(self, text: str) -> str:
        """A message with options in place of arguments; what is no option's stays as it is.

        Names that users gave, in quotation marks, and calls of functions stay, too.
        """
        return _PARTS.sub(self._part, text)

    def _part(self, found: re.Match) -> str:
        if found["leaving"] is not None:
            pairs = re.findall(r"(\w+)=([^,]+)", found["leaving"])
            if pairs and all(name in _LEFT_OUT for name, _ in pairs):
                return " ".join(self._option(_LEFT_OUT[name], value) for name, value in pairs)
        if found["bare"] is not None:
            return self._option(found["bare"], None) or found[0]
        if found["name"] is not None:
            written = self._option(found["name"], found["value"])
            if written:
                together = found["with"] and not written.startswith("without ")
                return f"{found['with']}{written}" if together else written
        return found[0]

    def _option(self, name: str, value: str | None) -> str:
        """The option for an argument, ``""`` if there is none."""
        if name == "client":
            return _CLIENT
        action = self._actions.get(name)
        if action is None:
            # An argument that is True unless told, such as special, has an option to turn it off.
            action = self._actions.get(f"no_{name}")
            value = {"True": "False", "False": "True"}.get(value or "", value)
        if action is None:
            return ""
        option = max(action.option_strings, key=lambda one: (one.startswith("--"), -len(one)))
        if action.nargs == 0:
            return f"without {option}" if value == "False" else option
        return f"{option} {_shown(value)}" if value and value != "..." else option


def _shown(value: str) -> str:
    """A value as one types it: without quotation marks, brackets and underscores in numbers."""
    try:
        found = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value
    if isinstance(found, list | tuple):
        return ",".join(map(str, found))
    return shlex.quote(json.dumps(found) if isinstance(found, dict) else str(found))
