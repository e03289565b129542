"""Figures: what they show, and that they keep to themselves."""

import sys

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import pyplot

from circle_tf import plots
from circle_tf.plots import figures, pair_sampling

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(6), 5)
BEFORE = RNG.normal(size=(30, 4)) + 3
AFTER = np.eye(6)[LABELS] + 0.1 * RNG.normal(size=(30, 6))
RECORDS = [
    {"step": 100, "loss": 50.0, "val_recall_at_1": 0.2, "val_precision_at_1": 0.2},
    {"step": 200, "loss": 40.0},
    {"step": 300, "loss": 30.0, "val_recall_at_1": 0.6, "val_precision_at_1": 0.6},
]


def curves(panel):
    return {line.get_label(): line.get_xydata().tolist() for line in panel.lines}


@pytest.mark.parametrize("pairs", ["random", "hardest"])
def test_scatter_shows_the_pairs_drawn(pairs):
    figure = figures.similarity_scatter(
        BEFORE, AFTER, labels=LABELS, margin=0.25, pairs=pairs, points=25, seed=3
    )
    draw = getattr(pair_sampling, f"{pairs}_pairs")
    for panel, rows in zip(figure.axes, (BEFORE, AFTER), strict=True):
        points = panel.collections[0].get_offsets()
        np.testing.assert_allclose(points, np.stack(draw(rows, LABELS, count=25, seed=3), 1))
        assert panel.get_xlim() == panel.get_ylim() == figure.axes[0].get_xlim()
        assert panel.get_xlim()[0] <= points.min()


def test_the_curve_is_the_decision_boundary():
    panel = figures.similarity_scatter(AFTER, labels=LABELS, margin=0.25).axes[0]
    (curve,) = [line for line in panel.lines if "2m^2" in line.get_label()]
    s_n, s_p = curve.get_xydata().T
    np.testing.assert_allclose(s_n**2 + (1 - s_p) ** 2, 2 * 0.25**2)


def test_titles():
    both = figures.similarity_histograms(BEFORE, AFTER, labels=LABELS)
    assert [p.get_title() for p in both.axes] == ["before training", "after training"]
    one = figures.similarity_scatter(AFTER, labels=LABELS, margin=0.25)
    assert one.axes[0].get_title() == "$s_p > s_n$ for 100%"
    named = figures.similarity_histograms(BEFORE, AFTER, labels=LABELS, titles=("a", "b"))
    assert [p.get_title() for p in named.axes] == ["a", "b"]


def test_histograms_hold_every_pair():
    figure = figures.similarity_histograms(BEFORE, AFTER, labels=LABELS, margin=0.25, points=500)
    for panel in figure.axes:
        for patch in panel.patches:
            heights = patch.get_xy()[: 2 * 60 + 2, 1]
            assert heights[1:-1:2].sum() == pytest.approx(100)
        assert [line.get_xdata()[0] for line in panel.lines] == [0.25, 0.75]


def test_pairs_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"\['hardest', 'random'\]; found 'all'"):
        figures.similarity_scatter(BEFORE, labels=LABELS, margin=0.25, pairs="all")


def test_curves_show_each_metric_where_it_was_measured():
    loss, scores = figures.training_curves(RECORDS).axes
    assert curves(loss) == {"training, last 30": [[100, 50], [200, 40], [300, 30]]}
    # precision_at_1 is the same curve and stays out.
    assert curves(scores) == {"recall@1, last 0.6": [[100, 0.2], [300, 0.6]]}


def test_curves_of_a_resumed_run_take_the_last_record_of_a_step():
    records = [*RECORDS, {"step": 200, "loss": 41.0}]
    assert [200, 41] in curves(figures.training_curves(records).axes[0])["training, last 30"]


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("val_mean_average_precision_at_r", "MAP@R"),
        ("val_map_at_r", "MAP@R"),
        ("val_r_precision", "R-precision"),
        ("val_recall_at_10", "recall@10"),
        ("val_precision_at_1", "precision@1"),
    ],
)
def test_names_of_metrics(metric, name):
    figure = figures.training_curves([{"step": 1, "loss": 2.0, metric: 0.5}])
    assert list(curves(figure.axes[1])) == [f"{name}, last 0.5"]


@pytest.mark.parametrize("records", [[], [{"step": 1, "accuracy": 1.0}]])
def test_curves_without_a_loss(records):
    with pytest.raises(ValueError, match="No record has a loss; found the fields"):
        figures.training_curves(records)


def test_png_and_image_hold_the_figure(tmp_path):
    figure = figures.training_curves(RECORDS)
    path = tmp_path / "plots" / "curves.png"
    figures.save_png(figure, path, dpi=100)
    png = tf.io.decode_png(path.read_bytes()).numpy()
    image = figures.figure_to_image(figure)
    assert image.dtype == np.uint8 and image.shape == png.shape
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 50
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]


def test_an_image_outlives_its_figure_unchanged():
    figure = figures.training_curves(RECORDS)
    image = figures.figure_to_image(figure)
    copy = image.copy()
    figure.axes[0].set_title("another")
    figures.figure_to_image(figure)
    np.testing.assert_array_equal(image, copy)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'circle-tf\[train\]'"):
        figures.training_curves(RECORDS)


def test_the_callers_own_plots_are_left_alone():
    before = pyplot.get_fignums(), dict(matplotlib.rcParams)
    figure = figures.similarity_scatter(BEFORE, AFTER, labels=LABELS, margin=0.25)
    figures.figure_to_image(figure)
    assert (pyplot.get_fignums(), dict(matplotlib.rcParams)) == before


def test_the_package_offers_the_functions_of_its_modules():
    assert all(callable(getattr(plots, name)) for name in plots.__all__)
    assert plots.retrieval_sheet is figures.retrieval_sheet and set(plots.__all__) <= {*dir(plots)}
    with pytest.raises(AttributeError, match="'circle_tf.plots' has no attribute 'other'"):
        plots.other  # noqa: B018
