"""Nets of the user's: functions by name, and saved models."""

import sys
import types

import keras
import numpy as np
import pytest

from circle_tf import layers
from circle_tf.backbones import by_name
from tests import stacks

pytestmark = stacks.needs_keras_3

SHAPE = (16, 16, 3)


def _net(shape, *, end=None):
    pixels = keras.Input(shape)
    maps = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, end(maps) if end else maps)


def _tokens(maps):
    return keras.layers.Reshape((-1, 4))(maps)


@pytest.fixture
def nets(monkeypatch):
    """A module of a user's that can be imported."""
    module = types.ModuleType("my_nets")
    module.maps = _net
    module.tokens = lambda shape: _net(shape, end=_tokens)
    module.features = lambda shape: _net(shape, end=keras.layers.GlobalMaxPooling2D())
    module.not_a_model = lambda shape: "net"
    module.two = lambda shape: _net(shape, end=lambda maps: [maps, maps])
    module.larger = lambda shape: _net((32, 32, 3))
    module.any_size = lambda shape: _net((None, None, 3))
    module.broken = lambda shape: shape[7]
    monkeypatch.setitem(sys.modules, "my_nets", module)


def pixels(shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.float32)


def inner(model):
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("function", "pooling", "pooled"),
    [
        ("maps", None, lambda found: found.mean((1, 2))),
        ("any_size", "max", lambda found: found.max((1, 2))),
        ("tokens", None, lambda found: found.mean(1)),
        ("tokens", "class_token", lambda found: found[:, 0]),
        ("features", None, lambda found: found),
    ],
)
def test_what_a_function_makes_is_pooled(function, pooling, pooled, tmp_path):
    model = by_name.build(f"my_nets:{function}", SHAPE, pooling=pooling)
    expected = pooled(inner(model)(pixels()).numpy())
    np.testing.assert_allclose(model(pixels()), expected, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(pixels()), model(pixels()))


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:net", "cannot be imported .ModuleNotFoundError.*on PYTHONPATH"),
        ("my_nets:other", "The module 'my_nets' has no function 'other'"),
        ("my_nets:not_a_model", "must return a keras.Model from pixels to features; found str"),
        ("my_nets:two", r"must end in one tensor.*found \[\(None, 14, 14, 4\), "),
        ("my_nets:larger", r"takes \(32, 32, 3\); expected one batch of images \(16, 16, 3\)"),
        ("my_nets:broken", r"failed with \(16, 16, 3\): IndexError: tuple index out of range"),
    ],
)
def test_functions_that_make_no_net_for_these_images(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        by_name.build(name, SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nets")
def test_weights_of_a_users_net_come_from_a_file_or_a_model(tmp_path):
    trained = by_name.build("my_nets:maps", SHAPE)
    path = str(tmp_path / "net.weights.h5")
    inner(trained).save_weights(path)
    trained.save(tmp_path / "model.keras")
    for weights in (path, tmp_path / "model.keras", tmp_path):
        found = by_name.build("my_nets:maps", SHAPE, weights=weights)
        np.testing.assert_array_equal(found(pixels()), trained(pixels()))


def test_a_saved_model_is_a_backbone_up_to_its_features(tmp_path):
    path = str(tmp_path / "model.keras")
    backbone = by_name.build("conv4", SHAPE)
    embeddings = layers.UnitEmbedding(8, name="embedding")(backbone.output)
    keras.Model(backbone.input, embeddings).save(path)
    found = by_name.build(path, SHAPE)
    np.testing.assert_array_equal(found(pixels()), backbone(pixels()))
    with pytest.raises(ValueError, match=r"takes \(16, 16, 3\); expected .* \(32, 32, 3\)"):
        by_name.build(path, (32, 32, 3))
    with pytest.raises(ValueError, match="brings its weights: leave weights None"):
        by_name.build(path, SHAPE, weights="random")
    with pytest.raises(ValueError, match="other.keras cannot be loaded"):
        by_name.build(str(tmp_path / "other.keras"), SHAPE)


def test_a_saved_net_without_features_is_taken_whole(tmp_path):
    path = str(tmp_path / "net.keras")
    net = _net(SHAPE)
    net.save(path)
    found = by_name.build(path, SHAPE)
    np.testing.assert_allclose(found(pixels()), net(pixels()).numpy().mean((1, 2)), rtol=1e-4)
