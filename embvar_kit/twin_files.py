"""What a training leaves on disk: a twin, whole or not there at all.

It is safetensors and JSON, which cannot carry code, and name no machine.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import transformers

from embvar_kit.errors import TrainingError
from embvar_kit.twin_text import END
from embvar_kit.twins import RECORD

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embvar_kit.twin_model import TwinForCausalLM


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
