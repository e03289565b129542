"""Small pictures of a gallery's images, for the page of `export.serve --ui`."""

import numpy as np
import tensorflow as tf

__all__ = ["MOST_BYTES", "at_most", "encoded", "within"]

MOST_BYTES = 64 << 20  # Of all thumbnails of a version.
_QUALITY = 85


def encoded(image, side):
    """An image as a small JPEG; in a graph too.

    Args:
        image: `[H, W, C]` of 0..255, C of 1 or 3.
        side: int, the longer side in pixels at most; a smaller image keeps its size.

    Returns:
        bytes, a scalar string tensor.

    Example:
        >>> tf.io.decode_jpeg(encoded(np.zeros([40, 20, 3]), 8)).shape.as_list()
        [8, 4, 3]
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.minimum(1.0, side / tf.reduce_max(size))
    size = tf.maximum(1, tf.cast(tf.round(size * scale), tf.int32))
    small = tf.image.resize(tf.cast(image, tf.float32), size, antialias=True)
    small = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
    return tf.io.encode_jpeg(small, quality=_QUALITY)


def within(thumbnails, most=None):
    """Thumbnails as far as there is room for them, in their order.

    Args:
        thumbnails: list of bytes.
        most: int, bytes of all together; None for MOST_BYTES.

    Returns:
        list of bytes, empty ones from the first that goes beyond.

    Example:
        >>> within([b"aa", b"bb", b"c"], most=3)
        [b'aa', b'', b'']
    """
    most = MOST_BYTES if most is None else most
    ends = np.cumsum([len(content) for content in thumbnails])
    return [content if end <= most else b"" for content, end in zip(thumbnails, ends, strict=True)]


def at_most(thumbnails, side):
    """Thumbnails made before, none larger than asked for.

    Args:
        thumbnails: list of bytes, or None.
        side: int, pixels; 0 for none.

    Returns:
        list of bytes, or None.
    """
    if thumbnails is None or not side:
        return None
    found = []
    for content in thumbnails:
        image = tf.io.decode_jpeg(content).numpy() if content else np.zeros([1, 1, 1])
        found.append(content if max(image.shape[:2]) <= side else encoded(image, side).numpy())
    return found
