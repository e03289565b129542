"""Losses on embeddings of a batch that Circle loss is compared with, as Keras losses.

Each has one loss per anchor, over the anchor's positives and negatives in the global batch, like
`CircleLoss`: rows are normalised, similarities are cosines in float32, distances are Euclidean
between unit rows (0 to 2). Where a paper averages over all pairs or triplets of a batch, here each
anchor averages over its own, and then come the anchors: the same for batches of P classes x K.
"""

from __future__ import annotations

import functools
from typing import Literal

import keras
import tensorflow as tf

from circle_tf.distribute import compilation, global_batch
from circle_tf.losses import base, circle, distances, hyperparameters
from circle_tf.ops import numerics

__all__ = [
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "MultiSimilarityLoss",
    "NPairsLoss",
    "TripletLoss",
    "UnifiedLoss",
]

_MINING = ("semihard", "hard", "all")
_DISTANCE = {"margin": hyperparameters.ABOVE_0}
_SIMILARITY = {
    "alpha": hyperparameters.ABOVE_0,
    "beta": hyperparameters.ABOVE_0,
    "base": hyperparameters.MARGIN._replace(words="in -1..1"),
}
_EPSILON = hyperparameters.ABOVE_0._replace(words="0 or more, or None", above=False)


class _PairLoss(base.LabelLoss):
    """One loss per anchor from its similarities `[A, K]` and masks of positives and negatives.

    A subclass defines `_score(now, similarities, positives, negatives, keys, key_ids) -> [A]`, with
    its hyper-parameters as `now`; anchors without a positive or without a negative get 0.
    """

    takes = "embeddings"

    def __init__(
        self,
        reduction: base.Reduction,
        check_finite: bool,
        name: str,
        **given: hyperparameters.Scalar,
    ) -> None:
        super().__init__(reduction=reduction, check_finite=check_finite, name=name)
        self._keep(**given)

    def _losses(self, y_true, y_pred):
        batch = global_batch.global_batch(base.as_embeddings(y_pred), y_true)
        of_batch = functools.partial(self._of_batch, self.current(batch.unit.dtype))
        losses, valid = compilation.call_compiled(of_batch, *batch)
        return base.nan_unless(base.usable_rows(batch.unit, y_true), losses), valid

    def _of_batch(self, now, unit, ids, keys, key_ids, offset):
        similarities, *masks = base.pair_matrix(unit, ids, keys, key_ids, offset)
        losses = self._score(now, similarities, *masks, keys, key_ids)
        valid = circle.valid_anchors(*masks)
        return tf.where(valid, losses, tf.zeros_like(losses)), valid

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        raise NotImplementedError


@keras.saving.register_keras_serializable("circle_tf")
class UnifiedLoss(_PairLoss):
    """The unified loss with pair-wise labels, from which the paper derives Circle loss.

    `log(1 + sum_i(sum_j(exp(gamma * (s_n_j - s_p_i + m)))))`. As gamma grows, loss / gamma goes to
    the triplet loss of the hardest positive and the hardest negative. With class-level labels it is
    `AMSoftmaxLoss`.

    Args:
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
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
    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.25,
        gamma: hyperparameters.Scalar = 80.0,
        reduction: base.Reduction = "mean_valid",
        *,
        check_finite: bool = False,
        name: str = "unified_loss",
    ) -> None:
        super().__init__(reduction, check_finite, name, margin=margin, gamma=gamma)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        pushed = numerics.masked_logsumexp(now.gamma * (similarities + now.margin), negatives)
        pulled = numerics.masked_logsumexp(-now.gamma * similarities, positives)
        return tf.math.softplus(pushed + pulled)


@keras.saving.register_keras_serializable("circle_tf")
class NPairsLoss(_PairLoss):
    """N-pairs loss: each positive against all negatives in a softmax.

    `log(1 + sum_j(exp(gamma * (s_n_j - s_p))))`, the mean over the positives. The paper's rows are
    not normalised, and their length plays the part of gamma. TensorFlow Addons' loss,
    `circle_tf.baselines.npairs`, has the other positives in the softmax too.

    Args:
        gamma: scale above 0; a float, a schedule or a variable, as in `CircleLoss`.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
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
        >>> bool(NPairsLoss()([0, 0, 1], [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]) < 1e-3)
        True

    References:
        Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016.
    """

    _CONFIG = ("gamma", "reduction", "check_finite")
    _RANGES = {"gamma": hyperparameters.GAMMA}

    def __init__(
        self,
        gamma: hyperparameters.Scalar = 16.0,
        reduction: base.Reduction = "mean_valid",
        *,
        check_finite: bool = False,
        name: str = "n_pairs_loss",
    ) -> None:
        super().__init__(reduction, check_finite, name, gamma=gamma)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        logits = now.gamma * similarities
        against = numerics.masked_logsumexp(logits, negatives)
        losses = tf.math.softplus(against[:, None] - logits)
        return distances.mean_where(losses, positives)


@keras.saving.register_keras_serializable("circle_tf")
class MultiSimilarityLoss(_PairLoss):
    """Multi-Similarity loss: pairs are mined by each other and weighted softly.

    Kept are negatives with `s > min(s_p) - epsilon` and positives with `s < max(s_n) + epsilon`::

        log(1 + sum over positives (exp(-alpha * (s - base)))) / alpha
        + log(1 + sum over negatives (exp(beta * (s - base)))) / beta

    Args:
        alpha: above 0, scale of the positives; a float, a schedule or a variable, as in
            `CircleLoss`.
        beta: above 0, scale of the negatives; the same.
        base: in -1..1, the cosine between the two, the paper's lambda; the same.
        epsilon: float of 0 or more, margin of the mining; None to keep all pairs.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
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
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(MultiSimilarityLoss()([0, 0, 1], rows))  # all are mined away
        0.0

    References:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning",
        CVPR 2019, eq. 13 to 15; defaults of the authors' program.
    """

    _CONFIG = ("alpha", "beta", "base", "epsilon", "reduction", "check_finite")
    _RANGES = _SIMILARITY

    def __init__(
        self,
        alpha: hyperparameters.Scalar = 2.0,
        beta: hyperparameters.Scalar = 50.0,
        base: hyperparameters.Scalar = 0.5,
        epsilon: float | None = 0.1,
        *,
        reduction: base.Reduction = "mean_valid",
        check_finite: bool = False,
        name: str = "multi_similarity_loss",
    ) -> None:
        super().__init__(reduction, check_finite, name, alpha=alpha, beta=beta, base=base)
        if epsilon is not None:
            hyperparameters.check("epsilon", epsilon, _EPSILON)
        self.epsilon = None if epsilon is None else float(epsilon)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        if self.epsilon is not None:
            # 2 lies beyond all cosines: an anchor without such a pair keeps none of the others.
            lowest = tf.reduce_min(tf.where(positives, similarities, 2.0), axis=1, keepdims=True)
            highest = tf.reduce_max(tf.where(negatives, similarities, -2.0), axis=1, keepdims=True)
            positives &= similarities < highest + self.epsilon
            negatives &= similarities > lowest - self.epsilon
        gaps = similarities - now.base
        pulled = numerics.log1p_sum_exp(-now.alpha * gaps, positives) / now.alpha
        return pulled + numerics.log1p_sum_exp(now.beta * gaps, negatives) / now.beta


@keras.saving.register_keras_serializable("circle_tf")
class ContrastiveLoss(_PairLoss):
    """Contrastive loss: positives are drawn together, negatives pushed beyond a margin.

    `mean(d_p^2) + mean(relu(margin - d_n)^2)`, the latter over the negatives within the margin:
    most of a batch are far beyond it and would thin the others out.

    Args:
        margin: above 0, a distance of unit rows (0 to 2); a float, a schedule or a variable, as in
            `CircleLoss`.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings of any scale.
        sample_weight: None, scalar, `[B]` or `[B, 1]`: weight of the example as an anchor.

    Returns:
        Scalar; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(ContrastiveLoss()([0, 0, 1], rows))
        0.0

    References:
        Hadsell et al., "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
    """

    _CONFIG = ("margin", "reduction", "check_finite")
    _RANGES = _DISTANCE

    def __init__(
        self,
        margin: hyperparameters.Scalar = 1.0,
        reduction: base.Reduction = "mean_valid",
        *,
        check_finite: bool = False,
        name: str = "contrastive_loss",
    ) -> None:
        super().__init__(reduction, check_finite, name, margin=margin)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        pair_distances = distances.unit_distances(similarities)
        losses = distances.contrastive(
            pair_distances, tf.cast(positives, similarities.dtype), margin=now.margin
        )
        within = negatives & (pair_distances < now.margin)
        return distances.mean_where(losses, positives) + distances.mean_where(losses, within)


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
        margin: above 0, a distance of unit rows (0 to 2); without effect if `soft`. A float, a
            schedule or a variable, as in `CircleLoss`.
        mining: `semihard`, `hard` or `all`.
        soft: whether the margin is soft.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings of any scale.
        sample_weight: None, scalar, `[B]` or `[B, 1]`: weight of the example as an anchor.

    Returns:
        Scalar; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(TripletLoss(mining="hard")([0, 0, 1], rows))
        0.0

    References:
        Schroff et al., "FaceNet", CVPR 2015 (semihard). Hermans et al., "In Defense of the Triplet
        Loss for Person Re-Identification", 2017 (hard, all, soft margin).
    """

    _CONFIG = ("margin", "mining", "soft", "reduction", "check_finite")
    _RANGES = _DISTANCE

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.2,
        mining: Literal["semihard", "hard", "all"] = "semihard",
        *,
        soft: bool = False,
        reduction: base.Reduction = "mean_valid",
        check_finite: bool = False,
        name: str = "triplet_loss",
    ) -> None:
        if mining not in _MINING:
            raise ValueError(f"mining must be one of {', '.join(_MINING)}; found {mining!r}.")
        super().__init__(reduction, check_finite, name, margin=margin)
        self.mining, self.soft = mining, bool(soft)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        pair_distances = distances.unit_distances(similarities)
        if self.mining == "hard":
            return self._loss(now, distances.hardest_gaps(pair_distances, positives, negatives))
        if self.mining == "semihard":
            losses = self._loss(now, distances.semihard_gaps(pair_distances, negatives))
            return distances.mean_where(losses, positives)
        losses = self._loss(now, pair_distances[:, :, None] - pair_distances[:, None, :])
        triplets = positives[:, :, None] & negatives[:, None, :]
        return distances.mean_where(losses, triplets & (losses > 0), axis=[1, 2])

    def _loss(self, now, gaps):
        return distances.hinge(gaps, now.margin, soft=self.soft)


@keras.saving.register_keras_serializable("circle_tf")
class LiftedStructureLoss(_PairLoss):
    """Lifted structured loss: each positive pair against all negatives of both its ends.

    `relu(d_ij + log(sum_k(exp(margin - d_ik)) + sum_k(exp(margin - d_jk))))^2 / 2`, the mean over
    the positives j of anchor i.

    Args:
        margin: above 0, a distance of unit rows (0 to 2); a float, a schedule or a variable, as in
            `CircleLoss`.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings of any scale.
        sample_weight: None, scalar, `[B]` or `[B, 1]`: weight of the example as an anchor.

    Returns:
        Scalar; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> rows = [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
        >>> float(LiftedStructureLoss(margin=0.5)([0, 0, 1], rows))
        0.0

    References:
        Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016,
        eq. 4.
    """

    _CONFIG = ("margin", "reduction", "check_finite")
    _RANGES = _DISTANCE

    def __init__(
        self,
        margin: hyperparameters.Scalar = 1.0,
        reduction: base.Reduction = "mean_valid",
        *,
        check_finite: bool = False,
        name: str = "lifted_structure_loss",
    ) -> None:
        super().__init__(reduction, check_finite, name, margin=margin)

    def _score(self, now, similarities, positives, negatives, keys, key_ids):
        pair_distances = distances.unit_distances(similarities)
        nearby = numerics.masked_logsumexp(now.margin - pair_distances, negatives)
        among_keys = distances.unit_distances(tf.matmul(keys, keys, transpose_b=True))
        apart = tf.not_equal(key_ids[:, None], key_ids[None, :])
        key_nearby = numerics.masked_logsumexp(now.margin - among_keys, apart)
        losses = distances.lifted_pairs(pair_distances, nearby, key_nearby)
        return distances.mean_where(losses, positives)
