import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.backbones import by_name
from tests import stacks

pytestmark = stacks.needs_keras_3

GREY, COLOUR = (32, 32, 1), (32, 32, 3)


def pixels(shape, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, *shape)).astype(np.uint8)


def features(model, images):
    return model(tf.cast(images, tf.float32), training=False).numpy()


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def test_pixels_are_scaled_inside_the_model():
    model = by_name.build("conv4", GREY)
    scale = next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    assert scale.scale == 1 / 255 and model.input.dtype == "float32"


@pytest.mark.parametrize(
    ("pooling", "size"),
    [("average", 256), ("generalized_mean", 256), ("flatten", 1024), (None, 1024)],
)
def test_pooling(pooling, size):
    assert by_name.build("conv4", GREY, pooling=pooling).output_shape == (None, size)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18_v2", 512), ("mobilenet_v3_small", 576), ("MobileNetV2", 1280)]
)
def test_nets_of_each_family_round_trip(name, size, tmp_path):
    model = by_name.build(name, COLOUR)
    expected = features(model, pixels(COLOUR))
    assert expected.shape == (2, size)
    loaded = saved_and_loaded(model, tmp_path)
    np.testing.assert_array_equal(features(loaded, pixels(COLOUR)), expected)


# Slow: builds, saves and loads nets of hundreds of layers.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet50_v2",
        "efficientnetv2_b0",
        "efficientnetv2_b2",
        "mobilenet_v3_large",
        "ResNet50",
        "EfficientNetB0",
        "DenseNet121",
        "MobileNetV3Small",
        "ConvNeXtTiny",
    ],
)
def test_larger_nets_round_trip(name, tmp_path):
    model = by_name.build(name, COLOUR)
    expected = features(model, pixels(COLOUR))
    assert np.isfinite(expected).all()
    loaded = saved_and_loaded(model, tmp_path)
    np.testing.assert_array_equal(features(loaded, pixels(COLOUR)), expected)


def test_applications_preprocess_inside_the_model():
    model = by_name.build("VGG16", COLOUR)
    net = next(layer for layer in model.layers if layer.name == "vgg16")
    images = tf.cast(pixels(COLOUR), tf.float32)
    expected = net(keras.applications.vgg16.preprocess_input(tf.identity(images)))
    expected = tf.reduce_mean(expected, axis=[1, 2])
    np.testing.assert_allclose(features(model, images), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["conv4", "resnet18_v2", "MobileNetV2"])
def test_weights_come_from_a_file(name, tmp_path):
    shape = COLOUR
    path = str(tmp_path / "net.weights.h5")
    trained = by_name.build(name, shape)
    _maps(trained, name).save_weights(path)
    loaded = by_name.build(name, shape, weights=path)
    np.testing.assert_array_equal(features(loaded, pixels(shape)), features(trained, pixels(shape)))


def _maps(model, name):
    """The part of a backbone whose weights a file holds: all but the preprocessing."""
    if name == "conv4":
        return keras.Model(model.input, model.layers[-2].output)
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnet18v2", "resnet18_v2"), ("Conv4", "conv4"), ("resnet_50", "ResNet50")],
)
def test_unknown_names_get_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=f"no backbone '{name}'. Did you mean '{meant}'"):
        by_name.build(name, GREY)


def test_names_far_from_all_get_the_list():
    with pytest.raises(ValueError, match="Known: .*conv4.*resnet18_v2"):
        by_name.build("zzz", GREY)


@pytest.mark.parametrize("shape", [(32, 32), (None, 32, 1), (0, 32, 1), (32, 32, 1.0)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="height, width, channels"):
        by_name.build("conv4", shape)


def test_bad_pooling():
    with pytest.raises(ValueError, match="average, max, generalized_mean, .*; found 'mean'"):
        by_name.build("conv4", GREY, pooling="mean")


def test_missing_weights_file():
    with pytest.raises(FileNotFoundError, match="no weights file 'none.weights.h5'.*imagenet"):
        by_name.build("conv4", GREY, weights="none.weights.h5")


def test_applications_want_colour():
    with pytest.raises(ValueError, match="channels to 3"):
        by_name.build("ResNet50", GREY)
