"""How a matrix of class weights is cut into blocks; visiting, reading and writing them."""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import compilation

__all__ = [
    "Layout",
    "each_block",
    "empty",
    "layout_of",
    "length_of",
    "product",
    "rows_from",
    "written",
]

# Bytes of a block (smaller ones slow the products down), most blocks that are kept, fewest classes
# of a block.
_BLOCK_BYTES = 2**25
_MOST_KEPT = 64
_FEWEST_CLASSES = 64


class Layout(NamedTuple):
    """How the classes are cut: Python values only, so that each layout has its own graph."""

    num_classes: int | None  # None: known when run, all in one block.
    block: int | None
    kept: bool
    in_place: bool
    product_dtype: str | None = None  # None: of the inputs.


def layout_of(unit, num_classes, max_bytes, product_dtype=None):
    """How the classes are cut for a batch.

    Args:
        unit: `[B, D]`.
        num_classes: int C, or None where it is unknown when traced.
        max_bytes: int, budget for cosines.
        product_dtype: None, or name of the dtype to which the factors of products are rounded.

    Returns:
        `Layout`.

    Raises:
        ValueError: a budget that cannot hold a block.
    """
    batch, in_place = unit.shape[0], not compilation.within_xla()
    if num_classes is None:
        return Layout(None, None, True, in_place, product_dtype)
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
    return Layout(num_classes, min(block, num_classes), kept, in_place, product_dtype)


def each_block(visit, layout, total, values):
    """Visits all blocks, in order; the last one may be shorter.

    Args:
        visit: `fn(start, size, *values) -> values`, of the rows `start .. start + size - 1`.
        layout: `Layout`.
        total: int, or int32 scalar: rows of all.
        values: tuple of tensors that go from block to block.

    Returns:
        tuple, the values after the last block.
    """
    if layout.num_classes is None:
        return visit(0, total, *values)
    whole, rest = divmod(total, layout.block)
    if layout.kept or whole == 1:
        for index in range(whole):
            # In turn: all blocks' gradients at once would be as large as the weights.
            with tf.control_dependencies(values[-1:]):
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


def product(a, b, layout, **transposed):
    """A matrix product in the layout's dtype.

    Args:
        a: matrix.
        b: matrix of the same dtype.
        layout: `Layout`.
        **transposed: `transpose_a`, `transpose_b`.

    Returns:
        Matrix of the dtype of the factors; float32 where they were rounded.
    """
    if layout.product_dtype is None:
        return tf.matmul(a, b, **transposed)
    a, b = tf.cast(a, layout.product_dtype), tf.cast(b, layout.product_dtype)
    return tf.cast(tf.matmul(a, b, **transposed), tf.float32)


def rows_from(values, start, size):
    """Rows `start .. start + size - 1`, as a view.

    Args:
        values: `[N, ...]`.
        start: int, or int32 scalar.
        size: int, or int32 scalar.

    Returns:
        `[size, ...]`.
    """
    # Along the first axis TensorFlow's slice is a view.
    begin = [start] + [0] * (values.shape.rank - 1)
    return tf.slice(values, begin, [size, *values.shape[1:]])


def written(total, start, size, rows, layout):
    """A matrix with rows written into it, in place: nobody else may hold it.

    Args:
        total: `[N, ...]`.
        start: int, or int32 scalar: place of the first row.
        size: int, or int32 scalar: how many rows.
        rows: `[size, ...]`.
        layout: `Layout`.

    Returns:
        `[N, ...]`.
    """
    places = start + tf.range(size)
    if not layout.in_place:
        return tf.tensor_scatter_nd_update(total, places[:, None], rows)

    # An eighth of the scatter's time, and no copy when a loop begins; XLA has no such operation.
    # TensorFlow asks for its derivative too, although `first_order` refuses it.
    @tf.custom_gradient
    def write(total, rows):
        return tf.raw_ops.InplaceUpdate(x=total, i=places, v=rows), lambda _: (None, None)

    return write(total, rows)


def empty(shape, dtype):
    """A tensor to be written to.

    Args:
        shape: ints, or int32 vector.
        dtype: of its elements.

    Returns:
        Tensor of any values.
    """
    # Zeros of known shape would be folded into a constant, which is copied at each run.
    return tf.raw_ops.Empty(shape=shape, dtype=dtype)


def length_of(weights):
    """How many rows there are: int, or int32 scalar where it is unknown when traced.

    Args:
        weights: `[C, ...]`.
    """
    return tf.shape(weights)[0] if weights.shape[0] is None else weights.shape[0]
