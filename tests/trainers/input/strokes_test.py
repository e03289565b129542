import numpy as np
import pytest
import tensorflow as tf

from trainers.input import strokes


class Draws:
    """Gives the same number everywhere: a share of the way from the least to the most."""

    def __init__(self, share):
        self._share = share

    def uniform(self, shape, minval, maxval):
        return tf.fill(shape, minval + self._share * (maxval - minval))


def _line():
    """A dark line, three pixels wide, on white."""
    image = np.full([1, 11, 11, 1], 255.0, np.float32)
    image[:, :, 4:7] = 0
    return tf.constant(image)


@pytest.mark.parametrize(("share", "width"), [(0.0, 5), (1.0, 1), (0.25, 4), (0.75, 2), (0.5, 3)])
def test_lines_grow_and_shrink_by_pixels(share, width):
    changed = strokes.thicken(_line(), Draws(share), amount=1.0).numpy()
    darkness = (255 - changed).sum(axis=2) / 255
    np.testing.assert_allclose(darkness, width, rtol=1e-6)


def test_a_field_that_is_the_same_everywhere_moves_the_image():
    moved = strokes.bend(_line(), Draws(1.0), amount=2 / 11, fill_value=9.0).numpy()
    expected = np.full_like(moved, 255.0)
    expected[:, :, 2:5] = 0  # Each pixel comes from two to the right and two below.
    expected[:, :, 9:] = expected[:, 9:] = 9.0
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def test_half_a_pixel_is_between_two():
    image = tf.reshape(tf.range(12.0), [1, 3, 4, 1])
    found = strokes._sampled(image, tf.constant([[[[0.5, 1.25]], [[2.0, 3.0]]]]), fill_value=0.0)
    np.testing.assert_allclose(found.numpy().ravel(), [3.25, 11.0], rtol=1e-6)
