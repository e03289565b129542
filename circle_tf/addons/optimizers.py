"""`tfa.optimizers`: what Keras 3 has no equal of. For the rest, errors name Keras 3's equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from circle_tf import compat
from circle_tf.optimizers import row_updates

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


if not TYPE_CHECKING:  # Else a checker would take every name for known.

    def __getattr__(name):
        instead = _IN_KERAS_3.get(name)
        hint = f"Use {instead}" if instead else "It has no replacement here"
        raise AttributeError(f"circle_tf.addons.optimizers has no {name!r}. {hint}; {_SEE}.")


@keras.saving.register_keras_serializable("circle_tf.addons")
class LazyAdam(row_updates.RowUpdates, keras.optimizers.Adam):
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
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        name: str = "LazyAdam",
        **kwargs: Any,
    ) -> None:
        compat.require_keras_3("circle_tf.addons.optimizers.LazyAdam")
        if amsgrad:
            raise ValueError("LazyAdam wants amsgrad=False; found True.")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, name=name, **kwargs)
