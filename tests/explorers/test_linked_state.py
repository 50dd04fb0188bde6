"""State of the linked explorer: what its panels show, and what goes from one to the other."""

import re

import numpy as np
import pandas as pd
import pytest
import traitlets
from explored import statistics_of
from scipy.stats import spearmanr

from embvar_kit.explorers.linked_state import LinkedState, in_both_text

LEFT = ["the", "of", "and", "only left", "rare"]
RIGHT = ["and", "the", "only right", "of", "rare"]


def two_models(**values):
    """Two models that share four tokens; of these ``rare`` is below the range at the right."""
    left = statistics_of(LEFT, n=[50, 40, 30, 25, 20], layers=range(3))
    right = statistics_of(RIGHT, n=[60, 50, 40, 30, 5], seed=1, layers=range(5))
    return LinkedState({"a": left, "b": right}, **values)


def test_each_panel_has_the_regression_of_the_analysis(stats):
    state = LinkedState(stats, left={"layer": 2}, counts=(5, None))
    assert (state.left.layer, state.right.layer) == (2, 6), "the last state at the right"
    expected = stats.tradeoff(min_count=5, max_count=None).set_index("layer")
    for panel in state.panels:
        assert panel.fit["slope"] == pytest.approx(expected.loc[panel.layer, "slope"])
        assert panel.fit["n_tokens"] == expected.loc[panel.layer, "n_tokens"]
    state.right.layer = 4
    assert state.right.fit["r2"] == pytest.approx(expected.loc[4, "r2"])
    assert state.left.layer == 2
    state.special = False
    expected = stats.tradeoff(min_count=5, max_count=None, special=False).set_index("layer")
    assert [panel.fit["slope"] for panel in state.panels] == pytest.approx(
        [expected.loc[panel.layer, "slope"] for panel in state.panels]
    )


def test_only_tokens_in_both_ranges_are_shown_unless_all_are_asked_for():
    state = two_models()
    assert [set(panel.points.tokens) for panel in state.panels] == [{"the", "of", "and"}] * 2
    assert state.left.fit["n_tokens"] == 3
    assert state.count_in_both() == 3
    assert "3 tokens in both panels (by their text" in in_both_text(state)
    assert "Shown: 3 of 5 at the left and 3 of 4 at the right." in in_both_text(state)
    state.together = False
    assert set(state.left.points.tokens) == set(LEFT)
    assert set(state.right.points.tokens) == set(RIGHT) - {"rare"}
    assert state.left.fit["n_tokens"] == 5 and state.count_in_both() == 3
    assert "Shown: 5 of 5 at the left and 4 of 4 at the right." in in_both_text(state)
    state.counts = (1, None)
    assert state.count_in_both() == 4
    to_right, to_left = state.partners()
    for here, there in enumerate(to_right):
        name = state.left.points.tokens[here]
        assert (there < 0) == (name == "only left")
        if there >= 0:
            assert state.right.points.tokens[there] == name and to_left[there] == here
    assert (to_left < 0).sum() == 1


def test_the_rank_correlations_are_those_of_scipy(stats):
    state = LinkedState(stats, left={"layer": 1}, right={"layer": 5}, counts=(5, None))
    for layer in (5, 3):
        state.right.layer = layer
        found = state.rank_correlations()
        left, right = (stats.table(at, min_count=5).set_index("token") for at in (1, layer))
        for name in "QMV":
            expected = spearmanr(left[name], right[name].loc[left.index]).statistic
            assert found[name] == pytest.approx(expected, abs=1e-12)
    state.right.layer = 1
    assert state.rank_correlations() == pytest.approx(dict.fromkeys("QMV", 1.0))


def test_the_rank_correlations_go_by_the_token_and_not_by_the_order():
    state = two_models(together=False)
    names = ["the", "of", "and"]
    for panel, other in (state.panels, state.panels[::-1]):
        assert not set(panel.points.tokens) <= set(other.points.tokens)
    tables = [panel.table().set_index("token").loc[names] for panel in state.panels]
    for name, found in state.rank_correlations().items():
        assert found == pytest.approx(spearmanr(*(table[name] for table in tables)).statistic)


def test_of_fewer_than_three_tokens_no_correlation_is_told():
    left, right = statistics_of(["a", "b", "c"]), statistics_of(["b", "c", "d"], seed=1)
    state = LinkedState({"left": left, "right": right})
    assert np.isnan(list(state.rank_correlations().values())).all()


def test_models_without_a_common_token_show_their_own():
    state = LinkedState(
        {"a": statistics_of(["a", "b", "c"]), "b": statistics_of(["d", "e"], seed=1)}
    )
    assert state.together and [len(panel.points.n) for panel in state.panels] == [3, 2]
    assert "0 tokens in both panels" in in_both_text(state)
    assert "each panel shows its own" in in_both_text(state)


def test_a_mark_in_one_panel_is_one_in_the_other():
    state = two_models(together=False)
    state.left.marked = ["of", "only left"]
    assert state.right.marked == ["of"]
    assert state.marked == [("of", "of"), ("only left", None)]
    state.right.marked = ["the", "only right"]
    assert state.left.marked == ["the"]
    assert state.marked == [("the", "the"), (None, "only right")]
    table = state.table()
    assert table["token_left"].tolist() == ["the", None]
    assert table["n_right"].tolist() == [50, 40] and pd.isna(table["n_left"][1])
    row = state.sources["b"]["hidden"].table(state.right.layer).set_index("token").loc["the"]
    assert [table[f"{name}_right"][0] for name in "QMV"] == pytest.approx(row[list("QMV")].tolist())
    row = state.sources["a"]["hidden"].table(state.left.layer).set_index("token").loc["the"]
    assert [table[f"{name}_left"][0] for name in "QMV"] == pytest.approx(row[list("QMV")].tolist())
    assert table["model_left"].tolist() == ["a", "a"] and np.isnan(table["M_left"][1])
    state.mark(["and", "only right"])
    assert state.marked == [("and", "and"), (None, "only right")]
    with pytest.raises(traitlets.TraitError, match="'nowhere' is not among the tokens of either"):
        state.mark(["nowhere"])
    state.clear()
    assert state.marked == state.left.marked == state.right.marked == []


def test_a_search_looks_in_both_panels():
    state = two_models(together=False)
    state.search = "only*"
    assert set(state.marked) == {("only left", None), (None, "only right")}
    assert state.search_report() == "Found: 1 token beginning with 'only'."
    state.search = "rare"
    assert state.marked == [("rare", "rare")]
    assert "Right: 'rare' occurs 5 times: outside the range shown." in state.search_report()
    assert pd.isna(state.table()["n_right"][0]) and state.table()["n_left"][0] == 20
    state.together = True
    state.search = "th*"
    assert state.marked == [("the", "the")], "indices are those of the tokens shown now"


def test_another_model_in_a_panel_changes_what_both_show():
    left, right = statistics_of(LEFT), statistics_of(RIGHT, seed=1)
    state = LinkedState({"a": left, "b": right, "c": statistics_of(["of", "x", "y"], seed=2)})
    state.mark(["of", "the"])
    state.right.model = "c"
    assert [set(panel.points.tokens) for panel in state.panels] == [{"of"}] * 2
    assert state.marked == [("of", "of"), ("the", None)]
    assert "no line" not in state.left.fit and state.left.fit["n_tokens"] == 1
    state.right.model = "a"
    assert state.count_in_both() == 5
    assert state.marked == [("of", "of"), ("the", "the")]


def test_the_depth_of_one_panel_is_followed_by_the_other():
    state = two_models()
    assert not state.same_depth
    state.left.layer, state.right.layer = 0, 4
    state.same_depth = True
    assert state.right.layer == 0, "the right one follows"
    state.left.layer = 1
    assert state.right.layer == 2
    state.right.layer = 3
    assert state.left.layer in (1, 2), "0.75 lies between a half and the whole"
    state.right.layer = 4
    assert state.left.layer == 2
    state.same_depth = False
    state.left.layer = 0
    assert state.right.layer == 4


def test_the_depth_is_that_of_the_model_and_not_of_what_was_measured():
    some = statistics_of(LEFT, layers=range(2), model={"name": "deep", "n_states": 13})
    state = LinkedState({"a": statistics_of(LEFT, layers=range(13)), "b": some}, same_depth=True)
    state.left.layer = 12
    assert state.right.layer == 1 and state.right.depth() == pytest.approx(1 / 12)
    state.right.layer = 0
    state.right.layer = 1
    assert state.left.layer == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (
            "counts",
            (100_000, None),
            "The left panel: No token occurs 100,000 times or more. The ra",
        ),
        ("counts", (1, None), "start the range at 2"),
        ("scales", "cubic", "cubic"),
        ("search", 3, "search"),
        ("counts", (True, None), "counts=(True, None): give the least and the most"),
        ("together", 1, "together=1: give True or False"),
    ],
)
def test_invalid_values_are_rejected_and_change_nothing(name, value, reason):
    state = two_models(unbiased=True)
    before, drawn = state.values(), state.drawn
    with pytest.raises(traitlets.TraitError, match=re.escape(reason)):
        setattr(state, name, value)
    assert state.values() == before and state.drawn == drawn


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"left": {"layer": 9}}, "Layer 9 was not extracted"),
        ({"right": {"model": "nobody"}}, "no model 'nobody'"),
        ({"right": {"depth": 1}}, "The right panel has no value 'depth'"),
        ({"marked": ["the"]}, "no value 'marked'"),
        ({"colour": 1}, "no value 'colour'"),
    ],
)
def test_initial_values_are_validated(values, reason):
    with pytest.raises(traitlets.TraitError, match=reason):
        two_models(**values)


def test_the_state_is_restored_as_it_was():
    state = two_models(together=False)
    state.right.model, state.left.model = "a", "b"
    state.left.layer, state.right.layer, state.counts = 4, 1, (5, 1000)
    state.unbiased, state.scales = True, "own"
    state.mark(["rare", "only left"])
    values = state.values()
    again = two_models()
    again.restore(**values)
    assert again.values() == values
    assert again.left.fit == state.left.fit and again.right.fit == state.right.fit
    with pytest.raises(traitlets.TraitError, match="no value 'colour'"):
        again.restore(colour=1)
    with pytest.raises(traitlets.TraitError, match="The left panel has no value 'marked'"):
        again.restore(left={"marked": []})
    with pytest.raises(traitlets.TraitError, match="Layer 99"):
        again.restore(counts=(1, None), marked=["the"], left={"model": "a"}, right={"layer": 99})
    assert again.values() == values


def test_what_is_not_named_stays_as_it_is():
    state = two_models(together=False, unbiased=True, special=False, counts=(5, None))
    state.mark(["the"])
    before = state.values()
    state.restore(right={"layer": 3})
    wanted = {**before, "right": {**before["right"], "layer": 3}}
    assert state.values() == wanted
    state.restore(counts=(2, 1000))
    assert state.values() == {**wanted, "counts": (2, 1000)}
    with pytest.raises(traitlets.TraitError, match="start the range at 2"):
        state.restore(counts=(1, None))
    assert state.values() == {**wanted, "counts": (2, 1000)}
    state.restore(left={"model": "b"})
    assert (state.left.model, state.unbiased, state.special) == ("b", True, False)


@pytest.mark.parametrize(
    ("values", "layers"),
    [
        ({"left": {"layer": 0}}, (0, 0)),
        ({"right": {"layer": 0}}, (0, 0)),
        ({"counts": (2, None)}, (1, 3)),
        ({"left": {"model": "b"}}, (3, 3)),
        ({"left": {"layer": 2}, "right": {"layer": 4}}, (2, 4)),
        ({"left": {"layer": 0}, "right": {"layer": 4}}, (0, 0)),
    ],
)
def test_panels_at_the_same_depth_stay_so(values, layers):
    state = two_models(same_depth=True)
    state.right.layer = 3  # nearest at the left is 1, of which the nearest at the right is 2
    assert (state.left.layer, state.right.layer) == (1, 3)
    again = two_models()
    again.restore(**state.values())
    assert again.values() == state.values()
    state.restore(**values)
    assert (state.left.layer, state.right.layer) == layers and state.same_depth


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("only", ("characters", "letters")),
        ("null", True),
        ("colour_by", "characters"),
        ("shaded", True),
        ("compare", 1),
        ("distance", "share"),
    ],
)
def test_a_panel_refuses_what_the_pair_does_not_draw(name, value):
    state = two_models()
    before = getattr(state.left, name)
    with pytest.raises(traitlets.TraitError, match=f"{name}=.*use TradeoffExplorer"):
        setattr(state.left, name, value)
    assert getattr(state.left, name) == before
    state.left.model = "b"
    assert state.left.model == "b", "another model resets what it does not have"


def test_another_model_follows_the_depth_of_the_other_panel():
    few = statistics_of(RIGHT, seed=2, layers=[0, 4], model={"name": "few", "n_states": 5})
    left, right = statistics_of(LEFT, layers=range(5)), statistics_of(RIGHT, seed=1)
    state = LinkedState({"a": left, "b": right, "few": few}, same_depth=True)
    state.left.layer = 2
    assert state.right.layer == 1
    layers = []
    state.left.observe(lambda change: layers.append(change["new"]), "layer")
    state.right.model = "few"
    assert (state.left.layer, state.right.layer, layers) == (2, 0, [])


def test_a_pair_to_mark_is_the_same_token_in_both():
    state = two_models(together=False)
    state.mark([("the", None), (None, "of"), ["and", "and"], (None, "only right")])
    assert state.marked == [("the", "the"), ("of", "of"), ("and", "and"), (None, "only right")]
    before = state.values()
    for wrong, why in (
        (("the", "of"), "'the' at the left and 'of' at the right are not the same token"),
        (("only left", "only right"), "not the same token"),
        (("only right", None), "'only right' is not among the tokens of the left panel"),
        ((None, None), "no token to mark"),
        ((), "no token to mark"),
        (("the",), "no token to mark"),
        (7, "no token to mark"),
    ):
        with pytest.raises(traitlets.TraitError, match=re.escape(why)):
            state.mark([wrong])
        assert state.values() == before
