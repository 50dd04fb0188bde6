"""The sheet of symbols and the drawing of the blocks say what the kit and the notebooks say."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from matplotlib.colors import to_hex
from paths import ROOT

from embvar_kit import figures
from embvar_kit.extraction.forward import SITES
from embvar_kit.figures import style, symbols

ROWS = [row for rows in figures.SYMBOLS.values() for row in rows]

IN_NOTEBOOKS = {"M̃": r"\tilde M", "Ṽ": r"\tilde V", "r": "$r =", "ρ": r"$\rho ="}
"""How a notebook writes a symbol, where a search for its plain form would find something else."""


def section(number: str) -> str:
    """All sources of the cells of a section of the notebooks."""
    found = []
    for path in sorted((ROOT / "notebooks").glob(f"{int(number.split('.')[0]):02}*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        found += re.findall(rf"^## {re.escape(number)} .*?(?=^## |\Z)", text, re.M | re.S)
    assert len(found) == 1, f"section {number} stands in {len(found)} notebooks"
    return found[0]


def overlapping(ax) -> list[tuple[str, str]]:
    """Pairs of texts that lie on one another."""
    ax.figure.draw_without_rendering()
    named = [text for text in ax.texts if text.get_text()]  # an arrow is an empty text
    boxes = [(text.get_text(), text.get_window_extent()) for text in named]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if a.overlaps(b) and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_symbol_stands_in_the_section_that_introduces_it(row):
    assert IN_NOTEBOOKS.get(row.name, row.name) in section(row.section)


def test_the_sheet_has_every_site_and_every_statistic():
    names = {row.name for row in ROWS}
    assert len(names) == len(ROWS)
    assert set(SITES) <= names
    assert set(figures.COLOURS) <= names


def test_the_sheet_is_one_page_on_which_nothing_collides():
    figure = figures.symbol_sheet()
    (ax,) = figure.axes
    assert figure.get_size_inches() == pytest.approx([11.69, 8.27])
    shown = [text.get_text() for text in ax.texts]
    for row in ROWS:
        assert {row.written, row.formula, row.section} <= set(shown)
        assert row.words in [" ".join(text.split()) for text in shown]
    assert not overlapping(ax)
    whole = figure.bbox
    for text in ax.texts:
        box = text.get_window_extent()
        assert whole.x0 < box.x0 and box.x1 < whole.x1, text.get_text()
        assert whole.y0 < box.y0 and box.y1 < whole.y1, text.get_text()
    coloured = {text.get_text(): to_hex(text.get_color()) for text in ax.texts}
    for name, symbol in (("Q", "$Q$"), ("M", r"$\tilde{M}$"), ("V", r"$\tilde{V}$")):
        assert coloured[symbol] == figures.COLOURS[name]


def points(ax) -> dict[str, list[tuple[float, float]]]:
    """Where the points of each label are."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in ax.lines:
        found.setdefault(line.get_label(), []).extend(map(tuple, line.get_xydata().tolist()))
    return found


def test_the_hidden_state_is_the_output_in_post_ln_and_the_input_in_pre_ln():
    post, pre = figures.blocks().axes
    for ax, same in ((post, "norm_output"), (pre, "norm_input")):
        found = points(ax)
        (at,) = found[same]
        assert at in found["hidden"] and len(found["hidden"]) == 2
        others = set(symbols.SITES) - {same}
        assert not {point for site in others for point in found[site]} & set(found["hidden"])
        heights = [found[site][0][1] for site in symbols.SITES]
        assert heights == sorted(heights)  # a vector moves upwards through them
    assert "residual stream" in points(pre) and "residual stream" not in points(post)
    stream = {x for x, _ in points(pre)["residual stream"]}
    assert {x for x, _ in points(pre)["hidden"]} == stream
    assert points(pre)["standardized"][0][0] not in stream


def test_sites_look_as_in_the_figures_of_their_statistics():
    for ax in figures.blocks().axes:
        drawn = {line.get_label(): line for line in ax.lines}
        for site, look in zip(symbols.SITES, style.looks(3), strict=True):
            assert drawn[site].get_color() == look["color"]
            assert drawn[site].get_marker() == look["marker"]


def test_the_drawing_names_what_it_draws_and_nothing_collides():
    figure = figures.blocks()
    for ax, name in zip(figure.axes, ("Post-LN", "Pre-LN"), strict=True):
        assert name in ax.get_title()
        texts = " ".join(text.get_text() for text in ax.texts)
        for word in (*symbols.SITES, r"\gamma", r"\beta", "hidden state", "self-attention"):
            assert word in texts
        assert not overlapping(ax)
    assert "residual stream" in " ".join(text.get_text() for text in figure.axes[1].texts)
