"""The class-level head: class weights and loss in one layer."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import global_batch
from circle_tf.layers import class_sampling, cosine_classifier, head_modes, loss_layers
from circle_tf.losses import base, hyperparameters
from circle_tf.losses.streaming import class_sweep
from circle_tf.ops import numerics, pairs
from circle_tf.optimizers import row_updates

__all__ = ["CircleHead"]


@keras.saving.register_keras_serializable("circle_tf")
class CircleHead(loss_layers.LossLayer):
    """Class weights and class-level Circle loss in one layer, from (embeddings, ids) to losses.

    The same numbers as `CosineClassifier` followed by `ClassCircleLoss(reduction="none")`.

    Args:
        num_classes: int C of 2 or more.
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: how the losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: add the reduced loss to the model's losses, so that `compile` needs none.
            In an `EmbeddingModel` the sample weights of `fit` weigh it; a `keras.Model` tells its
            layers of none.
        loss_weight: float of 0 or more, by which the model loss is multiplied: beside the loss of
            `compile`, or another layer's.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for the cosines `[B, C]`. Those of as many classes as fit are held
            once; the others (all where B is unknown when traced) are computed twice, over blocks
            of classes.
        sample_rate: float above 0, at most 1. Below 1 a training step looks at its global batch's
            own classes and at this share of all classes, drawn anew at each step; the gradient of
            the class weights is sparse (`tf.IndexedSlices`), and `EmbeddingModel` updates those
            rows and their moments alone. Without training all classes count.
        seed: int, of the sample; it is a function of seed and step alone.
        shards: None, or "replicas": each replica holds its own share of the classes and their
            optimizer state, and scores the global batch against them. The numbers are those of one
            device. Build and train the head within an `EmbeddingModel` under the strategy; on one
            replica it makes no difference. Saved is the whole matrix, for any number of replicas;
            see docs/distributed.md.
        product_dtype: None, or "bfloat16": the products take embeddings and class weights rounded
            to bfloat16, as from a bfloat16 copy of the weights, which is never held; the weights
            themselves and their optimizer state stay float32. The cosine to the own class is
            computed in float32; other cosines and the gradients are right to about 1 in 250, their
            sums over classes better (docs/benchmarks/heads.md). Faster where the processor
            multiplies bfloat16.
        fused_update: let the optimizer update the class weights a block at a time, each as soon as
            its gradient is computed, so that the gradient, as large as the weights, never is whole.
            For `EmbeddingModel` (or `prepare_optimizer`), on several replicas with `shards`, and an
            optimizer that neither clips gradients nor scales losses. The numbers are those of an
            update from the whole gradient, which is what happens in eager mode, under XLA and for
            float64.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`, ids in `0 .. C - 1`.

    Returns:
        `[B]` losses in nats, float32 (float64 for float64 embeddings).

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range, or a budget
            too small for a block of the smallest size.
        RuntimeError: a head sharded over replicas is called outside of them.
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
        num_classes: int,
        margin: hyperparameters.Scalar = 0.25,
        gamma: hyperparameters.Scalar = 256.0,
        *,
        reduction: base.Reduction = "mean",
        as_model_loss: bool = False,
        loss_weight: float = 1.0,
        detach_weights: bool = True,
        max_bytes: int = class_sweep.DEFAULT_MAX_BYTES,
        sample_rate: float = 1.0,
        seed: int = 0,
        shards: Literal["replicas"] | None = None,
        product_dtype: Literal["bfloat16"] | None = None,
        fused_update: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            margin,
            gamma,
            reduction=reduction,
            as_model_loss=as_model_loss,
            loss_weight=loss_weight,
            detach_weights=detach_weights,
            **kwargs,
        )
        self.num_classes = cosine_classifier.check_num_classes(num_classes)
        self.max_bytes = class_sweep.check_max_bytes(max_bytes)
        self.sample_rate, self.seed = _check_rate(sample_rate), int(seed)
        self.shards = _check_shards(shards)
        self.product_dtype = _check_product_dtype(product_dtype)
        self.fused_update = self._check_fused(fused_update)
        self._mode = None

    def build(self, input_shape: Any) -> None:
        """Makes the class weights `[C, D]`."""
        self.class_weights = cosine_classifier.add_class_weights(
            self, input_shape[0], self.num_classes, sharded=self.shards is not None
        )
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
        self._mode = self._choose_mode()
        self.built = True

    def _choose_mode(self):
        sampler = None
        if self.samples:
            sampler = class_sampling.ClassSampler(self.sample_rate, self.seed, self.steps_seen)
        if self.shards is not None:
            return head_modes.ShardedClasses(self.class_weights, sampler)
        if sampler is not None:
            return head_modes.SampledClasses(self.class_weights, sampler)
        if self.fused_update:
            return head_modes.FusedUpdate(self.class_weights)
        return head_modes.AllClasses(self.class_weights)

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Per-example losses `[B]` of (embeddings, ids)."""
        values, valid = self.losses_of(*inputs, training=training)
        self.add_model_loss(values, valid)
        return values

    def losses_of(
        self, embeddings: tf.Tensor, ids: tf.Tensor, *, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`(losses [B], valid [B])` against the classes, or a sample of them if training."""
        unit = numerics.safe_normalize(base.as_embeddings(embeddings))
        own = pairs.check_class_ids(pairs.to_ids(ids), self.num_classes)
        global_batch.check_lengths(own, unit, "embeddings")
        rounds = unit.dtype != tf.float64  # Whose user wants no rounding at all.
        values = self._mode.losses(
            unit,
            own,
            training=training,
            max_bytes=self.max_bytes,
            product_dtype=self.product_dtype if rounds else None,
            **self.hyperparameters(),
        )
        seen = pairs.ids_in_range(own, self.num_classes) & pairs.float_labels_are_exact(ids)
        return base.nan_unless(seen, values), tf.ones_like(own, tf.bool)

    def prepare_optimizer(
        self, optimizer: keras.optimizers.Optimizer
    ) -> keras.optimizers.Optimizer:
        """The optimizer to train with, which updates class weights by rows where it can.

        Rows are those sampled, or with `fused_update` all of them, block by block. The moments of
        a row without a gradient stand still. `EmbeddingModel.compile` does this; in a loop of your
        own call `build`, `apply` and the like of the optimizer returned, or else Keras reads and
        writes all class weights, and their moments, at each step.

        Args:
            optimizer: Keras optimizer that has not made its variables yet. It stays as it is.

        Returns:
            Keras optimizer on the same state: learning rate, iterations and moments are those of
            the one given; that one itself where the head has no use for updates by rows.

        Raises:
            ValueError: it has made its variables, or it is not one for `fused_update`.
        """
        if self.fused_update:
            row_updates.check_deferrable(optimizer)
        if self.samples or self.fused_update:
            optimizer = row_updates.update_rows_only(optimizer, [self.class_weights])
        if self.fused_update:
            self._mode.optimizer = optimizer
        return optimizer

    @property
    def samples(self) -> bool:
        """Whether training looks at a sample of the classes."""
        return class_sampling.size_of(self.num_classes, self.sample_rate) < self.num_classes

    @property
    def crosses_replicas(self) -> bool:
        """Whether a call exchanges something between replicas."""
        return self.samples or self.shards is not None or super().crosses_replicas

    def _check_fused(self, fused):
        if not isinstance(fused, bool):
            raise ValueError(f"fused_update must be True or False; found {fused!r}.")
        if fused and self.sample_rate < 1:
            raise ValueError(
                "fused_update is for a head that trains on all classes: leave out sample_rate, or "
                "fused_update."
            )
        if fused:
            compat.require_keras_3("CircleHead(fused_update=True)")
        return fused

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("num_classes", "max_bytes", "sample_rate", "seed", "shards", "product_dtype")
        names += ("fused_update",)
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _check_rate(rate):
    is_number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not is_number or not 0 < rate <= 1:
        raise ValueError(f"sample_rate must be a number above 0, at most 1; found {rate!r}.")
    return float(rate)


def _check_product_dtype(dtype):
    if dtype not in (None, "bfloat16"):
        raise ValueError(f'product_dtype must be None or "bfloat16"; found {dtype!r}.')
    return None if dtype is None else "bfloat16"  # TensorFlow's dtype is equal to its name.


def _check_shards(shards):
    if shards not in (None, "replicas"):
        raise ValueError(f'shards must be None or "replicas"; found {shards!r}.')
    if shards is not None:
        compat.require_keras_3("CircleHead(shards=...)")
    return shards
