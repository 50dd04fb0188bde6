"""The player: Q, M and V of the first k vectors of a sequence."""

import numpy as np
import pytest
import traitlets
from brute_force import two_pass
from explored import drawn_on, find, picture
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import embvar_kit as ek


def test_the_player_steps_through_the_occurrences():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    player = ek.SequencePlayer(x)
    slider = find(player, "embvar-k")
    assert (slider.min, slider.max) == (1, 30)
    before = picture(player._picture)
    slider.value = 12
    assert [player.state.moments[name] for name in "QMV"] == pytest.approx(two_pass(x[:12]))
    assert player.wait() and picture(player._picture) != before
    player.state.k = 30
    assert slider.value == find(player, "embvar-play").value == 30
    with pytest.raises(traitlets.TraitError, match="there are 30 vectors"):
        player.state.k = 31


def test_the_players_curves_grow_and_their_end_is_hidden_until_asked():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32) + 1
    player = ek.SequencePlayer(x)
    player.state.k = 12
    assert player.wait()
    curves = [artist for artist in drawn_on(player).artists if isinstance(artist, Line2D)]
    assert max(len(line.get_xdata()) for line in curves) == 12
    ends = two_pass(x)
    bands = [artist for artist in drawn_on(player).artists if isinstance(artist, Rectangle)]
    assert bands == [] and "k =" not in find(player, "embvar-numbers").value
    find(player, "embvar-answer").value = True
    assert player.wait()
    bands = [artist for artist in drawn_on(player).artists if isinstance(artist, Rectangle)]
    edges = [(band.get_y(), band.get_y() + band.get_height()) for band in bands]
    np.testing.assert_allclose(edges, [(0.9 * value, 1.1 * value) for value in ends], rtol=1e-6)
    low, high = drawn_on(player).axes.get_ylim()
    assert low <= min(map(min, edges)) and max(map(max, edges)) < high
    told = find(player, "embvar-numbers").value
    for name, k in player.state.near_from().items():
        assert f"{name} from k = {k}" in told
        values = np.array([two_pass(x[:at])["QMV".index(name)] for at in range(1, 31)])
        near = np.abs(values / values[-1] - 1) <= 0.1
        assert near[k - 1 :].all() and (k == 1 or not near[k - 2])


def test_the_player_has_a_speed_and_a_loop():
    player = ek.SequencePlayer(np.eye(4, dtype=np.float32))
    play, speed = find(player, "embvar-play"), find(player, "embvar-speed")
    assert play.show_repeat
    seen = []
    for name, milliseconds in speed.options:
        speed.value = milliseconds
        seen.append((name, play.interval))
    assert seen == [("slow", 500), ("normal", 200), ("fast", 40)]


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.ones(3), r"of shape \(3,\)"),
        (np.ones((0, 3)), r"of shape \(0, 3\)"),
        (np.array([[1.0, np.nan]]), "with NaN or infinity"),
        (np.array([[np.inf, 1.0]]), "with NaN or infinity"),
        ([[1, 2], [3]], "these differ in length"),
        ([["a", "b"]], "not of real numbers"),
        (np.ones((3, 2), dtype=complex), "of complex128, not of real numbers"),
        (np.full((3, 2), 1e200), "too large for float64"),
    ],
)
def test_a_player_of_no_vectors_is_refused(x, told):
    with pytest.raises(ek.StatisticsError, match=rf"\(N, d\) finite vectors.*{told}"):
        ek.SequencePlayer(x)


def test_identical_vectors_have_no_variance_in_the_player():
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 384)), 100, axis=0)
    state = ek.SequencePlayer(x).state
    assert not state.path["V"].any() and state.near_from()["V"] == 1
