"""Every format that counts as an image is decoded, and to one shape."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from circle_tf.data import decoding
from circle_tf.utils import errors
from tests import stacks

needs_webp = pytest.mark.skipif(
    stacks.TENSORFLOW < (2, 20), reason="WebP came with TensorFlow 2.20"
)
needs_jpeg_xl = pytest.mark.skipif(
    stacks.TENSORFLOW < (2, 21), reason="JPEG XL came with TensorFlow 2.21"
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
    [("png", {}), ("bmp", {}), pytest.param("webp", {"lossless": True}, marks=needs_webp)],
)
def test_lossless_formats_are_exact(pixels, kind, options):
    decoded = decoding.decode(tf.constant(_encoded(Image.fromarray(pixels), kind, **options)))
    np.testing.assert_array_equal(decoded, pixels)


def _in_mode(mode):
    """Blocks of colours, with transparency where the mode has it."""
    blocks = np.random.default_rng(1).integers(0, 256, [3, 4, 4], np.uint8)
    blocks = np.kron(blocks, np.ones([8, 8, 1], np.uint8))[:21, :27]
    colour = Image.fromarray(blocks[..., :3])
    if mode == "I;16":
        return Image.fromarray(blocks[..., 0].astype(np.uint16) << 8 | 0xAB)
    if mode.startswith("P"):
        return colour.quantize(int(mode[1:]))
    found = colour.convert(mode.rstrip("A") or mode)
    if mode.endswith("A"):
        found.putalpha(Image.fromarray(blocks[..., 3]))
    return found


def _as_viewed(content):
    """What Pillow shows of the file, turned upright, without transparency."""
    with Image.open(io.BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "I;16":  # Pillow's conversion clips what is above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


PALETTES = ["1", "L", "P2", "P8", "P16", "P200"]
EVERY_MODE = [
    *(("png", mode, {}) for mode in [*PALETTES, "LA", "RGB", "RGBA", "I;16"]),
    *(("bmp", mode, {}) for mode in [*PALETTES, "RGB", "RGBA"]),
    *(("gif", mode, {}) for mode in [*PALETTES, "RGB"]),
    *(("jpeg", mode, {"quality": 90}) for mode in ["L", "RGB", "CMYK"]),
    ("jpeg", "RGB", {"quality": 90, "progressive": True}),
    ("jpeg", "RGB", {"quality": 90, "subsampling": 0}),
]
EVERY_MODE_OF_WEBP = [
    ("webp", mode, options)
    for mode in ["L", "LA", "P8", "RGB", "RGBA"]
    for options in ({}, {"lossless": True, "exact": True})
]


@pytest.mark.parametrize(
    "kind, mode, options",
    [*EVERY_MODE, *(pytest.param(*case, marks=needs_webp) for case in EVERY_MODE_OF_WEBP)],
)
def test_what_is_decoded_is_what_a_viewer_shows(kind, mode, options):
    content = _encoded(_in_mode(mode), kind, **options)
    # Decoders of JPEG round differently.
    allowed = 14 if kind == "jpeg" else 0
    decoded = decoding.decode(tf.constant(content)).numpy()
    np.testing.assert_allclose(decoded.astype(int), _as_viewed(content), atol=allowed)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", pytest.param("webp", marks=needs_webp)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_images_are_turned_as_their_camera_noted(kind, orientation, order):
    noted = Image.Exif()
    noted.endian = order
    noted[0x010F], noted[0x0112], noted[0x0131] = "a camera", orientation, "its software"
    content = _encoded(
        _in_mode("RGB"), kind, exif=noted, **{"lossless": True} if kind == "webp" else {}
    )
    decoded = decoding.decode(tf.constant(content)).numpy()
    viewed = _as_viewed(content)
    np.testing.assert_allclose(decoded.astype(int), viewed, atol=14 if kind == "jpeg" else 0)
    turned = decoding.image_decoder((*viewed.shape[:2], 3))  # As a graph: training, servables.
    (found,) = tf.map_fn(turned, tf.constant([content]), fn_output_signature=tf.uint8)
    np.testing.assert_array_equal(found, decoded)


def test_exif_is_found_behind_other_segments():
    noted = Image.Exif()
    noted[0x0112] = 6
    content = _encoded(_in_mode("RGB"), "jpeg", exif=noted)
    start = content.index(b"\xff\xe1")
    others = b"\xff\xe1\x00\x0chttp://ns\0" + b"\xff\xfe\x00\x04hi"
    content = content[:start] + others + content[start:]
    assert decoding.decode(tf.constant(content)).shape == (27, 21, 3)


@pytest.mark.parametrize("cut", range(2, 26, 3))
def test_damaged_exif_turns_nothing(cut):
    noted = Image.Exif()
    noted[0x0112] = 6
    content = bytearray(_encoded(_in_mode("RGB"), "jpeg", exif=noted))
    at = content.index(b"Exif\0\0") + 6
    content[at : at + cut] = b"\xff" * cut  # The tag is overwritten last.
    assert decoding.decode(tf.constant(bytes(content))).shape == (21, 27, 3)


def test_an_orientation_in_the_pixels_is_none():
    """The bytes of such a tag can stand anywhere."""
    tag = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    content = _encoded(Image.frombytes("L", (4, 3), tag), "png", compress_level=0)
    assert tag[:4] in content
    np.testing.assert_array_equal(decoding.decode(tf.constant(content)), _as_viewed(content))


# Pillow writes none. Lossless images of 2 x 3 pixels, by libjxl.
JPEG_XL = {
    "RGB": "/woIQBAJCAABAIQASxiLFcIJeC7m8QuEAWBBVKjQuFJKnZcxOCjwcl8JyAwI",
    "RGBA": "/woIQLASCAAQAKgASxiLFcIJeMPXTlxADIAlOeigpGpKTOZ5pgYyUR27YanwzzP7+nuuj6F5",
    "L": "/woIQBAUNwIIAAEAOABLGIsVwkEZDhL5e8AWAg==",
    "LA": "/woIQLAobgQIABAAgABLGIsVwgls2ziUXeAAgAEQItJvROFqHiSOb1v51g54AQ==",
}


@needs_jpeg_xl
@pytest.mark.parametrize("mode", JPEG_XL)
def test_every_mode_of_jpeg_xl_is_exact(mode):
    colours = [[[10, 20, 30], [200, 100, 0], [5, 6, 7]], [[1, 2, 3], [50, 60, 70], [90, 80, 255]]]
    image = Image.fromarray(np.array(colours, np.uint8)).convert(mode.rstrip("A"))
    decoded = decoding.decode(tf.constant(base64.b64decode(JPEG_XL[mode])))
    np.testing.assert_array_equal(decoded, image.convert("RGB"))


def _bmp(*, header=40, bits=8, compression=0):
    content = bytearray(_encoded(_in_mode("P8"), "bmp"))
    for at, value in ((14, header), (28, bits), (30, compression)):
        content[at : at + 2] = value.to_bytes(2, "little")
    return bytes(content)


@pytest.mark.parametrize("change", [{"compression": 1}, {"bits": 16}, {"header": 12}, {"bits": 0}])
def test_kinds_of_bmp_that_are_refused_by_name(change):
    assert decoding.decode(tf.constant(_bmp())).shape == (21, 27, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="This BMP .* save it as PNG"):
        decoding.decode(tf.constant(_bmp(**change)))


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (1 << 31, 1 << 31), (27, 3000)])
def test_sizes_that_a_bmp_does_not_hold(size):
    content = bytearray(_bmp())
    content[18:26] = b"".join(side.to_bytes(4, "little") for side in size)
    with pytest.raises(tf.errors.InvalidArgumentError, match="This BMP is cut off"):
        decoding.decode(tf.constant(bytes(content)))


def test_a_bmp_from_the_top_down():
    content = bytearray(_bmp())
    content[22:26] = (-21).to_bytes(4, "little", signed=True)
    decoded = decoding.decode(tf.constant(bytes(content)))
    np.testing.assert_array_equal(decoded, _as_viewed(_bmp())[::-1])


def test_transparent_places_of_a_gif_are_black():
    image = _in_mode("P8")
    decoded = decoding.decode(tf.constant(_encoded(image, "gif", transparency=0))).numpy()
    expected = np.where(np.asarray(image)[..., None] == 0, 0, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(decoded, expected)


@needs_webp
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_animated_webp_is_refused_by_name(mode):
    """TensorFlow writes beyond its memory when it decodes one without transparency."""
    frames = [_in_mode(mode), _in_mode(mode).rotate(180)]
    content = _encoded(frames[0], "webp", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decoding.decode(tf.constant(content))
    assert errors.reason(caught.value).startswith("An animated WebP is not read: save one of its")


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
