"""Where a batch meets the other replicas' batches: the only module that talks to tf.distribute.

The rule of the house: each replica computes the part of a loss that belongs to its own rows,
already divided by global counts, so that the sum over replicas is the loss of the global batch.
"""

import tensorflow as tf

__all__ = [
    "all_reduce_sum",
    "all_reduce_sums",
    "check_strategy",
    "gather_rows",
    "num_replicas",
    "on_tpu",
    "replica_context",
]

_REFUSED = {
    "CentralStorageStrategy": (
        "Keras 3 trains under it without an error and with wrong numbers (each replica updates "
        "the one copy of the weights on its own)"
    ),
    "ParameterServerStrategy": (
        "Keras 3 does not support it, and its workers step at different times: there is no global "
        "batch whose pairs a loss could see"
    ),
}


def gather_rows(rows):
    """Rows of the whole global batch, and where this replica's own rows begin in it.

    Anchors are a replica's own rows; keys are all rows. On one replica both are the same. Sizes
    are gathered too, so that the offset is exact for uneven batches and for replicas without any
    row. The gradient is the sum over replicas of the gradients of `all_rows`, own rows of it.

    Args:
        rows: `[n, ...]` tensor, this replica's part of the global batch.

    Returns:
        `(all_rows [N, ...], offset)`: own row `i` is row `offset + i` of `all_rows`.

    Raises:
        NotImplementedError: under a strategy that cannot have a global batch.

    Example:
        >>> all_rows, offset = gather_rows(tf.ones([4, 2]))
        >>> all_rows.shape.as_list(), offset
        ([4, 2], 0)
    """
    context = replica_context()
    if context is None:
        return rows, 0
    return _gather(rows, context)


def replica_context():
    """The replica context of a strategy with several replicas; None wherever the batch is whole.

    Returns:
        `tf.distribute.ReplicaContext` or None.

    Raises:
        NotImplementedError: under a strategy that cannot have a global batch.

    Example:
        >>> replica_context() is None
        True
    """
    strategy = tf.distribute.get_strategy()
    check_strategy(strategy)
    if strategy.num_replicas_in_sync == 1:
        return None
    return tf.distribute.get_replica_context()


def num_replicas():
    """Number of replicas that share the batch at hand: 1 wherever the batch is whole.

    Returns:
        int.

    Example:
        >>> num_replicas()
        1
    """
    context = replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def on_tpu():
    """Whether a TPU strategy is at work: it compiles the step as a whole, nothing in it alone.

    Returns:
        bool.

    Example:
        >>> on_tpu()
        False
    """
    return type(tf.distribute.get_strategy()).__name__.startswith("TPUStrategy")


def all_reduce_sum(value):
    """Sum of a number over all replicas, without gradient; the number itself on one replica.

    Args:
        value: scalar tensor or number; counts must stay below 2^24.

    Returns:
        Scalar, float32 if summed.

    Example:
        >>> int(all_reduce_sum(3))
        3
    """
    context = replica_context()
    if context is None:
        return value
    return _reduced(context, [tf.stop_gradient(tf.cast(value, tf.float32))])[0]


def all_reduce_sums(values):
    """Sums of many tensors over all replicas, in as few exchanges as there are dtypes.

    Args:
        values: list of tensors (or `tf.IndexedSlices`), None entries stay None.

    Returns:
        list of the same structure; the values themselves on one replica.

    Example:
        >>> all_reduce_sums([tf.constant(1.0), None])[1] is None
        True
    """
    context = replica_context()
    if context is None:
        return list(values)
    results = list(values)
    for indices in _by_kind(values):
        reduced = _reduced(context, [values[index] for index in indices])
        for index, value in zip(indices, reduced, strict=True):
            results[index] = value
    return results


def check_strategy(strategy):
    """Refuses a strategy under which there is no global batch.

    Args:
        strategy: a `tf.distribute.Strategy`.

    Raises:
        NotImplementedError: it is a CentralStorageStrategy or a ParameterServerStrategy.

    Example:
        >>> check_strategy(tf.distribute.get_strategy())
        >>> check_strategy(tf.distribute.experimental.CentralStorageStrategy(["CPU:0"]))
        Traceback (most recent call last):
        NotImplementedError: circle_tf does not train under CentralStorageStrategy: ...
    """
    for kind in type(strategy).__mro__:
        for name, reason in _REFUSED.items():
            if kind.__name__.startswith(name):
                raise NotImplementedError(
                    f"circle_tf does not train under {type(strategy).__name__}: {reason}. Use "
                    "tf.distribute.MirroredStrategy (one machine) or "
                    "tf.distribute.MultiWorkerMirroredStrategy (several)."
                )


def _gather(rows, context):
    if on_tpu():
        offset = _static_offset(rows, context)
    else:
        own = tf.identity(tf.shape(rows)[:1])
        sizes = context.all_gather(own, axis=0)
        offset = tf.reduce_sum(sizes[: context.replica_id_in_sync_group])

    @tf.custom_gradient
    def gather(own_rows):
        everything = context.all_gather(tf.identity(own_rows), axis=0)

        def gradient(upstream):
            (summed,) = _reduced(context, [upstream])
            part = summed[offset : offset + tf.shape(own_rows)[0]]
            return tf.ensure_shape(part, own_rows.shape)

        return everything, gradient

    return gather(tf.convert_to_tensor(rows)), offset


def _reduced(context, values):
    # MultiWorkerMirroredStrategy reads the device off the tensor, and neither a function's argument
    # nor a gradient need have one: hence the identities, here and in _gather.
    return context.all_reduce("sum", [tf.identity(value) for value in values])


def _static_offset(rows, context):
    if rows.shape[0] is None:
        raise ValueError(
            "Under TPUStrategy every replica must have the same, static number of rows: batch with "
            "drop_remainder=True."
        )
    return context.replica_id_in_sync_group * rows.shape[0]


def _by_kind(values):
    kinds = {}
    for index, value in enumerate(values):
        if value is not None:
            kind = (value.dtype, isinstance(value, tf.IndexedSlices))
            kinds.setdefault(kind, []).append(index)
    return kinds.values()
