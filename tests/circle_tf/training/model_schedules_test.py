"""Margins and gammas that change while `EmbeddingModel` trains: by updates, saved and resumed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import schedules
from circle_tf.losses import hyperparameters
from tests import stacks
from tests.combinations import quick
from tests.small_models import mirrored, rows_and_ids, small, unit_layers

pytestmark = stacks.needs_keras_3

BEFORE, AFTER = 4.0, 24.0


def steps_up(step):
    """To another value after the first update."""
    return tf.where(step < 1, BEFORE, AFTER)


LAYERS = {
    "CircleHead": lambda gamma: circle_tf.CircleHead(70, gamma=gamma, as_model_loss=True),
    "sampled": lambda gamma: circle_tf.CircleHead(
        300, gamma=gamma, as_model_loss=True, sample_rate=0.5
    ),
    "fused": lambda gamma: circle_tf.CircleHead(
        70, gamma=gamma, as_model_loss=True, fused_update=True
    ),
    "sharded": lambda gamma: circle_tf.CircleHead(
        70, gamma=gamma, as_model_loss=True, shards="replicas"
    ),
    "PairwiseCircle": lambda gamma: circle_tf.PairwiseCircle(
        gamma=gamma, as_model_loss=True, block_size=None
    ),
    "CrossBatchMemory": lambda gamma: circle_tf.CrossBatchMemory(
        40, gamma=gamma, as_model_loss=True, block_size=None
    ),
}


def with_layer(name, gamma, strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features, labels = keras.Input((6,)), keras.Input((), dtype="int64")
        layer = LAYERS[name](gamma)
        outputs = layer((circle_tf.UnitEmbedding(4)(features), labels))
        model = circle_tf.EmbeddingModel([features, labels], outputs)
        model.compile(keras.optimizers.SGD(0.01))
    return model, layer


# Two to ten seconds each; that over replicas takes more.
@pytest.mark.parametrize("name", quick(LAYERS, among=["CircleHead", "fused"]))
def test_a_layer_follows_as_if_it_had_been_changed_and_traced_anew(name):
    strategy = mirrored(2) if name == "sharded" else tf.distribute.get_strategy()
    rows, ids = rows_and_ids()
    weights = []
    for gamma in (steps_up, BEFORE):
        model, layer = with_layer(name, gamma, strategy)
        for _ in range(2):
            model.fit([rows, ids], batch_size=16, verbose=0)
            if gamma == BEFORE:
                layer.gamma = AFTER
                model.make_train_function(force=True)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert hyperparameters.scheduled_values(with_layer(name, AFTER, strategy)[0]) == {}


@stacks.needs_own_steps
def test_replicas_have_the_values_of_one_device():
    rows, ids = rows_and_ids()
    weights = []
    for replicas in (1, 2):
        loss = circle_tf.CircleLoss(margin=0.25, gamma=steps_up, block_size=None)
        model = small(mirrored(replicas), unit_layers, loss=loss)
        model.fit(rows, ids, batch_size=8, epochs=2, shuffle=False, verbose=0)
        assert hyperparameters.scheduled_values(model) == {"gamma": AFTER}
        weights.append(model.get_weights())
    np.testing.assert_allclose(*(w[0] for w in weights), atol=1e-5)


def test_updates_are_counted_not_batches_and_nothing_is_traced_again():
    calls = []

    def counted(step):
        calls.append(step)
        return 8.0 + tf.cast(step, tf.float32)

    rows, ids = rows_and_ids()
    loss = circle_tf.CircleLoss(gamma=counted, block_size=None)
    model = small(tf.distribute.get_strategy(), unit_layers, loss=loss, gradient_accumulation=2)
    model.fit(rows, ids, batch_size=4, shuffle=False, verbose=0)
    traced = len(calls)
    model.fit(rows, ids, batch_size=4, shuffle=False, epochs=2, verbose=0)
    assert len(calls) == traced
    assert hyperparameters.scheduled_values(model) == {"gamma": 8.0 + 12 / 2}


def test_a_loss_with_a_memory_and_monitors_follow():
    rows, ids = rows_and_ids()
    margin = keras.optimizers.schedules.PolynomialDecay(0.4, 4, end_learning_rate=0.2)
    loss = circle_tf.CrossBatchCircleLoss(16, gamma=steps_up, margin=margin, block_size=None)
    monitors = circle_tf.metrics.monitors(margin=margin)
    model = small(tf.distribute.get_strategy(), unit_layers, loss=loss, metrics=monitors)
    model.fit(rows, ids, batch_size=8, shuffle=False, verbose=0)
    assert float(model.memory.current().gamma) == AFTER
    expected = circle_tf.metrics.MeanPositiveWeight(margin=0.3)
    expected.update_state(ids, model.predict(rows, verbose=0))
    found = model.evaluate(rows, ids, batch_size=16, return_dict=True, verbose=0)
    assert found["weight_p"] == pytest.approx(float(expected.result()), rel=1e-5)


def test_what_was_saved_goes_on_where_it_stopped(tmp_path):
    rows, ids = rows_and_ids()
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    path = str(tmp_path / "model.keras")
    growth = schedules.GeometricGrowth(4.0, 64.0, steps=8)
    loss = circle_tf.CircleLoss(gamma=growth, block_size=None)
    model = small(tf.distribute.get_strategy(), unit_layers, loss=loss, optimizer="adam")
    model.fit(rows, ids, **fit)
    model.save(path)
    loaded = keras.models.load_model(path)
    assert hyperparameters.scheduled_values(loaded) == {"gamma": pytest.approx(16.0)}
    for one in (model, loaded):
        one.fit(rows, ids, **fit)
    np.testing.assert_array_equal(model.get_weights()[0], loaded.get_weights()[0])


def test_a_keras_model_follows_what_it_is_told_to():
    rows, ids = rows_and_ids()
    model = keras.Sequential([keras.Input((6,)), *unit_layers()])
    optimizer = keras.optimizers.SGD()
    loss = circle_tf.CircleLoss(gamma=steps_up, block_size=None).follow(optimizer)
    model.compile(optimizer, loss)
    before = circle_tf.CircleLoss(gamma=BEFORE, block_size=None)(ids, model(rows))
    history = model.fit(rows, ids, batch_size=16, verbose=0).history["loss"]
    np.testing.assert_allclose(history, [float(before)], rtol=1e-5)
    assert hyperparameters.scheduled_values(model) == {"gamma": AFTER}
