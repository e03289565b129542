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
    folded = tf.random.experimental.stateless_fold_in(
        tf.constant([seed, 0], tf.int64), tf.cast(step, tf.int64)
    )
    places = tf.random.stateless_uniform([size], folded, dtype=tf.float64)
    starts = tf.range(size + 1, dtype=tf.int64) * num_classes // size
    lengths = tf.cast(starts[1:] - starts[:-1], tf.float64)
    drawn = starts[:-1] + tf.cast(tf.floor(places * lengths), tf.int64)
    rows = tf.concat([tf.clip_by_value(ids, 0, num_classes - 1), drawn], 0)
    numbers = tf.range(tf.shape(rows)[0])
    first = tf.fill([num_classes], tf.shape(rows)[0])
    first = tf.tensor_scatter_nd_min(first, rows[:, None], numbers)
    return rows, tf.equal(tf.gather(first, rows), numbers), first
