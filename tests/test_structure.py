"""The package's folders: who imports whom, what an import costs, what has a description."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from paths import ROOT

import embvar_kit as ek

PACKAGE = ROOT / "embvar_kit"

ORDER = (
    "_version",
    "wording",
    "errors",
    "files",
    "control_groups",
    "threads",
    "array_file",
    "hub",
    "corpora",
    "models",
    "moments",
    "statistics",
    "extraction",
    "cached",
    "twin_seeds",
    "paper",
    "figures",
    "explorers",
    "model_report",
    "cli",
    "__main__",
)
"""Folders, and modules beside them, from first to last: none imports from those behind it."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Every module by its name inside the package, ``corpora.tokens`` for one."""

NAMES = [name for name in MODULES if name != "__init__"]


def folder_of(name: str) -> str:
    return name.partition(".")[0]


def imports(source: str) -> set[str]:
    """Modules of the package that a source imports, wherever in it but for type checkers."""
    found = set()
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute, so that a reader can find them"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "embvar_kit":
                continue
            # The longest part that is a module: what is left is a name inside it.
            while len(parts) > 1 and (inside := _module(parts[1:])) is None:
                parts.pop()
            if len(parts) > 1:
                found.add(inside)
    return found


def _module(parts: list[str]) -> str | None:
    name = ".".join(parts)
    return next((name for name in (name, f"{name}.__init__") if name in MODULES), None)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _executed(child)


IMPORTS = {name: imports(MODULES[name].read_text(encoding="utf-8")) for name in NAMES}


def test_imports_are_found_wherever_they_stand():
    source = (
        "import embvar_kit.cli\nfrom embvar_kit import files, __version__\n"
        "def f():\n    from embvar_kit.corpora.tokens import tokenize\n"
        "    from embvar_kit.statistics import analysis\n"
        "if TYPE_CHECKING:\n    from embvar_kit import hub\n"
        "if x:\n    from embvar_kit import figures\n    import embvar_kit_other.figures\n"
    )
    expected = {
        "cli.__init__",
        "files",
        "corpora.tokens",
        "statistics.analysis",
        "figures.__init__",
    }
    assert imports(source) == expected


def test_every_folder_has_its_place():
    assert {folder_of(name) for name in NAMES} == set(ORDER)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_imports_only_from_those_before_it(name):
    until = ORDER.index(folder_of(name)) + 1
    wrong = {other for other in IMPORTS[name] if folder_of(other) not in ORDER[:until]}
    assert not wrong, f"{name} imports {sorted(wrong)}, which stand behind it"


def test_no_import_goes_round_in_a_circle():
    left = {name: IMPORTS[name] - {name} for name in NAMES}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"{sorted(left)} import one another"


def test_paths_of_the_repository_are_derived_in_one_place():
    deriving = [n for n in NAMES if "__file__" in MODULES[n].read_text(encoding="utf-8")]
    assert deriving == ["files"]


# What an import costs

COST = """
import json, runpy, sys, time
started = time.perf_counter()
{action}
seconds = time.perf_counter() - started
loaded = sorted(name for name in sys.modules if "." not in name)
print(json.dumps([seconds, loaded]))
"""
HELP = """
sys.argv = ["embvar", "--help"]
try:
    runpy.run_module("embvar_kit", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0
"""
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "gensim",
    "numba",
    "pandas",
    "matplotlib",
    "scipy",
    "jscatter",
}


FOLDERS = ", ".join(f"embvar_kit.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))


def test_folders_do_not_import_torch():
    code = f"import sys, {FOLDERS}; sys.exit('torch' in sys.modules)"
    assert len(FOLDERS.split(", ")) == 9
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("action", ["import embvar_kit", HELP], ids=["import", "help"])
def test_importing_and_asking_for_help_are_quick(action):
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three tells what it costs
        done = subprocess.run(
            [sys.executable, "-c", COST.format(action=action)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        taken, loaded = json.loads(done.stdout.splitlines()[-1])
        assert not HEAVY & set(loaded)
        seconds.append(taken)
    assert min(seconds) < 0.3


def test_saved_statistics_are_read_without_what_only_a_pass_or_a_histogram_needs():
    code = """
import sys
import embvar_kit as ek
ek.cached_statistics("smollm2").tradeoff(intervals=True)
print(*({"numba", "seaborn", "scipy.stats", "torch", "matplotlib"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert not done.stdout.strip()


# Public names

PUBLIC = [name for name in ek.__all__ if name != "__version__"]


def test_all_public_names_resolve():
    assert dir(ek) == sorted(ek.__all__)
    assert len(set(ek.__all__)) == len(ek.__all__)
    assert ek.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ek.nothing


def test_type_checkers_see_all_public_names():
    tree = ast.parse(MODULES["__init__"].read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(homes) == set(PUBLIC)
    for name, home in homes.items():
        thing = getattr(ek, name)
        assert getattr(importlib.import_module(home), name) is thing


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_description(name):
    thing = getattr(ek, name)
    if isinstance(thing, dict):  # a constant: the string that follows it describes it
        home = next(path for path in MODULES.values() if _described(path, name) is not None)
        description = _described(home, name)
    else:
        # A class's own words, not those that it inherits.
        description = vars(thing)["__doc__"] if inspect.isclass(thing) else thing.__doc__
    assert description
    # Not the signature that a dataclass without a docstring gives itself.
    assert not description.startswith(f"{name}(")
    assert len(description.split()) > 3


@pytest.mark.parametrize("name", NAMES)
def test_what_a_module_shows_has_a_description(name):
    """Public classes, functions, methods: all but the private ones and those inside others."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or name == "_version"
    bare = []
    for node in tree.body:
        inside = [n for n in node.body if isinstance(node, ast.ClassDef)] if _shown(node) else []
        bare += [n.name for n in (node, *inside) if _shown(n) and not ast.get_docstring(n)]
    assert not bare, f"{name}: {', '.join(bare)} without a docstring"


def _shown(node: ast.AST) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def _described(path: Path, name: str) -> str | None:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node, following in pairwise(body):
        if (
            isinstance(node, ast.Assign)
            and [target.id for target in node.targets if isinstance(target, ast.Name)] == [name]
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            return str(following.value.value)
    return None
