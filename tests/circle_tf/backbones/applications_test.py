import os
import urllib.request

import keras
import numpy as np
import pytest

from circle_tf.backbones import applications, by_name
from tests import stacks

pytestmark = stacks.needs_keras_3

SHAPE = (32, 32, 3)


@pytest.fixture
def no_network(monkeypatch):
    """Asks at a port where nobody answers, whatever the machine's network."""
    handler = urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(handler))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty folder for what Keras fetches, in place of that of this machine's user."""
    from keras.src.backend import config  # Read from KERAS_HOME when Keras is imported.

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "models"


def test_the_prefix_means_the_same_net():
    assert by_name.build("application:MobileNetV2", SHAPE).name == "MobileNetV2"
    with pytest.raises(ValueError, match="no backbone 'conv4'. Known: .*MobileNetV2"):
        by_name.build("application:conv4", SHAPE)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["MobileNetV2", "application:MobileNetV2"])
def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(name, cache):
    with pytest.raises(ValueError, match="could not be fetched") as caught:
        by_name.build(name, SHAPE, weights="imagenet")
    said = str(caught.value)
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    assert (
        f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{file}" in said
    )
    assert f"give the file as weights here, or put it, as {file}, into {cache}." in said
    assert "\n" not in said


@pytest.mark.usefixtures("no_network")
def test_a_file_that_is_put_where_the_error_says_is_taken(cache):
    trained = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE)
    os.makedirs(cache)
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    trained.save(str(cache / file))  # An older file, as Keras' own are.
    for weights in ("imagenet", cache / file):
        found = applications.net("MobileNetV2", SHAPE, weights=weights)
        np.testing.assert_array_equal(found.weights[5], trained.weights[5])


def test_imagenet_is_for_applications_only():
    with pytest.raises(ValueError, match="are for nets of keras.applications; found 'conv4'"):
        by_name.build("conv4", SHAPE, weights="imagenet")


def test_random_weights_are_the_default():
    names = [by_name.build("conv4", SHAPE, weights=weights).name for weights in (None, "random")]
    assert names == ["conv4", "conv4"]
