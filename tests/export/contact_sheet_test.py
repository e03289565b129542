"""Contact sheets: what stands where, by its pixels."""

import os

import numpy as np
import pytest
from PIL import Image

from export import contact_sheet

RED = np.full((8, 8, 3), (200, 10, 10), np.uint8)
GREY = np.full((8, 8, 1), 120, np.uint8)


def _at(sheet, *, column, row=0):
    """The colour in the middle of a cell."""
    x = contact_sheet._left(column) + contact_sheet._CELL // 2
    top = 18 + 23 + row * (contact_sheet._CELL + contact_sheet._CAPTION + contact_sheet._GAP)
    return sheet.getpixel((x, top + contact_sheet._CELL // 2))


def test_pictures_stand_in_their_cells(tmp_path):
    Image.fromarray(RED[:4]).save(tmp_path / "wide.png")
    rows = [
        [(RED, "query", None), (GREY, "0.9\na/1", True), (None, "0.8\na/2", False)],
        [(str(tmp_path / "wide.png"), "other", None), (GREY[..., 0], "1.0", True)],
    ]
    sheet = contact_sheet.draw(rows)
    assert [_at(sheet, column=column) for column in range(3)] == [
        (200, 10, 10),
        (120, 120, 120),
        (232, 232, 232),
    ]
    assert _at(sheet, column=0, row=1) == (200, 10, 10)
    assert _at(sheet, column=1, row=1) == (120, 120, 120)


def test_right_and_wrong_differ_without_their_colours():
    """A wrong one's frame is broken."""

    def painted(is_right):
        sheet = contact_sheet.draw([[(GREY, "", is_right)]])
        return np.sum(np.any(np.asarray(sheet) != np.asarray(bare), axis=2))

    bare = contact_sheet.draw([[(GREY, "", None)]])
    assert painted(True) > 1.3 * painted(False) > 0


def test_long_captions_end_in_their_cell():
    from PIL import ImageDraw

    sheet = contact_sheet.draw([[(GREY, "x" * 300, None), (GREY, "", None)]])
    gap = np.asarray(sheet)[:, contact_sheet._left(1) - 10 : contact_sheet._left(1)]
    assert np.all(gap[60:] == 255)
    assert ImageDraw.Draw(sheet).textlength("x" * 300, font=contact_sheet._font()) > 500


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
