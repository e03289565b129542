"""Retrieval sheets: what stands where, by its pixels, and what a figure of one shows."""

import itertools

import numpy as np
import pytest
from PIL import Image

from circle_tf.plots import figures, sheets

RED = np.full((8, 8, 3), (200, 10, 10), np.uint8)
GREY = np.full((8, 8, 1), 120, np.uint8)
COLOURS = {(200, 10, 10): "red", (120, 120, 120): "grey", (232, 232, 232): "empty"}


def _pictures(sheet):
    """The pictures that lines of the sheet cross from left to right, from the top to the bottom."""
    lines = []
    for line in sheet.tolist():
        crossed = itertools.groupby(COLOURS.get(tuple(pixel)) for pixel in line)
        lines.append(tuple(name for name, run in crossed if name and len(list(run)) > 50))
    return [names for names, _ in itertools.groupby(lines) if names]


def test_pictures_stand_in_their_cells(tmp_path):
    Image.fromarray(RED[:4]).save(tmp_path / "wide.png")
    rows = [
        [(RED, "query", None), (GREY, "0.9\na/1", True), (None, "0.8\na/2", False)],
        [(str(tmp_path / "wide.png"), "other", None), (GREY[..., 0], "1.0", True)],
    ]
    sheet = sheets.draw(rows)
    second = [("grey",), ("red", "grey"), ("grey",)]  # The wide picture is half as high.
    assert _pictures(sheet) == [("red", "grey", "empty"), *second]


def test_pictures_are_turned_as_their_camera_noted(tmp_path):
    noted = Image.Exif()
    noted[0x0112] = 6
    Image.fromarray(RED[:4]).save(tmp_path / "wide.png")
    Image.fromarray(RED[:4]).save(tmp_path / "high.png", exif=noted)
    wide, high = (
        sheets.draw([[(str(tmp_path / name), "", None)]]) for name in ("wide.png", "high.png")
    )
    red = [(sheet == (200, 10, 10)).all(axis=2) for sheet in (wide, high)]
    assert [cell.any(axis=1).sum() > cell.any(axis=0).sum() for cell in red] == [False, True]


def test_a_format_that_pillow_does_not_know_leaves_its_cell_empty(tmp_path):
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a")
    sheet = sheets.draw([[(RED, "query", None), (str(tmp_path / "a.jxl"), "0.9", None)]])
    assert _pictures(sheet) == [("red", "empty")]


def test_right_and_wrong_differ_without_their_colours():
    """A wrong one's frame is broken."""

    def painted(is_right):
        sheet = sheets.draw([[(GREY, "", is_right)]])
        return np.sum(np.any(sheet != bare, axis=2)[:-51])  # Above the caption and its sign.

    bare = sheets.draw([[(GREY, "", None)]])
    assert painted(True) > 1.3 * painted(False) > 0


def test_long_captions_end_in_their_cell():
    plain, long = (
        sheets.draw([[(RED, caption, None), (GREY, "", None)]]) for caption in ("", "x" * 300)
    )
    picture = np.flatnonzero((plain == (200, 10, 10)).all(axis=2).any(axis=0))
    written = np.flatnonzero((plain != long).any(axis=(0, 2)))
    assert picture[0] <= written[0] and written[-1] <= picture[-1] + 1
    assert len(written) > 0.8 * len(picture)


def test_a_long_title_ends_within_the_sheet():
    plain, titled = (
        sheets.draw([[(GREY, "a", None)]], title=title) for title in ("", "a title " * 9)
    )
    above = titled[: len(titled) - len(plain)]
    written = np.flatnonzero((above != 255).any(axis=(0, 2)))
    assert 18 <= written[0] and written[-1] < titled.shape[1] - 18
    np.testing.assert_array_equal(titled[len(above) + 18 :], plain[18:])


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


def rows(**changes):
    given = content(**changes)
    return sheets.retrieval_rows(given.pop("queries"), given.pop("neighbours"), **given)


def test_captions_name_the_query_and_wrong_neighbours():
    shown = [[cell[1:] for cell in row] for row in rows()]
    assert shown == [
        [("$x$", None), ("0.91", True), ("0.50\na name longer than a cell", False)],
        [("$x$", None), ("0.91", True), ("0.40\na name longer than a cell", False)],
        [("a name longer than a cell", None), ("0.50\n$x$", False), ("-0.40\n$x$", False)],
    ]


def test_without_names_only_numbers_are_shown():
    assert [cell[1] for cell in rows(class_names=None)[0]] == ["", "0.91", "0.50"]


def test_a_figure_has_the_pixels_of_the_sheet(tmp_path):
    given = content(title="wide")
    title = given.pop("title")
    expected = sheets.draw(rows(), title=title)
    figure = figures.retrieval_sheet(
        given.pop("queries"), given.pop("neighbours"), **given, title=title
    )
    np.testing.assert_array_equal(figures.figure_to_image(figure)[..., :3], expected)
    figures.save_png(figure, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), expected)


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
        rows(**changes)
