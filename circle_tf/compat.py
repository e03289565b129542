"""Where versions of Keras disagree: the only module that asks which one it is.

Keras 3.3 to 3.15, with any TensorFlow from 2.16 to 2.21 that allows it, are one stack. The other is
TensorFlow 2.15.1 with Keras 2.15 and tensorflow-addons 0.23 (`pip install 'circle-tf[addons]'`).
Code for the second one alone is here, and can go with it.
"""

import inspect

import keras

__all__ = [
    "COMPUTE_LOSS_TAKES_TRAINING",
    "IS_KERAS_3",
    "KERAS",
    "KerasVariable",
    "add_exact_weight",
    "get_keras_mask",
    "is_keras_variable",
    "output_spec",
    "require_keras_3",
    "set_keras_mask",
    "tf_variable",
]

KERAS = tuple(int(number) for number in keras.__version__.split(".")[:2])
IS_KERAS_3 = KERAS >= (3,)
COMPUTE_LOSS_TAKES_TRAINING = (  # Since 3.4.
    "training" in inspect.signature(keras.Model.compute_loss).parameters
)
KerasVariable = keras.Variable if IS_KERAS_3 else object  # Keras 2's weights are tf.Variables.

try:
    from keras.src.backend import get_keras_mask, set_keras_mask
except ImportError:  # Before Keras 3.6.

    def get_keras_mask(value):
        """The mask that Keras keeps with a tensor; None without."""
        return getattr(value, "_keras_mask", None)

    def set_keras_mask(value, mask):
        """Keeps a mask with a tensor."""
        value._keras_mask = mask


def add_exact_weight(layer, **kwargs):
    """`layer.add_weight` for a weight that is never rounded to the compute dtype.

    Keras casts weights in a mixed policy even where the layer says `autocast=False`.

    Args:
        layer: `keras.layers.Layer`.
        **kwargs: as `Layer.add_weight`.

    Returns:
        The variable.

    Example:
        >>> layer = keras.layers.Layer(dtype="mixed_bfloat16")
        >>> weight = add_exact_weight(layer, name="w", shape=(2,), initializer="zeros")
        >>> "float32" in str(weight.dtype)
        True
    """
    name = "autocast" if IS_KERAS_3 else "experimental_autocast"
    return layer.add_weight(**kwargs, **{name: False})


def output_spec(shape, dtype):
    """What `Layer.compute_output_spec` returns. Only Keras 3 asks for it; Keras 2 calls the layer.

    Args:
        shape: tuple of int or None.
        dtype: str.

    Returns:
        `keras.KerasTensor`.

    Raises:
        NotImplementedError: under Keras 2.

    Example:
        >>> if IS_KERAS_3:
        ...     assert output_spec((None, 4), "float32").shape == (None, 4)
    """
    require_keras_3("compute_output_spec")
    return keras.KerasTensor(shape, dtype=dtype)


def require_keras_3(feature):
    """Refuses at once what only the default stack can do.

    Args:
        feature: str, what was asked for.

    Raises:
        NotImplementedError: under Keras 2.

    Example:
        >>> if IS_KERAS_3:
        ...     require_keras_3("EmbeddingModel")
    """
    if not IS_KERAS_3:
        raise NotImplementedError(
            f"{feature} needs Keras 3 (TensorFlow 2.16 to 2.21); found Keras {keras.__version__}. "
            "On the stack of TensorFlow Addons circle_tf offers its losses, layers, heads, "
            "metrics, samplers and retrieval: use them in a keras.Model of your own, or make an "
            "environment without tensorflow-addons (see docs/migrating-from-addons.md)."
        )


def is_keras_variable(value):
    """Whether it is a variable of Keras 3, which is no `tf.Variable`.

    Example:
        >>> is_keras_variable(1.0)
        False
    """
    return IS_KERAS_3 and isinstance(value, KerasVariable)


def tf_variable(weight):
    """The `tf.Variable` behind a layer's weight.

    Args:
        weight: what `Layer.add_weight` returned.

    Returns:
        `tf.Variable`: that of Keras 3's variable, Keras 2's weight itself.

    Example:
        >>> weight = add_exact_weight(keras.layers.Layer(), name="w", shape=(2,))
        >>> tuple(tf_variable(weight).shape), hasattr(tf_variable(weight), "scatter_nd_add")
        ((2,), True)
    """
    return weight.value if IS_KERAS_3 else weight
