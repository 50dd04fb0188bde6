"""Errors that the kit raises: each message names what was wrong and what to do about it."""


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


class TrainingError(EmbvarError):
    """Models cannot be trained as asked, or what an earlier training left does not fit."""
