import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.backbones.normalization import FusedBatchNormalization
from tests import stacks

pytestmark = stacks.needs_keras_3


def pair(**arguments):
    """The fused layer and Keras' own, with the same weights."""
    layers = FusedBatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    for layer in layers:
        layer.build((None, 5, 4, 3))
        generator = np.random.default_rng(0)
        layer.set_weights([generator.uniform(0.5, 2.0, weight.shape) for weight in layer.weights])
    return layers


def images(*, seed=1, dtype="float32"):
    return tf.constant(np.random.default_rng(seed).normal(3.0, 2.0, [6, 5, 4, 3]), dtype)


def apply(layer, inputs, *, training):
    """Outputs, gradients by input and weights, and weights afterwards."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    sources = [inputs, *(weight.value for weight in layer.trainable_weights)]
    return [outputs, *tape.gradient(loss, sources), *layer.get_weights()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("momentum", [0.99, 0.6])
def test_equals_keras(training, momentum):
    fused, plain = pair(momentum=momentum)
    for mine, theirs in zip(
        apply(fused, images(), training=training),
        apply(plain, images(), training=training),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_several_steps_give_the_same_moving_statistics():
    fused, plain = pair()
    for seed in range(5):
        fused(images(seed=seed), training=True)
        plain(images(seed=seed), training=True)
    for mine, theirs in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision(policy, training):
    fused, plain = pair(dtype=policy)
    mine, theirs = fused(images(), training=training), plain(images(), training=training)
    assert mine.dtype == theirs.dtype
    np.testing.assert_allclose(tf.cast(mine, "float32"), tf.cast(theirs, "float32"), atol=0.05)
    assert all(weight.dtype == "float32" for weight in fused.weights)


@pytest.mark.parametrize(
    ("arguments", "inputs"),
    [
        ({"dtype": "float64"}, images(dtype="float64")),
        ({"scale": False}, images()),
        ({"center": False}, images()),
        ({"trainable": False}, images()),
    ],
    ids=["float64", "no scale", "no centre", "frozen"],
)
def test_what_the_kernel_cannot_do_equals_keras_too(arguments, inputs):
    fused, plain = pair(**arguments)
    mine, theirs = fused(inputs, training=True), plain(inputs, training=True)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    for one, other in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_vectors_equal_keras():
    inputs = tf.random.stateless_normal([8, 3], [0, 1])
    fused, plain = FusedBatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(fused(inputs, training=True), plain(inputs, training=True))


def test_compiles_by_xla():
    fused, plain = pair()
    compiled = tf.function(lambda inputs: fused(inputs, training=True), jit_compile=True)
    np.testing.assert_allclose(compiled(images()), plain(images(), training=True), atol=1e-5)


def test_saves_and_loads(tmp_path):
    pixels = keras.Input((5, 4, 3))
    model = keras.Model(pixels, FusedBatchNormalization(momentum=0.7)(pixels))
    model.layers[-1].set_weights(pair()[0].get_weights())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].momentum == 0.7
    np.testing.assert_array_equal(loaded(images()), model(images()))
