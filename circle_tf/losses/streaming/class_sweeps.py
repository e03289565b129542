"""The two sweeps over blocks of classes: logsumexps first, then the gradient.

Blocks are kept between the sweeps where the layout says so, and computed again elsewhere. Class
weights are normalised within the products, so that no normalised copy of them exists.
"""

import tensorflow as tf

from circle_tf.losses.streaming import class_blocks, class_tiles, tiles

__all__ = [
    "backward",
    "first_order",
    "forward",
    "forward_part",
]


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
    state = class_tiles.own_state(_own_cosines(unit, weights, ids), options)
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
            cosines = class_tiles.scaled(
                class_blocks.product(unit, rows, layout, transpose_b=True), lengths
            )
        there = None if live is None else class_blocks.rows_from(live, start, size)
        slopes, along = class_tiles.slopes(
            cosines, lengths, scales, ids - _long(start), there, options
        )
        of_unit = tf.add_n([of_unit, class_blocks.product(slopes, rows, layout)])
        found = class_blocks.product(slopes, unit, layout, transpose_a=True)
        found = class_tiles.across(found, rows, lengths, along)
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
        lengths = class_tiles.inverse_lengths(rows)
        there = None if live is None else class_blocks.rows_from(live, start, size)
        cosines, state = class_tiles.add_negatives(
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


def _own_cosines(unit, weights, ids):
    own = tf.gather(weights, tf.clip_by_value(ids, 0, _long(class_blocks.length_of(weights)) - 1))
    return class_tiles.cosines_to(unit, own)


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
