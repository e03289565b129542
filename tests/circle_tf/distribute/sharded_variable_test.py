"""Weights spread over replicas: whole to everybody but the replicas, and the same on any number."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.distribute import sharded_variable
from tests import stacks, strategies

pytestmark = [stacks.needs_keras_3, stacks.needs_own_steps]

ROWS = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
IDS = np.arange(16) % 5


def strategy_of(replicas):
    return strategies.mirrored() if replicas == 2 else tf.distribute.get_strategy()


def model_of(replicas, *, optimizer=lambda: keras.optimizers.Adam(0.05), classes=5, **options):
    with strategy_of(replicas).scope():
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((6,)), keras.Input((), dtype="int64")
        head = circle_tf.CircleHead(
            classes, gamma=8.0, shards="replicas", as_model_loss=True, name="head", **options
        )
        losses = head((circle_tf.UnitEmbedding(4)(features), ids))
        model = circle_tf.EmbeddingModel([features, ids], losses)
        model.compile(optimizer())
    return model


def fit(model, *, epochs=2):
    return model.fit([ROWS, IDS], epochs=epochs, batch_size=8, shuffle=False, verbose=0).history


def numbers(model):
    return [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]


def assert_same(ours, theirs, **limits):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **(limits or {"atol": 1e-5}))


def parts_of(model):
    value = model.get_layer("head").class_weights.value
    return [part.numpy() for part in strategies.mirrored().experimental_local_results(value)]


def test_each_replica_holds_and_trains_its_own_rows_and_moments():
    model = model_of(2)
    weights = model.get_layer("head").class_weights
    assert weights.shape == (5, 4) and weights.numpy().shape == (5, 4)
    first, second = parts_of(model)
    assert first.shape == second.shape == (3, 4)
    np.testing.assert_array_equal(weights.numpy(), np.r_[first, second[:2]])
    np.testing.assert_array_equal(weights.numpy(), model_of(1).get_layer("head").get_weights()[0])
    fit(model)
    moments = [v for v in model.optimizer.variables if sharded_variable.is_sharded(v)]
    assert [v.numpy().shape for v in moments] == [(5, 4), (5, 4)]
    assert all(np.abs(v.numpy()).min(axis=1).all() for v in moments)
    assert not parts_of(model)[1][2].any()  # What fills up the last shard is never trained.


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_saved_weights_and_moments_go_on_with_another_number_of_replicas(before, after, tmp_path):
    model = model_of(before)
    fit(model)
    path = str(tmp_path / "model.weights.h5")
    model.save_weights(path)
    other = model_of(after)
    with strategy_of(after).scope():
        other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    assert_same(numbers(other), numbers(model), atol=0)
    assert_same(fit(other)["loss"], fit(model)["loss"])
    assert_same(numbers(other), numbers(model))


def test_a_saved_model_and_a_checkpoint_hold_the_whole_matrix(tmp_path):
    model = model_of(2)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(numbers(loaded), numbers(model), atol=0)
    path = tf.train.Checkpoint(weights=model.get_layer("head").class_weights).write(
        str(tmp_path / "checkpoint")
    )
    values = [v for v in map(tf.train.load_checkpoint(path).get_tensor, _names(path))]
    assert [v.shape for v in values if v.ndim == 2] == [(5, 4)]
    other = model_of(2)
    other.get_layer("head").class_weights.assign(tf.zeros([5, 4]))
    tf.train.Checkpoint(weights=other.get_layer("head").class_weights).read(path)
    assert_same(parts_of(other), parts_of(model), atol=0)


def _names(path):
    return [name for name, _ in tf.train.list_variables(path) if "CHECKPOINTABLE" not in name]


def test_set_weights_takes_what_get_weights_gave():
    given = []
    model = model_of(2, optimizer=lambda: given.append(keras.optimizers.Adam(0.05)) or given[0])
    start = model.get_weights()
    fit(model)
    for again in (model.optimizer, given[0]):  # Whose variables know of the shards.
        with strategies.mirrored().scope():
            model.compile(again)
    fit(model)
    assert type(given[0]) is keras.optimizers.Adam and given[0].iterations.numpy() == 8
    model.set_weights(start)
    assert_same(model.get_weights(), start, atol=0)
    with pytest.raises(ValueError, match="shape"):
        model.get_layer("head").class_weights.assign(tf.zeros([4, 4]))


def test_a_sample_over_replicas_is_the_sample_of_one_device():
    runs = [model_of(n, classes=40, sample_rate=0.25, optimizer=sgd) for n in (1, 2)]
    assert_same(fit(runs[0])["loss"], fit(runs[1])["loss"])
    assert_same(numbers(runs[0]), numbers(runs[1]))
    assert_same(fit(runs[0])["loss"], fit(model_of(1, classes=40, optimizer=sgd))["loss"], atol=9)


def test_bfloat16_products_over_replicas_are_those_of_one_device():
    runs = [model_of(n, product_dtype="bfloat16", optimizer=sgd) for n in (1, 2)]
    assert_same(fit(runs[0])["loss"], fit(runs[1])["loss"], rtol=1e-3)
    assert_same(numbers(runs[0]), numbers(runs[1]), atol=1e-3)


def sgd():
    return keras.optimizers.SGD(0.05)


def test_a_part_knows_which_of_its_rows_fill_up():
    assert sharded_variable.Part(0, 3, 3).mask is None
    assert sharded_variable.Part(0, 2, 4, 2).mask is None
    assert sharded_variable.Part(1, 3, 5, 2).mask.numpy().tolist() == [True, True, False]
    # 4 rows over 3 replicas: the last one has none.
    assert sharded_variable.Part(2, 2, 4, 3).mask.numpy().tolist() == [False, False]


def test_refuses_to_be_made_or_called_in_the_wrong_place():
    strategy = strategies.mirrored()
    with pytest.raises(RuntimeError, match="must be made outside of them: build the layer"):
        strategy.run(lambda: circle_tf.CircleHead(5, shards="replicas")((ROWS, IDS)))
    head = model_of(2).get_layer("head")
    with pytest.raises(RuntimeError, match="on 2 replicas, and this is not one of them"):
        head((ROWS[:, :4], IDS))


def test_refuses_optimizers_that_would_not_give_the_numbers_of_one_device():
    with pytest.raises(NotImplementedError, match="Lamb looks at whole weights"):
        model_of(2, optimizer=keras.optimizers.Lamb)
    model = model_of(2)
    with pytest.raises(ValueError, match="has made its variables before compile"):
        with strategies.mirrored().scope():
            optimizer = keras.optimizers.SGD(momentum=0.9)
            optimizer.build(model_of(2).trainable_variables[:1])
            model.compile(optimizer)
    with pytest.raises(NotImplementedError, match="gradient_accumulation with clipnorm"):
        with strategies.mirrored().scope():
            model.compile(keras.optimizers.SGD(clipnorm=1.0), gradient_accumulation=2)


@pytest.mark.parametrize("value", ["devices", 2, True])
def test_refuses_other_values(value):
    with pytest.raises(ValueError, match='shards must be None or "replicas"; found'):
        circle_tf.CircleHead(5, shards=value)
