"""scikit-learn's handwritten digits: 1,797 scans of 8 x 8 pixels, small enough for a first test."""

import numpy as np
import tensorflow as tf

from trainers.datasets import base

__all__ = ["load"]

UNSEEN = np.arange(5, 10)


def load(config) -> base.Dataset:
    """Digits 0-4 to train on, 5-9 unseen.

    Args:
        config: `image_size` (side in pixels; default 8, as scanned; larger is interpolated),
            `channels` (1 or 3, default 1).

    Returns:
        The data set; without queries and gallery.
    """
    from sklearn import datasets

    size, channels = config.get("image_size", 8), config.get("channels", 1)
    scans = datasets.load_digits()
    images = scans.images[..., None].astype(np.float32) * (255 / 16)
    if size != images.shape[1]:
        images = tf.image.resize(images, (size, size), method="bilinear", antialias=True).numpy()
    images = np.repeat(np.rint(images).clip(0, 255).astype(np.uint8), channels, axis=-1)

    def split(classes):
        rows = np.isin(scans.target, classes)
        labels = base.relabel(scans.target[rows], classes=classes)
        return base.Split(images[rows], labels, tuple(str(digit) for digit in classes))

    train, test = split(np.setdiff1d(np.arange(10), UNSEEN)), split(UNSEEN)
    return base.Dataset(
        name="digits",
        train=train,
        test=test,
        queries=None,
        gallery=None,
        image_shape=(size, size, channels),
        report=f"digits: {len(train)} scans of 0-4 to train on, {len(test)} of 5-9 unseen.",
    )
