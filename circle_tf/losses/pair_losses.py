"""Losses on cosines within a batch that Circle loss is compared with; see `pair_loss`."""

import keras
import tensorflow as tf

from circle_tf.losses import circle
from circle_tf.losses.pair_loss import PairLoss, largest, mean_where
from circle_tf.ops import numerics

__all__ = ["MultiSimilarityLoss", "NPairsLoss", "UnifiedLoss"]


@keras.saving.register_keras_serializable("circle_tf")
class UnifiedLoss(PairLoss):
    """The unified loss with pair-wise labels, from which the paper derives Circle loss.

    `log(1 + sum_i(sum_j(exp(gamma * (s_n_j - s_p_i + m)))))`. As gamma grows, loss / gamma goes to
    the triplet loss of the hardest positive and the hardest negative. With class-level labels it is
    `AMSoftmaxLoss`.

    Args:
        margin: float m in -1..1.
        gamma: float scale above 0.
        reduction: see `circle_tf.losses.reductions.reduce_losses`.
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
class NPairsLoss(PairLoss):
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
        return mean_where(tf.math.softplus(near[:, None] - logits), positives)


@keras.saving.register_keras_serializable("circle_tf")
class MultiSimilarityLoss(PairLoss):
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
            lowest = -largest(-similarities, positives)[:, None]
            highest = largest(similarities, negatives)[:, None]
            positives &= similarities < highest + self.epsilon
            negatives &= similarities > lowest - self.epsilon
        gaps = similarities - self.base
        pulled = _softplus_of(-self.alpha * gaps, positives) / self.alpha
        return pulled + _softplus_of(self.beta * gaps, negatives) / self.beta


def _softplus_of(logits, mask):
    """`log(1 + sum(exp(logits)))` where the mask holds; 0 where none does."""
    total = tf.math.softplus(numerics.masked_logsumexp(logits, mask))
    return tf.where(tf.reduce_any(mask, axis=-1), total, tf.zeros_like(total))
