"""The layer that ends an embedding model: unit embeddings."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.layers import dtypes
from circle_tf.ops import numerics
from circle_tf.utils import checks

__all__ = ["UnitEmbedding"]


@keras.saving.register_keras_serializable("circle_tf")
class UnitEmbedding(keras.layers.Layer):
    """Projects features to unit embeddings, float32 under any precision policy.

    `y = normalize(features @ kernel + bias)`. The product runs in the layer's compute dtype, the
    normalisation and the output in float32 (float64 under a float64 policy).

    Args:
        dim: int D above 0, embedding dimension.
        use_bias: whether to add a bias before normalising.
        kernel_initializer: Keras initializer of the kernel.
        kernel_regularizer: Keras regularizer of the kernel.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        features: `[B, F]` features; maps `[B, H, W, F]` are a shape error (pool them first).

    Returns:
        `[B, D]` rows of length 1; a zero row stays zero.

    Raises:
        ValueError: `dim` not a positive integer, input of another rank.

    Example:
        >>> rows = UnitEmbedding(8)(tf.ones([2, 5]))
        >>> tf.norm(rows, axis=1).numpy().round(4).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        dim: int,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim = checks.whole_number(dim, "dim", least=1)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes the kernel `[F, D]`."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"UnitEmbedding wants features of shape [B, F]; found {tuple(input_shape)}. Pool "
                "or flatten feature maps first (keras.layers.GlobalAveragePooling2D)."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.dim),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.dim,), initializer="zeros")
        self.built = True  # Keras 2 builds again on the first call otherwise.

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Unit embeddings of `[B, F]` features."""
        projected = tf.matmul(features, self.kernel)
        if self.bias is not None:
            projected += tf.convert_to_tensor(self.bias, projected.dtype)
        return numerics.safe_normalize(projected)

    def compute_output_spec(self, features: Any) -> Any:
        """`[B, D]` in the loss dtype, whatever the compute dtype."""
        return compat.output_spec((features.shape[0], self.dim), dtypes.loss_dtype(self))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
