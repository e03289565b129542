"""Identification against plain loops, with ties."""

import numpy as np
import pytest

from circle_tf.evaluation import neighbours, verification
from circle_tf.evaluation.identification import (
    detection_and_identification_rate,
    distractor_identification,
)


def _rows(count, seed, *, ties):
    rows = np.random.default_rng(seed).normal(size=(count, 3))
    rows = np.sign(rows) if ties else rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_distractors_before_the_mate(ties, chunk_size):
    probes, others = _rows(15, 0, ties=ties), _rows(30, 1, ties=ties)
    ids = np.arange(15) % 4
    before = []
    for i in range(15):
        for j in range(15):
            if i != j and ids[i] == ids[j]:
                mate = round(probes[i] @ probes[j], 6)
                before.append(sum(round(probes[i] @ key, 6) >= mate for key in others))
    found = distractor_identification(probes, ids, others, ks=(1, 5), chunk_size=chunk_size)
    assert found == {
        "rank_1": pytest.approx(np.mean(np.array(before) < 1)),
        "rank_5": pytest.approx(np.mean(np.array(before) < 5)),
        "pairs": len(before),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("far", [0.0, 0.004, 0.1, 1.0])
def test_verification_among_distractors_is_that_of_all_pairs(ties, far, monkeypatch):
    monkeypatch.setattr(neighbours, "_MERGED_AT", 40)
    probes, others = _rows(15, 0, ties=ties), _rows(30, 1, ties=ties)
    ids = np.arange(15) % 4
    genuine = (ids[:, None] == ids) & ~np.eye(15, dtype=bool)
    scores = np.concatenate([(probes @ probes.T)[genuine], (probes @ others.T).ravel()]).round(9)
    same = np.arange(len(scores)) < genuine.sum()
    found = distractor_identification(probes, ids, others, fars=(far, 0.5))
    for rate in (far, 0.5):
        assert found[f"tar_at_far_{rate:g}"] == verification.tar_at_far(scores, same, rate)


def _open_set(probes, ids, gallery, of_gallery, far, k):
    """Every threshold there is, the lowest that keeps the strangers out."""
    scores = np.round(probes @ gallery.T, 6)
    known = np.isin(ids, of_gallery)
    best = np.where(
        known, np.where(of_gallery == ids[:, None], scores, -9).max(axis=1), scores.max(axis=1)
    )
    rank = [np.sum(scores[i, of_gallery != ids[i]] >= best[i]) for i in range(len(ids))]
    tried = np.concatenate([[-9], np.unique(best)])
    low = min(t for t in tried if np.mean(best[~known] > t) <= far + 1e-12)
    return np.mean((np.array(rank) < k)[known] & (best > low)[known])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("far", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 3])
def test_open_set(ties, far, k):
    probes, gallery = _rows(40, 2, ties=ties), _rows(30, 3, ties=ties)
    ids, of_gallery = np.arange(40) % 10, np.arange(30) % 6
    found = detection_and_identification_rate(probes, ids, gallery, of_gallery, fars=(far,), k=k)
    expected = _open_set(probes, ids, gallery, of_gallery, far, k)
    assert found[f"dir_at_far_{far:g}"] == pytest.approx(expected)
    assert (found["known"], found["strangers"]) == (24, 16)
    assert found[f"rank_{k}"] >= found[f"dir_at_far_{far:g}"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distractor_identification(np.eye(2), [1, 2], np.eye(2)), "No probe has a mate"),
        (lambda: distractor_identification(np.eye(2), [1], np.eye(2)), "probe_ids must hold one"),
        (
            lambda: distractor_identification(np.eye(2), [1, 1], np.eye(3)),
            "probes and distractors must have the same dimension; found 2 and 3",
        ),
        (
            lambda: distractor_identification(np.eye(2), [1, 1], np.eye(2), ks=(0,)),
            "ks must be a whole number of 1 or more",
        ),
        (
            lambda: detection_and_identification_rate(np.eye(2), [1, 2], np.eye(2), [1, 2]),
            "found 2 with and 0 without",
        ),
        (
            lambda: detection_and_identification_rate(
                np.eye(2), [1, 2], np.eye(2), [1, 3], fars=(2,)
            ),
            "fars must be 0 to 1; found 2",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rate_that_is_met_exactly_is_allowed():
    probes = np.array([[1, 0.0]] + [[np.cos(a), np.sin(a)] for a in np.linspace(0.1, 1, 10)])
    ids = np.array([1] + [2] * 10)
    found = detection_and_identification_rate(probes, ids, [[1.0, 0.05]], [1], fars=(0.1, 0.3))
    assert found["dir_at_far_0.1"] == found["dir_at_far_0.3"] == 1.0


def test_one_rank_and_one_rate_need_no_list():
    faces = np.eye(3)[[0, 0, 1]], [1, 1, 2], np.eye(3)[[2]]
    assert distractor_identification(*faces, ks=2, fars=0.5) == distractor_identification(
        *faces, ks=[2], fars=[0.5]
    )
