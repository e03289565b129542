"""Retrieval sheets: queries, a row each, and what was found for them, drawn by Pillow.

Clients of a server draw with it too, so it imports neither TensorFlow nor matplotlib.
"""

import contextlib
import functools
import importlib.util
import os

import numpy as np

from circle_tf.plots import pixels

__all__ = ["draw", "retrieval_rows"]

# Pixels.
_CELL, _GAP, _MARGIN = 112, 14, 18
_FONT_SIZE, _LINE, _TITLE_SIZE = 13, 16, 17
_CAPTION = 2 * _LINE + 6
_PAPER, _INK, _FAINT, _EMPTY = "#ffffff", "#1a1a1a", "#5f5f5f", "#e8e8e8"
_RIGHT, _WRONG = "#1b7837", "#b2182b"


def draw(rows, *, title=""):
    """Draws a sheet: a row per query, the query first, then the neighbours from the nearest on.

    Args:
        rows: list of lists of `(image, caption, is_right)`, the query first. `image` is a path,
            pixels as `pixels.as_rgb` takes them or `[H, W]`, or None where there is no picture;
            `caption` is text below it, of one or two lines; `is_right` frames it in green and puts
            a tick before the caption, or broken red and a cross where it is False; None does
            neither.
        title: str, short.

    Returns:
        `[height, width, 3]` uint8. What is too long for its place has "…" in its middle.

    Example:
        >>> image = np.zeros([8, 8, 1], np.uint8)
        >>> draw([[(image, "query", None), (image, "0.91", True)]]).shape
        (208, 288, 3)
    """
    from PIL import Image, ImageDraw

    columns = max((len(row) for row in rows), default=1)
    above = _MARGIN + _LINE + 6 + (_TITLE_SIZE + 12 if title else 0)
    width = _left(columns) - _GAP + _MARGIN
    height = above + len(rows) * (_CELL + _CAPTION + _GAP) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    across = width - 2 * _MARGIN
    _write(pen, title, left=_MARGIN, top=_MARGIN - 4, width=across, size=_TITLE_SIZE)
    _write(pen, "query", left=_left(0), top=above - _LINE - 6, colour=_FAINT)
    if columns > 1:
        _write(pen, "nearest first", left=_left(1), top=above - _LINE - 6, colour=_FAINT)
    for number, row in enumerate(rows):
        top = above + number * (_CELL + _CAPTION + _GAP)
        for column, (image, caption, is_right) in enumerate(row):
            left = _left(column)
            _draw_picture(sheet, pen, image, left=left, top=top)
            if is_right is not None:
                _frame(pen, is_right, left=left - 3, top=top - 3)
            _draw_caption(pen, caption, is_right, left=left, top=top + _CELL + 5)
    return np.array(sheet)


def retrieval_rows(
    queries, neighbours, *, similarities, query_labels, neighbour_labels, class_names=None
):
    r"""The rows that `draw` takes, from arrays.

    Args:
        queries: `[Q, H, W, C]` pixels.
        neighbours: `[Q, k, H, W, C]` pixels, nearest first.
        similarities: `[Q, k]` cosines.
        query_labels: `[Q]` integer ids.
        neighbour_labels: `[Q, k]` integer ids.
        class_names: sequence of str, the name of label i at i; None: no names are shown.

    Returns:
        list of Q lists of 1 + k `(image, caption, is_right)`; the class of a neighbour is named
        where it is wrong.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> images = np.zeros([2, 8, 8, 1], np.uint8)
        >>> [(_, *query), (_, *found)] = retrieval_rows(
        ...     images[:1], images[None, 1:], similarities=[[0.5]], query_labels=[0],
        ...     neighbour_labels=[[1]], class_names=["a", "b"])[0]
        >>> query, found
        (['a', None], ['0.50\nb', False])
    """
    queries, neighbours = pixels.as_rgb(queries), pixels.as_rgb(neighbours)
    similarities = np.asarray(similarities, float)
    query_labels, neighbour_labels = np.asarray(query_labels), np.asarray(neighbour_labels)
    shape = (*queries.shape[:1], *similarities.shape[1:2])
    per_neighbour = (similarities.shape, neighbours.shape[:2], neighbour_labels.shape)
    if len(shape) != 2 or {*per_neighbour} != {shape} or query_labels.shape != shape[:1]:
        given = (queries, neighbours, similarities, query_labels, neighbour_labels)
        raise ValueError(
            "A sheet needs queries [Q, H, W, C], neighbours [Q, k, H, W, C], similarities "
            "[Q, k], query_labels [Q] and neighbour_labels [Q, k]; found "
            f"{[list(values.shape) for values in given]}."
        )

    def name(label):
        return "" if class_names is None else " ".join(str(class_names[label]).split())

    rows = []
    for query, label, *found in zip(
        queries, query_labels, neighbours, neighbour_labels, similarities, strict=True
    ):
        row = [(query, name(label), None)]
        for image, other, similarity in zip(*found, strict=True):
            caption = f"{similarity:.2f}" + ("" if other == label else f"\n{name(other)}")
            row.append((image, caption.strip(), bool(other == label)))
        rows.append(row)
    return rows


def _left(column):
    """Where a column begins; the query's gap is twice as wide."""
    return _MARGIN + column * (_CELL + _GAP) + (_GAP if column else 0)


def _draw_picture(sheet, pen, image, *, left, top):
    """An image in its cell, its proportions kept; small ones keep their pixels."""
    from PIL import Image

    picture = _opened(image)
    if picture is None:
        pen.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_EMPTY)
        return
    scale = _CELL / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    sampling = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    x, y = ((_CELL - side) // 2 for side in size)
    sheet.paste(picture.resize(size, sampling), (left + x, top + y))


def _opened(image):
    """A Pillow image; None without one, or of a format that Pillow does not know, as JPEG XL."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if image is None:
        return None
    if isinstance(image, np.ndarray):
        return Image.fromarray(pixels.as_rgb(image[..., None] if image.ndim == 2 else image))
    try:
        with Image.open(image) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError:
        return None


def _frame(pen, is_right, *, left, top):
    """Whole or, so that it is told without its colour, broken."""
    right, bottom = left + _CELL + 5, top + _CELL + 5
    pen.rectangle((left, top, right, bottom), outline=_RIGHT if is_right else _WRONG, width=2)
    if is_right:
        return
    for at in range(5, _CELL, 12):
        pen.rectangle((left + at, top, left + at + 4, top + 1), fill=_PAPER)
        pen.rectangle((left + at, bottom - 1, left + at + 4, bottom), fill=_PAPER)
        pen.rectangle((left, top + at, left + 1, top + at + 4), fill=_PAPER)
        pen.rectangle((right - 1, top + at, right, top + at + 4), fill=_PAPER)


def _draw_caption(pen, caption, is_right, *, left, top):
    """One or two lines, the first after a tick or a cross."""
    first, second = (*caption.splitlines(), "", "")[:2]
    colour = {None: _INK, True: _RIGHT, False: _WRONG}[is_right]
    indent = 0
    if is_right is not None:
        # By lines: few fonts have these signs.
        indent, low, high = 15, top + 12, top + 3
        strokes = [((0, low - 4), (4, low), (11, high))]
        if not is_right:
            strokes = [((1, high), (10, low)), ((1, low), (10, high))]
        for stroke in strokes:
            pen.line([(left + x, y) for x, y in stroke], fill=colour, width=2)
    _write(pen, first, left=left + indent, top=top, width=_CELL - indent, colour=colour)
    _write(pen, second, left=left, top=top + _LINE, colour=_FAINT)


def _write(pen, text, *, left, top, width=_CELL, size=_FONT_SIZE, colour=_INK):
    font, shown, kept = _font(size), text, len(text)
    while kept and pen.textlength(shown, font=font) > width:
        kept -= 1  # Of the middle: paths begin alike, and names may end alike.
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    pen.text((left, top), shown, fill=colour, font=font)


@functools.cache
def _font(size):
    """DejaVu Sans, which has most alphabets, of the system or of matplotlib; else Pillow's own."""
    from PIL import ImageFont

    names = ["DejaVuSans.ttf"]
    if (found := importlib.util.find_spec("matplotlib")) is not None:
        folder = os.path.dirname(found.origin)
        names.append(os.path.join(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
    for name in names:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
