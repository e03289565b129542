"""A float32 clone is the same model in another precision."""

import keras
import numpy as np
import pytest

from circle_tf import layers
from circle_tf.serving import weights
from tests import stacks

pytestmark = stacks.needs_keras_3

_IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.float32)


def _model(policy):
    pixels = keras.Input((8, 8, 1), dtype="float32")
    maps = keras.layers.Rescaling(1 / 255, dtype=policy)(pixels)
    maps = keras.layers.Conv2D(4, 3, dtype=policy)(maps)
    maps = keras.layers.BatchNormalization(dtype=policy)(maps)
    features = keras.layers.Flatten(dtype=policy)(maps)
    return keras.Model(pixels, layers.UnitEmbedding(6, dtype=policy)(features))


def _nested(policy):
    pixels = keras.Input((8, 8, 1), dtype="float32")
    inner = _model(policy)
    return keras.Sequential([pixels, inner, layers.UnitEmbedding(3, dtype=policy)])


class _Subclass(keras.Model):
    """A model that a config cannot rebuild: it does not save its arguments."""

    def __init__(self, dim):
        super().__init__(dtype="mixed_bfloat16")
        self.flat, self.embed = keras.layers.Flatten(), layers.UnitEmbedding(dim)

    def call(self, images):
        return self.embed(self.flat(images))


@pytest.mark.parametrize("make", [_model, _nested])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_every_layer_of_the_clone_computes_in_float32(make, policy):
    model = make(policy)
    clone = weights.as_float32(model)
    assert clone is not model
    assert {layer.compute_dtype for layer in clone._flatten_layers()} == {"float32"}
    assert {str(weight.dtype) for weight in clone.weights} == {"float32"}
    for old, new in zip(model.get_weights(), clone.get_weights(), strict=True):
        np.testing.assert_array_equal(old.astype(np.float32), new)


def test_the_clone_equals_a_model_built_in_float32():
    model, reference = _model("mixed_bfloat16"), _model("float32")
    reference.set_weights(model.get_weights())
    np.testing.assert_array_equal(weights.as_float32(model)(_IMAGES), reference(_IMAGES))


def test_cloning_leaves_the_model_and_the_global_policy_alone():
    model = _model("mixed_bfloat16")
    before = model.get_weights()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        weights.as_float32(model)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.layers[-1].dtype_policy.name == "mixed_bfloat16"
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_float32_model_is_not_cloned_whatever_its_input():
    pixels = keras.Input((8, 8, 1), dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, layers.UnitEmbedding(3)(flat))
    assert weights.as_float32(model) is model


def test_a_model_that_its_config_cannot_rebuild_says_so():
    model = _Subclass(4)
    model(_IMAGES)
    with pytest.raises(ValueError, match="mixed_bfloat16 and cannot be rebuilt.*get_config"):
        weights.as_float32(model)
