"""Explorers: the state gives the mathematics' numbers, and state and view follow each other."""

import numpy as np
import pytest
import traitlets
from reference import two_pass

import embvar_kit as ek


def sliders(explorer) -> dict:
    found = {}

    def walk(widget):
        if "Slider" in type(widget).__name__:
            found[widget.description] = widget
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(explorer.view)
    return found


def test_the_cloud_has_the_mean_and_spread_that_are_set():
    playground = ek.VariancePlayground()
    state = playground.state
    state.mean_1, state.mean_2, state.spread_1, state.spread_2 = -1.0, 2.0, 0.5, 1.5
    cloud = state.cloud()
    np.testing.assert_allclose(cloud.mean(axis=0), [-1, 2], atol=1e-12)
    np.testing.assert_allclose(cloud.std(axis=0), [0.5, 1.5])
    assert [state.moments[name] for name in "QMV"] == pytest.approx([7.5, 5.0, 2.5])


def test_state_and_sliders_follow_each_other_and_the_picture_follows_both():
    playground = ek.VariancePlayground()
    control = sliders(playground)
    assert set(control) == {"mean 1", "mean 2", "spread 1", "spread 2"}
    before = playground._picture.value
    assert bytes(before).startswith(b"\x89PNG")
    control["mean 1"].value = -2.5
    assert playground.wait()
    assert playground.state.mean_1 == -2.5
    after = playground._picture.value
    assert after != before
    playground.state.spread_1 = 1.7
    assert control["spread 1"].value == 1.7
    assert playground.wait()
    assert playground._picture.value != after
    assert f"V = {playground.state.moments['V']:.3f}" in playground._numbers.value
    state = playground.state.moments
    assert state["Q"] == pytest.approx(state["M"] + state["V"], rel=1e-6)


def test_a_cloud_without_spread_is_a_point():
    playground = ek.VariancePlayground()
    playground.state.spread_1 = playground.state.spread_2 = 0.0
    assert playground.state.moments["V"] == 0.0


def test_the_picture_moves_even_where_the_moments_do_not():
    playground = ek.VariancePlayground()
    state = playground.state
    state.spread_1 = state.spread_2 = 0.0
    assert playground.wait()
    before, moments = bytes(playground._picture.value), state.moments
    state.mean_1 = -state.mean_1
    assert playground.wait()
    assert state.moments == moments
    assert bytes(playground._picture.value) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean_1", 4.0), ("mean_2", "far"), ("spread_1", -0.1), ("n", 1), ("seed", -1)],
)
def test_bad_values_are_refused_and_change_nothing(name, value):
    state = ek.VariancePlayground().state
    before = getattr(state, name)
    with pytest.raises(traitlets.TraitError):
        setattr(state, name, value)
    assert getattr(state, name) == before


def test_the_player_steps_through_the_occurrences():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    player = ek.SequencePlayer(x)
    slider = sliders(player)["seen, k"]
    assert (slider.min, slider.max) == (1, 30)
    slider.value = 12
    assert [player.state.moments[name] for name in "QMV"] == pytest.approx(two_pass(x[:12]))
    player.state.k = 30
    assert slider.value == 30
    with pytest.raises(traitlets.TraitError, match="there are 30 vectors"):
        player.state.k = 31


def test_a_saved_page_has_the_picture():
    bundle = ek.VariancePlayground()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["image/png"].startswith("iVBOR")
    assert "running notebook" in bundle["text/plain"]
