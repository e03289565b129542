"""The global batch as anchors and keys: what the pair-wise loss and its monitors look at."""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.distribute import collectives, compilation, step_context
from circle_tf.ops import numerics, pairs

__all__ = ["Batch", "check_lengths", "global_batch", "row_numbers"]

# One pass each way instead of one per operation: it costs as much as the loss itself otherwise.
_normalize = compilation.compiled(numerics.safe_normalize)


class Batch(NamedTuple):
    """A replica's rows as anchors, all replicas' rows as keys; see `global_batch`."""

    unit: tf.Tensor
    ids: tf.Tensor
    keys: tf.Tensor
    key_ids: tf.Tensor
    offset: tf.Tensor | int


def global_batch(embeddings, labels, *, one_hot=False):
    """Own rows as anchors and the rows of all replicas as keys.

    Args:
        embeddings: `[n, D]` of any real dtype and scale; rows are normalised here.
        labels: `[n]` or `[n, 1]` integer ids (`[n, C]` with `one_hot`).
        one_hot: whether `labels` are one-hot rows.

    Returns:
        `Batch(unit [n, D], ids [n], keys [N, D], key_ids [N], offset)`: anchor `i` is key
        `offset + i`. On one replica the keys are the anchors.

    Raises:
        ValueError: shapes other than the above, another number of labels than of embeddings.

    Example:
        >>> batch = global_batch(tf.eye(2), [7, 9])
        >>> batch.key_ids.numpy().tolist(), batch.offset
        ([7, 9], 0)
    """

    def make():
        unit = _normalize(embeddings)
        ids = pairs.to_ids(labels, one_hot=one_hot)
        check_lengths(ids, unit, "embeddings")
        return Batch(unit, ids, *collectives.gather_examples(unit, ids))

    return step_context.memoized(make, embeddings, labels, one_hot)


def check_lengths(ids, rows, name):
    """Refuses labels of another number than rows.

    Args:
        ids: `[B]`.
        rows: `[B, ...]`.
        name: str, what the rows are.

    Raises:
        ValueError: static lengths that differ.

    Example:
        >>> check_lengths(tf.zeros([2]), tf.zeros([2, 3]), "embeddings")
        >>> check_lengths(tf.zeros([2]), tf.zeros([4, 3]), "embeddings")
        Traceback (most recent call last):
        ValueError: Found 2 labels for 4 embeddings.
    """
    if not ids.shape.is_compatible_with(rows.shape[:1]):
        raise ValueError(f"Found {ids.shape[0]} labels for {rows.shape[0]} {name}.")


def row_numbers(ids):
    """Numbers of the rows of a batch, from 0.

    Args:
        ids: `[B]`.

    Returns:
        int64 `[B]`.

    Example:
        >>> row_numbers(tf.constant([7, 7, 9])).numpy().tolist()
        [0, 1, 2]
    """
    return tf.range(tf.shape(ids, out_type=tf.int64)[0])
