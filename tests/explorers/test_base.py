"""What all explorers have: a still picture, alternative texts, a form for lectures."""

import io

import numpy as np
import pytest
from explored import controls, find, picture
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers import base


def test_pictures_have_alternative_texts_with_their_numbers(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    explorer.state.token, explorer.state.layer = "the", 3
    told = explorer._frame.pictures
    slope = explorer.state.fit["slope"]
    assert "layer 3: " in told["embvar-scatter"] and f"slope {slope:.3f}" in told["embvar-scatter"]
    assert told["embvar-card-profile"].startswith("Q, M and V of the by layer; layer 3: Q = ")
    layers = ek.LayerExplorer(stats)
    assert layers.wait()
    share = layers.state.numbers().loc["minilm", "M/Q"]
    assert f"layer 0: M/Q {share:.3f}" in layers._frame.pictures["embvar-picture"]
    playground = ek.VariancePlayground()
    playground.state.mean_1 = 1.0
    moments = playground.state.moments
    assert f"M = {moments['M']:.3f}" in playground._frame.pictures["embvar-picture"]


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
