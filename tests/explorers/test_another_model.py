"""Another model or site: the controls offer what it has, and the choices that fit it stay."""

import numpy as np
import pandas as pd
from explored import controls, find, statistics_of

import embvar_kit as ek
from embvar_kit.explorers.columns import Column
from embvar_kit.explorers.controls import CountsSlider
from embvar_kit.explorers.tradeoff_options import _Range

WORDS = ["the", "of", "and", "state", "rare"]


def named(name, **about):
    return {"model": {"name": name, "n_states": 3, **about}, "convention": {"by": "token"}}


def test_the_model_can_be_changed_while_two_layers_are_compared():
    deep = statistics_of(WORDS, layers=[0, 3, 5, 8, 11])
    flat = statistics_of(WORDS[1:], seed=1, n=8, layers=[0, 1])  # rarer than the range
    for only in (None, ("characters", "letters")):
        explorer = ek.TradeoffExplorer({"deep": deep, "flat": flat}, layer=8, compare=3, only=only)
        explorer.state.marked = ["the", "of"]
        for model, layer, marked in (("flat", 1, ["of"]), ("deep", 11, ["of"])):
            explorer.state.model = model
            state = explorer.state
            assert (state.model, state.layer, state.compare) == (model, layer, None)
            assert state.settled and state.marked == marked
            assert len(explorer.plot.widget.points) == len(state.points.n)
            assert f"{model}, layer {layer}" in find(explorer, "embvar-numbers").value
            assert list(explorer.plot.scatter.selection()) == list(state.points.indices_of(marked))
            state.compare = 0
            assert find(explorer, "embvar-compare").value == 0


def test_of_a_model_whose_vocabulary_cannot_be_had_the_colours_are_the_occurrences():
    one = statistics_of(WORDS, **named("minilm"))
    other = statistics_of(WORDS, seed=1, **named("smollm2", tokenizer="another"))
    explorer = ek.TradeoffExplorer({"one": one, "other": other}, recall=True, colour_by="piece")
    state = explorer.state
    assert "piece" in state.columns.offered(other)
    state.model = "other"
    assert (state.colour_by, state.settled) == ("n", True)
    assert find(explorer, "embvar-colour").value == "n"
    assert "other, layer" in find(explorer, "embvar-numbers").value
    np.testing.assert_array_equal(explorer.plot._shading.column.values, state.points.n)


def test_a_site_stays_where_another_model_lists_it_elsewhere():
    hidden, unit = statistics_of(WORDS), statistics_of(WORDS, seed=1)
    sites = {"hidden": hidden, "unit": unit}
    sources = {"a": sites, "b": {"norm_input": hidden, **sites}}
    single = ek.TradeoffExplorer(sources)
    pair = ek.LinkedExplorer(sources, right={"model": "a"})
    for explorer, state in ((single, single.state), (pair, pair.state.left)):
        site = next(one for one in controls(explorer) if "embvar-site" in one._dom_classes)
        state.site = "unit"
        state.model = "b"
        assert (state.site, site.value) == ("unit", "unit")
        assert site.options == ("norm_input", "hidden", "unit")
        site.value = "hidden"
        assert state.site == "hidden"


def test_sites_that_no_two_models_share_can_be_shown():
    sources = {
        "a": {"hidden": statistics_of(WORDS, layers=range(9))},
        "b": {
            "unit": statistics_of(WORDS, seed=1, layers=[0, 2]),
            "norm_input": statistics_of(WORDS),
        },
    }
    explorer = ek.TradeoffExplorer(sources, layer=4)
    find(explorer, "embvar-model").value = "b"
    state = explorer.state
    assert (state.site, state.layer) == ("unit", 0), "half as deep, the even one of two"
    site, layer = find(explorer, "embvar-site"), find(explorer, "embvar-layer")
    assert (site.value, layer.min, layer.max, layer.value) == ("unit", 0, 2, 0)
    find(explorer, "embvar-model").value = "a"
    assert (state.site, layer.max) == ("hidden", 8)


def test_a_filter_stays_where_other_columns_are_offered():
    one = statistics_of(WORDS, **named("minilm"))
    other = statistics_of([*WORDS, "7"], seed=1, **named("unknown"))
    explorer = ek.TradeoffExplorer({"one": one, "other": other}, recall=True)
    explorer.state.only = "characters", "letters"
    for model in ("other", "one"):
        explorer.state.model = model
        assert explorer.state.only == ("characters", "letters")
        assert find(explorer, "embvar-only-by").value == "characters"


def test_a_range_that_the_slider_does_not_offer_yet_is_shown_as_it_is():
    own = pd.Series([1.0, 2, 3, 40, 500], index=WORDS, name="rank")
    explorer = ek.TradeoffExplorer(statistics_of(WORDS), columns=own)
    state = explorer.state
    seen = []
    state.observe(lambda change: seen.append(change["new"]), "only")
    for only in (("rank", (1.0, 500.0)), ("rank", (1.25, 77.125))):
        state.only = only
        assert state.only == only and find(explorer, "embvar-only-range").value == only[1]
    assert seen == [("rank", (1.0, 500.0)), ("rank", (1.25, 77.125))]


def test_a_slider_with_other_options_is_never_seen_at_the_first_of_them(monkeypatch):
    """A key that was pressed in the browser while it was there left the range at the rarest."""
    told = []
    slider = CountsSlider(10, (10, None))
    only = _Range(Column("n", np.arange(1.0, 99.0), "n"), (2.0, 50.0), lambda only: None)
    for control in (slider, only):
        monkeypatch.setattr(control, "_send", lambda message, buffers=None: told.append(message))
    slider.admit((1, None), 1)
    only.show((3.3, 44.4))
    states = [message["state"] for message in told]
    assert [set(state) for state in states] == [{"_options_labels", "index"}] * 2
    assert states[0]["index"] == (0, len(slider.options) - 1)
    assert (slider.value, only.value) == ((1, None), (3.3, 44.4))
