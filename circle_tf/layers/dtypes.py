"""Dtypes of layers whose results are float32 under every precision policy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["ExactInputs", "loss_dtype"]


class ExactInputs(keras.layers.Layer):
    """A layer whose `call` gets its inputs as they are, under every precision policy.

    Float32 embeddings must not be rounded to half, nor ids to floats.

    Args:
        **kwargs: as `keras.layers.Layer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs["autocast"] = False
        super().__init__(**kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.layers.Layer`."""
        # Keras 3.3 makes tensors of the policy's dtype of arrays, whatever autocast says.
        args, kwargs = tf.nest.map_structure(_as_tensor, (args, kwargs))
        return super().__call__(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        config.pop("autocast", None)
        return config


def loss_dtype(layer):
    """float64 for a layer of that policy, else float32: str."""
    return "float64" if layer.dtype_policy.variable_dtype == "float64" else "float32"


def _as_tensor(value):
    return tf.convert_to_tensor(value) if isinstance(value, np.ndarray) else value
