"""Averages of weights (`use_ema` of a Keras optimizer) beside the weights that train."""

import tensorflow as tf

from circle_tf.optimizers import extension

__all__ = ["exchange", "keep_apart"]


def keep_apart(optimizer):
    """An optimizer that never puts averages in place of weights, also not where `fit` ends.

    Keras' own does so at the end of each `fit`: the next one goes on from the averages.

    Args:
        optimizer: Keras optimizer with `use_ema=True`, or a `LossScaleOptimizer` of one.

    Returns:
        Keras optimizer on the state of the given one, as of `extension.extended`.

    Example:
        >>> import keras
        >>> variable = keras.Variable([1.0])
        >>> optimizer = keep_apart(keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5))
        >>> for _ in range(2):
        ...     optimizer.apply([tf.constant([0.5])], [variable])
        >>> optimizer.finalize_variable_values([variable])
        >>> float(variable.numpy()[0])
        0.0
        >>> exchange(optimizer)
        >>> float(variable.numpy()[0])
        0.25
    """
    return extension.extended(optimizer, AveragesApart)


def exchange(optimizer):
    """Exchanges weights and their averages in place, to the bit; twice, and all is as it was.

    Before the first update there are no averages, and nothing is done.

    Args:
        optimizer: Keras optimizer, as of `keep_apart`, that has made its variables.
    """
    extension.inner_optimizer(optimizer).exchange_averages()


class AveragesApart:
    """Methods of a Keras optimizer, before its own: weights and averages do not mix."""

    def finalize_variable_values(self, var_list):
        """Leaves the weights as they are."""
        del var_list

    def exchange_averages(self):
        """As `exchange`."""
        if not int(self.iterations.numpy()):
            return
        averages = self._model_variables_moving_average
        for variable, average in zip(self._trainable_variables, averages, strict=True):
            # keras.callbacks.SwapEMAWeights adds and subtracts, which rounds.
            self._distribution_strategy.extended.update(
                variable.value, _exchanged, args=(average.value,)
            )


def _exchanged(variable, average):
    held = tf.identity(variable)
    variable.assign(average)
    average.assign(held)
