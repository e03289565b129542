"""Losses on cosines to class weights that Circle loss is compared with.

All are softmax cross-entropies of scaled cosines; they differ in what they do to the own class:
nothing (NormFace), a margin on the cosine (AM-Softmax, also called CosFace), a margin on the angle
(ArcFace). `ProxyAnchor` turns the tables: class weights are anchors, the batch is their keys.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.distribute import collectives, compilation
from circle_tf.losses import base, hyperparameters
from circle_tf.ops import numerics, pairs

__all__ = ["AMSoftmaxLoss", "ArcFaceLoss", "NormFaceLoss", "ProxyAnchorLoss", "arc_cosines"]


class _Softmax(base.LabelLoss):
    """Cross-entropy of `gamma * cosine`, the own class's cosine made smaller first."""

    takes = "cosines"
    _CONFIG = ("margin", "gamma", "reduction", "check_finite", "label_smoothing")
    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        reduction: base.Reduction,
        check_finite: bool,
        label_smoothing: float,
        name: str,
        **given: hyperparameters.Scalar,
    ) -> None:
        super().__init__(reduction=reduction, check_finite=check_finite, name=name)
        self._keep(**given)
        hyperparameters.check("label_smoothing", label_smoothing, hyperparameters.SMOOTHING)
        self.label_smoothing = float(label_smoothing)

    def _losses(self, y_true, y_pred):
        batch = base.class_batch(y_pred, y_true)
        now = self.current(batch.cosines.dtype)

        def score(cosines, ids):
            positives, _ = pairs.class_masks(ids, batch.num_classes)
            logits = now.gamma * tf.where(positives, self._with_margin(cosines, now), cosines)
            # XLA drops the check of the ids; what they then give is made NaN below.
            ids = tf.clip_by_value(ids, 0, tf.cast(batch.num_classes, tf.int64) - 1)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
            return base.smoothed(losses, logits, positives, label_smoothing=self.label_smoothing)

        losses = compilation.call_compiled(score, batch.cosines, batch.ids)
        return base.nan_unless(batch.usable, losses), tf.ones_like(batch.ids, tf.bool)

    def _with_margin(self, cosines, now):
        return cosines - now.margin


@keras.saving.register_keras_serializable("circle_tf")
class AMSoftmaxLoss(_Softmax):
    """AM-Softmax, also called CosFace: cross-entropy with a margin on the own class's cosine.

    `log(1 + sum_j(exp(gamma * (s_j - s_y + m))))` over the other classes j: eq. 1 of Circle loss
    with class-level labels.

    Args:
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        label_smoothing: float e, 0 or more, below 1: the label is the own class to 1 - e, and e is
            shared by all C classes.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1`.
        y_pred: `[B, C]` cosines, as of `CosineClassifier`.
        sample_weight: None, scalar, `[B]` or `[B, 1]`.

    Returns:
        Scalar in nats; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> bool(AMSoftmaxLoss()([0], [[0.9, 0.1]]) < 1e-3)
        True

    References:
        Wang et al., "Additive Margin Softmax for Face Verification", 2018 (there 0.35, 30).
        Wang et al., "CosFace", CVPR 2018. Defaults: the comparison in the Circle loss paper.
    """

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.35,
        gamma: hyperparameters.Scalar = 64.0,
        reduction: base.Reduction = "mean",
        *,
        check_finite: bool = False,
        label_smoothing: float = 0.0,
        name: str = "am_softmax_loss",
    ) -> None:
        super().__init__(reduction, check_finite, label_smoothing, name, margin=margin, gamma=gamma)


@keras.saving.register_keras_serializable("circle_tf")
class NormFaceLoss(_Softmax):
    """NormFace: cross-entropy of scaled cosines, without a margin.

    Args:
        gamma: scale above 0; a float, a schedule or a variable, as in `CircleLoss`.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        label_smoothing: float e, 0 or more, below 1: the label is the own class to 1 - e, and e is
            shared by all C classes.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1`.
        y_pred: `[B, C]` cosines, as of `CosineClassifier`.
        sample_weight: None, scalar, `[B]` or `[B, 1]`.

    Returns:
        Scalar in nats; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> round(float(NormFaceLoss(gamma=1.0)([0], [[0.0, 0.0]])), 4)
        0.6931

    References:
        Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", ACM MM 2017.
    """

    _CONFIG = ("gamma", "reduction", "check_finite", "label_smoothing")
    _RANGES = {"gamma": hyperparameters.GAMMA}
    margin = 0.0

    def __init__(
        self,
        gamma: hyperparameters.Scalar = 16.0,
        reduction: base.Reduction = "mean",
        *,
        check_finite: bool = False,
        label_smoothing: float = 0.0,
        name: str = "norm_face_loss",
    ) -> None:
        super().__init__(reduction, check_finite, label_smoothing, name, gamma=gamma)

    def _with_margin(self, cosines, now):
        return cosines


@keras.saving.register_keras_serializable("circle_tf")
class ArcFaceLoss(_Softmax):
    """ArcFace: cross-entropy with a margin on the angle to the own class.

    `cos(angle + m)` takes the place of the own cosine; see `arc_cosines` for angles near pi.

    Args:
        margin: m in 0..pi/2, radians; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: one of `circle_tf.losses.base.REDUCTIONS`; see `reduce_losses` there.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        label_smoothing: float e, 0 or more, below 1: the label is the own class to 1 - e, and e is
            shared by all C classes.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1`.
        y_pred: `[B, C]` cosines, as of `CosineClassifier`.
        sample_weight: None, scalar, `[B]` or `[B, 1]`.

    Returns:
        Scalar in nats; `[B]` for the reduction `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> bool(ArcFaceLoss()([0], [[1.0, 0.1]]) < 1e-3)
        True

    References:
        Deng et al., "ArcFace", CVPR 2019, eq. 3.
    """

    _RANGES = {
        "margin": hyperparameters.Range(0, math.pi / 2, "0 to pi/2 radians"),
        "gamma": hyperparameters.GAMMA,
    }

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.5,
        gamma: hyperparameters.Scalar = 64.0,
        reduction: base.Reduction = "mean",
        *,
        check_finite: bool = False,
        label_smoothing: float = 0.0,
        name: str = "arc_face_loss",
    ) -> None:
        super().__init__(reduction, check_finite, label_smoothing, name, margin=margin, gamma=gamma)

    def _with_margin(self, cosines, now):
        return arc_cosines(cosines, margin=now.margin)


def arc_cosines(cosines, *, margin):
    """`cos(arccos(cosines) + margin)`, falling everywhere and with a bounded slope.

    Beyond the angle `pi - margin` the cosine of the sum would rise again; from there on the result
    falls on from -1 with slope 1. The slope in the cosine is infinite at 1 and -1: the sine is held
    at 1e-4 or more, which keeps it below 1e4.

    Args:
        cosines: `[...]` float in -1..1; what lies beyond by rounding is taken for -1 or 1.
        margin: m in 0..pi/2, radians; float or scalar tensor.

    Returns:
        `[...]`.

    Example:
        >>> arc_cosines(tf.constant([1.0, 0.0]), margin=0.5).numpy().round(3).tolist()
        [0.878..., -0.479...]
    """
    cosines = tf.convert_to_tensor(cosines)
    square = tf.maximum(1 - tf.square(cosines), 1e-8)
    # Where the sine is held, its value is that of the clipped angle and its slope is 0.
    cos, sin = (tf.cos, tf.sin) if tf.is_tensor(margin) else (math.cos, math.sin)
    turned = cosines * cos(margin) - tf.sqrt(square) * sin(margin)
    turning = cos(math.pi - margin)
    return tf.where(cosines > turning, turned, cosines - turning - 1)


@keras.saving.register_keras_serializable("circle_tf")
class ProxyAnchorLoss(base.LabelLoss):
    """Proxy-Anchor: each class weight pulls its rows of the batch and pushes all the others.

    With `X+`, `X-` the rows of the batch of a class and the others::

        mean over classes in the batch (log(1 + sum over X+ (exp(-gamma * (s - margin)))))
        + mean over all classes        (log(1 + sum over X- (exp(gamma * (s + margin)))))

    The loss belongs to classes, not to rows: there is no reduction to choose.

    Args:
        margin: in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0, the paper's alpha; a float, a schedule or a variable.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1`.
        y_pred: `[B, C]` cosines, as of `CosineClassifier`.
        sample_weight: must be None: the loss belongs to classes, not to rows.

    Returns:
        Scalar in nats.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range; a weight.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> bool(ProxyAnchorLoss()([0, 1], [[1.0, -1.0], [-1.0, 1.0]]) < 1e-3)
        True

    References:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, eq. 4.
    """

    takes = "cosines"
    _CONFIG = ("margin", "gamma", "check_finite")
    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.1,
        gamma: hyperparameters.Scalar = 32.0,
        *,
        check_finite: bool = False,
        name: str = "proxy_anchor_loss",
    ) -> None:
        super().__init__(reduction="sum", check_finite=check_finite, name=name)
        self._keep(margin=margin, gamma=gamma)

    def __call__(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tf.Tensor:
        """The loss of the global batch; see the class."""
        if sample_weight is not None:
            raise ValueError(
                "ProxyAnchorLoss takes no sample_weight: its terms belong to classes, not to rows."
            )
        return super().__call__(y_true, y_pred)

    def _losses(self, y_true, y_pred):
        batch = base.class_batch(y_pred, y_true)
        cosines, ids = (collectives.gather_rows(rows) for rows in (batch.cosines, batch.ids))
        now = self.current(cosines.dtype)
        value = compilation.call_compiled(
            lambda s, y: self._of_batch(now, s, y, batch.num_classes), cosines, ids
        )
        # Each row of the global batch is given an equal share, so that replicas add up to the loss.
        share = value / tf.cast(tf.maximum(tf.size(ids), 1), value.dtype)
        losses = tf.repeat(share[None], tf.shape(batch.ids)[0])
        usable = tf.reduce_all(batch.usable)
        return base.nan_unless(usable, losses), tf.ones_like(batch.ids, tf.bool)

    def _of_batch(self, now, cosines, ids, num_classes):
        # Class weights are the anchors: all is [C, B].
        masks = pairs.class_masks(ids, num_classes)
        cosines, positives, negatives = (tf.transpose(rows) for rows in (cosines, *masks))
        pulled = numerics.log1p_sum_exp(-now.gamma * (cosines - now.margin), positives)
        pushed = numerics.log1p_sum_exp(now.gamma * (cosines + now.margin), negatives)
        present = tf.math.count_nonzero(tf.reduce_any(positives, axis=1))
        return numerics.positive_mean(tf.reduce_sum(pulled), present) + tf.reduce_mean(pushed)
