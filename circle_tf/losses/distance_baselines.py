"""Losses on distances within a batch that Circle loss is compared with; see `pair_loss`."""

import keras
import tensorflow as tf

from circle_tf.losses.pair_loss import PairLoss, largest, mean_where
from circle_tf.ops import numerics

__all__ = ["ContrastiveLoss", "LiftedStructureLoss", "TripletLoss"]

_MINING = ("semihard", "hard", "all")


@keras.saving.register_keras_serializable("circle_tf")
class ContrastiveLoss(PairLoss):
    """Contrastive loss: positives are drawn together, negatives pushed beyond a margin.

    `mean(d_p^2) + mean(relu(margin - d_n)^2)`, the latter over the negatives within the margin:
    most of a batch are far beyond it and would thin the others out.

    Args:
        margin: float above 0, a distance of unit rows (0 to 2).
        reduction: as in `UnifiedLoss`.
        check_finite: as in `UnifiedLoss`.
        name: str.

    Call arguments, returns, raises: as `circle_tf.baselines.UnifiedLoss`.

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
        return mean_where(tf.square(distances), positives) + mean_where(pushed, within)


@keras.saving.register_keras_serializable("circle_tf")
class TripletLoss(PairLoss):
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
            farthest = largest(distances, positives)
            return self._loss(farthest + largest(-distances, negatives))
        apart = distances[:, :, None], distances[:, None, :]  # [A, positive, negative]
        if self.mining == "semihard":
            farther = negatives[:, None, :] & (apart[1] > apart[0])
            nearest = -largest(-apart[1], farther)
            chosen = tf.where(
                tf.reduce_any(farther, axis=2), nearest, largest(distances, negatives)[:, None]
            )
            return mean_where(self._loss(distances - chosen), positives)
        triplets = positives[:, :, None] & negatives[:, None, :]
        losses = self._loss(apart[0] - apart[1])
        flat = [-1, tf.shape(distances)[1] ** 2]
        return mean_where(tf.reshape(losses, flat), tf.reshape(triplets & (losses > 0), flat))

    def _loss(self, gaps):
        return tf.math.softplus(gaps) if self.soft else tf.maximum(gaps + self.margin, 0)


@keras.saving.register_keras_serializable("circle_tf")
class LiftedStructureLoss(PairLoss):
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
        return mean_where(tf.square(tf.maximum(distances + both, 0)) / 2, positives)


def _above_0(margin):
    if not margin > 0:
        raise ValueError(f"margin must be above 0; found {margin}.")
    return float(margin)


def _distances(similarities):
    """Euclidean distances of unit rows, with a zero gradient where they are 0."""
    square = tf.maximum(2 - 2 * similarities, 0)
    apart = square > 0
    return tf.where(apart, tf.sqrt(tf.where(apart, square, 1)), 0)
