"""The net of the retrieval experiments: its size, and that its weights come back."""

import keras
import numpy as np
import pytest

from circle_tf import backbones
from tests import stacks

pytestmark = stacks.needs_keras_3


def test_size_is_the_one_published():
    model = backbones.build("bn_inception", (224, 224, 3))
    assert model.output_shape == (None, 1024)
    assert model.get_layer("features").input.shape == (None, 7, 7, 1024)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    # The published net has biases before its batch norms, and a layer of 1,000 classes.
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    left_out = sum(layer.filters for layer in convolutions) + 1024 * 1000 + 1000
    assert trained + left_out == 11_295_240


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match="wants colour images"):
        backbones.build("bn_inception", (64, 64, 1))


def test_weights_come_back_from_a_file(tmp_path):
    model = backbones.build("bn_inception", (48, 32, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3)).astype(np.float32)
    expected = model(pixels, training=False).numpy()
    model.save_weights(tmp_path / "net.weights.h5")
    again = backbones.build("bn_inception", (48, 32, 3), weights=str(tmp_path / "net.weights.h5"))
    np.testing.assert_array_equal(again(pixels, training=False).numpy(), expected)
    assert np.isfinite(expected).all() and np.ptp(expected, axis=0).max() > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels, training=False).numpy(), expected)
