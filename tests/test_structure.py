"""The package as a building: who imports whom, what an import costs, what has a description."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import embvar_kit as ek

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "embvar_kit"

ORDER = (
    "errors",
    "_version",
    "_kernels",
    "unpickling",
    "released_layer",
    "bundled",
    "readers",
    "wikipedia",
    "sampling",
    "bookcorpus",
    "corpora",
    "checkpoint_file",
    "normalization",
    "probing",
    "quiet",
    "twin_model",
    "models",
    "initialization",
    "twins",
    "twin_text",
    "twin_files",
    "twin_training",
    "tokens",
    "words",
    "means",
    "planning",
    "moments",
    "moments_device",
    "shortening",
    "packing",
    "shortage",
    "forwarding",
    "accumulation",
    "analysis",
    "compaction",
    "anisotropy",
    "merging",
    "statistics_file",
    "statistics",
    "release",
    "checkpoints",
    "interrupts",
    "running",
    "extraction",
    "reproduction",
    "cached",
    "collection",
    "dimensions",
    "affine",
    "labelling",
    "drawing",
    "figures_formula",
    "figures_tradeoff",
    "figures_frequency",
    "figures_layers",
    "figures_embeddings",
    "figures_words",
    "figures_normalization",
    "figures",
    "recall",
    "atlas_page",
    "atlas_plates",
    "atlas",
    "concordance",
    "figures_token",
    "pictures",
    "keyboard",
    "hovering",
    "exploring",
    "playground",
    "tables",
    "token_card",
    "tradeoff_points",
    "tradeoff_state",
    "tradeoff_plot",
    "tradeoff_explorer",
    "layer_state",
    "layer_explorer",
    "normalization_bench",
    "explorers",
    "reporting",
    "arguments",
    "cli",
    "__main__",
)
"""From left to right; nothing imports from its right."""

MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
MOST_LINES = 400


def imported(source: str) -> set[str]:
    """Modules of the package that a source imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = "embvar_kit" if node.level else ""
            base = ".".join(part for part in (inside, node.module or "") if part)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "embvar_kit" and module.split(".")[0] in MODULES:
                found.add(module.split(".")[0])
    return found


def test_imports_are_found_wherever_they_stand():
    source = (
        "import embvar_kit.cli\nfrom embvar_kit import models, __version__\n"
        "def f():\n    from embvar_kit.tokens import tokenize\n    from .moments import x\n"
        "if x:\n    from . import analysis\n    import embvar_kit_other.figures\n"
    )
    assert imported(source) == {"cli", "models", "tokens", "moments", "analysis"}


def test_every_module_has_its_place():
    assert not list(PACKAGE.rglob("*/*.py")), "a package inside the package: place it"
    new = set(MODULES) - {"__init__"} - set(ORDER)
    assert not new, f"{sorted(new)}: place them in ORDER, as far left as their imports allow"
    gone = set(ORDER) - set(MODULES)
    assert not gone, f"{sorted(gone)}: no longer there; take them out of ORDER"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
def test_modules_import_only_from_their_left(name):
    left = set(ORDER[: ORDER.index(name)]) if name in ORDER else set()
    wrong = imported(MODULES[name].read_text(encoding="utf-8")) - left
    assert not wrong, f"{name} imports {sorted(wrong)}, which stand to its right"


def test_the_package_tells_the_order_that_is_kept():
    told = " ".join(ek.__doc__.split()).partition("form a row: ``")[2].partition("``")[0]
    told = told.split(", ")
    assert len(told) > 5
    assert told == sorted(told, key=ORDER.index)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_fits_into_a_head(name):
    lines = MODULES[name].read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{name} has {lines} lines: split it where it holds two ideas"


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


# Public names

PUBLIC = [name for name in ek.__all__ if name != "__version__"]


def test_all_public_names_resolve():
    assert dir(ek) == sorted(ek.__all__)
    assert len(set(ek.__all__)) == len(ek.__all__)
    assert ek.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ek.nothing


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


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
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
