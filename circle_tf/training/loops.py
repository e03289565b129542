"""What Keras' training and evaluation loops call, where several replicas step together."""

import contextlib

import keras
import tensorflow as tf

__all__ = ["make_function"]


def make_function(model, step):
    """What Keras' loops call: a step, or several, on the next of an iterator's batches.

    Args:
        model: compiled `EmbeddingModel`.
        step: function of one replica's data that returns a dict of logs.

    Returns:
        Function of an iterator that returns logs, and raises `StopIteration` or
        `tf.errors.OutOfRangeError` at its end.
    """
    strategy = model.distribute_strategy
    maybe_graph = (lambda f, **_: f) if model.run_eagerly else tf.function

    def one_step(data):
        logs = strategy.run(step, args=(data,))
        # Logs are the same on all replicas.
        return {key: strategy.experimental_local_results(v)[0] for key, v in logs.items()}

    @_with_options(maybe_graph)
    def on_next(iterator):
        return one_step(iterator.get_next())

    @_with_options(maybe_graph, reduce_retracing=True)
    def on_batches(batches):
        return [one_step(data) for data in batches][-1]

    def function(iterator):
        if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return on_batches([_spread(strategy, next(iterator))])
        if model.steps_per_execution == 1:
            return on_next(iterator)
        return on_batches(_take(iterator, model.steps_per_execution))

    return function


def _with_options(decorate, **options):
    return lambda function: decorate(tf.autograph.experimental.do_not_convert(function), **options)


def _take(iterator, count):
    """The next batches; fewer at the end of the data, at least one."""
    batches = [next(iterator)]
    with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
        while len(batches) < count:
            batches.append(next(iterator))
    return batches


def _spread(strategy, data):
    """Splits a whole batch (of `train_on_batch`) over the replicas, every row on one of them."""
    count = strategy.num_replicas_in_sync

    def spread(value):
        if value is None:
            return None
        rows = tf.convert_to_tensor(value)
        ends = [len(rows) * index // count for index in range(count + 1)]

        def part(context):
            index = context.replica_id_in_sync_group
            return rows[ends[index] : ends[index + 1]]

        return strategy.experimental_distribute_values_from_function(part)

    return keras.tree.map_structure(spread, data)
