"""The tokens whose means are nearest to that of the token whose card is open."""

from __future__ import annotations

import html

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import embvar_kit as ek
from embvar_kit.explorers import nearest


@pytest.fixture(scope="module")
def stats():
    """Statistics of the whole excerpt: those of a few sentences have hardly a number in them."""
    return ek.cached_statistics("minilm", progress=False)


def find(explorer, css):
    found, left = [], [explorer.view]
    while left:
        widget = left.pop()
        found += [widget] * (css in getattr(widget, "_dom_classes", ()))
        left += getattr(widget, "children", ())
    return found


@pytest.mark.parametrize("by", ["cosine", "distance"])
def test_the_nearest_means_are_those_of_all_pairs(stats, by, monkeypatch):
    monkeypatch.setattr(nearest, "_CHUNK", 100)
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    with pytest.raises(ek.StatisticsError, match="No card is open"):
        explorer.nearest()
    explorer.state.token = "the"
    for layer in (2, 5):
        explorer.state.layer = layer
        kept = np.flatnonzero((stats.n >= 5) & (stats.tokens != "the"))
        at = int(np.flatnonzero(stats.layers == layer)[0])
        own = stats.mean[at, np.flatnonzero(stats.tokens == "the")].astype(np.float64)
        means = stats.mean[at, kept].astype(np.float64)
        cosine, distance = 1 - cdist(means, own, "cosine")[:, 0], cdist(means, own)[:, 0]
        order = np.argsort(-cosine if by == "cosine" else distance)[:15]
        found = explorer.nearest(by=by, most=15)
        assert found["token"].tolist() == stats.tokens[kept][order].tolist()
        np.testing.assert_allclose(found["cosine"], cosine[order])
        np.testing.assert_allclose(found["distance"], distance[order])
        assert found["n"].tolist() == stats.n[kept][order].tolist()
    with pytest.raises(ek.StatisticsError, match="by='angle' is unknown"):
        explorer.nearest(by="angle")


def test_the_list_comes_with_a_card_and_follows_the_layer_and_the_filter(stats):
    explorer = ek.TradeoffExplorer(stats, counts=(5, None), layer=2)
    state = explorer.state
    assert not find(explorer, "embvar-nearest")
    state.token = "the"
    assert explorer.wait()
    (shown,), (title,) = find(explorer, "embvar-nearest"), find(explorer, "embvar-nearest-title")
    for change in ({"layer": 4}, {"only": ("characters", "digits")}, {"token": "of"}):
        for name, value in change.items():
            setattr(state, name, value)
        assert explorer.wait()
        assert [token for _, token in shown.options] == explorer.nearest()["token"].tolist()
        told = f"Nearest to the mean of '{state.token}' at layer {state.layer}, among the tokens "
        told += "shown:"
        assert html.unescape(title.value) == told
    (measure,) = find(explorer, "embvar-nearest-by")
    measure.value = "distance"
    assert explorer.wait()
    by_distance = explorer.nearest(by="distance")
    assert [token for _, token in shown.options] == by_distance["token"].tolist()
    first = by_distance.iloc[0]
    assert f"{first['cosine']:.3f}" in shown.options[0][0]
    shown.value = first["token"]
    assert state.token == first["token"] and state.marked == [first["token"]]
    state.clear()
    assert "Open a token's card" in html.unescape(title.value) and shown.options == ()


def test_compact_statistics_say_why_there_are_none(stats):
    explorer = ek.TradeoffExplorer(stats.compact(min_count=2), counts=(5, None), layer=2)
    explorer.state.token = "the"
    assert explorer.wait()
    (title,) = find(explorer, "embvar-nearest-title")
    assert "means, which were left out of these statistics" in title.value
    with pytest.raises(ek.StatisticsError, match="were left out of these statistics"):
        explorer.nearest()
