"""A run's own model gives its net's weights to another run, whatever the net and the images."""

import keras
import numpy as np
import pytest

from circle_tf import layers
from circle_tf.backbones import by_name
from tests import stacks

pytestmark = stacks.needs_keras_3

COLOUR = (64, 64, 3)


def _run(path, name, shape=COLOUR):
    """A model as a run leaves it, with weights that no fresh net has; the features of its net."""
    keras.utils.set_random_seed(1)
    backbone = by_name.build(name, shape)
    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        if "variance" not in weight.name and weight.dtype == "float32":
            weight.assign(weight + rng.normal(0, 1e-2, weight.shape))
    embeddings = layers.UnitEmbedding(8, name="embedding")(backbone.output)
    keras.Model(backbone.input, embeddings, name="embedding_model").save(path)
    return backbone


def _equal(path, name, *, shape=COLOUR):
    trained = _run(path, name)
    keras.layers.Conv2D(1, 1)  # So that Keras counts layers from elsewhere.
    loaded = by_name.build(name, shape, weights=str(path))
    for one, other in zip(trained.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    if shape == COLOUR:
        images = np.random.default_rng(2).integers(0, 256, (2, *COLOUR)).astype(np.float32)
        found = [model(images, training=False).numpy() for model in (trained, loaded)]
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", ["conv4", "iresnet18", "resnet18_v2", "MobileNetV2"])
def test_a_run_of_each_family_is_fine_tuned(tmp_path, name):
    _equal(tmp_path / "model.keras", name)


# Slow: nets of hundreds of layers.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("bn_inception", "mgn", "iresnet34", "resnet50_v2", "efficientnetv2_b0"),
        *("mobilenet_v3_small", "mobilenet_v3_large", "ResNet50", "ResNet50V2", "VGG16"),
        *("DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNet", "MobileNetV3Small"),
        *("ConvNeXtTiny", "NASNetMobile"),
    ],
)
def test_larger_nets_are_fine_tuned(tmp_path, name):
    _equal(tmp_path / "model.keras", name)


@pytest.mark.parametrize("name", ["conv4", "resnet18_v2"])
def test_for_images_of_another_size(tmp_path, name):
    _equal(tmp_path / "model.keras", name, shape=(96, 80, 3))


def test_a_backbone_that_was_saved_alone(tmp_path):
    trained = by_name.build("conv4", COLOUR)
    trained.save(tmp_path / "net.keras")
    loaded = by_name.build("conv4", COLOUR, weights=str(tmp_path / "net.keras"))
    np.testing.assert_array_equal(trained.weights[0], loaded.weights[0])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("iresnet18", COLOUR, r"another net than iresnet18 .*: 59 of 60 layers .*; \.\.\.\)\. To"),
        (
            *("conv4", (64, 64, 1)),
            r"1 channel\(s\): 1 of 8 layers with weights differ \(layer 1: kernel \[3, 3, 3, 32\] "
            r"there, kernel \[3, 3, 1, 32\] here\)\. To load what fits, set partial_weights\.$",
        ),
    ],
)
def test_another_net_is_told_in_one_line(tmp_path, name, shape, message):
    path = tmp_path / "model.keras"
    _run(path, "conv4")
    with pytest.raises(ValueError, match=message) as caught:
        by_name.build(name, shape, weights=str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_with_a_backbone(tmp_path):
    path = str(tmp_path / "other.keras")
    pixels = keras.Input(COLOUR)
    keras.Model(pixels, keras.layers.Flatten()(pixels)).save(path)
    with pytest.raises(ValueError, match="holds no backbone: expected a layer named 'features'"):
        by_name.build("conv4", COLOUR, weights=path)
    with open(path, "wb") as file:
        file.write(b"no archive")
    with pytest.raises(ValueError, match="other.keras cannot be loaded: File is not a zip file"):
        by_name.build("conv4", COLOUR, weights=path)


@pytest.mark.parametrize("name", ["conv4", "resnet18_v2", "MobileNetV2"])
def test_a_file_of_other_weights_is_told_in_one_line(tmp_path, name):
    path = str(tmp_path / "net.weights.h5")
    by_name.build("iresnet18", COLOUR).save_weights(path)
    with pytest.raises(ValueError, match=f"does not hold the weights of {name} alone") as caught:
        by_name.build(name, COLOUR, weights=path)
    assert "\n" not in str(caught.value)
