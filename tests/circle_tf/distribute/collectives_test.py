"""The seam to tf.distribute on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.distribute import collectives, step_context
from tests import strategies


@pytest.fixture(scope="module")
def strategy():
    return strategies.mirrored()


def parts_of(strategy, *parts, dtype=tf.float32):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group], dtype)
    )


def test_one_replica_gathers_its_own_rows():
    rows, ids = tf.reshape(tf.range(6.0), [3, 2]), tf.constant([7, 8, 9], tf.int64)
    np.testing.assert_array_equal(collectives.gather_rows(rows), rows)
    everything, all_ids, offset = collectives.gather_examples(rows, ids)
    np.testing.assert_array_equal(everything, rows)
    np.testing.assert_array_equal(all_ids, ids)
    assert offset == 0


# Bits that as those of a float are NaN, an infinity, or smaller than any normal number.
IDS = np.array([2**40 + 3, -1, 0x7F800000FFC00001], np.int64)


@pytest.mark.parametrize(
    ("split", "dtype", "dim"),
    [*((split, tf.float32, 2) for split in range(4)), (1, tf.float64, 2), (2, tf.float64, None)],
)
def test_gathered_examples_are_exact_for_uneven_parts(strategy, split, dtype, dim):
    everything = np.array([[0.0, 1.0], [np.nan, -0.0], [1e-40, 5.0]], dtype.as_numpy_dtype)
    # Each replica weighs row i by its number and i: the gradient sums over replicas.
    factors = np.array([[1.0], [10.0], [100.0]], dtype.as_numpy_dtype)

    @tf.function
    def run(rows, ids):
        def replica(rows, ids):
            context = tf.distribute.get_replica_context()
            number = tf.cast(context.replica_id_in_sync_group, dtype)
            rows = tf.raw_ops.PlaceholderWithDefault(input=rows, shape=[None, dim])
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(rows)
                gathered, all_ids, offset = collectives.gather_examples(rows, ids)
                value = tf.reduce_sum(gathered * factors * (number + 1))
                plain = collectives.gather_rows(rows)
                plain_value = tf.reduce_sum(plain * factors * (number + 1))
            gradients = [tape.gradient(found, rows) for found in (value, plain_value)]
            return gathered, plain, all_ids, collectives.gather_rows(ids), offset, *gradients

        return strategy.run(replica, args=(rows, ids))

    given = [
        parts_of(strategy, values[:split], values[split:], dtype=kind)
        for values, kind in ((everything, dtype), (IDS, tf.int64))
    ]
    outputs = [strategy.experimental_local_results(output) for output in run(*given)]
    *gathered, offsets, gradients, plain_gradients = outputs
    for index in (0, 1):
        for found, expected in zip(gathered, (everything, everything, IDS, IDS), strict=True):
            assert found[index].numpy().tobytes() == expected.tobytes()
        assert int(offsets[index]) == (0, split)[index]
    for found in (gradients, plain_gradients):
        np.testing.assert_array_equal(np.concatenate(found), np.broadcast_to(3 * factors, (3, 2)))


def test_totals_keep_structure_and_dtypes(strategy):
    def replica(value):
        summed = collectives.all_reduce_sums([value, None, tf.cast(value, tf.float64)])
        return collectives.all_reduce_sum(tf.size(value)), *summed

    count, small, nothing, large = strategy.run(replica, args=(parts_of(strategy, [1.0], [2.0]),))
    first = strategy.experimental_local_results(count)[0]
    assert int(first) == 2 and nothing is None
    for value in (small, large):
        assert [v.numpy().tolist() for v in strategy.experimental_local_results(value)] == [[3]] * 2
    assert strategy.experimental_local_results(large)[0].dtype == tf.float64


def test_a_step_makes_once_what_it_is_asked_for_again(strategy):
    def replica():
        made = []
        with step_context.entered(compiled=False, memo={}):
            for _ in range(2):
                step_context.memoized(lambda: made.append(1), strategy)
        step_context.memoized(lambda: made.append(1), strategy)
        return tf.constant(len(made))

    assert [int(n) for n in strategy.experimental_local_results(strategy.run(replica))] == [2, 2]


def test_cross_replica_context_has_the_whole_batch(strategy):
    with strategy.scope():
        assert collectives.num_replicas() == 1
        assert collectives.gather_examples(tf.ones([2, 2]))[2] == 0


class ParameterServerStrategyV2:
    """The name is what is looked at; a real one needs servers."""


def test_strategies_without_a_global_batch_are_refused():
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"])
    for strategy in (central, ParameterServerStrategyV2()):
        with pytest.raises(NotImplementedError, match="Use tf.distribute.MirroredStrategy"):
            collectives.check_strategy(strategy)
