"""Suspect labels against loops, and against errors that were planted in real digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import circle_tf


def clouds(sizes, *, seed=0, noise=0.4, dim=6):
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.normal(size=(len(sizes), dim))
    return centres[ids] + noise * rng.normal(size=(len(ids), dim)), ids


def by_loops(rows, ids, neighbours):
    """Of each row: similarity to its class, to every other class, and the nearest row."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for row in range(len(unit)):
        cosines = unit @ unit[row]
        own = sorted(np.delete(cosines, row)[np.delete(ids, row) == ids[row]])
        taken = min(neighbours, len(own) or neighbours)
        others = {
            other: sum(sorted(cosines[ids == other])[-taken:]) / taken
            for other in set(ids.tolist()) - {ids[row]}
        }
        cosines[row] = -np.inf
        yield np.mean(own[-taken:]) if own else np.nan, others, cosines.argmax()


@pytest.mark.parametrize("neighbours", [1, 3])
def test_similarities_are_means_over_nearest_examples(neighbours):
    rows, ids = clouds([7, 6, 2, 9, 1], noise=0.9)
    found = circle_tf.inspect_labels(rows, ids + 100, neighbours=neighbours)
    suspects = {suspect.row: suspect for suspect in found.suspects}
    expected = list(by_loops(rows, ids, neighbours))
    median = np.nanmedian([own for own, *_ in expected])
    low, high = np.nanquantile([own for own, *_ in expected], [0.25, 0.75])
    fence = low - 1.5 * (high - low)
    wrong = set()
    for row, (own, others, _) in enumerate(expected):
        best = max(others, key=others.get)
        if others[best] > (median if np.isnan(own) else own) and others[best] >= fence:
            wrong.add(row)
            suspect = suspects[row]
            assert (suspect.label, suspect.other_label) == (ids[row] + 100, best + 100)
            assert suspect.own_similarity == pytest.approx(own, abs=1e-7, nan_ok=True)
            assert suspect.other_similarity == pytest.approx(others[best], abs=1e-7)
            assert ids[suspect.nearest_row] == best
    assert 3 < len(wrong) == sum(suspect.kind == "label" for suspect in found.suspects)
    assert wrong <= set(suspects)


def test_confusions_count_nearest_neighbours_of_another_class():
    rows, ids = clouds([7, 6, 2, 9], noise=0.9)
    counted = {}
    for row, (*_, nearest) in enumerate(by_loops(rows, ids, 3)):
        if ids[nearest] != ids[row]:
            pair = tuple(sorted((int(ids[row]), int(ids[nearest]))))
            counted[pair] = counted.get(pair, 0) + 1
    found = circle_tf.inspect_labels(rows, ids).confusions
    assert {one.labels: one.count for one in found} == counted and len(counted) > 2
    sizes = np.bincount(ids)
    assert all(one.share == one.count / sum(sizes[list(one.labels)]) for one in found)
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
    assert {tuple(sorted(ids[[one.row, one.nearest_row]])) for one in found} == set(counted)


def test_planted_errors_come_first():
    """Of 60 wrong labels among 1,797 digits, by their bare pixels."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    planted = rng.choice(len(labels), 60, replace=False)
    wrong = labels.copy()
    wrong[planted] = (labels[planted] + rng.integers(1, 10, 60)) % 10
    found = circle_tf.inspect_labels(images, wrong).suspects[:60]
    assert {suspect.kind for suspect in found} == {"label"}
    precision = np.isin([suspect.row for suspect in found], planted).mean()
    assert precision >= 0.95
    right = [suspect.other_label == labels[suspect.row] for suspect in found]
    assert np.mean(right) >= 0.95  # It tells the right class too.


def test_what_fits_no_class_is_lonely():
    rows, ids = clouds([12] * 6, noise=0.1)
    stranger = np.linalg.svd(rows)[2][-1]  # The direction that the classes fill least.
    rows[5] = stranger
    found = [one for one in circle_tf.inspect_labels(rows, ids).suspects if one.kind == "lonely"]
    assert found[0].row == 5 and found[0].score > 5 * max(one.score for one in found[1:])


def test_clean_classes_have_no_suspects():
    rows, ids = clouds([12] * 6, noise=0.01)
    assert circle_tf.inspect_labels(rows, ids).confusions == []
    assert not [one for one in circle_tf.inspect_labels(rows, ids).suspects if one.kind == "label"]


@pytest.mark.parametrize(
    "labels, message", [([0, 0, 0], "found 1 classes"), ([0, 1, 2], "of at most 1 examples")]
)
def test_nothing_to_compare_is_an_error(labels, message):
    with pytest.raises(ValueError, match=message):
        circle_tf.inspect_labels(np.eye(3), labels)
