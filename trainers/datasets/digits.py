"""scikit-learn's handwritten digits: 1,797 scans of 8 x 8 pixels, small enough for a first test."""

import numpy as np
import tensorflow as tf

from trainers.datasets import base, images

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

    shape = size, _, channels = images.square_shape(config, size=8)
    scans = datasets.load_digits()
    pictures = scans.images[..., None].astype(np.float32) * (255 / 16)
    if size != pictures.shape[1]:
        pictures = tf.image.resize(pictures, shape[:2], method="bilinear", antialias=True).numpy()
    pictures = np.repeat(np.rint(pictures).clip(0, 255).astype(np.uint8), channels, axis=-1)

    def split(classes):
        rows = np.isin(scans.target, classes)
        labels = base.relabel(scans.target[rows], classes=classes)
        return base.Split(pictures[rows], labels, tuple(str(digit) for digit in classes))

    train, test = split(np.setdiff1d(np.arange(10), UNSEEN)), split(UNSEEN)
    return base.Dataset(
        name="digits",
        train=train,
        test=test,
        queries=None,
        gallery=None,
        image_shape=shape,
        report=f"digits: {len(train)} scans of 0-4 to train on, {len(test)} of 5-9 unseen.",
    )
