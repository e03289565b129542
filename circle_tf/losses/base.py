"""What losses by label have in common: exact ids, reductions, NaN that is seen."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.distribute import collectives, global_batch
from circle_tf.losses import hyperparameters
from circle_tf.ops import numerics, pairs
from circle_tf.utils import checks

__all__ = [
    "REDUCTIONS",
    "ClassBatch",
    "LabelLoss",
    "Reduction",
    "as_embeddings",
    "check_reduction",
    "class_batch",
    "nan_unless",
    "pair_matrix",
    "reduce_losses",
    "smoothed",
    "usable_rows",
]

Reduction = Literal["mean_valid", "mean", "sum", "none", "mean_nonzero"]
REDUCTIONS = get_args(Reduction)


class LabelLoss(hyperparameters.Hyperparameters, keras.losses.Loss):
    """A Keras loss that has one loss per row, by integer labels that stay exact.

    A subclass defines `_losses(y_true, y_pred) -> (losses [B], valid [B])` and `_CONFIG`, the names
    of its constructor's arguments beside `name`, each kept as an attribute; of these, in `_RANGES`,
    those that can change while it trains (see `Hyperparameters`).

    Args:
        reduction: one of `REDUCTIONS`; see `reduce_losses`.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Raises:
        ValueError: unknown reduction.

    Example:
        >>> class Mean(LabelLoss):
        ...     _CONFIG = ("reduction",)
        ...
        ...     def _losses(self, y_true, y_pred):
        ...         return tf.reduce_mean(y_pred, axis=1), tf.not_equal(y_true, 0)
        >>> loss = Mean(reduction="mean_valid", check_finite=False, name="mean")
        >>> float(loss([1, 0], tf.constant([[2.0], [0.0]])))
        2.0
    """

    _CONFIG = ()

    # Tells EmbeddingModel that the value is this replica's part of the global loss already.
    crosses_replicas = True

    # What `y_pred` is, "embeddings" or "cosines" to classes; None where a subclass does not say.
    takes = None

    def __init__(self, *, reduction: Reduction, check_finite: bool, name: str) -> None:
        check_reduction(reduction)
        super().__init__(name=name, reduction="none")
        self.reduction = reduction
        self.check_finite = bool(check_finite)

    # Keras' __call__ casts y_true to float32 first, which makes 2^24 and 2^24 + 1 one label.
    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """The reduced loss; see the class."""
        with tf.name_scope(self.name):
            if self.check_finite:
                y_pred = _assert_finite(y_pred)
            losses, valid = self._losses(y_true, y_pred)
            return reduce_losses(
                losses, valid, reduction=self.reduction, sample_weight=sample_weight
            )

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> tf.Tensor:
        """Losses before weights and reduction, `[B]` in nats."""
        return self._losses(y_true, y_pred)[0]

    def _losses(self, y_true, y_pred):
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {name: getattr(self, name) for name in (*self._CONFIG, "name")}
        return {**config, **self._saved()}


def as_embeddings(values):
    """Embeddings `[B, D]` as a float tensor; ValueError or TypeError if they are none."""
    return _as_matrix(values, "embeddings of shape [B, D]")


class ClassBatch(NamedTuple):
    """Cosines of a batch to class weights, and the classes of its rows; see `class_batch`."""

    cosines: tf.Tensor
    ids: tf.Tensor
    num_classes: int | tf.Tensor
    usable: tf.Tensor


def class_batch(cosines, labels, *, one_hot=False):
    """What a class-level loss computes with.

    Args:
        cosines: `[B, C]` of a float dtype, similarities to the C class weights.
        labels: `[B]` or `[B, 1]` integer class ids (`[B, C]` with `one_hot`).
        one_hot: whether `labels` are one-hot rows.

    Returns:
        `ClassBatch(cosines [B, C], ids [B], num_classes C, usable [B])`: cosines in the dtype of
        losses, int64 ids, C an int where it is static, and which ids are exact and name a class.

    Raises:
        ValueError: other shapes, fewer than 2 classes, another number of labels than of rows.
        TypeError: cosines of no float dtype.

    Example:
        >>> batch = class_batch([[0.9, 0.1]], [[1]])
        >>> batch.ids.numpy().tolist(), batch.num_classes, batch.usable.numpy().tolist()
        ([1], 2, [True])
    """
    cosines = numerics.as_loss_float(_as_matrix(cosines, "cosines of shape [B, C]"))
    num_classes = cosines.shape[1]
    if num_classes is None:
        num_classes = tf.shape(cosines, out_type=tf.int64)[1]
    elif num_classes < 2:
        raise ValueError(f"A class-level loss wants 2 classes or more; found {num_classes}.")
    ids = pairs.to_ids(labels, one_hot=one_hot)
    global_batch.check_lengths(ids, cosines, "cosines")
    usable = pairs.ids_in_range(ids, num_classes) & pairs.float_labels_are_exact(labels)
    return ClassBatch(cosines, ids, num_classes, usable)


def pair_matrix(unit, ids, keys, key_ids, offset=0):
    """Similarities of anchors and keys, and which are positive and negative pairs.

    Args:
        unit: `[A, D]` unit rows, the anchors.
        ids: int64 `[A]`.
        keys: `[K, D]` unit rows.
        key_ids: int64 `[K]`.
        offset: int or scalar; anchor `i` is key `offset + i`.

    Returns:
        `(similarities, positives, negatives)`, all `[A, K]`; the latter two bool.

    Example:
        >>> similarities, positives, negatives = pair_matrix(
        ...     tf.eye(2), tf.constant([7, 9]), tf.eye(2), tf.constant([7, 9]))
        >>> negatives.numpy().tolist()
        [[False, True], [True, False]]
    """
    similarities = tf.matmul(unit, keys, transpose_b=True)
    return similarities, *pairs.batch_masks(ids, key_ids, offset=offset)


def usable_rows(unit, labels):
    """`[B]` bool: which unit rows `[B, D]` are finite; none if a label `[B]` is not exact."""
    finite = tf.reduce_all(tf.math.is_finite(unit), axis=1)
    return finite & pairs.float_labels_are_exact(labels)


def nan_unless(usable, losses):
    """`losses` `[B]`, NaN where `usable` (bool, `[B]` or a scalar) is False."""
    # A where on the losses would cut the gradient and make it a silent zero; this keeps it.
    nan = tf.constant(float("nan"), losses.dtype)
    return losses + tf.where(usable, tf.zeros_like(losses), tf.fill(tf.shape(losses), nan))


def smoothed(losses, logits, own, *, label_smoothing):
    """Softmax cross-entropies with the labels smoothed.

    `(1 - e) * (lse - logit_y) + e * mean_j(lse - logit_j)` over all C classes j, where lse is the
    logsumexp of a row's logits: the cross-entropies and `e * (logit_y - mean_j(logit_j))`.

    Args:
        losses: `[B]` cross-entropies, `lse - logit_y`.
        logits: `[B, C]`.
        own: `[B, C]` bool, the one class of each row.
        label_smoothing: float e, 0 or more, below 1. 0 leaves the losses alone, to the bit.

    Returns:
        `[B]`.

    Example:
        >>> own = tf.constant([[True, False]])
        >>> smoothed(tf.constant([0.0]), tf.constant([[40.0, 0.0]]), own, label_smoothing=0.1)
        <tf.Tensor: shape=(1,), dtype=float32, numpy=array([2.], dtype=float32)>

    References:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
    """
    if not label_smoothing:
        return losses
    of_own = tf.reduce_sum(tf.where(own, logits, tf.zeros_like(logits)), axis=1)
    return losses + label_smoothing * (of_own - tf.reduce_mean(logits, axis=1))


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
    weighted = _weighted(losses, sample_weight)
    if reduction == "none":
        return weighted
    total = tf.reduce_sum(weighted)
    if reduction == "sum":
        return total
    if reduction == "mean":
        return numerics.positive_mean(total, collectives.all_reduce_sum(tf.size(losses)))
    counted = valid if reduction == "mean_valid" else losses > 0
    return numerics.positive_mean(total, collectives.all_reduce_sum(tf.math.count_nonzero(counted)))


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


def _weighted(losses, sample_weight):
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


def _assert_finite(values):
    values = tf.convert_to_tensor(values)
    bad = ~tf.reduce_all(tf.math.is_finite(values), axis=-1)
    message = "NaN or inf in y_pred (embeddings or cosines), in these rows of the batch:"
    return checks.passing(values, ~tf.reduce_any(bad), message, tf.where(bad)[:, 0])


def _as_matrix(values, wanted):
    values = tf.convert_to_tensor(values)
    if values.shape.rank != 2:
        raise ValueError(f"y_pred must be {wanted}; found shape {values.shape}.")
    if not values.dtype.is_floating:
        raise TypeError(f"y_pred must be {wanted} of a float dtype; found {values.dtype.name}.")
    return values
