"""The net of several branches: what each sees, and that it is saved whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import backbones
from circle_tf.backbones import mgn
from tests import stacks

pytestmark = stacks.needs_keras_3


@pytest.mark.parametrize(("height", "stripes"), [(6, 3), (7, 3), (2, 2), (5, 1)])
def test_stripes_cover_every_row_once(height, stripes):
    maps = np.random.default_rng(0).normal(size=(2, height, 3, 4)).astype(np.float32)
    found = mgn.StripePooling(stripes)(maps).numpy()
    edges = [height * number // stripes for number in range(stripes + 1)]
    for number in range(stripes):
        expected = maps[:, edges[number] : edges[number + 1]].max(axis=(1, 2))
        np.testing.assert_array_equal(found[:, number], expected)
    assert mgn.StripePooling(stripes).compute_output_shape(maps.shape) == found.shape


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="3 stripes want maps of as many rows or more; found 2"):
        mgn.StripePooling(3)(tf.ones([1, 2, 2, 1]))


def test_names_and_refusals():
    assert "mgn" in backbones.names()
    with pytest.raises(ValueError, match="mgn has its own pooling"):
        backbones.build("mgn", (64, 64, 3), pooling="max")
    with pytest.raises(ValueError, match="wants colour images"):
        backbones.build("mgn", (64, 64, 1))


# Slow: three copies of half a ResNet50 are built, saved and loaded.
@pytest.mark.slow
def test_the_net_of_three_branches(tmp_path):
    model = backbones.build("mgn", (48, 48, 3))
    sizes = [model.get_layer(f"branch_{n}").output_shape[1:3] for n in (1, 2, 3)]
    assert sizes == [(2, 2), (3, 3), (3, 3)]
    weights = [model.get_layer(f"branch_{n}").get_weights() for n in (1, 2)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)  # Copies of one net to begin with.
    assert model.get_layer("branch_1").variables[0] is not model.get_layer("branch_2").variables[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3)).astype(np.float32)
    expected = model(pixels, training=False).numpy()
    assert expected.shape == (2, 2048) and (expected != expected[:1]).any()
    model.save(tmp_path / "model.keras")
    found = keras.models.load_model(tmp_path / "model.keras")(pixels, training=False).numpy()
    np.testing.assert_array_equal(found, expected)
