"""An atlas: every figure of given statistics, as PNG and SVG, with a page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from embvar_kit import drawing
from embvar_kit.atlas_page import Entry, page
from embvar_kit.atlas_plates import Plate, plates
from embvar_kit.errors import EmbvarError, StatisticsFileError
from embvar_kit.statistics import TokenStatistics


def write(
    statistics: drawing.Statistics,
    out: str | Path,
    *,
    min_count: int = 10,
    max_count: int | None = 100_000,
    unbiased: bool = False,
    without_sinks: bool = False,
    embeddings: bool = True,
) -> list[Entry]:
    """Draw every figure that the statistics allow into a folder with an ``index.html``.

    Several models stand side by side, or each in figures of its own where one draws one model.
    Statistics by word are used for Fig. 22, those of site ``"unit"`` for the anisotropy, unless
    there are no others.

    Args:
        statistics: one model's statistics, or those of several.
        out: the folder; files of the same names are replaced.
        min_count, max_count: draw the tokens with ``min_count <= n_t <= max_count``.
        unbiased: draw finite-sample corrected forms where a figure has them.
        without_sinks: leave out the tokens that :meth:`TokenStatistics.sinks` finds.
        embeddings: also draw embeddings themselves (Fig. 1), which runs the model again on the
            sentences of a few tokens, where model and corpus are at hand.

    Returns:
        The figures, drawn or not, in the order of the page.

    Raises:
        StatisticsError: if no statistics are given.
        StatisticsFileError: if the folder cannot be written.
    """
    given = drawing.several(statistics)
    if without_sinks:
        # Unit vectors have no sinks of their own: those of the same pass' hidden states count.
        found = {
            _pass_of(one): one.sinks()["token"]
            for one in sorted(given, key=lambda one: _site(one) == "hidden")
        }
        given = [one.without(found[_pass_of(one)]) for one in given]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for plate in plates(given, min_count, max_count, unbiased, embeddings):
            entry = Entry(plate.name, plate.paper, plate.title, plate.see, plate.alt)
            try:
                entries.append(_written(entry, plate, folder))
            except EmbvarError as error:
                entries.append(replace(entry, reason=str(error)))
        lines = _described(given, min_count, max_count, unbiased)
        names = ", ".join(dict.fromkeys(one.info["model"]["name"] for one in given))
        (folder / "index.html").write_text(
            page(f"Norm and variance: {names}", lines, entries), encoding="utf-8"
        )
    except OSError as error:
        raise StatisticsFileError(
            f"Figures cannot be written to {str(folder)!r}: {error.strerror or error}."
        ) from error
    return entries


def _site(statistics: TokenStatistics) -> str | None:
    return statistics.info.get("convention", {}).get("site")


def _pass_of(statistics: TokenStatistics) -> str:
    """What statistics of several sites of one pass have in common."""
    info = statistics.info
    convention = {k: v for k, v in info.get("convention", {}).items() if k != "site"}
    return repr((info["model"], info["corpora"], convention))


def _written(entry: Entry, plate: Plate, folder: Path) -> Entry:
    """Draw and save: the same statistics give the same SVG, byte for byte, with text as text."""
    with plt.ioff(), mpl.rc_context({"svg.hashsalt": "embvar-kit", "svg.fonttype": "none"}):
        before = set(plt.get_fignums())
        try:
            figure = plate.draw()
            files = (f"{entry.name}.png", f"{entry.name}.svg")
            figure.savefig(folder / files[0], dpi=110)
            figure.set_layout_engine("none")  # laid out; doing it again takes as long
            figure.savefig(folder / files[1], dpi=200, metadata={"Date": None})
        finally:  # a figure function that fails may leave a figure behind
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
    return replace(entry, files=files, numbers=plate.numbers())


def _described(
    given: Sequence[TokenStatistics], min_count: int, max_count: int | None, unbiased: bool
) -> list[str]:
    """What was drawn and how, for the head of the page."""
    lines = []
    for one, label in zip(given, drawing.labels(given), strict=True):
        corpora = ", ".join(corpus["name"] for corpus in one.info["corpora"])
        text = f"{label}: {int(one.n.sum()):,} occurrences of {len(one):,} tokens in {corpora}."
        if left_out := one.info.get("left_out"):
            names = ", ".join(map(repr, left_out[:8])) + (", ..." if len(left_out) > 8 else "")
            text += f" {len(left_out)} left out: {names}."
        lines.append(text)
    most = "" if max_count is None else f" ≤ {max_count:,}"
    forms = "finite-sample corrected where a figure has them" if unbiased else "as measured"
    lines.append(f"Tokens with {min_count:,} ≤ n_t{most}; M, V and V_B {forms}.")
    return lines
