"""Notebook 9, "A model of your own", run for any model and saved as a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit.errors import ReportError, first_line
from embvar_kit.files import in_checkout, make_writable, unmake

if TYPE_CHECKING:
    from nbformat import NotebookNode

NAME = "09_your_own_model.ipynb"

_OF_THE_LESSON = {"quiz", "exercise", "solution"}  # tags of cells


def report(
    model: str, out: str | Path, *, parameters: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Run notebook 09 for a model with papermill; write the notebook and an HTML page.

    Its quiz, exercises and solutions are left out: their numbers are those of the notebook's model.

    Args:
        model: alias, folder, ``.gguf`` file or Hub name, as :func:`embvar_kit.load_model` takes it.
        out: folder for ``report.ipynb`` and ``report.html``.
        parameters: values for the other names in the notebook's ``parameters`` cell:
            ``corpus_name``, ``limit``, ``device``, ``min_count``, ``leave_sinks_out``,
            ``untrained``.

    Returns:
        The two files, under ``"notebook"`` and ``"page"``.

    Raises:
        ReportError: if a parameter is unknown, ``out`` cannot be written, or a cell fails; the
            cells that ran before it are kept.
        ModelError, CorpusError: if there is no such model, device or corpus. This is found out
            before the notebook is started, and nothing is written then.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    from traitlets.config import Config

    lesson = _notebook()
    values = {"model_name": str(model), **(parameters or {})}
    known = papermill.inspect_notebook(str(lesson))
    if unknown := values.keys() - known.keys():
        raise ReportError(
            f"The report has no parameter {', '.join(sorted(map(repr, unknown)))}; it has "
            f"{', '.join(known)}."
        )
    folder = Path(out).expanduser().resolve()
    files = {"notebook": folder / "report.ipynb", "page": folder / "report.html"}
    own = _without_exercises(nbformat.read(lesson, as_version=4))
    _check(values, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(own, files["notebook"])  # papermill runs a file, and writes over it
        papermill.execute_notebook(
            str(files["notebook"]),
            str(files["notebook"]),
            parameters=values,
            kernel_name="python3",
            kernel_manager_class=_own_kernel(),
            progress_bar=False,
            # Without encryption, the kernel warns that it has none.
            config=Config(KernelManager={"transport_encryption": "auto"}),
            cwd=str(Path.cwd()),  # relative paths mean the same as for the caller
        )
    except papermill.PapermillExecutionError as error:
        raise ReportError(
            f"Cell {error.exec_count} of the report failed: {error.ename}: {error.evalue} The "
            f"cells before it are in {str(files['notebook'])!r}."
        ) from error
    except (papermill.PapermillException, CellTimeoutError, DeadKernelError) as error:
        raise ReportError(
            f"The report stopped: {first_line(error)} The cells that ran are in "
            f"{str(files['notebook'])!r}. If memory was short, take fewer sentences (limit=...)."
        ) from error
    except OSError as error:
        raise _not_written(folder, error) from error
    run = nbformat.read(files["notebook"], as_version=4)
    for path in ("input_path", "output_path"):  # paths of this machine
        run.metadata.get("papermill", {}).pop(path, None)
    run, _ = CoalesceStreamsPreprocessor(enabled=True).preprocess(run, {})
    nbformat.write(run, files["notebook"])
    page, _ = HTMLExporter().from_notebook_node(run)
    files["page"].write_text(page, encoding="utf-8")
    return files


def _check(values: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model, a corpus or a folder with which the notebook would fail after its start.

    Starting a kernel takes long, and names the cell that failed rather than what was wrong. No
    weights are loaded here, and one sentence is read.
    """
    from embvar_kit.corpora.listing import is_pattern
    from embvar_kit.corpora.load import load_corpus
    from embvar_kit.models.loading import check_model

    try:
        made = make_writable(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        check_model(values["model_name"], device=values.get("device", "auto"))
        if name := values.get("corpus_name"):
            limit = values.get("limit", 1)
            if isinstance(limit, int):
                limit = min(limit, 1)
            elif limit is None and not is_pattern(name):  # of many files none is read
                limit = 1
            load_corpus(name, limit=limit)
    except BaseException:
        unmake(made)
        raise


def _not_written(folder: Path, error: OSError) -> ReportError:
    return ReportError(f"The report cannot be written to {str(folder)!r}: {error}")


def _own_kernel() -> type:
    """A class of kernel managers that start a kernel of this interpreter.

    A kernel named python3 may be any interpreter's: Jupyter takes the first that it finds, and a
    user's own comes before that of the environment that the kit is installed in.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            # Its command begins with sys.executable. An interrupt ends the kernel in the middle of
            # a cell, about which it would print a traceback: what goes wrong in cells is told by
            # papermill.
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))

    return OwnKernel


def _without_exercises(lesson: NotebookNode) -> NotebookNode:
    lesson.cells = [
        cell
        for cell in lesson.cells
        if not _OF_THE_LESSON & {*cell.metadata.get("tags", ())} and cell.source != "## Exercises"
    ]
    return lesson


def _notebook() -> Path:
    """The notebook in the checkout, or the copy that setup.py puts into a wheel."""
    kept = in_checkout("notebooks", NAME) or Path(str(resources.files("embvar_kit") / NAME))
    if not kept.is_file():
        raise ReportError(
            f"A report runs notebook {NAME!r}, and {str(kept)!r} is missing. Install the kit "
            "again, or clone its repository."
        )
    return kept
