"""Each ailment is provoked and told of, and a healthy training is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.callbacks import DiagnosticsCallback
from tests import stacks

RANDOM = np.random.default_rng(0)
CENTRES = RANDOM.normal(size=(8, 12))
IDS = np.arange(64) % 8
ROWS = (CENTRES[IDS] + 0.8 * RANDOM.normal(size=(64, 12))).astype(np.float32)


def _train(
    rows=ROWS, ids=IDS, *, rate=1e-3, epochs=3, layers=(), loss=None, gamma=80.0, margin=0.4
):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input(rows.shape[1:]), *layers, keras.layers.Dense(6, name="embedding")]
    )
    model.compile(keras.optimizers.SGD(rate), loss=loss or circle_tf.CircleLoss(margin, gamma))
    said = []
    look = DiagnosticsCallback(rows, ids, margin=margin, gamma=gamma, every=10, tell=said.append)
    model.fit(rows, ids, batch_size=64, epochs=epochs, verbose=0, shuffle=False, callbacks=[look])
    assert said == list(look.found.values())
    return look.found


def test_a_healthy_training_is_left_alone():
    assert _train(epochs=40) == {}


@pytest.mark.parametrize(
    ("ids", "missing"), [(np.arange(64), "positive"), (np.zeros(64, int), "negative")]
)
def test_batches_without_pairs(ids, missing):
    found = _train(ids=ids)
    assert f"No anchor of the batch has a {missing}" in found["no valid anchors"]
    assert "P classes x K examples" in found["no valid anchors"]


def test_pixels_that_nobody_scaled():
    found = _train(rows=np.abs(60 * ROWS))
    assert "numbers of about" in found["unnormalised input"]
    assert "Rescaling" in found["unnormalised input"]
    scaled = _train(rows=np.abs(60 * ROWS), layers=[keras.layers.Rescaling(1 / 60)])
    assert "unnormalised input" not in scaled


def test_collapsed_embeddings():
    dead = keras.layers.Dense(6, kernel_initializer="zeros", bias_initializer="ones")
    found = _train(layers=[dead])
    assert "mean cosine of 1.000" in found["collapsed embeddings"]


def _square(y_true, y_pred):
    """Diverges, which losses of directions hardly can."""
    del y_true
    return tf.reduce_mean(tf.square(y_pred), axis=-1)


@pytest.mark.parametrize(("rate", "told"), [(1.5, "has risen from"), (40.0, "The loss is inf at")])
def test_a_learning_rate_too_high(rate, told):
    found = _train(rate=rate, epochs=60, loss=_square)
    assert told in found["learning rate too high"] and "gamma" in found["learning rate too high"]


def test_a_loss_that_is_not_finite():
    look = DiagnosticsCallback(ROWS, IDS, tell=lambda message: None)
    look.set_model(None)
    look.on_train_batch_end(0, {"loss": float("nan")})
    assert "The loss is nan at step 1" in look.found["learning rate too high"]


@pytest.mark.parametrize(("power", "told"), [(1.0, False), (2.0, True)])
def test_a_loss_that_grows_with_gamma_alone_is_no_fault(power, told):
    model = keras.Sequential([keras.Input((12,)), circle_tf.UnitEmbedding(4)])
    model.compile(keras.optimizers.SGD())
    gamma = circle_tf.schedules.GeometricGrowth(16.0, 80.0, steps=50)
    look = DiagnosticsCallback(ROWS, IDS, gamma=gamma, tell=lambda message: None)
    look.set_model(model)
    look.on_train_begin()
    for step in range(60):
        model.optimizer.iterations.assign(step)
        look.on_train_batch_end(step, {"loss": float(gamma(step)) ** power})
    assert ("loss / gamma has risen" in look.found.get("learning rate too high", "")) is told


def test_nothing_left_to_learn():
    rows = np.eye(12, dtype=np.float32)[IDS]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(12, "linear")])
    model.layers[0].set_weights([np.eye(12) - 1 / 8, np.zeros(12)])
    look = DiagnosticsCallback(rows, IDS, margin=0.25, gamma=256, tell=lambda message: None)
    look.set_model(model)
    look.on_train_end()
    assert look.found == {}  # Nothing is known before the first step.
    look.on_train_batch_end(0, {"loss": 0.0})
    look.on_train_end()
    assert "nothing is left to learn" in look.found["saturated weights"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_float_ids_that_collide(dtype):
    ids = (IDS + (2**11 if dtype == np.float16 else 2**24)).astype(dtype)
    model = keras.Sequential([keras.Input(ROWS.shape[1:]), keras.layers.Dense(4)])
    look = DiagnosticsCallback(ROWS, ids, tell=lambda message: None)
    look.set_model(model)
    look.on_train_begin()
    assert f"Labels of dtype {np.dtype(dtype).name}" in look.found["label ids colliding"]


def test_ids_that_keras_makes_collide():
    wide = IDS.astype(np.int64) + 2**24
    found = _train(ids=wide, loss=_square, epochs=1)
    assert "makes 5 classes of 8" in found["label ids colliding"]
    assert "label ids colliding" not in _train(ids=wide, epochs=1)


def test_bad_input():
    with pytest.raises(ValueError, match="Found 2 labels for 64 inputs"):
        DiagnosticsCallback(ROWS, [1, 2])
    with pytest.raises(ValueError, match="every must be a whole number of 1 or more; found 0"):
        DiagnosticsCallback(ROWS, IDS, every=0)


@stacks.needs_keras_3
def test_a_model_whose_head_takes_the_ids_as_well():
    inputs, ids = keras.Input((12,)), keras.Input((), dtype="int64")
    embeddings = circle_tf.UnitEmbedding(6)(inputs)
    head = circle_tf.CircleHead(8, as_model_loss=True)((embeddings, ids))
    model = circle_tf.EmbeddingModel([inputs, ids], head)
    model.compile("sgd", jit_compile=False)
    look = DiagnosticsCallback(ROWS, IDS, embed=keras.Model(inputs, embeddings), tell=str)
    data = tf.data.Dataset.from_tensors(((ROWS, IDS),))
    model.fit(data, shuffle=False, verbose=0, callbacks=[look])
    assert look.found == {}
