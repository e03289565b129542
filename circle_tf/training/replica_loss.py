"""A compiled Keras loss of which each replica computes its share: the shares add up to the loss.

What Keras divides by a replica's own counts is divided here by those of the global batch, where a
loss is known to have one value per example. Any other is computed on all rows.
"""

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.trainers.compile_utils import CompileLoss

from circle_tf import compat
from circle_tf.distribute import collectives, compilation
from circle_tf.training import all_rows

__all__ = ["ReplicaCompileLoss", "check", "compile_loss_across", "is_per_example"]

# Of keras.losses all but circle, dice and tversky, which look at the rows of a batch together.
_PER_EXAMPLE = [
    getattr(keras.losses, name)
    for name in (
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "cosine_similarity",
        "huber",
        "log_cosh",
        "hinge",
        "squared_hinge",
        "categorical_hinge",
        "kl_divergence",
        "poisson",
        "binary_crossentropy",
        "binary_focal_crossentropy",
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "categorical_generalized_cross_entropy",
        "sparse_categorical_crossentropy",
        "ctc",
    )
    if hasattr(keras.losses, name)  # Some came with later versions.
]


class ReplicaCompileLoss(CompileLoss):
    """Keras' compiled loss, with every part of it a replica's share of the global loss."""

    def build(self, y_true, y_pred):
        """Resolves the losses as Keras does, then makes each count over all replicas."""
        super().build(y_true, y_pred)
        self._flat_losses = [
            part._replace(loss=_across_replicas(part.loss)) for part in self._flat_losses
        ]
        self._metrics[:] = [_ShareTracker(name=metric.name) for metric in self._metrics]


class _ShareTracker(keras.metrics.Mean):
    """Mean over batches of one output's loss, from the replicas' shares of it."""

    def update_state(self, values, sample_weight=None):
        # Keras hands over R times the share, and the local number of rows or, where that is not
        # static, None: then every batch has the same weight.
        parts = collectives.num_replicas()
        if values.shape.rank != 0:
            return super().update_state(values / parts)
        rows = 1 if sample_weight is None else collectives.all_reduce_sum(sample_weight)
        return super().update_state(values, sample_weight=rows / parts)


def _across_replicas(loss):
    """The loss as a replica's share; itself where it counts over replicas or divides by nothing."""
    if loss is None or getattr(loss, "crosses_replicas", False):
        return loss
    plain = isinstance(loss, LossFunctionWrapper)
    plain = plain and type(loss).__call__ is keras_loss.Loss.__call__
    plain = plain and type(loss).call is LossFunctionWrapper.call
    if not plain or not is_per_example(loss.fn, loss._fn_kwargs):
        return all_rows.LossOfAllRows(loss)
    return loss if loss.reduction in ("sum", "none", None) else _ShareOfLoss(loss)


def is_per_example(function, options):
    """Whether a function is one of Keras' losses that look at each example by itself.

    Args:
        function: of `y_true` and `y_pred`.
        options: dict of its other arguments.

    Returns:
        bool.
    """
    known = any(function is one for one in _PER_EXAMPLE)
    return known and options.get("axis", -1) == -1


class _ShareOfLoss:
    """A Keras loss as a replica's share: own sum over the global divisor."""

    def __init__(self, loss):
        self._loss = loss
        self.name = loss.name

    def __call__(self, y_true, y_pred, sample_weight=None):
        rows = tf.shape(y_pred)[0]
        own, divisor, is_mean = self._parts(y_true, y_pred, sample_weight)
        if is_mean:
            # A function that reduces to a number itself: weigh each replica's by its rows.
            own, divisor = own * tf.cast(rows, own.dtype), (rows,)
        counts = collectives.all_reduce_sums([tf.cast(count, tf.float32) for count in divisor])
        return own / tf.cast(_divisor(counts), own.dtype)

    def _parts(self, y_true, y_pred, sample_weight):
        mask = compat.get_keras_mask(y_pred)
        kinds = []

        def own(*tensors):
            y_true, y_pred, weight, mask = _unpacked(present, tensors)
            if mask is not None:
                compat.set_keras_mask(y_pred, mask)
            total, counts, is_mean = _sum_and_counts(self._loss, y_true, y_pred, weight)
            kinds.append(is_mean)
            return total, counts

        present = [value is not None for value in (y_true, y_pred, sample_weight, mask)]
        given = [v for v in (y_true, y_pred, sample_weight, mask) if v is not None]
        total, counts = compilation.call_compiled(own, *map(tf.convert_to_tensor, given))
        return total, counts, kinds[-1]


def _unpacked(present, tensors):
    tensors = iter(tensors)
    return [tf.identity(next(tensors)) if there else None for there in present]


def _sum_and_counts(loss, y_true, y_pred, sample_weight):
    """Own weighted sum and what the global divisor is made of; the steps of `Loss.__call__`.

    Returns:
        `(total, counts, is_mean)`: counts as `_divisor` takes them; `is_mean` where the loss gave
        a single number instead of one per example.
    """
    mask = compat.get_keras_mask(y_pred)
    values = loss.call(tf.cast(y_true, loss.dtype), tf.cast(y_pred, loss.dtype))
    values = tf.convert_to_tensor(values)
    out_mask = compat.get_keras_mask(values)
    if out_mask is not None:
        mask = out_mask if mask is None else mask & out_mask
    total = keras_loss.reduce_weighted_values(
        values, sample_weight=sample_weight, mask=mask, reduction="sum", dtype=loss.dtype
    )
    if values.shape.rank == 0:
        return total, (), True
    return total, _counts(loss, values, mask, sample_weight), False


def _counts(loss, values, mask, sample_weight):
    if loss.reduction == "mean_with_sample_weight" and not (mask is None and sample_weight is None):
        weights = keras_loss.apply_mask(
            sample_weight if sample_weight is None else tf.cast(sample_weight, values.dtype),
            mask if mask is None else tf.cast(mask, values.dtype),
            dtype=values.dtype,
            reduction="sum",
        )
        return (tf.reduce_sum(weights),)
    if mask is None:
        return (tf.size(values),)
    return (tf.size(values), tf.math.count_nonzero(mask, dtype=tf.int32), tf.size(mask))


def _divisor(counts):
    """Number of values, of them the share that the mask lets through; at least a tiny number."""
    divisor = counts[0]
    if len(counts) == 3:
        divisor = divisor * counts[1] / tf.maximum(counts[2], 1.0)
    # As in Keras, 0 / 0 is 0.
    return tf.where(divisor == 0, tf.ones_like(divisor), divisor)


def compile_loss_across(model, loss, loss_weights):
    """Gives a compiled model a loss that counts over replicas.

    Args:
        model: compiled `keras.Model`.
        loss: what `compile` was given.
        loss_weights: what `compile` was given.
    """
    if loss is not None:
        names = getattr(model, "output_names", None)
        model._compile_loss = ReplicaCompileLoss(loss, loss_weights, output_names=names)


def check():
    """Tries what is taken from Keras' private side.

    Raises:
        RuntimeError: it behaves otherwise.
    """
    loss = keras.losses.MeanSquaredError()
    compiled = ReplicaCompileLoss(loss)
    y_true, y_pred, weights = tf.zeros([3, 2]), tf.ones([3, 2]) * 2, tf.constant([1.0, 2.0, 0.0])
    value = compiled(y_true, y_pred, weights)
    if not isinstance(compiled._flat_losses[0].loss, _ShareOfLoss):
        raise RuntimeError("losses are kept elsewhere")
    if abs(float(value) - float(loss(y_true, y_pred, weights))) > 1e-6:
        raise RuntimeError("losses are reduced otherwise")
