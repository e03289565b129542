"""From the bytes of people's image files to pixels of one size."""

from circle_tf import decoding
from circle_tf.decoding import decode

__all__ = ["SUFFIXES", "decode", "image_decoder"]

# What TensorFlow decodes.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".jxl")


def image_decoder(*, image_size: int, channels: int):
    """Makes the `decode` of a split.

    Args:
        image_size: side in pixels; images of other sizes are resized to this square.
        channels: 1 for grey, 3 for colour.

    Returns:
        `fn(bytes of a file) -> [image_size, image_size, channels] uint8`.
    """
    return decoding.image_decoder((image_size, image_size, channels))
