"""The maths of Circle loss, once: eq. 5 and 6 of Sun et al., CVPR 2020, with the gradients 9, 10.

Everything else in the package (losses, layers, heads) only decides where similarities and masks
come from; everything faster must equal this function in a test.
"""

from __future__ import annotations

import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.losses import hyperparameters
from circle_tf.ops import numerics

__all__ = [
    "anchor_weights",
    "check_hyperparameters",
    "circle_loss",
    "class_logits",
    "valid_anchors",
]


def circle_loss(
    similarities: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    margin: float | tf.Tensor,
    gamma: float | tf.Tensor,
    detach_weights: bool = True,
) -> tf.Tensor:
    """Circle loss of each anchor, from its similarities to its keys.

    With `s_p`, `s_n` the similarities to positives and negatives, and `m`, `gamma`::

        a_p = relu(1 + m - s_p)                 a_n = relu(s_n + m)
        logit_p = -gamma * a_p * (s_p - (1 - m))
        logit_n = gamma * a_n * (s_n - m)
        loss = log(1 + sum(exp(logit_n)) * sum(exp(logit_p)))

    The weights `a_p`, `a_n` are held constant in the gradient, as the paper prints it::

        dloss/ds_n = (1 - exp(-loss)) * softmax(logit_n) * gamma * a_n
        dloss/ds_p = -(1 - exp(-loss)) * softmax(logit_p) * gamma * a_p

    Args:
        similarities: `[A, K]` cosines of A anchors and K keys, in -1..1. Computed in float32
            (float64 if given so) whatever the layers' precision.
        positives: `[A, K]` bool, key is a positive of the anchor.
        negatives: `[A, K]` bool, key is a negative of the anchor. A pair that is neither (the
            anchor itself) has no gradient.
        margin: m in -1..1 (paper: 0.25 class-level, 0.4 pair-wise); float, or a scalar tensor of
            any range, through which no gradient flows.
        gamma: scale above 0 (paper: 256 and 128 class-level, 80 pair-wise); float or scalar tensor.
        detach_weights: False differentiates the weights as well. That is not the paper's
            gradient: it pushes negatives with `-m < s_n < 0` the wrong way and stops pulling
            positives near 1. It reproduces `keras.losses.Circle`.

    Returns:
        `[A]` losses in nats, at least 0. An anchor without a positive or without a negative has
        loss 0 and gradient 0. Typical at the start of training: 50-100 at gamma 80, 190-360 at 256.

    Raises:
        ValueError: gamma not above 0, margin out of range, shapes that differ.

    Example:
        >>> s, positives = tf.constant([[0.8, 0.3]]), tf.constant([[True, False]])
        >>> circle_loss(s, positives, ~positives, margin=0.25, gamma=32.0).numpy().tolist()
        [0.776...]

    References:
        Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR
        2020, eq. 6 (value), 9 and 10 (gradients). https://arxiv.org/abs/2002.10857
    """
    check_hyperparameters(margin=margin, gamma=gamma)
    s = numerics.as_loss_float(similarities)
    margin, gamma = (hyperparameters.constant(value, s.dtype) for value in (margin, gamma))
    positives, negatives = _mask(positives, s), _mask(negatives, s)
    options = {"margin": margin, "gamma": gamma, "detach_weights": detach_weights}
    total = _logsumexp(s, positives, centre=1.0, **options)
    total += _logsumexp(s, negatives, centre=0.0, **options)
    valid = valid_anchors(positives, negatives)
    # The inner where keeps softplus of an empty row out of the gradient.
    loss = tf.math.softplus(tf.where(valid, total, tf.zeros_like(total)))
    return tf.where(valid, loss, tf.zeros_like(loss))


def class_logits(
    cosines: tf.Tensor,
    own: tf.Tensor,
    *,
    margin: float | tf.Tensor,
    gamma: float | tf.Tensor,
    detach_weights: bool = True,
) -> tf.Tensor:
    """The logits of which class-level Circle loss is the softmax cross-entropy.

    With one positive `s_y`, eq. 6 is `log(1 + sum_j(exp(logit_n_j)) * exp(logit_p))`, which is
    `logsumexp(logits) - logit_y` of::

        logit_y = gamma * a_p * (s_y - (1 - m))         logit_j = gamma * a_n * (s_j - m)

    Args:
        cosines: `[B, C]` in the dtype of losses.
        own: `[B, C]` bool, the own class of each row.
        margin: m; float or scalar tensor.
        gamma: scale; float or scalar tensor.
        detach_weights: see `circle_loss`.

    Returns:
        `[B, C]`, in nats.

    Example:
        >>> own = tf.constant([[True, False]])
        >>> class_logits(tf.constant([[1.0, 0.0]]), own, margin=0.25, gamma=32.0).numpy().tolist()
        [[2.0, -2.0]]
    """
    margin, gamma = (hyperparameters.constant(value, cosines.dtype) for value in (margin, gamma))
    weight_p, weight_n = anchor_weights(cosines, margin=margin)
    weights = tf.where(own, weight_p, weight_n)
    if detach_weights:
        weights = tf.stop_gradient(weights)
    return gamma * weights * tf.where(own, cosines - (1 - margin), cosines - margin)


def _logsumexp(s, mask, *, centre, margin, gamma, detach_weights):
    """`logsumexp(logit_n)` (centre 0) or `logsumexp(logit_p)` (centre 1) of each row.

    Both logits are `gamma * ((s - centre)^2 - m^2)`, with s clipped where the weight is 0. The
    difference to the row's largest logit is a product of sums of s, exact to the last bit where
    subtracting two rounded logits of several hundred would lose 1e-5 of the softmax.
    """
    clipped = tf.minimum(s, 1 + margin) if centre else tf.maximum(s, -margin)
    pivot = tf.stop_gradient(_farthest(clipped, mask, centre))
    shifted = gamma * (clipped - pivot) * ((clipped + pivot) - 2 * centre)
    if detach_weights:
        weight_p, weight_n = anchor_weights(s, margin=margin)
        slope = tf.stop_gradient(-gamma * weight_p if centre else gamma * weight_n)
        # Zero in value: it only carries the gradient of eq. 9 and 10 (and NaN, if there is one).
        shifted = tf.stop_gradient(shifted) + slope * (s - tf.stop_gradient(s))
    highest = gamma * (pivot - centre - margin) * (pivot - centre + margin)
    return tf.squeeze(highest, axis=-1) + numerics.masked_logsumexp(shifted, mask)


def _farthest(s, mask, centre):
    """The masked entry of each row that is farthest from the centre, `[A, 1]`; centre if none."""
    fill = tf.constant(centre, s.dtype)
    masked = tf.where(mask, s, fill)
    top = tf.reduce_max(masked, axis=-1, keepdims=True)
    bottom = tf.reduce_min(masked, axis=-1, keepdims=True)
    return tf.where(top - fill >= fill - bottom, top, bottom)


def anchor_weights(similarities, *, margin):
    """The weights `a_p`, `a_n` that a similarity has as a positive and as a negative pair (eq. 5).

    Args:
        similarities: `[...]` cosines.
        margin: float m.

    Returns:
        `(relu(1 + m - s), relu(s + m))`, both `[...]`, from 0 to 2 + m.

    Example:
        >>> [w.numpy().tolist() for w in anchor_weights(tf.constant([0.5]), margin=0.25)]
        [[0.75], [0.75]]

    References:
        Sun et al., CVPR 2020, eq. 5 with O_p = 1 + m, O_n = -m.
    """
    return tf.nn.relu(1 + margin - similarities), tf.nn.relu(similarities + margin)


def valid_anchors(positives, negatives):
    """Which anchors have both a positive and a negative: only these teach anything.

    Args:
        positives: `[A, K]` bool.
        negatives: `[A, K]` bool.

    Returns:
        `[A]` bool.

    Example:
        >>> valid_anchors([[True, False], [False, False]], [[False, True], [True, True]]).numpy()
        array([ True, False])
    """
    return tf.reduce_any(positives, axis=-1) & tf.reduce_any(negatives, axis=-1)


def check_hyperparameters(*, margin, gamma):
    """Refuses a gamma or margin for which the formula means nothing.

    Args:
        margin: float m, -1 <= m <= 1. The boundary circle has radius `m * sqrt(2)`.
        gamma: finite float above 0. Of scalar tensors nothing is known here.

    Raises:
        ValueError: out of range, no scalar; TypeError: not a number.

    Example:
        >>> check_hyperparameters(margin=0.25, gamma=0)
        Traceback (most recent call last):
        ValueError: gamma must be a finite number above 0 (the paper uses 80 to 256); found 0.
    """
    hyperparameters.check("gamma", gamma, hyperparameters.GAMMA)
    hyperparameters.check("margin", margin, hyperparameters.MARGIN)


def _mask(mask, similarities):
    mask = tf.cast(mask, tf.bool)
    if similarities.shape.rank != 2 or not similarities.shape.is_compatible_with(mask.shape):
        raise ValueError(
            "similarities, positives and negatives must all have one shape [anchors, keys]; "
            f"found similarities {similarities.shape} and a mask {mask.shape}."
        )
    return mask
