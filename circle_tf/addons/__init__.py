"""Drop-in replacements for TensorFlow Addons' metric learning, on today's TensorFlow and Keras.

    import tensorflow_addons as tfa      becomes      from circle_tf import addons as tfa

`tfa.losses` keeps Addons' names, arguments and numbers. `tfa.optimizers` has what Keras 3 has no
equal of, and says for the rest what Keras 3 calls it. `tfa.callbacks` averages weights.
"""

from typing import TYPE_CHECKING

from circle_tf.addons import callbacks, losses, optimizers

__all__ = ["callbacks", "losses", "optimizers"]


if not TYPE_CHECKING:  # Else a checker would take every name for known.

    def __getattr__(name):
        raise AttributeError(
            f"circle_tf.addons replaces the metric-learning part of TensorFlow Addons "
            f"({', '.join(__all__)}); it has no {name!r}. Much of the rest is in Keras 3 itself: "
            "see docs/migrating-from-addons.md."
        )
