"""From labels to exact integer ids to masks of positive and negative pairs."""

import numpy as np
import tensorflow as tf

from circle_tf.utils import checks

__all__ = [
    "batch_masks",
    "check_class_ids",
    "class_masks",
    "float_labels_are_exact",
    "ids_in_range",
    "ids_of_rows",
    "to_ids",
]

# The first integer that a float of this dtype cannot tell from its neighbour: labels from there
# on may have been rounded before they got here.
_FIRST_INEXACT = {tf.bfloat16: 2**8, tf.float16: 2**11, tf.float32: 2**24, tf.float64: 2**53}


def to_ids(labels, *, one_hot=False):
    """Exact int64 ids of integer labels.

    Args:
        labels: `[B]` or `[B, 1]` integers of any width, exact also above 2^24 and 2^31. Floats are
            taken where they are whole and small enough to be exact (float32: below 2^24).
        one_hot: whether `labels` are `[B, C]` one-hot rows instead; then the ids are the columns.

    Returns:
        `[B]` int64. uint64 labels keep their identity, not their order.

    Raises:
        TypeError: strings, booleans.
        ValueError: a shape other than the above (one-hot rows without `one_hot=True`).
        tf.errors.InvalidArgumentError: fractional or too large float labels, found when run.
            XLA drops such checks: the loss is then NaN (see `float_labels_are_exact`).

    Example:
        >>> to_ids(np.array([[2**40], [7]])).numpy().tolist()
        [1099511627776, 7]
    """
    labels = _as_tensor(labels)
    if one_hot:
        return _one_hot_ids(labels)
    if labels.shape.rank is None:
        raise ValueError(
            "Labels must be integer ids of shape [B] or [B, 1]; found labels of unknown shape. "
            "Tell TensorFlow their shape where they are made: tf.ensure_shape(labels, [None])."
        )
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    if labels.shape.rank != 1:
        raise ValueError(
            f"Labels must be integer ids of shape [B] or [B, 1]; found shape {labels.shape}. "
            "For one-hot rows [B, C] pass one_hot=True, or tf.argmax(labels, axis=1) as labels."
        )
    if labels.dtype.is_floating:
        return _whole_ids(labels)
    if labels.dtype == tf.uint64:
        return tf.bitcast(labels, tf.int64)
    return tf.cast(labels, tf.int64)


def ids_of_rows(values, rows, *, name):
    """Ids that were given beside rows, one for each.

    Args:
        values: integer labels as `to_ids` takes them.
        rows: `[N, D]`.
        name: str, what the ids are called.

    Returns:
        int64 `[N]` of NumPy.

    Raises:
        ValueError: another number of them.

    Example:
        >>> ids_of_rows([3, 4], [[0.0], [1.0]], name="labels").tolist()
        [3, 4]
    """
    ids = to_ids(values).numpy()
    if len(ids) != len(rows):
        raise ValueError(f"{name} must hold one id per row: {len(rows)} rows, {len(ids)} ids.")
    return ids


def float_labels_are_exact(labels):
    """Whether every label is a whole number that its float dtype holds exactly.

    Args:
        labels: `[...]` tensor of any real dtype.

    Returns:
        Scalar bool tensor, True for integer dtypes.

    Example:
        >>> bool(float_labels_are_exact([1.0, 2.0])), bool(float_labels_are_exact([1.5]))
        (True, False)
    """
    labels = _as_tensor(labels)
    if not labels.dtype.is_floating:
        return tf.constant(True)
    whole = tf.equal(labels, tf.round(labels))
    exact = tf.cast(tf.abs(labels), tf.float64) < _FIRST_INEXACT[labels.dtype]
    return tf.reduce_all(whole & exact)


def batch_masks(anchor_ids, key_ids, *, offset=0):
    """Which keys are positives and which are negatives of each anchor of a batch.

    Args:
        anchor_ids: `[A]` int64 ids.
        key_ids: `[K]` int64 ids. Anchor `i` is key `offset + i`: excluded by its index, never by
            its value, so that a true duplicate of the anchor stays a pair.
        offset: int or scalar, the first anchor's index among the keys.

    Returns:
        `(positives, negatives)`, both `[A, K]` bool.

    Example:
        >>> positives, negatives = batch_masks(tf.constant([5, 5, 8]), tf.constant([5, 5, 8]))
        >>> positives.numpy().astype(int).tolist()
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
        >>> negatives.numpy().astype(int).tolist()
        [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    same = tf.equal(anchor_ids[:, None], key_ids[None, :])
    anchor_rows = tf.range(tf.shape(anchor_ids)[0]) + tf.cast(offset, tf.int32)
    itself = tf.equal(anchor_rows[:, None], tf.range(tf.shape(key_ids)[0])[None, :])
    return same & ~itself, ~same


def class_masks(ids, num_classes):
    """Class-level labels as pairs: the positive is the own class, negatives are all others.

    Args:
        ids: `[B]` int64 class ids in `0 .. num_classes - 1`.
        num_classes: int C, number of classes.

    Returns:
        `(positives, negatives)`, both `[B, C]` bool.

    Raises:
        tf.errors.InvalidArgumentError: an id out of range, found when run. Under XLA such an
            anchor has no positive; `ClassCircleLoss` gives it a NaN loss.

    Example:
        >>> positives, negatives = class_masks(tf.constant([2], tf.int64), 3)
        >>> positives.numpy().tolist(), negatives.numpy().tolist()
        ([[False, False, True]], [[True, True, False]])
    """
    ids = check_class_ids(ids, num_classes)
    positives = tf.equal(ids[:, None], tf.range(num_classes, dtype=tf.int64))
    return positives, ~positives


def check_class_ids(ids, num_classes):
    """`ids`, once all of them have been seen to name a class.

    Args:
        ids: `[B]` int64.
        num_classes: int C.

    Returns:
        `ids`.

    Raises:
        tf.errors.InvalidArgumentError: an id out of range, found when run; XLA drops the check.

    Example:
        >>> check_class_ids(tf.constant([0, 2], tf.int64), 3).numpy().tolist()
        [0, 2]
    """
    return checks.passing(
        ids,
        tf.reduce_all(ids_in_range(ids, num_classes)),
        f"Class ids must be in 0..{num_classes - 1} for {num_classes} classes; found",
        ids,
    )


def ids_in_range(ids, num_classes):
    """Which ids name one of `num_classes` classes.

    Args:
        ids: `[B]` int64.
        num_classes: int C.

    Returns:
        `[B]` bool.

    Example:
        >>> ids_in_range(tf.constant([0, 3, -1], tf.int64), 3).numpy().tolist()
        [True, False, False]
    """
    return (ids >= 0) & (ids < num_classes)


def _as_tensor(labels):
    # tf.convert_to_tensor makes int32 of Python integers and then refuses ids above 2^31.
    if isinstance(labels, (list, tuple)):
        labels = np.asarray(labels)
    if isinstance(labels, np.ndarray):
        labels = checks.without_objects(labels)
    labels = tf.convert_to_tensor(labels)
    if labels.dtype == tf.string:
        raise TypeError(
            "Labels must be integer ids; found strings. Map them to integers first, for example "
            "with keras.layers.StringLookup or np.unique(labels, return_inverse=True)."
        )
    if not (labels.dtype.is_integer or labels.dtype.is_floating):
        raise TypeError(f"Labels must be integer ids; found dtype {labels.dtype.name}.")
    return labels


def _one_hot_ids(labels):
    if labels.shape.rank != 2:
        raise ValueError(f"one_hot=True wants labels of shape [B, C]; found {labels.shape}.")
    hot = tf.reduce_sum(tf.cast(tf.not_equal(labels, 0), tf.int32), axis=1)
    ones = tf.reduce_sum(tf.cast(tf.equal(labels, 1), tf.int32), axis=1)
    labels = checks.passing(
        labels,
        tf.reduce_all((hot == 1) & (ones == 1)),
        "one_hot=True wants rows with a single 1 and 0 elsewhere; found",
        labels,
    )
    return tf.argmax(labels, axis=1, output_type=tf.int64)


def _whole_ids(labels):
    limit = _FIRST_INEXACT[labels.dtype]
    labels = checks.passing(
        labels,
        float_labels_are_exact(labels),
        f"Labels must be integer ids. Labels of dtype {labels.dtype.name} are taken where they "
        f"are whole numbers below {limit} (from there on they may have been rounded); found",
        labels,
    )
    return tf.cast(labels, tf.int64)
