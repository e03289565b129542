"""Small images as bytes, in the formats that people have."""

import io

import numpy as np
from PIL import Image

__all__ = ["picture"]


def picture(kind="png", *, size=(9, 7), mode="RGB", seed=0):
    """Bytes of an image of random pixels.

    Args:
        kind: a format that Pillow writes.
        size: width and height in pixels.
        mode: Pillow's mode, such as RGB, RGBA, L, P.
        seed: whole number.

    Returns:
        The bytes of the file.

    Example:
        >>> picture("png")[:4]
        b'\\x89PNG'
    """
    pixels = np.random.default_rng(seed).integers(0, 256, [size[1], size[0], 3], np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()
