"""What losses by label have in common: exact ids, reductions, NaN that is seen."""

import keras
import tensorflow as tf

from circle_tf.losses import reductions
from circle_tf.utils import checks

__all__ = ["LabelLoss", "as_embeddings", "as_matrix", "nan_unless", "num_classes"]


class LabelLoss(keras.losses.Loss):
    """A Keras loss that has one loss per row, by integer labels that stay exact.

    A subclass defines `_losses(y_true, y_pred) -> (losses [B], valid [B])` and `_CONFIG`, the names
    of its constructor's arguments beside `name`, each kept as an attribute.

    Args:
        reduction: see `circle_tf.losses.reductions.reduce_losses`.
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

    def __init__(self, *, reduction, check_finite, name):
        reductions.check_reduction(reduction)
        super().__init__(name=name, reduction="none")
        self.reduction = reduction
        self.check_finite = bool(check_finite)

    # Keras' __call__ casts y_true to float32 first, which makes 2^24 and 2^24 + 1 one label.
    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss; see the class."""
        with tf.name_scope(self.name):
            if self.check_finite:
                y_pred = _assert_finite(y_pred)
            losses, valid = self._losses(y_true, y_pred)
            return reductions.reduce_losses(
                losses, valid, reduction=self.reduction, sample_weight=sample_weight
            )

    def call(self, y_true, y_pred):
        """Losses before weights and reduction, `[B]` in nats."""
        return self._losses(y_true, y_pred)[0]

    def _losses(self, y_true, y_pred):
        raise NotImplementedError

    def get_config(self):
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in (*self._CONFIG, "name")}


def as_embeddings(values):
    """Embeddings `[B, D]` as a float tensor; ValueError or TypeError if they are none."""
    return as_matrix(values, "embeddings of shape [B, D]")


def as_matrix(values, wanted):
    """`values` as a float tensor of rank 2.

    Args:
        values: `[B, N]` of a float dtype.
        wanted: str, what they are to be.

    Returns:
        Tensor.

    Raises:
        ValueError: another rank.
        TypeError: no float dtype.

    Example:
        >>> as_matrix([[1.0]], "cosines of shape [B, C]").shape.as_list()
        [1, 1]
    """
    values = tf.convert_to_tensor(values)
    if values.shape.rank != 2:
        raise ValueError(f"y_pred must be {wanted}; found shape {values.shape}.")
    if not values.dtype.is_floating:
        raise TypeError(f"y_pred must be {wanted} of a float dtype; found {values.dtype.name}.")
    return values


def num_classes(cosines):
    """C of cosines `[B, C]`, an int where it is static; ValueError if it is below 2.

    Example:
        >>> num_classes(tf.zeros([1, 3]))
        3
    """
    found = cosines.shape[1]
    if found is None:
        return tf.shape(cosines, out_type=tf.int64)[1]
    if found < 2:
        raise ValueError(f"A class-level loss wants 2 classes or more; found {found}.")
    return found


def nan_unless(seen, losses):
    """`losses` `[B]`, NaN where `seen` (bool, `[B]` or a scalar) is False."""
    # A where on the losses would cut the gradient and make it a silent zero; this keeps it.
    return losses + tf.where(seen, tf.zeros_like(losses), tf.fill(tf.shape(losses), _nan(losses)))


def _nan(losses):
    return tf.constant(float("nan"), losses.dtype)


def _assert_finite(values):
    values = tf.convert_to_tensor(values)
    bad = ~tf.reduce_all(tf.math.is_finite(values), axis=-1)
    message = "NaN or inf in y_pred (embeddings or cosines), in these rows of the batch:"
    return checks.passing(values, ~tf.reduce_any(bad), message, tf.where(bad)[:, 0])
