"""What one tile of the pair matrix adds: to its anchors' logsumexps, and to the gradient.

A tile is the similarities of some anchors to some keys. Its elementwise work is compiled by XLA
into single passes; the matrix products around it are left to TensorFlow. In all of it a
similarity stands as `t`, its distance from the centre of its kind (0 for negatives, 1 for
positives), clipped where the pair's weight is 0: then both logits are `gamma * (t^2 - m^2)`.
"""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import replicas

__all__ = ["Labels", "Options", "finish", "labels_of", "slopes", "update", "weighted", "whole"]


class Options(NamedTuple):
    """Hyper-parameters of the loss, as in `circle_loss`."""

    margin: float
    gamma: float
    detach_weights: bool


class Labels(NamedTuple):
    """Who stands in the slots of a block; see `labels_of`."""

    codes: tf.Tensor
    live: tf.Tensor | None


def labels_of(ids, rows, *, dtype, empties):
    """Labels in the form in which comparing them is cheap: 32 bits at a time, exact together.

    Args:
        ids: int64 `[B]`.
        rows: int64 `[B]`, the number of the example: pairs of one number are one example with
            itself. -1 marks an empty slot. Numbers are compared modulo 2^32.
        dtype: float dtype of the similarities.
        empties: whether there may be empty slots.

    Returns:
        `Labels`: codes int32 `[4, B]`, low and high halves of the ids and of the row numbers; live
        `[B]`, 0 for empty slots and 1 for others, None without `empties`.

    Example:
        >>> one = labels_of(tf.constant([2**40 + 3], tf.int64), tf.constant([-1], tf.int64),
        ...                 dtype=tf.float32, empties=True)
        >>> one.codes.numpy()[:2].tolist(), one.live.numpy().tolist()
        ([[3], [256]], [0.0])
    """
    halves = tf.transpose(tf.bitcast(tf.stack([ids, rows]), tf.int32), [0, 2, 1])
    live = tf.cast(rows >= 0, dtype) if empties else None
    return Labels(tf.reshape(halves, [4, -1]), live)


@replicas.compiled
def update(similarities, states, labels, key_labels, options, *, negatives_only=False):
    """The state of anchors (and of keys, where each is the other's key) after one more tile.

    Args:
        similarities: `[A, K]` cosines.
        states: `[state [4, A]]`, or `[state [4, A], state [4, K]]` with the keys as anchors too. A
            state is an online logsumexp, zeros at first: the largest distance `|t|` among
            negatives, their sum of exponentials relative to it, and the same for positives.
        labels: `Labels` of the anchors.
        key_labels: `Labels` of the keys.
        options: `Options`.
        negatives_only: the caller knows that no pair of the tile shares an id.

    Returns:
        list like `states`.
    """
    if negatives_only:
        t = tf.maximum(similarities, -options.margin)
        return [
            _add_negatives(state, t, _live(labels, key_labels, axis), options, axis=axis)
            for state, axis in zip(states, (1, 0), strict=False)
        ]
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    return [
        _add(state, t, positives, negatives, _live(labels, key_labels, axis), options, axis=axis)
        for state, axis in zip(states, (1, 0), strict=False)
    ]


@replicas.compiled
def slopes(similarities, sides, labels, key_labels, options):
    """The gradient of the upstream-weighted losses with respect to the similarities of a tile.

    Args:
        similarities: `[A, K]` cosines.
        sides: `[scales [4, A]]` of the anchors (from `finish`), or `[scales [4, A], scales [4, K]]`
            where the keys are anchors too.
        labels: `Labels` of the anchors.
        key_labels: `Labels` of the keys.
        options: `Options`.

    Returns:
        `[A, K]`, the sum over the sides.
    """
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    slope = tf.zeros_like(t)
    for scales, axis in zip(sides, (1, 0), strict=False):
        far_n, weight_n, far_p, weight_p = tf.unstack(scales)
        far = _of_kind(far_n, far_p, positives, axis)
        weight = _of_kind(weight_n, weight_p, positives, axis)
        live = _live(labels, key_labels, axis)
        slope += _times(weight * tf.exp(_shifted(_times(t, live), far, options)), live)
    slope *= _derivative(t, positives, options)
    return tf.where(positives | negatives, slope, tf.zeros_like(slope))


@replicas.compiled
def finish(state, options):
    """Losses of anchors that have seen all their keys.

    Args:
        state: `[4, A]`.
        options: `Options`.

    Returns:
        `(losses [A] in nats, valid [A] bool, scales [4, A])`; `scales` with its second and fourth
        row times the upstream gradient is what `slopes` takes.

    References:
        Sun et al., CVPR 2020, eq. 6 (losses), 9 and 10 (scales).
    """
    return _finish(state, options)


def _finish(state, options):
    far_n, sum_n, far_p, sum_p = tf.unstack(state)
    # A pair that is there has added at least exp(0), or NaN.
    valid = (sum_n != 0) & (sum_p != 0)
    sum_n, sum_p = (tf.where(valid, value, tf.ones_like(value)) for value in (sum_n, sum_p))
    total = tf.math.log(sum_n) + tf.math.log(sum_p)
    for far in (far_n, far_p):
        total += options.gamma * (far - options.margin) * (far + options.margin)
    losses = tf.where(valid, tf.math.softplus(total), tf.zeros_like(total))
    weight = tf.where(valid, tf.sigmoid(total), tf.zeros_like(total))
    return losses, valid, tf.stack([far_n, weight / sum_n, far_p, weight / sum_p])


def whole(similarities, labels, key_labels, options):
    """`finish` after the one tile that holds all pairs.

    Args:
        similarities: `[A, K]` cosines.
        labels: `Labels` of the anchors.
        key_labels: `Labels` of the keys.
        options: `Options`.

    Returns:
        As `finish`.
    """
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    state = tf.zeros([4, 1], t.dtype)
    live = _live(labels, key_labels, 1)
    return _finish(_add(state, t, positives, negatives, live, options, axis=1), options)


def weighted(scales, upstream):
    """Scales times the gradient that comes from above.

    Args:
        scales: `[4, A]` from `finish`.
        upstream: `[A]`.

    Returns:
        `[4, A]`.
    """
    one = tf.ones_like(upstream)
    return scales * tf.stack([one, upstream, one, upstream])


def _masks(labels, key_labels):
    low, high, rows = (labels.codes[line, :, None] for line in range(3))
    key_low, key_high, key_rows = tf.unstack(key_labels.codes[:3])
    same = tf.equal(low, key_low) & tf.equal(high, key_high)
    return same & tf.not_equal(rows, key_rows), ~same


def _live(labels, key_labels, axis):
    """1 for the keys of an anchor (axis 1), or the anchors of a key, that are there; None: all.

    Multiplying by it costs XLA less than one more condition in the masks.
    """
    live = key_labels.live if axis == 1 else labels.live
    return None if live is None else tf.expand_dims(live, 1 - axis)


def _distances(similarities, positives, options):
    near_one = tf.minimum(similarities - 1, options.margin)
    return tf.where(positives, near_one, tf.maximum(similarities, -options.margin))


def _derivative(t, positives, options):
    """Derivative of the logits: the paper's, with constant weights, or the whole."""
    if options.detach_weights:
        return options.gamma * tf.where(positives, t - options.margin, t + options.margin)
    moves = tf.where(positives, t < options.margin, t > -options.margin)
    return tf.where(moves, 2 * options.gamma * t, tf.zeros_like(t))


def _add(state, t, positives, negatives, live, options, *, axis):
    far_n, sum_n, far_p, sum_p = tf.unstack(state)
    t = _times(t, live)
    new_n = tf.maximum(far_n, _reduce(tf.reduce_max, tf.abs(t), negatives, axis))
    new_p = tf.maximum(far_p, _reduce(tf.reduce_max, tf.abs(t), positives, axis))
    far = _of_kind(new_n, new_p, positives, axis)
    terms = _times(tf.exp(_shifted(t, far, options)), live)
    sum_n = sum_n * tf.exp(_shifted(far_n, new_n, options))
    sum_p = sum_p * tf.exp(_shifted(far_p, new_p, options))
    sum_n += _reduce(tf.reduce_sum, terms, negatives, axis)
    sum_p += _reduce(tf.reduce_sum, terms, positives, axis)
    return tf.stack([new_n, sum_n, new_p, sum_p])


def _add_negatives(state, t, live, options, *, axis):
    far_n, sum_n, far_p, sum_p = tf.unstack(state)
    t = _times(t, live)
    new_n = tf.maximum(far_n, tf.reduce_max(tf.abs(t), axis=axis))
    terms = _times(tf.exp(_shifted(t, tf.expand_dims(new_n, axis), options)), live)
    sum_n = sum_n * tf.exp(_shifted(far_n, new_n, options))
    sum_n += tf.reduce_sum(terms, axis=axis)
    return tf.stack([new_n, sum_n, far_p, sum_p])


def _shifted(t, far, options):
    # The difference of two logits as a product: subtracting them would lose what gamma scales up.
    return options.gamma * (t - far) * (t + far)


def _times(values, live):
    # Distances of empty slots are made 0 as well: exp of a large one would be inf, and inf * 0 NaN.
    return values if live is None else values * live


def _reduce(reduce, values, mask, axis):
    return reduce(tf.where(mask, values, tf.zeros_like(values)), axis=axis)


def _of_kind(of_negatives, of_positives, positives, axis):
    """The value of each pair's kind, from one value per anchor (axis 1) or per key (axis 0)."""
    of_negatives, of_positives = (tf.expand_dims(v, axis) for v in (of_negatives, of_positives))
    return tf.where(positives, of_positives, of_negatives)
