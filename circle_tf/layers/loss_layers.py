"""Losses as layers: what they have in common, and the pair-wise one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import collectives, step_context
from circle_tf.layers import dtypes
from circle_tf.losses import base, circle_losses, hyperparameters
from circle_tf.losses.streaming import pair_sweep

__all__ = ["LossLayer", "PairwiseCircle"]


class LossLayer(hyperparameters.Hyperparameters, dtypes.ExactInputs):
    """A layer from (embeddings, ids) to per-example losses; base of both kinds of labels.

    Args:
        margin: m; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale; a float, a schedule or a variable.
        reduction: how losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: whether to add the reduced loss to the model's losses when called.
        loss_weight: float of 0 or more, by which it is multiplied there.
        detach_weights: see `circle_loss`.
        **kwargs: `name`, `dtype`.
    """

    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        margin: hyperparameters.Scalar,
        gamma: hyperparameters.Scalar,
        *,
        reduction: base.Reduction,
        as_model_loss: bool,
        loss_weight: float,
        detach_weights: bool,
        **kwargs: Any,
    ) -> None:
        base.check_reduction(reduction)
        if as_model_loss and reduction == "none":
            raise ValueError("as_model_loss=True wants a reduction to one number; found 'none'.")
        hyperparameters.check("loss_weight", loss_weight, hyperparameters.NOT_NEGATIVE)
        if loss_weight != 1 and not as_model_loss:
            raise ValueError(
                f"loss_weight={loss_weight} is of the loss that as_model_loss=True adds to the "
                "model's. Set that, or multiply what the layer returns."
            )
        super().__init__(**kwargs)
        self._keep(margin=margin, gamma=gamma)
        self.reduction, self.as_model_loss = reduction, as_model_loss
        self.loss_weight = float(loss_weight)
        self.detach_weights = detach_weights

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Per-example losses `[B]` of a pair (embeddings, ids)."""
        embeddings, ids = inputs
        values, valid = self.losses_of(embeddings, ids)
        self.add_model_loss(values, valid)
        return values

    def add_model_loss(self, values: tf.Tensor, valid: tf.Tensor) -> None:
        """Adds the losses to the model's, weighed and reduced, if `as_model_loss`."""
        if self.as_model_loss:
            weights = step_context.current().sample_weight
            if isinstance(weights, (list, tuple, dict)):
                raise ValueError(
                    f"{self.name}: as_model_loss=True takes one sample weight per example, one "
                    f"array [B]; found a {type(weights).__name__} of weights by output. Give one "
                    "array, or the losses in compile(loss=...)."
                )
            loss = base.reduce_losses(
                values, valid, reduction=self.reduction, sample_weight=weights
            )
            # Keras divides the losses that layers add by the number of replicas.
            self.add_loss(loss * (self.loss_weight * collectives.num_replicas()))

    def losses_of(self, embeddings: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`(losses [B], valid [B])`; what a subclass adds."""
        raise NotImplementedError

    @property
    def crosses_replicas(self) -> bool:
        """Whether a call exchanges something between replicas (XLA cannot compile that)."""
        return self.as_model_loss

    def hyperparameters(self) -> dict[str, Any]:
        """The margin and gamma of now, and detach_weights, as the loss functions take them."""
        return {**vars(self.current()), "detach_weights": self.detach_weights}

    def compute_output_spec(self, inputs: Any) -> Any:
        """`[B]` in the loss dtype."""
        return compat.output_spec((inputs[0].shape[0],), dtypes.loss_dtype(self))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("detach_weights", "reduction", "as_model_loss", "loss_weight")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **self._saved(), **own}


@keras.saving.register_keras_serializable("circle_tf")
class PairwiseCircle(LossLayer):
    """Pair-wise Circle loss as a layer, for models with several outputs and for custom loops.

    Args:
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: how the losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: add the reduced loss to the model's losses, so that `compile` needs none.
            In an `EmbeddingModel` the sample weights of `fit` weigh it; a `keras.Model` tells its
            layers of none.
        loss_weight: float of 0 or more, by which the model loss is multiplied: beside the loss of
            `compile`, or another layer's.
        detach_weights: see `circle_loss`.
        block_size: see `CircleLoss`.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`.

    Returns:
        `[B]` losses in nats, those of `CircleLoss(reduction="none")`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> import tensorflow as tf
        >>> embeddings = tf.constant([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> PairwiseCircle()((embeddings, tf.constant([0, 0, 1]))).shape.as_list()
        [3]

    References:
        Sun et al., "Circle Loss", CVPR 2020.
    """

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.4,
        gamma: hyperparameters.Scalar = 80.0,
        *,
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
        self.block_size = pair_sweep.check_block_size(block_size)

    def losses_of(self, embeddings: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`(losses [B], valid [B])` within the global batch."""
        return circle_losses.pairwise_losses(
            embeddings, ids, block_size=self.block_size, **self.hyperparameters()
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "block_size": self.block_size}

    @property
    def crosses_replicas(self) -> bool:
        """True: the keys are all replicas' embeddings."""
        return True
