"""Class-level Circle loss over blocks of classes: exact, within a memory budget.

`losses.class_losses` states the maths on a whole `[B, C]` matrix of cosines. Here the matrix exists
a block of classes at a time: a first sweep gives each example's logsumexp, a second one the
gradient. Blocks are kept between the sweeps where the budget allows, and computed again elsewhere.
Class weights are normalised within the products, so that no normalised copy of them exists.
"""

from typing import NamedTuple

import tensorflow as tf

from circle_tf import checks, circle, replicas, tiles

__all__ = ["DEFAULT_MAX_BYTES", "check_max_bytes", "class_losses"]

DEFAULT_MAX_BYTES = 2**28
# Bytes of a block (smaller ones slow the products down), most blocks that are kept, fewest classes
# of a block.
_BLOCK_BYTES = 2**25
_MOST_KEPT = 64
_FEWEST_CLASSES = 64
_ZERO_ROW = 1e-30  # As in `numerics.safe_normalize`.


class _Layout(NamedTuple):
    """How the classes are cut: Python values only, so that each layout has its own graph."""

    num_classes: int | None  # None: known when run, all in one block.
    block: int | None
    kept: bool


def class_losses(
    unit,
    class_weights,
    ids,
    *,
    margin,
    gamma,
    detach_weights=True,
    max_bytes=DEFAULT_MAX_BYTES,
    live=None,
):
    """Circle loss of each example against class weights of any length.

    The same values and gradients as `circle_loss` on `unit @ normalize(class_weights).T`.

    Args:
        unit: `[B, D]` unit rows, float32 or float64.
        class_weights: `[C, D]` of the same dtype, C of 2 or more.
        ids: int64 `[B]`, the own classes; the result for an id outside `0 .. C - 1` is undefined.
        margin: float m in -1..1.
        gamma: float scale above 0.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for cosines: within it they are kept for the gradient, above it they
            are computed twice, a block at a time (so too where B is unknown when traced). Where C
            is unknown then, it does not count.
        live: None, or bool `[C]`: classes that count; own classes must be among them.

    Returns:
        `[B]` losses in nats.

    Raises:
        ValueError: hyper-parameters out of range, or a budget that cannot hold a block.
        NotImplementedError: a second-order gradient was asked for.

    Example:
        >>> losses = class_losses(
        ...     tf.constant([[1.0, 0.0]]), tf.eye(2), tf.constant([0], tf.int64),
        ...     margin=0.25, gamma=256.0)
        >>> bool(losses[0] < 1e-3)
        True

    References:
        Sun et al., CVPR 2020, section 3.1 (class-level labels), eq. 6 and 9.
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    options = tiles.Options(float(margin), float(gamma), bool(detach_weights))
    unit, class_weights = tf.convert_to_tensor(unit), tf.convert_to_tensor(class_weights)
    layout = _layout(unit, class_weights.shape[0], check_max_bytes(max_bytes))

    @tf.custom_gradient
    def attach(unit, class_weights):
        losses, scales, inverse, kept = _forward(unit, class_weights, ids, live, options, layout)

        def gradient(upstream):
            given = (unit, class_weights, ids, live, options, layout)
            found = _backward(*given, scales, inverse, kept, upstream)
            return _first_order(unit, class_weights, *found)

        return losses, gradient

    return attach(unit, class_weights)


def check_max_bytes(value):
    """The int of 1 or more that a budget is.

    Args:
        value: what was given.

    Returns:
        int.

    Raises:
        ValueError: anything else.

    Example:
        >>> check_max_bytes(2**20)
        1048576
    """
    return checks.whole_number(value, "max_bytes", least=1)


def _layout(unit, num_classes, max_bytes):
    batch = unit.shape[0]
    if num_classes is None:
        return _Layout(None, None, kept=True)
    row_bytes = unit.dtype.size * max(1, batch or 1024)
    fewest = min(num_classes, _FEWEST_CLASSES)
    if row_bytes * fewest > max_bytes:
        raise ValueError(
            f"max_bytes={max_bytes} cannot hold the cosines of a batch of {batch or 'unknown size'}"
            f" to {fewest} classes: give {row_bytes * fewest} or more, or make the batch smaller."
        )
    block = max(fewest, min(_BLOCK_BYTES, max_bytes) // row_bytes)
    kept = batch is not None and row_bytes * num_classes <= max_bytes
    if kept:
        block = max(block, -(-num_classes // _MOST_KEPT))
    return _Layout(num_classes, min(block, num_classes), kept)


@tf.function(autograph=False)
def _forward(unit, weights, ids, live, options, layout):
    """`(losses [B], scales [4, B], inverse lengths of the class weights [C], kept cosines)`."""
    own = tf.gather(weights, tf.clip_by_value(ids, 0, _long(_length(weights)) - 1))
    state = _own_state(unit, own, options)
    kept = []

    def visit(start, size, state, inverse):
        rows = _slice(weights, start, size)
        products = tf.matmul(unit, rows, transpose_b=True)
        lengths = _inverse_lengths(rows)
        there = None if live is None else _slice(live, start, size)
        cosines, state = _add_negatives(
            products, lengths, state, ids - _long(start), there, options
        )
        if layout.kept:
            kept.append(cosines)
        return state, _write(inverse, start, size, lengths)

    inverse = tf.zeros([_length(weights)], unit.dtype)
    state, inverse = _each_block(visit, layout, _length(weights), (state, inverse))
    losses, _, scales = tiles.finish(state, options)
    return losses, scales, inverse, kept


@tf.function(autograph=False)
def _backward(unit, weights, ids, live, options, layout, scales, inverse, kept, upstream):
    """Gradients `([B, D], [C, D])` of `sum(upstream * losses)`."""
    scales = tiles.weighted(scales, upstream)
    kept = iter(kept)

    def visit(start, size, of_unit, of_weights):
        rows, lengths = _slice(weights, start, size), _slice(inverse, start, size)
        if layout.kept:
            cosines = next(kept)
        else:
            cosines = _scaled(tf.matmul(unit, rows, transpose_b=True), lengths)
        there = None if live is None else _slice(live, start, size)
        slopes, along = _slopes(cosines, lengths, scales, ids - _long(start), there, options)
        of_unit = tf.add_n([of_unit, tf.matmul(slopes, rows)])
        found = _across(tf.matmul(slopes, unit, transpose_a=True), rows, lengths, along)
        return of_unit, _write(of_weights, start, size, found)

    return _each_block(visit, layout, _length(weights), (tf.zeros_like(unit), _empty(weights)))


def _each_block(visit, layout, total, values):
    """`visit(start, size, *values)` over all blocks, in order; the last one may be shorter."""
    if layout.num_classes is None:
        return visit(0, total, *values)
    whole, rest = divmod(total, layout.block)
    if layout.kept or whole == 1:
        for index in range(whole):
            values = visit(index * layout.block, layout.block, *values)
    else:
        # One at a time: blocks side by side would hold more than the budget.
        _, *values = tf.while_loop(
            lambda index, *_: index < whole,
            lambda index, *now: (index + 1, *visit(index * layout.block, layout.block, *now)),
            (tf.constant(0), *values),
            parallel_iterations=1,
        )
    if rest:
        values = visit(whole * layout.block, rest, *values)
    return tuple(values)


def _long(start):
    return tf.cast(start, tf.int64)


def _slice(values, start, size):
    # Along the first axis TensorFlow's slice is a view.
    begin = [start] + [0] * (values.shape.rank - 1)
    return tf.slice(values, begin, [size, *values.shape[1:]])


def _write(total, start, size, rows):
    """`total` with `rows` in it, in place: nobody else holds it."""
    return tf.tensor_scatter_nd_update(total, (start + tf.range(size))[:, None], rows)


def _empty(weights):
    return tf.zeros(tf.shape(weights), weights.dtype)


def _length(weights):
    return tf.shape(weights)[0] if weights.shape[0] is None else weights.shape[0]


@replicas.compiled
def _inverse_lengths(rows):
    largest = tf.reduce_max(tf.abs(rows), axis=1)
    # NaN is no zero row: its loss is to be NaN as well.
    is_zero = largest < _ZERO_ROW
    safe = tf.where(is_zero, tf.ones_like(largest), largest)
    square = tf.reduce_sum(tf.square(rows / safe[:, None]), axis=1)
    inverse = tf.math.rsqrt(tf.where(is_zero, tf.ones_like(square), square)) / safe
    return tf.where(is_zero, tf.zeros_like(inverse), inverse)


@replicas.compiled
def _own_state(unit, own, options):
    """State (see `tiles.update`) of examples that have seen their own class only."""
    cosines = tf.reduce_sum(unit * (own * _inverse_lengths(own)[:, None]), axis=1)
    far = tf.abs(tf.minimum(cosines - 1, options.margin))
    return tf.stack([tf.zeros_like(far), tf.zeros_like(far), far, tf.ones_like(far)])


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
def _first_order(unit, class_weights, of_unit, of_weights):
    """The gradients, as a function of the inputs that nobody can differentiate."""

    def refuse(*_):
        raise NotImplementedError(
            "The second derivative of CircleHead is not defined. Use CosineClassifier with "
            "ClassCircleLoss, which differentiate the whole matrix as often as asked."
        )

    # No tf.identity: it would keep both buffers from being updated in place.
    return (of_unit, of_weights), refuse
