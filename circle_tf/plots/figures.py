"""Pictures of embeddings and of training, as matplotlib figures.

Figures are drawn on their own canvas: no window, no pyplot, no state shared with the
caller's own.
Positives are blue and negatives orange, which people of any colour vision can tell apart.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.plots import canvas, pair_sampling, sheets
from circle_tf.plots.canvas import BLUE, GREY, ORANGE, PNG_DPI
from circle_tf.utils import files, shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "figure_to_image",
    "retrieval_sheet",
    "save_png",
    "similarity_histograms",
    "similarity_scatter",
    "training_curves",
]

_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_TITLES = ("before training", "after training")
_PAIRS = {"random": pair_sampling.random_pairs, "hardest": pair_sampling.hardest_pairs}


def similarity_scatter(
    before: ArrayLike,
    after: ArrayLike | None = None,
    *,
    labels: ArrayLike,
    margin: float,
    pairs: Literal["random", "hardest"] = "random",
    points: int = 2000,
    seed: int = 0,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Scatter of (s_n, s_p) with the circle on which the loss is balanced, before and after.

    Each point is an anchor: across its similarity to a negative, up its similarity to a positive.
    Training moves points to the optimum at the upper left, (0, 1). The curve is the decision
    boundary `s_n^2 + (1 - s_p)^2 = 2 m^2`.

    Args:
        before: `[N, D]` embeddings of any scale.
        after: `[N, D]` embeddings of the same examples; None: one panel.
        labels: `[N]` or `[N, 1]` integer ids.
        margin: float m of the loss.
        pairs: `random`, a random negative and positive of each anchor, or `hardest`, the most
            similar negative and the least similar positive among all rows, which grow harder the
            more rows there are.
        points: int, anchors drawn.
        seed: int, which anchors and pairs are drawn.
        titles: str for each panel; None: before and after training.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `pairs` is something else, or there are no pairs.

    References:
        Sun et al., "Circle Loss", CVPR 2020, figure 5 and eq. 8.

    Example:
        >>> before, after = np.eye(4), np.eye(2)[[0, 0, 1, 1]]
        >>> figure = similarity_scatter(before, after, labels=[7, 7, 8, 8], margin=0.25)
        >>> len(figure.axes)
        2
    """
    draws = _draw_pairs(before, after, labels=labels, pairs=pairs, count=points, seed=seed)
    figure, panels = canvas.row(len(draws), size=(4.8, 5.3))
    lowest = min(-0.1, *(np.min(draw) for draw in draws))
    limits = (max(-1.04, math.floor(lowest * 10) / 10), 1.04)
    for panel, (s_n, s_p), title in zip(panels, draws, _titles(titles, after), strict=True):
        panel.scatter(s_n, s_p, s=7, color=BLUE, alpha=0.35, linewidths=0, rasterized=True)
        _draw_boundary(panel, margin, limits)
        panel.set(xlim=limits, ylim=limits, aspect="equal")
        panel.set_xlabel("$s_n$, similarity to a negative (cosine)")
        share = shares.as_text(np.mean(s_p > s_n), ".0%")
        panel.set_title(f"{title + ': ' if title else ''}$s_p > s_n$ for {share}", fontsize=11)
    panels[0].set_ylabel("$s_p$, similarity to a positive (cosine)")
    _legend_below(figure, panels, columns=3 if len(panels) > 1 else 2)
    return figure


def similarity_histograms(
    before: ArrayLike,
    after: ArrayLike | None = None,
    *,
    labels: ArrayLike,
    margin: float | None = None,
    pairs: Literal["random", "hardest"] = "random",
    points: int = 20_000,
    seed: int = 0,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Histograms of the similarities of positive and of negative pairs, before and after.

    Args:
        before: `[N, D]` embeddings of any scale.
        after: `[N, D]` embeddings of the same examples; None: one panel.
        labels: `[N]` or `[N, 1]` integer ids.
        margin: float m of the loss, to mark the decision margins m and 1 - m; None: no marks.
        pairs: `random` or `hardest`, as `similarity_scatter`.
        points: int, pairs of each kind.
        seed: int, which pairs are drawn.
        titles: str for each panel; None: before and after training.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `pairs` is something else, or there are no pairs.

    Example:
        >>> figure = similarity_histograms(np.eye(4), labels=[7, 7, 8, 8], margin=0.25)
        >>> len(figure.axes)
        1
    """
    draws = _draw_pairs(before, after, labels=labels, pairs=pairs, count=points, seed=seed)
    figure, panels = canvas.row(len(draws), size=(4.8, 3.9))
    lowest = min(-0.1, *(np.min(draw) for draw in draws))
    bins = np.linspace(max(-1.0, math.floor(lowest * 10) / 10), 1.0, 61)
    for panel, (s_n, s_p), title in zip(panels, draws, _titles(titles, after), strict=True):
        for values, colour, hatch, name in (
            (s_n, ORANGE, "////", "negative pairs"),
            (s_p, BLUE, None, "positive pairs"),
        ):
            canvas.draw_histogram(panel, values, bins=bins, colour=colour, hatch=hatch, name=name)
        if margin is not None:
            _draw_margins(panel, margin)
        panel.set(xlim=(bins[0] - 0.02, 1.02), xlabel="similarity (cosine)")
        panel.set_title(title, fontsize=11)
    panels[0].set_ylabel("share of pairs per bin (%)")
    _legend_below(figure, panels, columns=2 if len(panels) > 1 else 1)
    return figure


def training_curves(records: Iterable[Mapping[str, Any]]) -> Figure:
    """Loss and retrieval metrics over the steps of training.

    Args:
        records: iterable of dicts, as the lines of metrics.jsonl: `step` (int), `loss` and, where
            it was measured, `val_loss` and retrieval metrics 0 to 1 (names with `recall`,
            `precision` or `map`). Of several records of one step the last counts.

    Returns:
        matplotlib.figure.Figure, with a second panel if there are retrieval metrics.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no record has a loss.

    Example:
        >>> records = [{"step": 1, "loss": 60.0}, {"step": 2, "loss": 50.0, "val_recall_at_1": 0.5}]
        >>> len(training_curves(records).axes)
        2
    """
    records = sorted({record["step"]: record for record in records}.items())
    series = {name: _series(records, name) for record in records for name in record[1]}
    losses = {name: series[name] for name in ("loss", "val_loss") if name in series}
    if not losses:
        raise ValueError(f"No record has a loss; found the fields {sorted(series)}.")
    scores = {name: values for name, values in series.items() if _is_score(name, series)}
    figure, panels = canvas.row(2 if scores else 1, size=(4.8, 3.6))
    _draw_curves(
        panels[0], losses, title="loss", names={"loss": "training", "val_loss": "held out"}
    )
    panels[0].set_ylabel("loss per anchor (nats)")
    panels[0].set_ylim(bottom=0)
    if scores:
        names = {name: _score_name(name) for name in scores}
        _draw_curves(panels[1], scores, title="retrieval on held-out classes", names=names)
        panels[1].set(ylim=(0, 1.02), ylabel="metric (0 to 1)")
    return figure


def retrieval_sheet(
    queries: ArrayLike,
    neighbours: ArrayLike,
    *,
    similarities: ArrayLike,
    query_labels: ArrayLike,
    neighbour_labels: ArrayLike,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Queries, a row each, with their nearest neighbours; right and wrong ones marked.

    Right: whole green frame and a tick. Wrong: broken red frame, a cross and the class found.
    Under each neighbour stands its cosine similarity. `circle_tf.retrieval.nearest_neighbours`
    finds neighbours and similarities.

    Args:
        queries: `[Q, H, W, C]` pixels 0 to 255, C of 1 or 3.
        neighbours: `[Q, k, H, W, C]` pixels, nearest first.
        similarities: `[Q, k]` cosines.
        query_labels: `[Q]` integer ids.
        neighbour_labels: `[Q, k]` integer ids.
        class_names: sequence of str, the name of label i at i; None: no names are shown.
        title: str, short.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: shapes that do not fit.

    Example:
        >>> images = np.zeros([2, 8, 8, 1], np.uint8)
        >>> figure = retrieval_sheet(
        ...     images,
        ...     images[[[1], [0]]],
        ...     similarities=[[0.9], [0.9]],
        ...     query_labels=[7, 7],
        ...     neighbour_labels=[[7], [7]],
        ... )
        >>> len(figure.axes)
        1
    """
    rows = sheets.retrieval_rows(
        queries,
        neighbours,
        similarities=similarities,
        query_labels=query_labels,
        neighbour_labels=neighbour_labels,
        class_names=class_names,
    )
    image = sheets.draw(rows, title=title)
    # As many pixels as the image has, here and in `save_png`: text stays sharp.
    height, width = (pixels / PNG_DPI + 1e-6 for pixels in image.shape[:2])
    figure = canvas.new_figure(size=(width, height), dpi=PNG_DPI, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.axis("off")
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str], *, dpi: int = PNG_DPI) -> None:
    """Writes a figure as PNG; a half-written one never stands at `path`.

    Args:
        figure: matplotlib.figure.Figure.
        path: the file; folders are made as needed.
        dpi: int, pixels per inch of the figure's size.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "plots", "loss.png")
        >>> save_png(training_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]), path)
        >>> os.path.exists(path)
        True
    """
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)


def figure_to_image(figure: Figure) -> np.ndarray:
    """The pixels of a figure, as TensorBoard takes them.

    `tf.summary.image(name, figure_to_image(figure)[None], step=step)` shows it there.

    Args:
        figure: matplotlib.figure.Figure.

    Returns:
        `[H, W, 4]` uint8, RGBA.

    Example:
        >>> figure_to_image(training_curves([{"step": 1, "loss": 2.0}])).shape[-1]
        4
    """
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


def _draw_pairs(before, after, *, labels, pairs, count, seed):
    if pairs not in _PAIRS:
        raise ValueError(f"pairs must be one of {sorted(_PAIRS)}; found {pairs!r}.")
    both = [before] if after is None else [before, after]
    return [_PAIRS[pairs](rows, labels, count=count, seed=seed) for rows in both]


def _titles(titles, after):
    if titles is not None:
        return titles
    return ("",) if after is None else _TITLES


def _legend_below(figure, panels, *, columns):
    style = {"loc": "outside lower center", "fontsize": 9, "frameon": False}
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=columns, **style)


def _draw_boundary(panel, margin, limits):
    angle = np.linspace(0, 2 * np.pi, 361)
    radius = math.sqrt(2) * margin
    panel.plot(limits, limits, ":", color=GREY, linewidth=1.2, label="$s_p = s_n$")
    label = f"$s_n^2 + (1-s_p)^2 = 2m^2$, $m$ = {margin:g}"
    circle = (radius * np.cos(angle), 1 + radius * np.sin(angle))
    panel.plot(*circle, color=ORANGE, linewidth=1.8, label=label)
    panel.plot(0, 1, "*", color=ORANGE, markersize=13, markeredgecolor="white", label="optimum")


def _draw_margins(panel, margin):
    for place, colour, name in (
        (margin, ORANGE, f"$m$ = {margin:g}: negatives should lie below"),
        (1 - margin, BLUE, f"$1-m$ = {1 - margin:g}: positives should lie above"),
    ):
        panel.axvline(place, color=colour, linestyle="--", linewidth=1.4, label=name)


def _series(records, name):
    points = [(step, record[name]) for step, record in records if record.get(name) is not None]
    return np.array(points, float).T


def _draw_curves(panel, series, *, title, names):
    for (name, (steps, values)), colour, marker in zip(
        series.items(), _COLOURS * len(series), "osD^v<>pX*" * len(series), strict=False
    ):
        # Markers only while they can be told apart; a single point needs one to be seen.
        marker = marker if len(steps) <= 30 else None
        label = f"{names[name]}, last {values[-1]:.3g}"
        panel.plot(steps, values, color=colour, marker=marker, markersize=4, label=label)
    panel.set_title(title, fontsize=11)
    panel.set_xlabel("training step")
    panel.legend(fontsize=9, frameon=False)


def _is_score(name, series):
    # precision_at_1 is recall_at_1 by another name.
    twin = name.replace("precision_at_1", "recall_at_1")
    is_retrieval = any(part in name for part in ("recall", "precision", "map_at", "accuracy"))
    return is_retrieval and (twin == name or twin not in series)


def _score_name(name):
    for long, short in (
        ("val_", ""),
        ("mean_average_precision_at_r", "MAP@R"),
        ("map_at_r", "MAP@R"),
        ("r_precision", "R-precision"),
        ("_at_", "@"),
        ("_", " "),
    ):
        name = name.replace(long, short)
    return name
