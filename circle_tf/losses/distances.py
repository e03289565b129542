"""Contrastive, triplet, lifted structure and N-pairs loss as functions of distances and masks.

The maths of the Keras losses in pair_losses.py, which average over each anchor, and of TensorFlow
Addons' losses, which average over the batch: both take the same pairs and triplets from here.
"""

from __future__ import annotations

import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.ops import numerics

__all__ = [
    "contrastive",
    "cosine_distances",
    "distances",
    "hardest_gaps",
    "hinge",
    "lifted_pairs",
    "lifted_structure",
    "masked_max",
    "mean_where",
    "npairs",
    "semihard_gaps",
    "triplet_hard",
    "triplet_semihard",
    "unit_distances",
]


def distances(embeddings: ArrayLike, *, squared: bool = False) -> tf.Tensor:
    """Euclidean distance between every two rows.

    Args:
        embeddings: `[B, D]` float.
        squared: whether to leave out the square root.

    Returns:
        `[B, B]`, 0 with a zero gradient on the diagonal and between equal rows.

    Example:
        >>> distances(tf.constant([[0.0, 0.0], [3.0, 4.0]])).numpy().tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """
    lengths = tf.reduce_sum(tf.square(embeddings), axis=1)
    products = tf.matmul(embeddings, embeddings, transpose_b=True)
    # Rounding can leave a little below 0, and a little beside 0 on the diagonal.
    square = tf.maximum(lengths[:, None] + lengths[None, :] - 2.0 * products, 0.0)
    apart = (square > 0) & ~tf.eye(tf.shape(square)[0], dtype=tf.bool)
    square = tf.where(apart, square, 0.0)
    return square if squared else _root(square)


def unit_distances(cosines):
    """Euclidean distances of unit rows.

    Args:
        cosines: `[A, K]` float, of unit rows.

    Returns:
        `[A, K]` in 0..2, with a zero gradient where it is 0.

    Example:
        >>> unit_distances(tf.constant([[1.0, -1.0]])).numpy().tolist()
        [[0.0, 2.0]]
    """
    return _root(tf.maximum(2.0 - 2.0 * cosines, 0.0))


def _root(square):
    # The inner where keeps the infinite slope of the root at 0 out of the gradient.
    apart = square > 0
    return tf.where(apart, tf.sqrt(tf.where(apart, square, 1.0)), 0.0)


def cosine_distances(embeddings: ArrayLike) -> tf.Tensor:
    """`1 - cosine` between every two rows.

    Args:
        embeddings: `[B, D]` float of any scale.

    Returns:
        `[B, B]` in 0..2; a zero row is at distance 1 from all.

    Example:
        >>> cosine_distances(tf.constant([[1.0, 0.0], [0.0, 2.0]])).numpy().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    unit = tf.math.l2_normalize(embeddings, axis=1)
    return tf.maximum(1.0 - tf.matmul(unit, unit, transpose_b=True), 0.0)


def contrastive(pair_distances: ArrayLike, positive: ArrayLike, *, margin: float) -> tf.Tensor:
    """`d^2` of positive pairs, `relu(margin - d)^2` of negative pairs.

    Args:
        pair_distances: `[...]` distances.
        positive: `[...]` float, 1 for positive pairs and 0 for negative ones.
        margin: float distance beyond which negatives cost nothing.

    Returns:
        `[...]` losses.

    Example:
        >>> contrastive(tf.constant([0.5, 0.5]), tf.constant([1.0, 0.0]), margin=2.0).numpy()
        array([0.25, 2.25], dtype=float32)

    References:
        Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
    """
    pulled = tf.square(pair_distances)
    pushed = tf.square(tf.maximum(margin - pair_distances, 0.0))
    return positive * pulled + (1.0 - positive) * pushed


def triplet_semihard(pair_distances: ArrayLike, same: ArrayLike, *, margin: float) -> tf.Tensor:
    """Triplet loss of all positive pairs, each with its semi-hard negative.

    The semi-hard negative of (anchor, positive) is the nearest one farther than the positive; where
    there is none, the farthest one. Loss of a pair: `relu(margin + d_ap - d_an)`.

    Args:
        pair_distances: `[B, B]`; takes memory for `[B, B, B]`.
        same: `[B, B]` bool, whether the two share a class.
        margin: float m.

    Returns:
        Scalar, mean over the positive pairs; 0 if there are none. Anchors without a negative have
        their row's smallest distance in its place.

    Example:
        >>> same = tf.constant([[True, True], [True, True]])
        >>> float(triplet_semihard(tf.constant([[0.0, 2.0], [2.0, 0.0]]), same, margin=1.0))
        3.0

    References:
        Schroff et al., "FaceNet", CVPR 2015, section 3.2.
    """
    losses = hinge(semihard_gaps(pair_distances, ~same), margin)
    return mean_where(losses, _others(same), axis=None)


def semihard_gaps(pair_distances, negatives):
    """How much farther than its semi-hard negative each key is from the anchor.

    Args:
        pair_distances: `[A, K]`; takes memory for `[A, K, K]`.
        negatives: `[A, K]` bool.

    Returns:
        `[A, K]`: the distance less that of the nearest negative that is farther, or, if there is
        none, of the farthest negative.

    Example:
        >>> negatives = tf.constant([[False, True, True]])
        >>> semihard_gaps(tf.constant([[1.0, 0.0, 3.0]]), negatives).numpy().tolist()
        [[-2.0, -3.0, 0.0]]
    """
    farther = negatives[:, None, :] & (pair_distances[:, None, :] > pair_distances[:, :, None])
    nearest = -masked_max(-pair_distances[:, None, :], farther)
    farthest = masked_max(pair_distances, negatives)[:, None]
    return pair_distances - tf.where(tf.reduce_any(farther, axis=-1), nearest, farthest)


def triplet_hard(
    pair_distances: ArrayLike, same: ArrayLike, *, margin: float, soft: bool = False
) -> tf.Tensor:
    """Triplet loss of each anchor with its farthest positive and its nearest negative.

    Args:
        pair_distances: `[B, B]`.
        same: `[B, B]` bool, whether the two share a class.
        margin: float m; without effect if `soft`.
        soft: `log(1 + exp(d_ap - d_an))` in place of `relu(margin + d_ap - d_an)`.

    Returns:
        `[B]` losses. Without a positive its row's smallest distance takes its place, without a
        negative its row's largest.

    Example:
        >>> same = tf.constant([[True, True], [True, True]])
        >>> triplet_hard(tf.constant([[0.0, 2.0], [2.0, 0.0]]), same, margin=1.0).numpy().tolist()
        [1.0, 1.0]

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
    """
    return hinge(hardest_gaps(pair_distances, _others(same), ~same), margin, soft=soft)


def hardest_gaps(pair_distances, positives, negatives):
    """Distance of each anchor's farthest positive less that of its nearest negative.

    Args:
        pair_distances: `[A, K]`.
        positives: `[A, K]` bool.
        negatives: `[A, K]` bool.

    Returns:
        `[A]`.

    Example:
        >>> positives = tf.constant([[True, False, False]])
        >>> hardest_gaps(tf.constant([[1.0, 0.5, 3.0]]), positives, ~positives).numpy().tolist()
        [0.5]
    """
    return masked_max(pair_distances, positives) + masked_max(-pair_distances, negatives)


def hinge(gaps, margin, *, soft=False):
    """Triplet loss of each gap between a positive and a negative.

    Args:
        gaps: `[...]`, distance of the positive less that of the negative.
        margin: float m; without effect if `soft`.
        soft: `log(1 + exp(gap))` in place of `relu(gap + m)`.

    Returns:
        `[...]` losses.

    Example:
        >>> hinge(tf.constant([-1.0, 0.5]), 0.25).numpy().tolist()
        [0.0, 0.75]
    """
    return tf.math.softplus(gaps) if soft else tf.maximum(gaps + margin, 0.0)


def lifted_structure(pair_distances: ArrayLike, same: ArrayLike, *, margin: float) -> tf.Tensor:
    """Lifted structured loss: each positive pair against all negatives of both its ends.

    `J = d_ij + log(sum_k exp(margin - d_ik) + sum_k exp(margin - d_jk))` over negatives k, and the
    loss is the mean of `relu(J)^2 / 2`.

    Args:
        pair_distances: `[B, B]`.
        same: `[B, B]` bool, whether the two share a class.
        margin: float.

    Returns:
        Scalar, mean over the positive pairs that have a negative; 0 if there are none.

    Example:
        >>> same = tf.constant([[True, True], [True, True]])
        >>> float(lifted_structure(tf.constant([[0.0, 2.0], [2.0, 0.0]]), same, margin=1.0))
        0.0

    References:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016,
        eq. 4.
    """
    nearby = numerics.masked_logsumexp(margin - pair_distances, ~same)
    losses = lifted_pairs(pair_distances, nearby, nearby)
    has_negative = tf.reduce_any(~same, axis=1)
    return mean_where(losses, _others(same) & has_negative[:, None], axis=None)


def lifted_pairs(pair_distances, nearby, key_nearby):
    """Lifted structured loss of each pair of an anchor i and a key j.

    `relu(d_ij + log(exp(nearby_i) + exp(key_nearby_j)))^2 / 2`.

    Args:
        pair_distances: `[A, K]`.
        nearby: `[A]`, `logsumexp(margin - d_ik)` over the negatives k of the anchor.
        key_nearby: `[K]`, the same over the negatives of the key.

    Returns:
        `[A, K]` losses.

    Example:
        >>> lifted_pairs(tf.constant([[1.0]]), tf.constant([0.0]), tf.constant([0.0])).numpy()
        array([[1.433...]], dtype=float32)
    """
    either = nearby[:, None] + tf.math.softplus(key_nearby[None, :] - nearby[:, None])
    return tf.square(tf.maximum(pair_distances + either, 0.0)) / 2.0


def npairs(similarities: ArrayLike, shared: ArrayLike) -> tf.Tensor:
    """N-pairs loss: cross-entropy of each row of similarities with its share of positives.

    Args:
        similarities: `[B, K]` logits, anchors against keys.
        shared: `[B, K]` float, at least 0: how many labels the two share.

    Returns:
        `[B]` losses in nats; 0 for an anchor that shares nothing.

    Example:
        >>> npairs(tf.zeros([2, 2]), tf.eye(2)).numpy().tolist()
        [0.693..., 0.693...]

    References:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016.
    """
    targets = tf.math.divide_no_nan(shared, tf.reduce_sum(shared, axis=1, keepdims=True))
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=similarities)


def _others(same):
    """`same` without the diagonal."""
    return same & ~tf.eye(tf.shape(same)[0], dtype=tf.bool)


def masked_max(values, mask):
    """Largest along the last axis where a mask holds.

    Args:
        values: `[..., K]` float.
        mask: bool, of a shape that broadcasts.

    Returns:
        `[...]`; the smallest of all where the mask holds nowhere.

    Example:
        >>> masked_max(tf.constant([[1.0, 2.0]]), tf.constant([[True, False]])).numpy().tolist()
        [1.0]
    """
    # Shifted so that 0 can fill the gaps: ties then share the gradient as in TensorFlow Addons.
    lowest = tf.reduce_min(values, axis=-1, keepdims=True)
    return tf.reduce_max(tf.where(mask, values - lowest, 0.0), axis=-1) + lowest[..., 0]


def mean_where(values, mask, *, axis=-1):
    """Mean where a mask holds.

    Args:
        values: `[..., K]` float.
        mask: bool, of the same shape.
        axis: int or ints, along which; None for all.

    Returns:
        `[...]`; 0 where the mask holds nowhere.

    Example:
        >>> mean_where(tf.constant([[1.0, 2.0]]), tf.constant([[True, False]])).numpy().tolist()
        [1.0]
    """
    total = tf.reduce_sum(tf.where(mask, values, 0.0), axis=axis)
    return numerics.positive_mean(total, tf.math.count_nonzero(mask, axis=axis))
