"""LazyAdam, weight averaging and Keras 3's own optimizers against Addons' numbers."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import addons as tfa
from tests import stacks
from tests.addons_stack import make_golden

pytestmark = stacks.needs_keras_3
GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())["optimizers"]


def keras_trajectory(optimizer, *, sparse=False):
    """make_golden.trajectory, on a Keras variable."""
    table = keras.Variable(np.arange(18).reshape(6, 3) / 8 - 1, dtype="float32")
    found = []
    for gradient in make_golden.steps(sparse):
        optimizer.apply_gradients([(gradient, table)])
        found.append(table.numpy())
    return found, table


@pytest.mark.parametrize("graph", [False, True])
def test_lazy_adam_is_that_of_addons(graph):
    optimizer = tfa.optimizers.LazyAdam(0.1)
    table = keras.Variable(np.arange(18).reshape(6, 3) / 8 - 1, dtype="float32")
    optimizer.build([table])

    def step(gradient):
        optimizer.apply([gradient], [table])

    step = tf.function(step) if graph else step
    for gradient, expected in zip(make_golden.steps(True), GOLDEN["LazyAdam"], strict=True):
        step(gradient)
        np.testing.assert_allclose(table.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_lazy_adam_leaves_rows_alone_that_adam_moves():
    lazy = keras_trajectory(tfa.optimizers.LazyAdam(0.1), sparse=True)[0]
    adam = keras_trajectory(keras.optimizers.Adam(0.1), sparse=True)[0]
    # Row 0 is looked up in the first step and not in the second.
    np.testing.assert_array_equal(lazy[0][0], lazy[1][0])
    assert np.all(adam[0][0] != adam[1][0])


def test_lazy_adam_is_adam_for_dense_gradients():
    lazy, adam = tfa.optimizers.LazyAdam(0.1), keras.optimizers.Adam(0.1)
    np.testing.assert_array_equal(keras_trajectory(lazy)[0], keras_trajectory(adam)[0])


def test_lazy_adam_trains_and_survives_saving(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Embedding(9, 4), keras.layers.Flatten()]
    )
    model.compile(tfa.optimizers.LazyAdam(0.05), loss=tfa.losses.TripletSemiHardLoss())
    rows = np.random.default_rng(0).integers(0, 8, (16, 2))
    untouched = model.layers[0].get_weights()[0][8]
    history = model.fit(rows, rows[:, 0] % 4, batch_size=16, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_array_equal(model.layers[0].get_weights()[0][8], untouched)
    model.save(str(tmp_path / "model.keras"))
    again = keras.models.load_model(str(tmp_path / "model.keras"))
    assert type(again.optimizer) is tfa.optimizers.LazyAdam
    assert again.optimizer.get_config() == model.optimizer.get_config()


@pytest.mark.parametrize("size", [0, None], ids=["static", "dynamic"])
def test_lazy_adam_leaves_a_table_alone_of_which_nothing_is_looked_up(size):
    optimizer, table = tfa.optimizers.LazyAdam(0.1), keras.Variable(np.ones([6, 2, 3], np.float32))
    optimizer.build([table])

    @tf.function(input_signature=[tf.TensorSpec([size], tf.int64)])
    def step(rows):
        values = tf.ones([tf.shape(rows)[0], 2, 3])
        optimizer.apply([tf.IndexedSlices(values, rows, [6, 2, 3])], [table])

    step(tf.zeros([0], tf.int64))
    np.testing.assert_array_equal(table.numpy(), 1)
    if size is None:
        step(tf.constant([4, 1, 4], tf.int64))
        changed = (table.numpy() != 1).any(axis=(1, 2))
        assert changed.tolist() == [False, True, False, False, True, False]


def test_lazy_adam_refuses_amsgrad():
    with pytest.raises(ValueError, match="amsgrad=False"):
        tfa.optimizers.LazyAdam(amsgrad=True)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param("LAMB", lambda: keras.optimizers.Lamb(0.1), marks=stacks.needs_lamb),
        # Keras multiplies the decay by the learning rate, Addons does not.
        ("AdamW", lambda: keras.optimizers.AdamW(0.1, weight_decay=0.01 / 0.1)),
        ("SGDW", lambda: keras.optimizers.SGD(0.1, weight_decay=0.01 / 0.1)),
    ],
)
def test_keras_equals_of_addons_optimizers(name, optimizer):
    found, _ = keras_trajectory(optimizer())
    np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-4, atol=1e-5)


def test_keras_moving_average_starts_after_the_first_step():
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.75)
    found, table = keras_trajectory(optimizer)
    # Addons' average starts from the weights before the first step, Keras' from those after it.
    start = np.arange(18).reshape(6, 3) / 8 - 1
    shift = 0.75 ** len(found) * (start - found[0])
    optimizer.finalize_variable_values([table])
    np.testing.assert_allclose(table.numpy() + shift, GOLDEN["MovingAverage"], atol=1e-6)


class Table(keras.Model):
    """A table trained on the gradients of the golden numbers."""

    def __init__(self):
        super().__init__()
        self.table = self.add_weight(shape=(6, 3), name="table", initializer="zeros")
        self.table.assign(np.arange(18).reshape(6, 3) / 8 - 1)

    def call(self, gradients):
        """Returns a loss whose gradient is the input."""
        return tf.reduce_sum(gradients * tf.convert_to_tensor(self.table), axis=[1, 2])


def fit_table(callback, **compiled):
    model = Table()
    gradients = np.stack([tf.convert_to_tensor(slices) for slices in make_golden.steps(True)])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda y, z: tf.reduce_sum(z), **compiled)
    model.fit(gradients, np.zeros(5), batch_size=1, shuffle=False, verbose=0, callbacks=[callback])
    return model


def test_stochastic_weight_averaging_is_that_of_addons():
    average = tfa.callbacks.StochasticWeightAveraging(start_averaging=1, average_period=2)
    model = fit_table(average)
    assert average.num_snapshots == 2
    np.testing.assert_allclose(model.table.numpy(), GOLDEN["SWA"], rtol=1e-5, atol=1e-6)


def test_no_snapshot_leaves_the_weights():
    average = tfa.callbacks.StochasticWeightAveraging(start_averaging=99)
    model = fit_table(average)
    plain = fit_table(keras.callbacks.Callback())
    assert average.num_snapshots == 0
    np.testing.assert_array_equal(model.table.numpy(), plain.table.numpy())


def test_weight_averaging_refuses_what_it_cannot_see():
    with pytest.raises(ValueError, match="steps_per_execution=1 for this; found 2"):
        fit_table(tfa.callbacks.StochasticWeightAveraging(), steps_per_execution=2)
    with pytest.raises(ValueError, match="found -1 and 10"):
        tfa.callbacks.StochasticWeightAveraging(start_averaging=-1)
