"""Training monitors: what the loss sees, as Keras metrics for `compile(metrics=[...])`."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.distribute import collectives, global_batch
from circle_tf.losses import base, circle, hyperparameters
from circle_tf.ops import numerics, pairs

__all__ = [
    "MeanNegativeSimilarity",
    "MeanNegativeWeight",
    "MeanPositiveSimilarity",
    "MeanPositiveWeight",
    "ValidAnchors",
    "monitors",
]


def monitors(
    *, margin: hyperparameters.Scalar, labels: Literal["pairwise", "class"] = "pairwise"
) -> list[keras.metrics.Metric]:
    """All five monitors, for `compile(metrics=circle_tf.metrics.monitors(margin=0.4))`.

    Args:
        margin: m of the loss: a float, a schedule or a variable, as in `CircleLoss`.
        labels: `pairwise` (model output: embeddings) or `class` (model output: cosines).

    Returns:
        list of Keras metrics named `s_p`, `s_n`, `valid_anchors`, `weight_p`, `weight_n`.

    Example:
        >>> [metric.name for metric in monitors(margin=0.4)]
        ['s_p', 's_n', 'valid_anchors', 'weight_p', 'weight_n']
    """
    return [
        MeanPositiveSimilarity(labels=labels),
        MeanNegativeSimilarity(labels=labels),
        ValidAnchors(labels=labels),
        MeanPositiveWeight(margin=margin, labels=labels),
        MeanNegativeWeight(margin=margin, labels=labels),
    ]


class PairMonitor(keras.metrics.Mean):
    """Mean over batches of a statistic of the batch's pairs; base of the monitors.

    Batches without such a pair are left out of the mean. Pairs cross replicas, as in the loss.

    Args:
        labels: `pairwise` (y_pred are embeddings `[B, D]`) or `class` (cosines `[B, C]`).
        name: str.
        dtype: dtype of the running mean.
    """

    def __init__(
        self,
        *,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        if labels not in ("pairwise", "class"):
            raise ValueError(f"labels must be 'pairwise' or 'class'; found {labels!r}.")
        super().__init__(name=name, dtype=dtype)
        self.labels = labels

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Adds a batch: `y_true [B]` ids, `y_pred` embeddings or cosines. Weights are ignored."""
        del sample_weight  # A monitor describes the pairs there are, however they are weighted.
        values, mask = self.entries(*self._similarities(y_true, y_pred))
        count = collectives.all_reduce_sum(tf.math.count_nonzero(mask))
        total = tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)))
        # Keras adds the replicas' sums: R times the own share, each with a weight of 1 / R, is the
        # mean over the global batch with a weight of 1.
        parts = collectives.num_replicas()
        mean = numerics.positive_mean(total, count) * parts
        super().update_state(mean, sample_weight=tf.cast(count > 0, mean.dtype) / parts)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`(values, mask)` of one shape, the mean of which is the statistic."""
        raise NotImplementedError

    def _similarities(self, y_true, y_pred):
        if self.labels == "class":
            cosines = numerics.as_loss_float(y_pred)
            return cosines, *pairs.class_masks(pairs.to_ids(y_true), cosines.shape[1])
        return base.pair_matrix(*global_batch.global_batch(y_pred, y_true))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "labels": self.labels}


@keras.saving.register_keras_serializable("circle_tf")
class MeanPositiveSimilarity(PairMonitor):
    """Mean cosine `s_p` of the positive pairs; training drives it towards 1 - m and beyond.

    Args:
        labels: `pairwise` or `class`.
        name: str.
        dtype: dtype of the running mean.

    Example:
        >>> metric = MeanPositiveSimilarity()
        >>> metric.update_state([7, 7, 9], [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
        >>> float(metric.result())
        0.0
    """

    def __init__(
        self,
        *,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str = "s_p",
        dtype: Any = None,
    ) -> None:
        super().__init__(labels=labels, name=name, dtype=dtype)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The positive pairs' cosines."""
        return similarities, positives


@keras.saving.register_keras_serializable("circle_tf")
class MeanNegativeSimilarity(PairMonitor):
    """Mean cosine `s_n` of the negative pairs; training drives it towards m and below.

    Args:
        labels: `pairwise` or `class`.
        name: str.
        dtype: dtype of the running mean.

    Example:
        >>> metric = MeanNegativeSimilarity()
        >>> metric.update_state([7, 7, 9], [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
        >>> float(metric.result())
        0.5
    """

    def __init__(
        self,
        *,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str = "s_n",
        dtype: Any = None,
    ) -> None:
        super().__init__(labels=labels, name=name, dtype=dtype)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The negative pairs' cosines."""
        return similarities, negatives


@keras.saving.register_keras_serializable("circle_tf")
class ValidAnchors(PairMonitor):
    """Share of anchors, 0 to 1, that have both a positive and a negative: only these teach.

    Near 0 with pair-wise labels means batches without several examples per class: use `pk_dataset`.

    Args:
        labels: `pairwise` or `class`.
        name: str.
        dtype: dtype of the running mean.

    Example:
        >>> metric = ValidAnchors()
        >>> metric.update_state([7, 7, 9, 8], tf.eye(4))
        >>> float(metric.result())
        0.5
    """

    def __init__(
        self,
        *,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str = "valid_anchors",
        dtype: Any = None,
    ) -> None:
        super().__init__(labels=labels, name=name, dtype=dtype)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """1 for each valid anchor, over all anchors."""
        valid = circle.valid_anchors(positives, negatives)
        return tf.cast(valid, similarities.dtype), tf.ones_like(valid)


class _MeanWeight(hyperparameters.Hyperparameters, PairMonitor):
    _RANGES = {"margin": hyperparameters.MARGIN}

    def __init__(
        self,
        *,
        margin: hyperparameters.Scalar,
        labels: Literal["pairwise", "class"],
        name: str,
        dtype: Any,
    ) -> None:
        super().__init__(labels=labels, name=name, dtype=dtype)
        self._keep(margin=margin)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._saved()}

    def _weights(self, similarities):
        margin = self.current(similarities.dtype).margin
        return circle.anchor_weights(similarities, margin=margin)


@keras.saving.register_keras_serializable("circle_tf")
class MeanPositiveWeight(_MeanWeight):
    """Mean weight `a_p = relu(1 + m - s_p)` of the positive pairs (eq. 5); 0 to 2 + m.

    Args:
        margin: m of the loss: a float, a schedule or a variable, as in `CircleLoss`.
        labels: `pairwise` or `class`.
        name: str.
        dtype: dtype of the running mean.

    Example:
        >>> metric = MeanPositiveWeight(margin=0.25)
        >>> metric.update_state([7, 7, 9], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> float(metric.result())
        0.25
    """

    def __init__(
        self,
        *,
        margin: hyperparameters.Scalar,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str = "weight_p",
        dtype: Any = None,
    ) -> None:
        super().__init__(margin=margin, labels=labels, name=name, dtype=dtype)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The positive pairs' weights."""
        return self._weights(similarities)[0], positives


@keras.saving.register_keras_serializable("circle_tf")
class MeanNegativeWeight(_MeanWeight):
    """Mean weight `a_n = relu(s_n + m)` of the negative pairs (eq. 5); 0 to 1 + m.

    Args:
        margin: m of the loss: a float, a schedule or a variable, as in `CircleLoss`.
        labels: `pairwise` or `class`.
        name: str.
        dtype: dtype of the running mean.

    Example:
        >>> metric = MeanNegativeWeight(margin=0.25)
        >>> metric.update_state([7, 7, 9], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> float(metric.result())
        0.25
    """

    def __init__(
        self,
        *,
        margin: hyperparameters.Scalar,
        labels: Literal["pairwise", "class"] = "pairwise",
        name: str = "weight_n",
        dtype: Any = None,
    ) -> None:
        super().__init__(margin=margin, labels=labels, name=name, dtype=dtype)

    def entries(
        self, similarities: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The negative pairs' weights."""
        return self._weights(similarities)[1], negatives
