"""Figures and explorer of layer normalization draw what the analysis says."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import traitlets
from explored import answer_of, find
from PIL import Image
from tiny_models import SENTENCES

import embvar_kit as ek
from embvar_kit import analysis, figures
from embvar_kit.explorers.tables import decimal
from embvar_kit.figures.tradeoff import fit_text


@pytest.fixture(scope="module")
def measured(tiny):
    """A model whose γ and β are not 1 and 0, its moments by dimension, and its norms' inputs."""
    model = ek.load_model(tiny("bert"), device="cpu")
    random = np.random.default_rng(0)
    for state in model.norms:
        part = model.module.get_submodule(state.norm.module)
        for weight in part.parameters():
            weight.data += weight.data.new_tensor(random.normal(0, 0.3, weight.shape))
        state.norm.gamma[:], state.norm.beta[:] = part.weight.numpy(), part.bias.numpy()
    corpus = ek.Corpus.of(SENTENCES)
    parts = ek.affine_moments(model, corpus, [1, 2], min_count=2)
    inputs = ek.extract(model, corpus, layers=[1, 2], site="norm_input", progress=False)
    outputs = ek.extract(model, corpus, layers=[1, 2], site="norm_output", progress=False)
    return parts, inputs, outputs


def test_the_geometry_is_a_circle_with_the_means_inside():
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal([3, 1, 0], 0.3, (40, 3)), random.normal(1, 1, (40, 3))])
    groups = np.repeat([0, 1], 40)
    figure = figures.layer_norm_geometry(x, groups, [1.3, 0.6, 0.9], [0.5, -0.2, 0.3])
    circle = next(ax for ax in figure.axes if ax.name != "3d")
    assert circle.patches[0].radius == pytest.approx(np.sqrt(3))
    points = np.concatenate([np.asarray(c.get_offsets()) for c in circle.collections])
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.sqrt(3), rtol=1e-4)
    texts = [text.get_text() for text in circle.get_legend().get_texts()]
    for group, text in zip((0, 1), texts, strict=True):
        centred = x[groups == group] - x[groups == group].mean(1, keepdims=True)
        z = centred / centred.std(1, keepdims=True)
        M, V = (z.mean(0) ** 2).sum(), z.var(0).sum()
        assert f"$M$ = {M:.2f}, $V$ = {V:.2f}" in text
    whole = [ax for ax in figure.axes if ax.name == "3d"]
    for ax in whole:  # the circle is open, not a line: its normal is (1, 1, 1)
        elev, azim = np.radians([ax.elev, ax.azim])
        towards = [np.cos(elev) * np.cos(azim), np.cos(elev) * np.sin(azim), np.sin(elev)]
        assert np.sum(towards) / np.sqrt(3) > 0.7
    assert whole[1].texts[0].get_text().strip() == r"$\beta$"
    assert len(whole[1].lines) == len(whole[0].lines) + 1  # the circle before γ and β
    with pytest.raises(ek.StatisticsError, match=r"\(N, 3\) vectors, not for \(80, 2\)"):
        figures.layer_norm_geometry(x[:, :2], groups, [1, 1, 1], [0, 0, 0])


def test_the_mixture_runs_from_the_theorem_to_the_model(measured):
    parts, _, outputs = measured
    figure = figures.affine_mixture(parts)
    slopes, r2 = figure.axes[:2], figure.axes[2:]
    trained = outputs.tradeoff(min_count=2)
    for ax, below, row in zip(slopes, r2, trained.itertuples(), strict=True):
        assert ax.get_title() == f"layer {row.layer}"
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        for name in ("γ alone", "β alone", "γ and β"):
            assert lines[name][0] == pytest.approx(-1, abs=1e-3)
        assert lines["γ and β"][-1] == pytest.approx(row.slope, abs=1e-3)
        assert below.lines[0].get_ydata()[-1] == pytest.approx(row.r2, abs=1e-3)
        assert ax.lines[0].get_linewidth() > 2 * ax.lines[1].get_linewidth()  # seen under it
    assert len(figures.affine_mixture(parts[1]).axes) == 2


def test_bends_are_drawn_the_largest_first(measured):
    part = measured[0][2]
    left, right = figures.bends(part, top=5).axes
    table = part.by_dimension()
    widths = [bar.get_width() for bar in left.patches]
    np.testing.assert_allclose(widths, table["bend"].head(5))
    assert left.get_yticklabels()[0].get_text().startswith(f"{table['dimension'][0]}: γ")
    x, slopes = right.lines[0].get_data()
    assert slopes[0] == pytest.approx(part.tradeoff().slope)
    assert x[-1] == 32 and slopes[-1] == pytest.approx(-1, abs=1e-3)


def test_curves_are_those_of_the_training():
    losses = pd.DataFrame(
        {
            "twin": ["a", "a", "b", "b"],
            "tokens": [2e6, 4e6, 2e6, 4e6],
            "train": [8.0, 6.0, 8.0, np.nan],
            "held_out": [np.nan, 6.5, np.nan, 7.0],
        }
    )
    ax = figures.training_curves(losses, {"unigram": 6.9})
    drawn = {line.get_label(): line.get_data() for line in ax.lines}
    np.testing.assert_allclose(drawn["a"], [[4.0], [6.5]])
    np.testing.assert_allclose(drawn["b"], [[4.0], [7.0]])
    assert any(text.get_text().strip() == "unigram" for text in ax.texts)


def test_twins_are_drawn_with_the_range_of_their_seeds():
    shape = pd.MultiIndex.from_product(
        [("a", "b"), (0, 1, 2), ("trained", "untrained"), ("hidden", "norm_input"), (0, 1)],
        names=["twin", "seed", "weights", "site", "layer"],
    )
    values = np.random.default_rng(0).uniform(-1, 0, (len(shape), 2))
    table = pd.DataFrame(values, index=shape, columns=["slope", "r2"]).reset_index()
    table["tokens"] = "all"
    drawn = figures.twins_by_layer(table)
    assert [ax.get_title().rpartition(", ")[2] for ax in drawn.axes] == [
        *["trained"] * 2,
        *["untrained"] * 2,
    ]
    own = table.query("twin == 'b' and weights == 'untrained' and site == 'hidden'")
    seeds = own.groupby("layer")["slope"]
    slopes, fits = drawn.axes[::2], drawn.axes[1::2]
    assert slopes[0].get_ylim() == slopes[1].get_ylim() and fits[0].get_ylim() == fits[1].get_ylim()
    for ax in slopes:  # nothing of either is cut off
        low, high = ax.get_ylim()
        assert low < min(table["slope"].min(), -1) and table["slope"].max() < high
    line, _, (bars,) = drawn.axes[2].containers[1]
    np.testing.assert_allclose(line.get_ydata(orig=False), seeds.mean())
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, np.column_stack([seeds.min(), seeds.max()]))
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["a", "b"]
    # Seeds that agree have no range, though the mean of three times -0.1 is not quite -0.1.
    figures.twins_by_layer(table.assign(slope=-0.1, r2=0.1))
    with pytest.raises(ek.StatisticsError, match="no rows of site 'unit' and tokens 'all'"):
        figures.twins_by_layer(table, site="unit")


def test_the_bench_says_what_the_analysis_says(measured):
    parts, inputs, outputs = measured
    bench = ek.NormalizationBench(parts, inputs)
    state = bench.state
    assert state.layer == 1
    trained = outputs.tradeoff(min_count=2).set_index("layer")
    before = inputs.tradeoff(min_count=2).set_index("layer")
    assert state.lines["norm_output"].slope == pytest.approx(trained.loc[1, "slope"], abs=1e-3)
    assert state.lines["norm_input"].slope == pytest.approx(before.loc[1, "slope"])
    assert state.lines["standardized"].slope == pytest.approx(-1, abs=1e-3)
    state.gamma = state.beta = 0
    assert state.lines["norm_output"] == state.lines["standardized"]
    state.layer, state.gamma = 2, 0.5
    assert state.lines["norm_output"] == parts[2].tradeoff(0.5, 0)
    assert isinstance(state.lines["norm_input"], analysis.Tradeoff)


def test_the_bench_is_tied_both_ways_and_redrawn(measured):
    parts, inputs, _ = measured
    bench = ek.NormalizationBench(parts, inputs)
    controls = {css: c for c in bench.view.children[0].children for css in c._dom_classes}
    picture, numbers = find(bench, "embvar-picture"), find(bench, "embvar-numbers")
    first, said = picture.value, numbers.value
    controls["embvar-gamma"].value = 0.3
    assert bench.wait() and bench.state.gamma == 0.3
    assert picture.value != first and numbers.value != said
    assert decimal(parts[1].tradeoff(0.3, 1).slope) in numbers.value
    bench.state.layer = 2
    assert bench.wait() and controls["embvar-layer"].value == 2
    assert bench.still().startswith(b"\x89PNG")
    # A state looks the same when it returns, whatever was drawn in between.
    for name, away, back in (("gamma", 0.0, 0.3), ("layer", 1, 2)):
        before = bench.still()
        setattr(bench.state, name, away)
        assert bench.wait() and bench.still() != before
        setattr(bench.state, name, back)
        assert bench.wait() and bench.still() == before
    bundle, _ = bench._repr_mimebundle_()
    assert "image/png" in bundle and "need a running notebook" in bundle["text/plain"]


def test_the_bench_names_its_layer_and_its_middle_line_stays_in_frame(measured):
    parts, inputs, _ = measured
    bench = ek.NormalizationBench(parts, inputs)
    for layer in parts:
        bench.state.layer = layer
        assert bench.wait()
        assert find(bench, "embvar-numbers").value.startswith(f"<b>layer {layer}</b>")
        blitted, axes = bench._figure_of(layer, bench._form())
        assert blitted.figure.get_suptitle() == f"layer {layer}"
        (line,) = axes[1].lines
        (left, right), (low, high) = axes[1].get_xlim(), axes[1].get_ylim()
        M, V = line.get_data()
        assert left <= M.min() and M.max() < right and low <= V.min() and V.max() < high
        (colours,) = (ax for ax in blitted.figure.axes if ax not in axes)
        box = colours.get_position()
        assert box.width > 4 * box.height, "it lies below the plots, so that these may be wider"


def test_what_the_bench_shows_comes_out_by_buttons(measured):
    parts, inputs, _ = measured
    bench = ek.NormalizationBench(parts, inputs)
    bench.state.restore(layer=2, gamma=0.5)
    downloads = find(bench, "embvar-downloads")
    message, (content,) = answer_of(downloads, "CSV")
    assert message["name"] == "bench-layer2-gamma0.5-beta1.csv"
    read = pd.read_csv(io.BytesIO(content)).set_index("site")
    assert list(read.index) == list(bench.state.lines) and set(read["gamma"]) == {0.5}
    for site, line in bench.state.lines.items():
        for name in ("n_tokens", "slope", "intercept", "r2", "cv_Q"):
            assert read.loc[site, name] == pytest.approx(getattr(line, name), rel=1e-12)
    pd.testing.assert_frame_equal(read.reset_index()[bench.numbers.columns], bench.numbers)
    axes = [ax for ax in bench.figure().axes if ax.get_title()]
    assert [ax.get_title().split("\n")[1] for ax in axes] == [
        fit_text(line) for line in bench.state.lines.values()
    ]
    drawn = axes[2].collections[0].get_offsets()
    mixed = parts[2].mixed(0.5, 1)
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(mixed["M"]))
    message, (content,) = answer_of(downloads, "PNG")
    assert Image.open(io.BytesIO(content)).width > 1800
    _, (content,) = answer_of(downloads, "SVG")
    assert content.startswith(b"<?xml") and len(content) < 3e6
    again = ek.NormalizationBench(parts, inputs)
    exec(answer_of(downloads, "code")[0]["code"], {"explorer": again})
    assert again.state.values() == bench.state.values()


def test_the_bench_refuses_what_makes_no_sense(measured):
    parts, inputs, _ = measured
    bench = ek.NormalizationBench(parts, inputs)
    with pytest.raises(traitlets.TraitError, match="there are 1, 2"):
        bench.state.layer = 0
    with pytest.raises(traitlets.TraitError):
        bench.state.gamma = 1.5
    with pytest.raises(ek.StatisticsError, match="no layer"):
        ek.NormalizationBench({}, inputs)
    with pytest.raises(ek.StatisticsError, match="lack"):
        ek.NormalizationBench(parts, inputs.without([str(parts[1].tokens[0])]))
