"""What a training leaves on disk: checkpoints and results, each whole or not there at all.

Both are safetensors and JSON, which cannot carry code, and name no machine.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from embvar_kit.errors import TrainingError
from embvar_kit.twin_text import END
from embvar_kit.twins import RECORD

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embvar_kit.twin_model import TwinForCausalLM


def write_checkpoint(path: Path, tensors: dict[str, torch.Tensor], told: dict[str, Any]) -> None:
    """Write tensors and what JSON can say to one file; the one before stays until it is whole.

    Raises:
        TrainingError: if it cannot be written.
    """
    beside = path.with_suffix(".part")
    with _writing(path.parent):
        save_file(tensors, beside, metadata={key: json.dumps(told[key]) for key in told})
        os.replace(beside, path)


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What :func:`write_checkpoint` wrote.

    Raises:
        TrainingError: if the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            told = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, told  # noqa: SIM118
    except Exception as error:  # safetensors has an error of its own
        raise TrainingError(
            f"The checkpoint {str(path)!r} cannot be read ({error}). Remove it to begin again."
        ) from error


def write_twin(folder: Path, model: TwinForCausalLM, tokenizer: Tokenizer, record: dict) -> None:
    """Write a trained twin: configuration, weights in half precision, tokenizer and record.

    Raises:
        TrainingError: if it cannot be written.
    """
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    length = model.config.max_position_embeddings
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=length, **special
    )
    half = copy.deepcopy(model).half()
    with (
        _writing(folder.parent),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch,
    ):
        made = Path(scratch) / folder.name
        with _no_bars():
            half.save_pretrained(made)
            whole.save_pretrained(made)
        (made / RECORD).write_text(_lines(record), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # without a record it was no twin
        os.replace(made, folder)


def compare(asked: Mapping[str, Any], found: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse, by name, what other settings led to.

    >>> compare({"seed": 0, "steps": 9}, {"seed": 0, "steps": 8}, "A twin", "Remove it.")
    Traceback (most recent call last):
    embvar_kit.errors.TrainingError: A twin was made with steps=8; asked for is steps=9. Remove it.
    """
    changed = [key for key in asked | found if asked.get(key) != found.get(key)]
    if changed:
        before, now = (
            ", ".join(f"{key}={given.get(key)!r}" for key in changed) for given in (found, asked)
        )
        raise TrainingError(f"{what} was made with {before}; asked for is {now}. {remedy}")


def _lines(record: dict) -> str:
    """JSON, with a row of the curve to a line."""
    rows = ",\n  ".join(json.dumps(row) for row in record["curve"])
    told = json.dumps({**record, "curve": "rows"}, indent=1)
    return told.replace('"curve": "rows"', f'"curve": [\n  {rows}\n ]') + "\n"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise TrainingError(
            f"Cannot write to {str(folder)!r}: {error.strerror or error}."
        ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
