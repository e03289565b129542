"""Losses on embeddings of a batch that Circle loss is compared with.

Each has one loss per anchor, over the anchor's positives and negatives in the global batch, like
`CircleLoss`: rows are normalised, similarities are cosines in float32, distances are Euclidean
between unit rows (0 to 2). Where a paper averages over all pairs or triplets of a batch, here each
anchor averages over its own, and then come the anchors: the same for batches of P classes x K.
"""

import keras
import tensorflow as tf

from circle_tf import batches, circle, numerics, pairs, replicas
from circle_tf.label_losses import LabelLoss, as_embeddings, nan_unless

__all__ = [
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "MultiSimilarityLoss",
    "NPairsLoss",
    "TripletLoss",
    "UnifiedLoss",
]

_MINING = ("semihard", "hard", "all")


class _PairLoss(LabelLoss):
    """One loss per anchor from its similarities `[A, K]` and masks of positives and negatives.

    A subclass defines `_score(similarities, positives, negatives, keys, key_ids) -> [A]`; anchors
    without a positive or without a negative get 0.
    """

    def __init__(self, *, reduction, check_finite, name, **numbers):
        super().__init__(reduction=reduction, check_finite=check_finite, name=name)
        for key, value in numbers.items():
            setattr(self, key, value)

    def _losses(self, y_true, y_pred):
        batch = batches.global_batch(as_embeddings(y_pred), y_true)
        losses, valid = replicas.maths(self._of_batch, *batch)
        finite = tf.reduce_all(tf.math.is_finite(batch.unit), axis=1)
        return nan_unless(finite & pairs.float_labels_are_exact(y_true), losses), valid

    def _of_batch(self, unit, ids, keys, key_ids, offset):
        positives, negatives = pairs.batch_masks(ids, key_ids, offset=offset)
        similarities = tf.matmul(unit, keys, transpose_b=True)
        losses = self._score(similarities, positives, negatives, keys, key_ids)
        valid = circle.valid_anchors(positives, negatives)
        return tf.where(valid, losses, tf.zeros_like(losses)), valid

    def _score(self, similarities, positives, negatives, keys, key_ids):
        raise NotImplementedError


@keras.saving.register_keras_serializable("circle_tf")
class UnifiedLoss(_PairLoss):
    """The unified loss with pair-wise labels, from which the paper derives Circle loss.

    `log(1 + sum_i(sum_j(exp(gamma * (s_n_j - s_p_i + m)))))`. As gamma grows, loss / gamma goes to
    the triplet loss of the hardest positive and the hardest negative. With class-level labels it is
    `AMSoftmaxLoss`.

    Args:
        margin: float m in -1..1.
        gamma: float scale above 0.
        reduction: see `circle_tf.reductions.reduce_losses`.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings of any scale.
        sample_weight: None, scalar, `[B]` or `[B, 1]`: weight of the example as an anchor.

    Returns:
        Scalar in nats; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> bool(UnifiedLoss()([0, 0, 1], [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]) < 1e-3)
        True

    References:
        Sun et al., "Circle Loss", CVPR 2020, eq. 1 to 4.
    """

    _CONFIG = ("margin", "gamma", "reduction", "check_finite")

    def __init__(
        self,
        margin=0.25,
        gamma=80.0,
        reduction="mean_valid",
        *,
        check_finite=False,
        name="unified_loss",
    ):
        circle.check_hyperparameters(margin=margin, gamma=gamma)
        super().__init__(
            reduction=reduction,
            check_finite=check_finite,
            name=name,
            margin=float(margin),
            gamma=float(gamma),
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        near = numerics.masked_logsumexp(self.gamma * (similarities + self.margin), negatives)
        far = numerics.masked_logsumexp(-self.gamma * similarities, positives)
        return tf.math.softplus(near + far)


@keras.saving.register_keras_serializable("circle_tf")
class ContrastiveLoss(_PairLoss):
    """Contrastive loss: positives are drawn together, negatives pushed beyond a margin.

    `mean(d_p^2) + mean(relu(margin - d_n)^2)`, the latter over the negatives within the margin:
    most of a batch are far beyond it and would thin the others out.

    Args:
        margin: float above 0, a distance of unit rows (0 to 2).
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `UnifiedLoss`.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(ContrastiveLoss()([0, 0, 1], rows))
        0.0

    References:
        Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
    """

    _CONFIG = ("margin", "reduction", "check_finite")

    def __init__(
        self,
        margin=1.0,
        reduction="mean_valid",
        *,
        check_finite=False,
        name="contrastive_loss",
    ):
        super().__init__(
            reduction=reduction, check_finite=check_finite, name=name, margin=_above_0(margin)
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        distances = _distances(similarities)
        pushed = tf.square(tf.maximum(self.margin - distances, 0))
        within = negatives & (distances < self.margin)
        return _mean(tf.square(distances), positives) + _mean(pushed, within)


@keras.saving.register_keras_serializable("circle_tf")
class TripletLoss(_PairLoss):
    """Triplet loss: the positive nearer than the negative, by a margin.

    `relu(d_ap - d_an + margin)`, or `log(1 + exp(d_ap - d_an))` with `soft`; of the triplets of an
    anchor these are taken:

    * `semihard`: each positive with the nearest negative that is farther than it, or, if there is
      none, with the farthest negative; their mean;
    * `hard`: the farthest positive with the nearest negative;
    * `all`: all of them; the mean of those that are not 0.

    `semihard` and `all` take memory for `[A, K, K]`.

    Args:
        margin: float above 0, a distance of unit rows (0 to 2); without effect if `soft`.
        mining: `semihard`, `hard` or `all`.
        soft: whether the margin is soft.
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `UnifiedLoss`.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(TripletLoss(mining="hard")([0, 0, 1], rows))
        0.0

    References:
        Schroff et al., "FaceNet", CVPR 2015 (semihard). Hermans et al., "In Defense of the Triplet
        Loss for Person Re-Identification", 2017 (hard, all, soft margin).
    """

    _CONFIG = ("margin", "mining", "soft", "reduction", "check_finite")

    def __init__(
        self,
        margin=0.2,
        mining="semihard",
        *,
        soft=False,
        reduction="mean_valid",
        check_finite=False,
        name="triplet_loss",
    ):
        if mining not in _MINING:
            raise ValueError(f"mining must be one of {', '.join(_MINING)}; found {mining!r}.")
        super().__init__(
            reduction=reduction,
            check_finite=check_finite,
            name=name,
            margin=_above_0(margin),
            mining=mining,
            soft=bool(soft),
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        distances = _distances(similarities)
        if self.mining == "hard":
            farthest = _largest(distances, positives)
            return self._loss(farthest + _largest(-distances, negatives))
        apart = distances[:, :, None], distances[:, None, :]  # [A, positive, negative]
        if self.mining == "semihard":
            farther = negatives[:, None, :] & (apart[1] > apart[0])
            nearest = -_largest(-apart[1], farther)
            chosen = tf.where(
                tf.reduce_any(farther, axis=2), nearest, _largest(distances, negatives)[:, None]
            )
            return _mean(self._loss(distances - chosen), positives)
        triplets = positives[:, :, None] & negatives[:, None, :]
        losses = self._loss(apart[0] - apart[1])
        flat = [-1, tf.shape(distances)[1] ** 2]
        return _mean(tf.reshape(losses, flat), tf.reshape(triplets & (losses > 0), flat))

    def _loss(self, gaps):
        return tf.math.softplus(gaps) if self.soft else tf.maximum(gaps + self.margin, 0)


@keras.saving.register_keras_serializable("circle_tf")
class NPairsLoss(_PairLoss):
    """N-pairs loss: each positive against all negatives in a softmax.

    `log(1 + sum_j(exp(gamma * (s_n_j - s_p))))`, the mean over the positives. The paper's rows are
    not normalised, and their length plays the part of gamma.

    Args:
        gamma: float scale above 0.
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `UnifiedLoss`.

    Example:
        >>> bool(NPairsLoss()([0, 0, 1], [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]) < 1e-3)
        True

    References:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016.
    """

    _CONFIG = ("gamma", "reduction", "check_finite")

    def __init__(
        self, gamma=16.0, reduction="mean_valid", *, check_finite=False, name="n_pairs_loss"
    ):
        circle.check_hyperparameters(margin=0.0, gamma=gamma)
        super().__init__(
            reduction=reduction, check_finite=check_finite, name=name, gamma=float(gamma)
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        logits = self.gamma * similarities
        near = numerics.masked_logsumexp(logits, negatives)
        return _mean(tf.math.softplus(near[:, None] - logits), positives)


@keras.saving.register_keras_serializable("circle_tf")
class LiftedStructureLoss(_PairLoss):
    """Lifted structured loss: each positive pair against all negatives of both its ends.

    `relu(d_ij + log(sum_k(exp(margin - d_ik)) + sum_k(exp(margin - d_jk))))^2 / 2`, the mean over
    the positives j of anchor i.

    Args:
        margin: float above 0, a distance of unit rows (0 to 2).
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `UnifiedLoss`.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(LiftedStructureLoss(margin=0.5)([0, 0, 1], rows))
        0.0

    References:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016,
        eq. 4.
    """

    _CONFIG = ("margin", "reduction", "check_finite")

    def __init__(
        self,
        margin=1.0,
        reduction="mean_valid",
        *,
        check_finite=False,
        name="lifted_structure_loss",
    ):
        super().__init__(
            reduction=reduction, check_finite=check_finite, name=name, margin=_above_0(margin)
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        distances = _distances(similarities)
        own = numerics.masked_logsumexp(self.margin - distances, negatives)
        among_keys = _distances(tf.matmul(keys, keys, transpose_b=True))
        others = ~tf.equal(key_ids[:, None], key_ids[None, :])
        theirs = numerics.masked_logsumexp(self.margin - among_keys, others)
        both = own[:, None] + tf.math.softplus(theirs[None, :] - own[:, None])
        return _mean(tf.square(tf.maximum(distances + both, 0)) / 2, positives)


@keras.saving.register_keras_serializable("circle_tf")
class MultiSimilarityLoss(_PairLoss):
    """Multi-Similarity loss: pairs are mined by each other and weighted softly.

    Kept are negatives with `s > min(s_p) - epsilon` and positives with `s < max(s_n) + epsilon`::

        log(1 + sum over positives (exp(-alpha * (s - base)))) / alpha
        + log(1 + sum over negatives (exp(beta * (s - base)))) / beta

    Args:
        alpha: float above 0, scale of the positives.
        beta: float above 0, scale of the negatives.
        base: float in -1..1, the cosine between the two, the paper's lambda.
        epsilon: float of 0 or more, margin of the mining; None to keep all pairs.
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `UnifiedLoss`.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(MultiSimilarityLoss()([0, 0, 1], rows))  # all are mined away
        0.0

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
        CVPR 2019, eq. 13 to 15; defaults of the authors' program.
    """

    _CONFIG = ("alpha", "beta", "base", "epsilon", "reduction", "check_finite")

    def __init__(
        self,
        alpha=2.0,
        beta=50.0,
        base=0.5,
        epsilon=0.1,
        *,
        reduction="mean_valid",
        check_finite=False,
        name="multi_similarity_loss",
    ):
        for scale in (alpha, beta):
            circle.check_hyperparameters(margin=base, gamma=scale)
        if epsilon is not None and not epsilon >= 0:
            raise ValueError(f"epsilon must be 0 or more, or None; found {epsilon}.")
        super().__init__(
            reduction=reduction,
            check_finite=check_finite,
            name=name,
            alpha=float(alpha),
            beta=float(beta),
            base=float(base),
            epsilon=None if epsilon is None else float(epsilon),
        )

    def _score(self, similarities, positives, negatives, keys, key_ids):
        if self.epsilon is not None:
            lowest = -_largest(-similarities, positives)[:, None]
            highest = _largest(similarities, negatives)[:, None]
            positives &= similarities < highest + self.epsilon
            negatives &= similarities > lowest - self.epsilon
        gaps = similarities - self.base
        pulled = _softplus_of(-self.alpha * gaps, positives) / self.alpha
        return pulled + _softplus_of(self.beta * gaps, negatives) / self.beta


def _above_0(margin):
    if not margin > 0:
        raise ValueError(f"margin must be above 0; found {margin}.")
    return float(margin)


def _distances(similarities):
    """Euclidean distances of unit rows, with a zero gradient where they are 0."""
    square = tf.maximum(2 - 2 * similarities, 0)
    apart = square > 0
    return tf.where(apart, tf.sqrt(tf.where(apart, square, 1)), 0)


def _largest(values, mask):
    """Largest along the last axis where the mask holds; the dtype's least where none does."""
    return tf.reduce_max(tf.where(mask, values, values.dtype.min / 4), axis=-1)


def _mean(values, mask):
    """Mean along the last axis where the mask holds; 0 where none does."""
    total = tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)), axis=-1)
    count = tf.cast(tf.math.count_nonzero(mask, axis=-1), values.dtype)
    return total / tf.maximum(count, 1)


def _softplus_of(logits, mask):
    """`log(1 + sum(exp(logits)))` where the mask holds; 0 where none does."""
    total = tf.math.softplus(numerics.masked_logsumexp(logits, mask))
    return tf.where(tf.reduce_any(mask, axis=-1), total, tf.zeros_like(total))
