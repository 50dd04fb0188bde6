"""What a plan says of a pass when it is printed: a row for each thing that a reader decides by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from embvar_kit.corpora.tokens import SUFFIXES, TokenizedCorpus
from embvar_kit.wording import number_of

if TYPE_CHECKING:
    from embvar_kit.extraction.plan import Plan

_MOST_NAMED = 5  # control tokens that a plan names

_PLACES = {
    "memory": "",
    "file": ", in a file on the disk: they need more than the free memory",
    "device": ", on the device",
}


def described(work: Plan) -> str:
    """The rows of a plan, one a line, each with its name in front."""
    rows = [*_of_pass(work), *(("left out", what) for what in _left_out(work))]
    if suffixes := [marker for marker in work.markers if marker in SUFFIXES]:
        rows.append(("markers", f"{' and '.join(suffixes)} taken off the ends of tokens"))
    rows += [("note", note) for note in _of_text(work.text)]
    if work.null:
        rows.append(("null", "measured in the same pass, with the occurrences' labels permuted"))
    if work.in_folds:
        rows.append(("folds", str(work.in_folds)))
    rows += [("note", note) for note in work.notes]
    return "\n".join(f"{name:<9}  {what}" for name, what in rows)


def _of_pass(work: Plan) -> Iterator[tuple[str, str]]:
    """What is run, and the memory that it takes."""
    n_sentences = len(np.unique(work.text.sentence))
    yield "pass", f"{work.model} over {work.corpus}, by {work.by}"
    yield "sentences", f"{n_sentences:,}, {number_of(len(work.text.lengths), 'sequence')}"
    name, number = ("tokens", work.n_tokens) if work.word is None else ("words", len(work.group))
    kept = "" if work.min_count == 1 else " kept"
    yield name, f"{number:,}, {len(work.labels):,} different{kept}"
    yield "layers", f"{', '.join(map(str, work.layers))}, each {work.width} wide"
    yield "batches", f"{len(work.batches):,} of at most {number_of(max(work.slots), 'token')}"
    yield "padding", _padding(work)
    yield "memory", f"{work.memory / 1e6:,.0f} MB for the means{_place(work)}"
    if taken := work.covariance_memory:
        yield "memory", f"{taken / 1e6:,.0f} MB for the covariances"
    if work.around:
        yield "around", work.around


def _place(work: Plan) -> str:
    """Where the means lie, if it is not the memory."""
    if work.in_folds and work.means_in == "file":
        return ": more than the free memory, so that each fold is a shard (not with checkpoint=)"
    return _PLACES[work.means_in]


def _padding(work: Plan) -> str:
    if work.alone:
        return "none: each sentence is run alone, as others would change its states"
    if work.equal_lengths:
        return "none: padding would change this model's states"
    return f"{work.padding:.2%}"


def _left_out(work: Plan) -> Iterator[str]:
    """What of the text is not measured."""
    if count := work.without_text:
        yield f"{number_of(count, 'row')} of the table without text"
    if count := work.n_spanned:
        what = "word that shares a token" if count == 1 else "words that share tokens"
        yield f"{count:,} {what} with another"
    if work.leave_out:
        front = f" ({number_of(work.n_at_first, 'occurrence')} in front)"
        yield f"{work.leave_out}{front if work.leave_out.first else ''}"
    if work.min_count > 1:
        left = int((work.group < 0).sum()) - work.n_at_first
        yield f"those seen fewer than {work.min_count} times, {number_of(left, 'occurrence')}"


def _of_text(text: TokenizedCorpus) -> Iterator[str]:
    """What the tokenizer made of some sentences, which a reader may not expect."""
    if count := text.n_spelled_out:
        names = list(text.spelled_out)
        named = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        read, other = "text", "control tokens"
        if text.parse_special:
            read, other = other, read
        yield (
            f"{number_of(count, 'control token')} spelled out in the text ({named}), read as "
            f"{read}; parse_special={not text.parse_special} reads them as {other}"
        )
    for count, what in (
        (text.n_split, "split: longer than the model takes"),
        (text.n_cut, "cut: longer than the model takes"),
        (text.n_empty, "left out: the tokenizer leaves nothing of them"),
    ):
        if count:
            yield f"{number_of(count, 'sentence')} {what}"
