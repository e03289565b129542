import pytest

from trainers import datasets
from trainers.datasets import base, images


def test_shape_of_a_recipe():
    assert images.image_shape({}) == (112, 112, 3)
    assert images.image_shape({"image_size": 8, "image_width": 0, "channels": 1}) == (8, 8, 1)
    assert images.image_shape({"image_size": 8, "image_width": 4}) == (8, 4, 3)
    with pytest.raises(base.DataError, match="image_size of 1 to 16,384.* found 8 and -1"):
        images.image_shape({"image_size": 8, "image_width": -1})
    with pytest.raises(base.DataError, match="found 1000000000 and 1000000000"):
        images.image_shape({"image_size": 10**9})


@pytest.mark.parametrize("channels", [-1, 0, 2, 4, 10**9])
def test_channels_are_grey_or_colour(channels):
    with pytest.raises(base.DataError, match=rf"1 \(grey\) or 3 \(colour\); found {channels}"):
        images.image_shape({"channels": channels})


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_square_pictures_stay_square(name):
    with pytest.raises(base.DataError, match=f"{name} is of square pictures.*found 8 x 4"):
        datasets.load({"name": name, "image_size": 8, "image_width": 4})
