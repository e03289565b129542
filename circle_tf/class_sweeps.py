"""The two sweeps over blocks of classes: logsumexps first, then the gradient.

Blocks are kept between the sweeps where the layout says so, and computed again elsewhere. Class
weights are normalised within the products, so that no normalised copy of them exists.
"""

import tensorflow as tf

from circle_tf import class_blocks, replicas, tiles

__all__ = [
    "backward",
    "first_order",
    "forward",
    "forward_part",
    "merged",
    "own_state",
]

_ZERO_ROW = 1e-30  # As in `numerics.safe_normalize`.


@tf.function(autograph=False)
def forward(unit, weights, ids, live, options, layout):
    """Losses of all examples.

    Args:
        unit: `[B, D]` unit rows.
        weights: `[C, D]`.
        ids: int64 `[B]`, own classes.
        live: None, or bool `[C]`, the classes that count.
        options: `tiles.Options`.
        layout: `class_blocks.Layout`.

    Returns:
        `(losses [B], scales [4, B], inverse lengths of the class weights [C], kept cosines)`: all
        but the first are for `backward`.
    """
    state = own_state(_own_cosines(unit, weights, ids), options)
    state, inverse, kept = _sweep(unit, weights, ids, live, state, options, layout)
    losses, _, scales = tiles.finish(state, options)
    return losses, scales, inverse, kept


@tf.function(autograph=False)
def forward_part(unit, weights, ids, live, options, layout):
    """What some of the classes add to the losses; the others are elsewhere.

    Args:
        unit: as for `forward`.
        weights: `[C, D]` of these classes.
        ids: int64 `[B]`, counted from the first of these classes: some are not in `0 .. C - 1`.
        live: as for `forward`.
        options: as for `forward`.
        layout: as for `forward`.

    Returns:
        `(cosines to the own classes [B], 0 where they are elsewhere; farthest negatives and sums of
        exponentials [2, B]; inverse lengths [C], kept cosines)`.
    """
    here = (ids >= 0) & (ids < _long(class_blocks.length_of(weights)))
    cosines = _own_cosines(unit, weights, ids)
    own = tf.where(here, cosines, tf.zeros_like(cosines))
    state = tf.zeros([4, tf.shape(unit)[0]], unit.dtype)
    state, inverse, kept = _sweep(unit, weights, ids, live, state, options, layout)
    return own, state[:2], inverse, kept


@tf.function(autograph=False)
def backward(unit, weights, ids, live, options, layout, scales, inverse, kept, upstream):
    """Gradients of `sum(upstream * losses)`.

    Args:
        unit: as for `forward`.
        weights: as for `forward`.
        ids: as for `forward`; those of classes elsewhere are out of range.
        live: as for `forward`.
        options: as for `forward`.
        layout: as for `forward`.
        scales: from `forward`.
        inverse: from `forward`.
        kept: from `forward`.
        upstream: `[B]`.

    Returns:
        `([B, D], [C, D])`.
    """
    scales = tiles.weighted(scales, upstream)
    kept = iter(kept)

    def visit(start, size, of_unit, of_weights):
        rows, lengths = (
            class_blocks.rows_from(weights, start, size),
            class_blocks.rows_from(inverse, start, size),
        )
        if layout.kept:
            cosines = next(kept)
        else:
            cosines = _scaled(class_blocks.product(unit, rows, layout, transpose_b=True), lengths)
        there = None if live is None else class_blocks.rows_from(live, start, size)
        slopes, along = _slopes(cosines, lengths, scales, ids - _long(start), there, options)
        of_unit = tf.add_n([of_unit, class_blocks.product(slopes, rows, layout)])
        found = class_blocks.product(slopes, unit, layout, transpose_a=True)
        found = _across(found, rows, lengths, along)
        return of_unit, class_blocks.written(of_weights, start, size, found, layout)

    return class_blocks.each_block(
        visit,
        layout,
        class_blocks.length_of(weights),
        (tf.zeros_like(unit), class_blocks.empty(tf.shape(weights), weights.dtype)),
    )


def _sweep(unit, weights, ids, live, state, options, layout):
    """`(state, inverse lengths, kept cosines)` after all blocks."""
    kept = []

    def visit(start, size, state, inverse):
        rows = class_blocks.rows_from(weights, start, size)
        products = class_blocks.product(unit, rows, layout, transpose_b=True)
        lengths = _inverse_lengths(rows)
        there = None if live is None else class_blocks.rows_from(live, start, size)
        cosines, state = _add_negatives(
            products, lengths, state, ids - _long(start), there, options
        )
        if layout.kept:
            kept.append(cosines)
        return state, class_blocks.written(inverse, start, size, lengths, layout)

    inverse = class_blocks.empty([class_blocks.length_of(weights)], unit.dtype)
    state, inverse = class_blocks.each_block(
        visit, layout, class_blocks.length_of(weights), (state, inverse)
    )
    return state, inverse, kept


def _long(start):
    return tf.cast(start, tf.int64)


@replicas.compiled
def _inverse_lengths(rows):
    largest = tf.reduce_max(tf.abs(rows), axis=1)
    # NaN is no zero row: its loss is to be NaN as well.
    is_zero = largest < _ZERO_ROW
    safe = tf.where(is_zero, tf.ones_like(largest), largest)
    square = tf.reduce_sum(tf.square(rows / safe[:, None]), axis=1)
    inverse = tf.math.rsqrt(tf.where(is_zero, tf.ones_like(square), square)) / safe
    return tf.where(is_zero, tf.zeros_like(inverse), inverse)


def _own_cosines(unit, weights, ids):
    own = tf.gather(weights, tf.clip_by_value(ids, 0, _long(class_blocks.length_of(weights)) - 1))
    return _cosines(unit, own)


@replicas.compiled
def _cosines(unit, own):
    return tf.reduce_sum(unit * (own * _inverse_lengths(own)[:, None]), axis=1)


@replicas.compiled
def own_state(cosines, options):
    """State (see `tiles.update`) of examples that have seen their own class only.

    Args:
        cosines: `[B]`, to the own classes.
        options: `tiles.Options`.

    Returns:
        `[4, B]`.
    """
    far = tf.abs(tf.minimum(cosines - 1, options.margin))
    return tf.stack([tf.zeros_like(far), tf.zeros_like(far), far, tf.ones_like(far)])


@replicas.compiled
def merged(parts, options):
    """One logsumexp of negatives from those of several parts of the classes.

    Args:
        parts: `[R, 2, B]`, from `forward_part`.
        options: `tiles.Options`.

    Returns:
        `[2, B]`.
    """
    far = tf.reduce_max(parts[:, 0], axis=0)
    total = tf.reduce_sum(parts[:, 1] * tf.exp(_shifted(parts[:, 0], far, options)), axis=0)
    return tf.stack([far, total])


@replicas.compiled
def _add_negatives(products, lengths, state, ids, live, options):
    """`(cosines, state)` after one more block; `ids` count from its first class."""
    cosines = products * lengths
    other = ~_own(cosines, ids)
    if live is not None:
        other &= live
    t = tf.maximum(cosines, -options.margin)
    zeros = tf.zeros_like(t)
    far, total, *own = tf.unstack(state)
    new = tf.maximum(far, tf.reduce_max(tf.where(other, tf.abs(t), zeros), axis=1))
    terms = tf.where(other, tf.exp(_shifted(t, new[:, None], options)), zeros)
    total = total * tf.exp(_shifted(far, new, options)) + tf.reduce_sum(terms, axis=1)
    return cosines, tf.stack([new, total, *own])


@replicas.compiled
def _scaled(products, lengths):
    return products * lengths


@replicas.compiled
def _slopes(cosines, lengths, scales, ids, live, options):
    """`(slopes [B, K] by the products, along [K])`: `along` is what goes along each weight."""
    far, weight, far_own, weight_own = (line[:, None] for line in tf.unstack(scales))
    own = _own(cosines, ids)
    m, near = options.margin, tf.minimum(cosines - 1, options.margin)
    t = tf.maximum(cosines, -m)
    if options.detach_weights:
        by_own, by_other = near - m, t + m
    else:
        zeros = tf.zeros_like(t)
        by_own = tf.where(near < m, 2 * near, zeros)
        by_other = tf.where(t > -m, 2 * t, zeros)
    by_other *= weight * tf.exp(_shifted(t, far, options))
    if live is not None:
        by_other = tf.where(live, by_other, tf.zeros_like(by_other))
    slopes = options.gamma * tf.where(own, weight_own * by_own, by_other)
    return slopes * lengths, tf.reduce_sum(slopes * cosines, axis=0)


@replicas.compiled
def _across(found, rows, lengths, along):
    """The gradient by the raw weights: what goes along a weight does not turn it."""
    return found - (rows * lengths[:, None]) * (along * lengths)[:, None]


def _own(cosines, ids):
    return tf.equal(tf.range(tf.shape(cosines)[1], dtype=tf.int32), tf.cast(ids, tf.int32)[:, None])


def _shifted(t, far, options):
    # The difference of two logits as a product: subtracting them would lose what gamma scales up.
    return options.gamma * (t - far) * (t + far)


@tf.custom_gradient
def first_order(unit, class_weights, of_unit, of_weights):
    """The gradients, as a function of the inputs that nobody can differentiate.

    Args:
        unit: `[B, D]`.
        class_weights: `[C, D]`.
        of_unit: gradient by `unit`.
        of_weights: gradient by `class_weights`.

    Returns:
        `(of_unit, of_weights)`.

    Raises:
        NotImplementedError: when differentiated.
    """

    def refuse(*_):
        raise NotImplementedError(
            "The second derivative of CircleHead is not defined. Use CosineClassifier with "
            "ClassCircleLoss, which differentiate the whole matrix as often as asked."
        )

    # No tf.identity: it would keep both buffers from being updated in place.
    return (of_unit, of_weights), refuse
