"""The folder of saved statistics: open formats, checksums, and replacement in one atomic step.

``metadata.json`` names the other files and their SHA-256. It is replaced last, in one rename, so a
reader finds the old statistics or the new ones and nothing in between. This holds for any number of
writers and readers without a lock, which not every network folder supports: every write gives its
files new random names, and once ``metadata.json`` names other files it removes only its own and
those of the statistics that it replaced. A reader whose files vanish starts over. A later write
removes what a killed process left behind.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from embvar_kit.errors import ExtractionError, StatisticsFileError, first_line
from embvar_kit.files import replacing, sha256_of
from embvar_kit.moments import memory

FORMAT = 2
TABLES = (
    "table",
    "decompositions",
    "fold_decompositions",
    "replicates",
    "null",
    "null_decompositions",
    "isotropies",
)
MEANS = ("mean", "null_mean")
"""Names of files of means, which may not fit into memory: tensors ``mean`` and ``extra``."""

TENSORS = (*MEANS, "folds", "covariance")
_METADATA = "metadata.json"
_DATA = rf"(({'|'.join(TABLES)})-\w{{8}}\.parquet|({'|'.join(TENSORS)})-\w{{8}}\.safetensors)"
_SCRATCH = re.compile(rf"\.({_DATA}|metadata\.json)\.writing-[a-z0-9_]{{8}}")
_KIT_FILES = re.compile(rf"{_DATA}|\.metadata-\w{{8}}\.json|\.tmp\w{{6}}")
"""Files that the kit may remove: those of a write, and what killed writers of older kits left."""

_ABANDONED = 3600
"""Seconds, longer than any write takes, after which a file not in force is left over."""


def write(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    info: Mapping,
) -> Path:
    """Write tables, tensors and their description; see :meth:`TokenStatistics.save`.

    Args:
        folder: the folder to write to.
        tables: the tables, by a name from :data:`TABLES`.
        tensors: the tensors of each file, by a name from :data:`TENSORS`.
        info: what was measured.

    Raises:
        StatisticsFileError: if the folder cannot be written; statistics saved there before stay.
    """
    ours_and_replaced: set[str] = set()

    def add(kind: str, suffix: str, write_to: Callable[[Path], object]) -> None:
        """Write a file under a new random name."""
        path = folder / f"{kind}-{secrets.token_hex(4)}{suffix}"
        ours_and_replaced.add(path.name)
        with replacing(path) as scratch:
            write_to(scratch)
        files[kind] = {"name": path.name, "sha256": sha256_of(path)}

    files: dict[str, dict[str, str]] = {}
    try:
        for name, table in tables.items():
            arrow = pa.Table.from_pandas(table, preserve_index=False)
            add(name, ".parquet", partial(_write_table, arrow))
        for kind, own in tensors.items():
            whole = {name: np.ascontiguousarray(tensor) for name, tensor in own.items()}
            add(kind, ".safetensors", partial(save_file, whole))
        metadata = {"format": FORMAT, "files": files, "info": info}
        metadata["sha256"] = _digest(metadata)
        ours_and_replaced |= _files_in_force(folder)
        with replacing(folder / _METADATA) as scratch:
            scratch.write_text(json.dumps(metadata, indent=1, ensure_ascii=False), "utf-8")
    except (OSError, SafetensorError) as error:
        raise StatisticsFileError(
            f"Could not write statistics to {str(folder)!r}: "
            f"{getattr(error, 'strerror', None) or first_line(error)}. "
            "Statistics saved there before are unharmed."
        ) from error
    finally:
        _tidy(folder, ours_and_replaced)
    return folder


Contents = tuple[dict[str, pd.DataFrame], dict[str, dict[str, np.ndarray]], dict]


def read(folder: Path) -> Contents:
    """Read what :func:`write` wrote.

    Returns:
        The tables by name, the tensors by file and name, and ``info``.

    Raises:
        StatisticsFileError: if something is missing, unreadable, altered or of a newer format.
    """
    try:
        metadata = _metadata(folder)
        while True:
            try:
                return _contents(folder, metadata)
            except FileNotFoundError as error:
                # If other statistics were saved meanwhile, the metadata name other files now.
                seen, metadata = metadata, _metadata(folder)
                if metadata["files"] == seen["files"]:
                    missing = str(error.filename or folder)
                    raise StatisticsFileError(f"{missing!r} is missing.") from error
    except OSError as error:
        raise StatisticsFileError(
            f"{str(error.filename or folder)!r} cannot be read: {error.strerror or error}."
        ) from error


def _metadata(folder: Path) -> dict:
    path = folder / _METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        claimed = metadata.pop("sha256")
        intact = claimed == _digest(metadata)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StatisticsFileError(
            f"There are no saved statistics in {str(folder)!r}. Write some with: "
            "embvar extract --out DIR"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise StatisticsFileError(f"{str(path)!r} is truncated or was altered.")
    return metadata


def _contents(folder: Path, metadata: Mapping) -> Contents:
    if metadata["format"] > FORMAT:
        raise StatisticsFileError(
            f"{str(folder / _METADATA)!r} has format {metadata['format']}, and this kit reads "
            f"formats up to {FORMAT}: update embvar-kit."
        )
    files = metadata["files"]
    paths = {folder / file["name"]: file["sha256"] for file in files.values()}
    with ThreadPoolExecutor() as pool:  # means and their null are hundreds of megabytes each
        for path, digest in zip(paths, pool.map(sha256_of, paths), strict=True):
            if digest != paths[path]:
                raise StatisticsFileError(f"{str(path)!r} is truncated or was altered.")
    tables = {
        # The names of the tokens left out fill 30 KB, and tens of thousands of rows have them.
        name: pq.read_table(folder / files[name]["name"], read_dictionary=["left_out"]).to_pandas()
        for name in TABLES
        if name in files
    }
    tensors = {
        kind: (_read_means if kind in MEANS else load_file)(folder / files[kind]["name"])
        for kind in TENSORS
        if kind in files
    }
    means = tensors.get("mean", {})
    if metadata["format"] == 1 and "extra" in means:
        # In format 1 a positive extra byte meant upward; since then it means away from zero.
        np.negative(means["extra"], out=means["extra"], where=means["mean"] < 0)
    return tables, tensors, metadata["info"]


def _read_means(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors, layer by layer into a file where they do not fit into memory."""
    if memory.fit_into_memory(path.stat().st_size):
        return load_file(path)
    with safe_open(path, framework="numpy") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        try:
            mean, extra = memory.allocate(tuple(stored["mean"].get_shape()))
        except ExtractionError as error:
            raise StatisticsFileError(f"{str(path)!r} cannot be read. {error}") from error
        tensors = {"mean": mean, "extra": extra} if "extra" in stored else {"mean": mean}
        for name, array in tensors.items():
            for at in range(len(array)):
                array[at] = stored[name][at]
    return tensors


def _write_table(table: pa.Table, path: Path) -> None:
    """Write a table, splitting floats into streams of bytes, which compress better."""
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [name for name in table.column_names if name not in floats]
    pq.write_table(
        table, path, compression="zstd", use_byte_stream_split=floats, use_dictionary=others
    )


def _files_in_force(folder: Path) -> set[str]:
    """Names of the files of the statistics in force; empty if those are damaged or missing."""
    try:
        return {file["name"] for file in _metadata(folder)["files"].values()}
    except StatisticsFileError:
        return set()


def _tidy(folder: Path, names: set[str]) -> None:
    """Remove these files, and old ones left over from a killed process, if they are not in force.

    A file that cannot be removed, for example because a reader on Windows has it open, is left to
    a later write: it does not affect the statistics in force.
    """
    with suppress(OSError):
        in_force = _files_in_force(folder)
        old = (folder / _METADATA).stat().st_mtime - _ABANDONED if in_force else 0
        for path in folder.iterdir():
            scratch = _SCRATCH.fullmatch(path.name) and path.is_dir()
            if path.name in in_force or not (scratch or _KIT_FILES.fullmatch(path.name)):
                continue
            with suppress(OSError):
                if path.name in names or path.stat().st_mtime < old:
                    shutil.rmtree(path) if scratch else path.unlink()


def _digest(metadata: Mapping) -> str:
    canonical = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
