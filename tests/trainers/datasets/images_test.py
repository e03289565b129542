import pytest

from trainers import datasets
from trainers.datasets import base, images


def test_shape_of_a_recipe():
    assert images.image_shape({}) == (112, 112, 3)
    assert images.image_shape({"image_size": 8, "image_width": 0, "channels": 1}) == (8, 8, 1)
    assert images.image_shape({"image_size": 8, "image_width": 4}) == (8, 4, 3)
    with pytest.raises(base.DataError, match="image_size of 1 or more.* found 8 and -1"):
        images.image_shape({"image_size": 8, "image_width": -1})


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_square_pictures_stay_square(name):
    with pytest.raises(base.DataError, match=f"{name} is of square pictures.*found 8 x 4"):
        datasets.load({"name": name, "image_size": 8, "image_width": 4})
