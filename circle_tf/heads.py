"""The class-level head: class weights and loss in one layer."""

import keras

from circle_tf import layers, losses

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
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`, ids in `0 .. C - 1`.

    Returns:
        `[B]` losses in nats, float32 (float64 for float64 embeddings).

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
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

    def build(self, input_shape):
        """Makes the class weights `[C, D]`."""
        self.class_weights = layers.add_class_weights(self, input_shape[0], self.num_classes)
        self.built = True

    def losses_of(self, embeddings, ids):
        """`(losses [B], valid [B])` against the classes."""
        cosines = layers.cosines_to(embeddings, self.class_weights)
        return losses.class_losses(cosines, ids, **self.hyperparameters())

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}
