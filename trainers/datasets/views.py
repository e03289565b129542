"""What of an image an example shows: a part of it, or all of it turned by quarters."""

import concurrent.futures
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from circle_tf.data import decoding
from circle_tf.utils import errors
from trainers.datasets import base, places

__all__ = ["WHOLE", "Views", "decode"]

WHOLE = (0, 0, 0, 0)  # The box of an image that is shown whole.
_HEADER = np.dtype("<i4"), 5  # Before an image's bytes: its box, and its turns.
_BYTES = _HEADER[0].itemsize * _HEADER[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Views:
    """Examples, and of each the part of its image to take and how far to turn that.

    Args:
        examples: paths `[N]` of files, or a `circle_tf.records.RecordFiles` of N records.
        boxes: left, top, width and height in pixels `[N, 4]`, of the image as a viewer shows it;
            `WHOLE` for all of it.
        turns: quarters of a turn `[N]`, counter-clockwise.
    """

    examples: Any
    boxes: np.ndarray
    turns: np.ndarray

    def __len__(self):
        return len(self.boxes)

    def take(self, rows):
        """Some of the examples."""
        return Views(self.examples.take(rows), self.boxes[rows], self.turns[rows])

    def where(self, row):
        """What to call an example in messages."""
        is_record = hasattr(self.examples, "where")
        return self.examples.where(row) if is_record else str(self.examples[row])

    def fetch(self, rows):
        """Reads examples; may be called from several threads at once.

        Args:
            rows: which `[n]`.

        Returns:
            list of bytes, as `decode` takes them.

        Raises:
            base.DataError: a file cannot be read.
        """
        rows = np.asarray(rows, np.int64)
        headers = np.column_stack([self.boxes[rows], self.turns[rows]]).astype(_HEADER[0])
        if hasattr(self.examples, "fetch"):
            contents = self.examples.fetch(rows)
        else:
            contents = _read_all([self.examples[row] for row in rows])
        return [
            header.tobytes() + content for header, content in zip(headers, contents, strict=True)
        ]


def decode(data, *, content):
    """The view as pixels.

    Args:
        data: bytes as of `Views.fetch`, a scalar string.
        content: `fn(bytes of file or record) -> bytes of the image`, in TensorFlow operations.

    Returns:
        Image `[H, W, 3]` uint8. Of a box that reaches over the image's edge the part within.

    Raises:
        tf.errors.InvalidArgumentError: no image, or a box that lies outside it.

    Example:
        >>> png = tf.io.encode_png(tf.constant([[[0], [1], [2]], [[3], [4], [5]]], tf.uint8))
        >>> header = np.array([1, 0, 9, 1, 0], "<i4").tobytes()
        >>> decode(tf.constant(header) + png, content=lambda data: data).numpy()[..., 0].tolist()
        [[1, 2]]
    """
    header = tf.io.decode_raw(tf.strings.substr(data, 0, _BYTES), tf.int32)
    image = decoding.decode(content(tf.strings.substr(data, _BYTES, tf.strings.length(data))))
    image = _cut(image, header[:4])
    return tf.ensure_shape(tf.image.rot90(image, header[4]), [None, None, 3])


def _cut(image, box):
    size = tf.gather(tf.shape(image), [1, 0])  # Width, height.
    start, end = tf.maximum(box[:2], 0), tf.minimum(box[:2] + box[2:], size)
    whole = tf.reduce_all(box == 0)
    start, end = tf.where(whole, 0, start), tf.where(whole, size, end)
    told = "the box {} (left, top, width, height) lies outside the image of {} pixels."
    inside = tf.debugging.Assert(tf.reduce_all(end > start), [tf.strings.format(told, (box, size))])
    with tf.control_dependencies([inside] if inside is not None else []):
        return image[start[1] : end[1], start[0] : end[0]]


def _read_all(paths):
    def read(path):
        try:
            return places.read(path)
        except tf.errors.OpError as error:
            raise base.DataError(f"{path}: {errors.reason(error)}") from error

    if not any(places.is_remote(path) for path in paths):
        return [read(path) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(read, paths))
