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
