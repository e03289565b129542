"""The class-level head: class weights and loss in one layer."""

import keras
import tensorflow as tf

from circle_tf import batches, classwise, layers, losses, numerics, pairs

__all__ = ["CircleHead"]


@keras.saving.register_keras_serializable("circle_tf")
class CircleHead(layers.LossLayer):
    """Class weights and class-level Circle loss in one layer, from (embeddings, ids) to losses.

    The same numbers as `CosineClassifier` followed by `ClassCircleLoss(reduction="none")`.

    Args:
        num_classes: int C of 2 or more.
        margin: float m in -1..1.
        gamma: float scale above 0.
        reduction: how the losses become the model loss; see `circle_tf.reductions`.
        as_model_loss: add the reduced loss to the model's losses, so that `compile` needs none.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for the cosines `[B, C]`. Within it they are held once; above it (and
            where B is unknown when traced) they are computed twice, over blocks of classes.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`, ids in `0 .. C - 1`.

    Returns:
        `[B]` losses in nats, float32 (float64 for float64 embeddings).

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range, or a budget
            too small for a block of the smallest size.
        NotImplementedError: a second-order gradient was asked for.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> import tensorflow as tf
        >>> head = CircleHead(10, margin=0.25, gamma=256.0)
        >>> head((tf.ones([4, 8]), tf.constant([0, 1, 2, 3]))).shape.as_list()
        [4]

    References:
        Sun et al., "Circle Loss", CVPR 2020, section 3.1 (class-level labels).
    """

    def __init__(
        self,
        num_classes,
        margin=0.25,
        gamma=256.0,
        *,
        reduction="mean",
        as_model_loss=False,
        detach_weights=True,
        max_bytes=classwise.DEFAULT_MAX_BYTES,
        **kwargs,
    ):
        super().__init__(
            margin,
            gamma,
            reduction=reduction,
            as_model_loss=as_model_loss,
            detach_weights=detach_weights,
            **kwargs,
        )
        self.num_classes = layers.check_num_classes(num_classes)
        self.max_bytes = classwise.check_max_bytes(max_bytes)

    def build(self, input_shape):
        """Makes the class weights `[C, D]`."""
        self.class_weights = layers.add_class_weights(self, input_shape[0], self.num_classes)
        self.built = True

    def losses_of(self, embeddings, ids):
        """`(losses [B], valid [B])` against the classes."""
        unit = numerics.safe_normalize(losses.as_embeddings(embeddings))
        weights = tf.cast(tf.convert_to_tensor(self.class_weights), unit.dtype)
        own = pairs.check_class_ids(pairs.to_ids(ids), self.num_classes)
        batches.check_lengths(own, unit, "embeddings")
        values = classwise.class_losses(
            unit, weights, own, max_bytes=self.max_bytes, **self.hyperparameters()
        )
        seen = pairs.ids_in_range(own, self.num_classes) & pairs.float_labels_are_exact(ids)
        return losses.nan_unless(seen, values), tf.ones_like(own, tf.bool)

    def get_config(self):
        """The constructor's arguments."""
        own = {"num_classes": self.num_classes, "max_bytes": self.max_bytes}
        return {**super().get_config(), **own}
