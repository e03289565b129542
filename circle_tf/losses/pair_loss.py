"""What losses on embeddings of a batch that Circle loss is compared with have in common.

Each has one loss per anchor, over the anchor's positives and negatives in the global batch, like
`CircleLoss`: rows are normalised, similarities are cosines in float32, distances are Euclidean
between unit rows (0 to 2). Where a paper averages over all pairs or triplets of a batch, here each
anchor averages over its own, and then come the anchors: the same for batches of P classes x K.
"""

import tensorflow as tf

from circle_tf.distribute import compilation, global_batch
from circle_tf.losses import circle
from circle_tf.losses.base import LabelLoss, as_embeddings, nan_unless
from circle_tf.ops import pairs

__all__ = ["PairLoss", "largest", "mean_where"]


class PairLoss(LabelLoss):
    """One loss per anchor from its similarities `[A, K]` and masks of positives and negatives.

    A subclass defines `_score(similarities, positives, negatives, keys, key_ids) -> [A]`; anchors
    without a positive or without a negative get 0.
    """

    def __init__(self, *, reduction, check_finite, name, **numbers):
        super().__init__(reduction=reduction, check_finite=check_finite, name=name)
        for key, value in numbers.items():
            setattr(self, key, value)

    def _losses(self, y_true, y_pred):
        batch = global_batch.global_batch(as_embeddings(y_pred), y_true)
        losses, valid = compilation.call_compiled(self._of_batch, *batch)
        finite = tf.reduce_all(tf.math.is_finite(batch.unit), axis=1)
        return nan_unless(finite & pairs.float_labels_are_exact(y_true), losses), valid

    def _of_batch(self, unit, ids, keys, key_ids, offset):
        positives, negatives = pairs.batch_masks(ids, key_ids, offset=offset)
        similarities = tf.matmul(unit, keys, transpose_b=True)
        losses = self._score(similarities, positives, negatives, keys, key_ids)
        valid = circle.valid_anchors(positives, negatives)
        return tf.where(valid, losses, tf.zeros_like(losses)), valid

    def _score(self, similarities, positives, negatives, keys, key_ids):
        raise NotImplementedError


def largest(values, mask):
    """Largest along the last axis where a mask holds.

    Args:
        values: `[..., K]` float.
        mask: bool, of the same shape.

    Returns:
        `[...]`; a quarter of the dtype's least where the mask holds nowhere.

    Example:
        >>> largest(tf.constant([[1.0, 2.0]]), tf.constant([[True, False]])).numpy().tolist()
        [1.0]
    """
    return tf.reduce_max(tf.where(mask, values, values.dtype.min / 4), axis=-1)


def mean_where(values, mask):
    """Mean along the last axis where a mask holds.

    Args:
        values: `[..., K]` float.
        mask: bool, of the same shape.

    Returns:
        `[...]`; 0 where the mask holds nowhere.

    Example:
        >>> mean_where(tf.constant([[1.0, 2.0]]), tf.constant([[True, False]])).numpy().tolist()
        [1.0]
    """
    total = tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)), axis=-1)
    count = tf.cast(tf.math.count_nonzero(mask, axis=-1), values.dtype)
    return total / tf.maximum(count, 1)
