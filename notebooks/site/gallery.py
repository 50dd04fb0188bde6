"""The gallery: the paper's figures with the calls that draw them, and a slider through the layers.

The pictures are those that the executed notebooks hold; the page of the paper's figures in the
reference says in which section each stands. Only those of the slider are drawn, from the statistics
of ``smollm2`` that come with the kit: no model is run.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
from alternatives import calls, description
from myst_parser.slugs import github_slugify

import embvar_kit as ek

ROW = re.compile(
    r"^\| (?P<figure>(?:Figs?\.|Table) [\d-]+) \| `(?P<function>\w+)` "
    r"\| \[\w+\]\(\.\./(?P<notebook>[\w.]+)\), (?P<section>[\d.]+) \|",
    re.M,
)
"""A row of the table in ``notebooks/reference/figures.md``."""

DPI = 80  # of the slider's pictures


def write(folder: Path, root: Path) -> None:
    """Write the pages and the pictures of the gallery into ``folder/gallery``.

    Args:
        folder: where the sources of the site are gathered.
        root: the repository.
    """
    gallery = folder / "gallery"
    (gallery / "pictures").mkdir(parents=True)
    (gallery / "index.md").write_text(_page(gallery, root), encoding="utf-8")
    (gallery / "layers.md").write_text(_slider(gallery, root), encoding="utf-8")


# Figures in the notebooks


@dataclass(frozen=True)
class Drawn:
    """A call in a notebook that draws a figure, and what its cell shows.

    Attributes:
        notebook: the file of the notebook.
        section: the heading that it stands under.
        function: the function of ``ek.figures`` that is called.
        code: the call.
        picture: the PNG that the cell leaves; ``None`` for a table.
        table: the table that the cell leaves, as HTML; ``None`` for a picture.
    """

    notebook: str
    section: str
    function: str
    code: str
    picture: bytes | None
    table: str | None

    @property
    def where(self) -> str:
        """A link to the section, for a page in the folder of the gallery."""
        without_formulas = re.sub(r"\$[^$]*\$", "", self.section)
        anchor = github_slugify(without_formulas)
        to = f"../notebooks/{self.notebook}#{anchor}"
        return f"[{self.section}]({to})"


def drawn_in(path: Path) -> Iterator[Drawn]:
    """The figures that the cells of a notebook draw, in its order."""
    section = ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#{1,2} (.+)$", cell.source, re.M)
            section = headings[-1] if headings else section
            continue
        if cell.cell_type != "code":
            continue
        shown = [output.data for output in cell.outputs if "data" in output]
        picture = next((data["image/png"] for data in shown if "image/png" in data), None)
        table = next((data["text/html"] for data in shown if "text/html" in data), None)
        for name, code in calls(cell.source):
            if name in ek.figures.__all__ and (picture or table):
                png = base64.b64decode(picture) if picture else None
                yield Drawn(path.name, section, name, code, png, None if picture else table)


def _page(gallery: Path, root: Path) -> str:
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    found = [drawn for path in notebooks for drawn in drawn_in(path)]
    parts = [
        "# Gallery\n",
        "The figures of the paper as the kit draws them, and those that teach. The pictures are "
        "from the notebooks, for the two models that come with the kit. `ek` is the package, "
        "`import embvar_kit as ek`; what the other names in a call are, the section says. "
        "[V on M, layer by layer](layers.md) has a slider that needs no kernel.\n",
        "```{toctree}\n:hidden:\n\nV on M, layer by layer <layers>\n```\n",
        "## Figures of the paper\n",
    ]
    table = (root / "notebooks/reference/figures.md").read_text(encoding="utf-8")
    rows = {row["figure"]: row for row in ROW.finditer(table)}
    for figure, entry in ek.figures.PAPER.items():
        function = entry.function.__name__
        row = rows[figure]
        its = [
            drawn
            for drawn in found
            if drawn.function == function
            and drawn.notebook == row["notebook"]
            and drawn.section.startswith(f"{row['section']} ")
        ]
        parts += [f"### {figure}\n", f"{entry.shows[:1].upper()}{entry.shows[1:]}.\n"]
        for number, drawn in enumerate(its):
            name = f"{github_slugify(figure)}-{number}"
            parts += _shown(gallery, name, drawn, f"{figure}, drawn by the kit: {entry.shows}.")
        if not its:
            parts.append("No notebook draws it.\n")
        if entry.options:
            options = ", ".join(f"{name}={value!r}" for name, value in entry.options.items())
            parts.append(
                f"As the authors draw it: `ek.figures.{function}(stats, {options})`. "
                "[What the arguments do]"
                "(../notebooks/reference/figures.md#as-the-authors-draw-them).\n"
            )
        parts.append(_defined(function))
    parts += ["### Not drawn\n", f"The kit has no function for {_not_drawn()} of the paper.\n"]
    parts += ["## Figures that teach\n"]
    papers = {entry.function.__name__ for entry in ek.figures.PAPER.values()}
    for function in ek.figures.__all__:
        its = [one for one in found if one.function == function and one.picture]
        if function in papers or not its:
            continue
        parts += [f"### {function}\n", f"{description(function)}\n"]
        parts += _shown(gallery, function, its[0], description(function))
        parts.append(_defined(function))
    return "\n".join(parts)


def _not_drawn() -> str:
    """Figures and tables of the paper that the kit does not draw, up to the last that it does."""
    found = []
    for kind in ("Fig", "Table"):
        drawn = set()
        for name in ek.figures.PAPER:
            if name.startswith(kind):
                first, *last = map(int, re.findall(r"\d+", name))
                drawn |= set(range(first, (last[0] if last else first) + 1))
        dot = "." * (kind == "Fig")
        found += [f"{kind}{dot} {n}" for n in range(1, max(drawn)) if n not in drawn]
    return " and ".join(found)


def _shown(gallery: Path, name: str, drawn: Drawn, alternative: str) -> Iterator[str]:
    """A figure or a table, and the call that made it."""
    if drawn.picture:
        (gallery / "pictures" / f"{name}.png").write_bytes(drawn.picture)
        yield f"```{{image}} pictures/{name}.png\n:alt: {alternative}\n```\n"
    else:
        table = _without_style(drawn.table)
        yield f'<div class="cell_output"><div class="output text_html">{table}</div></div>\n'
    yield f"```python\n{drawn.code}\n```\n\nIn {drawn.where}.\n"


def _without_style(table: str) -> str:
    """A table of pandas without its style sheet and its blank lines, which would end the HTML."""
    bare = re.sub(r"<style.*?</style>", "", table, flags=re.S)
    return "\n".join(line for line in bare.splitlines() if line.strip())


def _defined(function: str) -> str:
    return f"Its arguments: {{py:func}}`ek.figures.{function} <embvar_kit.figures.{function}>`.\n"


# The slider


def _slider(gallery: Path, root: Path) -> str:
    every = ek.TokenStatistics.load(root / "data" / "stats" / "smollm2-wikipedia" / "hidden")
    high = every.high_norm(peak=True)["token"]
    stats = every.without(high)
    fits = stats.tradeoff(intervals=stats.has_folds).set_index("layer")
    parts = [
        "# V on M, layer by layer\n",
        "The paper's Fig. 2 for each hidden state of `smollm2`, a small Pre-LN decoder: "
        f"{len(stats):,} tokens of the Wikipedia excerpt that comes with the kit, without the "
        f"{len(high)} tokens of high norm that [section 4.3]"
        "(../notebooks/04_norm_variance_tradeoff.ipynb#43-high-norm-tokens) is about. Layer 0 is "
        "the output of the embedding layer, where most tokens have the same vector in all "
        "contexts, and no V to draw. Each point is a token. The line is fitted to M and V "
        "themselves by least squares; it is curved because the axes are logarithmic. The axes "
        "differ from layer to layer, since the norms grow with depth.\n",
        "Move the slider with the mouse, or with the arrow keys once it has the focus; *Home* and "
        "*End* go to the first and the last layer. The pictures were drawn when this page was "
        "made, so nothing has to run.\n",
        "A slope near −1 is not evidence by itself: unrelated Q and M give it, too. Section 4.7 "
        "of [notebook 4](../notebooks/04_norm_variance_tradeoff.ipynb#47-is-it-real) asks what "
        "each slope is worth.\n",
        "::::{container} layer-slider\n",
    ]
    for layer in map(int, stats.layers):
        name = f"layer-{layer:02d}"
        with plt.ioff(), mpl.rc_context({"figure.dpi": DPI}):
            ax = ek.figures.V_on_M(stats, layer=layer, log=True)
            ax.figure.savefig(gallery / "pictures" / f"{name}.png", dpi=DPI)
            plt.close(ax.figure)
        fit = fits.loc[layer]
        numbers = f"slope {fit['slope']:.2f}, R² {fit['r2']:.2f}"
        if stats.has_folds:
            numbers += f" (95 % intervals {fit['slope_low']:.2f} to {fit['slope_high']:.2f} "
            numbers += f"and {fit['r2_low']:.2f} to {fit['r2_high']:.2f})"
        numbers = numbers.replace("-", "−")
        alternative = (
            f"Scatter plot of V against M at layer {layer}, on logarithmic axes. Tokens are "
            "coloured by how often they occur. The regression line of "
            f"{fit['n_tokens']:,.0f} tokens has {numbers}."
        )
        parts.append(
            f":::{{figure}} pictures/{name}.png\n:alt: {alternative}\n:figclass: {name}\n\n"
            f"Layer {layer}: {numbers}\n:::\n"
        )
    parts += [
        "::::\n",
        "The call that draws a layer, in a notebook or in your own code:\n",
        "```python\n"
        "import embvar_kit as ek\n\n"
        'every = ek.cached_statistics("smollm2")\n'
        'stats = every.without(every.high_norm(peak=True)["token"])\n'
        "ek.figures.V_on_M(stats, layer=15, log=True)\n"
        "```\n",
    ]
    return "\n".join(parts)
