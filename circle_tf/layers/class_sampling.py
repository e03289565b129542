"""Which classes a step looks at when it looks at a sample of them (Partial FC)."""

import tensorflow as tf

__all__ = ["ClassSampler", "sampled_classes", "size_of"]


class ClassSampler:
    """Draws the classes of each training step, anew and the same on all replicas.

    Args:
        rate: float above 0, at most 1, share of the classes.
        seed: int.
        steps_seen: integer variable, the steps drawn so far, saved with the model.
    """

    def __init__(self, rate, seed, steps_seen):
        self._rate, self._seed, self._steps_seen = rate, seed, steps_seen

    def draw(self, ids, everyone, part):
        """The classes of the next step.

        Args:
            ids: int64 `[B]`, own classes counted from the first of `part`.
            everyone: int64 `[N]`, the same for the global batch.
            part: `sharded_variable.Part`, the classes that this replica holds.

        Returns:
            `(rows int64 [S], places int64 [B], mask bool [S])`: classes of the part, where in them
            each own class stands (-1: in another part), and which of them count.
        """
        step = tf.convert_to_tensor(self._steps_seen)
        size = size_of(part.rows, self._rate)
        rows, mask, first = sampled_classes(
            everyone, part.rows, size=size, seed=self._seed, step=step, part=part.number
        )
        self._steps_seen.assign(step + 1)
        if part.mask is not None:
            mask &= tf.gather(part.mask, rows)
        places = tf.cast(tf.gather(first, tf.clip_by_value(ids, 0, part.rows - 1)), tf.int64)
        return rows, tf.where((ids >= 0) & (ids < part.rows), places, -1), mask


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


def sampled_classes(ids, num_classes, *, size, seed, step, part=0):
    """The batch's own classes and a sample of all classes, a pure function of seed and step.

    One class is drawn from each of `size` equal ranges, so that no class is drawn twice.

    Args:
        ids: int64 `[N]`, own classes of the global batch; those that are not in `0 .. C - 1` (they
            belong to another part of the classes) are left out.
        num_classes: int C.
        size: int, classes to draw, at most C.
        seed: int.
        step: int or integer scalar.
        part: int, number of this part, where the classes are one of several equal parts: together
            they draw what `size` times their number draws from all.

    Returns:
        `(rows int64 [N + size], mask bool [N + size], first int32 [C])`: classes, which of them
        stand there for the first time, and where each class does so (`N + size` if nowhere).

    Example:
        >>> rows, mask, first = sampled_classes(
        ...     tf.constant([3, 3], tf.int64), 4, size=4, seed=0, step=0)
        >>> rows.numpy().tolist(), mask.numpy().tolist(), first.numpy().tolist()
        ([3, 3, 0, 1, 2, 3], [True, False, True, True, True, False], [2, 3, 4, 0])

    References:
        An et al., "Partial FC: Training 10 Million Identities on a Single Machine", 2021.
    """
    starts = tf.range(size + 1, dtype=tf.int64) * num_classes // size
    lengths = tf.cast(starts[1:] - starts[:-1], tf.float64)
    chances = _uniform(part * size + tf.range(size), seed, step)
    drawn = starts[:-1] + tf.cast(tf.floor(chances * lengths), tf.int64)
    here = (ids >= 0) & (ids < num_classes)
    rows = tf.concat([tf.where(here, ids, drawn[0]), drawn], 0)
    numbers = tf.range(tf.shape(rows)[0])
    first = tf.fill([num_classes], tf.shape(rows)[0])
    first = tf.tensor_scatter_nd_min(first, rows[:, None], numbers)
    return rows, tf.equal(tf.gather(first, rows), numbers), first


def _uniform(numbers, seed, step):
    """float64 in 0..1, one for each number.

    TensorFlow's stateless generators differ under XLA; this does not.

    References:
        Finalizer of MurmurHash3: Appleby, 2011.
    """
    values = tf.cast(numbers, tf.uint32)
    for word in (tf.constant(seed % 2**32, tf.uint32), tf.cast(step, tf.uint32)):
        values = _mixed(tf.bitwise.bitwise_xor(_mixed(values), _mixed(word + 1)))
    return tf.cast(values, tf.float64) / 2.0**32


def _mixed(values):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        shifted = tf.bitwise.right_shift(values, tf.constant(shift, tf.uint32))
        values = tf.bitwise.bitwise_xor(values, shifted) * tf.constant(factor, tf.uint32)
    return values
