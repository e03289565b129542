"""The class-level head: class weights and loss in one layer."""

import numbers

import keras
import tensorflow as tf

from circle_tf import (
    batches,
    class_sampling,
    classwise,
    compat,
    label_losses,
    layers,
    numerics,
    pairs,
    replicas,
)

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
        sample_rate: float above 0, at most 1. Below 1 a training step looks at its global batch's
            own classes and at this share of all classes, drawn anew at each step; the gradient of
            the class weights is sparse (`tf.IndexedSlices`). Without training all classes count.
        seed: int, of the sample; it is a function of seed and step alone.
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
        Sampling: An et al., "Partial FC", 2021.
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
        sample_rate=1.0,
        seed=0,
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
        self.sample_rate, self.seed = _check_rate(sample_rate), int(seed)

    def build(self, input_shape):
        """Makes the class weights `[C, D]`."""
        self.class_weights = layers.add_class_weights(self, input_shape[0], self.num_classes)
        self.steps_seen = None
        if self.samples:
            self.steps_seen = compat.add_exact_weight(
                self,
                name="steps_seen",
                shape=(),
                dtype="int64",
                initializer="zeros",
                trainable=False,
            )
            # Tells EmbeddingModel that replicas write the same: nothing to average.
            self.steps_seen.same_on_replicas = True
        self.built = True

    def call(self, inputs, training=None):
        """Per-example losses `[B]` of (embeddings, ids)."""
        values, valid = self.losses_of(*inputs, training=training)
        self.add_model_loss(values, valid)
        return values

    def losses_of(self, embeddings, ids, *, training=False):
        """`(losses [B], valid [B])` against the classes, or a sample of them if training."""
        unit = numerics.safe_normalize(label_losses.as_embeddings(embeddings))
        own = pairs.check_class_ids(pairs.to_ids(ids), self.num_classes)
        batches.check_lengths(own, unit, "embeddings")
        score = self._sampled_losses if training and self.samples else self._dense_losses
        values = score(unit, own)
        seen = pairs.ids_in_range(own, self.num_classes) & pairs.float_labels_are_exact(ids)
        return label_losses.nan_unless(seen, values), tf.ones_like(own, tf.bool)

    @property
    def samples(self):
        """Whether training looks at a sample of the classes."""
        return class_sampling.size_of(self.num_classes, self.sample_rate) < self.num_classes

    @property
    def crosses_replicas(self):
        """Whether a call exchanges something between replicas."""
        return self.samples or super().crosses_replicas

    def _dense_losses(self, unit, own, live=None, weights=None):
        weights = tf.convert_to_tensor(self.class_weights) if weights is None else weights
        return classwise.class_losses(
            unit,
            tf.cast(weights, unit.dtype),
            own,
            live=live,
            max_bytes=self.max_bytes,
            **self.hyperparameters(),
        )

    def _sampled_losses(self, unit, own):
        rows, live, first = class_sampling.sampled_classes(
            replicas.gather_rows(own)[0],
            self.num_classes,
            size=class_sampling.size_of(self.num_classes, self.sample_rate),
            seed=self.seed,
            step=tf.convert_to_tensor(self.steps_seen),
        )
        self.steps_seen.assign(tf.convert_to_tensor(self.steps_seen) + 1)
        places = tf.gather(first, tf.clip_by_value(own, 0, self.num_classes - 1))
        # Gathered from the variable itself, whose gradient is sparse then.
        weights = tf.gather(compat.tf_variable(self.class_weights), rows)
        return self._dense_losses(unit, tf.cast(places, tf.int64), live, weights)

    def get_config(self):
        """The constructor's arguments."""
        names = ("num_classes", "max_bytes", "sample_rate", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _check_rate(rate):
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not is_number or not 0 < rate <= 1:
        raise ValueError(f"sample_rate must be a number above 0, at most 1; found {rate!r}.")
    return float(rate)
