"""Class-level Circle loss without the gradient of the class weights, which is as large as they are.

The forward sweep over blocks of classes sums the gradient of the embeddings up on its way, as an
online logsumexp does its sum. The gradient of the class weights is left to the optimizer's step,
which computes it a block at a time and uses it up at once. That is three matrix products for
classes whose cosines the budget holds and four for the others, as in `class_sweep.class_losses`.
"""

import functools

import tensorflow as tf

from circle_tf.distribute import collectives
from circle_tf.losses import circle
from circle_tf.losses.streaming import class_sweep, class_tiles, tiles

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
    mask=None,
    sharded=False,
):
    """The losses of `class_sweep.class_losses`, with the gradient of the class weights handed over.

    Args:
        unit: `[B, D]` unit rows.
        variable: tf.Variable `[C, D]` of the same dtype, the class weights. A gradient tape finds a
            gradient of no rows for it.
        ids: int64 `[B]`, the own classes, in `0 .. C - 1`.
        defer: `fn(each)`, called when the tape computes gradients. `each(use)` computes the
            gradient of the class weights: it calls `use(rows [K], gradients [K, D])` for one block
            after the other, each row once. `use` may write these rows of the variable.
        margin: m in -1..1, float or scalar tensor.
        gamma: scale above 0, float or scalar tensor.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for cosines; see `class_sweep.class_losses`.
        product_dtype: None, or "bfloat16"; see `CircleHead`.
        mask: None, or bool `[C]`, the classes that count.
        sharded: `variable` holds this replica's own share of the classes, `ids` are those of the
            global batch; see `class_sweep.class_losses`.

    Returns:
        `[B]` losses in nats.

    Raises:
        ValueError: hyper-parameters out of range, or a budget that cannot hold a block.
        NotImplementedError: a second-order gradient was asked for.

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
    options = tiles.Options.of(unit.dtype, margin, gamma, detach_weights)
    batch, offset = tf.convert_to_tensor(unit), 0
    if sharded:
        batch, _, offset = collectives.gather_examples(batch)
    blocks = class_sweep.Blocks.of_batch(batch, variable.shape[0], max_bytes, product_dtype)

    def rows_at(start, size):
        return _rows(variable, start + tf.range(size))

    fixed = tf.stop_gradient(batch)
    sweep = class_sweep.Sweep(fixed, rows_at, variable.shape, ids, options, blocks, mask)
    own = _rows(variable, sweep.clipped_ids())
    losses, scales, of_batch, left = _forward(sweep, fixed, own, options, sharded=sharded)

    @tf.custom_gradient
    def with_gradient(batch, no_rows):
        def gradient(upstream):
            if sharded:  # A replica's own rows get their upstream there and nowhere else.
                (upstream,) = collectives.all_reduce_sums([upstream])
            weighted = tiles.weighted(scales, upstream)
            defer(functools.partial(sweep.each_weight_gradient, weighted, *left))
            found = of_batch * upstream[:, None], tf.zeros_like(no_rows)
            return tiles.first_order([batch, no_rows], found, class_sweep.SECOND_DERIVATIVE)

        return tf.identity(losses), gradient

    losses = with_gradient(batch, tf.gather(variable, tf.zeros([0], tf.int32)))
    return losses[offset : offset + tf.shape(unit)[0]] if sharded else losses


def _forward(sweep, unit, own, options, *, sharded):
    """Losses, and their gradients by the embeddings, from the rows `[B, D]` of the own classes.

    Returns:
        `(losses [B], scales [4, B], of_unit [B, D], left)`: `left` is what the sweep needs for the
        gradient of the class weights.
    """
    lengths, cosines = class_tiles.inverse_lengths(own), class_tiles.cosines_to(unit, own)
    if sharded:  # An own class that is elsewhere adds nothing here.
        here = sweep.own_is_here()
        lengths, cosines = (tf.where(here, v, tf.zeros_like(v)) for v in (lengths, cosines))
        state = tf.zeros([4, tf.shape(unit)[0]], unit.dtype)
    else:
        state = class_tiles.own_state(cosines, options)
    state, of_unit, *left = sweep.forward_with_gradient(state)
    if sharded:
        largest_here, state = state[0], class_sweep.joined(cosines, state, options)
        of_unit *= tf.exp(tiles.shifted(largest_here, state[0], options))[:, None]
    losses, _, scales = tiles.finalize(state, options)
    of_own = class_tiles.own_gradients(cosines, scales, options) * lengths
    of_unit = options.gamma * scales[1][:, None] * of_unit + of_own[:, None] * own
    return losses, scales, of_unit, left


def _rows(variable, places):
    """Rows of a variable, copied; a gradient tape does not see it.

    Reading the variable would copy all of it, as TensorFlow does once rows of it are written. Were
    the tape to see it, the loops would be built a second time, to keep what their derivatives need.
    """
    handle = tf.stop_gradient(variable.handle)
    return tf.raw_ops.ResourceGather(resource=handle, indices=places, dtype=variable.dtype)
