"""Augmentation for drawings: lines that bend, and pens of other widths.

Functions of images and of `draw`, which has `uniform(shape, minval, maxval)` as a
`tf.random.Generator` has.
"""

import math

import tensorflow as tf

__all__ = ["bend", "thicken"]

_KNOTS = 5  # a side, between which the field is smooth


def bend(images, draw, *, amount, fill_value=0.0):
    """Moves pixels by a smooth random field of each image's own.

    Args:
        images: `[B, H, W, C]` float32.
        draw: source of random numbers.
        amount: the furthest that a knot of the field moves, as a share of the side, either way.
        fill_value: of pixels that come from outside.

    Returns:
        `[B, H, W, C]` float32.
    """
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    knots = draw.uniform([batch, _KNOTS, _KNOTS, 2], -amount, amount)
    moves = tf.image.resize(knots, [height, width], method="bicubic")
    rows, columns = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    places = tf.cast(tf.stack([rows, columns], axis=-1), tf.float32)
    places += moves * tf.constant([height, width], tf.float32)
    return _sampled(images, places, fill_value=fill_value)


def thicken(images, draw, *, amount):
    """Lets dark grow into light, or light into dark, of each image by a width of its own.

    Args:
        images: `[B, H, W, C]` float32.
        draw: source of random numbers.
        amount: the largest growth in pixels on each side of a line, either way.

    Returns:
        `[B, H, W, C]` float32.
    """
    reach = math.ceil(amount)
    widths = draw.uniform([tf.shape(images)[0], 1, 1, 1], -amount, amount)
    light = tf.nn.max_pool2d(images, 2 * reach + 1, strides=1, padding="SAME")
    dark = -tf.nn.max_pool2d(-images, 2 * reach + 1, strides=1, padding="SAME")
    grown = tf.where(widths > 0, light, dark)
    return images + (grown - images) * tf.abs(widths) / reach


def _sampled(images, places, *, fill_value):
    """Images at places `[B, H, W, 2]` (row, column), between pixels by bilinear interpolation."""
    size = tf.constant([images.shape[1], images.shape[2]], tf.float32)
    # A border of the fill value, which all places beyond it see.
    padded = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]], constant_values=fill_value)
    places = tf.clip_by_value(places + 1, 0.0, size + 1)
    corner = tf.floor(places)
    part = (places - corner)[..., None, :]
    corner = tf.cast(corner, tf.int32)

    def at(down, right):
        return tf.gather_nd(padded, corner + [down, right], batch_dims=1)

    above = at(0, 0) * (1 - part[..., 1]) + at(0, 1) * part[..., 1]
    below = at(1, 0) * (1 - part[..., 1]) + at(1, 1) * part[..., 1]
    return above * (1 - part[..., 0]) + below * part[..., 0]
