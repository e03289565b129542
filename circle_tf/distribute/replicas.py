"""Where a batch meets the other replicas' batches: the only module that talks to tf.distribute.

The rule of the house: each replica computes the part of a loss that belongs to its own rows,
already divided by global counts, so that the sum over replicas is the loss of the global batch.
"""

import contextlib
import functools
import threading

import tensorflow as tf

__all__ = [
    "check_strategy",
    "compiled",
    "gather_rows",
    "maths",
    "num_replicas",
    "on_tpu",
    "once",
    "replica_context",
    "step",
    "total",
    "total_all",
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


class _Step(threading.local):
    """What holds during one step of one replica: replicas trace in threads of their own."""

    compiled = False
    made = None


_STEP = _Step()


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


def once(make, *inputs):
    """What `make()` returns, called only once in a step for the same inputs.

    The loss and each monitor look at the same global batch: it is gathered once.

    Args:
        make: function without arguments.
        *inputs: the objects on which its result depends, compared by identity.

    Returns:
        What `make` returned.

    Example:
        >>> once(lambda: 3, "key")
        3
    """
    if _STEP.made is None or replica_context() is None:
        return make()
    key = tuple(id(value) for value in inputs)
    if key not in _STEP.made:
        # The inputs are kept, so that none of their ids can pass to another object.
        _STEP.made[key] = (make(), inputs)
    return _STEP.made[key][0]


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


def total(value):
    """Sum of a number over all replicas, without gradient; the number itself on one replica.

    Args:
        value: scalar tensor or number; counts must stay below 2^24.

    Returns:
        Scalar, float32 if summed.

    Example:
        >>> int(total(3))
        3
    """
    context = replica_context()
    if context is None:
        return value
    return _all_reduce(context, [tf.stop_gradient(tf.cast(value, tf.float32))])[0]


def total_all(values):
    """Sums of many tensors over all replicas, in as few exchanges as there are dtypes.

    Args:
        values: list of tensors (or `tf.IndexedSlices`), None entries stay None.

    Returns:
        list of the same structure; the values themselves on one replica.

    Example:
        >>> total_all([tf.constant(1.0), None])[1] is None
        True
    """
    context = replica_context()
    if context is None:
        return list(values)
    results = list(values)
    for indices in _by_kind(values):
        reduced = _all_reduce(context, [values[index] for index in indices])
        for index, value in zip(indices, reduced, strict=True):
            results[index] = value
    return results


def maths(function, *tensors):
    """Calls a pure function of tensors, compiled by XLA where the step at hand asks for it.

    Collectives cannot stand inside: gather first, then hand over what was gathered.

    Args:
        function: function of tensors.
        *tensors: its arguments.

    Returns:
        What the function returns.

    Example:
        >>> float(maths(tf.reduce_sum, tf.ones([3])))
        3.0
    """
    if not _STEP.compiled:
        return function(*tensors)
    # A new tf.function at each trace: it captures this replica's variables and no other's.
    return tf.function(function, jit_compile=True, autograph=False)(*tensors)


def compiled(function):
    """Decorates a pure function of tensors that XLA compiles wherever it is called.

    Within something that is compiled as a whole it is a part of that.

    Args:
        function: function of tensors, and of Python values that are compared by value.

    Returns:
        Function.

    Example:
        >>> float(compiled(tf.reduce_sum)(tf.ones([3])))
        3.0
    """
    alone = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*args, **options):
        return (function if on_tpu() else alone)(*args, **options)

    return call


@contextlib.contextmanager
def step(*, compiled):
    """Marks one step of one replica: what `once` made is remembered until its end.

    Args:
        compiled: whether `maths` compiles by XLA.

    Yields:
        None.

    Example:
        >>> with step(compiled=True):
        ...     float(maths(tf.reduce_sum, tf.ones([3])))
        3.0
    """
    before = (_STEP.compiled, _STEP.made)
    _STEP.compiled, _STEP.made = compiled, {}
    try:
        yield
    finally:
        _STEP.compiled, _STEP.made = before


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
            (summed,) = _all_reduce(context, [upstream])
            part = summed[offset : offset + tf.shape(own_rows)[0]]
            return tf.ensure_shape(part, own_rows.shape)

        return everything, gradient

    return gather(tf.convert_to_tensor(rows)), offset


def _all_reduce(context, values):
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
