"""The folder that saved statistics live in: open formats, checksums, one atomic step.

``metadata.json`` names the other files and their SHA-256; it is replaced last, in one rename, so a
reader finds the old statistics or the new ones and nothing in between.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from embvar_kit.bundled import sha256_of
from embvar_kit.errors import StatisticsFileError

FORMAT = 1
_METADATA = "metadata.json"


def write(
    folder: Path, table: pd.DataFrame, tensors: Mapping[str, np.ndarray], info: Mapping
) -> Path:
    """Write a table, means and their description; see :meth:`TokenStatistics.save`.

    Raises:
        StatisticsFileError: if the folder cannot be written; what was there stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        files = {"table": _add(folder, "table", ".parquet", lambda p: pq.write_table(arrow, p))}
        if tensors:
            whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
            files["mean"] = _add(folder, "mean", ".safetensors", lambda p: save_file(whole, p))
        metadata = {"format": FORMAT, "files": files, "info": info}
        metadata["sha256"] = _digest(metadata)
        _replace(folder / _METADATA, json.dumps(metadata, indent=1, ensure_ascii=False).encode())
        current = {file["name"] for file in files.values()} | {_METADATA}
        for stale in (*folder.glob("table-*.parquet"), *folder.glob("mean-*.safetensors")):
            if stale.name not in current:
                stale.unlink(missing_ok=True)
    except OSError as error:
        raise StatisticsFileError(
            f"Could not write statistics to {str(folder)!r}: {error.strerror or error}. "
            "Statistics saved there before are unharmed."
        ) from error
    return folder


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict]:
    """Read what :func:`write` wrote, or refuse it by name.

    Raises:
        StatisticsFileError: if something is missing, altered or of a newer format.
    """
    path = folder / _METADATA
    if not path.is_file():
        raise StatisticsFileError(f"There are no saved statistics in {str(folder)!r}.")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        claimed = metadata.pop("sha256")
        intact = claimed == _digest(metadata)
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise StatisticsFileError(f"{str(path)!r} is truncated or was altered.")
    if metadata["format"] > FORMAT:
        raise StatisticsFileError(
            f"{str(path)!r} has format {metadata['format']}, this kit reads up to {FORMAT}: "
            "update embvar-kit."
        )
    files = metadata["files"]
    for file in files.values():
        found = folder / file["name"]
        if not found.is_file():
            raise StatisticsFileError(f"{str(found)!r} is missing.")
        if sha256_of(found) != file["sha256"]:
            raise StatisticsFileError(f"{str(found)!r} is truncated or was altered.")
    table = pq.read_table(folder / files["table"]["name"]).to_pandas()
    tensors = load_file(folder / files["mean"]["name"]) if "mean" in files else {}
    return table, tensors, metadata["info"]


def _add(folder: Path, kind: str, suffix: str, write_to: Callable[[Path], None]) -> dict[str, str]:
    """Write a file under a name made of its contents, so that no file in force is overwritten."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{kind}-", suffix=suffix)
    os.close(handle)
    scratch = Path(name)
    try:
        write_to(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        digest = sha256_of(scratch)
        final = folder / f"{kind}-{digest[:12]}{suffix}"
        scratch.chmod(0o644)
        os.replace(scratch, final)
    finally:
        scratch.unlink(missing_ok=True)
    return {"name": final.name, "sha256": digest}


def _replace(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".metadata-", delete=False) as file:
        scratch = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            scratch.chmod(0o644)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


def _digest(metadata: Mapping) -> str:
    canonical = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
