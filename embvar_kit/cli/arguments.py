"""Arguments that several commands have, and what they stand for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from embvar_kit.errors import StatisticsFileError
from embvar_kit.files import make_writable, unmake
from embvar_kit.wording import did_you_mean

if TYPE_CHECKING:
    from embvar_kit.extraction.leave_out import LeaveOut

# Repeated from the library, because importing it takes seconds, for which a typo need not wait.
# Tests compare them.
GROUPINGS = ("token", "id", "word")
SITES = ("hidden", "norm_input", "standardized", "norm_output", "unit")
LEVELS = ("token", "word")
LONG = ("split", "cut", "error")
PHASES = ("counts", "shards")
TWINS = ("post-ln", "post-ln-frozen", "post-tanh", "pre-ln", "pre-rmsnorm", "no-norm")


def add_model_and_corpus(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The model and the corpus of a pass; returns the model's group, to which a command may add."""
    model = command.add_argument_group("model")
    model.add_argument(
        "--model",
        default="minilm",
        help="alias, folder, .gguf file or Hub name (default: minilm)",
    )
    model.add_argument("--revision", help="revision of a model on the Hub")
    model.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    model.add_argument(
        "--dtype", default="float32", help="number format of the weights (default: float32)"
    )

    corpus = command.add_argument_group("corpus")
    corpus.add_argument(
        "--corpus",
        default="wikipedia",
        help="wikipedia (default), bookcorpus[:PATH], hub:NAME, the path of a file or a pattern of "
        "many ('DIR/*.parquet'); embvar corpora lists the kinds",
    )
    corpus.add_argument("--limit", type=int, help="take only the first LIMIT sentences")
    corpus.add_argument("--max-words", type=int, help="leave out sentences with more words")
    corpus.add_argument(
        "--sample", type=share, help="draw a share (0.01) or a number of the sentences"
    )
    corpus.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    corpus.add_argument(
        "--split-sentences",
        action="store_true",
        help="split prose into sentences; otherwise each line is one",
    )
    corpus.add_argument("--language", default="en", help="language of the prose (default: en)")
    corpus.add_argument(
        "--text-column",
        default="text",
        help="column of a table or dataset that holds the text (default: text)",
    )
    corpus.add_argument("--split", default="train", help="split of a Hub dataset (default: train)")
    corpus.add_argument("--config", help="configuration of a Hub dataset that has several")
    corpus.add_argument("--streaming", action="store_true", help="read a Hub dataset in chunks")
    return model


def add_device_map(command: argparse._ActionsContainer) -> None:
    """Several devices for one model."""
    command.add_argument(
        "--device-map",
        type=device_map,
        metavar="MAP",
        help="spread the model over several devices, in place of --device: auto, or the device of "
        'each module as JSON, such as \'{"embeddings": 0, "encoder": 1}\'',
    )


def add_pass(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What a pass measures; returns the group, to which a command may add."""
    run = command.add_argument_group("pass")
    run.add_argument(
        "--by",
        choices=GROUPINGS,
        default="token",
        help="what is one token (default: token)",
    )
    run.add_argument(
        "--site",
        nargs="+",
        metavar="SITE",
        choices=SITES,
        default=["hidden"],
        help="where embeddings are taken: hidden (the hidden states; default), norm_input, "
        "standardized, norm_output (before, in and after the normalization at each), unit (scaled "
        "to norm 1). Several are measured in one pass and saved to folders of these names in DIR",
    )
    run.add_argument(
        "--layers", type=integers, metavar="0,3,-1", help="hidden states to take (default: all)"
    )
    run.add_argument("--batch-tokens", type=int, help="tokens in a batch (default: by device)")
    run.add_argument(
        "--long",
        choices=LONG,
        default="split",
        help="what to do with sentences too long for the model (default: split)",
    )
    run.add_argument(
        "--parse-special",
        action="store_true",
        help="read control tokens that the text spells out, such as [SEP], as control tokens; "
        "otherwise they are text",
    )
    run.add_argument(
        "--covariance",
        action="store_true",
        help="take the covariance of all embeddings at each layer, too, for measures of isotropy",
    )
    run.add_argument(
        "--min-count",
        type=int,
        default=1,
        help="measure only tokens that occur at least this often (default: 1)",
    )
    run.add_argument(
        "--leave-out-first",
        type=int,
        default=0,
        metavar="K",
        help="leave out the occurrences at the first K positions of each sequence, of which a "
        "begin token is one",
    )
    run.add_argument(
        "--leave-out-norm",
        type=float,
        metavar="FACTOR",
        help="leave out occurrences whose squared norm is at least FACTOR times the median at some "
        "hidden state; a first look at a sample of the corpus finds the median",
    )
    run.add_argument(
        "--null",
        action="store_true",
        help="measure the same occurrences with their labels permuted, too: with folds "
        "(extract --folds, shard merge --folds), embvar show then says which slopes survive",
    )
    return run


def add_folds(command: argparse._ActionsContainer) -> None:
    """Folds of the documents."""
    command.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="deal the documents out to K folds (20 are usual), for intervals",
    )


def add_compact(command: argparse._ActionsContainer) -> None:
    """Whether token means are saved."""
    command.add_argument(
        "--compact",
        action="store_true",
        help="save tables and decompositions without the token means (a hundredth of the size), "
        "with and without high-norm tokens and strings that several vocabulary entries share",
    )


def add_threads(command: argparse._ActionsContainer, default: str) -> None:
    """Threads of a shard."""
    command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"threads that measure a shard on a CPU (default: {default})",
    )


def add_store(command: argparse.ArgumentParser) -> None:
    """The store of a pass in shards."""
    command.add_argument(
        "store", metavar="STORE", help="folder, or path such as s3://BUCKET/FOLDER"
    )


def add_choice_of_tokens(command: argparse.ArgumentParser) -> None:
    """Which tokens count."""
    command.add_argument(
        "--min-count",
        type=int,
        default=10,
        help="take tokens seen at least this often (default: 10)",
    )
    command.add_argument(
        "--max-count",
        type=int,
        default=100_000,
        help="take tokens seen at most this often (default: 100000)",
    )
    command.add_argument(
        "--unbiased", action="store_true", help="correct M, V and V_B for the finite sample"
    )


def add_no_high_norm(command: argparse.ArgumentParser) -> None:
    """The option, by its name and by those of older kits."""
    command.add_argument(
        "--no-high-norm",
        "--no-sinks",
        "--without-sinks",
        action="store_true",
        help="leave out high-norm tokens: those with Q at least ten times the median at some "
        "layer (the other names are older)",
    )


# Parsing


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, and what may have been meant.

    argparse prints all options first, from which the line that matters has to be picked out.
    """

    def of(self, chosen: argparse.Namespace) -> Parser:
        """The parser of the command that was chosen, or of its step."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                named = action.choices.get(getattr(chosen, action.dest))
                return named.of(chosen) if named else self
        return self

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:
        """What was chosen; an unknown option is told with the nearest that there is."""
        chosen, unknown = self.parse_known_args(args, namespace)
        if unknown:
            own = self.of(chosen)
            # Older names are not recommended, and help is not what a misspelt option asks for.
            known = [
                next((one for one in action.option_strings if one.startswith("--")), "")
                for action in own._actions
                if action.dest != "help"
            ]
            hint = ""
            if "--" not in (sys.argv[1:] if args is None else args):
                hint = did_you_mean(unknown[0].partition("=")[0], known, alike=0.8)
            own.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
        return chosen

    def error(self, message: str) -> NoReturn:
        """End with wrong usage."""
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: {message}{end} {self.prog} --help says more.\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            there = list(map(str, action.choices))
            hint = f"{value!r} (choose from {', '.join(there)}).{did_you_mean(str(value), there)}"
            raise argparse.ArgumentError(action, f"invalid choice: {hint}")


# Types of arguments


def integers(text: str) -> list[int]:
    """A list of whole numbers; a type of argument."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers such as 0,3,-1"
        ) from error


def share(text: str) -> float | int:
    """A share, or a number of sentences; a type of argument."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


def device_map(text: str) -> str | dict[str, str | int]:
    """A word, or a JSON object of modules and devices; a type of argument."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object: {error}") from error


# What was chosen


def corpus_of(chosen: argparse.Namespace) -> Any:
    """The corpus that was chosen."""
    from embvar_kit.corpora.load import load_corpus

    return load_corpus(
        chosen.corpus,
        limit=chosen.limit,
        max_words=chosen.max_words,
        sample=chosen.sample,
        seed=chosen.seed,
        split_sentences=chosen.split_sentences,
        language=chosen.language,
        text_column=chosen.text_column,
        split=chosen.split,
        config=chosen.config,
        streaming=chosen.streaming,
    )


def model_of(chosen: argparse.Namespace) -> Any:
    """The model that was chosen."""
    from embvar_kit.models.loading import load_model

    return load_model(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        revision=chosen.revision,
        device_map=getattr(chosen, "device_map", None),  # not every command has it
    )


def options_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """The options of a pass, but for the sites."""
    names = ("by", "layers", "batch_tokens", "long", "min_count", "parse_special", "null")
    names += ("covariance", "threads")
    return {name: getattr(chosen, name) for name in names}


def left_out_of(chosen: argparse.Namespace) -> LeaveOut | None:
    """The occurrences to leave out, if there are any."""
    from embvar_kit.extraction.leave_out import LeaveOut

    if not chosen.leave_out_first and chosen.leave_out_norm is None:
        return None
    return LeaveOut(first=chosen.leave_out_first, norm=chosen.leave_out_norm)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Raise an error before a pass of minutes if its result cannot be saved.

    If the pass is refused, no empty folder is left behind. What the folder holds is named: it stays
    until the new result is saved.
    """
    try:
        made = make_writable(folder)
    except OSError as error:
        raise StatisticsFileError(
            f"Statistics cannot be saved to {str(folder)!r}: {error.strerror}."
        ) from error
    if not made and any(folder.iterdir()):
        print(f"replaces   what {folder} has of an earlier pass, once this one is done")
    try:
        yield
    except BaseException:
        unmake(made)
        raise
