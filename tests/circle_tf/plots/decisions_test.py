"""What the picture of thresholds shows, against loops over all pairs."""

import warnings

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import circle_tf
from circle_tf import plots
from circle_tf.evaluation import exact_search

IDS = np.repeat(np.arange(12), 6)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 8))[IDS] + 0.8 * rng.normal(size=(72, 8))


@pytest.fixture(scope="module")
def found(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Of small samples.
        return circle_tf.calibrate(rows, IDS, false_accept_rates=(0.001, 0.1))


@pytest.fixture(scope="module")
def panels(rows, found):
    return plots.decision_thresholds(rows, IDS, found).axes


def _scores(rows):
    """Of each decision, what must be refused and what accepted."""
    unit = exact_search.on_grid(rows, name="rows")
    pairs, nearest = ([], []), ([], [])
    for a, row in enumerate(unit):
        others = np.delete(unit @ row, a), np.delete(IDS, a) == IDS[a]
        for same in (False, True):
            pairs[same].extend((unit[:a] @ row)[(IDS[:a] == IDS[a]) == same])
            nearest[same].append(others[0][others[1] == same].max())
    wrong, right = map(np.array, nearest)
    return [tuple(map(np.array, pairs)), (wrong, np.where(right > wrong, right, -np.inf))]


def test_the_curves_are_counts_of_all_scores(rows, panels):
    thresholds = np.linspace(-1, 1, 4001)[-2::-1]
    for panel, (wrong, right) in zip(panels[1::2], _scores(rows), strict=True):
        counted = [(np.mean(wrong >= at), np.mean(right >= at)) for at in thresholds]
        expected = [point for point in counted if point[0]]
        np.testing.assert_allclose(panel.lines[0].get_xydata(), expected)


def test_thresholds_are_marked_with_their_intervals(found, panels):
    for number, thresholds in enumerate((found.verification, found.search)):
        left, right = panels[2 * number : 2 * number + 2]
        lines = [line.get_xdata()[0] for line in left.lines]
        assert lines == [min(one.threshold, 1) for one in thresholds]
        spans = [p.get_x() for p in left.patches if isinstance(p, Rectangle)]
        assert spans == [one.threshold_interval[0] for one in thresholds]
        styles = [line.get_linestyle() for line in left.lines]
        assert styles == ["--" if one.reliable else ":" for one in thresholds]
        said = [text.get_text() for text in right.get_legend().get_texts()]
        for text, one in zip(said, thresholds, strict=True):
            assert text.startswith(f"at {one.false_accept_rate:g}: {one.true_accept_rate:.3f}")
            assert ("too few" in text) != one.reliable
            assert ("none false" in text) == (one.measured_rate == 0)
        marks = [bars.lines[0].get_ydata()[0] for bars in right.containers]
        assert marks == [one.true_accept_rate for one in thresholds]


def test_histograms_hold_every_score(rows, panels):
    for panel in panels[::2]:
        wrong, right = (p.get_xy() for p in panel.patches if not isinstance(p, Rectangle))
        for outline in (wrong, right):
            assert outline[: 2 * 80 + 2, 1][1:-1:2].sum() == pytest.approx(100)
