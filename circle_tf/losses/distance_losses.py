"""The losses that Circle loss is compared with, as pure functions of distances and pair masks."""

import tensorflow as tf

from circle_tf.ops import numerics

__all__ = [
    "contrastive",
    "cosine_distances",
    "distances",
    "lifted_structure",
    "npairs",
    "triplet_hard",
    "triplet_semihard",
]


def distances(embeddings, *, squared=False):
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
    # Rounding can leave a little below 0.
    square = tf.maximum(lengths[:, None] + lengths[None, :] - 2.0 * products, 0.0)
    apart = (square > 0) & ~tf.eye(tf.shape(square)[0], dtype=tf.bool)
    # The inner where keeps the infinite slope of the root at 0 out of the gradient.
    safe = tf.where(apart, square, tf.ones_like(square))
    return tf.where(apart, safe if squared else tf.sqrt(safe), tf.zeros_like(square))


def cosine_distances(embeddings):
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


def contrastive(pair_distances, positive, *, margin):
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


def triplet_semihard(pair_distances, same, *, margin):
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
    farther = ~same[:, None, :] & (pair_distances[:, None, :] > pair_distances[:, :, None])
    outside = _masked_min(pair_distances[:, None, :], farther)
    inside = _masked_max(pair_distances, ~same)
    negatives = tf.where(tf.reduce_any(farther, axis=-1), outside, inside[:, None])
    losses = tf.maximum(margin + pair_distances - negatives, 0.0)
    return _mean_of(losses, _others(same))


def triplet_hard(pair_distances, same, *, margin, soft=False):
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
    positives = _masked_max(pair_distances, _others(same))
    gaps = positives - _masked_min(pair_distances, ~same)
    return tf.math.softplus(gaps) if soft else tf.maximum(gaps + margin, 0.0)


def lifted_structure(pair_distances, same, *, margin):
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
    either = nearby[:, None] + tf.math.softplus(nearby[None, :] - nearby[:, None])
    losses = tf.square(tf.maximum(pair_distances + either, 0.0)) / 2.0
    has_negative = tf.reduce_any(~same, axis=1)
    return _mean_of(losses, _others(same) & has_negative[:, None])


def npairs(similarities, shared):
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


def _masked_max(values, mask):
    """Largest entry of the last axis where `mask` holds; the smallest of all where none does."""
    lowest = tf.reduce_min(values, axis=-1, keepdims=True)
    above = tf.where(mask, values - lowest, tf.zeros_like(values))
    return tf.reduce_max(above, axis=-1) + lowest[..., 0]


def _masked_min(values, mask):
    """Smallest entry of the last axis where `mask` holds; the largest of all where none does."""
    return -_masked_max(-values, mask)


def _mean_of(losses, mask):
    kept = tf.where(mask, losses, tf.zeros_like(losses))
    return numerics.positive_mean(tf.reduce_sum(kept), tf.math.count_nonzero(mask))
