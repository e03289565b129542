"""What one tile of the pair matrix adds: to its anchors' logsumexps, and to the gradient.

A tile is the similarities of some anchors to some keys. Its elementwise work is compiled by XLA
into single passes; the matrix products around it are left to TensorFlow. In all of it a
similarity stands as `t`, its distance from the centre of its kind (0 for negatives, 1 for
positives), clipped where the pair's weight is 0: then both logits are `gamma * (t^2 - m^2)`.
"""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import compilation
from circle_tf.losses import hyperparameters

__all__ = [
    "Labels",
    "Options",
    "dense",
    "finalize",
    "first_order",
    "labels_of",
    "shifted",
    "gradients",
    "update",
    "weighted",
]


class Options(NamedTuple):
    """Hyper-parameters of the loss, as in `circle_loss`: numbers, or scalars that a graph reads."""

    margin: float | tf.Tensor
    gamma: float | tf.Tensor
    detach_weights: bool

    @classmethod
    def of(cls, dtype, margin, gamma, detach_weights):
        """Those to compute with in a dtype."""
        constants = (hyperparameters.constant(value, dtype) for value in (margin, gamma))
        return cls(*constants, bool(detach_weights))


class Labels(NamedTuple):
    """Who stands in the slots of a block; see `labels_of`."""

    codes: tf.Tensor
    mask: tf.Tensor | None


def labels_of(ids, rows, *, dtype, padding):
    """Labels in the form in which comparing them is cheap: 32 bits at a time, exact together.

    Args:
        ids: int64 `[B]`.
        rows: int64 `[B]`, the number of the example: pairs of one number are one example with
            itself. -1 marks an empty slot. Numbers are compared modulo 2^32.
        dtype: float dtype of the similarities.
        padding: whether there may be empty slots.

    Returns:
        `Labels`: codes int32 `[4, B]`, low and high halves of the ids and of the row numbers; mask
        `[B]`, 0 for empty slots and 1 for others, None without `padding`.

    Example:
        >>> one = labels_of(tf.constant([2**40 + 3], tf.int64), tf.constant([-1], tf.int64),
        ...                 dtype=tf.float32, padding=True)
        >>> one.codes.numpy()[:2].tolist(), one.mask.numpy().tolist()
        ([[3], [256]], [0.0])
    """
    halves = tf.transpose(tf.bitcast(tf.stack([ids, rows]), tf.int32), [0, 2, 1])
    mask = tf.cast(rows >= 0, dtype) if padding else None
    return Labels(tf.reshape(halves, [4, -1]), mask)


@compilation.compiled
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
            _add_negatives(state, t, _mask(labels, key_labels, axis), options, axis=axis)
            for state, axis in zip(states, (1, 0), strict=False)
        ]
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    return [
        _add(state, t, positives, negatives, _mask(labels, key_labels, axis), options, axis=axis)
        for state, axis in zip(states, (1, 0), strict=False)
    ]


@compilation.compiled
def gradients(similarities, sides, labels, key_labels, options):
    """The gradient of the upstream-weighted losses with respect to the similarities of a tile.

    Args:
        similarities: `[A, K]` cosines.
        sides: `[scales [4, A]]` of the anchors, from `finalize`; the keys' `[4, K]` after it where
            the keys are anchors too.
        labels: `Labels` of the anchors.
        key_labels: `Labels` of the keys.
        options: `Options`.

    Returns:
        `[A, K]`, the sum over the sides.
    """
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    gradient = tf.zeros_like(t)
    for scales, axis in zip(sides, (1, 0), strict=False):
        max_n, weight_n, max_p, weight_p = tf.unstack(scales)
        running_max = _of_kind(max_n, max_p, positives, axis)
        weight = _of_kind(weight_n, weight_p, positives, axis)
        mask = _mask(labels, key_labels, axis)
        gradient += _times(weight * tf.exp(shifted(_times(t, mask), running_max, options)), mask)
    gradient *= _derivative(t, positives, options)
    return tf.where(positives | negatives, gradient, tf.zeros_like(gradient))


@compilation.compiled
def finalize(state, options):
    """Losses of anchors that have seen all their keys.

    Args:
        state: `[4, A]`.
        options: `Options`.

    Returns:
        `(losses [A] in nats, valid [A] bool, scales [4, A])`; `scales` with its second and fourth
        row times the upstream gradient is what `gradients` takes.

    References:
        Sun et al., CVPR 2020, eq. 6 (losses), 9 and 10 (scales).
    """
    return _finalize(state, options)


def _finalize(state, options):
    max_n, sum_n, max_p, sum_p = tf.unstack(state)
    # A pair that is there has added at least exp(0), or NaN.
    valid = (sum_n != 0) & (sum_p != 0)
    sum_n, sum_p = (tf.where(valid, value, tf.ones_like(value)) for value in (sum_n, sum_p))
    total = tf.math.log(sum_n) + tf.math.log(sum_p)
    for running_max in (max_n, max_p):
        total += options.gamma * (running_max - options.margin) * (running_max + options.margin)
    losses = tf.where(valid, tf.math.softplus(total), tf.zeros_like(total))
    weight = tf.where(valid, tf.sigmoid(total), tf.zeros_like(total))
    return losses, valid, tf.stack([max_n, weight / sum_n, max_p, weight / sum_p])


def dense(similarities, labels, key_labels, options):
    """`finalize` after the one tile of similarities `[A, K]` that holds all pairs."""
    positives, negatives = _masks(labels, key_labels)
    t = _distances(similarities, positives, options)
    state = tf.zeros([4, 1], t.dtype)
    mask = _mask(labels, key_labels, 1)
    return _finalize(_add(state, t, positives, negatives, mask, options, axis=1), options)


def weighted(scales, upstream):
    """Scales `[4, A]` from `finalize`, times the gradient `[A]` that comes from above."""
    one = tf.ones_like(upstream)
    return scales * tf.stack([one, upstream, one, upstream])


def shifted(t, running_max, options):
    """The logit of `t` minus that of the running maximum, of shapes that broadcast."""
    # The difference of two logits as a product: subtracting them would lose what gamma scales up.
    return options.gamma * (t - running_max) * (t + running_max)


def first_order(inputs, gradients, remedy):
    """Gradients by the inputs, both lists of tensors, that nobody can differentiate.

    Raises:
        NotImplementedError: when differentiated; `remedy` tells how to get second derivatives.
    """

    @tf.custom_gradient
    def gradients_of(*values):
        def refuse(*_):
            raise NotImplementedError(f"The second derivative of {remedy}")

        # No tf.identity: it would keep buffers from being updated in place.
        return list(values[len(inputs) :]), refuse

    return gradients_of(*inputs, *gradients)


def _masks(labels, key_labels):
    low, high, rows = (labels.codes[line, :, None] for line in range(3))
    key_low, key_high, key_rows = tf.unstack(key_labels.codes[:3])
    same = tf.equal(low, key_low) & tf.equal(high, key_high)
    return same & tf.not_equal(rows, key_rows), ~same


def _mask(labels, key_labels, axis):
    """1 for the keys of an anchor (axis 1), or the anchors of a key, that are there; None: all.

    Multiplying by it costs XLA less than one more condition in the masks.
    """
    mask = key_labels.mask if axis == 1 else labels.mask
    return None if mask is None else tf.expand_dims(mask, 1 - axis)


def _distances(similarities, positives, options):
    near_one = tf.minimum(similarities - 1, options.margin)
    return tf.where(positives, near_one, tf.maximum(similarities, -options.margin))


def _derivative(t, positives, options):
    """Derivative of the logits: the paper's, with constant weights, or the whole."""
    if options.detach_weights:
        return options.gamma * tf.where(positives, t - options.margin, t + options.margin)
    moves = tf.where(positives, t < options.margin, t > -options.margin)
    return tf.where(moves, 2 * options.gamma * t, tf.zeros_like(t))


def _add(state, t, positives, negatives, mask, options, *, axis):
    max_n, sum_n, max_p, sum_p = tf.unstack(state)
    t = _times(t, mask)
    new_n = tf.maximum(max_n, _reduce(tf.reduce_max, tf.abs(t), negatives, axis))
    new_p = tf.maximum(max_p, _reduce(tf.reduce_max, tf.abs(t), positives, axis))
    running_max = _of_kind(new_n, new_p, positives, axis)
    terms = _times(tf.exp(shifted(t, running_max, options)), mask)
    sum_n = sum_n * tf.exp(shifted(max_n, new_n, options))
    sum_p = sum_p * tf.exp(shifted(max_p, new_p, options))
    sum_n += _reduce(tf.reduce_sum, terms, negatives, axis)
    sum_p += _reduce(tf.reduce_sum, terms, positives, axis)
    return tf.stack([new_n, sum_n, new_p, sum_p])


def _add_negatives(state, t, mask, options, *, axis):
    max_n, sum_n, max_p, sum_p = tf.unstack(state)
    t = _times(t, mask)
    new_n = tf.maximum(max_n, tf.reduce_max(tf.abs(t), axis=axis))
    terms = _times(tf.exp(shifted(t, tf.expand_dims(new_n, axis), options)), mask)
    sum_n = sum_n * tf.exp(shifted(max_n, new_n, options))
    sum_n += tf.reduce_sum(terms, axis=axis)
    return tf.stack([new_n, sum_n, max_p, sum_p])


def _times(values, mask):
    # Distances of empty slots are made 0 as well: exp of a large one would be inf, and inf * 0 NaN.
    return values if mask is None else values * mask


def _reduce(reduce, values, mask, axis):
    return reduce(tf.where(mask, values, tf.zeros_like(values)), axis=axis)


def _of_kind(of_negatives, of_positives, positives, axis):
    """The value of each pair's kind, from one value per anchor (axis 1) or per key (axis 0)."""
    of_negatives, of_positives = (tf.expand_dims(v, axis) for v in (of_negatives, of_positives))
    return tf.where(positives, of_positives, of_negatives)
