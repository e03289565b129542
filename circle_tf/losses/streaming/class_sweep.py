"""Class-level Circle loss over blocks of classes: exact, within a memory budget.

`ClassCircleLoss` states the maths on a whole `[B, C]` matrix of cosines. Here the matrix exists a
block of classes at a time. A first sweep over the blocks gives the logsumexps, a second one the
gradient; as many cosines as the budget allows are cached in between, the others computed again.
Class weights are normalised within the products, so that no normalised copy of them exists.
"""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import collectives, compilation
from circle_tf.losses import circle
from circle_tf.losses.streaming import class_tiles, tiles
from circle_tf.utils import checks, sizes

__all__ = ["DEFAULT_MAX_BYTES", "Blocks", "Sweep", "check_max_bytes", "class_losses"]

DEFAULT_MAX_BYTES = sizes.BUDGET_BYTES
_BLOCK_BYTES = sizes.BLOCK_BYTES
_MOST_CACHED = 64  # Blocks: each cached one is operations of its own in the graph.
_FEWEST_CLASSES = 64
SECOND_DERIVATIVE = (
    "CircleHead is not defined. Use CosineClassifier with ClassCircleLoss, which differentiate the "
    "whole matrix as often as asked."
)


def class_losses(
    unit,
    class_weights,
    ids,
    *,
    margin,
    gamma,
    detach_weights=True,
    max_bytes=DEFAULT_MAX_BYTES,
    mask=None,
    product_dtype=None,
    sharded=False,
):
    """Circle loss of each example against class weights of any length.

    The same values and gradients as `circle_loss` on `unit @ normalize(class_weights).T`. Sharded
    over R replicas, each scores the global batch against its own classes: embeddings and a few
    numbers per example cross replicas, never class weights or their gradient, which is complete as
    it is and must not be summed over replicas.

    Args:
        unit: `[B, D]` unit rows, float32 or float64; sharded: this replica's part of the batch.
        class_weights: `[C, D]` of the same dtype, C of 2 or more; sharded: of this replica.
        ids: int64 `[B]`, the own classes; the result for an id outside `0 .. C - 1` is undefined.
            Sharded: of the global batch, counted from this replica's first class, so that those of
            other replicas are not in `0 .. C - 1`.
        margin: m in -1..1, float or scalar tensor.
        gamma: scale above 0, float or scalar tensor.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for cosines: what fits is cached for the gradient, the others are
            computed twice, a block at a time (all where B is unknown when traced). Where C is
            unknown then, it does not count.
        mask: None, or bool `[C]`: classes that count; own classes must be among them.
        product_dtype: None, or "bfloat16"; see `CircleHead`.
        sharded: whether each replica holds its own classes.

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
        Classes over devices: Deng et al., "ArcFace", CVPR 2019.
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    batch, class_weights = tf.convert_to_tensor(unit), tf.convert_to_tensor(class_weights)
    options = tiles.Options.of(batch.dtype, margin, gamma, detach_weights)
    if sharded:
        batch, _, offset = collectives.gather_examples(batch)
    blocks = Blocks.of_batch(batch, class_weights.shape[0], max_bytes, product_dtype)

    @tf.custom_gradient
    def with_gradient(batch, class_weights):
        given = (batch, class_weights, ids, mask, options, blocks)
        own, state, inverse, cached = _forward(*given, sharded=sharded)
        if sharded:
            state = joined(own, state, options)
        losses, _, scales = tiles.finalize(state, options)

        def gradient(upstream):
            if sharded:  # A replica's own rows get their upstream there and nowhere else.
                (upstream,) = collectives.all_reduce_sums([upstream])
            found = _backward(*given, tiles.weighted(scales, upstream), inverse, cached)
            return tiles.first_order([batch, class_weights], found, SECOND_DERIVATIVE)

        return losses, gradient

    losses = with_gradient(batch, class_weights)
    return losses[offset : offset + tf.shape(unit)[0]] if sharded else losses


@tf.function(autograph=False)
def _forward(unit, weights, ids, mask, options, blocks, *, sharded):
    """`(cosines to own classes [B], state [4, B], inverse lengths [C], cached products)`.

    Sharded, the cosine is 0 and the state lacks the positive where the own class is elsewhere.
    """
    sweep = Sweep(unit, _reader(weights), _shape(weights), ids, options, blocks, mask)
    own = class_tiles.cosines_to(unit, tf.gather(weights, sweep.clipped_ids()))
    if sharded:
        own = tf.where(sweep.own_is_here(), own, tf.zeros_like(own))
        state = tf.zeros([4, tf.shape(unit)[0]], unit.dtype)
    else:
        state = class_tiles.own_state(own, options)
    return own, *sweep.forward(state)


@tf.function(autograph=False)
def _backward(unit, weights, ids, mask, options, blocks, scales, inverse, cached):
    """Gradients of `sum(upstream * losses)` by unit `[B, D]` and weights `[C, D]`."""
    sweep = Sweep(unit, _reader(weights), _shape(weights), ids, options, blocks, mask)
    return sweep.backward(scales, inverse, cached)


def joined(own, state, options):
    """The state `[4, N]` of the global batch, from what each replica's classes have added.

    Args:
        own: `[N]`, cosines to the own classes, 0 where these are elsewhere.
        state: `[4, N]`, of this replica's classes as negatives alone.
        options: `tiles.Options`.

    Returns:
        `[4, N]`, the same on all replicas.
    """
    (own,) = collectives.all_reduce_sums([own])
    parts = collectives.gather_rows(tf.stop_gradient(state[None, :2]))
    positives = class_tiles.own_state(own, options)[2:]
    return tf.concat([class_tiles.merged(parts, options), positives], 0)


class Blocks(NamedTuple):
    """How classes are cut into blocks: Python values only, so that each way has its own graph."""

    num_classes: int | None  # None: known when run, all in one block.
    size: int | None
    cached: int  # Of how many, the first ones, the cosines are held.
    in_place: bool
    product_dtype: str | None = None  # None: of the inputs.

    @classmethod
    def of_batch(cls, unit, num_classes, max_bytes, product_dtype=None):
        """How the classes are cut for a batch.

        Args:
            unit: `[B, D]`.
            num_classes: int C, or None where it is unknown when traced.
            max_bytes: int, budget for cosines.
            product_dtype: None, or name of the dtype to which the factors of products are rounded.

        Returns:
            `Blocks`.

        Raises:
            ValueError: what is no budget, or one that cannot hold a block.

        Example:
            >>> blocks = Blocks.of_batch(tf.zeros([1024, 8]), 10**6, 2**28)
            >>> blocks.size, blocks.cached
            (8192, 7)
        """
        max_bytes = check_max_bytes(max_bytes)
        batch, in_place = unit.shape[0], not compilation.within_xla()
        if num_classes is None:
            return cls(None, None, 1, in_place, product_dtype)
        row_bytes = unit.dtype.size * max(1, batch or 1024)
        fewest = min(num_classes, _FEWEST_CLASSES)
        if row_bytes * fewest > max_bytes:
            raise ValueError(
                f"max_bytes={max_bytes} cannot hold the cosines of a batch of "
                f"{batch or 'unknown size'} to {fewest} classes: give {row_bytes * fewest} or "
                "more, or make the batch smaller."
            )
        size = min(num_classes, max(fewest, min(_BLOCK_BYTES, max_bytes) // row_bytes))
        if batch is None:
            cached = 0
        elif row_bytes * num_classes <= max_bytes:
            size = max(size, -(-num_classes // _MOST_CACHED))
            cached = -(-num_classes // size)
        else:  # One block is for the cosines that are computed again.
            cached = min(_MOST_CACHED, max_bytes // (row_bytes * size) - 1)
        return cls(num_classes, size, cached, in_place, product_dtype)

    def holds(self, start):
        """Whether the cosines of the block that starts at this row are cached.

        Args:
            start: int; int32 scalar where the block is visited in a loop, in which none is held.

        Returns:
            bool.

        Example:
            >>> Blocks(1000, 100, 2, True).holds(100)
            True
        """
        if self.num_classes is None:
            return True
        return isinstance(start, int) and start < self.cached * self.size

    def each(self, visit, count, values):
        """Visits all blocks, in order; the last one may be shorter.

        Args:
            visit: `fn(start, size, *values) -> values`, of rows `start .. start + size - 1`.
            count: int, or int32 scalar: rows of all.
            values: tuple of tensors that go from block to block.

        Returns:
            tuple, the values after the last block.
        """
        if self.num_classes is None:
            return visit(0, count, *values)
        full, rest = divmod(count, self.size)
        unrolled = full if full == 1 else min(self.cached, full)
        for index in range(unrolled):
            # In turn: all blocks' gradients at once would be as large as the weights.
            with tf.control_dependencies(values[-1:]):
                values = visit(index * self.size, self.size, *values)
        if unrolled < full:
            # One at a time: blocks side by side would hold more than the budget.
            _, *values = tf.while_loop(
                lambda index, *_: index < full,
                lambda index, *now: (index + 1, *visit(index * self.size, self.size, *now)),
                (tf.constant(unrolled), *values),
                parallel_iterations=1,
            )
        if rest:
            values = visit(full * self.size, rest, *values)
        return tuple(values)

    def product(self, a, b, **transposed):
        """A matrix product in `product_dtype`; of the factors' dtype, float32 where rounded."""
        if self.product_dtype is None:
            return tf.matmul(a, b, **transposed)
        a, b = tf.cast(a, self.product_dtype), tf.cast(b, self.product_dtype)
        return tf.cast(tf.matmul(a, b, **transposed), tf.float32)

    def written(self, matrix, start, size, rows):
        """`matrix` with `rows` from row `start` on, written in place: nobody else may hold it."""
        places = start + tf.range(size)
        if not self.in_place:
            return tf.tensor_scatter_nd_update(matrix, places[:, None], rows)

        # An eighth of the scatter's time, and no copy when a loop begins; XLA has no such
        # operation. TensorFlow asks for its derivative too, although `first_order` refuses it.
        @tf.custom_gradient
        def write(matrix, rows):
            return tf.raw_ops.InplaceUpdate(x=matrix, i=places, v=rows), lambda _: (None, None)

        return write(matrix, rows)


class Sweep:
    """The sweeps of one batch over blocks of class weights.

    Args:
        unit: `[B, D]` unit rows.
        rows_at: `fn(start, size)`: class weights `[size, D]` from class `start` on.
        shape: `(C, D)` of the class weights; C is an int, or an int32 scalar.
        ids: int64 `[B]`, own classes; those elsewhere are not in `0 .. C - 1`.
        options: `tiles.Options`.
        blocks: `Blocks`.
        mask: None, or bool `[C]`, the classes that count.
    """

    def __init__(self, unit, rows_at, shape, ids, options, blocks, mask=None):
        self._unit, self._rows_at, self._ids = unit, rows_at, ids
        self._count, self._dim = shape
        self._options, self._blocks, self._mask = options, blocks, mask

    def own_is_here(self):
        """Bool `[B]`, whether the own class is one of these."""
        return (self._ids >= 0) & (self._ids < tf.cast(self._count, tf.int64))

    def clipped_ids(self):
        """int64 `[B]`, ids within the range."""
        return tf.clip_by_value(self._ids, 0, tf.cast(self._count, tf.int64) - 1)

    def forward(self, state):
        """Adds all classes' negatives to the state `[4, B]` (see `tiles.update`).

        Returns:
            `(state [4, B], inverse lengths of the class weights [C], cached products)`.
        """
        cached = []

        def visit(start, size, state, inverse):
            rows, products = self._products(start, size)
            lengths = class_tiles.inverse_lengths(rows)
            if self._blocks.holds(start):
                cached.append(products)
            state = class_tiles.add_negatives(
                products, lengths, state, *self._of_block(start, size), self._options
            )
            return state, self._blocks.written(inverse, start, size, lengths)

        values = (state, _empty([self._count], self._unit.dtype))
        return *self._blocks.each(visit, self._count, values), cached

    def forward_with_gradient(self, state):
        """The same, summing up the gradient by `unit` on the way, as an online logsumexp its sum.

        Returns:
            `(state [4, B], of_unit [B, D], inverse lengths [C], cached products)`: `of_unit` is the
            part of the negatives, and lacks a factor of each example, `gamma` times the second
            line of its scales.
        """
        cached = []

        def visit(start, size, state, of_unit, inverse):
            rows, products = self._products(start, size)
            lengths = class_tiles.inverse_lengths(rows)
            if self._blocks.holds(start):
                cached.append(products)
            of_products, shrinkage, state = class_tiles.add_negatives_and_gradients(
                products, lengths, state, *self._of_block(start, size), self._options
            )
            of_unit = of_unit * shrinkage[:, None] + self._blocks.product(of_products, rows)
            return state, of_unit, self._blocks.written(inverse, start, size, lengths)

        values = (state, tf.zeros_like(self._unit), _empty([self._count], self._unit.dtype))
        return *self._blocks.each(visit, self._count, values), cached

    def backward(self, scales, inverse, cached):
        """Gradients `([B, D], [C, D])` from weighted scales `[4, B]` and what `forward` left."""
        cached = iter(cached)

        def visit(start, size, of_unit, of_weights):
            rows, of_products, found = self._block_gradient(start, size, scales, inverse, cached)
            of_unit = tf.add_n([of_unit, self._blocks.product(of_products, rows)])
            return of_unit, self._blocks.written(of_weights, start, size, found)

        of_weights = _empty([self._count, self._dim], self._unit.dtype)
        values = (tf.zeros_like(self._unit), of_weights)
        return self._blocks.each(visit, self._count, values)

    def each_weight_gradient(self, scales, inverse, cached, use):
        """Calls `use(rows [K], gradients [K, D])` for one block of class weights after the other.

        Args:
            scales: `[4, B]`, weighted.
            inverse: `[C]`, from `forward_with_gradient`.
            cached: products, from there too.
            use: it may write these rows of the class weights.
        """
        cached = iter(cached)

        def visit(start, size):
            _, _, found = self._block_gradient(start, size, scales, inverse, cached)
            use(start + tf.range(size), found)
            return ()

        self._blocks.each(visit, self._count, ())

    def _block_gradient(self, start, size, scales, inverse, cached):
        """`(rows [K, D], gradient by the products [B, K], gradient by the rows [K, D])`."""
        lengths = _slice(inverse, start, size)
        if self._blocks.holds(start):
            rows, products = self._rows_at(start, size), next(cached)
        else:
            rows, products = self._products(start, size)
        of_products, along = class_tiles.gradients(
            products, lengths, scales, *self._of_block(start, size), self._options
        )
        found = self._blocks.product(of_products, self._unit, transpose_a=True)
        return rows, of_products, class_tiles.across(found, rows, lengths, along)

    def _products(self, start, size):
        rows = self._rows_at(start, size)
        return rows, self._blocks.product(self._unit, rows, transpose_b=True)

    def _of_block(self, start, size):
        """Own classes counted from the first of the block, and which of its classes count."""
        mask = None if self._mask is None else _slice(self._mask, start, size)
        return self._ids - tf.cast(start, tf.int64), mask


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


def _reader(weights):
    return lambda start, size: _slice(weights, start, size)


def _slice(values, start, size):
    # Along the first axis TensorFlow's slice is a view.
    begin = [start] + [0] * (values.shape.rank - 1)
    return tf.slice(values, begin, [size, *values.shape[1:]])


def _empty(shape, dtype):
    # Zeros of known shape would be folded into a constant, which is copied at each run.
    return tf.raw_ops.Empty(shape=shape, dtype=dtype)


def _shape(weights):
    """Rows and columns: ints, or int32 scalars where they are unknown when traced."""
    known = weights.shape.as_list()
    return tuple(tf.shape(weights)[i] if known[i] is None else known[i] for i in range(2))
