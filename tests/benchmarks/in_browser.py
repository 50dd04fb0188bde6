"""Time the explorers in a real browser: from a slider's key to the final pixels.

    make bench                                        # or:
    .venv/bin/python tests/benchmarks/in_browser.py      # --steps 6 for a quick look

JupyterLab, the kernel and Chromium, which draws by software, share the machine. Each explorer is a
notebook of its own. Writes ``browser.md`` beside this file (``--out`` for another place); without a
browser it says so and leaves what is there.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import servers
from machine import processor, today

import embvar_kit as ek

HERE = Path(__file__).parent
WARM_UP = 6

# What a message of the page costs the kernel, from its arrival to the last of its answers.
CALLBACKS = """
import time
kernel = get_ipython().kernel
inner = kernel.shell_handlers["comm_msg"]

def timed(stream, ident, message):
    started = time.perf_counter()
    try:
        return inner(stream, ident, message)
    finally:
        with open("callbacks.txt", "a") as file:
            print(time.perf_counter() - started, file=file)

kernel.shell_handlers["comm_msg"] = timed
"""

POINTS = """
import dataclasses
import numpy as np

stats = ek.cached_statistics("minilm", progress=False)
more = np.random.default_rng(0).integers(0, len(stats), 30_000 - len(stats))
rows = np.concatenate([np.arange(len(stats)), more])
names = [*stats.tokens, *(f"{stats.tokens[row]} {i}" for i, row in enumerate(more))]
near = 1 + 0.02 * np.random.default_rng(1).normal(size=(len(stats.layers), len(rows)))
near[:, : len(stats)] = 1
M, V = (x[:, rows] * near for x in (stats.M, stats.V))
points = dataclasses.replace(
    stats, tokens=np.array(names, dtype=object), special=stats.special[rows], n=stats.n[rows],
    Q=M + V, M=M, V=V, mean=None, extra=None,
)
"""


@dataclass(frozen=True)
class Contestant:
    """An explorer to be timed: what is there before its cell, its cell, and its bar in ms."""

    name: str
    what: str
    before: str
    cell: str
    css: str
    bar: int


CONTESTANTS = (
    Contestant(
        "trade-off explorer",
        "30,000 points (minilm's 19,388 tokens, and 10,612 of them moved by about 2 %), 7 layers",
        POINTS,
        "explorer = ek.TradeoffExplorer(points, counts=(1, None))\nexplorer",
        "tradeoff",
        250,
    ),
    Contestant(
        "linked explorer",
        "two layers of minilm side by side, all 19,388 tokens in each plot",
        'stats = ek.cached_statistics("minilm", progress=False)',
        "explorer = ek.LinkedExplorer(stats, counts=(1, None))\nexplorer",
        "linked",
        250,
    ),
    Contestant(
        "linked explorer, both panels at once",
        "the same with *same relative depth*: a step of one slider moves both panels",
        'stats = ek.cached_statistics("minilm", progress=False)',
        "explorer = ek.LinkedExplorer(stats, counts=(1, None), same_depth=True)\nexplorer",
        "linked",
        250,
    ),
    Contestant(
        "layer explorer",
        "minilm and smollm2 side by side, 7 and 31 layers",
        'names = ("minilm", "smollm2")\n'
        "stats = {name: ek.cached_statistics(name, progress=False) for name in names}",
        "explorer = ek.LayerExplorer(stats, sinks=False)\nexplorer",
        "layers",
        100,
    ),
)


def measure(contestant: Contestant, steps: int) -> dict[str, float]:
    """Medians over the steps of one explorer, and what it cost to begin with."""
    from browser import notebook_page, view
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="embvar-bench-") as work:
        folder = Path(work) / "notebooks"
        folder.mkdir()
        sources = [f"import embvar_kit as ek\n{contestant.before}", CALLBACKS, contestant.cell]
        cells = [new_code_cell(source.strip()) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(book, folder / "x.ipynb")
        with (
            servers.jupyterlab(folder) as server,
            sync_playwright() as playwright,
            notebook_page.chromium(playwright) as browser,
        ):
            notebook = notebook_page.Notebook(browser, server, "x.ipynb")
            page = notebook.page
            page.set_viewport_size({"width": 1280, "height": 1400})
            page.locator(".jp-Cell").first.click()
            received = notebook.traffic.received
            started = notebook.begin("run-all")
            explorer = page.locator(f".embvar-{contestant.css}")
            view.slider(explorer).wait_for(state="attached")
            picture = view.watch(explorer)
            usable = (picture.rest(120)["changed"] - started) / 1000
            notebook.idle()
            begin = notebook.traffic.received - received
            explorer.scroll_into_view_if_needed()
            page.wait_for_timeout(3000)
            view.slider(explorer).focus()
            callbacks = folder / "callbacks.txt"
            callbacks.touch()
            taken, sizes, spent = [], [], []
            key, last = "ArrowRight", None
            for step in range(WARM_UP + steps):
                before = len(callbacks.read_text().split())
                received = notebook.traffic.received
                rest = picture.press(key)
                handle = view.slider(explorer)
                now, least, most = (
                    float(handle.get_attribute(f"aria-value{end}")) for end in ("now", "min", "max")
                )
                if now == last:
                    raise RuntimeError(f"The slider did not move: {now}")
                if now in (least, most):
                    key = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight"}[key]
                last = now
                if step >= WARM_UP:
                    taken.append(rest["changed"] - rest["pressed"])
                    sizes.append(notebook.traffic.received - received)
                    spent.append(max(map(float, callbacks.read_text().split()[before:])))
            notebook.close()
    return {
        "step": statistics.median(taken),
        "slowest": max(taken),
        "callback": 1000 * statistics.median(spent),
        "start": begin / 1e6,
        "sent": statistics.median(sizes) / 1e3,
        "usable": usable,
    }


def report(found: dict[Contestant, dict[str, float]], steps: int, load: list[float]) -> str:
    """The measurements beside their bars, as Markdown."""
    busy = " (other work ran before it)" if load[0] >= 1 else ""
    lines = [
        "# The explorers in a browser",
        "",
        f"Measured by `make bench` on {today()}: JupyterLab, kernel and Chromium without a window "
        f"and without a GPU (software rendering) on {os.cpu_count()} cores of {processor()}, "
        f"Python {platform.python_version()}, embvar-kit {ek.__version__}; load average "
        f"{load[0]:.1f} before{busy} and {load[1]:.1f} after. Medians of {steps} steps of "
        f"the layer slider, after {WARM_UP} steps that are not counted.",
    ]
    for one, values in found.items():
        rows = (
            ("slider key to final pixels, ms", values["step"], one.bar),
            ("the kernel's longest callback in a step, ms", values["callback"], 30),
            ("sent at the start, MB", values["start"], 3),
            ("sent per step, KB", values["sent"], 500),
            ("from run-all to usable, the import included, s", values["usable"], 6),
        )
        lines += ["", f"## {one.name}", "", f"{one.what}.", ""]
        lines += ["| | measured | bar | |", "| --- | ---: | ---: | --- |"]
        for what, value, bar in rows:
            shown = f"{value:.0f}" if value >= 20 else f"{value:.2f}"
            met = "met" if value <= bar else "**missed**"
            lines.append(f"| {what} | {shown} | ≤ {bar} | {met} |")
        lines += ["", f"The slowest step took {values['slowest']:.0f} ms."]
    lines += [
        "",
        "Pixels are read in the browser's animation frames, from the key's event to the last frame "
        "that differs from the one before it. Bytes are those of the websocket messages that the "
        "browser receives.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24, help="counted")
    parser.add_argument("--out", type=Path, default=HERE / "browser.md")
    chosen = parser.parse_args()
    if problem := servers.missing():
        print(f"{problem}\nThe explorers are not timed.")
        return
    for name in ("minilm", "smollm2"):
        ek.cached_statistics(name)
    load = [os.getloadavg()[0]]
    found = {}
    for one in CONTESTANTS:
        started = time.perf_counter()
        found[one] = measure(one, chosen.steps)
        print(f"{one.name}: {time.perf_counter() - started:.0f} s", flush=True)
    load.append(os.getloadavg()[0])
    text = report(found, chosen.steps, load)
    chosen.out.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {chosen.out.name}")


if __name__ == "__main__":
    main()
