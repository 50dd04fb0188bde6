"""The notebook on a model of one's own, run for any model and saved as a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embvar_kit.errors import ReportError

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "09_your_own_model.ipynb"


def report(
    model: str, out: str | Path, *, parameters: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Run notebook 09 for a model with papermill; write the notebook and an HTML page.

    Args:
        model: alias, folder or Hub name, as :func:`embvar_kit.load_model` takes it.
        out: folder for ``report.ipynb`` and ``report.html``.
        parameters: values for others of the notebook's ``parameters`` cell: ``corpus_name``,
            ``limit``, ``device``, ``min_count``, ``leave_sinks_out``.

    Returns:
        The two files, under ``"notebook"`` and ``"page"``.

    Raises:
        ReportError: if the notebook is not there (the package was installed without its
            checkout), ``out`` cannot be written, or a cell fails; what ran until then is kept.
    """
    import nbformat
    import papermill
    from nbconvert import HTMLExporter

    if not NOTEBOOK.is_file():
        raise ReportError(
            f"A report is notebook {NOTEBOOK.name!r}, run; it is part of the kit's repository and "
            "not of an installed package. Clone the repository, or copy the notebook."
        )
    # The notebook runs in its own folder; a relative path would mean another place there.
    model = str(Path(model).expanduser().resolve()) if Path(model).expanduser().exists() else model
    values = {"model_name": model, **(parameters or {})}
    folder = Path(out).expanduser().resolve()
    files = {"notebook": folder / "report.ipynb", "page": folder / "report.html"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(
            str(NOTEBOOK),
            str(files["notebook"]),
            parameters=values,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(folder),
        )
    except papermill.PapermillExecutionError as error:
        raise ReportError(
            f"Cell {error.exec_count} of the report failed: {error.ename}: {error.evalue} What ran "
            f"until there is in {str(files['notebook'])!r}."
        ) from error
    except OSError as error:
        raise ReportError(f"The report cannot be written to {str(folder)!r}: {error}") from error
    page, _ = HTMLExporter().from_notebook_node(nbformat.read(files["notebook"], as_version=4))
    files["page"].write_text(page, encoding="utf-8")
    return files
