"""Variables of which each replica holds its own rows: nobody holds the whole matrix.

To TensorFlow such a variable is a mirrored one whose copies differ. Everything else (saving,
loading, `get_weights`, an optimizer's moments) sees the whole matrix.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat

__all__ = ["Part", "ShardedVariable", "is_sharded", "own_copy", "part_of"]


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
    the whole is an exchange that all of them have to join. Make it under the strategy.

    Args:
        initializer: Keras initializer or its name.
        shape: tuple of int, the whole matrix's.
        drawn_whole: bool. The initializer is called once with the whole shape, so that its numbers
            are the same on any number of replicas; False: with the shape of one replica's rows, in
            their memory alone, for initializers that give all rows the same.
        **kwargs: as `keras.Variable`.

    Raises:
        NotImplementedError: under Keras 2.
        RuntimeError: made within a replica.

    Example:
        >>> variable = ShardedVariable("zeros", (3, 2))
        >>> variable.assign(tf.ones([3, 2]))[0].numpy().tolist(), variable.shape.as_list()
        ([1.0, 1.0], [3, 2])
    """

    def __init__(self, initializer, shape, *, drawn_whole=True, **kwargs):
        compat.require_keras_3("Sharding over replicas")
        self._drawn_whole, self._gather = drawn_whole, None
        super().__init__(keras.initializers.get(initializer), shape, **kwargs)

    def numpy(self):
        """The whole matrix, `np.ndarray`."""
        parts = _local_parts(self._value)
        if len(parts) < _count(self._value):
            self._gather = self._gather or _gatherer(self._value)
            return self._gather()[: self.shape[0]].numpy()
        return np.concatenate([part.numpy() for part in parts])[: self.shape[0]]

    def __array__(self, dtype=None, copy=None):
        del copy  # It always is one.
        return np.asarray(self.numpy(), dtype)

    def assign(self, value):
        """Assigns the whole matrix, or within a replica that replica's rows."""
        part = _local_parts(self._value)[0].shape
        if tuple(value.shape) == tuple(self.shape):
            _spread(self._value, value)
        elif tuple(value.shape) == tuple(part):
            self._direct_assign(value)
        else:
            raise ValueError(
                f"{self.path} takes values of its shape {tuple(self.shape)}, or within a replica "
                f"of its rows' shape {tuple(part)}; found shape {tuple(value.shape)}."
            )
        return value

    # What tf.train.Checkpoint asks for.
    def _serialize_to_tensors(self):
        return {"VARIABLE_VALUE": tf.constant(self.numpy())}

    def _restore_from_tensors(self, restored_tensors):
        self.assign(restored_tensors["VARIABLE_VALUE"])
        return self._value

    # What Keras asks for when the variable is made, or when it leaves a stateless scope.
    def _initialize_with_initializer(self, initializer):
        part = (_rows_of_part(self._shape[0]), *self._shape[1:])
        if not self._drawn_whole:
            return self._initialize(lambda: initializer(part, dtype=self._dtype))
        self._initialize(lambda: tf.zeros(part, self._dtype))
        _spread(self._value, initializer(self._shape, dtype=self._dtype))


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


def own_copy(variable):
    """The `tf.Variable` of the replica at hand, behind a weight of which each replica has one.

    Rows gathered from it are read alone: of the weight itself, over replicas, TensorFlow reads all,
    which it copies once rows of it are written.

    Args:
        variable: Keras variable, sharded, mirrored or of one replica.

    Returns:
        `tf.Variable`.

    Example:
        >>> own_copy(ShardedVariable("zeros", (3, 2))).shape.as_list()
        [3, 2]
    """
    value = compat.tf_variable(variable)
    return next(part for part in _local_parts(value) if part.handle is value.handle)


def part_of(variable):
    """Which rows of the whole the replica at hand holds.

    Args:
        variable: `ShardedVariable`.

    Returns:
        Part.

    Raises:
        RuntimeError: not within one of the replicas that share the variable.

    Example:
        >>> part = part_of(ShardedVariable("zeros", (3, 2)))
        >>> int(part.first), part.rows, part.parts
        (0, 3, 1)
    """
    count, rows = _count(variable._value), _local_parts(variable._value)[0].shape[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync != count:
        raise RuntimeError(
            f"The rows of {variable.path!r} are on {count} replicas, and this is not one of them. "
            "Call the layer within `strategy.run`, or train and evaluate by EmbeddingModel."
        )
    return Part(context.replica_id_in_sync_group, rows, variable.shape[0], count)


def _rows_of_part(whole):
    """Rows that each replica holds of `whole` ones, under the strategy in scope."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync > 1 and not tf.distribute.in_cross_replica_context():
        raise RuntimeError(
            "Weights that are sharded over replicas must be made outside of them: build the layer "
            "under `with strategy.scope():`, before `strategy.run`."
        )
    return -(-whole // strategy.num_replicas_in_sync)


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
