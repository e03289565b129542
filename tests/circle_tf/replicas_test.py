"""The seam to tf.distribute on one replica."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf import replicas


def test_one_replica_gathers_its_own_rows():
    rows = tf.reshape(tf.range(6), [3, 2])
    everything, offset = replicas.gather_rows(rows)
    np.testing.assert_array_equal(everything, rows)
    assert offset == 0


def test_several_replicas_are_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with pytest.raises(NotImplementedError, match="has 2"):
        replicas.check_strategy(strategy)
    with pytest.raises(NotImplementedError, match="has 2"):
        strategy.run(lambda: replicas.gather_rows(tf.ones([2, 2])))
