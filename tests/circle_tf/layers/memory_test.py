"""The memory: what is in it, what it does to the losses, what becomes of it when saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.losses import circle, circle_losses
from tests import reference, stacks, strategies
from tests.combinations import diagonal

OPTIONS = {"margin": 0.25, "gamma": 16.0}


def batch(seed, *, size=6, dim=5, classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, dim)).astype(np.float32), rng.integers(0, classes, size)


def expected_losses(rows, ids, held, held_ids):
    """By the definition: the batch without each anchor itself, and all that is held."""
    unit = reference.normalize(rows)
    keys = np.concatenate([unit, held]) if len(held) else unit
    key_ids = np.concatenate([ids, held_ids]).astype(np.int64)
    same = ids[:, None] == key_ids[None, :]
    itself = np.arange(len(ids))[:, None] == np.arange(len(keys))[None, :]
    return circle.circle_loss(unit @ keys.T, same & ~itself, ~same, **OPTIONS).numpy()


class Model:
    """A memory in plain NumPy: a list, cut to its newest entries."""

    def __init__(self, size):
        self.size, self.rows, self.ids = size, np.zeros([0, 5]), np.zeros([0], np.int64)

    def losses(self, rows, ids):
        found = expected_losses(rows, ids, self.rows, self.ids)
        self.rows = np.concatenate([self.rows, reference.normalize(rows)])[-self.size :]
        self.ids = np.concatenate([self.ids, ids])[-self.size :]
        return found


# Memories below, equal to, above the batch of 6.
@pytest.mark.parametrize(("size", "block_size"), diagonal([1, 4, 6, 13, 60], ["auto", 4, None]))
def test_losses_are_those_against_batch_and_newest_rows(size, block_size):
    layer = circle_tf.CrossBatchMemory(size, block_size=block_size, **OPTIONS)
    model = Model(size)
    for step in range(7):
        rows, ids = batch(step)
        found = layer((rows, ids), training=True)
        np.testing.assert_allclose(found, model.losses(rows, ids), rtol=2e-5, atol=2e-5)
    kept = layer.memory_rows.numpy()
    assert sorted(kept[kept >= 0]) == list(range(max(0, 42 - size), 42))


def test_batches_of_changing_size_even_none():
    layer, model = circle_tf.CrossBatchMemory(9, **OPTIONS), Model(9)
    for step, size in enumerate([4, 7, 0, 11, 1, 6, 3]):
        rows, ids = batch(step, size=size)
        found = layer((rows, ids), training=True)
        assert found.shape == (size,)
        np.testing.assert_allclose(found, model.losses(rows, ids), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("jit", "block_size"), diagonal([False, True], ["auto", None]))
def test_graph_and_xla_equal_eager(jit, block_size):
    results = []
    for compiled in (False, True):
        layer = circle_tf.CrossBatchMemory(13, block_size=block_size, **OPTIONS)
        layer.build(((None, 5), (None,)))

        def step(rows, ids, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(rows)
                loss = tf.reduce_sum(layer((rows, ids), training=True))
            return loss, tape.gradient(loss, rows)

        run = tf.function(step, jit_compile=jit) if compiled else step
        steps = [run(*map(tf.constant, batch(seed))) for seed in range(4)]
        results.append(np.concatenate([np.r_[loss, np.ravel(g)] for loss, g in steps]))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", ["auto", None])
def test_gradients_reach_the_batch_as_anchors_and_as_keys_and_nothing_else(block_size):
    layer = circle_tf.CrossBatchMemory(20, block_size=block_size, **OPTIONS)
    for seed in range(3):
        layer(batch(seed), training=True)
    held = tf.constant(layer.memory_keys.numpy()[:18]), layer.memory_ids.numpy()[:18]
    rows, ids = batch(7)
    rows = tf.constant(rows)

    def by_definition(rows):
        unit = circle_tf.ops.numerics.safe_normalize(rows)
        keys = tf.concat([unit, held[0]], axis=0)
        same = ids[:, None] == np.concatenate([ids, held[1]])[None, :]
        itself = np.eye(6, 24, dtype=bool)
        return circle.circle_loss(
            tf.matmul(unit, keys, transpose_b=True), same & ~itself, ~same, **OPTIONS
        )

    gradients = []
    for function in (by_definition, lambda rows: layer((rows, ids), training=True)):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_mean(function(rows))
        gradients.append(tape.gradient(loss, rows))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 5


def test_without_training_it_is_pairwise_circle_and_holds_nothing():
    layer, plain = circle_tf.CrossBatchMemory(8, **OPTIONS), circle_tf.PairwiseCircle(**OPTIONS)
    layer(batch(0), training=True)
    before = [value.copy() for value in layer.get_weights()]
    for arguments in ({}, {"training": False}):
        np.testing.assert_array_equal(layer(batch(1), **arguments), plain(batch(1)))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_before_the_start_step_it_only_fills():
    layer, model = circle_tf.CrossBatchMemory(12, start_step=2, **OPTIONS), Model(12)
    plain = circle_tf.PairwiseCircle(**OPTIONS)
    for step in range(4):
        rows, ids = batch(step)
        found, with_memory = layer((rows, ids), training=True), model.losses(rows, ids)
        expected = plain((rows, ids)) if step < 2 else with_memory
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_ids_are_exact_at_any_width():
    layer = circle_tf.CrossBatchMemory(4, **OPTIONS)
    rows = np.eye(2, dtype=np.float32)
    layer((rows, np.array([2**60, 2**24])), training=True)
    found = layer((rows, np.array([[2**60 + 1], [2**24 + 1]])), training=True)
    np.testing.assert_array_equal(found, [0, 0])  # No positive in batch or memory.
    assert layer.memory_ids.numpy().tolist() == [2**60, 2**24, 2**60 + 1, 2**24 + 1]
    assert (layer((rows, np.array([2**60 + 1, 2**24 + 1])), training=True).numpy() > 0).all()


def test_examples_met_again_are_not_their_own_positives():
    rows, ids = np.eye(2, 5, dtype=np.float32), np.array([0, 1])
    layer = circle_tf.CrossBatchMemory(8, **OPTIONS)
    layer((rows, ids, np.array([70, 2**40])), training=True)
    # In another order: what counts is the example, not the place.
    found = layer((rows[::-1], ids[::-1], np.array([2**40, 70])), training=True)
    np.testing.assert_array_equal(found, [0, 0])
    assert (layer((rows, ids, np.array([71, 72])), training=True).numpy() > 0).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="0 or more; found .*-1"):
        layer((rows, ids, np.array([-1, 3])), training=True)
    with pytest.raises(ValueError, match="Found 3 labels for 2 embeddings"):
        layer((rows, ids, np.array([1, 2, 3])), training=True)


@pytest.mark.parametrize("block_size", ["auto", None])
def test_rows_that_are_not_finite_make_their_own_step_nan_and_no_other(block_size):
    layer = circle_tf.CrossBatchMemory(12, block_size=block_size, **OPTIONS)
    rows, ids = batch(0)
    rows[2, 1] = np.nan
    assert np.isnan(layer((rows, ids), training=True).numpy()[2])
    assert layer.memory_rows.numpy().tolist()[:6] == [0, 1, -1, 3, 4, 5]
    model = Model(12)
    model.rows, model.ids = reference.normalize(np.delete(rows, 2, 0)), np.delete(ids, 2)
    found = layer(batch(1), training=True)
    np.testing.assert_allclose(found, model.losses(*batch(1)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_the_memory_is_float32_or_float64_under_any_policy(policy):
    layer = circle_tf.CrossBatchMemory(12, dtype=policy, **OPTIONS)
    double = policy == "float64"
    model = Model(12)
    for step in range(3):
        rows, ids = batch(step)
        found = layer((rows.astype(np.float64 if double else np.float32), ids), training=True)
        assert found.dtype == (tf.float64 if double else tf.float32)
        np.testing.assert_allclose(found, model.losses(rows, ids), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_size": 0}, "memory_size must be a whole number of 1 or more; found 0"),
        ({"memory_size": 2.5}, "memory_size must be a whole number"),
        ({"memory_size": None}, "memory_size must be a whole number"),
        ({"memory_size": 4, "start_step": -1}, "start_step must be .* 0 or more; found -1"),
        ({"memory_size": 4, "block_size": 0}, "block_size must be"),
        ({"memory_size": 4, "gamma": -1.0}, "gamma must be"),
    ],
)
def test_bad_arguments(arguments, message):
    for kind in (circle_tf.CrossBatchMemory, circle_tf.CrossBatchCircleLoss):
        with pytest.raises(ValueError, match=message):
            kind(**arguments)


def test_bad_inputs():
    layer = circle_tf.CrossBatchMemory(4, **OPTIONS)
    with pytest.raises(ValueError, match=r"embeddings of shape \[B, D\]"):
        layer((np.ones([2, 3, 4], np.float32), np.arange(2)), training=True)
    layer = circle_tf.CrossBatchMemory(4, **OPTIONS)
    with pytest.raises(ValueError, match="Found 3 labels for 2 embeddings"):
        layer((np.ones([2, 3], np.float32), np.arange(3)), training=True)


def test_config_comes_back():
    for kind in (circle_tf.CrossBatchMemory, circle_tf.CrossBatchCircleLoss):
        made = kind(7, 0.3, 32.0, start_step=3, block_size=64, reduction="mean")
        again = kind.from_config(made.get_config())
        assert again.get_config() == made.get_config()
        assert (made.margin, made.gamma, made.block_size) == (0.3, 32.0, 64)


# --- In models: the default stack.


def with_loss(*, size=10, layers=(), **options):
    keras.utils.set_random_seed(0)
    features = keras.Input((5,))
    hidden = features
    for layer in layers:
        hidden = layer(hidden)
    model = circle_tf.EmbeddingModel(features, circle_tf.UnitEmbedding(4)(hidden))
    loss = circle_tf.CrossBatchCircleLoss(size, gamma=16.0)
    model.compile(keras.optimizers.SGD(0.02), loss, **options)
    return model


def with_layer(*, size=10, **options):
    keras.utils.set_random_seed(0)
    features, ids = keras.Input((5,)), keras.Input((), dtype="int64")
    unit = circle_tf.UnitEmbedding(4)(features)
    losses = circle_tf.CrossBatchMemory(size, gamma=16.0, as_model_loss=True)((unit, ids))
    model = circle_tf.EmbeddingModel([features, ids], [unit, losses])
    model.compile(keras.optimizers.SGD(0.02), **options)
    return model


def examples(count=22):
    rng = np.random.default_rng(3)
    return rng.normal(size=(count, 5)).astype(np.float32), np.arange(count) % 4


def fit(model, *, epochs=3):
    rows, ids = examples()
    x = [rows, ids] if len(model.inputs) == 2 else rows
    y = None if len(model.inputs) == 2 else ids
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


@stacks.needs_keras_3
@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_loss_and_the_layer_train_alike(jit):
    models = with_loss(jit_compile=jit), with_layer(jit_compile=jit)
    histories = [fit(model) for model in models]
    np.testing.assert_allclose(*histories, rtol=1e-5)
    memories = models[0].memory, models[1].layers[-1]
    for one, other in zip(*(memory.get_weights() for memory in memories), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert int(memories[0].rows_seen.numpy()) == 66
    assert sorted(memories[0].memory_rows.numpy()) == list(range(56, 66))


@stacks.needs_keras_3
def test_evaluation_and_prediction_leave_the_memory_alone():
    for make in (with_loss, with_layer):
        model = make()
        fit(model)
        memory = model.memory or model.layers[-1]
        before = memory.get_weights()
        rows, ids = examples()
        x = rows if model.memory else [rows, ids]
        found = model.evaluate(x, ids if model.memory else None, batch_size=22, verbose=0)
        model.predict(x, verbose=0)
        unit = model.predict(x, verbose=0)
        unit = unit if model.memory else unit[0]
        expected = circle_tf.CircleLoss(gamma=16.0)(ids, unit)
        assert float(np.ravel(found)[0]) == pytest.approx(float(expected), rel=1e-4)
        for old, new in zip(before, memory.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@stacks.needs_keras_3
@pytest.mark.parametrize(
    ("make", "suffix"), diagonal([with_loss, with_layer], [".keras", ".weights.h5"])
)
def test_saved_and_loaded_training_goes_on_to_the_bit(make, suffix, tmp_path):
    path = str(tmp_path / f"model{suffix}")
    whole = make()
    fit(whole, epochs=2)
    if suffix == ".keras":
        whole.save(path)
        again = keras.models.load_model(path)
    else:
        whole.save_weights(path)
        again = make()
        again.load_weights(path)
    for one, other in zip(
        (whole.memory or whole.layers[-1]).get_weights(),
        (again.memory or again.layers[-1]).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert fit(whole, epochs=1) == fit(again, epochs=1)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@stacks.needs_keras_3
def test_weights_without_a_memory_load_into_a_model_with_one(tmp_path):
    path = str(tmp_path / "plain.weights.h5")
    plain = with_loss()
    plain.compile("sgd", circle_tf.CircleLoss())
    assert plain.memory is None
    plain.save_weights(path)
    model = with_loss()
    model.load_weights(path)
    assert (model.memory.memory_rows.numpy() == -1).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights of a trained model with a memory of 10 rows, and the keys it holds."""
    path = str(tmp_path_factory.mktemp("memory") / "model.weights.h5")
    model = with_loss(size=10)
    fit(model)
    model.save_weights(path)
    return path, model.memory.memory_keys.numpy()


@stacks.needs_keras_3
@pytest.mark.parametrize("size", [4, 10, 17, 30])
def test_a_memory_loads_into_one_of_another_size(size, saved):
    path, keys = saved
    model, kept = with_loss(size=size), min(size, 10)
    model.load_weights(path)
    rows = model.memory.memory_rows.numpy()
    assert sorted(rows[rows >= 0]) == list(range(66 - kept, 66))
    held = {row: keys[row % 10] for row in range(56, 66)}
    for row, key in zip(rows, model.memory.memory_keys.numpy(), strict=True):
        np.testing.assert_array_equal(key, held[row] if row >= 0 else np.zeros(4))
    fit(model, epochs=1)  # 22 more.
    rows = model.memory.memory_rows.numpy()
    assert sorted(rows[rows >= 0]) == list(range(max(66 - kept, 88 - size), 88))


@stacks.needs_keras_3
def test_sample_weights_and_monitors_go_with_it():
    model = with_loss(metrics=circle_tf.metrics.monitors(margin=0.4))
    rows, ids = examples()
    history = model.fit(rows, ids, sample_weight=np.ones(22), batch_size=8, verbose=0).history
    assert {"loss", "valid_anchors"} <= set(history)


@stacks.needs_keras_3
def test_the_loss_is_refused_where_it_cannot_know_whether_a_model_trains():
    loss = circle_tf.CrossBatchCircleLoss(8)
    with pytest.raises(RuntimeError, match="Take the layer CrossBatchMemory"):
        loss([0, 1], np.eye(2, dtype=np.float32))
    features = keras.Input((5,))
    model = keras.Model(features, circle_tf.UnitEmbedding(4)(features))
    model.compile("sgd", loss)
    with pytest.raises(RuntimeError, match="EmbeddingModel.compile"):
        model.fit(*examples(), verbose=0)


@stacks.needs_keras_3
def test_one_loss_serves_one_model_of_one_output():
    features = keras.Input((5,))
    outputs = [circle_tf.UnitEmbedding(4)(features), circle_tf.UnitEmbedding(3)(features)]
    loss = circle_tf.CrossBatchCircleLoss(8)
    model = circle_tf.EmbeddingModel(features, outputs)
    with pytest.raises(ValueError, match="one output"):
        model.compile("sgd", [loss, circle_tf.CircleLoss()])
    circle_tf.EmbeddingModel(features, outputs[0]).compile("sgd", loss)
    with pytest.raises(ValueError, match="remembers embeddings of 4 numbers; the model's have 3"):
        circle_tf.EmbeddingModel(features, outputs[1]).compile("sgd", loss)


def test_pairwise_losses_with_nothing_held_are_those_of_the_batch():
    rows, ids = batch(5, size=30)
    found = circle_tf.CrossBatchMemory(7, **OPTIONS)((rows, ids), training=True)
    expected = circle_losses.pairwise_losses(rows, ids, **OPTIONS)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def replicas_of(strategy, variable):
    return [value.numpy() for value in strategy.experimental_local_results(variable.value)]


@stacks.needs_own_steps
@stacks.needs_keras_3
@pytest.mark.parametrize("make", [with_loss, with_layer])
def test_the_memory_is_the_same_on_every_replica_and_as_on_one_device(make):
    # 22 rows in batches of 8: 4 + 4, 4 + 4, 3 + 3; then 17: the last batch leaves one replica none.
    rows, ids = examples()
    results = []
    for strategy in (tf.distribute.get_strategy(), strategies.mirrored()):
        with strategy.scope():
            model = make()
        losses = []
        for count in (22, 17):
            x = (rows[:count], ids[:count]) if make is with_layer else rows[:count]
            data = (x,) if make is with_layer else (x, ids[:count])
            dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
            losses += model.fit(dataset, epochs=2, shuffle=False, verbose=0).history["loss"]
        memory = model.memory or model.layers[-1]
        for variable in memory.variables:
            copies = replicas_of(strategy, variable)
            assert len(copies) == strategy.num_replicas_in_sync
            for copy in copies:
                np.testing.assert_array_equal(copy, copies[0])
        results.append([*model.get_weights(), *memory.get_weights(), np.array(losses)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@stacks.needs_own_steps
@stacks.needs_keras_3
def test_what_was_made_outside_the_strategy_is_refused():
    features = keras.Input((5,))
    loss = circle_tf.CrossBatchCircleLoss(8)
    circle_tf.EmbeddingModel(features, circle_tf.UnitEmbedding(4)(features)).compile("sgd", loss)
    with strategies.mirrored().scope():
        features = keras.Input((5,))
        model = circle_tf.EmbeddingModel(features, circle_tf.UnitEmbedding(4)(features))
        with pytest.raises(ValueError, match="made outside the strategy"):
            model.compile("sgd", loss)
