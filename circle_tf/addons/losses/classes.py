"""Addons' metric-learning losses as Keras losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.addons.losses import functions

__all__ = [
    "ContrastiveLoss",
    "LiftedStructLoss",
    "NpairsLoss",
    "NpairsMultilabelLoss",
    "TripletHardLoss",
    "TripletSemiHardLoss",
]

_REDUCTIONS = ("auto", "sum_over_batch_size", "sum", "none")


class _Loss(keras.losses.Loss):
    """What the losses share: labels as they are, one number per batch, serialisation."""

    _FUNCTION = None

    def __init__(self, name: str, **arguments: Any) -> None:
        super().__init__(name=name, reduction="none")
        self._arguments = arguments

    # Keras' __call__ casts y_true to float32 first, which makes 2^24 and 2^24 + 1 one label.
    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """The loss of the batch, times the mean weight."""
        loss = self.call(y_true, y_pred)
        if sample_weight is None:
            return loss
        # One loss for the whole batch, so that weights can only scale it.
        return loss * tf.reduce_mean(tf.cast(sample_weight, loss.dtype))

    def call(self, y_true: ArrayLike, y_pred: ArrayLike) -> tf.Tensor:
        """The loss of the batch."""
        return type(self)._FUNCTION(y_true, y_pred, **self._arguments)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {**self._arguments, "name": self.name}
        metric = config.get("distance_metric")
        if callable(metric):
            config["distance_metric"] = keras.saving.serialize_keras_object(metric)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _Loss:
        """The loss of a config."""
        metric = config.get("distance_metric")
        if isinstance(metric, dict):
            metric = keras.saving.deserialize_keras_object(metric)
            config = {**config, "distance_metric": metric}
        return cls(**config)


@keras.saving.register_keras_serializable("circle_tf.addons")
class TripletSemiHardLoss(_Loss):
    """Triplet loss with semi-hard negatives; see `triplet_semihard_loss`.

    Args:
        margin: float.
        distance_metric: `L2`, `squared-L2`, `angular`, or a function from `[B, D]` to `[B, B]`.
        name: str.
        **kwargs: ignored, as in Addons.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings, usually of length 1.
        sample_weight: None, or weights of any shape, whose mean scales the loss.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(TripletSemiHardLoss(margin=0.5)([0, 0], [[0.0, 1.0], [1.0, 0.0]]))
        1.914...
    """

    _FUNCTION = staticmethod(functions.triplet_semihard_loss)

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: str | Callable[[tf.Tensor], tf.Tensor] = "L2",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, margin=margin, distance_metric=distance_metric)


@keras.saving.register_keras_serializable("circle_tf.addons")
class TripletHardLoss(_Loss):
    """Triplet loss with the hardest positive and negative; see `triplet_hard_loss`.

    Args:
        margin: float.
        soft: whether to use the soft margin.
        distance_metric: `L2`, `squared-L2`, `angular`, or a function from `[B, D]` to `[B, B]`.
        name: str.
        **kwargs: ignored, as in Addons.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings, usually of length 1.
        sample_weight: None, or weights of any shape, whose mean scales the loss.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(TripletHardLoss()([0, 0], [[0.0, 1.0], [1.0, 0.0]]))
        1.0
    """

    _FUNCTION = staticmethod(functions.triplet_hard_loss)

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: str | Callable[[tf.Tensor], tf.Tensor] = "L2",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, margin=margin, soft=soft, distance_metric=distance_metric)


@keras.saving.register_keras_serializable("circle_tf.addons")
class LiftedStructLoss(_Loss):
    """Lifted structured loss; see `lifted_struct_loss`.

    Args:
        margin: float.
        name: str.
        **kwargs: ignored, as in Addons.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings, usually not normalised.
        sample_weight: None, or weights of any shape, whose mean scales the loss.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(LiftedStructLoss()([0, 0, 1], [[0.0], [1.0], [2.0]]))
        0.862...
    """

    _FUNCTION = staticmethod(functions.lifted_struct_loss)

    def __init__(self, margin: float = 1.0, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name, margin=margin)


@keras.saving.register_keras_serializable("circle_tf.addons")
class NpairsLoss(_Loss):
    """N-pairs loss on a similarity matrix; see `npairs_loss`.

    Args:
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, B]` similarities between the two halves of the pairs.
        sample_weight: None, or weights of any shape, whose mean scales the loss.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(NpairsLoss()([0, 1], tf.zeros([2, 2])))
        0.693...
    """

    _FUNCTION = staticmethod(functions.npairs_loss)

    def __init__(self, name: str = "npairs_loss") -> None:
        super().__init__(name)


@keras.saving.register_keras_serializable("circle_tf.addons")
class NpairsMultilabelLoss(_Loss):
    """N-pairs loss of examples with several labels; see `npairs_multilabel_loss`.

    Args:
        name: str.

    Call arguments:
        y_true: `[B, C]` of 0 and 1, dense or `tf.SparseTensor`: which classes an example has.
        y_pred: `[B, B]` similarities between the two halves of the pairs.
        sample_weight: None, or weights of any shape, whose mean scales the loss.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(NpairsMultilabelLoss()([[1, 0], [1, 1]], tf.zeros([2, 2])))
        0.693...
    """

    _FUNCTION = staticmethod(functions.npairs_multilabel_loss)

    def __init__(self, name: str = "npairs_multilabel_loss") -> None:
        super().__init__(name)


@keras.saving.register_keras_serializable("circle_tf.addons")
class ContrastiveLoss(_Loss):
    """Contrastive loss of pairs; see `contrastive_loss`.

    Args:
        margin: float.
        reduction: `sum_over_batch_size` (mean; also `auto`), `sum` or `none`.
        name: str.

    Call arguments:
        y_true: `[B]`, 1 for positive and 0 for negative pairs.
        y_pred: `[B]` distances.
        sample_weight: None, scalar or `[B]`.

    Returns:
        Scalar of `y_pred`'s dtype; `[B]` for the reduction `none`.

    Raises:
        ValueError: an unknown reduction.

    Example:
        >>> float(ContrastiveLoss()([1, 0], [0.5, 0.5]))
        0.25
    """

    _FUNCTION = staticmethod(functions.contrastive_loss)

    def __init__(
        self,
        margin: float = 1.0,
        reduction: Literal["auto", "sum_over_batch_size", "sum", "none"] = "sum_over_batch_size",
        name: str = "contrastive_loss",
    ) -> None:
        if reduction not in _REDUCTIONS:
            wanted = ", ".join(_REDUCTIONS)
            raise ValueError(f"reduction must be one of {wanted}; found {reduction!r}.")
        super().__init__(name, margin=margin)
        self.reduction = reduction

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """The losses of the pairs, weighted and reduced."""
        losses = self.call(y_true, y_pred)
        if sample_weight is not None:
            losses *= tf.cast(sample_weight, losses.dtype)
        if self.reduction == "none":
            return losses
        return tf.reduce_sum(losses) if self.reduction == "sum" else tf.reduce_mean(losses)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "reduction": self.reduction}
