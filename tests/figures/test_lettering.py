"""Labels: any token can be written, and labels do not overlap if there is room."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from embvar_kit.figures.lettering import as_label, label_points, written


@pytest.mark.parametrize("token", ["$", "$x^$", "水", "\x00", "a_b", "\\frac", "Ġthe", "🙂", " "])
def test_any_token_can_be_drawn(token):
    figure, ax = plt.subplots()
    ax.text(0, 0, as_label(token))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        figure.draw_without_rendering()


def test_what_the_font_lacks_is_told_by_its_code():
    assert written("水") == r"\u6c34"
    assert written("ab") == "ab"
    assert (as_label("."), as_label("b.")) == ("‘.’", "b.")


def test_labels_keep_apart_and_point_at_their_points():
    x = np.array([0.5, 0.51, 0.49, 0.5, 0.2])
    y = np.array([0.5, 0.5, 0.5, 0.52, 0.9])
    figure, ax = plt.subplots(figsize=(6, 5))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    texts = ["alpha", "beta", "gamma", "delta", "epsilon"]
    label_points(ax, x, y, texts)
    assert [text.get_text() for text in ax.texts] == texts
    np.testing.assert_allclose([text.xy for text in ax.texts], np.column_stack([x, y]))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # of the text alone, without the line to its point
    boxes = [plt.Text.get_window_extent(text, renderer) for text in ax.texts]
    for at, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:at]) == 0
        assert ax.bbox.containsx(box.x0)
        assert ax.bbox.containsx(box.x1)


@pytest.mark.parametrize(("number", "spread"), [(30, 0.03), (40, 0.1), (60, 0.15)])
def test_labels_of_crowded_points_keep_apart(number, spread):
    """Points along a falling line, closer together than their labels are high."""
    rng = np.random.default_rng(0)
    x = 0.5 + spread * rng.normal(size=number)
    y = 1 - x + spread / 3 * rng.normal(size=number)
    figure, ax = plt.subplots(figsize=(6, 5.6))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    label_points(ax, x, y, [f"token{at}" for at in range(number)])
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [plt.Text.get_window_extent(text, renderer) for text in ax.texts]
    apart = np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes])
    assert sum(box.count_overlaps(boxes[:at]) for at, box in enumerate(boxes)) == 0
    inside = ax.bbox.extents
    assert (apart[:, :2] >= inside[:2]).all() and (apart[:, 2:] <= inside[2:]).all()
    points = ax.transData.transform(np.column_stack([x, y]))
    covered = (apart[:, None, :2] < points) & (points < apart[:, None, 2:])
    assert not covered.all(axis=2).any()
    for at, (text, box) in enumerate(zip(ax.texts, apart, strict=True)):
        gap = np.linalg.norm(np.maximum(0, np.maximum(box[:2] - points[at], points[at] - box[2:])))
        far = gap > 12 * figure.dpi / 72
        assert text.arrow_patch is not None or not far, "a line joins a far label to its point"


def test_points_at_one_place_have_labels_of_their_own():
    ax = plt.subplots()[1]
    ax.set(xlim=(0, 1), ylim=(0, 1))
    label_points(ax, np.full(3, 0.5), np.full(3, 0.5), ["one", "two", "three"])
    assert len({text.get_position() for text in ax.texts}) == 3
    label_points(ax, np.array([]), np.array([]), [])
    label_points(ax, np.array([0.1]), np.array([0.1]), ["alone"])
    assert ax.texts[-1].arrow_patch is None
