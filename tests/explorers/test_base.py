"""What all explorers have: a still picture, alternative texts, a form for lectures."""

import io
import re

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
from explored import answer_of, controls, find, picture, without_tags
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


def pictured(kind, stats):
    """An explorer whose picture the kernel draws."""
    if kind == "layers":
        return ek.LayerExplorer(stats)
    if kind == "player":
        return ek.SequencePlayer(np.eye(4, dtype=np.float32))
    return ek.VariancePlayground()


@pytest.mark.parametrize("kind", ["playground", "player", "layers"])
def test_in_a_lecture_the_picture_comes_in_twice_its_pixels(kind, stats):
    explorer = pictured(kind, stats)
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


@pytest.mark.parametrize("kind", ["playground", "player", "layers"])
def test_a_picture_fills_the_room_there_is_and_is_never_smaller_than_still(kind, stats):
    explorer = pictured(kind, stats)
    shown, room = find(explorer, "embvar-picture"), explorer._room
    assert explorer.wait()
    still = explorer.still()

    def size():
        assert explorer.wait()
        return Image.open(io.BytesIO(picture(shown))).size

    width, height = size()
    room.room = [1720, 640]
    assert size() == (1720, min(640, round(height * 1720 / width)))
    if kind != "player":  # places in the picture are shares of it: these are others now
        areas = explorer._tooltip.areas
        room.room = [1720, 400]
        assert size()[1] == max(400, height) and explorer._tooltip.areas != areas
    assert explorer.still() == still, "a saved page keeps its size"
    room.room = [400, 200]
    assert size() == (width, height), "there the page makes it smaller"
    room.room = [1720, 640]
    find(explorer, "embvar-lecture-button").on = True
    assert size() == pytest.approx((2 * width, 2 * height), abs=1), "the page makes its type larger"


@pytest.mark.parametrize("kind", ["playground", "player"])
def test_figure_and_numbers_come_out_by_buttons(kind, monkeypatch):
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 1
    made = {"playground": ek.VariancePlayground, "player": lambda: ek.SequencePlayer(x)}[kind]
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/?token=secret")
    explorer = made()
    name, value = {"playground": ("mean_1", -1.5), "player": ("k", 12)}[kind]
    setattr(explorer.state, name, value)
    downloads = find(explorer, "embvar-downloads")
    message, (content,) = answer_of(downloads, "CSV")
    read = pd.read_csv(io.BytesIO(content))
    pd.testing.assert_frame_equal(read, explorer.numbers)
    for moment, number in explorer.state.moments.items():
        assert read[moment].iloc[-1] == pytest.approx(number, rel=1e-6)
    if kind == "player":
        assert message["name"] == "player-k12.csv" and read["k"].tolist() == list(range(1, 13))
        explorer.state.answer = True
        assert len(explorer.numbers) == 30, "the end is asked for"
    message, (content,) = answer_of(downloads, "PNG")
    assert Image.open(io.BytesIO(content)).width == 200 * explorer.size[0]
    message, (content,) = answer_of(downloads, "SVG")
    assert message["type"] == "image/svg+xml" and content.startswith(b"<?xml")
    again, by_link = made(), made()
    exec(answer_of(downloads, "code")[0]["code"], {"explorer": again})
    by_link.follow_link(answer_of(downloads, "link")[0]["query"])
    assert again.state.values() == by_link.state.values() == explorer.state.values()
    again.follow_link(f"{kind}=%7B%22{name}%22:-99%7D")
    told = find(again, "embvar-message").value
    assert told.startswith("The link cannot be followed. ")
    assert again.state.values() == explorer.state.values()


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
