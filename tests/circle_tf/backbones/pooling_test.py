import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.backbones import pooling
from tests import stacks

pytestmark = stacks.needs_keras_3


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(1, 1, shape).astype(np.float32)


def oracle(inputs, p, epsilon=1e-6):
    """The generalised mean, as float64 loops."""
    inputs = np.asarray(inputs, np.float64).reshape(len(inputs), -1, inputs.shape[-1])
    result = np.zeros((len(inputs), inputs.shape[-1]))
    for row, positions in enumerate(inputs):
        for feature in range(inputs.shape[-1]):
            powers = [max(x, epsilon) ** p for x in positions[:, feature]]
            result[row, feature] = (sum(powers) / len(powers)) ** (1 / p)
    return result


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 7, 5)])
@pytest.mark.parametrize("p", [1.0, 3.0, 40.0])
def test_generalized_means_equal_the_formula(shape, p):
    found = pooling.GeneralizedMean(p)(values(*shape)).numpy()
    np.testing.assert_allclose(found, oracle(values(*shape), p), rtol=2e-5)


def test_gradients_are_those_of_finite_differences():
    layer = pooling.GeneralizedMean(3.0)
    inputs = tf.constant(np.abs(values(1, 4, 2)) + 0.1)
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(layer(inputs))
    by_inputs, by_p = tape.gradient(total, [inputs, layer.p.value])
    inputs, step = inputs.numpy().astype(np.float64), 1e-5
    expected = (oracle(inputs, 3 + step).sum() - oracle(inputs, 3 - step).sum()) / (2 * step)
    np.testing.assert_allclose(by_p, expected, rtol=1e-3)
    for position in np.ndindex(*inputs.shape):
        moved = np.zeros(inputs.shape)
        moved[position] = step
        rise = oracle(inputs + moved, 3).sum() - oracle(inputs - moved, 3).sum()
        np.testing.assert_allclose(by_inputs.numpy()[position], rise / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("inputs", [np.zeros((2, 3, 4)), -np.ones((2, 3, 4)), 1e30 * np.eye(3)])
def test_zeros_and_huge_values_have_finite_gradients(inputs):
    inputs = tf.constant(inputs.reshape(-1, 3, inputs.shape[-1]), tf.float32)
    layer = pooling.GeneralizedMean()
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        found = layer(inputs)
    for gradient in tape.gradient(found, [inputs, layer.p.value]):
        assert np.isfinite(gradient).all()
    assert np.isfinite(found).all()


def test_half_precision_loses_only_the_last_cast():
    inputs = np.abs(values(2, 9, 9, 4)).astype(np.float16)
    found = pooling.GeneralizedMean(3.3, dtype="mixed_float16")(inputs)
    assert found.dtype == "float16"
    np.testing.assert_allclose(found, oracle(inputs, 3.3), rtol=2**-10)


def test_the_power_is_learnt_kept_above_one_and_saved(tmp_path):
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, pooling.GeneralizedMean(1.5, name="features")(inputs))
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    rows = np.abs(values(8, 4, 2))
    model.fit(rows, rows.max(axis=1), verbose=0)
    layer = model.get_layer("features")
    assert layer.p.numpy() > 1.5
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(rows, verbose=0), model.predict(rows, verbose=0))
    model.optimizer.learning_rate = 100.0
    model.fit(rows, np.zeros((8, 2)), verbose=0)
    assert layer.p.numpy() == 1


@pytest.mark.parametrize("name", ["average", "max", "flatten", "generalized_mean", "class_token"])
def test_tokens(name):
    tokens = np.abs(values(2, 6, 3))
    patches = tokens[:, 2:]
    expected = {
        "average": patches.mean(1),
        "max": patches.max(1),
        "flatten": patches.reshape(2, -1),
        "generalized_mean": oracle(patches, 3.0),
        "class_token": tokens[:, 0],
    }[name]
    inputs = keras.Input((6, 3))
    found = pooling.features(inputs, name, special_tokens=2, name="net")
    model = keras.Model(inputs, found)
    assert model.layers[-1].name == "features" and found.shape == (None, expected.shape[1])
    np.testing.assert_allclose(model(tokens), expected, rtol=1e-5)


def test_defaults_are_the_class_token_the_average_or_what_the_net_asks_for():
    tokens = values(2, 6, 3)
    inputs = keras.Input((6, 3))
    found = {
        (special, default): keras.Model(
            inputs, pooling.features(inputs, None, default=default, special_tokens=special, name="")
        )(tokens)
        for special, default in [(1, "average"), (0, "average"), (0, "max")]
    }
    np.testing.assert_array_equal(found[1, "average"], tokens[:, 0])
    np.testing.assert_allclose(found[0, "average"], tokens.mean(1), rtol=1e-5)
    np.testing.assert_array_equal(found[0, "max"], tokens.max(1))


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((3,), "average", "net ends in features already: leave pooling None; found 'average'"),
        ((6, 3), "class_token", "net ends in tokens without a class token: take average, max"),
        ((4, 4, 3), "class_token", "net ends in feature maps: take average, max or generalized"),
    ],
)
def test_poolings_that_a_net_has_no_use_for(shape, name, message):
    with pytest.raises(ValueError, match=message):
        pooling.features(keras.Input(shape), name, name="net")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0.5}, "p must be a number of 1 or more; found 0.5"),
        ({"epsilon": 0.0}, "epsilon must be a number above 0; found 0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        pooling.GeneralizedMean(**arguments)


def test_other_ranks_are_refused():
    with pytest.raises(ValueError, match=r"tokens \[B, T, F\]; found \(2, 3\)"):
        pooling.GeneralizedMean()(np.ones((2, 3)))
