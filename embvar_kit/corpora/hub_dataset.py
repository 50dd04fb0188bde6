"""A column of text of a dataset on the Hugging Face Hub, or of a folder laid out as one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np

from embvar_kit import hub
from embvar_kit.corpora.tables import Row, Table, no_column, not_text
from embvar_kit.errors import CorpusError, as_sentence

WITHOUT_NETWORK = "Without a network use 'wikipedia' or a local file of text."
"""Advice for messages when the Hub is out of reach."""


def hub_table(
    name: str,
    column: str,
    split: str,
    config: str | None,
    revision: str | None,
    streaming: bool,
) -> Table:
    """One column of a Hub dataset, or of a folder laid out as one.

    Raises:
        CorpusError: if the dataset cannot be loaded, or has no such column of text. Reading the
            rows raises it, too.
    """
    from datasets import load_dataset

    folder = os.path.expanduser(name)
    local = bool(name) and os.path.isdir(folder)
    kept_from = None if local else why_not_from_hub(name, revision)
    try:
        with _offline(kept_from is not None):
            dataset = load_dataset(
                folder if local else name,
                config,
                split=split,
                revision=revision,
                streaming=streaming,
            )
    except Exception as error:  # the library raises many kinds; the user needs one message
        raise CorpusError(
            f"The Hub dataset {name!r} (split {split!r}) could not be loaded: {as_sentence(error)} "
            f"{kept_from or WITHOUT_NETWORK}"
        ) from error
    columns = dataset.column_names or []
    if columns and column not in columns:
        raise no_column(f"Dataset {name!r}", column, columns)
    kind = getattr((dataset.features or {}).get(column), "dtype", None)
    if kind not in (None, "string", "large_string"):
        raise not_text(f"dataset {name!r}", column, kind)
    if columns:
        dataset = dataset.select_columns([column])

    def read(kept: np.ndarray | None) -> Iterator[Row]:
        chosen = dataset if kept is None else dataset.select(kept)
        numbers = count(1) if kept is None else iter((kept + 1).tolist())
        number = 0
        try:
            for row in chosen:
                number = next(numbers)
                text = row.get(column)
                if text is not None and not isinstance(
                    text, str
                ):  # the features of a stream may be unknown
                    raise not_text(f"row {number:,} of dataset {name!r}", column, repr(text))
                yield name, number, text
        except CorpusError:
            raise
        except Exception as error:
            raise CorpusError(
                f"Dataset {name!r} cannot be read beyond row {number:,}: {as_sentence(error)}"
            ) from error

    return Table(None if streaming else lambda: len(dataset), read)


def why_not_from_hub(name: str, revision: str | None) -> str | None:
    """What to do where a dataset cannot be had from the Hub now; ``None`` if it can.

    The library's cache may hold it all the same.

    Raises:
        CorpusError: if the Hub answers that it has no such dataset.
    """
    answer, error = hub.ask("dataset", name, revision)
    if answer in (hub.Answer.ABSENT, hub.Answer.IMPOSSIBLE):
        at = f" at revision {revision!r}" if revision else ""
        raise CorpusError(
            f"The Hub has no dataset {name!r}{at} that you can read. {WITHOUT_NETWORK}"
        ) from error
    if answer is hub.Answer.GATED:
        return hub.how_to_be_let_in("dataset", name)
    return None if answer is hub.Answer.PRESENT else WITHOUT_NETWORK


@contextmanager
def _offline(yes: bool) -> Iterator[None]:
    """If ``yes``, have ``datasets`` use only its cache, rather than retry for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or yes
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
