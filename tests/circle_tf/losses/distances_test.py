"""Distances and the losses that are functions of them, against plain loops over pairs."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.losses import distances

IDS = np.array([0, 1, 0, 2, 1, 0, 2, 2, 3])
SAME = IDS[:, None] == IDS
OTHERS = SAME & ~np.eye(9, dtype=bool)
ROWS = np.random.default_rng(5).normal(size=(9, 4))
D = np.linalg.norm(ROWS[:, None] - ROWS, axis=2)


def pairs():
    return list(zip(*np.nonzero(OTHERS), strict=True))


def test_distances_and_their_gradient_at_equal_rows():
    rows = tf.constant(np.concatenate([ROWS, ROWS[:2], np.zeros((1, 4))]))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        found = distances.distances(rows)
    np.testing.assert_allclose(found[:9, :9], D, atol=1e-7)
    assert np.isfinite(tape.gradient(found, rows)).all()
    np.testing.assert_allclose(distances.distances(rows, squared=True), found**2, atol=1e-7)


@pytest.mark.parametrize("margin", [0.1, 1.0, 3.0])
def test_triplet_semihard(margin):
    expected = []
    for i, j in pairs():
        negatives = D[i][~SAME[i]]
        farther = negatives[negatives > D[i, j]]
        chosen = farther.min() if farther.size else negatives.max()
        expected.append(max(0.0, margin + D[i, j] - chosen))
    found = distances.triplet_semihard(tf.constant(D), tf.constant(SAME), margin=margin)
    np.testing.assert_allclose(found, np.mean(expected))


@pytest.mark.parametrize("soft", [False, True])
def test_triplet_hard(soft):
    found = distances.triplet_hard(tf.constant(D), tf.constant(SAME), margin=0.7, soft=soft)
    for i in range(8):  # The last has no positive.
        gap = D[i][OTHERS[i]].max() - D[i][~SAME[i]].min()
        expected = np.log1p(np.exp(gap)) if soft else max(0.0, gap + 0.7)
        np.testing.assert_allclose(found[i], expected)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_lifted_structure(scale):
    d, expected = scale * D, []
    for i, j in pairs():
        gaps = np.concatenate([1.0 - d[i][~SAME[i]], 1.0 - d[j][~SAME[j]]])
        expected.append(max(0.0, d[i, j] + np.logaddexp.reduce(gaps)) ** 2 / 2)
    found = distances.lifted_structure(tf.constant(d), tf.constant(SAME), margin=1.0)
    np.testing.assert_allclose(found, np.mean(expected))


def test_npairs():
    shared = SAME * 2.0
    shared[3] = 0.0
    logits = ROWS @ ROWS.T
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    found = distances.npairs(tf.constant(logits), tf.constant(shared))
    for i in range(9):
        expected = 0.0 if i == 3 else -np.mean(log_softmax[i][SAME[i]])
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def test_contrastive():
    found = distances.contrastive(tf.constant(D), tf.constant(SAME * 1.0), margin=2.5)
    expected = np.where(SAME, D**2, np.maximum(2.5 - D, 0) ** 2)
    np.testing.assert_allclose(found, expected)
