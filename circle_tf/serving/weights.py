"""The weights of a servable: always computed with in float32, stored in that or in half of it."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat

__all__ = [
    "STORED",
    "StoredWeights",
    "as_float32",
    "is_rounded",
    "served_model",
    "with_rounded_weights",
]

STORED = ("float32", "float16", "bfloat16")

_OTHER_FLOATS = {"float16", "bfloat16", "float64"}


def served_model(model, *, weights="float32"):
    """The Keras model whose numbers a servable gives.

    Args:
        model: built `keras.Model`.
        weights: as in `save_servable`.

    Returns:
        `keras.Model` in float32: the model itself, or a clone of it.

    Raises:
        ValueError: unknown `weights`, or a model that cannot be cloned.

    Example:
        >>> pixels = keras.Input((4,))
        >>> model = keras.Model(pixels, keras.layers.Dense(2)(pixels))
        >>> served_model(model) is model
        True
    """
    if weights not in STORED:
        raise ValueError(f"weights must be one of {', '.join(STORED)}; found {weights!r}.")
    if weights == "float32":
        return as_float32(model)
    return with_rounded_weights(model, weights)


def as_float32(model):
    """The model itself if every layer computes in float32, else a float32 clone of it.

    The clone has the same architecture and weights, with float32 in place of every mixed_float16,
    mixed_bfloat16, float16, bfloat16 or float64 policy: what CPUs run fastest, and independent
    of the hardware that trained it.

    Args:
        model: built `keras.Model`.

    Returns:
        `keras.Model`; its weights are copies if it is a clone.

    Raises:
        ValueError: the model is a subclass that cannot be rebuilt from its config.

    Example:
        >>> pixels = keras.Input((4,), dtype="float32")
        >>> half = keras.Model(pixels, keras.layers.Dense(2, dtype="mixed_bfloat16")(pixels))
        >>> as_float32(half).output.dtype, as_float32(half) is half
        ('float32', False)
    """
    compat.require_keras_3("as_float32")
    policies = [layer.dtype_policy for layer in model._flatten_layers()]
    others = [p for p in policies if {p.compute_dtype, p.variable_dtype} & _OTHER_FLOATS]
    if not others:
        return model
    return _rebuilt(model, others[0].name)


def with_rounded_weights(model, dtype):
    """A float32 clone whose large weights are those that half precision can store.

    Matrices and kernels are rounded; vectors (biases, moving statistics) stay as they are, for they
    are small, and a variance may be outside float16.

    Args:
        model: built `keras.Model`.
        dtype: `float16` or `bfloat16`.

    Returns:
        `keras.Model` in float32.

    Raises:
        ValueError: the model cannot be rebuilt from its config, or a weight is too large.

    Example:
        >>> pixels = keras.Input((4,))
        >>> model = keras.Model(pixels, keras.layers.Dense(2)(pixels))
        >>> with_rounded_weights(model, "float16") is model
        False
    """
    clone = _rebuilt(model, "float32")
    for weight in clone.weights:
        if is_rounded(weight):
            rounded = tf.cast(tf.cast(weight.value, dtype), tf.float32)
            if not np.isfinite(rounded).all():
                raise ValueError(f"The weight {weight.path} does not fit into {dtype}.")
            weight.assign(rounded)
    return clone


def is_rounded(weight):
    """Whether `with_rounded_weights` rounds a Keras weight.

    Args:
        weight: `keras.Variable`.

    Returns:
        bool.

    Example:
        >>> is_rounded(keras.Variable([[1.0]])), is_rounded(keras.Variable([1.0]))
        (True, False)
    """
    return len(weight.shape) > 1 and weight.value.dtype == tf.float32


class StoredWeights:
    """The variables of a servable, and the model's weights as it reads them.

    Args:
        model: `keras.Model` in float32.
        dtype: how large weights are stored.
    """

    def __init__(self, model, dtype):
        self._half = {}
        if dtype != "float32":
            rounded = [weight for weight in model.weights if is_rounded(weight)]
            self._half = {
                id(weight): (weight, tf.Variable(tf.cast(weight.value, dtype), name=f"half_{n}"))
                for n, weight in enumerate(rounded)
            }
        self.variables = [
            self._half[id(weight)][1] if id(weight) in self._half else weight.value
            for weight in model.variables
        ]

    def scope(self):
        """Within it Keras reads stored weights as float32."""
        if not self._half:
            return contextlib.nullcontext()
        mapping = [(weight, tf.cast(half, tf.float32)) for weight, half in self._half.values()]
        return keras.StatelessScope(state_mapping=mapping)


def _rebuilt(model, precision):
    """The model in float32, with copies of its weights."""
    before = keras.config.dtype_policy()
    try:
        # Layers that make layers of their own in __init__ take the global policy.
        keras.config.set_dtype_policy("float32")
        config = _with_float32(keras.saving.serialize_keras_object(model))
        clone = keras.saving.deserialize_keras_object(config, safe_mode=False)
        clone.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The model {model.name!r} computes in {precision} and cannot be rebuilt in "
            f"float32 for serving ({reason}). Build it with the functional API, or give its class "
            "a get_config."
        ) from error
    finally:
        keras.config.set_dtype_policy(before)
    return clone


def _with_float32(config):
    """A Keras config with float32 in place of other float policies and dtypes."""
    if isinstance(config, list | tuple):
        return [_with_float32(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: value for key, value in config.items() if key != "compile_config"}
    return {
        key: "float32" if key == "dtype" and _is_other_float(value) else _with_float32(value)
        for key, value in config.items()
    }


def _is_other_float(dtype):
    if isinstance(dtype, dict):  # A serialized policy, or a map of policies by layer.
        name = dtype.get("config", {}).get("name", "")
        return dtype.get("class_name") == "DTypePolicyMap" or _is_other_float(name)
    return isinstance(dtype, str) and dtype.removeprefix("mixed_") in _OTHER_FLOATS
