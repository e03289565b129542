"""Averages are those of NumPy, and change places with the weights to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.optimizers import averages
from tests import stacks
from tests.combinations import quick
from tests.small_models import mirrored, rows_and_ids

pytestmark = stacks.needs_keras_3

MOMENTUM, BATCH, STEPS = 0.7, 8, 6


def weights_of(model):
    return [np.array(variable) for variable in model.trainable_variables]


def averages_of(weights):
    """Averages after each step, in float64, from the weights after the first step on."""
    found = [[np.asarray(value, np.float64) for value in weights[0]]]
    for values in weights[1:]:
        pairs = zip(found[-1], values, strict=True)
        found.append([MOMENTUM * mean + (1 - MOMENTUM) * value for mean, value in pairs])
    return found


class Notes(keras.callbacks.Callback):
    """Notes the weights after each step, and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.ends = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(weights_of(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(weights_of(self.model))


def model_of(head, *, replicas=1, scaled=False, **options):
    strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=MOMENTUM)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        features, ids = keras.Input((6,)), keras.Input((), dtype="int64")
        layer = circle_tf.CircleHead(9, gamma=16.0, as_model_loss=True, **head)
        losses = layer((circle_tf.UnitEmbedding(4)(features), ids))
        model = circle_tf.EmbeddingModel([features, ids], losses)
        model.compile(optimizer, **options)
    return model


def fit(model, *, epochs, callbacks=()):
    rows, ids = rows_and_ids(BATCH * STEPS)
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit([rows, ids], epochs=epochs, callbacks=list(callbacks), **options)


CASES = {
    "one device": {"head": {}},
    "accumulated": {"head": {}, "gradient_accumulation": 2},
    "fused": {"head": {"fused_update": True}},
    "sampled": {"head": {"sample_rate": 0.6}},
    "scaled": {"head": {}, "scaled": True},
    "shards": {"head": {"shards": "replicas"}, "replicas": 2, "gradient_accumulation": 2},
    "replicas": {"head": {"sample_rate": 0.6}, "replicas": 2},
}


# Each trains for some seconds, over replicas for more.
@stacks.needs_own_steps
@pytest.mark.parametrize("name", quick(list(CASES), among=["accumulated", "sampled"]))
def test_what_keras_swaps_in_is_the_average_over_the_updates(name):
    every, notes = CASES[name].get("gradient_accumulation", 1), Notes()
    model = model_of(**CASES[name])
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, epochs=2, callbacks=[swap, notes])
    updates = notes.steps[every - 1 :: every]
    expected = averages_of(updates)
    assert len(updates) == 2 * STEPS // every == int(model.optimizer.iterations.numpy())
    for end, last in zip(notes.ends, (len(updates) // 2, len(updates)), strict=True):
        for found, mean, raw in zip(end, expected[last - 1], updates[last - 1], strict=True):
            np.testing.assert_allclose(found, mean, atol=1e-6)
            assert np.abs(found - raw).max() > 1e-2
    for found, mean in zip(weights_of(model), expected[-1], strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-6)


@stacks.needs_own_steps
@pytest.mark.parametrize("name", quick(["scaled", "shards"], among=["scaled"]))
def test_weights_kept_apart_go_on_as_without_averages(name):
    model, notes = model_of(**CASES[name]), Notes()
    model.optimizer = averages.keep_apart(model.optimizer)
    for _ in range(2):
        fit(model, epochs=1, callbacks=[notes])
    trained = weights_of(model)
    np.testing.assert_array_equal(trained[0], notes.steps[-1][0])
    averages.exchange(model.optimizer)
    every = CASES[name].get("gradient_accumulation", 1)
    expected = averages_of(notes.steps[every - 1 :: every])[-1]
    for found, mean in zip(weights_of(model), expected, strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-6)
    averages.exchange(model.optimizer)
    for found, raw in zip(weights_of(model), trained, strict=True):
        np.testing.assert_array_equal(found, raw)


def test_an_exchange_rounds_nothing():
    variable = keras.Variable([1e8, 1e-8])
    optimizer = averages.keep_apart(keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5))
    optimizer.build([variable])
    averages.exchange(optimizer)  # No update yet, no averages.
    np.testing.assert_array_equal(variable, np.float32([1e8, 1e-8]))
    optimizer.apply([tf.zeros([2])], [variable])
    optimizer.apply([tf.constant([1e8, 0.0])], [variable])
    averages.exchange(optimizer)
    np.testing.assert_array_equal(variable, np.float32([5e7, 1e-8]))
    averages.exchange(optimizer)
    np.testing.assert_array_equal(variable, np.float32([0.0, 1e-8]))
