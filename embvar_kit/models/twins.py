"""The twins: four small Transformers that differ in nothing but their normalization.

They were trained from scratch on the same batches of the Wikipedia excerpt, from the same initial
weights and with the same settings (see :mod:`embvar_kit.models.twin_training`), and come with a
checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit import files
from embvar_kit.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd

    from embvar_kit.models.loading import EmbeddingModel

TWINS = {
    "post-ln": "LayerNorm after every sum: after the embeddings, each attention, each feed-forward",
    "pre-ln": "LayerNorm before each attention and feed-forward, and one at the end",
    "pre-rmsnorm": "RMSNorm in the places of pre-ln",
    "no-norm": "no normalization at all",
}
"""The twins by name, with where each normalizes."""

RECORD = "losses.json"
"""File in a twin's folder that tells how it was trained."""


def twins_home() -> Path:
    """The twins' folder: ``data/twins`` of a checkout, wherever ``EMBVAR_HOME`` lies.

    Where the kit is installed without one, ``twins`` in the folder of models and cached results.
    """
    return files.in_checkout("data", "twins") or files.home() / "twins"


def load_twin(name: str, *, folder: str | Path | None = None, **options: Any) -> EmbeddingModel:
    """Load one of the :data:`TWINS`, ready for :func:`embvar_kit.extract`.

    Args:
        name: of the twin.
        folder: where ``embvar twins --out`` saved them; by default :func:`twins_home`.
        options: ``device`` and ``dtype``, as :func:`embvar_kit.load_model` takes them.

    Raises:
        ModelError: if there is no such twin, or it is not there.
    """
    at = _folder(name, folder)
    from embvar_kit.models.loading import load_model

    return load_model(at, **options)


def twin_losses(folder: str | Path | None = None) -> pd.DataFrame:
    """How the twins' losses fell: a row for every few steps of every twin that is there.

    Returns:
        Columns ``twin``, ``step`` (that many were done), ``tokens`` (seen by then), ``train``
        (loss in nats a token, the mean over the steps since the row before), ``held_out`` (loss on
        the articles held out; NaN where it was not asked) and ``gradient_norm`` (before clipping,
        the same mean). ``attrs["references"]`` has the losses of a uniform and of a unigram guess.

    Raises:
        ModelError: if no twin is there.
    """
    import pandas as pd

    at = twins_home() if folder is None else Path(folder)
    here = [name for name in TWINS if (at / name / RECORD).is_file()]
    records = {name: twin_record(name, at) for name in here or TWINS}
    tables = [pd.DataFrame(record["curve"]) for record in records.values()]
    for name, table in zip(records, tables, strict=True):
        table.insert(0, "twin", name)
    whole = pd.concat(tables, ignore_index=True).astype({"held_out": float})
    whole.attrs["references"] = next(iter(records.values()))["references"]
    return whole


def twin_record(name: str, folder: str | Path | None = None) -> dict:
    """How a twin was trained: its ``settings``, ``versions``, ``references``, ``curve`` and so on.

    Raises:
        ModelError: if there is no such twin, or it is not there.
    """
    path = _folder(name, folder) / RECORD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{RECORD} of the twin {name!r} cannot be read: {error}.") from error


def _folder(name: str, folder: str | Path | None) -> Path:
    if name not in TWINS:
        raise ModelError(f"No twin is called {name!r}; there are {', '.join(TWINS)}.")
    at = twins_home() if folder is None else Path(folder)
    if not (at / name / RECORD).is_file():
        raise ModelError(f"The twin {name!r} is not in {str(at)!r}. To train it: embvar twins")
    return at / name
