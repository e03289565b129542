import numpy as np
import pytest
import tensorflow as tf

from configs import digits
from trainers import datasets
from trainers.cli import commands
from trainers.input import batches as input


@pytest.fixture(scope="module")
def split():
    return datasets.load(digits.get_config().dataset).train


def recipe(**batch):
    config = digits.get_config()
    config.batch.update(batch)
    return config


def batches(config, split, strategy):
    return input.batches(config, split, strategy=strategy, start_step=7, num_steps=3)


# Even and uneven: 60 rows on 4 replicas, 15 on 2 and on 4.
@pytest.mark.parametrize(
    ("replicas", "examples", "sizes"),
    [(4, 12, [15] * 4), (2, 3, [7, 8]), (4, 3, [3, 4, 4, 4])],
)
def test_replicas_get_the_rows_of_one_device_s_batch(split, replicas, examples, sizes):
    config = recipe(examples_per_class=examples)
    whole = list(batches(config, split, tf.distribute.get_strategy()))
    devices = [f"CPU:{index}" for index in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(devices)
    found = list(batches(config, split, strategy))
    assert len(found) == len(whole) == 3
    for expected, distributed in zip(whole, found, strict=True):
        for one, parts in zip(expected, distributed, strict=True):
            parts = strategy.experimental_local_results(parts)
            assert [len(part) for part in parts] == sizes
            np.testing.assert_array_equal(np.concatenate(parts), one)


def test_ids_are_input_target_or_both(split):
    options = {"strategy": tf.distribute.get_strategy(), "start_step": 0, "num_steps": 1}
    (images, ids), *_ = input.batches(recipe(), split, **options)
    ((seen, given), target), *_ = input.batches(recipe(), split, ids_as_input=True, **options)
    np.testing.assert_array_equal(seen, images)
    np.testing.assert_array_equal(given, ids)
    np.testing.assert_array_equal(target, ids)
    data = input.batches(recipe(), split, ids_as_input=True, ids_as_target=False, **options)
    assert [len(element) for element in data] == [1]


def test_more_replicas_than_rows_are_refused(split):
    config = recipe(classes_per_batch=2, examples_per_class=2)
    with pytest.raises(commands.ConfigError, match="4 rows cannot be split into 8 parts"):
        batches(config, split, _Eight())


class _Eight:
    num_replicas_in_sync = 8
