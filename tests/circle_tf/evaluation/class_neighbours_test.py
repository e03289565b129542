import numpy as np
import pytest

import circle_tf

RNG = np.random.default_rng(0)
IDS = np.repeat([2**40, -3, 7, 8, 50, 51, 52], [3, 1, 4, 2, 5, 1, 2])
ROWS = RNG.normal(size=[len(IDS), 4]) * RNG.uniform(0.1, 10, [len(IDS), 1])


def by_loops(rows, ids):
    """All other classes of each, by the cosines of the means of unit rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = [unit[ids == id_].mean(axis=0) for id_ in sorted(set(ids))]
    found = []
    for place, mean in enumerate(means):
        cosines = [mean @ other / np.linalg.norm(mean) / np.linalg.norm(other) for other in means]
        order = np.argsort(-np.array(cosines), kind="stable")
        found.append([other for other in order if other != place])
    return np.array(found)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_nearest_classes_are_those_of_loops(chunk_size):
    order = RNG.permutation(len(IDS))
    for count in (1, 6):
        found = circle_tf.nearest_classes(ROWS[order], IDS[order], count, chunk_size=chunk_size)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, by_loops(ROWS, IDS)[:, :count])


def test_rows_are_taken_in_parts(monkeypatch):
    monkeypatch.setattr("circle_tf.evaluation.class_neighbours._ROWS", 5)
    np.testing.assert_array_equal(circle_tf.nearest_classes(ROWS, IDS, 6), by_loops(ROWS, IDS))
    with pytest.raises(ValueError, match="embeddings must be finite; row 7 holds NaN"):
        circle_tf.nearest_classes(np.where(np.arange(len(IDS))[:, None] == 7, np.nan, ROWS), IDS, 1)


def test_the_result_makes_batches():
    ids = np.repeat(IDS, 2)
    nearest = circle_tf.nearest_classes(np.repeat(ROWS, 2, axis=0), ids, 2)
    size = {"classes_per_batch": 3, "examples_per_class": 2}
    sampler = circle_tf.PKSampler(ids, **size, nearest_classes=nearest, group_size=3)
    classes = np.searchsorted(np.unique(ids), ids[sampler(5)][::2])
    assert set(classes[1:]) == set(nearest[classes[0]])


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        (IDS, 0, "count must be a whole number of 1 or more; found 0"),
        (IDS, 7, "less than the number of classes, as each has 6 others; found 7"),
        (np.zeros(len(IDS), int), 1, "as each has 0 others; found 1"),
        (IDS[:-1], 1, "labels"),
    ],
)
def test_bad_arguments(ids, count, message):
    with pytest.raises(ValueError, match=message):
        circle_tf.nearest_classes(ROWS, ids, count)
