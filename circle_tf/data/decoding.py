"""From the bytes of people's image files to pixels, the same in training and in serving."""

import tensorflow as tf

from circle_tf.data import image_bytes

__all__ = ["as_channels", "as_pixels", "decode", "image_decoder", "image_resizer"]

# Of a file's beginning, in bytes: where cameras note an orientation.
_HEAD = 8192
_AS_STORED = [b"RI", b"\xff\x0a", b"\x00\x00"]  # WebP, JPEG XL, and JPEG XL in a container.


def decode(content: tf.Tensor) -> tf.Tensor:
    """Decodes the formats of `circle_tf.utils.image_files.FORMATS`, told by content.

    The image is what a viewer shows: of an animation the first frame; turned by the orientation
    that a camera noted in EXIF (of JPEG, PNG and WebP; but for WebP in the first 8 KB); of 16 bits
    a channel the upper 8. Transparency is dropped, what is beneath it is shown (in a GIF black).
    Refused are an animated WebP and a BMP that is compressed or of 16 bits a pixel.

    Args:
        content: bytes of the file, a scalar string.

    Returns:
        Image `[H, W, 3]` uint8; grey images have three equal channels.

    Raises:
        tf.errors.InvalidArgumentError: these are not the bytes of a whole image, or of a kind that
            is refused.

    Example:
        >>> decode(tf.io.encode_png(tf.zeros([2, 3, 1], tf.uint8))).shape.as_list()
        [2, 3, 3]
    """
    image = tf.cond(
        tf.strings.regex_full_match(tf.strings.substr(content, 0, _HEAD), image_bytes.RARE),
        lambda: _decode_rare(content),
        lambda: _decode_colour(content),
    )
    return tf.ensure_shape(image, [None, None, 3])


def image_decoder(image_shape, *, decode=decode):
    """Makes what turns the bytes of a file into an image of one size.

    Args:
        image_shape: `(H, W, C)` in pixels; C is 1 for grey, 3 for colour. Images of other sizes are
            resized, without keeping their proportions.
        decode: `fn(bytes) -> [H, W, 3] uint8`, where it is another than this module's.

    Returns:
        `fn(bytes of a file) -> [H, W, C] uint8`.

    Raises:
        ValueError: another number of channels.

    Example:
        >>> content = tf.io.encode_png(tf.fill([2, 3, 3], tf.constant(7, tf.uint8)))
        >>> image_decoder((1, 1, 1))(content).numpy().tolist()
        [[[7]]]
    """
    resize = image_resizer(image_shape)
    return lambda content: resize(decode(content))


def image_resizer(image_shape):
    """Makes what turns decoded images into images of one size; see `image_decoder`.

    Args:
        image_shape: `(H, W, C)` in pixels; C is 1 for grey, 3 for colour.

    Returns:
        `fn(image [H, W, 3] of any size) -> [H, W, C] uint8`.

    Raises:
        ValueError: another number of channels.

    Example:
        >>> image_resizer((1, 1, 1))(tf.fill([2, 3, 3], 7)).numpy().tolist()
        [[[7]]]
    """
    height, width, channels = image_shape
    _check_channels(channels)

    def resize(image):
        image = as_channels(image, channels)
        # Antialias: a photograph made small without it is all noise.
        image = tf.image.resize(image, [height, width], antialias=True)
        return as_pixels(image, image_shape)

    return resize


def as_channels(image, channels):
    """Colour as it is, or grey as television has it.

    Args:
        image: `[H, W, 3]`.
        channels: 1 or 3.

    Returns:
        `[H, W, channels]` float32.

    Raises:
        ValueError: another number of channels.

    Example:
        >>> as_channels(tf.fill([1, 1, 3], 100), 1).numpy().round(3).tolist()
        [[[100.0]]]
    """
    _check_channels(channels)
    image = tf.cast(image, tf.float32)
    return image if channels == 3 else tf.tensordot(image, [[0.299], [0.587], [0.114]], axes=1)


def as_pixels(image, image_shape):
    """Rounded into 0..255.

    Args:
        image: `[H, W, C]` float.
        image_shape: `(H, W, C)`, which the result says statically.

    Returns:
        `[H, W, C]` uint8.

    Example:
        >>> as_pixels(tf.constant([[[256.0], [0.6]]]), (1, 2, 1)).numpy().tolist()
        [[[255], [1]]]
    """
    image = tf.ensure_shape(image, image_shape)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _check_channels(channels):
    if channels not in (1, 3):
        raise ValueError(
            f"Image files are decoded to 1 channel (grey) or 3 (colour); found {channels}. Take "
            "pixels as input."
        )


# A call in the graph: its many operations would slow the others down, though they are not taken.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)], experimental_attributes={"_noinline": True}
)
def _decode_rare(content):
    start = tf.strings.substr(content, 0, 2)
    image = tf.case(
        [
            (tf.equal(start, b"BM"), lambda: image_bytes.bmp_pixels(content)),
            (tf.reduce_any(tf.equal(start, _AS_STORED)), lambda: _decode_as_stored(content)),
        ],
        default=lambda: _decode_colour(content),
    )
    return image_bytes.upright(tf.ensure_shape(image, [None, None, 3]), content)


def _decode_colour(content):
    return tf.io.decode_image(content, channels=3, expand_animations=False)


def _decode_as_stored(content):
    """TensorFlow gives the channels that the file has, 1 to 4, and converts none."""
    content = image_bytes.checked_webp(content)
    image = tf.io.decode_image(content, channels=0, expand_animations=False)
    return tf.gather(image, tf.where(tf.shape(image)[-1] < 3, [0, 0, 0], [0, 1, 2]), axis=-1)
