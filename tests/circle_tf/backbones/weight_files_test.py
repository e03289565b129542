"""Files of weights load whole; what fits alone is loaded only where that is asked for."""

import keras
import numpy as np
import pytest

from circle_tf.backbones import by_name, weight_files
from tests import stacks

pytestmark = stacks.needs_keras_3


def _net(*filters):
    keras.utils.clear_session()
    maps = pixels = keras.Input((8, 8, 3))
    for number, size in enumerate(filters):
        maps = keras.layers.Conv2D(size, 3, padding="same", name=f"conv_{number}")(maps)
    return keras.Model(pixels, maps)


@pytest.fixture(params=["net.weights.h5", "net.h5"])
def path(request, tmp_path):
    """A file of three layers; Keras' older format has all layers of a model beside its weights."""
    path = str(tmp_path / request.param)
    net = _net(4, 5, 6)
    net.save_weights(path) if path.endswith(".weights.h5") else net.save(path)
    return path


def test_the_same_net_loads(path):
    first, second = _net(4, 5, 6), _net(4, 5, 6)
    for net in (first, second):
        weight_files.load(net, path, name="net")
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("filters", [(4, 5, 7), (4, 5, 6, 2), (4, 5)])
def test_another_net_is_refused_in_one_line(path, filters):
    with pytest.raises(ValueError, match="does not hold the weights of net alone") as caught:
        weight_files.load(_net(*filters), path, name="net")
    assert "\n" not in str(caught.value)


def test_the_layers_that_do_not_match_are_named(tmp_path):
    path = str(tmp_path / "net.weights.h5")
    _net(4, 5, 6).save_weights(path)
    with pytest.raises(ValueError, match=r"2 layers differ \(conv_1, conv_2\)\. To load what fits"):
        weight_files.load(_net(4, 7, 6), path, name="net")
    with pytest.raises(ValueError, match="holds 2 weights more than the net has"):
        weight_files.load(_net(4, 5), path, name="net")


def test_a_part_is_loaded_where_that_is_asked_for(path):
    whole, part = _net(4, 5, 6), _net(4, 5, 7)
    weight_files.load(whole, path, name="net")
    before = part.layers[3].get_weights()
    with pytest.warns(UserWarning, match="1 of 3 layers of net keep their own weights.*: conv_2"):
        weight_files.load(part, path, name="net", partial=True)
    for number in (1, 2):
        np.testing.assert_array_equal(
            part.layers[number].get_weights()[0], whole.layers[number].get_weights()[0]
        )
    np.testing.assert_array_equal(part.layers[3].get_weights()[0], before[0])
    with pytest.raises(ValueError, match="holds weights of no layer of net: nothing is loaded"):
        weight_files.load(_net(2, 3), path, name="net", partial=True)


def test_a_part_of_a_model_is_loaded_where_that_is_asked_for(tmp_path):
    path = tmp_path / "model.keras"
    trained = by_name.build("conv4", (32, 32, 3))
    trained.save(path)
    with pytest.warns(UserWarning, match="1 of 8 layers of conv4 keep their own weights"):
        found = by_name.build("conv4", (32, 32, 1), weights=path, partial_weights=True)
    same = [
        np.array_equal(own, other)
        for own, other in zip(found.weights, trained.weights, strict=True)
        if own.shape == other.shape and "kernel" in own.name
    ]
    assert same == [True] * 3


def test_long_lists_are_cut():
    assert weight_files.listed(["a", "b"]) == "a, b"
    assert weight_files.listed(list("abcde"), shown=3) == "a, b, c and 2 more"
