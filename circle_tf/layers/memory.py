"""Cross-batch memory: earlier batches' embeddings as more keys for the pair-wise loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import collectives, global_batch, step_context
from circle_tf.layers import dtypes, loss_layers
from circle_tf.losses import base, circle_losses, hyperparameters
from circle_tf.losses.streaming import pair_sweep
from circle_tf.ops import pairs
from circle_tf.utils import checks

__all__ = ["CrossBatchCircleLoss", "CrossBatchMemory"]

_EMPTY = -1  # The row number of a slot that holds nothing.


@keras.saving.register_keras_serializable("circle_tf")
class CrossBatchMemory(loss_layers.LossLayer):
    """Pair-wise Circle loss whose keys are the batch and the last M embeddings before it.

    A ring buffer keeps the newest M embeddings and ids of earlier training batches. They are keys
    without gradient: a batch of 64 meets thousands of positives and negatives at the price of a
    matrix product. That works since embeddings drift slowly; let them settle for `start_step`
    steps, and choose M up to about the size of the training set.

    With `training=False` the memory is neither looked at nor filled: the losses are those of
    `PairwiseCircle`. The memory consists of non-trainable weights, saved with all others. Under a
    strategy it takes in the global batch and is the same on every replica.

    Args:
        memory_size: int M of 1 or more; smaller than a batch keeps its newest rows.
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        start_step: int of 0 or more; in so many first steps the memory fills and is not used.
        reduction: how the losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: add the reduced loss to the model's losses, so that `compile` needs none.
        loss_weight: float of 0 or more, by which the model loss is multiplied.
        detach_weights: see `circle_loss`.
        block_size: see `CircleLoss`; "auto" computes the `[B, B + M]` pairs tile by tile.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`, or a third with them: `examples [B]`,
            int64 of 0 or more that number the training examples. Then an example met again is
            not a positive of its own earlier self.
        training: bool. Only True uses and fills the memory (in a loop of your own, say so).

    Returns:
        `[B]` losses in nats of the batch's rows.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> memory = CrossBatchMemory(4)
        >>> embeddings, ids = tf.eye(2), tf.constant([0, 1])
        >>> memory((embeddings, ids), training=True).numpy().tolist()  # no positive in the batch
        [0.0, 0.0]
        >>> bool(tf.reduce_all(memory((embeddings, ids), training=True) > 0))  # one in the memory
        True

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020. Its loss has one term
        for the batch and one for the memory; here both are keys of one Circle loss.
    """

    def __init__(
        self,
        memory_size: int,
        margin: hyperparameters.Scalar = 0.4,
        gamma: hyperparameters.Scalar = 80.0,
        *,
        start_step: int = 0,
        reduction: base.Reduction = "mean_valid",
        as_model_loss: bool = False,
        loss_weight: float = 1.0,
        detach_weights: bool = True,
        block_size: int | Literal["auto"] | None = "auto",
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
        self.memory_size = checks.whole_number(memory_size, "memory_size", least=1)
        self.start_step = checks.whole_number(start_step, "start_step", least=0)
        self.block_size = pair_sweep.check_block_size(block_size)

    def build(self, input_shape: Any) -> None:
        """Makes the empty memory."""
        shape = tuple(input_shape[0])
        if len(shape) != 2 or shape[-1] is None:
            raise ValueError(f"CrossBatchMemory wants embeddings of shape [B, D]; found {shape}.")
        size = (self.memory_size,)
        self.memory_keys = self._state("memory_keys", (*size, shape[-1]), dtypes.loss_dtype(self))
        self.memory_ids = self._state("memory_ids", size, "int64")
        self.memory_rows = self._state("memory_rows", size, "int64", value=_EMPTY)
        self.rows_seen = self._state("rows_seen", (), "int64")
        self.steps_seen = self._state("steps_seen", (), "int64")
        self.built = True

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Per-example losses `[B]` of (embeddings, ids) or (embeddings, ids, examples)."""
        values, valid = self.losses_of(*inputs, training=training)
        self.add_model_loss(values, valid)
        return values

    def losses_of(
        self,
        embeddings: tf.Tensor,
        ids: tf.Tensor,
        examples: tf.Tensor | None = None,
        *,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`(losses [B], valid [B])` within the global batch and, if training, the memory."""
        options = {"block_size": self.block_size, **self.hyperparameters()}
        if not training:
            return circle_losses.pairwise_losses(embeddings, ids, **options)
        batch = global_batch.global_batch(base.as_embeddings(embeddings), ids)
        rows = self._numbers(batch, examples)
        own = rows[batch.offset : batch.offset + tf.shape(batch.ids)[0]]
        values, valid = circle_losses.score_keys(
            *batch[:4], rows=own, key_rows=rows, memory=self._held(batch.keys.dtype), **options
        )
        self._enqueue(batch.keys, batch.key_ids, rows)
        return base.nan_unless(base.usable_rows(batch.unit, ids), values), valid

    @property
    def crosses_replicas(self) -> bool:
        """True: the keys are all replicas' embeddings."""
        return True

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("memory_size", "start_step", "block_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def load_own_variables(self, store: Any) -> None:
        """Loads the memory: into one of another size the newest rows, from no memory nothing."""
        if not len(store.keys()):
            return
        saved = [np.asarray(store[str(index)]) for index in range(len(self.variables))]
        saved[:3] = _resized(*saved[:4], size=self.memory_size)
        for variable, value in zip(self.variables, saved, strict=True):
            variable.assign(value)

    def _state(self, name, shape, dtype, *, value=0):
        variable = compat.add_exact_weight(
            self,
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=keras.initializers.Constant(value),
            trainable=False,
        )
        # Tells EmbeddingModel that replicas write the same: nothing to average, to the bit.
        variable.same_on_replicas = True
        return variable

    def _numbers(self, batch, examples):
        """Numbers `[N]` of the global batch's examples: as given, or each presentation anew."""
        if examples is None:
            return tf.convert_to_tensor(self.rows_seen) + global_batch.row_numbers(batch.key_ids)
        examples = pairs.to_ids(examples)
        global_batch.check_lengths(examples, batch.unit, "embeddings")
        examples = checks.passing(
            examples,
            tf.reduce_all(examples >= 0),
            "Numbers of examples must be 0 or more; found",
            examples,
        )
        return collectives.gather_rows(examples)

    def _held(self, dtype):
        """The memory as more keys; before the start every slot counts as empty."""
        started = tf.convert_to_tensor(self.steps_seen) >= self.start_step
        return pair_sweep.Side(
            tf.cast(tf.convert_to_tensor(self.memory_keys), dtype),
            tf.convert_to_tensor(self.memory_ids),
            tf.where(started, tf.convert_to_tensor(self.memory_rows), _EMPTY),
        )

    def _enqueue(self, unit, ids, rows):
        """Writes the newest rows over the oldest."""
        total = tf.shape(ids, out_type=tf.int64)[0]
        unit, ids, rows = (values[-self.memory_size :] for values in (unit, ids, rows))
        end = tf.convert_to_tensor(self.rows_seen) + total
        slots = end - tf.shape(ids, out_type=tf.int64)[0] + global_batch.row_numbers(ids)
        slots = (slots % self.memory_size)[:, None]
        # A row with NaN or inf has made this step's loss NaN; it shall not spoil the next ones.
        finite = tf.reduce_all(tf.math.is_finite(unit), axis=1)
        unit = tf.where(finite[:, None], tf.stop_gradient(unit), tf.zeros_like(unit))
        for variable, new in (
            (self.memory_keys, unit),
            (self.memory_ids, ids),
            (self.memory_rows, tf.where(finite, rows, _EMPTY)),
        ):
            old = tf.convert_to_tensor(variable)
            variable.assign(tf.tensor_scatter_nd_update(old, slots, tf.cast(new, old.dtype)))
        self.rows_seen.assign(end)
        self.steps_seen.assign(tf.convert_to_tensor(self.steps_seen) + 1)


@keras.saving.register_keras_serializable("circle_tf")
class CrossBatchCircleLoss(circle_losses.CircleLoss):
    """`CircleLoss` with a cross-batch memory, for `EmbeddingModel.compile(loss=...)`.

    `EmbeddingModel` makes the memory when it is compiled, fills it in training steps only, and
    saves it with the weights (`.keras`, `save_weights`); `model.memory` is it. The loss of
    `evaluate` is that of the batch alone. For a `keras.Model`, for models with several outputs or
    for a loop of your own take the layer, `CrossBatchMemory`.

    Args:
        memory_size: int M of 1 or more.
        margin: as in `CircleLoss`.
        gamma: as in `CircleLoss`.
        reduction: as in `CircleLoss`.
        start_step: int of 0 or more; in so many first steps the memory fills and is not used.
        detach_weights: as in `CircleLoss`.
        check_finite: as in `CircleLoss`.
        block_size: as in `CircleLoss`.
        name: str.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
        RuntimeError: called outside an `EmbeddingModel`.

    Example:
        >>> import circle_tf
        >>> features = keras.Input((8,))
        >>> if compat.IS_KERAS_3:
        ...     model = circle_tf.EmbeddingModel(features, circle_tf.UnitEmbedding(4)(features))
        ...     model.compile("adam", loss=CrossBatchCircleLoss(memory_size=1024))
        ...     _ = model.fit(tf.zeros([2, 8]), tf.constant([0, 1]), verbose=0)
        ...     assert sorted(model.memory.memory_rows.numpy())[-2:] == [0, 1]

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020.
    """

    def __init__(
        self,
        memory_size: int,
        margin: hyperparameters.Scalar = 0.4,
        gamma: hyperparameters.Scalar = 80.0,
        reduction: base.Reduction = "mean_valid",
        *,
        start_step: int = 0,
        detach_weights: bool = True,
        check_finite: bool = False,
        block_size: int | Literal["auto"] | None = "auto",
        name: str = "cross_batch_circle_loss",
    ) -> None:
        super().__init__(
            margin,
            gamma,
            reduction,
            detach_weights=detach_weights,
            check_finite=check_finite,
            block_size=block_size,
            name=name,
        )
        self.memory = CrossBatchMemory(
            memory_size,
            margin,
            gamma,
            start_step=start_step,
            detach_weights=detach_weights,
            block_size=block_size,
            dtype="float32",
        )

    def follow(self, optimizer: keras.optimizers.Optimizer) -> Self:
        """As that of every loss, for the memory too."""
        self.memory.follow(optimizer)
        return super().follow(optimizer)

    def build(self, dim: int) -> None:
        """Makes the memory, once.

        Args:
            dim: int D, dimension of the embeddings.

        Raises:
            ValueError: it was made for another dimension.
        """
        if not self.memory.built:
            self.memory.build(((None, dim), (None,)))
        found = self.memory.memory_keys.shape[1]
        if found != dim:
            raise ValueError(
                f"The loss remembers embeddings of {found} numbers; the model's have {dim}. "
                "Make a new CrossBatchCircleLoss for each model."
            )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {name: v for name, v in super().get_config().items() if name != "one_hot"}
        names = ("memory_size", "start_step")
        return {**config, **{name: getattr(self.memory, name) for name in names}}

    def _losses(self, y_true, y_pred):
        if step_context.current().training is None:
            raise RuntimeError(
                "CrossBatchCircleLoss works in EmbeddingModel.compile(loss=...) only: a loss alone "
                "does not know whether it is training. Take the layer CrossBatchMemory elsewhere."
            )
        return self.memory.losses_of(y_pred, y_true, training=step_context.current().training)


def _resized(keys, ids, rows, end, *, size):
    """What was saved of a memory, for one of `size`: each row in the slot of its age."""
    before = (end - 1 - np.arange(len(ids))) % len(ids)  # Slots, newest first.
    after = (end - 1 - np.arange(size)) % size
    count = min(len(ids), size)
    results = []
    for values, empty in ((keys, 0), (ids, 0), (rows, _EMPTY)):
        result = np.full([size, *values.shape[1:]], empty, values.dtype)
        result[after[:count]] = values[before[:count]]
        results.append(result)
    return results
