"""What figures are drawn on: their own canvas, plain panels, colours everybody tells apart."""

import importlib

import numpy as np

__all__ = ["BLUE", "GREY", "ORANGE", "PNG_DPI", "draw_histogram", "grid", "new_figure", "row"]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
PNG_DPI = 130


def new_figure(*, size, dpi=100, layout="compressed"):
    """An empty figure on its own canvas.

    Args:
        size: `(width, height)` in inches.
        dpi: int, pixels per inch.
        layout: matplotlib's layout engine, or None.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _import_matplotlib("figure").Figure(size, dpi=dpi, layout=layout)
    _import_matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    return figure


def row(count, *, size):
    """A figure with panels side by side.

    Args:
        count: int.
        size: `(width, height)` of a panel in inches.

    Returns:
        `(figure, list of axes)`.
    """
    figure, panels = grid(1, count, size=size)
    return figure, panels[0]


def grid(rows, columns, *, size):
    """A figure with panels in rows and columns.

    Args:
        rows: int.
        columns: int.
        size: `(width, height)` of a panel in inches.

    Returns:
        `(figure, list of lists of axes)`.
    """
    figure = new_figure(size=(columns * size[0], rows * size[1]))
    panels = [list(found) for found in figure.subplots(rows, columns, squeeze=False)]
    for panel in sum(panels, []):
        panel.grid(color="#e6e6e6", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    return figure, panels


def draw_histogram(panel, values, *, bins, colour, hatch, name, weights=None):
    """The share of values in each bin, in percent.

    Args:
        panel: axes.
        values: `[N]` floats.
        bins: `[B + 1]` edges.
        colour: str.
        hatch: str, or None.
        name: str, for the legend.
        weights: `[N]`, how often each value counts; None for once.
    """
    weights = np.ones(len(values)) if weights is None else weights
    panel.hist(
        values,
        bins=bins,
        weights=100 * weights / weights.sum(),
        histtype="stepfilled",
        hatch=hatch,
        facecolor=colour + "55",
        edgecolor=colour,
        linewidth=1.2,
        label=name,
    )


def _import_matplotlib(module):
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            f"Plots need matplotlib, which cannot be imported ({error}). "
            "Install it with: pip install 'circle-tf[train]'"
        ) from error
