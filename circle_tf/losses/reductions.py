"""From one loss per anchor to the number that is minimised, and what each mean divides by."""

import tensorflow as tf

from circle_tf.distribute import collectives
from circle_tf.ops import numerics

__all__ = ["REDUCTIONS", "apply_weights", "check_reduction", "reduce_losses"]

REDUCTIONS = ("mean_valid", "mean", "sum", "none", "mean_nonzero")


def reduce_losses(losses, valid, *, reduction, sample_weight=None):
    """Reduces the anchors' losses.

    `mean_valid` divides by the number of valid anchors (those with both a positive and a
    negative pair), `mean` by the number of anchors, `mean_nonzero` by the number of losses above
    0 (as pytorch-metric-learning does). A sample weight scales its anchor's loss and does not
    change the count, as in any Keras loss.

    Under a strategy with several replicas the counts are those of the global batch and the total
    is this replica's: the sum over replicas is the global loss. `none` gives the replica's own
    losses, which nothing has divided.

    Args:
        losses: `[A]` losses in nats.
        valid: `[A]` bool, the valid anchors.
        reduction: one of `mean_valid`, `mean`, `sum`, `none`, `mean_nonzero`.
        sample_weight: None, a scalar, `[A]` or `[A, 1]`.

    Returns:
        Scalar, or `[A]` for `none`. No valid anchor gives 0, not NaN.

    Raises:
        ValueError: unknown reduction, or weights of another shape.

    Example:
        >>> losses, valid = tf.constant([4.0, 2.0, 0.0]), tf.constant([True, True, False])
        >>> float(reduce_losses(losses, valid, reduction="mean_valid"))
        3.0
        >>> float(reduce_losses(losses, valid, reduction="mean"))
        2.0
    """
    check_reduction(reduction)
    weighted = apply_weights(losses, sample_weight)
    if reduction == "none":
        return weighted
    total = tf.reduce_sum(weighted)
    if reduction == "sum":
        return total
    if reduction == "mean":
        return numerics.positive_mean(total, collectives.all_reduce_sum(tf.size(losses)))
    counted = valid if reduction == "mean_valid" else losses > 0
    return numerics.positive_mean(total, collectives.all_reduce_sum(tf.math.count_nonzero(counted)))


def apply_weights(losses, sample_weight):
    """Each loss times its sample weight.

    Args:
        losses: `[A]`.
        sample_weight: None, a scalar, `[A]` or `[A, 1]` of any real dtype.

    Returns:
        `[A]` of `losses`' dtype.

    Raises:
        ValueError: weights of another shape.

    Example:
        >>> apply_weights(tf.constant([1.0, 2.0]), [[0.5], [2.0]]).numpy().tolist()
        [0.5, 4.0]
    """
    if sample_weight is None:
        return losses
    weights = tf.cast(tf.convert_to_tensor(sample_weight), losses.dtype)
    if weights.shape.rank == 2 and weights.shape[1] == 1:
        weights = tf.squeeze(weights, axis=1)
    if weights.shape.rank != 0 and not weights.shape.is_compatible_with(losses.shape):
        raise ValueError(
            "sample_weight must be a scalar or hold one weight per example, shape [B] or [B, 1]; "
            f"found {weights.shape} for {losses.shape[0]} examples."
        )
    return losses * weights


def check_reduction(reduction):
    """Refuses an unknown reduction.

    Args:
        reduction: str.

    Raises:
        ValueError: not one of `REDUCTIONS`.

    Example:
        >>> check_reduction("mean_valid")
        >>> check_reduction("sum_over_batch_size")
        Traceback (most recent call last):
        ValueError: reduction must be one of mean_valid, mean, ...; found 'sum_over_batch_size'. ...
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction must be one of {', '.join(REDUCTIONS)}; found {reduction!r}. "
            "(Keras' sum_over_batch_size is called mean here.)"
        )
