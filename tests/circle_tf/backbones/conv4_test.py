import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.backbones import by_name
from tests import stacks

pytestmark = stacks.needs_keras_3


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 1), (30, 21, 3)])
def test_conv4_takes_any_size_and_round_trips(shape, tmp_path):
    model = by_name.build("conv4", shape)
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)
    expected = model(images, training=False)
    assert expected.shape == (2, 256 * -(-shape[0] // 16) * -(-shape[1] // 16))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images, training=False), expected)


def test_conv4_pools_before_relu_to_the_same_numbers_as_after():
    maps = tf.random.stateless_normal([2, 6, 6, 3], [0, 1])
    pool = keras.layers.MaxPooling2D(padding="same")
    np.testing.assert_array_equal(tf.nn.relu(pool(maps)), pool(tf.nn.relu(maps)))
