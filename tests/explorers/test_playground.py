"""The playground: a cloud with the mean and spread that are set, and its picture."""

import io

import numpy as np
import pytest
import traitlets
from explored import drawn_on, find, picture
from matplotlib.colors import to_hex
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers.playground import CloudState


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
    shown = find(playground, "embvar-picture")
    before = picture(shown)
    find(playground, "embvar-mean-1").value = -2.5
    assert playground.state.mean_1 == -2.5
    assert playground.wait()
    after = picture(shown)
    assert after != before
    playground.state.spread_1 = 1.4
    assert find(playground, "embvar-spread-1").value == 1.4
    assert playground.wait()
    assert picture(shown) != after
    state = playground.state.moments
    assert f"V = {state['V']:.3f}" in find(playground, "embvar-numbers").value
    assert state["Q"] == pytest.approx(state["M"] + state["V"], rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8, 20, 300, 2000])
def test_no_cloud_leaves_its_plot(n):
    playground = ek.VariancePlayground()
    low, high = drawn_on(playground).axes[0].get_xlim()
    assert (low, high) == drawn_on(playground).axes[0].get_ylim()
    for seed in range(20):
        state = CloudState(mean_1=-3, mean_2=3, spread_1=1.5, spread_2=1.5, n=n, seed=seed)
        radius = np.sqrt(state.moments["V"])
        assert low < state.cloud().min() and state.cloud().max() < high
        assert low < -3 - radius and 3 + radius < high
        np.testing.assert_allclose(state.cloud().std(axis=0), 1.5)


def test_the_cloud_follows_the_mouse_as_far_as_the_sliders_go():
    playground = ek.VariancePlayground()
    drag, state = playground._drag, playground.state
    limit = drawn_on(playground).axes[0].get_xlim()[1]
    drag.place = [0.5 + 1.5 / (2 * limit), 0.5 - 2.2 / (2 * limit)]
    assert (state.mean_1, state.mean_2) == (1.5, -2.2)
    assert find(playground, "embvar-mean-2").value == -2.2
    drag.place = [1.0, 0.0]
    assert (state.mean_1, state.mean_2) == (3.0, -3.0)
    left, upper, right, lower = drag.frame
    assert 0 < left < right < 0.5 and 0 < upper < lower < 1, "the cloud is the left plot"


def test_pointing_at_a_bar_shows_its_number():
    playground = ek.VariancePlayground()
    playground.state.mean_1, playground.state.spread_1 = 3.0, 1.5
    assert playground.wait()
    image = np.asarray(Image.open(io.BytesIO(playground._picture.value)).convert("RGB"))
    colours = set()
    for name, (left, upper, right, lower, text) in zip(
        "QMV", playground._tooltip.areas, strict=True
    ):
        assert text.startswith(f"{name} = {playground.state.moments[name]:.3f}\n")
        x, y = left + 0.1 * (right - left), (upper + lower) / 2
        colours.add(to_hex(image[int(y * image.shape[0]), int(x * image.shape[1])] / 255))
    assert colours == {ek.figures.COLOURS[name] for name in "QMV"}


def test_a_cloud_without_spread_is_a_point():
    playground = ek.VariancePlayground()
    playground.state.spread_1 = playground.state.spread_2 = 0.0
    assert playground.state.moments["V"] == 0.0


def test_the_picture_moves_even_where_the_moments_do_not():
    playground = ek.VariancePlayground()
    state = playground.state
    state.spread_1 = state.spread_2 = 0.0
    assert playground.wait()
    before, moments = picture(playground._picture), state.moments
    state.mean_1 = -state.mean_1
    assert state.moments == moments
    assert playground.wait()
    assert picture(playground._picture) != before


def test_pictures_are_cached():
    playground = ek.VariancePlayground()
    first = picture(playground._picture)
    playground.state.mean_1 = 1.0
    assert playground.wait()
    made = playground.pictures.computed
    playground.state.mean_1 = 2.0
    assert picture(playground._picture) == first
    assert playground.wait() and playground.pictures.computed == made


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean_1", 4.0), ("mean_2", "far"), ("spread_1", -0.1), ("n", 1), ("seed", -1)],
)
def test_bad_values_are_rejected_and_change_nothing(name, value):
    state = ek.VariancePlayground().state
    before = getattr(state, name)
    with pytest.raises(traitlets.TraitError):
        setattr(state, name, value)
    assert getattr(state, name) == before
