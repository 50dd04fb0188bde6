"""Values of the states: a truth value is no number, a number no truth value, NaN no place."""

import numpy as np
import pytest
import traitlets

import embvar_kit as ek
from embvar_kit.explorers.layers_state import LayerState
from embvar_kit.explorers.player import SequenceState
from embvar_kit.explorers.playground import CloudState
from embvar_kit.explorers.tradeoff_state import TradeoffState

WRONG = {
    "tradeoff": {
        "layer": (True, 1.5, "2", None),
        "compare": (True, False, 0.5),
        "counts": ((True, None), (5, True), (5, 2.5), (5,), 5, None, (0, None), (5, 0)),
        "unbiased": (1, 0, "yes", None),
        "special": (1, 2),
    },
    "layers": {
        "step": (True, 1.5),
        "counts": ((True, None), (5, True)),
        "absolute": (1, "no"),
        "sinks": (0,),
        "unbiased": (1,),
        "special": (0,),
    },
    "playground": {
        "mean_1": (True, np.nan, np.inf, "1"),
        "spread_2": (True, np.nan, None),
        "n": (True, 2.5),
        "seed": (False,),
    },
    "player": {"k": (True, np.nan), "answer": (1, 0)},
}


@pytest.fixture
def states(stats):
    return {
        "tradeoff": TradeoffState(stats, counts=(5, None), layer=2),
        "layers": LayerState(stats),
        "playground": CloudState(),
        "player": SequenceState(np.eye(4)),
    }


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, one) for kind, of in WRONG.items() for name, all_ in of.items() for one in all_],
)
def test_a_value_of_another_kind_is_refused_by_name(states, kind, name, value):
    state = states[kind]
    before = getattr(state, name)
    with pytest.raises(traitlets.TraitError, match=rf"^{name}=.*: give "):
        setattr(state, name, value)
    assert getattr(state, name) is before


def test_numbers_of_other_kinds_are_taken(states):
    tradeoff, cloud = states["tradeoff"], states["playground"]
    for value in (np.int64(4), 4.0, np.float32(4)):
        tradeoff.layer = 1
        tradeoff.layer = value
        assert tradeoff.layer == 4 and type(tradeoff.layer) is int
    tradeoff.counts = [np.int32(6), None]
    assert tradeoff.counts == (6, None)
    tradeoff.unbiased = np.True_
    assert tradeoff.unbiased is True
    cloud.mean_1 = np.float32(0.5)
    assert cloud.mean_1 == 0.5


def test_a_link_with_a_truth_value_for_a_number_leaves_all_as_it_is(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    values = explorer.state.values()
    for query, told in (
        ("%22layer%22:true", "layer=True: give a whole number."),
        ("%22counts%22:[true,null]", "counts=(True, None): give the least"),
        ("%22unbiased%22:1", "unbiased=1: give True or False."),
        ("%22compare%22:false", "compare=False: give a whole number."),
    ):
        explorer.follow_link(f"tradeoff=%7B{query}%7D")
        assert told in explorer._message.value
        assert explorer.state.values() == values
