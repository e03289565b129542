"""The seam to tf.distribute on one replica and on two."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.distribute import collectives, step_context
from tests import strategies


@pytest.fixture(scope="module")
def strategy():
    return strategies.mirrored()


def parts_of(strategy, *parts):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group], tf.float32)
    )


def test_one_replica_gathers_its_own_rows():
    rows = tf.reshape(tf.range(6), [3, 2])
    everything, offset = collectives.gather_rows(rows)
    np.testing.assert_array_equal(everything, rows)
    assert offset == 0


@pytest.mark.parametrize("split", [1, 2, 3])
def test_gathered_rows_offsets_and_gradients_are_exact_for_uneven_parts(strategy, split):
    everything = np.arange(6, dtype=np.float32).reshape(3, 2)
    # Each replica weighs row i by its number and i: the gradient sums over replicas.
    factors = np.array([[1.0], [10.0], [100.0]], np.float32)

    @tf.function
    def run(rows):
        def replica(rows):
            context = tf.distribute.get_replica_context()
            number = tf.cast(context.replica_id_in_sync_group, tf.float32)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                gathered, offset = collectives.gather_rows(rows)
                value = tf.reduce_sum(gathered * factors * (number + 1))
            return gathered, offset, tape.gradient(value, rows)

        return strategy.run(replica, args=(rows,))

    outputs = run(parts_of(strategy, everything[:split], everything[split:]))
    gathered, offsets, gradients = map(strategy.experimental_local_results, outputs)
    for index in (0, 1):
        np.testing.assert_array_equal(gathered[index], everything)
        assert int(offsets[index]) == (0, split)[index]
    expected = np.broadcast_to(3 * factors, (3, 2))
    np.testing.assert_array_equal(np.concatenate(gradients), expected)


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
        assert collectives.gather_rows(tf.ones([2, 2]))[1] == 0


class ParameterServerStrategyV2:
    """The name is what is looked at; a real one needs servers."""


def test_strategies_without_a_global_batch_are_refused():
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"])
    for strategy in (central, ParameterServerStrategyV2()):
        with pytest.raises(NotImplementedError, match="Use tf.distribute.MirroredStrategy"):
            collectives.check_strategy(strategy)
