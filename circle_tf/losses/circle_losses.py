"""Circle loss as Keras losses: pair-wise labels (`CircleLoss`), class-level (`ClassCircleLoss`)."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from circle_tf.distribute import compilation, global_batch
from circle_tf.losses import base, circle, hyperparameters
from circle_tf.losses.streaming import pair_sweep
from circle_tf.ops import pairs

__all__ = ["CircleLoss", "ClassCircleLoss", "class_level_losses", "pairwise_losses", "score_keys"]


def pairwise_losses(
    embeddings,
    labels,
    *,
    margin,
    gamma,
    detach_weights=True,
    one_hot=False,
    block_size="auto",
):
    """Circle loss of each example as an anchor against the other examples of the global batch.

    Args:
        embeddings: `[B, D]` of any real dtype and scale; rows are normalised here.
        labels: `[B]` or `[B, 1]` integer ids (`[B, C]` with `one_hot`).
        margin: float m.
        gamma: float scale.
        detach_weights: see `circle_loss`.
        one_hot: whether `labels` are one-hot rows.
        block_size: rows of a block of the pair matrix, "auto", or None for the dense matrix; see
            `CircleLoss`.

    Returns:
        `(losses [B] in nats, valid [B] bool)`: valid anchors have a positive and a negative.

    Raises:
        ValueError: shapes other than the above, block size out of range.

    Example:
        >>> losses, valid = pairwise_losses(
        ...     tf.eye(3), [0, 0, 1], margin=0.4, gamma=80.0)
        >>> valid.numpy().tolist()
        [True, True, False]

    References:
        Sun et al., CVPR 2020, section 3.1 (pair-wise labels) and eq. 6.
    """
    embeddings = base.as_embeddings(embeddings)
    batch = global_batch.global_batch(embeddings, labels, one_hot=one_hot)
    losses, valid = score_keys(
        *batch[:4],
        rows=global_batch.row_numbers(batch.ids) + tf.cast(batch.offset, tf.int64),
        key_rows=global_batch.row_numbers(batch.key_ids),
        block_size=block_size,
        margin=margin,
        gamma=gamma,
        detach_weights=detach_weights,
    )
    return base.nan_unless(base.usable_rows(batch.unit, labels), losses), valid


def score_keys(unit, ids, keys, key_ids, *, rows, key_rows, memory=None, block_size, **options):
    """Circle loss of each anchor against its keys, block by block or on the dense matrix.

    Args:
        unit: `[A, D]` unit rows, the anchors.
        ids: int64 `[A]`.
        keys: `[K, D]` unit rows; `unit` itself where the anchors are the keys.
        key_ids: int64 `[K]`.
        rows: int64 `[A]`, numbers of the anchors' examples: a key of the same number is the same
            example, and no pair.
        key_rows: int64 `[K]`.
        memory: None, or `pair_sweep.Side` of more keys, which get no gradient; a row number of -1
            marks an empty slot, which is no key.
        block_size: "auto", or the number of rows in a block; None for the dense matrix.
        **options: `margin`, `gamma` and `detach_weights`; see `circle_loss`.

    Returns:
        `(losses [A] in nats, valid [A] bool)`: valid anchors have a positive and a negative.

    Raises:
        ValueError: hyper-parameters or block size out of range.

    Example:
        >>> ids = rows = tf.constant([0, 1], tf.int64)
        >>> losses, valid = score_keys(
        ...     tf.eye(2), ids, tf.eye(2), ids, rows=rows, key_rows=rows, block_size=None,
        ...     margin=0.4, gamma=80.0)
        >>> valid.numpy().tolist()
        [False, False]
    """
    if block_size is not None:
        return pair_sweep.pair_losses(
            unit,
            ids,
            keys,
            key_ids,
            rows=rows,
            key_rows=key_rows,
            memory=memory,
            block_size=block_size,
            **options,
        )

    if memory is not None:
        keys = tf.concat([keys, tf.stop_gradient(memory.unit)], axis=0)
        key_ids = tf.concat([key_ids, memory.ids], axis=0)
        key_rows = tf.concat([key_rows, memory.rows], axis=0)

    def score(unit, ids, rows, keys, key_ids, key_rows):
        same, mask = tf.equal(ids[:, None], key_ids), key_rows >= 0
        positives, negatives = same & mask & (rows[:, None] != key_rows), ~same & mask
        similarities = tf.matmul(unit, keys, transpose_b=True)
        losses = circle.circle_loss(similarities, positives, negatives, **options)
        return losses, circle.valid_anchors(positives, negatives)

    return compilation.call_compiled(score, unit, ids, rows, keys, key_ids, key_rows)


def class_level_losses(
    cosines, labels, *, margin, gamma, detach_weights=True, one_hot=False, label_smoothing=0.0
):
    """Circle loss of each example against the class weights.

    Algebraically softmax cross-entropy on `gamma * a_p * (s_y - 1 + m)` for the own class and
    `gamma * a_n * (s_j - m)` for the others.

    Args:
        cosines: `[B, C]` similarities to the C class weights, in -1..1.
        labels: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1` (`[B, C]` with `one_hot`).
        margin: float m.
        gamma: float scale.
        detach_weights: see `circle_loss`.
        one_hot: whether `labels` are one-hot rows.
        label_smoothing: float; see `ClassCircleLoss`.

    Returns:
        `(losses [B] in nats, valid [B] bool)`.

    Raises:
        ValueError: shapes other than the above, fewer than 2 classes.
        tf.errors.InvalidArgumentError: ids out of range (NaN loss under XLA).

    Example:
        >>> losses, valid = class_level_losses([[0.9, 0.1]], [0], margin=0.25, gamma=256.0)
        >>> bool(losses[0] < 1e-3)
        True

    References:
        Sun et al., CVPR 2020, section 3.1 (class-level labels) and eq. 6.
    """
    batch = base.class_batch(cosines, labels, one_hot=one_hot)
    options = {"margin": margin, "gamma": gamma, "detach_weights": detach_weights}

    def score(cosines, ids):
        positives, negatives = pairs.class_masks(ids, batch.num_classes)
        losses = circle.circle_loss(cosines, positives, negatives, **options)
        if label_smoothing:
            logits = circle.class_logits(cosines, positives, **options)
            losses = base.smoothed(losses, logits, positives, label_smoothing=label_smoothing)
        return losses, circle.valid_anchors(positives, negatives)

    losses, valid = compilation.call_compiled(score, batch.cosines, batch.ids)
    return base.nan_unless(batch.usable, losses), valid


class _Circle(base.LabelLoss):
    """What both losses share: hyper-parameters."""

    _CONFIG = ("margin", "gamma", "reduction", "detach_weights", "one_hot", "check_finite")
    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        margin: hyperparameters.Scalar,
        gamma: hyperparameters.Scalar,
        reduction: base.Reduction,
        detach_weights: bool,
        one_hot: bool,
        check_finite: bool,
        name: str,
    ) -> None:
        super().__init__(reduction=reduction, check_finite=check_finite, name=name)
        self._keep(margin=margin, gamma=gamma)
        self.detach_weights, self.one_hot = bool(detach_weights), bool(one_hot)

    def _losses(self, y_true, y_pred):
        return type(self)._FUNCTION(y_pred, y_true, **self._options())

    def _options(self):
        own = {"detach_weights": self.detach_weights, "one_hot": self.one_hot}
        return {**vars(self.current()), **own}


@keras.saving.register_keras_serializable("circle_tf")
class CircleLoss(_Circle):
    """Circle loss with pair-wise labels, as a Keras loss on embeddings.

    Every example of the batch is an anchor in turn, the other examples are its keys: positives
    share its id, negatives do not. Use batches with several examples per class (`pk_dataset`):
    an anchor without a positive teaches nothing. Rows of `y_pred` are normalised here, so that
    any model will do; on unit rows that changes nothing.

    Args:
        margin: m in -1..1; pairs settle inside the circle `s_n^2 + (1 - s_p)^2 = 2 m^2`. A float, a
            schedule or a variable; see docs/choosing.md.
        gamma: scale above 0; a float, a schedule (`circle_tf.schedules.GeometricGrowth(16, 80,
            steps=700)`) or a variable.
        reduction: `mean_valid` (mean over the anchors that have a positive and a negative),
            `mean`, `sum`, `none`, or `mean_nonzero`; see `circle_tf.losses.base.reduce_losses`.
        detach_weights: False differentiates the pair weights too and reproduces
            `keras.losses.Circle` (with `reduction="mean_nonzero"`); see `circle_loss`.
        one_hot: whether `y_true` are one-hot rows `[B, C]`.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
            Without it such a row makes the loss NaN. XLA drops the check.
        block_size: how the pair matrix is computed. "auto": tile by tile in memory linear in the
            batch, close to the cost of its matrix products (on a GPU, in one tile where that fits
            comfortably into its memory: reasoned, not measured); an int: the rows of a tile; None:
            the dense matrix at once, as `circle_loss` does, which can be differentiated twice.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer ids, exact at any width.
        y_pred: `[B, D]` embeddings.
        sample_weight: None, scalar, `[B]` or `[B, 1]`: weight of the example as an anchor. It
            stays a key for the others with weight 0 too.

    Returns:
        Scalar in nats (float32, or float64 for float64 embeddings); `[B]` for `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> import circle_tf
        >>> model = keras.Sequential([keras.layers.Flatten(), circle_tf.UnitEmbedding(8)])
        >>> model.compile("adam", loss=circle_tf.CircleLoss(margin=0.4, gamma=80.0))
        >>> loss = circle_tf.CircleLoss()
        >>> float(loss([0, 0, 1, 1], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        1.52...e-11

    References:
        Sun et al., "Circle Loss", CVPR 2020. Defaults: the paper's for CUB, Cars and SOP.
    """

    takes = "embeddings"
    _FUNCTION = staticmethod(pairwise_losses)

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.4,
        gamma: hyperparameters.Scalar = 80.0,
        reduction: base.Reduction = "mean_valid",
        *,
        detach_weights: bool = True,
        one_hot: bool = False,
        check_finite: bool = False,
        block_size: int | Literal["auto"] | None = "auto",
        name: str = "circle_loss",
    ) -> None:
        super().__init__(margin, gamma, reduction, detach_weights, one_hot, check_finite, name)
        self.block_size = pair_sweep.check_block_size(block_size)

    def _options(self):
        return {**super()._options(), "block_size": self.block_size}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "block_size": self.block_size}


@keras.saving.register_keras_serializable("circle_tf")
class ClassCircleLoss(_Circle):
    """Circle loss with class-level labels, as a Keras loss on cosines to class weights.

    Put it on the output of `CosineClassifier`. The own class is the one positive, all other
    classes are negatives.

    Args:
        margin: m in -1..1; a float, a schedule or a variable, as in `CircleLoss`.
        gamma: scale above 0; a float, a schedule or a variable.
        reduction: `mean`, `mean_valid` (the same here), `sum`, `none` or `mean_nonzero`.
        detach_weights: see `circle_loss`.
        one_hot: whether `y_true` are one-hot rows `[B, C]`.
        check_finite: stop with the number of the first row of `y_pred` that holds NaN or inf.
        label_smoothing: float e, 0 or more, below 1: the label is the own class to 1 - e, and e is
            shared by all C classes. As this loss is the softmax cross-entropy of the logits of
            `circle.class_logits`, it becomes `(1 - e) * loss + e * mean_j(logsumexp(logits) -
            logit_j)`, and is lowest where the own logit stands `log(1 + C * (1 - e) / e)` above the
            others. The weights a_p, a_n are held constant as ever: `dloss/ds_j = gamma * a_n *
            (softmax_j - e / C)`, `dloss/ds_y = gamma * a_p * (softmax_y - (1 - e) - e / C)`.
        name: str.

    Call arguments:
        y_true: `[B]` or `[B, 1]` integer class ids in `0 .. C - 1`.
        y_pred: `[B, C]` cosines in -1..1 (not logits, not probabilities).
        sample_weight: None, scalar, `[B]` or `[B, 1]`.

    Returns:
        Scalar in nats; `[B]` for `none`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.
        tf.errors.InvalidArgumentError: ids out of range (a NaN loss under XLA).

    Example:
        >>> loss = ClassCircleLoss(margin=0.25, gamma=256.0)
        >>> bool(loss([0, 1], [[0.9, 0.0], [0.0, 0.9]]) < 1e-3)
        True

    References:
        Sun et al., "Circle Loss", CVPR 2020. Defaults: the paper's for faces (re-ID: gamma 128).
    """

    takes = "cosines"
    _CONFIG = (*_Circle._CONFIG, "label_smoothing")
    _FUNCTION = staticmethod(class_level_losses)

    def __init__(
        self,
        margin: hyperparameters.Scalar = 0.25,
        gamma: hyperparameters.Scalar = 256.0,
        reduction: base.Reduction = "mean",
        *,
        detach_weights: bool = True,
        one_hot: bool = False,
        check_finite: bool = False,
        label_smoothing: float = 0.0,
        name: str = "class_circle_loss",
    ) -> None:
        super().__init__(margin, gamma, reduction, detach_weights, one_hot, check_finite, name)
        hyperparameters.check("label_smoothing", label_smoothing, hyperparameters.SMOOTHING)
        self.label_smoothing = float(label_smoothing)

    def _options(self):
        return {**super()._options(), "label_smoothing": self.label_smoothing}
