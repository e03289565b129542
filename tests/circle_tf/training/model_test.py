"""Both losses train a plain keras.Model and an EmbeddingModel; saving needs only the import."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import compat
from tests import stacks

KINDS = [keras.Model, pytest.param(circle_tf.EmbeddingModel, marks=stacks.needs_keras_3)]


def digits_like():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 10))
    ids = np.arange(32) % 4
    return (centres[ids] + 0.3 * rng.normal(size=(32, 10))).astype(np.float32), ids + 2**24


def build(kind, *, class_level):
    keras.utils.set_random_seed(0)
    features = keras.Input((10,))
    outputs = circle_tf.UnitEmbedding(6)(keras.layers.Dense(16, "relu")(features))
    if class_level:
        outputs = circle_tf.CosineClassifier(4)(outputs)
    return kind(features, outputs)


@pytest.mark.parametrize(
    ("kind", "class_level"),
    [
        (keras.Model, False),
        pytest.param(circle_tf.EmbeddingModel, True, marks=stacks.needs_keras_3),
    ],
)
def test_fit_learns(kind, class_level):
    rows, ids = digits_like()
    model = build(kind, class_level=class_level)
    loss = circle_tf.ClassCircleLoss(gamma=64.0) if class_level else circle_tf.CircleLoss()
    metrics = circle_tf.metrics.monitors(margin=0.25, labels="class" if class_level else "pairwise")
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=metrics, jit_compile=False)
    ids = ids - 2**24 if class_level else ids
    history = model.fit(rows, ids, epochs=30, batch_size=32, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0]
    assert history["s_p"][-1] > history["s_p"][0] and history["s_n"][-1] < history["s_n"][0]
    assert history["valid_anchors"] == [1.0] * 30


@stacks.needs_keras_3
def test_auto_jit_is_off_where_there_is_no_accelerator():
    model = build(circle_tf.EmbeddingModel, class_level=False)
    model.compile("sgd", circle_tf.CircleLoss())
    assert bool(model.jit_compile) == bool(tf.config.list_physical_devices("GPU"))
    assert model.get_compile_config()["jit_compile"] == "auto"
    model.compile("sgd", circle_tf.CircleLoss(), jit_compile=True)
    assert model.jit_compile is True


@stacks.needs_keras_3
def test_jit_gives_the_same_weights():
    rows, ids = digits_like()
    weights = []
    for jit in (False, True):
        model = build(circle_tf.EmbeddingModel, class_level=False)
        model.compile("sgd", circle_tf.CircleLoss(), jit_compile=jit)
        model.fit(rows, ids, epochs=2, batch_size=32, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@stacks.needs_keras_3
def test_one_device_strategy_equals_no_strategy():
    rows, ids = digits_like()
    results = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("CPU:0")):
        with strategy.scope():
            model = build(circle_tf.EmbeddingModel, class_level=False)
            model.compile("sgd", circle_tf.CircleLoss())
        model.fit(rows, ids, epochs=2, batch_size=32, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


# Slow: a new process imports TensorFlow, to show that `import circle_tf` is all loading needs.
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_keras_file_loads_with_nothing_but_the_import(kind, tmp_path):
    rows, ids = digits_like()
    model = build(kind, class_level=False)
    model.compile(
        "adam", circle_tf.CircleLoss(margin=0.3), metrics=circle_tf.metrics.monitors(margin=0.3)
    )
    model.fit(rows, ids, epochs=1, batch_size=32, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "rows.npy", rows)
    script = (
        "import sys, keras, numpy, circle_tf\n"
        "model = keras.models.load_model(sys.argv[1] + '/model.keras')\n"
        "assert model.loss.margin == 0.3\n"
        "rows = numpy.load(sys.argv[1] + '/rows.npy')\n"
        "numpy.save(sys.argv[1] + '/out.npy', model.predict(rows, verbose=0))\n"
        "print(type(model).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected_type = "Functional" if kind is keras.Model else "EmbeddingModel"
    assert done.stdout.split()[-1] == expected_type
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), model.predict(rows, verbose=0), atol=1e-6
    )


@pytest.mark.skipif(compat.IS_KERAS_3, reason="the default stack has it")
def test_the_old_stack_is_told_at_once():
    with pytest.raises(NotImplementedError, match="EmbeddingModel needs Keras 3"):
        build(circle_tf.EmbeddingModel, class_level=False)


@stacks.needs_keras_3
@pytest.mark.parametrize("name", ["model.h5", "model.hdf5"])
def test_hdf5_that_would_not_load_is_not_written(name, tmp_path):
    model = build(circle_tf.EmbeddingModel, class_level=False)
    with pytest.raises(ValueError, match=f"as a .keras file; found .*{name}"):
        model.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
