"""Pictures of decisions: which scores are accepted, and what that costs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.calibration import Calibration
from circle_tf.evaluation.neighbours import as_rows, iterate_scores
from circle_tf.ops import pairs
from circle_tf.plots import canvas
from circle_tf.plots.canvas import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["decision_thresholds"]

_FINE = 4000  # Bins that scores are counted in, from -1 to 1.
_COARSE = 80  # Bins that are drawn.
_CENTRES = (np.arange(_FINE) + 0.5) * 2 / _FINE - 1
_MARKERS = "osD^vP"


def decision_thresholds(embeddings: ArrayLike, labels: ArrayLike, found: Calibration) -> Figure:
    """Genuine and impostor scores with the thresholds, and what each accepts.

    The upper row is verification, over all pairs; the lower is search, the nearest of another class
    and the nearest of the own class where that is nearer. To the left are the scores, a broken line
    at each threshold and, faint, its interval. To the right are false accepts against true ones
    over all thresholds, with the thresholds marked and their intervals; those of too few examples
    are dotted lines and empty marks.

    Args:
        embeddings: `[N, D]` of any real dtype and scale, those of `calibrate`.
        labels: `[N]` integer classes.
        found: `circle_tf.Calibration` of these.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: shapes that do not fit, NaN or inf in a row.

    Example:
        >>> from circle_tf import calibrate
        >>> rows = np.random.default_rng(0).normal(size=(16, 8))[np.arange(640) % 16]
        >>> rows = rows + 0.3 * np.random.default_rng(1).normal(size=rows.shape)
        >>> found = calibrate(rows, np.arange(640) % 16, false_accept_rates=0.05)
        >>> len(decision_thresholds(rows, np.arange(640) % 16, found).axes)
        4
    """
    rows = as_rows(embeddings, name="embeddings")
    ids = pairs.ids_of_rows(labels, rows, name="labels")
    counted = _counted(exact_search.on_grid(rows, name="embeddings"), ids)
    figure, panels = canvas.grid(2, 2, size=(5.2, 3.8))
    names = {
        "verification": ("pairs of two classes", "pairs of one class"),
        "search": ("nearest of another class", "nearest, of the own class"),
    }
    for (left, right), (decision, (wrong, own)) in zip(panels, names.items(), strict=True):
        thresholds = getattr(found, decision)
        _draw_scores(left, counted[decision], thresholds, names=(wrong, own))
        _draw_curve(right, counted[decision], thresholds, confidence=found.confidence)
        left.set_title(f"{decision}: scores", fontsize=11)
        right.set_title(f"{decision}: what a threshold accepts", fontsize=11)
    return figure


@dataclasses.dataclass(frozen=True)
class _Counts:
    """Scores of one decision in fine bins, `[4000]` each, and how many should be accepted."""

    wrong: np.ndarray
    right: np.ndarray
    should_pass: int


def _counted(unit, ids):
    """The scores that `calibrate` decides by."""
    wrong, right, strangers, known = np.zeros([4, _FINE], np.int64)
    paired = 0
    for row, scores in iterate_scores(unit, unit):
        bins = np.clip(((scores + 1) * (_FINE / 2)).astype(np.int64), 0, _FINE - 1)
        same = ids == ids[row]
        wrong += np.bincount(bins[row:][~same[row:]], minlength=_FINE)
        strangers[bins[~same].max(initial=0)] += 1
        nearest = scores[~same].max(initial=-np.inf)
        same[row] = False
        right += np.bincount(bins[row:][same[row:]], minlength=_FINE)
        if same.any():
            paired += 1
            known[bins[same].max()] += scores[same].max() > nearest
    return {
        "verification": _Counts(wrong, right, int(right.sum())),
        "search": _Counts(strangers, known, paired),
    }


def _draw_scores(panel, counts, thresholds, *, names):
    seen = np.flatnonzero(counts.wrong + counts.right)
    lowest = np.floor(10 * _CENTRES[seen[0]]) / 10
    bins = np.linspace(-1, 1, _COARSE + 1)
    for weights, colour, hatch, name in (
        (counts.wrong, ORANGE, "////", names[0]),
        (counts.right, BLUE, None, names[1]),
    ):
        if weights.any():
            style = {"bins": bins, "colour": colour, "hatch": hatch, "name": name}
            canvas.draw_histogram(panel, _CENTRES, weights=weights, **style)
    for one in thresholds:
        low, high = np.clip(one.threshold_interval, -1, 1)
        panel.axvspan(low, high, color=GREY, alpha=0.2, linewidth=0)
        style = {"color": "black", "linestyle": "--" if one.reliable else ":", "linewidth": 1.4}
        name = f"{one.threshold:.3f}, for false accepts of {one.false_accept_rate:g}"
        panel.axvline(min(one.threshold, 1), label=name, **style)
    panel.set(xlim=(lowest - 0.02, 1.02), xlabel="similarity (cosine)", ylabel="share per bin (%)")
    panel.set_ylim(top=1.5 * panel.get_ylim()[1])  # Room for the legend.
    panel.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_curve(panel, counts, thresholds, *, confidence):
    wrong, right = (np.cumsum(values[::-1]) for values in (counts.wrong, counts.right))
    shares = wrong / wrong[-1], right / max(counts.should_pass, 1)
    shown, floor = wrong > 0, 0.5 / wrong[-1]
    panel.plot(shares[0][shown], shares[1][shown], color=BLUE, linewidth=1.6)
    for one, marker in zip(thresholds, _MARKERS * len(thresholds), strict=False):
        point = max(one.measured_rate, floor), one.true_accept_rate
        ends = one.rate_interval, one.true_accept_interval
        across, up = (
            [[max(middle - low, 0)], [max(high - middle, 0)]]
            for middle, (low, high) in zip(point, ends, strict=True)
        )
        note = "" if one.reliable else "; too few examples"
        note += "" if one.measured_rate else "; none false"  # Which no logarithm shows.
        panel.errorbar(
            *point,
            xerr=across,
            yerr=up,
            fmt=marker,
            color="black",
            markerfacecolor="black" if one.reliable else "white",
            elinewidth=1,
            capsize=3,
            label=f"at {one.false_accept_rate:g}: {one.true_accept_rate:.3f} accepted{note}",
        )
    panel.set(xscale="log", xlim=(0.8 * floor, 1.1), ylim=(-0.02, 1.02))
    panel.set(xlabel="false-accept rate", ylabel="true-accept rate")
    title = f"with {confidence:.0%} intervals"
    panel.legend(title=title, title_fontsize=8, fontsize=8, frameon=False, loc="best")
