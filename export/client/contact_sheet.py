"""A picture of queries and what was found for them, by Pillow alone."""

import contextlib
import functools
import importlib.util
import os

import numpy as np

from circle_tf.utils import files

__all__ = ["draw", "save"]

_CELL, _GAP, _MARGIN, _CAPTION = 112, 14, 18, 34
_PAPER, _INK, _FAINT = "#ffffff", "#1a1a1a", "#6b6b6b"
_RIGHT, _WRONG, _EMPTY = "#1b7837", "#b2182b", "#e8e8e8"
_FONT_SIZE = 13


def save(path, rows):
    """Writes a sheet whole or not at all.

    Args:
        path: the file, `.png`.
        rows: as for `draw`.
    """
    sheet = draw(rows)
    with files.replacing(path) as partial, open(partial, "wb") as stream:
        sheet.save(stream, format="PNG", optimize=True)


def draw(rows):
    """Draws a sheet: a row per query, the query first, then the neighbours from the nearest on.

    Args:
        rows: list of lists of `(image, caption, is_right)`, the query first. `image` is a path,
            pixels `[H, W]`, `[H, W, 1]` or `[H, W, 3]` uint8, or None where there is no picture;
            `caption` is text below it, of one or two lines; `is_right` frames it in green, or
            broken red where it is False; None leaves the frame out.

    Returns:
        `PIL.Image.Image`.
    """
    from PIL import Image, ImageDraw

    columns = max(len(row) for row in rows)
    width = 2 * _MARGIN + columns * _CELL + columns * _GAP  # The query's gap is twice as wide.
    height = 2 * _MARGIN + len(rows) * (_CELL + _CAPTION) + (len(rows) - 1) * _GAP + _CAPTION
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, "query", left=_left(0), top=_MARGIN, colour=_FAINT)
    if columns > 1:
        _write(pen, "nearest first", left=_left(1), top=_MARGIN, colour=_FAINT)
    for number, row in enumerate(rows):
        top = _MARGIN + _CAPTION // 2 + 6 + number * (_CELL + _CAPTION + _GAP)
        for column, cell in enumerate(row):
            _draw_cell(sheet, pen, *cell, left=_left(column), top=top)
    return sheet


def _left(column):
    return _MARGIN + column * (_CELL + _GAP) + (_GAP if column else 0)


def _draw_cell(sheet, pen, image, caption, is_right, *, left, top):
    picture = None if image is None else _picture(image)
    if picture is None:
        pen.rectangle((left, top, left + _CELL, top + _CELL), fill=_EMPTY)
    else:
        x, y = ((_CELL - size) // 2 for size in picture.size)
        sheet.paste(picture, (left + x, top + y))
    colour = _INK
    if is_right is not None:
        colour = _RIGHT if is_right else _WRONG
        _frame(pen, left=left - 3, top=top - 3, size=_CELL + 5, colour=colour, broken=not is_right)
    for line, text in enumerate(caption.splitlines()[:2]):
        place = top + _CELL + 5 + line * (_FONT_SIZE + 2)
        _write(pen, text, left=left, top=place, colour=colour if line == 0 else _FAINT)


def _picture(image):
    """An image that fits into a cell, its proportions kept; small ones keep their pixels.

    None if Pillow does not know the format, as JPEG XL.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, np.ndarray):
        found = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).convert("RGB")
    else:
        try:
            with Image.open(image) as opened:
                found = opened.convert("RGB")
        except UnidentifiedImageError:
            return None
    scale = _CELL / max(found.size)
    size = [max(1, round(side * scale)) for side in found.size]
    return found.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)


def _frame(pen, *, left, top, size, colour, broken):
    right, bottom = left + size, top + size
    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
    if broken:  # Told from the whole frame without its colour.
        for at in range(0, size, 16):
            pen.rectangle((left + at, top, left + at + 5, top + 1), fill=_PAPER)
            pen.rectangle((left + at, bottom - 1, left + at + 5, bottom), fill=_PAPER)
            pen.rectangle((left, top + at, left + 1, top + at + 5), fill=_PAPER)
            pen.rectangle((right - 1, top + at, right, top + at + 5), fill=_PAPER)


def _write(pen, text, *, left, top, colour):
    font = _font()
    while text and pen.textlength(text, font=font) > _CELL:
        text = text[:-2] + "…" if text.endswith("…") else text[:-1] + "…"
    pen.text((left, top), text, fill=colour, font=font)


@functools.cache
def _font():
    """DejaVu Sans, which has most scripts, of the system or of matplotlib; else Pillow's own."""
    from PIL import ImageFont

    names = ["DejaVuSans.ttf"]
    if (found := importlib.util.find_spec("matplotlib")) is not None:
        folder = os.path.dirname(found.origin)
        names.append(os.path.join(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
    for name in names:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, _FONT_SIZE)
    return ImageFont.load_default(_FONT_SIZE)
