"""Every format that counts as an image is decoded, and to one shape."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from circle_tf import compat
from circle_tf.data import decoding

newer_formats = pytest.mark.skipif(
    not compat.IS_KERAS_3, reason="TensorFlow 2.15 reads neither WebP nor JPEG XL"
)


def _encoded(pixels, kind, **options):
    stream = io.BytesIO()
    pixels.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, [7, 9, 3], np.uint8)


@pytest.mark.parametrize(
    "kind, options",
    [("png", {}), ("bmp", {}), pytest.param("webp", {"lossless": True}, marks=newer_formats)],
)
def test_lossless_formats_are_exact(pixels, kind, options):
    decoded = decoding.decode(tf.constant(_encoded(Image.fromarray(pixels), kind, **options)))
    np.testing.assert_array_equal(decoded, pixels)


@newer_formats
def test_jpeg_xl_is_exact():
    content = base64.b64decode("/woIQBAJCAABADQASxiLFUIxUR/AiQAwAg==")  # Pillow writes none.
    decoded = decoding.decode(tf.constant(content))
    np.testing.assert_array_equal(decoded, np.full([2, 3, 3], (10, 20, 30), np.uint8))


@pytest.mark.parametrize("kind", ["png", "bmp", "jpeg"])
def test_grey_images_get_three_equal_channels(pixels, kind):
    grey = Image.fromarray(pixels).convert("L")
    decoded = decoding.decode(tf.constant(_encoded(grey, kind))).numpy()
    assert decoded.shape == (7, 9, 3)
    assert (decoded == decoded[..., :1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16"])
def test_every_mode_of_png(pixels, mode):
    image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
    image = image.convert(mode)
    assert decoding.decode(tf.constant(_encoded(image, "png"))).shape == (7, 9, 3)


def test_bmp_with_alpha(pixels):
    image = Image.fromarray(pixels).convert("RGBA")
    decoded = decoding.decode(tf.constant(_encoded(image, "bmp")))
    np.testing.assert_array_equal(decoded, pixels)


def test_jpeg_is_near(pixels):
    flat = np.full([16, 16, 3], (200, 100, 50), np.uint8)
    decoded = decoding.decode(tf.constant(_encoded(Image.fromarray(flat), "jpeg", quality=95)))
    np.testing.assert_allclose(decoded, flat, atol=4)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "green")]
    content = _encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    decoded = decoding.decode(tf.constant(content)).numpy()
    assert decoded.shape == (4, 5, 3)
    np.testing.assert_array_equal(decoded[0, 0], [255, 0, 0])


@pytest.mark.parametrize("content", [b"", b"a text", b"BM and no more"])
def test_what_is_no_image(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode(tf.constant(content))


def test_truncated_image(pixels):
    content = _encoded(Image.fromarray(np.tile(pixels, [20, 20, 1])), "png")
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode(tf.constant(content[: len(content) // 2]))


@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_gives_one_static_shape(pixels, channels):
    decode = decoding.image_decoder((20, 20, channels))
    traced = tf.function(decode).get_concrete_function(tf.TensorSpec([], tf.string))
    assert traced.structured_outputs.shape == (20, 20, channels)
    content = tf.constant(_encoded(Image.fromarray(pixels), "png"))
    assert traced(content).dtype == tf.uint8
    np.testing.assert_array_equal(traced(content), decode(content))


def test_size_that_fits_leaves_the_pixels_alone(pixels):
    square = np.ascontiguousarray(pixels[:, :7])
    content = tf.constant(_encoded(Image.fromarray(square), "png"))
    decode = decoding.image_decoder((7, 7, 3))
    np.testing.assert_array_equal(decode(content), square)
    grey = decoding.image_decoder((7, 7, 1))(content).numpy()[..., 0]
    np.testing.assert_allclose(grey, np.asarray(Image.fromarray(square).convert("L")), atol=1)


def test_white_stays_white_in_grey():
    content = tf.constant(_encoded(Image.new("RGB", (6, 6), "white"), "png"))
    assert (decoding.image_decoder((4, 4, 1))(content).numpy() == 255).all()


def test_an_image_is_fitted_to_height_and_width(pixels):
    content = tf.constant(_encoded(Image.fromarray(pixels), "png"))
    assert decoding.image_decoder((6, 3, 3))(content).shape == (6, 3, 3)
