"""Contact sheets: what stands where, by its pixels."""

import itertools
import os

import numpy as np
import pytest
from PIL import Image

from export.client import contact_sheet

RED = np.full((8, 8, 3), (200, 10, 10), np.uint8)
GREY = np.full((8, 8, 1), 120, np.uint8)


COLOURS = {(200, 10, 10): "red", (120, 120, 120): "grey", (232, 232, 232): "empty"}


def _pictures(sheet):
    """The pictures that lines of the sheet cross from left to right, from the top to the bottom."""
    lines = []
    for line in np.asarray(sheet).tolist():
        crossed = itertools.groupby(COLOURS.get(tuple(pixel)) for pixel in line)
        lines.append(tuple(name for name, run in crossed if name and len(list(run)) > 50))
    return [names for names, _ in itertools.groupby(lines) if names]


def test_pictures_stand_in_their_cells(tmp_path):
    Image.fromarray(RED[:4]).save(tmp_path / "wide.png")
    rows = [
        [(RED, "query", None), (GREY, "0.9\na/1", True), (None, "0.8\na/2", False)],
        [(str(tmp_path / "wide.png"), "other", None), (GREY[..., 0], "1.0", True)],
    ]
    sheet = contact_sheet.draw(rows)
    first = [("red", "grey", "empty"), ("empty",)]  # Whose box is a line higher.
    second = [("grey",), ("red", "grey"), ("grey",)]  # The wide picture is half as high.
    assert _pictures(sheet) == first + second


def test_a_format_that_pillow_does_not_know_leaves_its_cell_empty(tmp_path):
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a")
    sheet = contact_sheet.draw([[(RED, "query", None), (str(tmp_path / "a.jxl"), "0.9", None)]])
    assert _pictures(sheet) == [("red", "empty"), ("empty",)]


def test_right_and_wrong_differ_without_their_colours():
    """A wrong one's frame is broken."""

    def painted(is_right):
        sheet = contact_sheet.draw([[(GREY, "", is_right)]])
        return np.sum(np.any(np.asarray(sheet) != np.asarray(bare), axis=2))

    bare = contact_sheet.draw([[(GREY, "", None)]])
    assert painted(True) > 1.3 * painted(False) > 0


def test_long_captions_end_in_their_cell():
    plain, long = (
        np.asarray(contact_sheet.draw([[(RED, caption, None), (GREY, "", None)]]))
        for caption in ("", "x" * 300)
    )
    picture = np.flatnonzero((plain == (200, 10, 10)).all(axis=2).any(axis=0))
    written = np.flatnonzero((plain != long).any(axis=(0, 2)))
    assert picture[0] <= written[0] and written[-1] <= picture[-1] + 1
    assert len(written) > 0.8 * len(picture)


def test_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    contact_sheet.save(path, [[(GREY, "a", None)]])
    with Image.open(path) as found:
        assert found.format == "PNG"
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        contact_sheet.save(path, [[(RED, "a", None)]])
    assert os.listdir(tmp_path) == ["sheet.png"] and path.read_bytes() == before
