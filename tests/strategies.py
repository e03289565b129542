"""The strategy over two devices, one object for all tests of a process."""

import functools

import tensorflow as tf


@functools.cache
def mirrored():
    """A second one would number its collectives from the start, and meet the first one's shapes."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def split(function, arrays, *, at):
    """Results of a function on two replicas, the first with the rows up to `at`.

    Returns a list of two results, the replicas' own, for each output of the function.
    """
    strategy = mirrored()
    parts = [
        strategy.experimental_distribute_values_from_function(
            lambda context, array=array: tf.constant(
                (array[:at], array[at:])[context.replica_id_in_sync_group]
            )
        )
        for array in arrays
    ]
    outputs = tf.function(lambda: strategy.run(function, args=tuple(parts)))()
    return [strategy.experimental_local_results(output) for output in outputs]
