"""Class-level Circle loss without the gradient of the class weights, which is as large as they are.

The forward sweep over blocks of classes sums the gradient of the embeddings up on its way, as an
online logsumexp does its sum. The gradient of the class weights is left to the optimizer's step,
which computes it a block at a time and uses it up at once. Four matrix products in all, as many as
`class_sweep` needs where it holds no cosines.
"""

import functools

import tensorflow as tf

from circle_tf.losses import circle
from circle_tf.losses.streaming import class_blocks, class_sweep, class_sweeps, class_tiles, tiles

__all__ = ["deferring_class_losses"]


def deferring_class_losses(
    unit,
    variable,
    ids,
    defer,
    *,
    margin,
    gamma,
    detach_weights=True,
    max_bytes=class_sweep.DEFAULT_MAX_BYTES,
    product_dtype=None,
):
    """The losses of `class_sweep.class_losses`, with the gradient of the class weights handed over.

    Args:
        unit: `[B, D]` unit rows.
        variable: tf.Variable `[C, D]` of the same dtype, the class weights. A gradient tape finds a
            gradient of no rows for it.
        ids: int64 `[B]`, as for `class_sweep.class_losses`.
        defer: `fn(each)`, called when the tape computes gradients. `each(use)` computes the
            gradient of the class weights: it calls `use(rows [K], gradients [K, D])` for one block
            after the other, each row once. `use` may write these rows of the variable.
        margin: as for `class_sweep.class_losses`.
        gamma: as for `class_sweep.class_losses`.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for the cosines of a block.
        product_dtype: None, or "bfloat16"; see `CircleHead`.

    Returns:
        `[B]` losses in nats.

    Raises:
        ValueError, NotImplementedError: as `class_sweep.class_losses`.

    Example:
        >>> unit, weights = tf.eye(3)[:2], tf.Variable(tf.eye(3)[::-1])
        >>> handed = []
        >>> with tf.GradientTape() as tape:
        ...     losses = deferring_class_losses(
        ...         unit, weights, tf.constant([0, 1], tf.int64), handed.append,
        ...         margin=0.25, gamma=8.0)
        >>> tape.gradient(losses, weights).values.shape.as_list()
        [0, 3]
        >>> handed[0](lambda rows, gradients: print(rows.numpy(), gradients.shape.as_list()))
        [0 1 2] [3, 3]
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    options = tiles.Options(float(margin), float(gamma), bool(detach_weights))
    layout = class_blocks.layout_of(
        unit, variable.shape[0], class_sweep.check_max_bytes(max_bytes), product_dtype
    )
    layout = layout._replace(kept=False)
    unit = tf.convert_to_tensor(unit)
    still = tf.stop_gradient(unit)
    losses, of_unit, scales, inverse = _forward(still, variable, ids, options, layout)

    @tf.custom_gradient
    def attach(unit, nothing):
        def gradient(upstream):
            weighted = tiles.weighted(scales, upstream)
            given = (still, variable, ids, weighted, inverse, options, layout)
            defer(functools.partial(_each_gradient, *given))
            found = of_unit * upstream[:, None], tf.zeros_like(nothing)
            return class_sweeps.first_order(unit, nothing, *found)

        return tf.identity(losses), gradient

    return attach(unit, tf.gather(variable, tf.zeros([0], tf.int32)))


def _forward(unit, variable, ids, options, layout):
    """`(losses [B], their gradient by unit [B, D], scales [4, B], inverse lengths [C])`."""
    own = _rows(variable, tf.clip_by_value(ids, 0, variable.shape[0] - 1))
    cosines = class_tiles.cosines_to(unit, own)

    def visit(start, size, state, of_unit, inverse):
        rows = _rows(variable, start + tf.range(size))
        lengths = class_tiles.inverse_lengths(rows)
        products = class_blocks.product(unit, rows, layout, transpose_b=True)
        ids_here = ids - tf.cast(start, tf.int64)
        slopes, shrinkage, state = class_tiles.add_negatives_and_slopes(
            products, lengths, state, ids_here, options
        )
        of_unit = of_unit * shrinkage[:, None] + class_blocks.product(slopes, rows, layout)
        return state, of_unit, class_blocks.written(inverse, start, size, lengths, layout)

    inverse = class_blocks.empty([variable.shape[0]], unit.dtype)
    start = (class_tiles.own_state(cosines, options), tf.zeros_like(unit), inverse)
    state, of_unit, inverse = class_blocks.each_block(visit, layout, variable.shape[0], start)
    losses, _, scales = tiles.finish(state, options)
    of_own = class_tiles.own_slopes(cosines, scales, options) * class_tiles.inverse_lengths(own)
    of_unit = options.gamma * scales[1][:, None] * of_unit + of_own[:, None] * own
    return losses, of_unit, scales, inverse


def _each_gradient(unit, variable, ids, scales, inverse, options, layout, use):
    """Calls `use(rows [K], gradients [K, D])` for all blocks in turn."""

    def visit(start, size):
        places = start + tf.range(size)
        rows, lengths = _rows(variable, places), class_blocks.rows_from(inverse, start, size)
        products = class_blocks.product(unit, rows, layout, transpose_b=True)
        ids_here = ids - tf.cast(start, tf.int64)
        slopes, along = class_tiles.slopes(
            class_tiles.scaled(products, lengths), lengths, scales, ids_here, None, options
        )
        found = class_blocks.product(slopes, unit, layout, transpose_a=True)
        use(places, class_tiles.across(found, rows, lengths, along))
        return ()

    class_blocks.each_block(visit, layout, variable.shape[0], ())


def _rows(variable, places):
    """Rows of a variable, copied; a gradient tape does not see it.

    Reading the variable would copy all of it, as TensorFlow does once rows of it are written. Were
    the tape to see it, the loops would be built a second time, to keep what their derivatives need.
    """
    handle = tf.stop_gradient(variable.handle)
    return tf.raw_ops.ResourceGather(resource=handle, indices=places, dtype=variable.dtype)
