"""Faces put into place by five points, as the nets of face recognition are trained on."""

import numpy as np
import tensorflow as tf

from circle_tf.data import decoding

__all__ = ["REFERENCE", "aligned_decoder", "transforms"]

# Eyes, nose and corners of the mouth, x and y, in a picture of 112 x 112: those of published face
# data (Deng et al., "ArcFace", CVPR 2019).
REFERENCE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_SIDE = 112


def transforms(points, *, side):
    """Where each pixel of an aligned picture comes from.

    The similarity (turn, scale, shift) that brings the points nearest to the reference in the mean
    square; in two dimensions that is the complex line `w = a z + b` (Umeyama, PAMI 1991).

    Args:
        points: `[N, 5, 2]`, x and y in pixels of the picture as it is.
        side: int, of the aligned picture in pixels.

    Returns:
        `[N, 8]` float32, rows as `tf.raw_ops.ImageProjectiveTransformV3` takes them.

    Raises:
        ValueError: points of another shape, not finite, or all in one place.

    Example:
        >>> abs(transforms(REFERENCE[None] + 10, side=112)).round(3).tolist()
        [[1.0, 0.0, 10.0, 0.0, 1.0, 10.0, 0.0, 0.0]]
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or points.shape[1:] != REFERENCE.shape or not np.isfinite(points).all():
        raise ValueError(f"points must be finite, of shape [N, 5, 2]; found {list(points.shape)}.")
    source, target = points @ [1, 1j], REFERENCE @ [1, 1j] * (side / _SIDE)
    means = source.mean(axis=1, keepdims=True)
    spread = (np.abs(source - means) ** 2).sum(axis=1)
    if not spread.all():
        raise ValueError(f"The five points of face {int(np.argmin(spread))} are in one place.")
    a = (np.conj(source - means) * (target - target.mean())).sum(axis=1) / spread
    inverse, shift = 1 / a, means[:, 0] - target.mean() / a
    zero = np.zeros_like(shift.real)
    across = [inverse.real, -inverse.imag, shift.real]
    down = [inverse.imag, inverse.real, shift.imag]
    return np.stack([*across, *down, zero, zero], axis=1).astype(np.float32)


def aligned_decoder(image_shape):
    """Makes what turns the bytes of a file into an aligned face.

    Args:
        image_shape: `(H, H, C)` in pixels; C is 1 for grey, 3 for colour.

    Returns:
        `fn(bytes of a file, transform [8]) -> [H, H, C] uint8`; black where there is no picture.

    Raises:
        ValueError: not square.

    Example:
        >>> content = tf.io.encode_png(tf.fill([112, 112, 3], tf.constant(7, tf.uint8)))
        >>> aligned_decoder((8, 8, 1))(content, transforms(REFERENCE[None], side=8)[0]).shape
        TensorShape([8, 8, 1])
    """
    height, width, channels = image_shape
    if height != width:
        raise ValueError(f"Faces are aligned to squares; the model takes {height} x {width}.")

    def decode(content, transform):
        image = decoding.as_channels(decoding.decode(content), channels)
        placed = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=transform[None],
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
        return decoding.as_pixels(placed[0], image_shape)

    return decode
