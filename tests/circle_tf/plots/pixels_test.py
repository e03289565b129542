"""Images of every kind as 8-bit colour."""

import numpy as np
import pytest

from circle_tf.plots import pixels


@pytest.mark.parametrize(
    "images",
    [
        np.full([2, 1, 1, 1], 51, np.uint8),
        np.full([2, 1, 1, 1], 51, np.int64),
        np.full([2, 1, 1, 1], 51.2),
        np.full([2, 1, 1, 1], 0.2, np.float32),
    ],
)
def test_ranges(images):
    found = pixels.as_rgb(images)
    assert found.dtype == np.uint8 and found.shape == (2, 1, 1, 3)
    assert (found == 51).all()


def test_out_of_range_and_nan_are_clipped():
    assert pixels.as_rgb(np.array([[[-9.0], [300.0], [np.nan]]]))[0, :, 0].tolist() == [0, 255, 0]


def test_whole_numbers_are_never_taken_as_0_to_1():
    assert pixels.as_rgb(np.ones([1, 1, 1], np.int32)).tolist() == [[[1, 1, 1]]]


def test_alpha_is_dropped_and_colour_kept():
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 4)
    assert pixels.as_rgb(image).tolist() == [[[0, 1, 2]]]


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 2), (4,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="1, 3 or 4 channels; found shape"):
        pixels.as_rgb(np.zeros(shape))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 12])
def test_tiles_stand_row_by_row(count):
    images = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones(
        [1, 3, 2, 3], np.uint8
    )
    picture = pixels.tile(images)
    columns = picture.shape[1] // 2
    assert picture.shape[0] // 3 == columns  # TensorBoard shows other pictures otherwise.
    for place in range(columns**2):
        row, column = divmod(place, columns)
        block = picture[3 * row : 3 * row + 3, 2 * column : 2 * column + 2]
        assert (block == (place + 1 if place < count else 0)).all()
