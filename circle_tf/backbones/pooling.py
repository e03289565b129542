"""How feature maps and tokens become features."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from circle_tf import compat

__all__ = ["POOLINGS", "GeneralizedMean", "features"]

POOLINGS = ("average", "max", "generalized_mean", "flatten", "class_token")

_MAPS = {"average": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D", "flatten": "Flatten"}
_TOKENS = {"average": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D", "flatten": "Flatten"}


def features(outputs, pooling, *, default="average", special_tokens=0, name):
    """Features `[B, F]` from what a net ends in.

    Args:
        outputs: Keras tensor: maps `[B, H, W, F]`, tokens `[B, T, F]` or features `[B, F]`.
        pooling: of `POOLINGS`, or None for the net's own: `class_token` where there is one, else
            `default`; nothing for features.
        default: of `POOLINGS`.
        special_tokens: int, how many tokens come before those of the patches, the class token
            first; all poolings but `class_token` leave them out. 0: no class token. None: not
            known; then the first may be asked for as class token, and none is left out.
        name: str, of the net, for errors.

    Returns:
        Keras tensor `[B, F]` of a layer named `features`.

    Raises:
        ValueError: a pooling that the net has no use for.

    Example:
        >>> features(keras.Input((7, 8)), None, special_tokens=1, name="vit").shape
        (None, 8)
    """
    rank = len(outputs.shape)
    if rank == 2:
        if pooling is not None:
            raise ValueError(
                f"{name} ends in features already: leave pooling None; found {pooling!r}."
            )
        return keras.layers.Identity(name="features")(outputs)
    pooling = pooling or ("class_token" if special_tokens else default)
    if pooling == "class_token":
        if rank != 3 or special_tokens == 0:
            kind = "tokens without a class token" if rank == 3 else "feature maps"
            raise ValueError(f"{name} ends in {kind}: take average, max or generalized_mean.")
        return _ClassToken(name="features")(outputs)
    if rank == 3 and special_tokens:
        outputs = keras.layers.Cropping1D((special_tokens, 0))(outputs)
    if pooling == "generalized_mean":
        return GeneralizedMean(name="features")(outputs)
    kinds = _MAPS if rank == 4 else _TOKENS
    return getattr(keras.layers, kinds[pooling])(name="features")(outputs)


@keras.saving.register_keras_serializable("circle_tf")
class _ClassToken(keras.layers.Layer):
    """The first of tokens `[B, T, F]`, however many there are."""

    def call(self, tokens):
        return tokens[:, 0]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable("circle_tf")
class GeneralizedMean(keras.layers.Layer):
    """Generalised mean over positions, with a learnt power (GeM).

    `y = mean(max(x, epsilon) ** p) ** (1 / p)`: the mean at `p = 1`, towards the maximum as p
    grows. Computed in float32 under any precision policy, relative to the largest value, so that
    no power overflows. What is below epsilon counts as epsilon, and has no gradient.

    Args:
        p: float of 1 or more, the power to start with. It is learnt, and stays at 1 or above.
        epsilon: float above 0.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: maps `[B, H, W, F]` or tokens `[B, T, F]`.

    Returns:
        `[B, F]`, in the layer's compute dtype.

    Raises:
        ValueError: `p` below 1, `epsilon` not above 0, input of another rank.

    Example:
        >>> maps = tf.reshape([1.0, 1.0, 1.0, 5.0], [1, 2, 2, 1])
        >>> round(float(GeneralizedMean(3.0)(maps)[0, 0]), 3)
        3.175

    References:
        Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
        TPAMI 2019.
    """

    def __init__(self, p: float = 3.0, *, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= p < math.inf:
            raise ValueError(f"p must be a number of 1 or more; found {p!r}.")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon must be a number above 0; found {epsilon!r}.")
        self.initial_p = float(p)
        self.epsilon = float(epsilon)

    def build(self, input_shape: Any) -> None:
        """Makes the power."""
        if len(input_shape) not in (3, 4):
            raise ValueError(
                "GeneralizedMean wants maps [B, H, W, F] or tokens [B, T, F]; found "
                f"{tuple(input_shape)}."
            )
        self.p = compat.add_exact_weight(
            self,
            name="p",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(self.initial_p),
            constraint=_AtLeastOne(),
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Means `[B, F]`."""
        axes = list(range(1, len(inputs.shape) - 1))
        p = tf.convert_to_tensor(self.p)
        values = tf.maximum(tf.cast(inputs, p.dtype), self.epsilon)
        # Cancels out, so that it needs no gradient.
        largest = tf.stop_gradient(tf.reduce_max(values, axes, keepdims=True))
        mean = tf.reduce_mean((values / largest) ** p, axes) ** (1 / p)
        return tf.cast(tf.squeeze(largest, axes) * mean, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """`(B, F)`."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "p": self.initial_p, "epsilon": self.epsilon}


class _AtLeastOne(keras.constraints.Constraint):
    """Older Keras takes no plain functions."""

    def __call__(self, w):
        return tf.maximum(w, 1.0)
