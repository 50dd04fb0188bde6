"""The kit's errors: each message says what was wrong and what to do about it."""

from __future__ import annotations

from typing import Any


class EmbvarError(Exception):
    """Base class of all errors that the kit raises on purpose."""


class CorpusError(EmbvarError):
    """A corpus is unknown, unreadable or empty, or an argument for it makes no sense."""


class EmptyCorpusError(CorpusError):
    """A corpus has no sentence, or none is left of it.

    Attributes:
        without_text: number of rows that were read and left out, because no text is in them.
    """

    def __init__(self, message: str, without_text: int = 0) -> None:
        super().__init__(message)
        self.without_text = without_text


class ModelError(EmbvarError):
    """A model or its tokenizer cannot be found, verified, loaded or run."""


class MomentsError(EmbvarError, ValueError):
    """Embeddings or groups do not fit the moments, or a value is not finite."""


class ExtractionError(EmbvarError):
    """A pass over a corpus cannot work as it was set up, or had to stop."""


class NothingLeftError(ExtractionError):
    """A text has no token, no word, or none that is frequent enough."""


class StatisticsError(EmbvarError):
    """Statistics do not fit together, or cannot answer a request."""


class NoLineError(StatisticsError):
    """No line can be fitted: there are too few tokens, or all have the same M."""


class StatisticsFileError(StatisticsError):
    """A saved result is missing, truncated, altered or of a newer format, or cannot be written."""


class ReportError(EmbvarError):
    """The report on a model cannot be run or written."""


class ReleaseError(EmbvarError):
    """A file of the authors' release is missing, damaged, unsafe to read or cannot be written."""


class CheckpointError(EmbvarError):
    """A checkpoint is damaged, in use, not writable, or was made with other settings."""


class DamagedFileError(CheckpointError):
    """A file that the kit wrote is missing, or its contents do not match its checksums."""


class TrainingError(EmbvarError):
    """Models cannot be trained as requested, or an earlier training's files do not fit."""


class ExtractionInterrupted(KeyboardInterrupt):
    """The user stopped a pass.

    Attributes:
        how_far: a sentence that says what the pass had done.
        partial: what the pass would have returned, over the batches that it had run, marked as
            partial; ``None`` if it had run no batch.
    """

    def __init__(self, how_far: str, partial: Any) -> None:
        remedy = " embvar_kit.partial_result() returns what was measured until then."
        super().__init__(how_far + (remedy if partial is not None else ""))
        self.how_far, self.partial = how_far, partial


class EmbvarWarning(UserWarning):
    """Something went wrong, but the run continues; the message says what it continues without."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; with the second, if the first ends in a colon.

    An error without a message gives the name of its class.

    >>> first_line(OSError("Cannot read:\\n  disk full\\nmore"))
    'Cannot read: disk full'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(error).__name__


def as_sentence(error: BaseException) -> str:
    """The :func:`first_line` of an error, ending in one full stop.

    >>> as_sentence(OSError("disk full"))
    'disk full.'
    """
    return f"{first_line(error).rstrip('.')}."
