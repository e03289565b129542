"""Class weights, and the layer of cosines to them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import sharded_variable
from circle_tf.layers import dtypes, initializers
from circle_tf.ops import numerics
from circle_tf.utils import checks

__all__ = ["CosineClassifier", "add_class_weights", "check_num_classes", "cosines_to"]


@keras.saving.register_keras_serializable("circle_tf")
class CosineClassifier(dtypes.ExactInputs):
    """Cosines between embeddings and one learnt weight vector per class.

    `cosines = normalize(embeddings) @ normalize(weights).T`, in float32 under any policy.

    Args:
        num_classes: int C of 2 or more.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        embeddings: `[B, D]` of any scale.

    Returns:
        `[B, C]` cosines in -1..1, float32 (float64 for float64 input).

    Raises:
        ValueError: `num_classes` below 2, input of another rank.

    Example:
        >>> CosineClassifier(10)(tf.ones([2, 4])).shape.as_list()
        [2, 10]
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = check_num_classes(num_classes)

    def build(self, input_shape: Any) -> None:
        """Makes the class weights `[C, D]`."""
        self.class_weights = add_class_weights(self, input_shape, self.num_classes)
        self.built = True

    def call(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Cosines of `[B, D]` embeddings to the classes."""
        return cosines_to(embeddings, self.class_weights)

    def compute_output_spec(self, embeddings: Any) -> Any:
        """`[B, C]` in the loss dtype."""
        shape = (embeddings.shape[0], self.num_classes)
        return compat.output_spec(shape, dtypes.loss_dtype(self))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


def add_class_weights(layer, input_shape, num_classes, *, sharded=False):
    """The class weights `[C, D]` of a layer whose input is embeddings of `input_shape`.

    Args:
        layer: the Keras layer that gets them.
        input_shape: `(B, D)`.
        num_classes: int C.
        sharded: whether each replica holds its own share of the rows.

    Returns:
        Keras variable `[C, D]`: normal rows, so that directions are uniform.

    Raises:
        ValueError: input of another rank.
    """
    if len(input_shape) != 2 or input_shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__} wants embeddings of shape [B, D]; found {tuple(input_shape)}."
        )
    shape = (num_classes, input_shape[-1])
    normal = initializers.NormalRows(input_shape[-1])
    if not sharded:
        return compat.add_exact_weight(layer, name="class_weights", shape=shape, initializer=normal)
    layer.class_weights = sharded_variable.ShardedVariable(
        normal, shape, dtype=layer.variable_dtype, autocast=False, name="class_weights"
    )
    layer.class_weights.trainable = layer.trainable  # `add_weight` does it, an assignment does not.
    return layer.class_weights


def cosines_to(embeddings, class_weights):
    """`normalize(embeddings) @ normalize(class_weights).T`.

    Args:
        embeddings: `[B, D]`.
        class_weights: `[C, D]` tensor or Keras variable.

    Returns:
        `[B, C]` cosines, float32 (float64 for float64 embeddings).
    """
    unit = numerics.safe_normalize(embeddings)
    weights = numerics.safe_normalize(tf.cast(tf.convert_to_tensor(class_weights), unit.dtype))
    return tf.matmul(unit, weights, transpose_b=True)


def check_num_classes(value):
    """Int C of 2 or more, or ValueError."""
    return checks.whole_number(value, "num_classes", least=2)
