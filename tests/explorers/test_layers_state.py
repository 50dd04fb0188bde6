"""State of the layer explorer: its numbers are the decompositions'."""

import ipywidgets as widgets
import numpy as np
import pytest
import traitlets
from explored import find, statistics_of, tradeoff_of_high_norm

import embvar_kit as ek
from embvar_kit.explorers.controls import CountsSlider
from embvar_kit.explorers.layers_state import LayerState


def test_the_numbers_of_a_layer_are_the_decomposition(stats):
    state = LayerState(stats)
    for choice in ({}, {"special": False}, {"counts": (3, None)}, {"unbiased": True}):
        for name, value in choice.items():
            setattr(state, name, value)
        least, most = state.counts
        expected = stats.decomposition(
            min_count=least, max_count=most, special=state.special, unbiased=state.unbiased
        )
        for step, row in expected.iterrows():
            state.step = step
            found = state.numbers().loc["minilm"]
            assert found[["Q", "M", "V", "V_W", "V_B"]].to_dict() == pytest.approx(
                row[["Q", "M", "V", "V_W", "V_B"]].to_dict()
            )
            assert sum(found[f"{part}/Q"] for part in ("M", "V_B", "V_W")) == pytest.approx(1)
    state.of = "V"
    assert sum(state.numbers().loc["minilm"][["V_B/V", "V_W/V"]]) == pytest.approx(1)


def test_without_high_norm_is_the_decomposition_without_them():
    one = tradeoff_of_high_norm()
    state = LayerState(one, counts=(1, None))
    whole = state.numbers().loc["made up", "Q"]
    state.sinks = False
    expected = one.without(["t3"]).decomposition(min_count=1, max_count=None)["Q"][0]
    assert state.numbers().loc["made up", "Q"] == pytest.approx(expected)
    assert expected < whole / 10


def test_compact_statistics_offer_what_they_hold(stats):
    compact = stats.compact(min_count=2, left_out=[(), stats.high_norm()["token"]])
    state = LayerState({"whole": stats, "compact": compact})
    assert state.ranges() == [(1, None), (2, None), (10, 100_000)]
    for name, value in (("counts", (7, 70)), ("counts", (10, None))):
        with pytest.raises(traitlets.TraitError, match="compact are compact"):
            setattr(state, name, value)
    state.counts = (2, None)
    np.testing.assert_allclose(state.numbers().iloc[0, :6], state.numbers().iloc[1, :6])
    explorer = ek.LayerExplorer({"whole": stats, "compact": compact})
    assert isinstance(find(explorer, "embvar-counts"), widgets.Dropdown)
    assert isinstance(find(ek.LayerExplorer(stats), "embvar-counts"), CountsSlider)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("shown", ["bert"], "no model 'bert'"),
        ("shown", [], "shown"),
        ("step", 99, "7 layers"),
        ("step", -1, "step"),
        ("of", "M", "of"),
        ("counts", (10_000_000, None), "No token of minilm occurs 10,000,000 times or more."),
    ],
)
def test_invalid_values_of_the_layer_explorer_are_rejected(stats, name, value, reason):
    state = LayerState(stats)
    before, setting = getattr(state, name), state.setting
    with pytest.raises(traitlets.TraitError, match=reason):
        setattr(state, name, value)
    assert (getattr(state, name), state.setting) == (before, setting)


def test_a_small_text_begins_with_all_its_tokens(stats):
    rare = stats.take(np.flatnonzero(stats.n < 10))
    assert LayerState(rare).counts == (1, None)
    assert LayerState({"all": stats, "rare": rare}).counts == (1, None)
    assert LayerState(stats).counts == (10, 100_000)
    explorer = ek.LayerExplorer(rare)
    assert explorer.wait() and find(explorer, "embvar-message").value == ""
    with pytest.raises(traitlets.TraitError, match="No token of minilm occurs 10 to 100,000"):
        LayerState(rare, counts=(10, 100_000))


def test_what_is_not_named_stays_as_it_is(stats):
    state = LayerState(stats, unbiased=True, counts=(2, None), step=3)
    state.special, state.absolute = False, True
    before = state.values()
    state.restore(of="V")
    assert state.values() == {**before, "of": "V"}


def test_a_step_that_is_not_named_stays_among_the_layers_shown():
    deep, flat = (statistics_of(["a", "b", "c"], layers=range(k)) for k in (5, 2))
    state = LayerState({"deep": deep, "flat": flat}, step=4)
    state.restore(shown=["flat"])
    assert (state.shown, state.step) == (["flat"], 1)
    with pytest.raises(traitlets.TraitError, match="at most 2 layers"):
        state.restore(shown=["flat"], step=4)
