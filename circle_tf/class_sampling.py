"""Which classes a step looks at when it looks at a sample of them (Partial FC)."""

import tensorflow as tf

__all__ = ["sampled_classes", "size_of"]


def size_of(num_classes, rate):
    """Number of classes that a rate draws.

    Args:
        num_classes: int C.
        rate: float above 0, at most 1.

    Returns:
        int of 1 or more, at most C.

    Example:
        >>> size_of(1000, 0.1)
        100
    """
    return max(1, min(num_classes, round(num_classes * rate)))


def sampled_classes(ids, num_classes, *, size, seed, step):
    """The batch's own classes and a sample of all classes, a pure function of seed and step.

    One class is drawn from each of `size` equal ranges, so that no class is drawn twice.

    Args:
        ids: int64 `[N]`, own classes of the global batch.
        num_classes: int C.
        size: int, classes to draw, at most C.
        seed: int.
        step: int or integer scalar.

    Returns:
        `(rows int64 [N + size], live bool [N + size], first int32 [C])`: classes, which of them
        stand there for the first time, and where each class does so (`N + size` if nowhere).

    Example:
        >>> rows, live, first = sampled_classes(
        ...     tf.constant([3, 3], tf.int64), 4, size=4, seed=0, step=0)
        >>> rows.numpy().tolist(), live.numpy().tolist(), first.numpy().tolist()
        ([3, 3, 0, 1, 2, 3], [True, False, True, True, True, False], [2, 3, 4, 0])

    References:
        An et al., "Partial FC: Training 10 Million Identities on a Single Machine", 2021.
    """
    starts = tf.range(size + 1, dtype=tf.int64) * num_classes // size
    lengths = tf.cast(starts[1:] - starts[:-1], tf.float64)
    drawn = starts[:-1] + tf.cast(tf.floor(_uniform(size, seed, step) * lengths), tf.int64)
    rows = tf.concat([tf.clip_by_value(ids, 0, num_classes - 1), drawn], 0)
    numbers = tf.range(tf.shape(rows)[0])
    first = tf.fill([num_classes], tf.shape(rows)[0])
    first = tf.tensor_scatter_nd_min(first, rows[:, None], numbers)
    return rows, tf.equal(tf.gather(first, rows), numbers), first


def _uniform(size, seed, step):
    """float64 `[size]` in 0..1. TensorFlow's stateless generators differ under XLA; this does not.

    References:
        Finalizer of MurmurHash3: Appleby, 2011.
    """
    values = tf.cast(tf.range(size), tf.uint32)
    for word in (tf.constant(seed % 2**32, tf.uint32), tf.cast(step, tf.uint32)):
        values = _mixed(tf.bitwise.bitwise_xor(_mixed(values), _mixed(word + 1)))
    return tf.cast(values, tf.float64) / 2.0**32


def _mixed(values):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.uint32))
        values = tf.bitwise.bitwise_xor(values, shifted) * tf.constant(factor, tf.uint32)
    return values
