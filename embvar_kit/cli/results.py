"""``embvar show``, ``figures`` and ``report``: what statistics say."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embvar_kit.cli.arguments import add_choice_of_tokens, add_no_high_norm
from embvar_kit.errors import NoLineError, StatisticsError
from embvar_kit.wording import number_of

if TYPE_CHECKING:
    import pandas as pd

    from embvar_kit.statistics.token_statistics import TokenStatistics


_EVIDENCE = (
    "layer",
    "null_slope",
    "unbiased_sd_M",
    "null_sd_M",
    "reliability",
    "slope_iv",
    "survives",
)
"""The columns of the evidence for which a terminal has room; the slope stands above them."""

_UNBIASED = {name: f"unbiased_{name}" for name in ("sd_M", "sd_M_low", "sd_M_high")}
"""Columns of the evidence by other names: that is the spread of the unbiased M, and --wide prints
an ``sd_M`` with the regression above it, too."""

_SHORT = {"slope_low": "low", "slope_high": "high"}

# show


def add_show(commands: argparse._SubParsersAction) -> None:
    """Add the command ``show``."""
    show = commands.add_parser(
        "show",
        help="print what saved statistics say",
        description="Print the regression of V on M and the decomposition of Q, layer by layer; "
        "with --layer, the tokens of that layer; with --token, these tokens.",
    )
    show.set_defaults(run=_show)
    show.add_argument("folder", metavar="DIR", help="folder written by extract")
    show.add_argument("--layer", type=int, help="print the tokens of this layer")
    show.add_argument("--wide", action="store_true", help="print all columns of the tables")
    show.add_argument(
        "--rows", type=int, default=10, help="tokens to print with --layer (default: 10)"
    )
    show.add_argument(
        "--token",
        nargs="+",
        metavar="TOKEN",
        help="print these tokens at each layer, or at that of --layer, however often they occur; "
        "a byte-level token is found by its text, too",
    )
    add_choice_of_tokens(show)
    show.add_argument("--no-special", action="store_true", help="leave special tokens out")
    add_no_high_norm(show)


def _show(chosen: argparse.Namespace) -> None:
    from embvar_kit.statistics.token_statistics import TokenStatistics

    if chosen.rows < 1:
        raise StatisticsError(f"--rows must be at least 1, got {chosen.rows}.")
    if chosen.min_count < 1:
        raise StatisticsError(f"--min-count must be at least 1, got {chosen.min_count}.")
    statistics = TokenStatistics.load(chosen.folder)
    choice = {
        "min_count": chosen.min_count,
        "max_count": chosen.max_count,
        "special": not chosen.no_special,
        "unbiased": chosen.unbiased,
    }
    if chosen.token:
        _print_tokens(statistics, chosen.token, chosen.layer, chosen.unbiased)
        return
    if chosen.layer is None:
        print_layers(statistics, chosen.spelled, chosen.no_high_norm, chosen.wide, **choice)
        return
    if chosen.no_high_norm:
        statistics = statistics.without(statistics.high_norm()["token"])
    table = statistics.table(chosen.layer, **choice).head(chosen.rows)
    if table.empty:
        kept = statistics.n[~statistics.special] if chosen.no_special else statistics.n
        most = f"the most frequent occurs {kept.max():,} times" if len(kept) else "none is left"
        raise StatisticsError(
            f"No token occurs {chosen.min_count:,} to {chosen.max_count:,} times ({most}): lower "
            "--min-count, raise --max-count, or print tokens by name with --token."
        )
    print(statistics)
    _print_table(statistics, table)


def _print_tokens(
    statistics: TokenStatistics, wanted: Sequence[str], layer: int | None, unbiased: bool
) -> None:
    import numpy as np

    found = {text: statistics.find(text) for text in wanted}
    if absent := [text for text, tokens in found.items() if not tokens]:
        raise StatisticsError(
            f"No token of these statistics is named {', '.join(map(repr, absent))}, or says this. "
            "Names carry no marker: ing, not ##ing, unless vocabulary entries were measured "
            "(--by id)."
        )
    tokens = list(dict.fromkeys(token for each in found.values() for token in each))
    kept = statistics.take(np.flatnonzero(np.isin(statistics.tokens.astype(str), tokens)))
    least = int(kept.n.min())
    choice = {"min_count": least, "unbiased": unbiased}
    print(statistics)
    for at in [layer] if layer is not None else map(int, kept.layers):
        print(f"\nlayer {at}")
        _print_table(kept, kept.table(at, **choice))


def _print_table(statistics: TokenStatistics, table: pd.DataFrame) -> None:
    """Print a table of tokens; where their texts differ, a column beside them has these."""
    from embvar_kit.corpora.byte_level import visible

    text_of = dict(zip(statistics.tokens, statistics.texts, strict=True))
    texts = [text_of[token] for token in table["token"]]
    if texts != table["token"].tolist():
        pairs = zip(texts, table["token"], strict=True)
        shown = [visible(text) if text != token else "" for text, token in pairs]
        table.insert(1, "text", shown)
    print(table.to_string(index=False, float_format="{:.4f}".format))


def print_layers(
    statistics: TokenStatistics,
    spelled: Callable[[str], str],
    high_out: bool = False,
    wide: bool = False,
    **choice: Any,
) -> None:
    """Print the trade-off and the decomposition, layer by layer.

    Args:
        statistics: what to print of.
        spelled: writes the arguments in a message as options.
        high_out: leave out tokens of high norm.
        wide: print all columns.
        choice: which tokens count, as :meth:`TokenStatistics.tradeoff` takes it.
    """
    from embvar_kit.statistics.folds import LEAST

    high = statistics.high_norm(peak=True)["token"]
    if high_out:
        statistics = statistics.without(high)
    forms = "unbiased" if choice["unbiased"] else "as measured"
    note = ""
    try:
        fits = statistics.tradeoff(**choice, intervals=statistics.has_folds)
    except NoLineError as error:
        _print_without_line(statistics, spelled(str(error)), choice)
        return
    except StatisticsError as error:
        fits = statistics.tradeoff(**choice)
        note += f"\nNo intervals of the slope for this choice: {error}"
    title = f"\nV on M over tokens ({forms}, {_range(choice)})\n"
    parts = {title: fits if wide else fits[_narrow(fits)]}
    both = {"null": statistics.null is not None, "folds": statistics.has_folds}
    if all(both.values()):
        asked = {**choice, "min_count": max(LEAST, choice["min_count"])}
        try:
            shown = "95 % intervals and the null" if wide else "The null; --wide has the intervals"
            title = f"\nDoes the slope survive? {shown} ({_range(asked)})\n"
            found = statistics.evidence(**asked).rename(columns=_UNBIASED)
            parts[title] = found if wide else found[list(_EVIDENCE)]
        except StatisticsError as error:
            note += f"\nNo evidence for this choice: {error}"
    elif statistics.info.get("left_out"):
        lacking = " and no ".join(name for name, there in both.items() if not there)
        note += f"\nDoes the slope survive? Not said: with tokens left out, they have no {lacking}."
    elif any(both.values()):
        lacking = "are no folds" if both["null"] else "is no null"
        note += f"\nDoes the slope survive? Not said: there {lacking}. embvar extract takes "
        note += "--null --folds 20."
    try:
        title = "\nQ = M + V_W + V_B over all their embeddings\n"
        parts[title] = statistics.decomposition(**choice)
    except StatisticsError:
        if statistics.mean is not None:
            raise
        note += "\nNo decomposition for this choice: the statistics were saved without token means."
    print(statistics)
    if len(high):
        done = "left out" if high_out else "counted; embvar show --no-high-norm leaves them out"
        names = ", ".join(map(repr, high[:8])) + (", ..." if len(high) > 8 else "")
        tokens = number_of(len(high), "high-norm token")
        print(f"{tokens} (Q at least 10 times the layer's median), {done}: {names}")
    for title, table in parts.items():
        shown = table if wide else table.rename(columns=_SHORT)
        print(title + shown.to_string(index=False, float_format="{:.3f}".format))
    if note:
        print(spelled(note))


def _print_without_line(statistics: TokenStatistics, why: str, choice: Mapping[str, Any]) -> None:
    """Print what is known of tokens that are too few, or too alike, for a regression.

    What is left of a choice without tokens are the embeddings of all of them together.
    """
    import pandas as pd

    from embvar_kit.statistics import analysis

    kept = statistics.kept(choice["min_count"], choice["max_count"], choice["special"])
    allowed = statistics.n if choice["special"] else statistics.n[~statistics.special]
    print(statistics)
    most = "no others are there"
    if len(allowed):
        most = f"the most frequent occurs {number_of(int(allowed.max()), 'time')}"
    counts = f"{choice['min_count']:,} to {choice['max_count']:,}"
    of = "these" if choice["special"] else "these, special tokens left out,"
    print(f"{int(kept.sum()):,} of {of} occur {counts} times; {most}")
    fits = {}
    for layer in statistics.layers:
        tokens = statistics.table(layer, **choice)
        with suppress(NoLineError):
            fit = analysis.tradeoff(*(tokens[name].to_numpy() for name in "QMV"))
            fits[int(layer)] = {"layer": int(layer), **fit._asdict()}
    lacking = [str(layer) for layer in statistics.layers if int(layer) not in fits]
    where = f" at layer{'s' * (len(lacking) > 1)} {', '.join(lacking)}" if fits else ""
    print(f"\nNo slope, R² or evidence of a trade-off{where}. {why}")
    if fits:
        lines = pd.DataFrame(fits.values())
        print(f"\nV on M at the layers that have a line ({_range(choice)})")
        print(lines[_narrow(lines)].to_string(index=False, float_format="{:.3f}".format))
    everything = {"min_count": 1, "max_count": None, "special": True, "unbiased": False}
    for chosen, of in ((choice, "their embeddings"), (everything, "embeddings of all tokens")):
        try:
            parts = statistics.decomposition(**chosen)
        except StatisticsError as error:
            refused = error
            continue
        forms = "unbiased" if chosen["unbiased"] else "as measured"
        print(f"\nQ = M + V_W + V_B over all {of} ({forms})")
        print(parts.to_string(index=False, float_format="{:.3f}".format))
        return
    print(f"No decomposition either. {refused}")


def _range(choice: Mapping[str, Any]) -> str:
    return f"{choice['min_count']} <= n_t <= {choice['max_count']:,}"


def _narrow(fits: pd.DataFrame) -> list[str]:
    """The columns of a table of regressions that a terminal has room for."""
    names = ("layer", "n_tokens", "cv_Q", "slope", "slope_low", "slope_high", "intercept", "r2")
    return [name for name in names if name in fits]


# figures


def add_figures(commands: argparse._SubParsersAction) -> None:
    """Add the command ``figures``."""
    figures = commands.add_parser(
        "figures",
        help="draw every figure of saved statistics, with a page",
        description="Draw every figure as PNG and SVG, and a page, index.html, that shows them. "
        "Several models are drawn side by side.",
    )
    figures.set_defaults(run=_figures, kept=_kept_figures)
    figures.add_argument("folders", metavar="DIR", nargs="+", help="folders written by extract")
    figures.add_argument(
        "--out",
        metavar="OUT",
        help="folder to write to (default: figures/NAME beside the first DIR)",
    )
    add_choice_of_tokens(figures)
    add_no_high_norm(figures)
    figures.add_argument(
        "--no-embeddings",
        action="store_true",
        help="leave out Fig. 1, which runs the model again",
    )


def _place_of_figures(chosen: argparse.Namespace) -> Path:
    paths = [Path(folder).resolve() for folder in chosen.folders]
    beside = paths[0].parent / "figures" / "+".join(path.name for path in paths)
    return Path(chosen.out) if chosen.out else beside


def _kept_figures(chosen: argparse.Namespace) -> str:
    place = _place_of_figures(chosen)
    if not any(place.glob("*.png")):
        return "Nothing was drawn; the same command begins again."
    return (
        f"The figures drawn until then are in {str(place)!r}, without a new page; the same command "
        "draws all of them again."
    )


def _figures(chosen: argparse.Namespace) -> None:
    from embvar_kit.figures import atlas
    from embvar_kit.statistics.token_statistics import TokenStatistics

    statistics = [TokenStatistics.load(folder) for folder in chosen.folders]
    out = _place_of_figures(chosen)
    entries = atlas.write(
        statistics,
        out,
        min_count=chosen.min_count,
        max_count=chosen.max_count,
        unbiased=chosen.unbiased,
        without_high_norm=chosen.no_high_norm,
        embeddings=not chosen.no_embeddings,
    )
    drawn = sum(entry.reason is None for entry in entries)
    print(f"figures    {drawn} drawn, {len(entries) - drawn} not (the page says why)")
    print(f"page       {out / 'index.html'}")


# report


def add_report(commands: argparse._SubParsersAction) -> None:
    """Add the command ``report``."""
    report = commands.add_parser(
        "report",
        help="run the notebook on a model of your own, and save it as a page",
        description="Run notebook 9, A model of your own, for MODEL: where it normalizes, its "
        "trade-off, decomposition and high-norm tokens. Writes report.ipynb and report.html.",
    )
    report.set_defaults(run=_report, kept=_kept_report)
    report.add_argument("model", metavar="MODEL", help="alias, folder, .gguf file or Hub name")
    report.add_argument(
        "--corpus",
        default="wikipedia",
        help="wikipedia (default), hub:NAME or the path of a file",
    )
    report.add_argument(
        "--limit",
        type=int,
        help="number of sentences to take, the first of the corpus (default: 2000); a number "
        "larger than the corpus takes all",
    )
    report.add_argument(
        "--min-count",
        type=int,
        help="take tokens seen at least this often (default: 10); where 100 tokens or more are "
        "seen ten times, at least ten are asked for",
    )
    report.add_argument("--device", default="auto", help="auto (default), cpu, cuda or mps")
    report.add_argument(
        "--no-untrained",
        dest="untrained",
        action="store_false",
        help="do not compare with the same architecture before training, which takes up to the "
        "time of the pass again and a second copy of the weights",
    )
    report.add_argument(
        "--out", metavar="DIR", help="folder to write to (default: out/report-MODEL)"
    )


def _place_of_report(chosen: argparse.Namespace) -> str:
    return chosen.out or f"out/report-{Path(chosen.model).name}"


def _kept_report(chosen: argparse.Namespace) -> str:
    notebook = Path(_place_of_report(chosen)) / "report.ipynb"
    if not notebook.is_file():
        return "No cell ran; the same command begins again."
    return (
        f"The cells that ran until then are in {str(notebook)!r}, without a new page; the same "
        "command runs all of them again."
    )


def _report(chosen: argparse.Namespace) -> None:
    from embvar_kit.model_report import report

    values = {
        "corpus_name": chosen.corpus,
        "device": chosen.device,
        "limit": chosen.limit,
        "min_count": chosen.min_count,
        "untrained": chosen.untrained,
    }
    given = {name: value for name, value in values.items() if value is not None}
    for kind, path in report(chosen.model, _place_of_report(chosen), parameters=given).items():
        print(f"{kind:<9}  {path}")
