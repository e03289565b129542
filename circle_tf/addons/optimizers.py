"""`tfa.optimizers`: what Keras 3 has no equal of. For the rest, errors name Keras 3's equal."""

import keras
import tensorflow as tf

from circle_tf import compat

__all__ = ["LazyAdam"]

_SEE = "see docs/migrating-from-addons.md"
_IN_KERAS_3 = {
    "LAMB": "keras.optimizers.Lamb",
    "AdamW": "keras.optimizers.AdamW",
    "SGDW": "keras.optimizers.SGD(weight_decay=...)",
    "MovingAverage": "use_ema=True of any Keras optimizer with keras.callbacks.SwapEMAWeights",
    "SWA": "circle_tf.addons.callbacks.StochasticWeightAveraging",
    "MultiOptimizer": "keras.optimizers.MultiOptimizer",
    "extend_with_decoupled_weight_decay": "weight_decay=... of any Keras optimizer",
}


def __getattr__(name):
    instead = _IN_KERAS_3.get(name)
    hint = f"Use {instead}" if instead else "It has no replacement here"
    raise AttributeError(f"circle_tf.addons.optimizers has no {name!r}. {hint}; {_SEE}.")


@keras.saving.register_keras_serializable("circle_tf.addons")
class LazyAdam(keras.optimizers.Adam):
    """Adam that touches only the rows of a weight whose gradient is sparse, as Addons' LazyAdam.

    Keras' Adam moves every row of an embedding table at every step, for its moments decay
    everywhere. Here rows that the batch does not look up stay as they are, moments included.
    Dense gradients are treated as by Adam.

    Args:
        learning_rate: float or schedule.
        beta_1: float, decay of the first moment.
        beta_2: float, decay of the second moment.
        epsilon: float.
        amsgrad: False; True is refused, as in Addons.
        name: str.
        **kwargs: as `keras.optimizers.Adam`.

    Raises:
        ValueError: `amsgrad=True`.
        NotImplementedError: on the stack of TensorFlow Addons, which has LazyAdam itself.

    Example:
        >>> from circle_tf import compat
        >>> if compat.IS_KERAS_3:
        ...     assert LazyAdam(0.01).name == "LazyAdam"

    References:
        Kingma and Ba, "Adam", ICLR 2015.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        name="LazyAdam",
        **kwargs,
    ):
        compat.require_keras_3("circle_tf.addons.optimizers.LazyAdam")
        if amsgrad:
            raise ValueError("LazyAdam wants amsgrad=False; found True.")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, name=name, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        """Moves the rows of `variable` that a sparse gradient names."""
        if not isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        table, dtype = _tensor(variable), variable.dtype
        # A row looked up twice has its gradient in two parts; its square is that of their sum.
        rows, parts = tf.unique(gradient.indices)
        slices = tf.math.unsorted_segment_sum(tf.cast(gradient.values, dtype), parts, tf.size(rows))
        index = self._get_variable_index(variable)
        first, second = _tensor(self._momentums[index]), _tensor(self._velocities[index])
        mean = self.beta_1 * tf.gather(first, rows) + (1 - self.beta_1) * slices
        square = self.beta_2 * tf.gather(second, rows) + (1 - self.beta_2) * tf.square(slices)
        rate = tf.cast(learning_rate, dtype) * self._correction(dtype)
        first.scatter_update(tf.IndexedSlices(mean, rows))
        second.scatter_update(tf.IndexedSlices(square, rows))
        step = rate * mean / (tf.sqrt(square) + self.epsilon)
        table.scatter_sub(tf.IndexedSlices(step, rows))

    def _correction(self, dtype):
        """What Adam multiplies the rate by while its moments still start from 0."""
        steps = tf.cast(self.iterations + 1, dtype)
        return tf.sqrt(1 - tf.pow(self.beta_2, steps)) / (1 - tf.pow(self.beta_1, steps))


def _tensor(variable):
    """The `tf.Variable` of a Keras variable; Keras hands over either."""
    return variable.value if isinstance(variable, keras.Variable) else variable
