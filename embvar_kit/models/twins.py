"""The twins: six small Transformers that differ in nothing but their normalization.

They were trained from scratch on the same batches of the Wikipedia excerpt, from the same initial
weights and with the same settings (see :mod:`embvar_kit.models.twin_training`). A checkout of the
repository contains them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit import files
from embvar_kit.errors import ModelError
from embvar_kit.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from embvar_kit.models.loading import EmbeddingModel

TWINS = {
    "post-ln": "LayerNorm after every sum: after the embeddings, each attention, each feed-forward",
    "post-ln-frozen": "as post-ln, with the gain of every LayerNorm kept at 1",
    "post-tanh": "as post-ln, with a bounded function of each feature in place of LayerNorm",
    "pre-ln": "LayerNorm before each attention and feed-forward, and one at the end",
    "pre-rmsnorm": "RMSNorm in the places of pre-ln",
    "no-norm": "no normalization at all",
}
"""Where each twin normalizes, by the name of the twin."""

RECORD = "losses.json"
"""The file in a twin's folder that records its training."""


def twins_home() -> Path:
    """The folder to train twins into: ``data/twins`` in a checkout, regardless of ``EMBVAR_HOME``.

    Without a checkout, it is ``twins`` in the folder of models and cached results.
    """
    return files.in_checkout("data", "twins") or files.home() / "twins"


def twins_folder(folder: str | Path | None = None) -> Path:
    """The folder to read twins from: the given one, by default :func:`twins_home`.

    If the default one is empty or not there, it is that of the twins that come with the kit. It is
    the same for all twins, since those of two trainings are not to be compared.
    """
    if folder is not None:
        return Path(folder)
    home = twins_home()
    return home if home.is_dir() and any(home.iterdir()) else files.shipped("twins")


def load_twin(name: str, *, folder: str | Path | None = None, **options: Any) -> EmbeddingModel:
    """Load one of the :data:`TWINS`, ready for :func:`embvar_kit.extract`.

    Args:
        name: name of the twin.
        folder: the folder that ``embvar twins --out`` saved them to; by default
            :func:`twins_home`, or what comes with the kit.
        options: ``device`` and ``dtype``, passed to :func:`embvar_kit.load_model`.

    Raises:
        ModelError: if no twin has that name, or the folder does not hold it.
    """
    path = _folder(name, folder)
    from embvar_kit.models.loading import load_model

    return load_model(path, **options)


def twin_losses(folder: str | Path | None = None) -> pd.DataFrame:
    """The losses of the twins in a folder over their training, recorded every few steps.

    Args:
        folder: the folder of the twins; by default :func:`twins_home`, or what comes with the kit.

    Returns:
        Columns ``twin``; ``step``, the number of steps taken; ``tokens``, the number seen by then;
        ``train``, the training loss in nats per token, averaged over the steps since the row
        before; ``held_out``, the loss on the held-out articles (NaN if it was not measured at this
        step); ``gradient_norm``, before clipping, averaged likewise. ``attrs["references"]`` has
        the losses of a uniform and of a unigram guess.

    Raises:
        ModelError: if the folder holds no twin.
    """
    import pandas as pd

    held = twins_folder(folder)
    present = [name for name in TWINS if (held / name / RECORD).is_file()]
    # If there is none, the first twin's error says so.
    records = {name: twin_record(name, folder) for name in present or TWINS}
    tables = [pd.DataFrame(record["curve"]) for record in records.values()]
    for name, table in zip(records, tables, strict=True):
        table.insert(0, "twin", name)
    whole = pd.concat(tables, ignore_index=True).astype({"held_out": float})
    whole.attrs["references"] = next(iter(records.values()))["references"]
    return whole


def twin_record(name: str, folder: str | Path | None = None) -> dict:
    """The record of a twin's training: ``settings``, ``versions``, ``references``, ``curve`` etc.

    Args:
        name: name of the twin.
        folder: the folder of the twins; by default :func:`twins_home`, or what comes with the kit.

    Raises:
        ModelError: if no twin has that name, or the folder does not hold it.
    """
    path = _folder(name, folder) / RECORD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{RECORD} of the twin {name!r} cannot be read: {error}.") from error


def _folder(name: str, folder: str | Path | None) -> Path:
    if name not in TWINS:
        near = did_you_mean(name, TWINS)
        raise ModelError(f"No twin is called {name!r}.{near} There are {', '.join(TWINS)}.")
    home = twins_folder(folder)
    if not (home / name / RECORD).is_file():
        raise ModelError(
            f"The twin {name!r} is not in {str(home)!r}. Those of the kit are in "
            f"{str(files.shipped('twins'))!r}: name it as folder=. To train it: embvar twins"
        )
    return home / name
