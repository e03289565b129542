"""Data sets from Python: arrays, and what a `tf.data.Dataset` yields."""

import zlib

import numpy as np
import tensorflow as tf
import tqdm

from trainers.datasets import base
from trainers.datasets.collection import held_out

__all__ = ["NAME", "from_arrays", "from_tf_data"]

NAME = "arrays"  # Of the data set, in a run's recipe.


def from_arrays(images, labels, *, test=None, queries=None, gallery=None, test_fraction=0.2):
    """A data set of images in memory, for `trainers.training.loop.train(config, dataset=...)`.

    Args:
        images: what to train on, `[N, H, W, C]` or grey `[N, H, W]`, uint8, pixels in 0..255.
        labels: class of each `[N]`, whole numbers or texts.
        test: `(images, labels)` to test on; None: a share of the classes is held out, the same ones
            every time.
        queries: `(images, labels)` to be looked up in `gallery`, or None.
        gallery: `(images, labels)`, with `queries`; its classes are counted with theirs.
        test_fraction: share of the classes to hold out, 0 to 1.

    Returns:
        base.Dataset.

    Raises:
        base.DataError: images that are no uint8 pixels of one size, labels of another number, or
            too few classes.

    Example:
        >>> images, labels = np.zeros([8, 4, 4], np.uint8), list("aabbccdd")
        >>> found = from_arrays(images, labels)
        >>> found.report
        'arrays: 4 images of 2 classes to train on, 4 images of 2 classes to test on.'
    """
    train = _checked(images, labels, "images")
    if (queries is None) != (gallery is None):
        raise base.DataError("Queries are looked up in a gallery: give both, or neither.")
    if test is None:
        train, test = _divided(train, test_fraction)
    else:
        test = _checked(*test, "test")
    pair = [None if part is None else _checked(*part, "queries") for part in (queries, gallery)]
    shapes = {part[0].shape[1:] for part in (train, test, *pair) if part is not None}
    if len(shapes) > 1:
        raise base.DataError(f"Expected images of one size, found {sorted(map(list, shapes))}.")
    names = sorted({name for part in pair if part is not None for name in part[1].tolist()})
    pair = [None if part is None else _split(*part, names) for part in pair]
    train, test = _split(*train), _split(*test)
    told = [f"{len(split)} images of {len(split.class_names)} classes" for split in (train, test)]
    report = f"{NAME}: {told[0]} to train on, {told[1]} to test on."
    return base.Dataset(NAME, train, test, *pair, shapes.pop(), report)


def from_tf_data(data, *, test=None, **options):
    """A data set of what a `tf.data.Dataset` yields, read into memory once.

    Args:
        data: tf.data.Dataset of `(image, label)`, batched or not; images as of `from_arrays`.
        test: likewise, to test on; None: a share of the classes is held out.
        **options: as of `from_arrays`.

    Returns:
        base.Dataset.

    Raises:
        base.DataError: elements of another form, no end, or as of `from_arrays`.

    Example:
        >>> data = tf.data.Dataset.from_tensor_slices((np.zeros([8, 4, 4], np.uint8), [0, 1] * 4))
        >>> len(from_tf_data(data.batch(3), test=data).train)
        8
    """
    return from_arrays(*_read(data), test=None if test is None else _read(test), **options)


def _read(data):
    spec = data.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not is_pair or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise base.DataError(f"Expected a tf.data.Dataset of (image, label), found one of {spec}.")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise base.DataError("Expected a tf.data.Dataset with an end: leave .repeat() out.")
    if spec[1].shape.rank == 1:
        data = data.unbatch()
    pairs = list(tqdm.tqdm(data.as_numpy_iterator(), desc="reading images", disable=None))
    if len(sizes := {image.shape for image, _ in pairs}) > 1:
        raise base.DataError(f"Expected images of one size, found {sorted(sizes)[:2]}.")
    labels = [label.decode() if isinstance(label, bytes) else label for _, label in pairs]
    return np.array([image for image, _ in pairs]), np.array(labels)


def _checked(images, labels, use):
    """(images `[N, H, W, C]`, labels `[N]`) as arrays."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise base.DataError(
            f"{use}: expected uint8 pixels [N, H, W, C] in 0..255 with 1 or 3 channels, found "
            f"{images.dtype} {list(images.shape)}."
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuUSO":
        raise base.DataError(
            f"{use}: expected a whole number or a text for each of {len(images)} images, found "
            f"{labels.dtype} {list(labels.shape)}."
        )
    return images, labels


def _divided(part, fraction):
    images, labels = part
    names = np.unique(labels)
    tested = held_out([str(name) for name in names], fraction)
    if tested is None:
        raise base.DataError(
            f"Expected enough classes to train on two or more and to hold two or more out, found "
            f"{len(names)} and test_fraction {fraction}. Give test=(images, labels)."
        )
    in_test = np.isin(labels, names[tested])
    return [(images[rows], labels[rows]) for rows in (~in_test, in_test)]


def _split(images, labels, names=None):
    names = np.unique(labels) if names is None else np.array(names)
    return base.Split(
        images,
        base.relabel(labels, classes=names),
        tuple(map(str, names.tolist())),
        identities=np.array([f"{zlib.crc32(image.tobytes()):08x}" for image in images], object),
    )
