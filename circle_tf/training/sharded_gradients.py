"""Gradients of variables whose rows are spread over replicas: not summed, but treated alike.

Such a gradient is complete on the replica that holds the rows. What an optimizer decides by looking
at gradients, whether one is inf and how long all are together, must come out the same everywhere.
"""

import tensorflow as tf

from circle_tf.distribute import sharded_variable
from circle_tf.optimizers import extension, row_updates

__all__ = ["agreed", "check_optimizer", "facts", "shared"]


def check_optimizer(optimizer, variables, *, accumulated):
    """Refuses an optimizer whose updates would not be those of one device.

    Args:
        optimizer: Keras optimizer.
        variables: the trainable variables.
        accumulated: bool, whether gradients of several batches are summed before an update.

    Raises:
        NotImplementedError: some of the variables are sharded, and it cannot update them.
    """
    if not any(map(sharded_variable.is_sharded, variables)):
        return
    inner = extension.inner_optimizer(optimizer)
    if type(inner).__name__ in row_updates.MIXING_OPTIMIZERS:
        raise NotImplementedError(
            f"{type(inner).__name__} looks at whole weights, and the rows of a head with "
            "shards='replicas' are on several replicas. Use SGD, Adam or another optimizer that "
            "updates each number by itself, or a head without shards."
        )
    if accumulated and (inner.clipnorm or inner.global_clipnorm):
        raise NotImplementedError(
            "gradient_accumulation with clipnorm or global_clipnorm is not for a head with "
            "shards='replicas'. Leave out one of the three, or use clipvalue."
        )


def shared(gradients, variables):
    """The gradients that are to be summed over replicas; None in place of the others.

    Args:
        gradients: list, one for each variable.
        variables: the trainable variables.

    Returns:
        list.
    """
    return [
        None if sharded_variable.is_sharded(variable) else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def facts(gradients, variables):
    """What the other replicas have to know of this one's gradients; to be summed over replicas.

    Args:
        gradients: list, one for each variable.
        variables: the trainable variables.

    Returns:
        list: for sharded variables `[2]`, whether it is not finite and the sum of its squares; None
        for others.
    """
    return [
        _facts(gradient) if gradient is not None and sharded_variable.is_sharded(variable) else None
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def agreed(gradients, summed, facts, optimizer):
    """The gradients to apply: alike on all replicas in what is finite and what is clipped.

    Args:
        gradients: list of this replica's own.
        summed: list of those summed over replicas, None in place of the others.
        facts: what the function `facts` gave, summed over replicas.
        optimizer: Keras optimizer.

    Returns:
        list.
    """
    if all(fact is None for fact in facts):
        return summed
    joined = [
        total if fact is None else _changed(own, lambda v, fact=fact: _nan_if(fact[0] > 0, v))
        for own, total, fact in zip(gradients, summed, facts, strict=True)
    ]
    return _clipped(joined, facts, optimizer)


def _facts(gradient):
    # Rows drawn twice have their gradient in one place: values stand for the gradient.
    values = tf.cast(_values(gradient), tf.float32)
    bad = tf.reduce_any(~tf.math.is_finite(values))
    return tf.stack([tf.cast(bad, tf.float32), tf.reduce_sum(tf.square(values))])


def _clipped(gradients, facts, optimizer):
    """Clipped by norms over all replicas; the optimizer then finds nothing left to clip."""
    inner = extension.inner_optimizer(optimizer)
    scale = tf.cast(optimizer.scale_loss(1.0), tf.float32)
    if inner.clipnorm:
        return [
            gradient if fact is None else _shortened(gradient, fact[1], inner.clipnorm * scale)
            for gradient, fact in zip(gradients, facts, strict=True)
        ]
    if inner.global_clipnorm:
        squares = [
            tf.reduce_sum(tf.square(tf.cast(_values(gradient), tf.float32)))
            if fact is None
            else fact[1]
            for gradient, fact in zip(gradients, facts, strict=True)
            if gradient is not None
        ]
        limit = inner.global_clipnorm * scale
        return [
            gradient if gradient is None else _shortened(gradient, tf.add_n(squares), limit)
            for gradient in gradients
        ]
    return gradients


def _shortened(gradient, square, limit):
    factor = limit / tf.maximum(tf.sqrt(square), limit)
    return _changed(gradient, lambda values: values * tf.cast(factor, values.dtype))


def _nan_if(bad, values):
    return tf.where(bad, tf.constant(float("nan"), values.dtype), values)


def _values(gradient):
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _changed(gradient, change):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)
