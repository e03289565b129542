"""NMI of k-means clusters."""

import numpy as np
import pytest
from sklearn import metrics

from circle_tf.evaluation import clustering


def _rows(spread):
    random = np.random.default_rng(0)
    centres = np.eye(6)
    labels = np.arange(60) % 6
    return centres[labels] + spread * random.normal(size=(60, 6)), labels


def _nmi(first, second):
    """By its definition."""
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1 / len(first))
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    held = joint > 0
    mutual = np.sum(joint[held] * np.log((joint / np.outer(rows, columns))[held]))
    entropies = [-np.sum(p[p > 0] * np.log(p[p > 0])) for p in (rows, columns)]
    return mutual / np.mean(entropies)


def test_well_apart_classes_are_found():
    rows, labels = _rows(0.01)
    assert clustering.normalized_mutual_information(rows, labels, restarts=5) == pytest.approx(1)


def test_it_is_the_nmi_of_the_clusters(monkeypatch):
    rows, labels = _rows(0.6)
    seen = []
    score = metrics.normalized_mutual_info_score
    monkeypatch.setattr(
        metrics, "normalized_mutual_info_score", lambda *a: seen.append(a) or score(*a)
    )
    found = clustering.normalized_mutual_information(rows, labels, clusters=4)
    ((ids, clusters),) = seen
    assert 0.1 < found < 0.95 and len(set(clusters)) == 4
    assert found == pytest.approx(_nmi(np.asarray(ids), clusters))


def test_length_does_not_matter_and_the_seed_decides():
    rows, labels = _rows(0.6)
    scaled = rows * np.random.default_rng(1).uniform(0.1, 10, (60, 1))
    found = [clustering.normalized_mutual_information(r, labels, seed=3) for r in (rows, scaled)]
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("clusters", [0, 61])
def test_bad_numbers_of_clusters(clusters):
    rows, labels = _rows(0.1)
    with pytest.raises(ValueError, match=f"from 1 to 60, the number of rows; found {clusters}"):
        clustering.normalized_mutual_information(rows, labels, clusters=clusters)


def test_several_numbers_of_clusters():
    with pytest.raises(ValueError, match=r"clusters must be one number; found \[2, 3\]"):
        clustering.normalized_mutual_information(np.eye(4), [1, 1, 2, 2], clusters=[2, 3])
