"""Examples by row, wherever they are: images in memory, files, records of TFRecord files."""

import os

import numpy as np
import tensorflow as tf

from circle_tf.data.records import RecordFiles

__all__ = ["as_examples", "decoder", "gather"]


def as_examples(examples, *, decode=None):
    """The form in which `gather` takes examples: an array, or `RecordFiles` as they are.

    Args:
        examples: as in `pk_dataset`; paths become an array of byte strings.
        decode: as in `pk_dataset`.

    Returns:
        An array `[N, ...]` or `RecordFiles`.

    Raises:
        ValueError: paths or records without `decode`, or images with it.
    """
    if isinstance(examples, RecordFiles):
        strings = True
    else:
        examples = np.asarray(examples)
        strings = examples.dtype.kind in "USO"
        if strings:
            examples = np.array([os.fsencode(path) for path in examples], object)
    if strings and decode is None:
        raise ValueError("Expected decode=fn(bytes) -> image for paths or records, found None.")
    if not strings and decode is not None:
        raise ValueError(
            f"Expected decode=None for images in memory (array of {examples.dtype}), found "
            f"{decode}. To change images use augment."
        )
    return examples


def gather(examples, rows: tf.Tensor) -> tf.Tensor:
    """Rows of the examples, in TensorFlow.

    Args:
        examples: as `as_examples` returns them.
        rows: indices `[n]` int64, may be symbolic.

    Returns:
        Images `[n, ...]`, or strings `[n]`: paths, or the bytes of records.
    """
    # A NumPy function, because an array turned into a constant would be copied into the graph.
    if isinstance(examples, RecordFiles):
        contents = tf.numpy_function(
            lambda rows: np.array(examples.fetch(rows), object), [rows], tf.string
        )
        return tf.ensure_shape(contents, rows.shape)
    dtype = tf.string if examples.dtype == object else tf.as_dtype(examples.dtype)
    values = tf.numpy_function(lambda rows: examples[rows], [rows], dtype)
    return tf.ensure_shape(values, [*rows.shape, *examples.shape[1:]])


def decoder(examples, *, decode):
    """What turns one gathered string into an image.

    Args:
        examples: as `as_examples` returns them.
        decode: as in `pk_dataset`.

    Returns:
        `fn(path or bytes) -> image`.
    """
    if isinstance(examples, RecordFiles):
        return decode
    return lambda path: decode(tf.io.read_file(path))
