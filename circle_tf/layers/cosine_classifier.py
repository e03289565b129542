"""Class weights, and the layer of cosines to them."""

from __future__ import annotations

import functools
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
    """Cosines between embeddings and one learnt weight vector per class, or several.

    `cosines = normalize(embeddings) @ normalize(weights).T`, in float32 under any policy. With
    `sub_centers=k` a class has k weight vectors, and its cosine is the largest of theirs: an
    embedding moves the nearest one alone. Wrong labels, and looks of a class that differ, then
    gather around weight vectors of their own.

    Args:
        num_classes: int C of 2 or more.
        sub_centers: int k of 1 or more. Costs k times the memory of the class weights and of the
            cosines.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        embeddings: `[B, D]` of any scale.

    Returns:
        `[B, C]` cosines in -1..1, float32 (float64 for float64 input).

    Raises:
        ValueError: `num_classes` below 2, `sub_centers` below 1, input of another rank.

    Example:
        >>> CosineClassifier(10)(tf.ones([2, 4])).shape.as_list()
        [2, 10]
        >>> CosineClassifier(10, sub_centers=3)(tf.ones([2, 4])).shape.as_list()
        [2, 10]

    References:
        Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web Faces",
        ECCV 2020 (there 3, and weights without their own images are dropped afterwards).
    """

    def __init__(self, num_classes: int, *, sub_centers: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = check_num_classes(num_classes)
        self.sub_centers = checks.whole_number(sub_centers, "sub_centers", least=1)

    def build(self, input_shape: Any) -> None:
        """Makes the class weights `[C, D]`, `[C, k, D]` with k sub-centres above 1."""
        self.class_weights = add_class_weights(
            self, input_shape, self.num_classes, sub_centers=self.sub_centers
        )
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
        own = {"num_classes": self.num_classes, "sub_centers": self.sub_centers}
        return {**super().get_config(), **own}


def add_class_weights(layer, input_shape, num_classes, *, sub_centers=1, sharded=False):
    """The class weights `[C, D]` of a layer whose input is embeddings of `input_shape`.

    Args:
        layer: the Keras layer that gets them.
        input_shape: `(B, D)`.
        num_classes: int C.
        sub_centers: int k, weight vectors of a class.
        sharded: whether each replica holds its own share of the rows.

    Returns:
        Keras variable `[C, D]`, `[C, k, D]` with k above 1: normal rows, so that directions are
        uniform.

    Raises:
        ValueError: input of another rank.
    """
    if len(input_shape) != 2 or input_shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__} wants embeddings of shape [B, D]; found {tuple(input_shape)}."
        )
    shape = (num_classes, *([sub_centers] if sub_centers > 1 else []), input_shape[-1])
    normal = initializers.NormalRows(input_shape[-1])
    if not sharded:
        return compat.add_exact_weight(layer, name="class_weights", shape=shape, initializer=normal)
    layer.class_weights = sharded_variable.ShardedVariable(
        normal, shape, dtype=layer.variable_dtype, autocast=False, name="class_weights"
    )
    layer.class_weights.trainable = layer.trainable  # `add_weight` does it, an assignment does not.
    return layer.class_weights


def cosines_to(embeddings, class_weights):
    """`normalize(embeddings) @ normalize(class_weights).T`; of several for a class the largest.

    Args:
        embeddings: `[B, D]`.
        class_weights: `[C, D]` or `[C, k, D]` tensor or Keras variable.

    Returns:
        `[B, C]` cosines, float32 (float64 for float64 embeddings).

    Example:
        >>> weights = tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])
        >>> cosines_to(tf.constant([[0.0, 1.0]]), weights).numpy().round(3).tolist()
        [[1.0, 0.8...]]
    """
    unit = numerics.safe_normalize(embeddings)
    weights = numerics.safe_normalize(tf.cast(tf.convert_to_tensor(class_weights), unit.dtype))
    centers = [weights] if weights.shape.rank == 2 else tf.unstack(weights, axis=1)
    # Pair by pair: under XLA tf.reduce_max of NaN alone is -inf.
    return functools.reduce(tf.maximum, [tf.matmul(unit, c, transpose_b=True) for c in centers])


def check_num_classes(value):
    """Int C of 2 or more, or ValueError."""
    return checks.whole_number(value, "num_classes", least=2)
