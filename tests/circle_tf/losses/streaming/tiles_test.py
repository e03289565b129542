"""One tile: labels that compare exactly, and the short way for tiles without positives."""

import numpy as np
import tensorflow as tf

from circle_tf.losses.streaming import tiles

OPTIONS = tiles.Options(margin=0.4, gamma=80.0, detach_weights=True)


def labels(ids, rows, *, padding=False):
    ids, rows = tf.constant(ids, tf.int64), tf.constant(rows, tf.int64)
    return tiles.labels_of(ids, rows, dtype=tf.float64, padding=padding)


def updated(similarities, own, keys, **options):
    states = [tf.zeros([4, size], tf.float64) for size in similarities.shape]
    return [s.numpy() for s in tiles.update(similarities, states, own, keys, OPTIONS, **options)]


def test_ids_are_told_apart_by_either_half():
    ids = [1, 2**32 + 1, -1, 2**32 - 1, 1]
    own = labels(ids, range(5))
    state, _ = updated(tf.zeros([5, 5], tf.float64), own, own)
    # Zero similarity: distance 0 to a negative (exp(0) each), 1 to a positive.
    np.testing.assert_array_equal(state[1], [3, 4, 4, 4, 3])
    np.testing.assert_array_equal(state[3], [1, 0, 0, 0, 1])


def test_the_short_way_equals_the_long_one_where_no_id_is_shared():
    rng = np.random.default_rng(0)
    similarities = tf.constant(rng.uniform(-1, 1, (4, 6)))
    own = labels([1, 1, 2, 3], range(4), padding=True)
    keys = labels([4, 5, 6, 7, 8, 9], [4, 5, -1, 7, 8, -1], padding=True)
    long = updated(similarities, own, keys)
    short = updated(similarities, own, keys, negatives_only=True)
    for one, other in zip(long, short, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert short[0][1].max() < 6


def test_empty_slots_do_not_overflow():
    # In float32 exp of the empty slot's logit relative to the others' is inf.
    similarities = tf.constant([[-1.0, 0.0, 1.0]])
    own, keys = labels([1], [0]), labels([1, 2, 1], [-1, 5, 6], padding=True)
    keys = keys._replace(mask=tf.cast(keys.mask, tf.float32))
    options = OPTIONS._replace(gamma=1024.0)
    states = [tf.zeros([4, 1]), tf.zeros([4, 3])]
    own = own._replace(mask=tf.ones([1]))
    state = tiles.update(similarities, states, own, keys, options)[0]
    losses, valid, scales = tiles.finalize(state, options)
    gradients = tiles.gradients(similarities, [scales], own, keys, options)
    assert valid.numpy().tolist() == [True] and np.isfinite(losses).all()
    assert np.isfinite(gradients).all() and gradients[0, 0] == 0
