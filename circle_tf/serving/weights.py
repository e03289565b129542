"""Float32 clones of models trained in another precision."""

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat

__all__ = ["as_float32", "is_rounded", "with_rounded_weights"]

_OTHER_FLOATS = {"float16", "bfloat16", "float64"}


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
    kept = {key: value for key, value in config.items() if key != "compile_config"}
    return {
        key: "float32" if key == "dtype" and _is_other_float(value) else _with_float32(value)
        for key, value in kept.items()
    }


def _is_other_float(dtype):
    if isinstance(dtype, dict):  # A serialized policy, or a map of policies by layer.
        name = dtype.get("config", {}).get("name", "")
        return dtype.get("class_name") == "DTypePolicyMap" or _is_other_float(name)
    return isinstance(dtype, str) and dtype.removeprefix("mixed_") in _OTHER_FLOATS
