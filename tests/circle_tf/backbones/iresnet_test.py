"""The nets of face recognition: their size, and that they are saved whole."""

import keras
import numpy as np
import pytest

from circle_tf import backbones
from circle_tf.backbones import iresnet
from tests import stacks

pytestmark = stacks.needs_keras_3

# Millions of weights with the layer of 512 numbers that ends them, as the authors publish them.
PUBLISHED = {"iresnet18": 24.03, "iresnet34": 34.14, "iresnet50": 43.59, "iresnet100": 65.16}


# The largest has 150 layers, which take seconds to make.
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("iresnet18", "iresnet34") else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_sizes_are_those_published(name):
    model = backbones.build(name, (112, 112, 3))
    assert model.output_shape == (None, 7 * 7 * 512)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    end = 7 * 7 * 512 * 512 + 512 + 2 * 512  # Dense, and the batch norm that we leave out.
    assert (trained + end) / 1e6 == pytest.approx(PUBLISHED[name], abs=0.006)


def test_names_and_odd_sizes():
    assert set(iresnet.BLOCKS) <= set(backbones.names())
    assert backbones.build("iresnet18", (40, 24, 1)).output_shape == (None, 3 * 2 * 512)
    pooled = backbones.build("iresnet18", (32, 32, 3), pooling="average")
    assert pooled.output_shape == (None, 512)


def test_a_saved_net_gives_the_same_features(tmp_path):
    model = backbones.build("iresnet18", (32, 32, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    expected = model(pixels, training=False).numpy()
    model.save(tmp_path / "model.keras")
    found = keras.models.load_model(tmp_path / "model.keras")(pixels, training=False).numpy()
    np.testing.assert_array_equal(found, expected)
    model.save_weights(tmp_path / "net.weights.h5")
    again = backbones.build("iresnet18", (32, 32, 3), weights=str(tmp_path / "net.weights.h5"))
    np.testing.assert_array_equal(again(pixels, training=False).numpy(), expected)
    assert np.abs(expected).max() > 0.01 and np.abs(expected[0] - expected[1]).max() > 0.01
