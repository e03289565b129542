"""What a retrieval sheet shows."""

import numpy as np
import pytest

from circle_tf.plots import figures, sheets

IMAGES = np.zeros([3, 8, 8, 1], np.uint8)
FOUND = np.array([[1, 2], [0, 2], [0, 1]])


def content(**changes):
    given = {
        "queries": IMAGES,
        "neighbours": IMAGES[FOUND],
        "similarities": [[0.91, 0.5], [0.91, 0.4], [0.5, -0.4]],
        "query_labels": [0, 0, 1],
        "neighbour_labels": np.array([0, 0, 1])[FOUND],
        "class_names": ["$x$", "a name longer than a cell"],
    }
    return given | changes


def sheet(**changes):
    given = content(**changes)
    return figures.retrieval_sheet(given.pop("queries"), given.pop("neighbours"), **given)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_right_and_wrong_are_told_apart_without_colour():
    figure = sheet()
    shown = texts(figure)
    assert "✓ 0.91" in shown
    assert "✗ 0.50\na name longer…" in shown and "✗ -0.40\n$x$" in shown
    frames = [line.get_linestyle() for line in figure.axes[0].lines]
    assert frames == ["-", "--", "-", "--", "--", "--"]


def test_names_of_classes_are_no_mathematics():
    figure = sheet(class_names=["a$b_c^$", r"$\nothing$"])
    assert figures.figure_to_image(figure).ndim == 3


def test_without_names_only_numbers_are_shown():
    assert "✗ 0.50" in texts(sheet(class_names=None))


def test_every_image_is_shown_whole_in_its_proportions():
    wide = np.zeros([3, 4, 8, 3], np.uint8)
    figure = sheet(queries=wide, neighbours=wide[FOUND], title="wide")
    images = figure.axes[0].images
    assert len(images) == 9 and figure.axes[0].get_title() == "wide"
    for image in images:
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"similarities": [[0.5]] * 3},
        {"similarities": [0.5] * 3},
        {"query_labels": [0, 0]},
        {"neighbour_labels": FOUND[:2]},
        {"neighbours": IMAGES[FOUND][:, :1]},
        {"queries": IMAGES[:2]},
    ],
)
def test_shapes_that_do_not_fit(changes):
    with pytest.raises(ValueError, match=r"A sheet needs queries \[Q, H, W, C\].*found"):
        sheets.Rows(**content(**changes))
