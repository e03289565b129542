"""Where a batch meets the other replicas' batches: the only module that talks to tf.distribute.

The rule of the house: each replica computes the part of a loss that belongs to its own rows,
already divided by global counts, so that the sum over replicas is the loss of the global batch.
"""

import tensorflow as tf

__all__ = [
    "all_reduce_sum",
    "all_reduce_sums",
    "check_strategy",
    "gather_examples",
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
    """Rows of the whole global batch, in the order of the replicas.

    The gradient is the sum over replicas of the gradients of `all_rows`, own rows of it.

    Args:
        rows: `[n, ...]` tensor of any dtype, this replica's part of the global batch.

    Returns:
        `all_rows [N, ...]`; on one replica `rows`.

    Raises:
        NotImplementedError: under a strategy that cannot have a global batch.

    Example:
        >>> gather_rows(tf.ones([4, 2])).shape.as_list()
        [4, 2]
    """
    context = replica_context()
    if context is None:
        return rows
    rows = tf.convert_to_tensor(rows)
    everything = context.all_gather(tf.identity(tf.stop_gradient(rows)), axis=0)
    if not rows.dtype.is_floating:
        return everything
    if on_tpu():
        offset = _static_offset(rows, context)
    else:
        sizes = context.all_gather(tf.identity(tf.shape(rows)[:1]), axis=0)
        offset = tf.reduce_sum(sizes[: context.replica_id_in_sync_group])
    return _with_gradient(rows, everything, offset, context)


def gather_examples(rows, ids=None):
    """Rows and ids of the whole global batch, and where this replica's own begin, in one exchange.

    Anchors are a replica's own rows; keys are all rows. On one replica both are the same. The
    offset is exact for uneven batches and for replicas without any row. The gradient is that of
    `gather_rows`.

    Args:
        rows: `[n, D]` float32 or float64, this replica's part of the global batch.
        ids: int64 `[n]`, or None.

    Returns:
        `(all_rows [N, D], all_ids [N] or None, offset)`: own row `i` is row `offset + i`.

    Raises:
        NotImplementedError: under a strategy that cannot have a global batch.

    Example:
        >>> ids = tf.range(4, dtype=tf.int64)
        >>> all_rows, all_ids, offset = gather_examples(tf.ones([4, 2]), ids)
        >>> all_rows.shape.as_list(), all_ids.shape.as_list(), offset
        ([4, 2], [4], 0)
    """
    context = replica_context()
    if context is None:
        return rows, ids, 0
    rows = tf.convert_to_tensor(rows)
    if on_tpu():
        offset = _static_offset(rows, context)
        everything = context.all_gather(tf.stop_gradient(rows), axis=0)
        all_ids = None if ids is None else context.all_gather(ids, axis=0)
        return _with_gradient(rows, everything, offset, context), all_ids, offset
    # An exchange waits for the slowest, and TensorFlow asks for sizes before each: one for all,
    # with the bits of all that belongs to a row side by side.
    number = tf.fill(tf.shape(rows)[:1], context.replica_id_in_sync_group)
    columns = [rows, number] if ids is None else [rows, number, ids]
    words = tf.concat([_words(tf.stop_gradient(column)) for column in columns], axis=1)
    words = context.all_gather(tf.identity(words), axis=0)
    dim, size = tf.shape(rows)[1], rows.dtype.size // 4
    everything = words[:, : dim * size]
    if size > 1:
        everything = tf.bitcast(tf.reshape(everything, [-1, dim, size]), rows.dtype)
    everything = tf.ensure_shape(everything, [None, rows.shape[1]])
    numbers = tf.bitcast(words[:, dim * size], tf.int32)
    offset = tf.math.count_nonzero(numbers < context.replica_id_in_sync_group, dtype=tf.int32)
    all_ids = None if ids is None else tf.bitcast(words[:, dim * size + 1 :], tf.int64)
    return _with_gradient(rows, everything, offset, context), all_ids, offset


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


def _with_gradient(own_rows, everything, offset, context):
    @tf.custom_gradient
    def gather(own_rows):
        def gradient(upstream):
            (summed,) = _reduced(context, [upstream])
            part = summed[offset : offset + tf.shape(own_rows)[0]]
            return tf.ensure_shape(part, own_rows.shape)

        return tf.identity(everything), gradient

    return gather(own_rows)


def _words(values):
    """The bits of `[n]` or `[n, D]` values of 4 or 8 bytes, as float32 `[n, words]`."""
    # Not as integers, which TensorFlow keeps in the host's memory. Gathering only moves them.
    shape = tf.shape(values)
    width = tf.reduce_prod(shape[1:]) * (values.dtype.size // 4)
    return tf.reshape(tf.bitcast(values, tf.float32), [shape[0], width])


def _reduced(context, values):
    # MultiWorkerMirroredStrategy reads the device off the tensor, and neither a function's argument
    # nor a gradient need have one: hence the identities, here and where rows are gathered.
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
