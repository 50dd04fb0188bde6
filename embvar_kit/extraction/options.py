"""The options of a pass, checked before the model runs."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from embvar_kit.corpora.corpus import Corpus
from embvar_kit.corpora.tokens import GROUPINGS, LONG
from embvar_kit.errors import EmbvarWarning, ExtractionError
from embvar_kit.extraction.leave_out import LeaveOut
from embvar_kit.models.loading import EmbeddingModel


def check_no_names(model: EmbeddingModel, corpus: Corpus) -> None:
    """Check that model and corpus are loaded.

    Raises:
        ExtractionError: if one of them is a name.
    """
    if isinstance(model, str) or isinstance(corpus, str):
        raise ExtractionError(
            "A pass takes a model and a corpus, not their names: load_model('minilm') and "
            "load_corpus('wikipedia') give some."
        )


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """An argument as a whole number, of whichever kind it is: NumPy has kinds of its own.

    Raises:
        ExtractionError: if it is none, or less than ``least``.

    >>> import numpy as np
    >>> whole_number("folds", np.int64(20), 2)
    20
    """
    number = None
    with suppress(TypeError):
        number = operator.index(value)
    if number is None or isinstance(value, bool) or number < least:
        raise ExtractionError(f"{name} must be a whole number from {least}, got {value!r}.")
    return number


def check_options(
    by: str, batch_tokens: int | None, long: str, min_count: int
) -> tuple[int | None, int]:
    """Check options of a pass that can be judged without model and text.

    Returns:
        ``batch_tokens`` and ``min_count`` as Python's whole numbers.

    Raises:
        ExtractionError: naming the one that makes no sense.
    """
    if batch_tokens is not None:
        batch_tokens = whole_number("batch_tokens", batch_tokens)
    min_count = whole_number("min_count", min_count)
    if by not in GROUPINGS:
        raise ExtractionError(f"by={by!r} is unknown; choose {' or '.join(map(repr, GROUPINGS))}.")
    if long not in LONG:
        raise ExtractionError(f"long={long!r} is unknown; choose 'split', 'cut' or 'error'.")
    return batch_tokens, min_count


def check_leave_out(
    leave_out: LeaveOut | None, layers: Iterable[int], *, null: bool = False
) -> None:
    """Check that a pass over these hidden states can leave out what is asked for.

    With a null it warns of norms: whoever asks for a null wants to compare with it, and learns only
    after the pass that nothing can be.

    Raises:
        ExtractionError: if it is no :class:`LeaveOut`, its bounds are not found yet, or they name
            other hidden states.
    """
    if leave_out is None:
        return
    if not isinstance(leave_out, LeaveOut):
        raise ExtractionError(
            f"leave_out={leave_out!r} is not of the kind embvar_kit.LeaveOut(first=1, norm=10)."
        )
    if leave_out.norm is not None:
        raise ExtractionError(
            f"A factor to a typical norm, as in {leave_out!r}, needs a look at the model's norms: "
            "leave_out = find_bounds(model, corpus, leave_out) has the bounds that it stands for."
        )
    if beyond := sorted(set(leave_out.bounds or ()) - set(layers)):
        raise ExtractionError(
            f"LeaveOut(bounds=...) names hidden states that the pass does not take: "
            f"{', '.join(map(str, beyond))}. Leave them out of it, or take them (layers=...)."
        )
    if null and leave_out.bounds:
        warnings.warn(
            "The labels of the null are permuted before norms are known, so where norms leave "
            "occurrences out, evidence() does not compare with it: evidence(null=False) gives the "
            "rest. What positions leave out (LeaveOut(first=...)) keeps the null comparable.",
            EmbvarWarning,
            stacklevel=3,
        )


def chosen_layers(model: EmbeddingModel, layers: Iterable[int] | None) -> tuple[int, ...]:
    """The hidden states that ``layers`` names, ascending; all of them for ``None``.

    Raises:
        ExtractionError: if it is no list of whole numbers, is empty, or names a state that is not
            there.
    """
    if layers is None:
        return tuple(range(model.n_states))
    try:
        indices = [operator.index(layer) for layer in layers]
    except TypeError as error:
        raise ExtractionError(
            f"layers={layers!r} is not a list of whole numbers such as [0, 6, -1]."
        ) from error
    chosen = []
    for layer in indices:
        if not -model.n_states <= layer < model.n_states:
            raise ExtractionError(
                f"{model.name!r} has hidden states 0 to {model.n_states - 1}; there is no {layer}."
            )
        chosen.append(layer % model.n_states)
    if not chosen:
        raise ExtractionError("layers is empty: name at least one hidden state.")
    return tuple(sorted(set(chosen)))
