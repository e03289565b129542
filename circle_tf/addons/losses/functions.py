"""The functional forms of Addons' metric-learning losses."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf import baselines
from circle_tf.addons.losses import metric_learning
from circle_tf.ops import numerics, pairs

__all__ = [
    "contrastive_loss",
    "lifted_struct_loss",
    "npairs_loss",
    "npairs_multilabel_loss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]

_METRICS = ("L2", "squared-L2", "angular")


def triplet_semihard_loss(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    margin: float = 1.0,
    distance_metric: str | Callable[[tf.Tensor], tf.Tensor] = "L2",
) -> tf.Tensor:
    """Triplet loss with semi-hard negatives, as `tfa.losses.triplet_semihard_loss`.

    Args:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings, usually of length 1.
        margin: float.
        distance_metric: `L2`, `squared-L2`, `angular`, or a function from `[B, D]` to `[B, B]`.

    Returns:
        Scalar of `y_pred`'s dtype; half precision is computed in float32.

    Raises:
        ValueError: an unknown metric, labels of another shape.

    Example:
        >>> float(triplet_semihard_loss([0, 0], [[0.0, 1.0], [1.0, 0.0]]))
        2.414...
    """
    dtype, distances = _distances(y_pred, distance_metric)
    loss = baselines.triplet_semihard(distances, _same(y_true), margin=margin)
    return tf.cast(loss, dtype)


def triplet_hard_loss(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: str | Callable[[tf.Tensor], tf.Tensor] = "L2",
) -> tf.Tensor:
    """Triplet loss with the hardest positive and negative, as `tfa.losses.triplet_hard_loss`.

    Args:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings, usually of length 1.
        margin: float; without effect if `soft`.
        soft: whether to use the soft margin `log(1 + exp(x))`.
        distance_metric: `L2`, `squared-L2`, `angular`, or a function from `[B, D]` to `[B, B]`.

    Returns:
        Scalar of `y_pred`'s dtype; half precision is computed in float32.

    Raises:
        ValueError: an unknown metric, labels of another shape.

    Example:
        >>> float(triplet_hard_loss([0, 0], [[0.0, 1.0], [1.0, 0.0]]))
        1.0
    """
    dtype, distances = _distances(y_pred, distance_metric)
    losses = baselines.triplet_hard(distances, _same(y_true), margin=margin, soft=soft)
    return tf.cast(tf.reduce_mean(losses), dtype)


def lifted_struct_loss(labels: ArrayLike, embeddings: ArrayLike, margin: float = 1.0) -> tf.Tensor:
    """Lifted structured loss, as `tfa.losses.lifted_struct_loss`.

    Args:
        labels: `[B]` or `[B, 1]` integer ids, exact at any width.
        embeddings: `[B, D]` embeddings, usually not normalised.
        margin: float.

    Returns:
        Scalar of `embeddings`' dtype; half precision is computed in float32.

    Raises:
        ValueError: labels of another shape.

    Example:
        >>> float(lifted_struct_loss([0, 0, 1], [[0.0], [1.0], [2.0]]))
        0.862...
    """
    dtype, distances = _distances(embeddings, "L2")
    loss = baselines.lifted_structure(distances, _same(labels), margin=margin)
    return tf.cast(loss, dtype)


def contrastive_loss(y_true: ArrayLike, y_pred: ArrayLike, margin: float = 1.0) -> tf.Tensor:
    """Contrastive loss of pairs, as `tfa.losses.contrastive_loss`.

    Args:
        y_true: `[B]`, 1 for positive and 0 for negative pairs.
        y_pred: `[B]` distances.
        margin: float.

    Returns:
        `[B]` losses of `y_pred`'s dtype.

    Example:
        >>> contrastive_loss([1, 0], [0.5, 0.25]).numpy().tolist()
        [0.25, 0.5625]
    """
    y_pred = tf.convert_to_tensor(y_pred)
    return baselines.contrastive(y_pred, tf.cast(y_true, y_pred.dtype), margin=margin)


def npairs_loss(y_true: ArrayLike, y_pred: ArrayLike) -> tf.Tensor:
    """N-pairs loss of a similarity matrix, as `tfa.losses.npairs_loss`.

    Args:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width whatever the dtype of `y_pred`.
        y_pred: `[B, B]` similarities between the two halves of the pairs.

    Returns:
        Scalar of `y_pred`'s dtype.

    Raises:
        ValueError: labels of another shape.

    Example:
        >>> float(npairs_loss([0, 1], tf.zeros([2, 2])))
        0.693...
    """
    y_pred = tf.convert_to_tensor(y_pred)
    logits = numerics.as_loss_float(y_pred)
    losses = baselines.npairs(logits, tf.cast(_same(y_true), logits.dtype))
    return tf.cast(tf.reduce_mean(losses), y_pred.dtype)


def npairs_multilabel_loss(y_true: ArrayLike | tf.SparseTensor, y_pred: ArrayLike) -> tf.Tensor:
    """N-pairs loss of examples with several labels, as `tfa.losses.npairs_multilabel_loss`.

    Args:
        y_true: `[B, C]` of 0 and 1, dense or `tf.SparseTensor`: which classes an example has.
        y_pred: `[B, B]` similarities between the two halves of the pairs.

    Returns:
        Scalar of `y_pred`'s dtype.

    Example:
        >>> float(npairs_multilabel_loss([[1, 0], [1, 1]], tf.zeros([2, 2])))
        0.693...
    """
    y_pred = tf.convert_to_tensor(y_pred)
    logits = numerics.as_loss_float(y_pred)
    if isinstance(y_true, tf.SparseTensor):
        y_true = tf.sparse.to_dense(y_true)
    labels = tf.cast(y_true, logits.dtype)
    losses = baselines.npairs(logits, tf.matmul(labels, labels, transpose_b=True))
    return tf.cast(tf.reduce_mean(losses), y_pred.dtype)


def _same(labels):
    ids = pairs.to_ids(labels)
    return tf.equal(ids[:, None], ids[None, :])


def _distances(embeddings, metric):
    """`(dtype to return, [B, B] distances in the loss dtype)`."""
    embeddings = tf.convert_to_tensor(embeddings)
    if callable(metric):
        distances = metric(numerics.as_loss_float(embeddings))
    elif metric == "angular":
        distances = metric_learning.angular_distance(embeddings)
    elif metric in _METRICS:
        distances = metric_learning.pairwise_distance(embeddings, squared=metric == "squared-L2")
    else:
        wanted = ", ".join(_METRICS)
        raise ValueError(f"distance_metric must be {wanted} or a function; found {metric!r}.")
    return embeddings.dtype, distances
