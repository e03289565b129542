"""Variables of which each replica holds its own rows: nobody holds the whole matrix.

To TensorFlow such a variable is a mirrored one whose copies differ. Everything else (saving,
loading, `get_weights`, an optimizer's moments) sees the whole matrix.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat

__all__ = ["Part", "ShardedVariable", "is_sharded", "part_of", "rows_of_part", "shard"]


class Part(NamedTuple):
    """Where one replica's rows stand in the whole matrix.

    Args:
        number: int or int32 scalar, the replica's.
        rows: int, how many rows it holds.
        whole: int, rows of the matrix.
        parts: int, how many replicas share it.
    """

    number: int | tf.Tensor
    rows: int
    whole: int
    parts: int = 1

    @property
    def first(self):
        """Number of the first row, int64 scalar."""
        return tf.cast(self.number, tf.int64) * self.rows

    @property
    def mask(self):
        """None, or bool `[rows]`: which are rows of the matrix, where some only fill it up."""
        if self.rows * self.parts == self.whole:
            return None
        return self.first + tf.range(self.rows, dtype=tf.int64) < self.whole


class ShardedVariable(compat.KerasVariable):
    """A Keras variable `[N, ...]` of which replica r holds rows `r * n .. (r + 1) * n - 1`.

    `n` is N over the number of replicas, rounded up; rows beyond N fill up the last shards. In a
    replica its value is the replica's own rows; `shape`, `numpy()` and `assign` outside of replicas
    are those of the whole matrix. Where replicas are in several processes, reading and assigning
    the whole is an exchange that all of them have to join.

    Made by `shard`, from a variable that holds one replica's rows.
    """

    whole_rows = 0
    whole_initializer = None
    _as_part = False
    _gather = None

    @property
    def shape(self):
        """Shape of the whole matrix, `tf.TensorShape`."""
        if self._as_part:
            return tf.TensorShape(self._shape)
        return tf.TensorShape([self.whole_rows, *self._shape[1:]])

    def numpy(self):
        """The whole matrix, `np.ndarray`."""
        parts = _local_parts(self._value)
        if len(parts) < _count(self._value):
            self._gather = self._gather or _gatherer(self._value)
            return self._gather()[: self.whole_rows].numpy()
        return np.concatenate([part.numpy() for part in parts])[: self.whole_rows]

    def __array__(self, dtype=None, copy=None):
        del copy  # It always is one.
        return np.asarray(self.numpy(), dtype)

    def assign(self, value):
        """Assigns the whole matrix, or within a replica that replica's rows."""
        if tuple(value.shape) != tuple(self.shape):
            with self.seen_as_part():
                return super().assign(value)
        _spread(self._value, value)
        return value

    def seen_as_part(self):
        """Within it `shape` is that of one replica's rows: for an optimizer that makes moments.

        Returns:
            Context manager.
        """
        return _SeenAsPart(self)

    # What tf.train.Checkpoint asks for.
    def _serialize_to_tensors(self):
        return {"VARIABLE_VALUE": tf.constant(self.numpy())}

    def _restore_from_tensors(self, restored_tensors):
        self.assign(restored_tensors["VARIABLE_VALUE"])
        return self._value

    def _initialize_with_initializer(self, initializer):
        del initializer
        super()._initialize_with_initializer(keras.initializers.Zeros())
        if self.whole_initializer is not None:
            _spread(self._value, self.whole_initializer(self.shape, dtype=self._dtype))


class _SeenAsPart:
    def __init__(self, variable):
        self._variable = variable

    def __enter__(self):
        self._variable._as_part = True

    def __exit__(self, *_):
        self._variable._as_part = False


def is_sharded(variable):
    """Whether a variable is a `ShardedVariable`.

    Args:
        variable: Keras variable.

    Returns:
        bool.

    Example:
        >>> is_sharded(keras.Variable([1.0]))
        False
    """
    return isinstance(variable, ShardedVariable)


def rows_of_part(whole):
    """Rows that each replica holds of `whole` ones, under the strategy in scope.

    Args:
        whole: int.

    Returns:
        int.

    Raises:
        RuntimeError: within a replica, where variables of several replicas cannot be made.

    Example:
        >>> rows_of_part(10)
        10
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync > 1 and not tf.distribute.in_cross_replica_context():
        raise RuntimeError(
            "Weights that are sharded over replicas must be made outside of them: build the layer "
            "under `with strategy.scope():`, before `strategy.run`."
        )
    return -(-whole // strategy.num_replicas_in_sync)


def shard(variable, *, whole_rows, initializer=None):
    """Makes a variable that holds one replica's rows the whole matrix's `ShardedVariable`.

    Args:
        variable: Keras variable `[rows_of_part(N), ...]`, made under the strategy.
        whole_rows: int N.
        initializer: None (its values stay), or a Keras initializer, called with the whole shape.

    Returns:
        The same object.

    Example:
        >>> variable = shard(keras.Variable(tf.zeros([3, 2])), whole_rows=3)
        >>> variable.assign(tf.ones([3, 2]))[0].numpy().tolist(), variable.shape.as_list()
        ([1.0, 1.0], [3, 2])
    """
    compat.require_keras_3("Sharding over replicas")
    variable.__class__ = ShardedVariable
    variable.whole_rows, variable.whole_initializer = whole_rows, initializer
    if initializer is not None and variable._value is not None:
        _spread(variable._value, initializer(variable.shape, dtype=variable.dtype))
    return variable


def part_of(variable):
    """Which rows of the whole the replica at hand holds.

    Args:
        variable: `ShardedVariable`.

    Returns:
        Part.

    Raises:
        RuntimeError: not within one of the replicas that share the variable.

    Example:
        >>> part = part_of(shard(keras.Variable(tf.zeros([3, 2])), whole_rows=3))
        >>> int(part.first), part.rows, part.parts
        (0, 3, 1)
    """
    count, rows = _count(variable._value), int(variable._shape[0])
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync != count:
        raise RuntimeError(
            f"The rows of {variable.path!r} are on {count} replicas, and this is not one of them. "
            "Call the layer within `strategy.run`, or train and evaluate by EmbeddingModel."
        )
    return Part(context.replica_id_in_sync_group, rows, variable.whole_rows, count)


def _count(value):
    if isinstance(value, tf.distribute.DistributedValues):
        return value.distribute_strategy.num_replicas_in_sync
    return 1


def _local_parts(value):
    """The parts that are in this process, in the order of the replicas."""
    if _count(value) == 1:
        return [value]
    return value.distribute_strategy.experimental_local_results(value)


def _gatherer(value):
    """A function that returns the parts of all processes, one below the other."""
    strategy = value.distribute_strategy

    def own():
        part = tf.identity(tf.convert_to_tensor(value))
        return tf.distribute.get_replica_context().all_gather(part, axis=0)

    gather = tf.function(lambda: strategy.run(own), autograph=False)
    return lambda: strategy.experimental_local_results(gather())[0]


def _spread(value, whole):
    """Gives each part in this process its rows of the whole."""
    parts = _local_parts(value)
    rows = int(parts[0].shape[0])
    for number, part in zip(_numbers(value, len(parts)), parts, strict=True):
        own = tf.convert_to_tensor(whole[number * rows : (number + 1) * rows], part.dtype)
        missing = rows - own.shape[0]
        part.assign(tf.pad(own, [[0, missing], *[[0, 0]] * (own.shape.rank - 1)]))


def _numbers(value, local):
    """Numbers of the replicas whose parts are in this process."""
    if local == _count(value):
        return range(local)
    strategy = value.distribute_strategy

    @tf.function(autograph=False)
    def numbers():
        def own():
            return tf.identity(tf.distribute.get_replica_context().replica_id_in_sync_group)

        return strategy.run(own)

    return [int(number) for number in strategy.experimental_local_results(numbers())]
