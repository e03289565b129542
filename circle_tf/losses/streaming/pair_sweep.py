"""Pair-wise Circle loss by tiles: exact, in memory linear in the batch, near its products' cost.

`circle_loss` states the maths on a whole `[anchors, keys]` matrix; here the matrix exists one tile
at a time. A first sweep over the tiles gives the logsumexps, a second one the gradient. Where
anchors are their own keys a tile serves both its sides, so that the products of both sweeps
together are no more than those of one pass over the whole matrix forward and backward.
"""

import math

import tensorflow as tf

from circle_tf.distribute import global_batch
from circle_tf.losses import circle
from circle_tf.losses.streaming import sweeps, tiles

__all__ = ["check_block_size", "pair_losses"]

# Largest batch and its block. Smaller tiles spend their time on being launched, larger ones leave
# the cache.
_BLOCKS = ((768, 768), (4096, 512), (8192, 1024), (math.inf, 2048))
_UNKNOWN_BATCH_BLOCK = 1024


def pair_losses(
    unit,
    ids,
    keys=None,
    key_ids=None,
    *,
    rows=None,
    key_rows=None,
    empty_keys=True,
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
        key_rows: int64 `[K]`; -1 marks an empty slot, which is no key.
        empty_keys: False promises that `key_rows` hold no -1, which saves a little.
        margin: float m in -1..1.
        gamma: float scale above 0.
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
    options = tiles.Options(float(margin), float(gamma), bool(detach_weights))
    symmetric = keys is None or keys is unit
    if rows is None:
        rows = global_batch.row_numbers(ids)
    anchors = sweeps.Side(unit, ids, rows)
    others = anchors if symmetric else sweeps.Side(keys, key_ids, key_rows)
    layout = _layout(anchors, others, block_size, empties=empty_keys and not symmetric)
    return _with_gradient(anchors, others, options, layout)


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


def _layout(anchors, others, block_size, *, empties):
    sizes = anchors.ids.shape[0], others.ids.shape[0]
    longest = None if None in sizes else max(sizes)
    if block_size == "auto" and longest is None:
        block_size = _UNKNOWN_BATCH_BLOCK
    elif block_size == "auto":
        block_size = next(block for most, block in _BLOCKS if longest <= most)
    return sweeps.Layout(int(block_size), symmetric=anchors is others, empties=empties)


def _with_gradient(anchors, others, options, layout):
    fixed = [
        sweeps.Side(tf.stop_gradient(side.unit), side.ids, side.rows) for side in (anchors, others)
    ]
    losses, valid, scales, kept = sweeps.forward(*fixed, options, layout)

    @tf.custom_gradient
    def attach(*units):
        def gradient(upstream):
            found = sweeps.backward(*fixed, options, layout, scales, kept, upstream)
            return _first_order(*units, *found)

        return tf.identity(losses), gradient

    units = (anchors.unit,) if layout.symmetric else (anchors.unit, others.unit)
    return attach(*units), valid


@tf.custom_gradient
def _first_order(*units_and_gradients):
    """The gradients, as a function of the units that nobody can differentiate."""
    gradients = units_and_gradients[len(units_and_gradients) // 2 :]

    def refuse(*_):
        raise NotImplementedError(
            "The second derivative of the blockwise Circle loss is not defined. Use "
            "block_size=None, which differentiates the whole matrix as often as asked."
        )

    return [tf.identity(gradient) for gradient in gradients], refuse
