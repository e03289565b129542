"""Checks on arguments, and on values that are known only when a step runs."""

import numbers

import numpy as np
import tensorflow as tf

__all__ = ["passing", "several", "single", "whole_number", "without_objects"]

_SHOWN = 16


def passing(value, condition, message, data):
    """`value`, once `condition` has been seen to hold.

    Args:
        value: tensor to hand on.
        condition: scalar bool tensor.
        message: str, what was expected; `data` follow it.
        data: tensor, what was found (the first 16 entries are shown).

    Returns:
        `value`. XLA drops the check: whoever relies on it must make the result NaN as well.

    Raises:
        tf.errors.InvalidArgumentError: when run, with the message.

    Example:
        >>> float(passing(tf.constant(1.0), tf.constant(True), "1 is 1; found", tf.constant(1)))
        1.0
    """
    if tf.executing_eagerly():
        if not condition:
            # tf.debugging.Assert would put its own words and a bytes literal around the message.
            found = tf.reshape(data, [-1])
            shown = str(found[:_SHOWN].numpy().tolist())
            more = ", ..." if tf.size(found) > _SHOWN else ""
            raise tf.errors.InvalidArgumentError(None, None, f"{message} {shown[:-1]}{more}].")
        return value
    with tf.control_dependencies(
        [tf.debugging.Assert(condition, [message, data], summarize=_SHOWN)]
    ):
        return tf.identity(value)


def whole_number(value, name, *, least):
    """The int that `value` is.

    Args:
        value: what was given.
        name: str, whose value it is.
        least: int.

    Returns:
        int.

    Raises:
        ValueError: not a whole number, or below `least`.

    Example:
        >>> whole_number(0, "dim", least=1)
        Traceback (most recent call last):
        ValueError: dim must be a whole number of 1 or more; found 0.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or value != value // 1 or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more; found {value!r}.")
    return int(value)


def several(values):
    """A list of values, also of one that stands alone.

    Args:
        values: a number, or a sequence of them.

    Returns:
        list.

    Example:
        >>> several((1, 5)), several(5)
        ([1, 5], [5])
    """
    return list(values) if np.ndim(values) else [values]


def single(value, name, *, instead):
    """Refuses a sequence where one value is wanted.

    Args:
        value: what was given.
        name: str, whose value it is.
        instead: str, what takes several.

    Raises:
        ValueError: it is a sequence.

    Example:
        >>> single([1, 5], "k", instead="retrieval_report(..., ks=...)")
        Traceback (most recent call last):
        ValueError: k must be one number; found [1, 5]. For several: retrieval_report(..., ks=...).
    """
    if np.ndim(value):
        raise ValueError(f"{name} must be one number; found {value!r}. For several: {instead}.")


def without_objects(values):
    """An array of Python's whole numbers as an array of integers; any other as it is.

    Args:
        values: NumPy array.

    Returns:
        NumPy array.

    Example:
        >>> without_objects(np.array([3, 2**40], object)).dtype
        dtype('int64')
    """
    if values.dtype != object or not values.size:
        return values
    is_whole = [isinstance(v, numbers.Integral) and not isinstance(v, bool) for v in values.flat]
    return np.array(values.tolist()) if all(is_whole) else values
