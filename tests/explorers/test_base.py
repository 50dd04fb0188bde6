"""What all explorers have: a still picture, alternative texts, a form for lectures."""

import io
import re

import ipywidgets as widgets
import numpy as np
import pytest
from explored import controls, find, picture, without_tags
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers import base
from embvar_kit.explorers.tables import decimal


def test_pictures_have_alternative_texts_with_their_numbers(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    explorer.state.token, explorer.state.layer = "the", 3
    told = explorer._frame.pictures
    slope = explorer.state.fit["slope"]
    assert (
        "layer 3: " in told["embvar-scatter"]
        and f"slope {decimal(slope)}" in told["embvar-scatter"]
    )
    assert told["embvar-card-profile"].startswith("Q, M and V of the by layer; layer 3: Q = ")
    layers = ek.LayerExplorer(stats)
    assert layers.wait()
    share = layers.state.numbers().loc["minilm", "M/Q"]
    assert f"layer 0: M/Q {share:.3f}" in layers._frame.pictures["embvar-picture"]
    playground = ek.VariancePlayground()
    playground.state.mean_1 = 1.0
    moments = playground.state.moments
    assert f"M = {moments['M']:.3f}" in playground._frame.pictures["embvar-picture"]


def told_by(explorer) -> list[str]:
    """What a reader is told: texts, lists, and the alternative texts of pictures."""
    found = list(explorer._frame.pictures.values())

    def walk(widget):
        if isinstance(widget, widgets.HTML):
            found.append(without_tags(widget.value))
        found.extend(text for text, _ in getattr(widget, "options", ()))
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    return found


@pytest.mark.parametrize("kind", ["tradeoff", "linked", "layers"])
def test_a_minus_sign_is_that_of_typography(kind, stats):
    """Axes have it: a hyphen in the text beside them would be another sign for the same."""
    explorer = {
        "tradeoff": lambda: ek.TradeoffExplorer(
            stats, counts=(2, None), unbiased=True, layer=2, compare=5, colour_by="residual"
        ),
        "linked": lambda: ek.LinkedExplorer(stats, counts=(2, None), unbiased=True),
        # In the unbiased forms of few occurrences M is negative at some layers.
        "layers": lambda: ek.LayerExplorer(stats, counts=(2, 2), unbiased=True),
    }[kind]()
    if kind == "tradeoff":
        explorer.state.marked = list(explorer.state.points.tokens[:40])
    assert explorer.wait()
    if kind == "linked":
        explorer.state.mark(list(explorer.state.left.points.tokens[:40]))
    told = told_by(explorer)
    assert not [text for text in told if re.search(r"(?<![\w,])-[\d.]", text)]
    if kind != "layers":
        assert any(re.search(r"slope −\d", text) for text in told)
        titles = [ax.get_title() for ax in explorer.figure().axes if ax.get_title()]
        assert titles and not [title for title in titles if "-" in title]


@pytest.mark.parametrize("kind", ["playground", "player", "layers"])
def test_in_a_lecture_the_picture_comes_in_twice_its_pixels(kind, stats):
    made = {
        "playground": ek.VariancePlayground,
        "player": lambda: ek.SequencePlayer(np.eye(4, dtype=np.float32)),
        "layers": lambda: ek.LayerExplorer(stats),
    }
    explorer = made[kind]()
    assert explorer.wait()
    shown, button = find(explorer, "embvar-picture"), find(explorer, "embvar-lecture-button")
    before, still = picture(shown), explorer.still()

    def size():
        return Image.open(io.BytesIO(picture(shown))).size

    small = size()
    button.on = True
    assert explorer.wait()
    assert size() == pytest.approx([2 * side for side in small], abs=1)
    large = Image.open(io.BytesIO(picture(shown))).convert("L").resize(small, Image.BOX)
    first = Image.open(io.BytesIO(before)).convert("L")
    assert np.abs(np.subtract(large, first, dtype=float)).mean() < 4, "the same, but sharper"
    assert explorer.still() == still, "a saved page keeps its size"
    button.on = False
    assert explorer.wait() and picture(shown) == before


@pytest.mark.parametrize("kind", ["playground", "player", "tradeoff", "layers"])
def test_a_saved_page_has_a_still_picture(kind, stats):
    made = {
        "playground": ek.VariancePlayground,
        "player": lambda: ek.SequencePlayer(np.eye(4, dtype=np.float32)),
        "tradeoff": lambda: ek.TradeoffExplorer(stats, counts=(5, None)),
        "layers": lambda: ek.LayerExplorer(stats),
    }
    explorer = made[kind]()
    bundle, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["image/png"].startswith("iVBOR")
    assert "running notebook" in bundle["text/plain"]
    assert metadata["image/png"]["alt"].startswith("A still picture of an explorer. ")
    assert bundle[base.WIDGET]["model_id"] == explorer.view.model_id
    still = Image.open(io.BytesIO(explorer.still()))
    assert still.mode == "P" and min(still.size) > 200
    for control in controls(explorer):
        assert getattr(control, "description", "") or getattr(control, "tooltip", "")
        assert any(css.startswith("embvar-") for css in control._dom_classes), control
