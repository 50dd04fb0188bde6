"""The layer explorer: its pictures, tooltips and sliders follow the state."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from explored import answer_of, controls, find, picture, tradeoff_of_tokens
from PIL import Image

import embvar_kit as ek
from embvar_kit.explorers.links import query_of


def test_tooltips_cover_each_layers_bar_and_show_its_numbers(stats):
    explorer = ek.LayerExplorer({"one": stats, "other": stats})
    assert explorer.wait()
    areas = explorer._tooltip.areas
    parts = explorer.state.parts("one")
    assert len(areas) == 2 * len(parts)
    image = np.asarray(Image.open(io.BytesIO(explorer._picture.value)).convert("RGB"))
    for at, row in enumerate(parts.itertuples(index=False)):
        left, upper, right, lower, text = areas[at]
        assert text.startswith(f"one, layer {row.layer}\n")
        assert f"V_B/Q = {row.V_B / row.Q:.3f}" in text
        x, y = (left + right) / 2 * image.shape[1], (upper + (lower - upper) * 0.9) * image.shape[0]
        assert image[int(y), int(x)].std() > 10, "a bar is coloured, the background is not"
    first, second = areas[0], areas[len(parts)]
    assert first[2] < second[0], "the second model's panel is to the right of the first's"
    explorer.state.of = "V"
    assert explorer.wait()
    assert "V_W/V" in explorer._tooltip.areas[0][4]


def test_a_click_on_a_bar_selects_its_layer(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 2, 3], progress=False)
    explorer = ek.LayerExplorer({"one": stats, "other": few}, counts=(3, None))
    assert explorer.wait()
    for at, (*_, text) in enumerate(explorer._tooltip.areas):
        explorer._tooltip._handle_custom_msg({"clicked": at}, [])
        name, layer = re.match(r"(\w+), layer (\d+)", text).groups()
        assert explorer.state.numbers().loc[name, "layer"] == int(layer)


def test_pictures_of_all_layers_are_prefetched_once(stats):
    explorer = ek.LayerExplorer(stats)
    assert explorer.wait()
    assert explorer.pictures.computed == len(stats.layers)
    shown = find(explorer, "embvar-picture")
    seen = set()
    for layer in stats.layers:
        find(explorer, "embvar-layer").value = int(layer)
        seen.add(picture(shown))
    assert len(seen) == len(stats.layers) == explorer.pictures.computed
    assert f">{stats.layers[-1]}</td>" in find(explorer, "embvar-numbers").value
    before = picture(shown)
    find(explorer, "embvar-of").value = "V"
    assert explorer.wait() and picture(shown) != before
    find(explorer, "embvar-of").value = "Q"
    assert picture(shown) == before  # cached


def test_models_of_different_depth_are_drawn_at_relative_depth(stats, model):
    few = ek.extract(model, ek.load_corpus("wikipedia", limit=60), layers=[0, 3], progress=False)
    explorer = ek.LayerExplorer({"all": stats, "few": few}, counts=(3, None))
    state = explorer.state
    state.step = 6
    assert state.numbers()["layer"].tolist() == [6, 3]
    assert state.relative() and state.depth("few").tolist() == [0, 1]
    state.shown = ["few"]
    assert (state.steps(), state.step, state.relative()) == (2, 1, False)
    slider, play = find(explorer, "embvar-layer"), find(explorer, "embvar-play")
    assert (slider.options, slider.value, play.max) == ((("0", 0), ("3", 1)), 1, 1)
    state.shown = ["all", "few"]
    assert [text for text, _ in slider.options] == [f"{at / 6:.2f}" for at in range(7)]
    assert (slider.description, slider.value, state.step, play.value) == ("depth", 1, 1, 1)
    slider.value = 6
    assert state.step == play.value == 6
    assert explorer.wait()
    picture(find(explorer, "embvar-picture"))


def test_a_total_of_zero_has_no_shares():
    made = tradeoff_of_tokens(["a", "b"], same=True)
    explorer = ek.LayerExplorer(made, of="V")
    assert explorer.wait()
    assert find(explorer, "embvar-message").value == ""
    assert find(explorer, "embvar-numbers").value.count("<b>undefined</b>") == 2
    ((*_, told),) = explorer._tooltip.areas
    assert told.endswith("V_B/V = undefined   V_W/V = undefined")


def test_figure_and_numbers_of_all_layers_come_out(stats):
    explorer = ek.LayerExplorer({"one": stats, "other": stats}, counts=(5, None), of="V", step=2)
    downloads = find(explorer, "embvar-downloads")
    message, (content,) = answer_of(downloads, "CSV")
    assert message["name"] == "layers-one-other-V.csv"
    read = pd.read_csv(io.BytesIO(content))
    assert read["model"].tolist() == ["one"] * len(stats.layers) + ["other"] * len(stats.layers)
    wanted = stats.decomposition(min_count=5, max_count=None)
    for name in ("layer", "Q", "M", "V", "V_W", "V_B"):
        np.testing.assert_allclose(read[name][: len(wanted)], wanted[name], rtol=1e-12)
    np.testing.assert_allclose(read["V_W/V"], read["V_W"] / read["V"])
    pd.testing.assert_frame_equal(read, explorer.numbers, check_dtype=False, rtol=1e-12)
    message, (content,) = answer_of(downloads, "PNG")
    assert Image.open(io.BytesIO(content)).width > 1500
    message, (content,) = answer_of(downloads, "SVG")
    assert message["type"] == "image/svg+xml" and b"share of" in content
    frames = [
        [one for one in ax.patches if not one.get_fill()] for ax in explorer.figure().axes[:2]
    ]
    assert [len(found) for found in frames] == [1, 1]
    for (frame,) in frames:
        assert frame.get_x() + frame.get_width() / 2 == pytest.approx(2), "the layer selected"


def test_the_layer_explorer_comes_back_by_code_and_by_link(stats, monkeypatch):
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/?token=secret")

    def made():
        return ek.LayerExplorer({"one": stats, "other": stats})

    explorer = made()
    explorer.state.restore(shown=["other"], of="V", counts=(5, None), unbiased=True, step=3)
    values = explorer.state.values()
    assert (values["shown"], values["step"], values["sinks"]) == (["other"], 3, True)
    again = made()
    exec(answer_of(find(explorer, "embvar-downloads"), "code")[0]["code"], {"explorer": again})
    assert again.state.values() == values and again.state.setting == explorer.state.setting
    message, _ = answer_of(find(explorer, "embvar-downloads"), "link")
    again = made()
    again.follow_link(message["query"])
    assert again.state.values() == values and find(again, "embvar-message").value == ""
    for query, why in (
        ("layers=%7B%22step%22:99%7D", "step=99"),
        ("layers=%7B%22shown%22:[%22no<b>%22]%7D", "&#x27;no&lt;b&gt;&#x27;"),
        ("layers=%7B%22shown%22:[]%7D", "shown"),
        ("layers=%7B%22counts%22:[1,null]%7D", "start the range at 2"),
        ("layers=%7B%22counts%22:5%7D", "counts"),
        ("layers=%7B%22of%22:%22M%22,%22step%22:1%7D", "of"),
        ("layers=%7B%22colour%22:1%7D", "no value &#x27;colour&#x27;"),
        ("layers=[1]", "no values by name"),
        ("layers=" + 20_000 * "[", "nested too deeply"),
    ):
        again.follow_link(query)
        assert again.state.values() == values
        told = find(again, "embvar-message").value
        assert told.startswith("The link cannot be followed. ") and why in told, told
    again.follow_link(message["query"])
    assert find(again, "embvar-message").value == "", "a good link clears it"


def test_the_models_asked_for_are_shown_whichever_were_before(stats):
    explorer = ek.LayerExplorer({"a": stats, "b": stats, "c": stats}, shown=["a"])
    boxes = [box for box in controls(explorer) if "embvar-shown" in box._dom_classes]
    for ask in (
        lambda names: explorer.state.restore(shown=names),
        lambda names: setattr(explorer.state, "shown", names),
        lambda names: explorer.follow_link(query_of("layers", {"shown": names})),
    ):
        for names in (["c"], ["b"], ["a", "c"], ["b"]):
            ask(names)
            assert explorer.state.shown == names == list(explorer.state.setting.shown)
            assert [box.description for box in boxes if box.value] == names
    boxes[1].value, boxes[0].value, boxes[0].value = True, True, False
    assert explorer.state.shown == ["b"]
    boxes[1].value = False
    assert explorer.state.shown == ["b"] and boxes[1].value, "the last one stays"
