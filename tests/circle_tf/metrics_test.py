"""Training monitors against plain loops."""

import keras
import numpy as np
import pytest

import circle_tf
from circle_tf import metrics
from tests import reference


def expected_pairwise(rows, ids, margin):
    z = reference.normalize(rows)
    positives, negatives, valid = [], [], 0
    for i in range(len(z)):
        p = [z[i] @ z[j] for j in range(len(z)) if j != i and ids[j] == ids[i]]
        n = [z[i] @ z[j] for j in range(len(z)) if ids[j] != ids[i]]
        positives, negatives, valid = positives + p, negatives + n, valid + bool(p and n)
    weight = [max(0, 1 + margin - s) for s in positives], [max(0, s + margin) for s in negatives]
    return [np.mean(x) for x in (positives, negatives)] + [valid / len(z), *map(np.mean, weight)]


def test_monitors_equal_plain_loops_over_batches():
    rng = np.random.default_rng(0)
    found = metrics.monitors(margin=0.25)
    batches = [(rng.normal(size=(9, 4)), rng.integers(0, 4, 9)) for _ in range(3)]
    for rows, ids in batches:
        for metric in found:
            metric.update_state(ids, rows)
    expected = np.mean([expected_pairwise(rows, ids, 0.25) for rows, ids in batches], axis=0)
    np.testing.assert_allclose([float(m.result()) for m in found], expected, rtol=1e-5)


def test_class_level_monitors():
    cosines, ids = np.float32([[0.9, 0.1, -0.5], [0.2, 0.4, 0.0]]), [0, 1]
    found = metrics.monitors(margin=0.25, labels="class")
    for metric in found:
        metric.update_state(ids, cosines)
    weights_n = np.mean([0.35, 0.0, 0.45, 0.25])
    expected = [0.65, np.mean([0.1, -0.5, 0.2, 0.0]), 1.0, np.mean([0.35, 0.85]), weights_n]
    np.testing.assert_allclose([float(m.result()) for m in found], expected, rtol=1e-5)


def test_batches_without_a_positive_are_left_out_of_the_mean():
    metric = metrics.MeanPositiveSimilarity()
    metric.update_state([0, 0], [[1.0, 0.0], [1.0, 0.0]])
    metric.update_state([0, 1], [[1.0, 0.0], [1.0, 0.0]])
    assert float(metric.result()) == 1.0


def test_wide_ids_stay_exact():
    metric = metrics.ValidAnchors()
    metric.update_state(np.array([2**24, 2**24, 2**24 + 1]), np.eye(3))
    np.testing.assert_allclose(metric.result(), 2 / 3)


def test_bad_labels_kind_is_refused():
    with pytest.raises(ValueError, match="'pairwise' or 'class'; found 'classes'"):
        metrics.ValidAnchors(labels="classes")


@pytest.mark.parametrize("metric", metrics.monitors(margin=0.3, labels="class"))
def test_config_round_trip(metric):
    restored = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert type(restored) is type(metric) and restored.get_config() == metric.get_config()


def test_public_under_the_package():
    assert circle_tf.metrics is metrics
