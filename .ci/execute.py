"""Execute notebooks, several at a time, and say how long each took.

python .ci/execute.py --out FOLDER [--jobs 2] NOTEBOOK...

Each notebook runs in a kernel of its own, in its own folder, and is saved to FOLDER. A notebook
whose cell fails is saved as far as it came; the others still run. Pictures are saved with a palette
of 256 colours, a third of the size, so that a notebook with many stays small at full resolution.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image
from traitlets.config import Config

# Without encryption, each kernel warns that it has none.
CONFIG = Config(KernelManager={"transport_encryption": "auto"})
CELL_TIMEOUT = 600  # seconds


async def execute(path: Path, out: Path) -> str:
    """Run one notebook and save it; returns what went wrong in it, or an empty string."""
    start = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        config=CONFIG,
        timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    problem = ""
    try:
        await client.async_execute()
    except (CellExecutionError, CellControlSignal, DeadKernelError, TimeoutError) as error:
        problem = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    # A progress bar leaves an output for each of its states; this keeps the last one.
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True).preprocess(notebook, {})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = base64.b64encode(smaller(base64.b64decode(png))).decode()
    nbformat.write(notebook, out / path.name)
    seconds = time.monotonic() - start
    print(f"  {path.stem:<28} {seconds:5.0f} s{'  FAILED' if problem else ''}", flush=True)
    return problem


def smaller(png: bytes) -> bytes:
    """A picture with a palette, or as it is if that is no smaller or something shines through."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):
        picture = picture.convert("RGB")
    if picture.mode != "RGB":
        return png
    # Clusters of colours by k-means: the edges of letters and points keep their shades.
    few = picture.quantize(method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    saved = io.BytesIO()
    few.save(saved, "PNG", optimize=True)
    return min(saved.getvalue(), png, key=len)


async def execute_all(paths: list[Path], out: Path, jobs: int) -> dict[str, str]:
    """Run notebooks ``jobs`` at a time; returns the problems by path."""
    free = asyncio.Semaphore(jobs)

    async def one(path: Path) -> str:
        async with free:
            return await execute(path, out)

    problems = await asyncio.gather(*map(one, paths))
    return {str(path): problem for path, problem in zip(paths, problems, strict=True) if problem}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--out", required=True, type=Path, help="folder to save them to")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time (default: 1)")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    problems = asyncio.run(execute_all(chosen.notebooks, chosen.out, chosen.jobs))
    print(f"  {'all of them':<28} {time.monotonic() - start:5.0f} s")
    for path, problem in problems.items():
        print(f"\n{path} failed:\n{problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
