"""What one block of classes adds: to the examples' logsumexps, and to the gradients.

The elementwise work around the matrix products, compiled by XLA into single passes; `tiles` is the
same for pairs, and says what `t` and a state are. A block is K rows of the raw class weights; its
products are of `[B, D]` unit embeddings with these, and `lengths` makes cosines of them.
"""

import tensorflow as tf

from circle_tf.distribute import compilation
from circle_tf.losses.streaming import tiles
from circle_tf.ops import numerics

__all__ = [
    "across",
    "add_negatives",
    "add_negatives_and_gradients",
    "cosines_to",
    "inverse_lengths",
    "merged",
    "own_gradients",
    "own_state",
    "gradients",
]


@compilation.compiled
def inverse_lengths(rows):
    """What makes rows `[K, D]` units: `[K]`, 0 for rows of zeros."""
    return _inverse_lengths(rows)


@compilation.compiled
def cosines_to(unit, own):
    """Cosines `[B]` of unit rows `[B, D]` to the raw weights `[B, D]` of their own classes."""
    return tf.reduce_sum(unit * (own * _inverse_lengths(own)[:, None]), axis=1)


@compilation.compiled
def own_state(cosines, options):
    """State `[4, B]` (see `tiles.update`) of examples that have seen their own class only.

    From the cosines `[B]` to the own classes.
    """
    running_max = tf.abs(tf.minimum(cosines - 1, options.margin))
    return tf.stack(
        [
            tf.zeros_like(running_max),
            tf.zeros_like(running_max),
            running_max,
            tf.ones_like(running_max),
        ]
    )


@compilation.compiled
def merged(parts, options):
    """One logsumexp of negatives `[2, B]`, two lines of a state, from R parts' `[R, 2, B]`."""
    running_max = tf.reduce_max(parts[:, 0], axis=0)
    total = tf.reduce_sum(
        parts[:, 1] * tf.exp(tiles.shifted(parts[:, 0], running_max, options)), axis=0
    )
    return tf.stack([running_max, total])


@compilation.compiled
def add_negatives(products, lengths, state, ids, mask, options):
    """The state after one more block.

    Args:
        products: `[B, K]`.
        lengths: `[K]`, from `inverse_lengths`.
        state: `[4, B]`.
        ids: int64 `[B]`, own classes, counted from the first of the block.
        mask: None, or bool `[K]`, the classes that count.
        options: `tiles.Options`.

    Returns:
        `[4, B]`.
    """
    return _added(products * lengths, state, ids, mask, options)[-1]


@compilation.compiled
def add_negatives_and_gradients(products, lengths, state, ids, mask, options):
    """The same, and the gradients of the losses as far as they are known by now.

    Returns:
        `(gradients [B, K] by the products, shrinkage [B], state [4, B])`: gradients lack a factor
        of each example, `gamma` times the second line of its scales, and all earlier ones are to be
        multiplied by the shrinkage.
    """
    t, terms, shrinkage, state = _added(products * lengths, state, ids, mask, options)
    return terms * _by_other(t, options) * lengths, shrinkage, state


@compilation.compiled
def own_gradients(cosines, scales, options):
    """The gradient `[B]` of each loss by the cosine `[B]` to the own class, with its scales."""
    return options.gamma * scales[3] * _by_own(cosines, options)


@compilation.compiled
def gradients(products, lengths, scales, ids, mask, options):
    """The gradient of the upstream-weighted losses by the products of a block.

    Args:
        products: `[B, K]`.
        lengths: `[K]`.
        scales: `[4, B]`, from `tiles.weighted`.
        ids: int64 `[B]`, own classes, counted from the first of the block.
        mask: None, or bool `[K]`, the classes that count.
        options: `tiles.Options`.

    Returns:
        `(gradients [B, K], along [K])`: `along` is what goes along each weight.
    """
    cosines = products * lengths
    running_max, weight, _, weight_own = (line[:, None] for line in tf.unstack(scales))
    t = tf.maximum(cosines, -options.margin)
    by_other = _by_other(t, options) * weight * tf.exp(tiles.shifted(t, running_max, options))
    if mask is not None:
        by_other = tf.where(mask, by_other, tf.zeros_like(by_other))
    by_own = weight_own * _by_own(cosines, options)
    found = options.gamma * tf.where(_own(cosines, ids), by_own, by_other)
    return found * lengths, tf.reduce_sum(found * cosines, axis=0)


@compilation.compiled
def across(found, rows, lengths, along):
    """The gradient `[K, D]` by raw weights, from `gradients` times embeddings `[K, D]`.

    What goes along a weight (`along` `[K]`, from `gradients`) does not turn it, and is taken out.
    """
    return found - (rows * lengths[:, None]) * (along * lengths)[:, None]


def _inverse_lengths(rows):
    largest = tf.reduce_max(tf.abs(rows), axis=1)
    # NaN is no zero row: its loss is to be NaN as well.
    is_zero = numerics.is_zero_row(largest)
    safe = tf.where(is_zero, tf.ones_like(largest), largest)
    square = tf.reduce_sum(tf.square(rows / safe[:, None]), axis=1)
    inverse = tf.math.rsqrt(tf.where(is_zero, tf.ones_like(square), square)) / safe
    return tf.where(is_zero, tf.zeros_like(inverse), inverse)


def _added(cosines, state, ids, mask, options):
    """`(t, terms, what earlier terms shrink by, state)`."""
    other = ~_own(cosines, ids)
    if mask is not None:
        other &= mask
    t = tf.maximum(cosines, -options.margin)
    zeros = tf.zeros_like(t)
    running_max, total, *own = tf.unstack(state)
    new = tf.maximum(running_max, tf.reduce_max(tf.where(other, tf.abs(t), zeros), axis=1))
    terms = tf.where(other, tf.exp(tiles.shifted(t, new[:, None], options)), zeros)
    shrinkage = tf.exp(tiles.shifted(running_max, new, options))
    total = total * shrinkage + tf.reduce_sum(terms, axis=1)
    return t, terms, shrinkage, tf.stack([new, total, *own])


def _by_own(cosines, options):
    near = tf.minimum(cosines - 1, options.margin)
    if options.detach_weights:
        return near - options.margin
    return tf.where(near < options.margin, 2 * near, tf.zeros_like(near))


def _by_other(t, options):
    if options.detach_weights:
        return t + options.margin
    return tf.where(t > -options.margin, 2 * t, tf.zeros_like(t))


def _own(cosines, ids):
    return tf.equal(tf.range(tf.shape(cosines)[1], dtype=tf.int32), tf.cast(ids, tf.int32)[:, None])
