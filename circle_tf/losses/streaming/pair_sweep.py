"""Pair-wise Circle loss by tiles: exact, in memory linear in the batch, near its products' cost.

`circle_loss` states the maths on a whole `[anchors, keys]` matrix; here the matrix exists one tile
at a time. A first sweep over the tiles gives the logsumexps, a second one the gradient. Where
anchors are their own keys a tile serves both its sides, so that the products of both sweeps
together are no more than those of one pass over the whole matrix forward and backward.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import compilation, global_batch
from circle_tf.losses import circle
from circle_tf.losses.streaming import tiles
from circle_tf.utils import devices

__all__ = ["auto_block", "check_block_size", "pair_losses"]

# Largest batch and its block. Smaller tiles spend their time on being launched, larger ones leave
# the cache. Above these, 1024 if that makes no more tiles than are unrolled, as where a batch meets
# a long memory; else 2048.
_BLOCKS = ((512, 512), (1024, 256), (4096, 512))
_UNKNOWN_BATCH_BLOCK = 1024
# On a GPU the whole matrix is one tile as long as what is held of it at a time, some copies, stays
# within a share of the memory; beyond that, tiles that keep a GPU busy.
_GPU_COPIES, _GPU_SHARE, _GPU_BLOCK = 4, 0.25, 4096
# Up to so many tiles are separate operations that run side by side, and their similarities are
# cached for the gradient (which is linear in the batch still). More are visited in a loop.
_MOST_UNROLLED = 64


def pair_losses(
    unit,
    ids,
    keys=None,
    key_ids=None,
    *,
    rows=None,
    key_rows=None,
    memory=None,
    margin,
    gamma,
    detach_weights=True,
    block_size="auto",
):
    """Circle loss of each anchor against its keys: positives share its id, negatives do not.

    The same values and gradients as `circle_loss` on `unit @ keys.T`, in memory
    `O((A + K) * (block + D))`.

    Args:
        unit: `[A, D]` unit rows, the anchors, float32 or float64.
        ids: int64 `[A]`.
        keys: `[K, D]` unit rows; None (or `unit` itself) where the anchors are the keys, which
            saves half of the products.
        key_ids: int64 `[K]`.
        rows: int64 `[A]`, numbers of the anchors' examples, of which pairs of one number are one
            example with itself and do not count; None numbers them from 0.
        key_rows: int64 `[K]`.
        memory: None, or `Side` of M more keys, which get no gradient; a row number of -1 marks an
            empty slot, which is no key.
        margin: m in -1..1, float or scalar tensor.
        gamma: scale above 0, float or scalar tensor.
        detach_weights: see `circle_loss`.
        block_size: "auto", or the number of rows in a block (it need not divide anything).

    Returns:
        `(losses [A] in nats, valid [A] bool)`. Valid anchors have a positive and a negative.

    Raises:
        ValueError: hyper-parameters or block size out of range.
        NotImplementedError: a second-order gradient was asked for.

    Example:
        >>> losses, valid = pair_losses(
        ...     tf.eye(3), tf.constant([0, 0, 1], tf.int64), margin=0.4, gamma=80.0, block_size=2)
        >>> losses.numpy().round(3).tolist(), valid.numpy().tolist()
        ([54.4..., 54.4..., 0.0], [True, True, False])

    References:
        Sun et al., CVPR 2020, eq. 6, 9, 10. Online logsumexp: Milakov and Gimelshein, "Online
        normalizer calculation for softmax", 2018.
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    if check_block_size(block_size) is None:
        raise ValueError("pair_losses wants a block_size; circle_loss takes the whole matrix.")
    options = tiles.Options.of(unit.dtype, margin, gamma, detach_weights)
    symmetric = keys is None or keys is unit
    if rows is None:
        rows = global_batch.row_numbers(ids)
    anchors = Side(unit, ids, rows)
    others = anchors if symmetric else Side(keys, key_ids, key_rows)
    tiling = _tiling(anchors, others, memory, block_size)
    return _with_gradient(anchors, others, memory, options, tiling)


def check_block_size(block_size):
    """Refuses what is neither "auto", None nor a whole number of 1 or more.

    Args:
        block_size: what was given.

    Returns:
        "auto", None or int.

    Raises:
        ValueError: anything else.

    Example:
        >>> check_block_size("auto")
        'auto'
    """
    if block_size is None or (isinstance(block_size, str) and block_size == "auto"):
        return block_size
    if isinstance(block_size, (bool, str)) or int(block_size) != block_size or block_size < 1:
        raise ValueError(
            'block_size must be "auto", None (the whole matrix) or a whole number of 1 or more; '
            f"found {block_size!r}."
        )
    return int(block_size)


def auto_block(num_anchors, num_keys, *, item_bytes, gpu_bytes=None):
    """Rows of a block where they are "auto".

    For a CPU as measured (docs/benchmarks/losses.md). For a GPU as reasoned, not measured:
    launching a tile costs more there than its elementwise work, so the whole matrix is one tile
    where it fits comfortably (4 copies of it in a quarter of the memory); beyond that tiles are
    4096 a side.

    Args:
        num_anchors: int A, or None where it is unknown when traced.
        num_keys: int K, or None.
        item_bytes: int, of a similarity.
        gpu_bytes: int, memory of the GPU; None on a CPU.

    Returns:
        int.

    Example:
        >>> auto_block(8192, 8192, item_bytes=4)
        1024
        >>> auto_block(8192, 8192, item_bytes=4, gpu_bytes=16 * 2**30)
        8192
        >>> auto_block(65536, 65536, item_bytes=4, gpu_bytes=16 * 2**30)
        4096
        >>> auto_block(256, 16640, item_bytes=4), auto_block(16640, 16640, item_bytes=4)
        (1024, 2048)
    """
    if None in (num_anchors, num_keys):
        return _UNKNOWN_BATCH_BLOCK
    longest = max(num_anchors, num_keys)
    if gpu_bytes is None:
        tiles = math.ceil(num_anchors / 1024) * math.ceil(num_keys / 1024)
        large = 1024 if tiles <= _MOST_UNROLLED else 2048
        return next((block for most, block in _BLOCKS if longest <= most), large)
    held = _GPU_COPIES * item_bytes * num_anchors * num_keys
    return longest if held <= _GPU_SHARE * gpu_bytes else min(longest, _GPU_BLOCK)


def _tiling(anchors, others, memory, block_size):
    if block_size == "auto":
        lengths = [side.ids.shape[0] for side in (others, memory) if side is not None]
        block_size = auto_block(
            anchors.ids.shape[0],
            None if None in lengths else sum(lengths),
            item_bytes=anchors.unit.dtype.size,
            gpu_bytes=devices.gpu_bytes(),
        )
    return Tiling(int(block_size), symmetric=anchors is others)


def _with_gradient(anchors, others, memory, options, tiling):
    fixed = [
        side and Side(tf.stop_gradient(side.unit), side.ids, side.rows)
        for side in (anchors, others, memory)
    ]
    losses, valid, scales, cached = _forward(*fixed, options, tiling)

    @tf.custom_gradient
    def with_gradient(*units):
        def gradient(upstream):
            found = _backward(*fixed, options, tiling, scales, cached, upstream)
            return tiles.first_order(
                units,
                found,
                "the blockwise Circle loss is not defined. Use block_size=None, which "
                "differentiates the whole matrix as often as asked.",
            )

        return tf.identity(losses), gradient

    units = (anchors.unit,) if tiling.symmetric else (anchors.unit, others.unit)
    return with_gradient(*units), valid


class Side(NamedTuple):
    """Anchors or keys: unit rows `[B, D]`, ids int64 `[B]`, numbers of the examples int64 `[B]`."""

    unit: tf.Tensor
    ids: tf.Tensor
    rows: tf.Tensor


class Tiling(NamedTuple):
    """How the sweeps are cut: Python values only, so that each tiling has its own graph."""

    block: int
    symmetric: bool


@tf.function(autograph=False)
def _forward(anchors, others, memory, options, tiling):
    """Losses of all anchors.

    Args:
        anchors: `Side` of A rows.
        others: `Side` of K rows, the keys: the anchors again where the tiling is symmetric.
        memory: None, or `Side` of M more keys.
        options: `tiles.Options`.
        tiling: `Tiling`.

    Returns:
        `(losses [A], valid [A], scales, cached)`: the last two are for `_backward`.
    """
    if memory is None and _is_one_tile(anchors, others, tiling):
        return _forward_one(anchors, others, options, tiling)
    grids, cached = _grids(anchors, others, memory, tiling), []
    own = grids[0].own
    states = tf.zeros([own.count, 4, own.size], own.unit.dtype)
    for grid in grids:
        states, held = _sweep_forward(grid, options, states)
        cached.append(held)
    losses, valid, scales = tiles.finalize(_joined(states), options)
    undo = tf.math.invert_permutation(own.order)
    return tf.gather(losses, undo), tf.gather(valid, undo), scales, cached


@tf.function(autograph=False)
def _backward(anchors, others, memory, options, tiling, scales, cached, upstream):
    """Gradient of `sum(upstream * losses)`.

    Args:
        anchors: `Side` of A rows.
        others: `Side` of K rows, the keys.
        memory: None, or `Side` of M more keys.
        options: `tiles.Options`.
        tiling: `Tiling`.
        scales: from `_forward`.
        cached: from `_forward`.
        upstream: `[A]`.

    Returns:
        `[gradient [A, D]]` where the tiling is symmetric; elsewhere the keys' `[K, D]` after it.
    """
    if memory is None and _is_one_tile(anchors, others, tiling):
        return _backward_one(anchors, others, options, tiling, scales, cached[0], upstream)
    grids = _grids(anchors, others, memory, tiling)
    scales = tiles.weighted(scales, grids[0].own.spread(upstream))
    found = [
        _sweep_backward(grid, options, scales, held)
        for grid, held in zip(grids, cached, strict=True)
    ]
    return [tf.add_n([first[0] for first in found]), *found[0][1:]]


@compilation.compiled
def _forward_one(anchors, others, options, tiling):
    similarities = tf.matmul(anchors.unit, others.unit, transpose_b=True)
    labels = [_labels(side) for side in (anchors, others)]
    losses, valid, scales = tiles.dense(similarities, *labels, options)
    return losses, valid, scales, [similarities]


@compilation.compiled
def _backward_one(anchors, others, options, tiling, scales, similarities, upstream):
    sides = [tiles.weighted(scales, upstream)] * (2 if tiling.symmetric else 1)
    labels = [_labels(side) for side in (anchors, others)]
    by_pair = tiles.gradients(similarities, sides, *labels, options)
    gradients = [tf.matmul(by_pair, others.unit)]
    if not tiling.symmetric:
        gradients.append(tf.matmul(by_pair, anchors.unit, transpose_a=True))
    return gradients


def _is_one_tile(anchors, others, tiling):
    sizes = anchors.ids.shape[0], others.ids.shape[0]
    return None not in sizes and sizes[0] * sizes[1] <= tiling.block**2


def _labels(side):
    return tiles.labels_of(side.ids, side.rows, dtype=side.unit.dtype, padding=False)


class _Blocks:
    """A side sorted by id and cut into blocks; the last one is filled up with empty slots.

    Sorting gathers the positives into few tiles: the others are cheaper.
    """

    def __init__(self, side, size, *, padding):
        total = _length(side.ids)
        known = isinstance(total, int) and isinstance(size, int)
        # One block at least, so that their shape is known: of empty slots, if need be.
        count = -(-total // size)
        self.size, self.count = size, max(count, 1) if known else tf.maximum(count, 1)
        self.extra = self.count * size - total
        self.order = tf.argsort(side.ids, stable=True)
        self.unit = self._cut(self.spread(side.unit))
        ids = tf.gather(side.ids, self.order)
        ids = tf.concat([ids, tf.fill([self.extra], tf.reduce_max(ids))], 0)
        rows = self.spread(side.rows, filling=-1)
        padding = padding or not known or self.extra > 0
        labels = tiles.labels_of(ids, rows, dtype=side.unit.dtype, padding=padding)
        self.codes = tf.transpose(tf.reshape(labels.codes, [4, -1, size]), [1, 0, 2])
        self.mask = None if labels.mask is None else self._cut(labels.mask)
        self.first, self.last = self._cut(ids)[:, 0], self._cut(ids)[:, -1]

    def labels(self, index):
        """`Labels` of a block."""
        return tiles.Labels(self.codes[index], None if self.mask is None else self.mask[index])

    def spread(self, values, *, filling=0):
        """`[total, ...]` values in the order of the slots, with something in those that fill up."""
        values = tf.gather(values, self.order)
        if isinstance(self.extra, int) and self.extra == 0:
            return values
        padding = [[0, self.extra], *([[0, 0]] * (values.shape.rank - 1))]
        return tf.pad(values, padding, constant_values=tf.cast(filling, values.dtype))

    def restored(self, blocks):
        """`[count, size, D]` back to `[total, D]` in the side's own order."""
        rows = tf.reshape(blocks, [-1, blocks.shape[-1]])
        return tf.gather(rows, tf.math.invert_permutation(self.order))

    def _cut(self, values):
        return tf.reshape(values, tf.concat([[self.count, self.size], tf.shape(values)[1:]], 0))


def _grids(anchors, others, memory, tiling):
    """The grids of the anchors by their keys, and by the memory if there is one."""
    own = _Blocks(anchors, _smaller(_length(anchors.ids), tiling.block), padding=False)

    def blocks(side, **padding):
        size = _smaller(_length(side.ids), tiling.block**2 // own.size)
        return _Blocks(side, size, **padding)

    grids = [_Grid(own, own if tiling.symmetric else blocks(others, padding=False))]
    if memory is not None:
        grids.append(_Grid(own, blocks(memory, padding=True), fixed_keys=True))
    return grids


class _Grid:
    """The tiles of anchors by keys, both `_Blocks`, and how they are visited.

    With `fixed_keys` the keys need no gradient.
    """

    def __init__(self, own, keys, *, fixed_keys=False):
        self.own, self.keys, self.symmetric = own, keys, keys is own
        self.fixed_keys = fixed_keys
        known = isinstance(self.own.count, int) and isinstance(self.keys.count, int)
        self.unrolled = known and self.own.count * self.keys.count <= _MOST_UNROLLED

    def product(self, i, j):
        """Similarities of a tile."""
        return tf.matmul(self.own.unit[i], self.keys.unit[j], transpose_b=True)

    def may_hold_positives(self, i, j):
        """Whether the ids of two blocks overlap."""
        own, keys = self.own, self.keys
        return (own.first[i] <= keys.last[j]) & (keys.first[j] <= own.last[i])

    def cells(self, values):
        """A container of `values[0]`, `values[1]`, ... that a loop can carry."""
        if self.unrolled:
            return _List(tf.unstack(values))
        cells = tf.TensorArray(
            values.dtype,
            size=tf.shape(values)[0],
            clear_after_read=False,
            element_shape=values.shape[1:],
        )
        return cells.unstack(values)

    def each(self, visit, *carried):
        """Calls `carried = visit(i, j, *carried, mutual=...)` for each tile.

        Symmetric grids have only the tiles on the diagonal and above it; those above are mutual:
        their keys are anchors of their anchors.
        """

        def row(i, *carried):
            if not self.symmetric:
                return self._loop(0, self.keys.count, cell(i, mutual=False), *carried)
            carried = visit(i, i, *carried, mutual=False)
            return self._loop(i + 1, self.keys.count, cell(i, mutual=True), *carried)

        def cell(i, mutual):
            return lambda j, *carried: visit(i, j, *carried, mutual=mutual)

        return self._loop(0, self.own.count, row, *carried)

    def _loop(self, start, stop, body, *carried):
        if self.unrolled:
            for index in range(start, stop):
                carried = body(index, *carried)
            return carried
        return tf.while_loop(
            lambda index, *_: index < stop,
            lambda index, *carried: (index + 1, *body(index, *carried)),
            (tf.convert_to_tensor(start), *carried),
            parallel_iterations=1,
        )[1:]


class _List:
    """A list with the methods of a TensorArray."""

    def __init__(self, values):
        self._values = list(values)

    def read(self, index):
        return self._values[index]

    def write(self, index, value):
        self._values[index] = value
        return self

    def stack(self):
        return tf.stack(self._values)


def _sweep_forward(grid, options, states):
    """The states `[count, 4, size]` after a grid's tiles, and the similarities that are cached."""
    cached = []

    def visit(i, j, states, *, mutual):
        similarities = grid.product(i, j)
        if grid.unrolled:
            cached.append(similarities)
        places = (i, j) if mutual else (i,)
        before = [states.read(place) for place in places]
        for place, state in zip(places, update(i, j, similarities, before), strict=True):
            states = states.write(place, state)
        return (states,)

    def update(i, j, similarities, before):
        given = similarities, before, grid.own.labels(i), grid.keys.labels(j), options
        if grid.symmetric and i is j:
            return tiles.update(*given)
        return tf.cond(
            grid.may_hold_positives(i, j),
            lambda: tiles.update(*given),
            lambda: tiles.update(*given, negatives_only=True),
        )

    return grid.each(visit, grid.cells(states))[0].stack(), cached


def _sweep_backward(grid, options, scales, cached):
    own, keys = grid.own, grid.keys
    scales = tf.transpose(tf.reshape(scales, [4, own.count, own.size]), [1, 0, 2])
    cached = iter(cached)

    def visit(i, j, *totals, mutual):
        similarities = next(cached) if grid.unrolled else grid.product(i, j)
        sides = [scales[i], scales[j]] if grid.symmetric else [scales[i]]
        by_pair = tiles.gradients(similarities, sides, own.labels(i), keys.labels(j), options)
        totals = [_add(totals[0], i, tf.matmul(by_pair, keys.unit[j])), *totals[1:]]
        if mutual or not (grid.symmetric or grid.fixed_keys):
            other = tf.matmul(by_pair, own.unit[i], transpose_a=True)
            totals[-1] = _add(totals[-1], j, other)
        return tuple(totals)

    sides = [own] if grid.symmetric or grid.fixed_keys else [own, keys]
    totals = grid.each(visit, *(grid.cells(tf.zeros_like(side.unit)) for side in sides))
    return [side.restored(total.stack()) for total, side in zip(totals, sides, strict=True)]


def _add(cells, index, value):
    # Not `+`, which TensorFlow fuses with the product as if it added a bias, and then fails.
    return cells.write(index, tf.add_n([cells.read(index), value]))


def _joined(states):
    """`[count, 4, size]` to `[4, count * size]`."""
    return tf.reshape(tf.transpose(states, [1, 0, 2]), [4, -1])


def _length(ids):
    return tf.shape(ids)[0] if ids.shape[0] is None else ids.shape[0]


def _smaller(length, most):
    if isinstance(length, int) and isinstance(most, int):
        return max(1, min(length, most))
    return tf.maximum(1, tf.minimum(length, most))
