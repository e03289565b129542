"""Updates of some rows: those of a dense step for them, and nothing for the others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.optimizers import row_updates
from tests import stacks, strategies

pytestmark = stacks.needs_keras_3

START = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
INDICES = np.array([4, 1, 4, 7])
VALUES = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.0),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "Adadelta": lambda: keras.optimizers.Adadelta(0.1),
    "Adamax": lambda: keras.optimizers.Adamax(0.1),
    "Nadam": lambda: keras.optimizers.Nadam(0.1),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.1),
    "Lion": lambda: keras.optimizers.Lion(0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)),
}


def slices():
    return tf.IndexedSlices(tf.constant(VALUES), tf.constant(INDICES), tf.constant([9, 3]))


def steps(make, gradient, *, rows_only, jit=None, count=3):
    variable, other = keras.Variable(START), keras.Variable(tf.ones([2]))
    optimizer = make()
    if rows_only:
        optimizer = row_updates.update_rows_only(optimizer, [variable])
    optimizer.build([variable, other])

    def step():
        optimizer.apply([gradient(), tf.constant([1.0, 2.0])], [variable, other])

    run = step if jit is None else tf.function(step, jit_compile=jit)
    for _ in range(count):
        run()
    return variable.numpy(), other.numpy(), [v.numpy() for v in optimizer.variables]


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - row_updates.MIXING_OPTIMIZERS))
def test_rows_with_a_gradient_are_updated_as_by_a_dense_step_and_no_others(name):
    ours = steps(OPTIMIZERS[name], slices, rows_only=True)
    dense = steps(OPTIMIZERS[name], lambda: tf.convert_to_tensor(slices()), rows_only=False)
    drawn = np.unique(INDICES)
    others = np.setdiff1d(np.arange(9), drawn)
    np.testing.assert_allclose(ours[0][drawn], dense[0][drawn], rtol=1e-5, atol=1e-6)
    assert np.abs(ours[0][drawn] - START[drawn]).min() > 1e-4
    np.testing.assert_array_equal(ours[0][others], START[others])
    np.testing.assert_allclose(ours[1], dense[1], rtol=1e-6)
    for a, b in zip(ours[2], dense[2], strict=True):
        rows = drawn if a.shape == (9, 3) else ...
        np.testing.assert_allclose(a[rows], b[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize("name", ["momentum", "Adam"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_blocks_of_any_size_in_any_mode_give_the_same(name, jit, rows, monkeypatch):
    whole = steps(OPTIMIZERS[name], slices, rows_only=True)
    monkeypatch.setattr(row_updates, "_BLOCK_BYTES", rows * 3 * 4)
    found = steps(OPTIMIZERS[name], slices, rows_only=True, jit=jit)
    np.testing.assert_allclose(found[0], whole[0], rtol=1e-5, atol=1e-6)
    for a, b in zip(found[2], whole[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "xla"])
def test_averages_of_all_rows_are_keras_s_in_blocks_of_any_size(jit, monkeypatch):
    make = lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.75)  # noqa: E731
    dense = steps(make, lambda: tf.convert_to_tensor(slices()), rows_only=False)
    monkeypatch.setattr(row_updates, "_BLOCK_BYTES", 2 * 3 * 4)
    ours = steps(make, slices, rows_only=True, jit=jit)
    assert sum(value.shape == (9, 3) for value in ours[2]) == 1
    for a, b in zip(ours[2], dense[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_dense_gradient_and_other_variables_are_updated_as_ever():
    dense = lambda: tf.convert_to_tensor(slices())  # noqa: E731
    ours = steps(OPTIMIZERS["Adam"], dense, rows_only=True)
    theirs = steps(OPTIMIZERS["Adam"], dense, rows_only=False)
    np.testing.assert_array_equal(ours[0], theirs[0])
    embedding = [keras.Variable(START) for _ in range(2)]
    for variable, prepared in zip(embedding, (True, False), strict=True):
        optimizer = keras.optimizers.Adam(0.1)
        if prepared:
            optimizer = row_updates.update_rows_only(optimizer, [keras.Variable(START)])
        for _ in range(2):
            optimizer.apply([slices()], [variable])
    np.testing.assert_array_equal(*embedding)


@stacks.needs_lamb
def test_an_optimizer_that_looks_at_whole_weights_updates_all_as_ever():
    lamb = [steps(keras.optimizers.Lamb, slices, rows_only=only)[0] for only in (True, False)]
    np.testing.assert_array_equal(*lamb)


def test_refuses_an_optimizer_that_has_its_variables():
    optimizer, variable = keras.optimizers.Adam(), keras.Variable(START)
    optimizer.build([variable])
    with pytest.raises(ValueError, match="has made its variables already: give a new one"):
        row_updates.update_rows_only(optimizer, [variable])


@pytest.mark.parametrize("again", ["given", "of the model"])
def test_an_optimizer_may_be_given_again_and_stays_what_it_was(again):
    given = keras.optimizers.Adam(0.05)
    model = model_of(tf.distribute.get_strategy(), rate=0.1, optimizer=given)
    changed_rows(model, steps=1)
    model.compile(given if again == "given" else model.optimizer)
    assert len(changed_rows(model, steps=1)) <= 28
    assert type(given) is keras.optimizers.Adam and int(given.iterations.numpy()) == 2
    config = model.get_compile_config()["optimizer"]
    assert (config["module"], config["class_name"]) == ("keras.optimizers", "Adam")


def test_a_sparse_gradient_may_be_of_no_rows():
    found = row_updates.merged_rows(tf.IndexedSlices(tf.zeros([0, 3]), tf.zeros([0], tf.int64)))
    assert [len(found[0]), len(found[1]), int(found[2])] == [0, 0, 0]


def model_of(strategy, *, rate, optimizer=None, **options):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((6,)), keras.Input((), dtype="int64")
        head = circle_tf.CircleHead(
            200, gamma=8.0, as_model_loss=True, name="head", sample_rate=rate, **options
        )
        losses = head((circle_tf.UnitEmbedding(4)(features), ids))
        model = circle_tf.EmbeddingModel([features, ids], losses)
        model.compile(optimizer or keras.optimizers.Adam(0.05))
    return model


def changed_rows(model, *, steps):
    rows = np.random.default_rng(0).normal(size=(8 * steps, 6)).astype(np.float32)
    before = model.get_layer("head").class_weights.numpy()
    model.fit([rows, np.arange(8 * steps) % 8], batch_size=8, shuffle=False, verbose=0)
    return np.flatnonzero((model.get_layer("head").class_weights.numpy() != before).any(axis=1))


def test_a_model_updates_the_classes_of_each_step_alone():
    one = tf.distribute.get_strategy()
    assert len(changed_rows(model_of(one, rate=1.0), steps=1)) == 200
    changed = changed_rows(model_of(one, rate=0.1), steps=1)
    assert set(range(8)) <= set(changed) and len(changed) <= 28
    assert 28 < len(changed_rows(model_of(one, rate=0.1), steps=3)) <= 8 + 3 * 20


@stacks.needs_own_steps
@pytest.mark.parametrize("shards", [None, "replicas"])
def test_two_replicas_update_the_rows_of_one_device(shards):
    models = [
        model_of(strategy, rate=0.1, shards=shards)
        for strategy in (tf.distribute.get_strategy(), strategies.mirrored())
    ]
    changed = [changed_rows(model, steps=3) for model in models]
    np.testing.assert_array_equal(*changed)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
