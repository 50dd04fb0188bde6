"""State of the trade-off explorer: its numbers are the analysis', invalid values are rejected."""

import numpy as np
import pandas as pd
import pytest
import traitlets
from explored import tradeoff_of_high_norm, tradeoff_of_tokens

import embvar_kit as ek
from embvar_kit.explorers.layers_state import LayerState
from embvar_kit.explorers.linked_state import LinkedState
from embvar_kit.explorers.tradeoff_state import TradeoffState


def test_each_layer_has_the_regression_line_of_the_analysis(stats):
    state = TradeoffState(stats, counts=(5, None))
    for unbiased in (False, True):
        state.unbiased = unbiased
        fits = stats.tradeoff(min_count=5, max_count=None, unbiased=unbiased).set_index("layer")
        for layer in stats.layers:
            state.layer = int(layer)
            assert state.fit == pytest.approx(fits.loc[layer].to_dict())
            expected = stats.table(layer, min_count=5, unbiased=unbiased)[::-1]
            table = state.table()
            assert table["token"].tolist() == expected["token"].tolist()
            np.testing.assert_allclose(
                table[["n", "Q", "M", "V"]], expected[["n", "Q", "M", "V"]], rtol=1e-12
            )


def test_special_tokens_and_counts_select_the_points(stats):
    state = TradeoffState(stats, counts=(3, 50))
    table = stats.table(0, min_count=3, max_count=50, special=False)
    state.special = False
    assert set(state.table()["token"]) == set(table["token"])
    state.counts = (20, None)
    assert state.table()["n"].min() >= 20


def test_axes_hold_all_layers_or_their_own(stats):
    state = TradeoffState(stats, counts=(5, None), scales="same")
    limits = set()
    for layer in stats.layers:
        state.layer = int(layer)
        (left, right), (low, high) = state.limits()
        limits.add((left, right, low, high))
        assert left == 0 < state.table()["M"].min() and state.table()["M"].max() < right
        assert low == 0 <= state.table()["V"].min() and state.table()["V"].max() < high
    assert len(limits) == 1
    own = state.limits()
    state.scales = "own"
    assert state.limits() != own
    state.scales = "log"
    assert min(state.limits()[0][0], state.limits()[1][0]) > 0


def test_axes_begin_just_below_a_negative_unbiased_M():
    made = tradeoff_of_tokens([f"t{i}" for i in range(20)])  # means near 0: noise may exceed them
    state = TradeoffState(made, counts=(2, None), unbiased=True)
    M = state.table()["M"]
    assert M.min() < 0
    (left, right), (low, _) = state.limits()
    assert M.min() - 0.05 * (M.max() - M.min()) < left < M.min()
    assert right > M.max() and low == 0


def test_high_norm_tokens_get_logarithmic_axes():
    one = tradeoff_of_high_norm()
    assert TradeoffState(one).scales == "log"


def test_without_high_norm_tokens_all_is_that_of_the_statistics_without_them():
    stats = ek.cached_statistics("smollm2", progress=False)  # compact: it keeps n_t >= 10
    high = set(stats.high_norm()["token"])
    assert len(high) > 3
    state = TradeoffState({"smollm2": stats}, layer=15)
    whole, most = state.fit, state.limits()[0][1]
    name = max(high & set(state.points.tokens), key=len)
    state.marked = [name]
    assert state.scales == "log"
    drawn = state.drawn
    state.sinks = False
    assert state.drawn == drawn + 1, "with other axes, it is drawn once"
    assert state.scales != "log" and state.limits()[0][1] < most / 5
    rest = stats.without(high)
    for layer in (0, 15, 30):
        state.layer = layer
        expected = rest.table(layer, min_count=10, max_count=100_000)[::-1]
        np.testing.assert_array_equal(state.table()["token"], expected["token"])
        np.testing.assert_allclose(state.table()["V"], expected["V"])
        fits = rest.tradeoff(min_count=10, max_count=100_000).set_index("layer")
        assert state.fit == pytest.approx(fits.loc[layer].to_dict())
        assert high.isdisjoint(state.residuals(50)["token"])
    assert state.marked == [name], "it is marked again with the others"
    assert not len(state.points.indices_of(state.marked))
    state.search = name
    assert state.search_report() == f"{name!r} is left out: of high norm."
    state.layer, state.sinks = 15, True
    assert state.fit == whole and state.scales == "log"
    assert state.search_report() == ""


def test_axes_that_a_reader_chose_stay_without_high_norm_tokens():
    state = TradeoffState(tradeoff_of_high_norm(), counts=(1, None), scales="own")
    state.sinks = False
    assert state.scales == "own" and "t3" not in state.points.tokens
    values = state.values()
    again = TradeoffState(tradeoff_of_high_norm(), counts=(1, None))
    again.restore(**values)
    assert again.values() == values and not again.sinks


def test_high_norm_tokens_alone_cannot_be_left_out():
    state = TradeoffState(tradeoff_of_high_norm(), counts=(1, None))
    state._high_norm = lambda *_: np.ones(20, bool)
    with pytest.raises(traitlets.TraitError, match="without high norms leaves no token"):
        state.sinks = False
    assert state.sinks


def test_the_null_is_not_shown_without_high_norm_tokens():
    stats = ek.cached_statistics("minilm", progress=False)
    state = TradeoffState(stats)
    assert not state.has_high_norm()
    state.sinks, state.null = False, True  # there are none: nothing is left out
    assert state.null_points is not None
    state.sinks = True
    state._high_norm = lambda *_: np.arange(len(stats.n)) == 0
    with pytest.raises(traitlets.TraitError, match="cannot be shown without them"):
        state.sinks = False
    state.restore(null=False, sinks=False)
    with pytest.raises(traitlets.TraitError, match="cannot be shown without them"):
        state.null = True
    with pytest.raises(traitlets.TraitError, match="cannot be shown without them"):
        state.restore(null=True, sinks=False)
    assert (state.sinks, state.null) == (False, False)
    state.restore(null=True, sinks=True)
    assert (state.sinks, state.null) == (True, True)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("layer", 17, "there are 0, 1"),
        ("compare", 17, "there are 0, 1"),
        ("model", "bert", "only minilm"),
        ("site", "nowhere", "no site"),
        ("counts", (1_000_000, None), "No token"),
        ("counts", (50, 20), "No token occurs 50 to 20 times"),
        ("counts", (0, 20), "counts"),
        ("marked", ["no such token"], "not among"),
        ("token", "no such token", "not among"),
        ("scales", "odd", "scales"),
        ("distance", "far", "distance"),
    ],
)
def test_invalid_values_are_rejected(stats, name, value, reason):
    state = TradeoffState(stats, counts=(5, None))
    before, drawn = getattr(state, name), state.drawn
    with pytest.raises(traitlets.TraitError, match=reason):
        setattr(state, name, value)
    assert (getattr(state, name), state.drawn) == (before, drawn)


@pytest.mark.parametrize(
    "values", [{"layer": 17}, {"model": "bert"}, {"marked": ["no such token"]}, {"colour": "red"}]
)
def test_initial_values_are_validated(stats, values):
    with pytest.raises(traitlets.TraitError):
        TradeoffState(stats, counts=(5, None), **values)
    with pytest.raises(traitlets.TraitError):
        LayerState(stats, **{**values, "step": 17})
    with pytest.raises(ek.StatisticsError, match="No token"):
        TradeoffState(stats, counts=(1_000_000, None))


def test_unbiased_needs_two_occurrences(stats):
    state = TradeoffState(stats, counts=(1, None))
    with pytest.raises(traitlets.TraitError, match="two occurrences"):
        state.unbiased = True
    state.counts = (2, None)
    state.unbiased = True
    with pytest.raises(traitlets.TraitError, match="two occurrences"):
        state.counts = (1, None)
    assert state.counts == (2, None)


def test_too_few_tokens_for_a_line_are_reported(stats):
    state = TradeoffState(stats, counts=(5, None))
    most = int(np.sort(stats.n)[-2])
    state.counts = (most, None)
    assert state.fit["n_tokens"] == 2
    assert "says nothing" in state.fit["why"]


def test_what_moved_most_is_the_largest_distance(stats):
    state = TradeoffState(stats, counts=(5, None), layer=2, compare=4)
    assert TradeoffState(stats).moved().empty
    first, second = (stats.table(layer, min_count=5).set_index("token") for layer in (2, 4))
    for how, unit in (("units", (1, 1)), ("share", (first["Q"].mean(), second["Q"].mean()))):
        state.distance = how
        move = second[["M", "V"]] / unit[1] - first[["M", "V"]] / unit[0]
        distance = np.hypot(move["M"], move["V"]).sort_values(ascending=False)
        found = state.moved(5).set_index("token")
        assert found.index.tolist() == distance.index[:5].tolist()
        np.testing.assert_allclose(found["distance"], distance[:5])
        np.testing.assert_allclose(found[["M", "V"]], move.loc[found.index])
        forwards = state.moved()
        state.layer, state.compare = 4, 2
        pd.testing.assert_frame_equal(state.moved(), forwards)
        state.layer, state.compare = 2, 4


def test_the_tokens_farthest_from_the_line_are_its_largest_residuals(stats):
    state = TradeoffState(stats, layer=2, counts=(5, None))
    found = state.residuals(most=7)
    table = stats.table(2, min_count=5).set_index("token")
    slope, intercept = np.polyfit(table["M"], table["V"], 1)
    residual = table["V"] - (slope * table["M"] + intercept)
    expected = residual.loc[residual.abs().nlargest(7).index]
    assert found["token"].tolist() == expected.index.tolist()
    np.testing.assert_allclose(found["residual"], expected, rtol=1e-6)
    np.testing.assert_allclose(found[["M", "V"]], table.loc[found["token"], ["M", "V"]])
    one = tradeoff_of_tokens(["only"])
    assert TradeoffState(one, counts=(2, None)).residuals().empty, "without a line there are none"


def test_another_model_keeps_the_depth_and_the_tokens_it_has(stats, model):
    few = ek.extract(
        model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2, 4, 6], progress=False
    )
    state = TradeoffState({"all": stats, "few": few}, counts=(3, None), layer=3, compare=5)
    rare = next(str(t) for t in stats.tokens if t not in set(few.tokens))
    state.marked = ["the", rare]
    state.token = rare
    drawn = state.drawn
    state.model = "few"
    assert state.layer in few.layers
    assert (state.marked, state.token, state.compare) == (["the"], None, None)
    assert state.drawn == drawn + 1  # one change, however many values adapt
    assert state.fit["n_tokens"] == len(few.table(0, min_count=3))


def test_a_model_of_which_rare_tokens_were_not_measured_is_shown(stats, model):
    corpus = ek.load_corpus("wikipedia", limit=60)
    few = ek.extract(model, corpus, layers=[0, 2], min_count=15, progress=False)
    assert TradeoffState(few).counts[0] == 15
    state = TradeoffState({"all": stats, "few": few}, counts=(3, None))
    state.model = "few"
    assert state.counts == (15, None)


def test_a_range_that_leaves_no_line_in_another_model_is_widened(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2], progress=False)
    most = int(few.n.max())
    state = TradeoffState({"all": stats, "few": few}, counts=(most + 1, None))
    state.model = "few"
    assert state.counts == (1, None) and state.fit["n_tokens"] == len(few)
    state.model, drawn = "all", state.drawn
    with pytest.raises(traitlets.TraitError, match="The range stays"):
        state.counts = (10**6, None)
    state.layer = 1
    assert state.drawn > drawn


def test_sites_of_one_pass_belong_to_one_model(sites):
    state = TradeoffState(sites, counts=(5, None))
    assert state.sources.keys() == {"minilm"}
    state.site = "unit"
    assert state.table()["Q"].to_numpy() == pytest.approx(1)


def test_anything_but_statistics_is_rejected(stats):
    for wrong in ({}, "minilm", {"a": 1}, {"a": {}}, [stats]):
        with pytest.raises(ek.StatisticsError, match="Give TokenStatistics"):
            TradeoffState(wrong)
        with pytest.raises(ek.StatisticsError, match="Give TokenStatistics"):
            LayerState(wrong)


def test_a_small_text_begins_with_all_its_tokens(stats):
    rare = stats.take(np.flatnonzero(stats.n < 10))
    state = TradeoffState(rare)
    assert state.counts == (1, None) and state.fit["n_tokens"] == len(rare)
    assert TradeoffState(stats).counts == (10, 100_000)
    with pytest.raises(ek.StatisticsError, match="No token occurs 10 to 100,000 times"):
        TradeoffState(rare, counts=(10, 100_000))


def test_a_small_text_begins_with_two_occurrences_for_the_unbiased_forms(stats):
    rare = stats.take(np.flatnonzero(stats.n < 10))
    sources = {"one": rare, "other": stats}
    for state in (
        TradeoffState(rare, unbiased=True),
        LayerState(rare, unbiased=True),
        LayerState(sources, unbiased=True),
        LinkedState(sources, unbiased=True),
    ):
        assert (state.counts, state.unbiased) == ((2, None), True)


@pytest.mark.parametrize(
    "named",
    [{"layer": 3}, {"marked": ["the"]}, {"counts": (4, 900)}, {"scales": "own"}, {"special": True}],
)
def test_what_is_not_named_stays_as_it_is(stats, named):
    state = TradeoffState({"one": stats, "other": stats}, layer=2)
    values = {
        "special": False, "sinks": False, "unbiased": True, "compare": 4, "counts": (3, 5_000),
        "only": ("characters", "letters"), "colour_by": "characters", "shaded": True,
        "scales": "log", "token": "of",
    }  # fmt: skip
    for name, value in values.items():
        setattr(state, name, value)
    before = state.values()
    state.restore(**named)
    assert state.values() == {**before, **named}
    with pytest.raises(traitlets.TraitError, match="start the range at 2"):
        state.restore(counts=(1, None))
    assert state.values() == {**before, **named}, "an unbiased form is not measured silently"


def test_another_model_that_is_restored_keeps_the_choice_of_tokens(stats):
    few = stats.take(np.flatnonzero(stats.n < 200))
    state = TradeoffState({"all": stats, "few": few}, layer=2)
    state.special, state.unbiased, state.counts, state.compare = False, True, (5, None), 4
    state.restore(model="few", layer=1)
    assert (state.model, state.layer, state.special, state.unbiased) == ("few", 1, False, True)
    assert (state.counts, state.compare) == ((5, None), None), "as when it is chosen by hand"
    by_hand = TradeoffState({"all": stats, "few": few}, layer=2)
    by_hand.special, by_hand.unbiased, by_hand.counts, by_hand.compare = False, True, (5, None), 4
    by_hand.model, by_hand.layer = "few", 1
    assert by_hand.values() == state.values()
