"""Errors that the kit raises: each message names what was wrong and what to do about it."""

from __future__ import annotations

from typing import Any


class EmbvarError(Exception):
    """Base class of every error that a user can meet; catch it to catch them all."""


class CorpusError(EmbvarError):
    """A corpus is unknown, unreadable, empty or asked for in a way that makes no sense."""


class ModelError(EmbvarError):
    """A model or its tokenizer cannot be found, verified, loaded or run."""


class MomentsError(EmbvarError, ValueError):
    """Moments were given embeddings or groups that do not fit, or that are not finite."""


class ExtractionError(EmbvarError):
    """A pass over a corpus was set up in a way that cannot work, or had to stop."""


class StatisticsError(EmbvarError):
    """Statistics that do not fit together, or a request that they cannot answer."""


class StatisticsFileError(StatisticsError):
    """A saved result is missing, truncated, altered or of a newer format."""


class ReportError(EmbvarError):
    """The report on a model cannot be run or written."""


class ReleaseError(EmbvarError):
    """A file of the authors' release is missing, damaged, unsafe to read or cannot be written."""


class CheckpointError(EmbvarError):
    """What an earlier run left is damaged, in use, made with other settings, or not writable."""


class TrainingError(EmbvarError):
    """Models cannot be trained as asked, or what an earlier training left does not fit."""


class ExtractionInterrupted(KeyboardInterrupt):
    """A pass was stopped by hand.

    Attributes:
        how_far: what it had done, as a sentence.
        partial: the statistics of the batches that were run, marked as partial: what the pass
            would have returned. ``None`` if there was no batch yet.
    """

    def __init__(self, how_far: str, partial: Any) -> None:
        remedy = " embvar_kit.partial_result() returns what was measured till then."
        super().__init__(how_far + (remedy if partial is not None else ""))
        self.how_far, self.partial = how_far, partial


class EmbvarWarning(UserWarning):
    """Something went wrong that a run could go on without; the message says what."""


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first, and the next where the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__


def as_sentence(error: BaseException) -> str:
    """The first line of an error, ending in a full stop."""
    return f"{first_line(error).rstrip('.')}."
