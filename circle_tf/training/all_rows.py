"""Losses and metrics that may look at rows together: every replica shows them the global batch."""

import contextlib

import keras
import tensorflow as tf
from tensorflow.python.distribute import distribute_lib

from circle_tf import compat
from circle_tf.distribute import collectives, step_context

__all__ = ["LossOfAllRows", "check", "gathered", "seen_whole"]


class LossOfAllRows:
    """A Keras loss of which each replica computes the whole, and counts its part of 1 / replicas.

    Args:
        loss: `keras.losses.Loss`, of any reduction. Losses of `circle_tf` within it take the batch
            for whole.
    """

    def __init__(self, loss):
        self._loss = loss
        self.name = loss.name

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The part of the loss, a scalar, or `[N]` for the reduction `none`."""
        y_true, y_pred, sample_weight = gathered((y_true, y_pred, sample_weight))
        with seen_whole():
            value = tf.convert_to_tensor(self._loss(y_true, y_pred, sample_weight))
        return value / tf.cast(collectives.num_replicas(), value.dtype)


def gathered(values):
    """The rows of all replicas.

    Args:
        values: structure of tensors `[n, ...]`, with their Keras masks; None and scalars stay.

    Returns:
        The same structure of tensors `[N, ...]`, with masks. The gradient is summed over replicas.
    """
    return keras.tree.map_structure(_gathered, values)


@contextlib.contextmanager
def seen_whole():
    """Within it everything is as on one device, though the code runs in a replica.

    Keras divides means by the number of replicas, and losses of `circle_tf` gather rows: neither is
    for a batch that is whole already.

    Yields:
        None.
    """
    # TensorFlow has no public name for it: its mode where there is no strategy.
    distribute_lib._push_per_thread_mode(distribute_lib._get_default_replica_mode())
    try:
        with step_context.entered(memo=None):
            yield
    finally:
        distribute_lib._pop_per_thread_mode()


def check():
    """Tries what is taken from TensorFlow's private side.

    Raises:
        RuntimeError: it behaves otherwise.
    """
    with tf.distribute.OneDeviceStrategy("CPU:0").scope(), seen_whole():
        if tf.distribute.has_strategy():
            raise RuntimeError("the strategy at hand is kept elsewhere")


def _gathered(value):
    if value is None or tf.convert_to_tensor(value).shape.rank == 0:
        return value
    mask = compat.get_keras_mask(value)
    value = tf.convert_to_tensor(value)
    # No collective takes bools.
    rows = collectives.gather_rows(tf.cast(value, tf.int32) if value.dtype.is_bool else value)
    rows = tf.ensure_shape(tf.cast(rows, value.dtype), [None, *value.shape[1:]])
    if mask is not None:
        compat.set_keras_mask(rows, _gathered(mask))
    return rows
