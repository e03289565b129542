"""From the bytes of people's image files to pixels of one size."""

import tensorflow as tf

__all__ = ["SUFFIXES", "decode", "image_decoder"]

# What TensorFlow decodes.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".jxl")


def decode(content: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF (its first frame), BMP, WebP (one frame), JPEG XL, told by content.

    Transparency is dropped, and so is the orientation that cameras note in EXIF.

    Args:
        content: bytes of the file, a scalar string.

    Returns:
        Image `[H, W, 3]` uint8; grey images have three equal channels.

    Raises:
        tf.errors.InvalidArgumentError: these are not the bytes of a whole image.
    """
    image = tf.cond(
        tf.equal(tf.strings.substr(content, 0, 2), "BM"),
        lambda: _decode_bmp(content),
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_bmp(content):
    # The only format that TensorFlow decodes but does not convert to 3 channels.
    image = tf.io.decode_bmp(content)
    channels = tf.minimum([0, 1, 2], tf.shape(image)[-1] - 1)
    return tf.gather(image, channels, axis=-1)


def image_decoder(*, image_size: int, channels: int):
    """Makes the `decode` of a split.

    Args:
        image_size: side in pixels; images of other sizes are resized to this square.
        channels: 1 for grey, 3 for colour.

    Returns:
        `fn(bytes of a file) -> [image_size, image_size, channels] uint8`.
    """

    def decode_and_resize(content):
        image = tf.cast(decode(content), tf.float32)
        if channels == 1:
            image = tf.tensordot(image, [[0.299], [0.587], [0.114]], axes=1)
        # Antialias: a photograph made small without it is all noise.
        image = tf.image.resize(image, [image_size, image_size], antialias=True)
        image = tf.ensure_shape(image, [image_size, image_size, channels])
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    return decode_and_resize
