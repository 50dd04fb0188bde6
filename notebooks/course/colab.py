"""The set-up cell that the notebooks for Colab begin with.

It runs before the kit is there, so it imports nothing of it. Colab has a kernel, widgets and a
PyTorch of its own, and the cell leaves them as they are: pip may add packages, and raise those that
are older than pyproject.toml allows, but a runtime whose kernel it replaces can crash at every
start. Hence no lock file, and no dependencies of the kit's own metadata: the ranges are written
into the cell.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from string import Template

import nbformat
from nbformat import NotebookNode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

OWN = (
    *("ipykernel", "ipython", "ipywidgets", "jupyter-client", "prompt-toolkit", "pyzmq"),
    *("tornado", "traitlets"),
)
"""What Colab's kernel and its widgets run on. Its release of ipywidgets, 7, is older than the range
of pyproject.toml; the explorers work with it."""

KEPT = (*OWN, "torch")
"""What pip may not replace: PyTorch, too, since Colab's fits the driver of its GPUs."""

FRONT_ENDS = ("jupyterlab", "voila")
"""What Colab takes the place of."""

_ADDRESS = re.compile(r"git\+[a-z]+://\S+|\S+\.whl")

TEXT = """\
**On Colab, run the next cell first.** It installs the kit and fetches its models, which takes a
minute or two, and it lets the explorers' controls be shown. If it says that the session has to be
restarted, a package was loaded before a newer release of it was installed: choose *Runtime*,
*Restart session*, and run the cell again, which then takes seconds. What is installed is lost when
the runtime is deleted. Elsewhere the cell does nothing.
"""

_CODE = Template('''\
import importlib.util
import subprocess
import sys
import tempfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

KIT = "$kit"
NEEDS = """
$needs
""".split()
KEPT = """
$kept
""".split()  # what Colab runs on

if "google.colab" in sys.modules:
    stale = globals().get("stale", set())  # until the session is restarted
    commands = [["embvar_kit", "fetch"]]
    if importlib.util.find_spec("embvar_kit") is None:
        found = reversed([one for one in distributions() if one.name])  # the first one counts
        before = {one.name.lower().replace("_", "-"): one.version for one in found}
        kept = Path(tempfile.mkdtemp(), "kept.txt")
        kept.write_text("\\n".join(f"{name}=={before[name]}" for name in KEPT if name in before))
        pip = ["pip", "install", "--quiet", "--constraint", str(kept)]
        commands = [[*pip, *NEEDS], [*pip, "--no-deps", KIT], *commands]
    print("Setting up the kit ...")
    for command in commands:
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:2])} failed:\\n{done.stderr.strip()}")
    if len(commands) > 1:
        found = reversed([one for one in distributions() if one.name])
        after = {one.name.lower().replace("_", "-"): one.version for one in found}
        changed = {name for name in before if after.get(name) != before[name]}
        for module, names in packages_distributions().items():
            if module in sys.modules:
                stale |= changed & {name.lower().replace("_", "-") for name in names}
        importlib.invalidate_caches()
    if stale:
        raise RuntimeError(
            "Choose Runtime > Restart session, and run this cell again: this session has loaded "
            f"another release of {', '.join(sorted(stale))} than the one that is now installed."
        )

    from google.colab import output

    output.enable_custom_widget_manager()
    print("The kit is ready.")
''')


def needs() -> list[str]:
    """What the cell asks pip for: the ranges of pyproject.toml, without what Colab has itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.match(r"[\w-]+", line)[0]: line for line in project["dependencies"]}
    return [line for name, line in asked.items() if name not in {*OWN, *FRONT_ENDS}]


def code(address: str, needs: list[str]) -> str:
    """The code of the set-up cell.

    Args:
        address: where the kit is to be had: ``git+https://...``, as pip reads it, or the path or
            the address of a wheel.
        needs: what the kit needs, as pip reads it, without blanks.

    Raises:
        ValueError: if the address is neither.
    """
    if not _ADDRESS.fullmatch(address) or not address.isprintable() or {*address} & {*'"\\'}:
        raise ValueError(
            "The cell for Colab needs an address of the kit: git+https://..., or a wheel's path or "
            f"address, which ends in .whl; not {address!r}."
        )
    return _CODE.substitute(kit=address, needs="\n".join(needs), kept="\n".join(KEPT)).strip()


def with_setup(notebook: NotebookNode, number: str, address: str) -> NotebookNode:
    """The notebook with the set-up cell, and a text on it, behind its first cell.

    Args:
        notebook: any version of a notebook; it is left as it is.
        number: that of the notebook, ``04``, for the ids of the cells.
        address: as for :func:`code`.

    Raises:
        ValueError: if the address is none.
    """
    new = nbformat.from_dict(notebook)
    tags = {"metadata": {"tags": ["setup"]}}
    text = nbformat.v4.new_markdown_cell(TEXT.strip(), id=f"setup-{number}-text", **tags)
    cell = nbformat.v4.new_code_cell(code(address, needs()), id=f"setup-{number}", **tags)
    new.cells = [new.cells[0], text, cell, *new.cells[1:]]
    return new
