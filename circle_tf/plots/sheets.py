"""The layout of a retrieval sheet: which image, frame and caption goes where."""

import numpy as np

from circle_tf.plots import pixels

__all__ = ["Rows", "draw"]

# In units of a cell's side. Images are 1 wide; between them is room for frames, below for text.
_STEP, _QUERY_GAP = 1.14, 0.35
_HEIGHT_WITH_NAMES, _HEIGHT = 1.5, 1.36
_CELL_INCHES = 0.92
_LONGEST_NAME = 14


class Rows:
    """Checked content of a sheet.

    Args:
        queries: `[Q, H, W, C]` pixels.
        neighbours: `[Q, k, H, W, C]` pixels.
        similarities: `[Q, k]` cosines.
        query_labels: `[Q]` ids.
        neighbour_labels: `[Q, k]` ids.
        class_names: sequence of str, or None.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(
        self, queries, neighbours, similarities, query_labels, neighbour_labels, class_names
    ):
        self.queries, self.neighbours = pixels.as_rgb(queries), pixels.as_rgb(neighbours)
        self.similarities = np.asarray(similarities, float)
        self.query_labels = np.asarray(query_labels)
        self.neighbour_labels = np.asarray(neighbour_labels)
        self._class_names = class_names
        self._check()

    @property
    def shape(self):
        """`(Q, k)`."""
        return self.similarities.shape

    def figure_size(self, *, has_title):
        """Width and height in inches."""
        width, height = self.extent
        return _CELL_INCHES * width, _CELL_INCHES * height + 0.35 * has_title

    @property
    def step(self):
        """From one row to the next, in units of a cell's side."""
        return _HEIGHT if self._class_names is None else _HEIGHT_WITH_NAMES

    @property
    def extent(self):
        """Width and height in units of a cell's side."""
        count, k = self.shape
        return _STEP * (k + 1) + _QUERY_GAP, self.step * count + 0.55

    def name(self, label):
        """The name of a class, short enough for its cell; empty without names."""
        if self._class_names is None:
            return ""
        name = str(self._class_names[label])
        return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"

    def _check(self):
        count = len(self.queries)
        shapes = (self.neighbours.shape[:2], self.neighbour_labels.shape)
        fits = len(self.shape) == 2 and all(shape == self.shape for shape in shapes)
        if not (fits and self.shape[0] == count and self.query_labels.shape == (count,)):
            raise ValueError(
                "A sheet needs queries [Q, H, W, C], neighbours [Q, k, H, W, C], similarities "
                "[Q, k], query_labels [Q] and neighbour_labels [Q, k]; found "
                f"{[list(np.shape(x)) for x in self._given()]}."
            )

    def _given(self):
        pictures = (self.queries, self.neighbours)
        return (*pictures, self.similarities, self.query_labels, self.neighbour_labels)


def draw(figure, rows, *, title, colours, ink):
    """Draws a sheet.

    Args:
        figure: empty matplotlib figure of `rows.figure_size`.
        rows: `Rows`.
        title: str.
        colours: of right and of wrong neighbours.
        ink: colour of text.
    """
    width, height = rows.extent
    axes = figure.subplots()
    axes.set(xlim=(-0.1, width - 0.04), ylim=(height - 0.6, -0.55), aspect="equal")
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=12, color=ink)
    heading = {"ha": "center", "va": "bottom", "fontsize": 10, "color": ink}
    axes.text(0.5, -0.14, "query", **heading)
    axes.text((_left(0) + _left(rows.shape[1] - 1) + 1) / 2, -0.14, "nearest first →", **heading)
    for row in range(rows.shape[0]):
        _draw_row(axes, rows, row, colours=colours, ink=ink)


def _left(column):
    return _STEP * (column + 1) + _QUERY_GAP


def _draw_row(axes, rows, row, *, colours, ink):
    top = rows.step * row
    label = rows.query_labels[row]
    _draw_image(axes, rows.queries[row], left=0, top=top)
    _caption(axes, rows.name(label), left=0, top=top, colour=ink)
    for column, found in enumerate(rows.neighbour_labels[row]):
        is_right = found == label
        left, colour = _left(column), colours[0 if is_right else 1]
        _draw_image(axes, rows.neighbours[row, column], left=left, top=top)
        _frame(axes, left=left, top=top, colour=colour, dashed=not is_right)
        text = f"{'✓' if is_right else '✗'} {rows.similarities[row, column]:.2f}"
        name = "" if is_right else rows.name(found)
        _caption(axes, f"{text}\n{name}".strip(), left=left, top=top, colour=colour)


def _draw_image(axes, image, *, left, top):
    """Draws an image into a square cell, its proportions kept."""
    height, width = image.shape[:2]
    h, w = height / max(height, width), width / max(height, width)
    x, y = left + (1 - w) / 2, top + (1 - h) / 2
    axes.imshow(image, extent=(x, x + w, y + h, y), aspect="auto", zorder=2)


def _frame(axes, *, left, top, colour, dashed):
    x = np.array([0, 1, 1, 0, 0]) * 1.04 + left - 0.02
    y = np.array([0, 0, 1, 1, 0]) * 1.04 + top - 0.02
    axes.plot(x, y, "--" if dashed else "-", color=colour, linewidth=2.2, zorder=3)


def _caption(axes, text, *, left, top, colour):
    place = {"ha": "center", "va": "top", "fontsize": 9, "linespacing": 1.0}
    # Names come from the user's data: a dollar sign in them is no mathematics.
    axes.text(left + 0.5, top + 1.07, text, color=colour, parse_math=False, **place)
